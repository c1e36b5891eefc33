//! How topics are read: the keys `client`, `membership`, `group_instance_id`, `partitions`, `instance` and
//! `isolation_level`, and what has to hold between them.
//!
//! `membership` and the three keys that belong to it are one setting in four: what a `[[topic]]` writes of
//! them goes over all that `[consumer]` writes and that can't stand beside it. So a topic of its own way
//! needs no key that takes another one back.

use std::collections::BTreeSet;

use super::errors::TableName;
use super::read::{Context, Origin, Reader};
use super::report::Setting;
use super::resolve::Tables;
use super::value::{self, Choice};
use crate::client::reading::{BUILD_WITH_LIBRDKAFKA as WITHOUT, HAS_LIBRDKAFKA as BUILT};
use crate::client::{Isolation, Library, Membership, Portion, Reading, Security};

/// `client`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Auto,
    Only(Library),
}

impl Choice for Client {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("kafka", Self::Only(Library::Kafka)), ("librdkafka", Self::Only(Library::Librdkafka))];
}

/// `membership`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Members {
    None,
    Group,
}

impl Choice for Members {
    const ALL: &'static [(&'static str, Self)] = &[("none", Self::None), ("group", Self::Group)];
}

impl Choice for Isolation {
    const ALL: &'static [(&'static str, Self)] =
        &[("read_committed", Self::ReadCommitted), ("read_uncommitted", Self::ReadUncommitted)];
}

/// `kafka.client`, and what else of `[kafka]` decides about it.
pub(super) struct Kafka {
    client: Option<Client>,
    /// As it stands in the report.
    pub(super) setting: Option<Setting>,
    security: Option<Security>,
}

/// The values of one table, as far as they are right.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Keys {
    client: Option<Client>,
    membership: Option<Membership>,
    pub(super) isolation: Option<Isolation>,
}

impl Keys {
    /// In the words of clients.
    pub(super) fn reading(&self) -> Option<Reading> {
        let (membership, client) = (self.membership.clone()?, self.client?);
        let library = match (client, &membership) {
            (Client::Only(library), _) => Some(library),
            // The only one that can be a member.
            (Client::Auto, Membership::Group { .. }) => Some(Library::Librdkafka),
            (Client::Auto, Membership::None(_)) => None,
        };
        Some(Reading { library, membership })
    }

    /// The keys in which a topic can't differ from `base` if one client reads all topics, and does.
    pub(super) fn differ(&self, base: &Self, reader: &Reader<'_, '_>) -> Vec<&'static str> {
        fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            matches!((a, b), (Some(a), Some(b)) if a != b)
        }
        let mut keys = Vec::new();
        keys.extend(differ(&self.client, &base.client).then_some("client"));
        if differ(&self.membership, &base.membership) {
            let written = |key: &&str| reader.own(key).is_some();
            keys.extend(["membership", "group_instance_id", "partitions", "instance"].into_iter().filter(written));
        }
        keys.extend(differ(&self.isolation, &base.isolation).then_some("isolation_level"));
        keys
    }
}

/// Reads `kafka.client`, for the topics that have none of their own. `security` is that of `[kafka]`, if that
/// could be read.
pub(super) fn of_kafka<'a>(tables: &Tables<'a>, context: &mut Context<'a>, security: Option<&Security>) -> Kafka {
    let place = tables.file.get("kafka").map_or(0, |entry| entry.span().start);
    let layers = tables.kafka_layers();
    let mut reader = Reader::new(context, TableName::new("kafka"), place, layers);
    let client = reader.choice("client");
    let setting = reader.setting("client").cloned();
    for text in client.into_iter().flat_map(|client| of_client(client, security, BUILT)) {
        reader.wrong("client", text);
    }
    if let Some(table) = security.and_then(|security| needs_librdkafka(security, BUILT)) {
        let text = format!("needs librdkafka, and {WITHOUT}; or use a PLAINTEXT listener");
        let own = tables.file.get("kafka").and_then(|kafka| kafka.get_ref().as_table()?.get(table));
        reader.wrong_at(own.map_or(place, |own| own.span().start), table, text);
    }
    Kafka { client, setting, security: security.cloned() }
}

