//! `[consumer]` and the tables `[[topic]]`: the layers of each topic.
//!
//! Owns the keys that can differ from topic to topic, their limits, and the names of groups.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::errors::{Faults, TableName, short};
use super::read::{Context, Layer, Origin, Reader};
use super::reading::Kafka;
use super::report::{Scope, Setting, Source};
use super::resolve::{DAY_MS, KAFKA_INT_MAX, Tables};
use super::value::{self, Choice};
use super::{AutoOffsetReset, Mode, OnOutOfRange, OnTakeoverTimeout, TopicSettings, reading};
use crate::client::Membership;
use crate::failure::{OnFailure, Policy};

/// Less than this can't hold a batch worth fetching.
const FETCH_BYTES_MIN: u64 = 1 << 10;

impl Choice for AutoOffsetReset {
    const ALL: &'static [(&'static str, Self)] = &[("latest", Self::Latest), ("earliest", Self::Earliest)];
}

impl Choice for OnTakeoverTimeout {
    const ALL: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("proceed", Self::Proceed)];
}

impl Choice for OnOutOfRange {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto_offset_reset", Self::AutoOffsetReset),
        ("earliest", Self::Earliest),
        ("latest", Self::Latest),
        ("nearest", Self::Nearest),
        ("stop", Self::Stop),
    ];
}

impl Choice for OnFailure {
    const ALL: &'static [(&'static str, Self)] =
        &[("stop", Self::Stop), ("dead_letter", Self::DeadLetter), ("drop", Self::Drop)];
}

/// The names of the tables in `profiles.toml`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Profile(&'static str);

impl Choice for Profile {
    const ALL: &'static [(&'static str, Self)] = &[
        ("balanced", Self("balanced")),
        ("high-throughput", Self("high-throughput")),
        ("real-time", Self("real-time")),
    ];
}

impl Profile {
    fn layer<'a>(self, tables: &Tables<'a>, topic: bool, chosen_at: Option<usize>) -> Option<Layer<'a>> {
        let table = tables.profiles.get(self.0)?.get_ref().as_table()?;
        Some(Layer { origin: Origin::Profile { name: self.0, topic, chosen_at }, table })
    }
}

/// What `[consumer]` and `[[topic]]` give.
pub(super) struct Consumer {
    pub(super) mode: Option<Mode>,
    pub(super) group_id: Option<String>,
    /// `None` if anything is wrong.
    pub(super) topics: Option<Vec<TopicSettings>>,
    /// `consumer.topics`; `None` if that list itself is wrong.
    pub(super) names: Option<BTreeSet<Arc<str>>>,
    /// The report on `[consumer]`.
    pub(super) base: Scope,
    /// The reports on the topics.
    pub(super) scopes: Vec<Scope>,
}

/// `[consumer]` as it holds for a topic that has no table of its own.
struct Base<'a, 'k> {
    layers: Vec<Layer<'a>>,
    kafka: &'k Kafka,
    mode: Option<Mode>,
    group_id: Option<String>,
    values: Values,
    settings: Option<TopicSettings>,
}

/// The values of one table as far as they could be read, so that what has to hold between some of
/// them is looked at although others are wrong.
#[derive(Clone, Default)]
struct Values {
    auto_offset_reset: Option<AutoOffsetReset>,
    on_out_of_range: Option<OnOutOfRange>,
    max_poll_records: Option<usize>,
    timeout: Option<Duration>,
    fetch_max_wait: Option<Duration>,
    fetch_min_bytes: Option<i32>,
    max_partition_fetch_bytes: Option<usize>,
    fetch_max_bytes: Option<usize>,
    check_crcs: Option<bool>,
    reading: reading::Keys,
    takeover_timeout: Option<Duration>,
    on_takeover_timeout: Option<OnTakeoverTimeout>,
    sinks: Option<Vec<String>>,
    failure: Option<Policy>,
}

impl Values {
    /// All of them; name and group are the caller's.
    fn complete(self) -> Option<TopicSettings> {
        Some(TopicSettings {
            name: Arc::default(),
            group: String::new(),
            auto_offset_reset: self.auto_offset_reset?,
            on_out_of_range: self.on_out_of_range?,
            max_poll_records: self.max_poll_records?,
            timeout: self.timeout?,
            fetch_max_wait: self.fetch_max_wait?,
            fetch_min_bytes: self.fetch_min_bytes?,
            max_partition_fetch_bytes: self.max_partition_fetch_bytes?,
            fetch_max_bytes: self.fetch_max_bytes?,
            check_crcs: self.check_crcs?,
            takeover_timeout: self.takeover_timeout?,
            on_takeover_timeout: self.on_takeover_timeout?,
            reading: self.reading.reading()?,
            isolation: self.reading.isolation?,
            sinks: self.sinks?,
            failure: self.failure?,
            paused: false,
        })
    }
}