/// What is wrong with a `client`, whatever the topics are.
fn of_client(client: Client, security: Option<&Security>, built: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    if client == Client::Only(Library::Librdkafka) && !built {
        wrong.push(format!("is \"librdkafka\", and {WITHOUT}; or write \"kafka\""));
    }
    if let (Client::Only(Library::Kafka), Some(table)) = (client, security.and_then(protected_by)) {
        wrong.push(format!(
            "is \"kafka\", which can't do what [kafka.{table}] asks for; write \"auto\" or \"librdkafka\", or use a PLAINTEXT listener"
        ));
    }
    wrong
}

/// The table that makes a connection more than plain.
fn protected_by(security: &Security) -> Option<&'static str> {
    (!security.is_plain()).then_some(if security.tls.is_some() { "tls" } else { "sasl" })
}

/// The table that can't be had without librdkafka, if that is not there.
fn needs_librdkafka(security: &Security, built: bool) -> Option<&'static str> {
    protected_by(security).filter(|_| !built)
}

/// What keeps a topic from being read by a member of its group.
fn of_group(client: Option<Client>, built: bool) -> Option<String> {
    if !built {
        return Some(format!("is \"group\", which needs librdkafka, and {WITHOUT}; or write \"none\""));
    }
    (client == Some(Client::Only(Library::Kafka))).then(|| {
        "is \"group\", and client is \"kafka\", which can't be a member of a group; write client = \"auto\" or \"librdkafka\", or membership = \"none\""
            .to_owned()
    })
}

/// Reads the keys of `[consumer]`, or of a `[[topic]]` if `below` says what it has from there.
pub(super) fn read(reader: &mut Reader<'_, '_>, kafka: &Kafka, below: Option<&Keys>) -> Keys {
    let client = match below {
        Some(_) => reader.choice("client"),
        None => kafka.client,
    };
    if let (Some(client), Some(_), Some(_)) = (client, below, reader.own("client")) {
        for text in of_client(client, kafka.security.as_ref(), BUILT) {
            reader.wrong("client", text);
        }
    }
    let isolation = reader.choice("isolation_level");
    let in_file = matches!(reader.origin("isolation_level"), Some(Origin::File { .. }));
    let news = below.is_none_or(|below| (below.client, below.isolation) != (client, isolation));
    if (client, isolation) == (Some(Client::Only(Library::Kafka)), Some(Isolation::ReadCommitted)) && in_file && news {
        let (line, table) = (reader.context.lines.line(reader.place("isolation_level")), reader.table());
        reader.context.warnings.push(format!(
            "line {line}: {table}: isolation_level = \"read_committed\" does nothing with client = \"kafka\", which delivers records of aborted transactions, too; write client = \"auto\" or \"librdkafka\""
        ));
    }
    let membership = membership(reader, client, below.is_some());
    Keys { client, membership, isolation }
}