/// Reads `[consumer]` and all `[[topic]]`. `sinks` are the names that a topic may use.
pub(super) fn read<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    sinks: &BTreeSet<&str>,
    kafka: &Kafka,
) -> Consumer {
    const EXAMPLE: &str = "[\"orders\"]";
    let found = tables.in_file(context, "consumer");
    let file = found.map(|(_, table)| Layer { origin: Origin::File { inherited: None }, table });
    let layers = tables.default_layer(&["consumer"]).into_iter().chain(file).collect();
    let mut reader = Reader::new(context, TableName::new("consumer"), found.map_or(0, |(at, _)| at), layers);
    let group_id = reader.text("group_id", value::plain_name);
    let group_id = reader.required("group_id", group_id, "\"my-service\"");
    let mode = reader.flag("multi_consumer_mode").map(|multi| if multi { Mode::Multi } else { Mode::Single });
    let names = reader.list("topics", EXAMPLE, false, value::topic_name);
    let names = reader.required("topics", names, EXAMPLE);
    if let Some(layer) = reader.choice::<Profile>("profile").and_then(|p| p.layer(tables, false, reader.own("profile")))
    {
        reader.insert_below_file(layer);
    }
    let values = values(&mut reader, sinks, kafka, None);
    let mut layers = reader.layers().to_vec();
    for layer in &mut layers {
        if let Origin::File { inherited } = &mut layer.origin {
            *inherited = Some("consumer");
        }
    }
    let (context, base_scope) = reader.finish("[consumer]".to_owned());
    let settings = values.clone().complete();
    let base = Base { layers, kafka, mode, group_id, values, settings };

    let mut of_table = topic_tables(tables, context, &base, sinks);
    let mut topics = Some(vec![]);
    let mut scopes = vec![];
    let mut seen = HashSet::new();
    let mut places = HashMap::new();
    for name in names.iter().flatten() {
        let line = context.lines.line(name.span().start);
        let name = name.get_ref().as_str();
        if !seen.insert(name) {
            context
                .warnings
                .push(format!("line {line}: topic {name} is listed twice in consumer.topics; it is consumed once"));
            continue;
        }
        let (topic, scope) = match of_table.remove(name) {
            Some(table) => {
                places.insert(name, table.at);
                (table.settings, table.scope)
            }
            None => base.topic(name, &base_scope),
        };
        scopes.push(scope);
        topics = topics.zip(topic).map(|(mut topics, topic): (Vec<_>, _)| {
            topics.push(topic);
            topics
        });
    }
    if names.is_some() {
        let mut left: Vec<_> = of_table.into_iter().collect();
        left.sort_by_key(|(_, table)| table.at);
        for (name, table) in left {
            let text = not_consumed(&mut context.faults, &name, seen.iter().copied());
            context.faults.missing(table.at, "topic.name".to_owned(), text);
        }
    }
    if let (Some(topics), Some(Mode::Multi)) = (&topics, mode) {
        shared_groups(topics, &places, context);
    }
    let listed = names.as_ref().map(|_| seen.iter().map(|name| Arc::from(*name)).collect());
    let (group_id, topics) = (base.group_id, topics.filter(|_| names.is_some()));
    Consumer { mode, group_id, topics, names: listed, base: base_scope, scopes }
}

/// The text of the error about a topic that is not in `consumer.topics`.
pub(super) fn not_consumed<'n>(faults: &mut Faults, name: &str, topics: impl Iterator<Item = &'n str>) -> String {
    faults.offer(name, topics).map_or_else(
        || format!("is \"{}\", which is not in consumer.topics; add it there, or leave it out here", short(name)),
        |offer| format!("is \"{}\", which is not in consumer.topics; did you mean \"{offer}\"?", short(name)),
    )
}

/// The name of the group of a topic that has one to itself and none in its `[[topic]]`.
pub(super) fn group_of_its_own(group_id: &str, topic: &str) -> String {
    format!("{group_id}-{topic}")
}

impl Base<'_, '_> {
    fn group(&self, topic: &str) -> Option<String> {
        let group = self.group_id.as_ref()?;
        match self.mode? {
            Mode::Multi => Some(group_of_its_own(group, topic)),
            Mode::Single => Some(group.clone()),
        }
    }

    /// A topic without a table.
    fn topic(&self, name: &str, base: &Scope) -> (Option<TopicSettings>, Scope) {
        let group = self.group(name);
        let mut scope = Scope { title: format!("topic {name}"), settings: base.settings.clone(), unset: vec![] };
        scope.settings.retain(|setting| !matches!(&*setting.key, "topics" | "multi_consumer_mode"));
        let at = scope.settings.iter().position(|setting| &*setting.key == "profile").map_or(0, |at| at + 1);
        scope.settings.splice(at..at, self.kafka.setting.clone());
        scope.settings.push(Setting { key: "paused".into(), value: false.to_string(), source: Source::Default });
        show_group(&mut scope, group.as_deref());
        let settings = self.settings.clone().zip(group);
        (settings.map(|(settings, group)| TopicSettings { name: name.into(), group, ..settings }), scope)
    }
}

/// Puts the whole name of the group in place of `group_id`.
fn show_group(scope: &mut Scope, group: Option<&str>) {
    let setting = scope.settings.iter_mut().find(|setting| setting.key == "group_id");
    if let (Some(setting), Some(group)) = (setting, group) {
        setting.value = value::show_text(group);
    }
}

struct TopicTable {
    /// The place of its name.
    at: usize,
    /// `None` if anything in it is wrong.
    settings: Option<TopicSettings>,
    scope: Scope,
}

/// Reads every `[[topic]]`, whether `consumer.topics` has it or not, so that all errors are found.
fn topic_tables<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    base: &Base<'a, '_>,
    sinks: &BTreeSet<&str>,
) -> HashMap<String, TopicTable> {
    let mut found: HashMap<String, TopicTable> = HashMap::new();
    let Some(entry) = tables.file.get("topic") else { return found };
    let Some(list) = entry.get_ref().as_array() else {
        let text = value::wrong(entry.get_ref(), "[[topic]] in two brackets, once for each topic");
        context.faults.add(entry.span().start, "topic".to_owned(), text);
        return found;
    };
    for element in list {
        let Some(table) = element.get_ref().as_table() else {
            let text = value::wrong(element.get_ref(), "[[topic]] in two brackets, once for each topic");
            context.faults.add(element.span().start, "topic".to_owned(), text);
            continue;
        };
        let Some((name, topic)) = topic_table(tables, context, base, sinks, (element.span().start, table)) else {
            continue;
        };
        if let Some(first) = found.get(&name) {
            let line = context.lines.line(first.at);
            let text = format!("is \"{name}\", which has a [[topic]] on line {line} already; write all its keys there");
            context.faults.add(topic.at, "topic.name".to_owned(), text);
        } else {
            found.insert(name, topic);
        }
    }
    found
}

fn topic_table<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    base: &Base<'a, '_>,
    sinks: &BTreeSet<&str>,
    (at, table): (usize, &'a DeTable<'a>),
) -> Option<(String, TopicTable)> {
    let own = Layer { origin: Origin::File { inherited: None }, table };
    let defaults = tables.default_layer(&["topic"]);
    let below = tables.kafka_layers().into_iter().chain(base.layers.iter().copied());
    let layers = defaults.into_iter().chain(below).chain([own]).collect();
    let mut reader = Reader::new(context, TableName::topic(), at, layers);
    let name = reader.text("name", value::topic_name);
    let name = reader.required("name", name, "\"orders\"");
    let name_at = reader.place("name");
    let group_id = reader.text("group_id", value::plain_name);
    let group = match reader.own("group_id") {
        Some(_) => group_id,
        None => name.as_deref().and_then(|name| base.group(name)),
    };
    let profile = reader.choice::<Profile>("profile").filter(|_| reader.own("profile").is_some());
    if let Some(layer) = profile.and_then(|p| p.layer(tables, true, reader.own("profile"))) {
        reader.insert_below_file(layer);
    }
    let values = values(&mut reader, sinks, base.kafka, Some(&base.values));
    let paused = reader.flag("paused").unwrap_or(false);
    if base.mode == Some(Mode::Single) {
        one_client(&mut reader, base, group.as_deref(), &values);
    }
    let (_, mut scope) = reader.finish(format!("topic {}", name.as_deref().unwrap_or_default()));
    scope.settings.retain(|setting| setting.key != "name");
    show_group(&mut scope, group.as_deref());
    let name = name?;
    let settings =
        values.complete().zip(group).map(|(s, group)| TopicSettings { name: name.as_str().into(), group, paused, ..s });
    Some((name, TopicTable { at: name_at, settings, scope }))
}