/// Reads `membership` and what belongs to it.
fn membership(reader: &mut Reader<'_, '_>, client: Option<Client>, topic: bool) -> Option<Membership> {
    const GROUP: [&str; 1] = ["group_instance_id"];
    const NONE: [&str; 2] = ["partitions", "instance"];
    let members: Option<Members> = reader.choice("membership");
    let instance_id = reader.text("group_instance_id", value::instance_id);
    let partitions = reader.partitions("partitions");
    let instance = reader.text("instance", |text| value::instance(text).map(drop));
    // What the table that is read writes itself goes over what it has from [consumer].
    let own = |reader: &Reader<'_, '_>, key: &str| reader.own(key).is_some();
    let mut aside: Vec<&'static str> = Vec::new();
    if topic && own(reader, "membership") {
        let others: &[_] = if members == Some(Members::Group) { &NONE } else { &GROUP };
        aside.extend(others);
    }
    let pair = NONE.map(|key| own(reader, key));
    if topic && pair[0] != pair[1] {
        aside.push(if pair[0] { "instance" } else { "partitions" });
    }
    aside.retain(|key| !own(reader, key));
    for key in &aside {
        reader.set_aside(key);
    }
    let written = |reader: &Reader<'_, '_>, key: &'static str| {
        !aside.contains(&key) && matches!(reader.origin(key), Some(Origin::File { .. }))
    };
    let mut good = true;
    let mut wrong = |reader: &mut Reader<'_, '_>, key: &str, text: &str| {
        reader.wrong(key, text.to_owned());
        good = false;
    };
    if written(reader, "partitions") && written(reader, "instance") {
        wrong(
            reader,
            "instance",
            "can't stand beside partitions: both say which partitions this worker reads; leave one of them out",
        );
    }
    match members {
        Some(Members::Group) => {
            for key in NONE {
                if written(reader, key) {
                    wrong(
                        reader,
                        key,
                        "is for membership = \"none\", and membership is \"group\", with which Kafka shares out the partitions; leave it out, or write membership = \"none\"",
                    );
                }
            }
            // Of what is wholly inherited [consumer] has told.
            let here = !topic || own(reader, "membership") || own(reader, "client");
            if let Some(text) = of_group(client, BUILT).filter(|_| here) {
                wrong(reader, "membership", &text);
            }
        }
        Some(Members::None) if written(reader, "group_instance_id") => {
            wrong(
                reader,
                "group_instance_id",
                "is for membership = \"group\", and membership is \"none\", with which the worker is no member; write membership = \"group\", or leave it out",
            );
        }
        Some(Members::None) | None => {}
    }
    let value = |key: &str| !aside.contains(&key);
    let (partitions, instance) = (partitions.filter(|_| value("partitions")), instance.filter(|_| value("instance")));
    // One that could not be read has its error, and all partitions are not what was meant.
    good &= NONE.iter().chain(&GROUP).all(|key| !written(reader, key) || reader.setting(key).is_some());
    good.then_some(())?;
    Some(match members? {
        Members::Group => Membership::Group { instance_id: instance_id.filter(|_| value("group_instance_id")) },
        Members::None => Membership::None(portion(partitions, instance.as_deref())),
    })
}

fn portion(partitions: Option<BTreeSet<i32>>, instance: Option<&str>) -> Portion {
    let instance = instance.and_then(|text| value::instance(text).ok());
    match (partitions, instance) {
        (Some(partitions), _) => Portion::Partitions(partitions),
        (None, Some((number, of))) => Portion::Instance { number, of },
        (None, None) => Portion::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no test of a whole program can show, as that was built one way.
    #[test]
    fn a_program_without_librdkafka_says_so() {
        let sasl = crate::client::security::Sasl {
            mechanism: crate::client::security::Mechanism::Plain,
            username: "u".to_owned(),
            password: crate::client::security::Secret::new("p"),
        };
        let sasl = Security { tls: None, sasl: Some(sasl) };
        let plain = Some(&Security { tls: None, sasl: None });
        let (rdkafka, kafka) = (Client::Only(Library::Librdkafka), Client::Only(Library::Kafka));
        assert_eq!(of_client(rdkafka, plain, true), Vec::<String>::new());
        assert!(of_client(rdkafka, plain, false)[0].contains("built without librdkafka"));
        for client in [Client::Auto, kafka] {
            assert_eq!(of_client(client, plain, false), Vec::<String>::new());
        }
        assert!(of_client(kafka, Some(&sasl), true)[0].contains("[kafka.sasl]"));
        assert_eq!(of_client(Client::Auto, Some(&sasl), true), Vec::<String>::new());
        assert_eq!((needs_librdkafka(&sasl, true), needs_librdkafka(&sasl, false)), (None, Some("sasl")));
        assert_eq!(of_group(Some(Client::Auto), true), None);
        assert!(of_group(Some(Client::Auto), false).is_some_and(|text| text.contains("built without librdkafka")));
        assert!(of_group(Some(kafka), true).is_some_and(|text| text.contains("client is \"kafka\"")));
    }
}