/// Reads the keys that `[consumer]` and `[[topic]]` have in common. `below` are those of `[consumer]`, if
/// this is a topic.
fn values(reader: &mut Reader<'_, '_>, sinks: &BTreeSet<&str>, kafka: &Kafka, below: Option<&Values>) -> Values {
    let values = Values {
        reading: reading::read(reader, kafka, below.map(|below| &below.reading)),
        auto_offset_reset: reader.choice("auto_offset_reset"),
        on_out_of_range: reader.choice("on_out_of_range"),
        max_poll_records: reader.number("max_poll_records", 1..=KAFKA_INT_MAX),
        timeout: reader.millis("timeout_ms", 1..=DAY_MS),
        fetch_max_wait: reader.millis("fetch_max_wait_ms", 1..=DAY_MS),
        fetch_min_bytes: reader.size("fetch_min_bytes", 1..=KAFKA_INT_MAX),
        max_partition_fetch_bytes: reader.size("max_partition_fetch_bytes", FETCH_BYTES_MIN..=KAFKA_INT_MAX),
        fetch_max_bytes: reader.size("fetch_max_bytes", FETCH_BYTES_MIN..=KAFKA_INT_MAX),
        check_crcs: reader.flag("check_crcs"),
        takeover_timeout: reader.millis("takeover_timeout_ms", 0..=DAY_MS),
        on_takeover_timeout: reader.choice("on_takeover_timeout"),
        sinks: reader.texts("sink", "[\"orders\", \"audit\"]", |_| Ok(())),
        failure: failure(reader),
    };
    let complete = !reader.context.faults.incomplete();
    let named = || values.sinks.iter().flatten();
    if let Some((_, name)) = named().enumerate().find(|(index, name)| named().take(*index).any(|other| other == *name))
    {
        reader.wrong("sink", format!("has \"{}\" twice; write it once", short(name)));
    }
    for name in named().filter(|name| complete && !sinks.contains(name.as_str())) {
        let offer =
            reader.context.faults.offer(name, sinks.iter().copied()).map(|offer| format!("did you mean \"{offer}\"?"));
        let advice = offer.unwrap_or_else(|| "declare it as [sink.NAME], or use drop, log or stdout".to_owned());
        reader.wrong("sink", format!("is \"{}\", and there is no such sink; {advice}", short(name)));
    }
    between(reader, &values, below);
    values
}

/// What becomes of records that the sink does not take.
fn failure(reader: &mut Reader<'_, '_>) -> Option<Policy> {
    let attempts = reader.number("retry_attempts", 0..=KAFKA_INT_MAX);
    let total = reader.millis("retry_total_ms", 0..=DAY_MS);
    let first = reader.millis("retry_initial_ms", 1..=DAY_MS);
    let longest = reader.millis("retry_max_ms", 1..=DAY_MS);
    let on_failure = reader.choice("on_failure");
    let policy =
        Policy { attempts: attempts?, total: total?, first: first?, longest: longest?, on_failure: on_failure? };
    if policy.first > policy.longest {
        let text = format!(
            "waits only grow: retry_initial_ms is {}, and retry_max_ms is {}; write a retry_initial_ms of at most that",
            policy.first.as_millis(),
            policy.longest.as_millis()
        );
        let key = if reader.own("retry_initial_ms").is_some() { "retry_initial_ms" } else { "retry_max_ms" };
        reader.wrong(key, text);
    }
    if policy.on_failure == OnFailure::DeadLetter && !reader.context.has_dead_letter {
        let text = "is \"dead_letter\", and there is no place for dead letters; write [dead_letter] with path = \"/var/lib/worker/dead.jsonl\"";
        reader.wrong("on_failure", text.to_owned());
    }
    Some(policy)
}

/// What has to hold between the values of one topic.
fn between(reader: &mut Reader<'_, '_>, values: &Values, below: Option<&Values>) {
    if let (Some(min), Some(partition), Some(all)) =
        (values.fetch_min_bytes, values.max_partition_fetch_bytes, values.fetch_max_bytes)
        && let most = partition.min(all)
        && usize::try_from(min).is_ok_and(|min| min > most)
    {
        let text = format!(
            "every fetch would wait in vain: fetch_min_bytes is {min}, and max_partition_fetch_bytes and fetch_max_bytes let it bring {most}; write a fetch_min_bytes of at most {most}"
        );
        // At the one of the three that this table has.
        let keys = ["fetch_min_bytes", "max_partition_fetch_bytes", "fetch_max_bytes"];
        let key = keys.into_iter().find(|key| reader.own(key).is_some()).unwrap_or("fetch_min_bytes");
        reader.wrong(key, text);
    }
    let pair = |values: &Values| (values.timeout, values.fetch_max_wait);
    let news = below.is_none_or(|below| pair(below) != pair(values));
    if let (Some(timeout), Some(wait)) = pair(values)
        && wait > timeout
        && news
    {
        let (line, table) = (reader.context.lines.line(reader.place("fetch_max_wait_ms")), reader.table());
        let (wait, timeout) = (wait.as_millis(), timeout.as_millis());
        reader.context.warnings.push(format!(
            "line {line}: {table}: fetch_max_wait_ms ({wait}) is longer than timeout_ms ({timeout}): rounds end before the broker answers, and look empty"
        ));
    }
}

/// In single mode one client fetches all topics: what belongs to it can't differ.
fn one_client(reader: &mut Reader<'_, '_>, base: &Base<'_, '_>, group: Option<&str>, topic: &Values) {
    // What could not be read has its own error.
    fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }
    let base_values = &base.values;
    let differs = [
        ("group_id", differ(&group, &base.group_id.as_deref())),
        ("timeout_ms", differ(&topic.timeout, &base_values.timeout)),
        ("fetch_max_wait_ms", differ(&topic.fetch_max_wait, &base_values.fetch_max_wait)),
        ("fetch_min_bytes", differ(&topic.fetch_min_bytes, &base_values.fetch_min_bytes)),
        ("max_partition_fetch_bytes", differ(&topic.max_partition_fetch_bytes, &base_values.max_partition_fetch_bytes)),
        ("fetch_max_bytes", differ(&topic.fetch_max_bytes, &base_values.fetch_max_bytes)),
        ("check_crcs", differ(&topic.check_crcs, &base_values.check_crcs)),
    ];
    let differs = differs.into_iter().filter_map(|(key, differs)| differs.then_some(key));
    for key in differs.chain(topic.reading.differ(&base_values.reading, reader)) {
        let by_profile = if reader.own(key).is_some() { "" } else { " (here by its profile)" };
        reader.wrong(key, format!(
            "can't differ from topic to topic{by_profile} while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true"
        ));
    }
}

/// Two consumers with one group have different topics, so they do not take each other's offsets; but
/// they are one group to Kafka, which is what the mode is meant to avoid. `places` are those of the `[[topic]]`.
fn shared_groups(topics: &[TopicSettings], places: &HashMap<&str, usize>, context: &mut Context<'_>) {
    let mut first: HashMap<&str, &TopicSettings> = HashMap::new();
    for topic in topics {
        let Some(other) = first.insert(&topic.group, topic) else { continue };
        let (group, name) = (&topic.group, &topic.name);
        let wrong = match (&other.reading.membership, &topic.reading.membership) {
            (Membership::None(_), Membership::Group { .. }) | (Membership::Group { .. }, Membership::None(_)) => {
                "and only one of them is a member of it: while a group has members, nobody else may commit to it"
            }
            (Membership::Group { instance_id: Some(a) }, Membership::Group { instance_id: Some(b) }) if a == b => {
                "and have the same group_instance_id: the one member would throw out the other"
            }
            _ => {
                context.warnings.push(format!("topics {} and {name} share the group {group}: Kafka's tools show them as one, and members of one disturb the other; give each a group_id of its own", other.name));
                continue;
            }
        };
        let at = places.get(&**name).or_else(|| places.get(&*other.name)).copied().unwrap_or(0);
        let text = format!(
            "topics {} and {name} share the group {group}, {wrong}; give each a group_id of its own",
            other.name
        );
        context.faults.add(at, "topic.group_id".to_owned(), text);
    }
}
