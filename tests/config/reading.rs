//! How topics are read: the keys `client`, `membership` and what belongs to it, `isolation_level`.

use worker::client::reading::HAS_LIBRDKAFKA;
use worker::client::{Isolation, Library, Membership, Portion};

use super::{bad, good, parse};

const HEAD: &str = "[kafka]\nbootstrap_servers = 'a:1'\n";
const CONSUMER: &str = "[consumer]\ngroup_id = 'g'\ntopics = ['t', 'u']\n";

/// `[kafka]`, `[consumer]` and the `[[topic]]` of t with these lines.
fn text(kafka: &str, consumer: &str, topic: &str) -> String {
    let table = if topic.is_empty() { String::new() } else { format!("[[topic]]\nname = 't'\n{topic}") };
    format!("{HEAD}{kafka}{CONSUMER}{consumer}{table}")
}

/// A way to hold partitions, as some lines of a table, and what they mean alone.
struct Way {
    lines: &'static str,
    means: Option<Membership>,
}

fn partitions(list: &[i32]) -> Membership {
    Membership::None(Portion::Partitions(list.iter().copied().collect()))
}

fn instance(number: u32, of: u32) -> Membership {
    Membership::None(Portion::Instance { number, of })
}

fn group(id: Option<&str>) -> Membership {
    Membership::Group { instance_id: id.map(str::to_owned) }
}

/// Every way in `[consumer]` with every way in a `[[topic]]`: the topic's goes over it, and what it does not say
/// is inherited as far as it can stand beside it. What holds is what the report says.
#[test]
fn what_a_topic_writes_goes_over_what_it_inherits() {
    let all = Membership::None(Portion::All);
    let bases = [
        Way { lines: "", means: Some(all.clone()) },
        Way { lines: "membership = 'none'\n", means: Some(all.clone()) },
        Way { lines: "partitions = [3]\n", means: Some(partitions(&[3])) },
        Way { lines: "instance = '2/4'\n", means: Some(instance(2, 4)) },
        Way { lines: "membership = 'group'\n", means: Some(group(None)) },
        Way { lines: "membership = 'group'\ngroup_instance_id = 'base'\n", means: Some(group(Some("base"))) },
    ];
    let own = [
        Way { lines: "", means: None },
        Way { lines: "membership = 'none'\n", means: None },
        Way { lines: "membership = 'group'\n", means: None },
        Way { lines: "membership = 'none'\npartitions = '1, 0'\n", means: Some(partitions(&[0, 1])) },
        Way { lines: "membership = 'none'\ninstance = '1/2'\n", means: Some(instance(1, 2)) },
        Way { lines: "membership = 'group'\ngroup_instance_id = 'own'\n", means: Some(group(Some("own"))) },
        Way { lines: "partitions = [1, 0]\n", means: Some(partitions(&[0, 1])) },
        Way { lines: "instance = '1/2'\n", means: Some(instance(1, 2)) },
        Way { lines: "group_instance_id = 'own'\n", means: Some(group(Some("own"))) },
    ];
    let is_group = |membership: &Membership| matches!(membership, Membership::Group { .. });
    let mut refused = 0;
    for base in &bases {
        let inherited = base.means.clone().unwrap();
        for topic in &own {
            let text = text("", base.lines, topic.lines);
            if !HAS_LIBRDKAFKA && text.contains("'group'") {
                continue;
            }
            let expected = match (&topic.means, topic.lines) {
                (None, "membership = 'none'\n") if is_group(&inherited) => Some(all.clone()),
                (None, "membership = 'group'\n") if !is_group(&inherited) => Some(group(None)),
                (None, _) => Some(inherited.clone()),
                // Its membership is inherited, and has to be the one for these keys.
                (Some(own), lines) if !lines.contains("membership") && is_group(own) != is_group(&inherited) => None,
                (Some(own), _) => Some(own.clone()),
            };
            match (expected, parse(&text)) {
                (Some(expected), Ok(config)) => {
                    assert_eq!(config.topics[0].reading.membership, expected, "{text}");
                    assert_eq!(config.topics[1].reading.membership, inherited, "{text}");
                    let scope = config.report.iter().find(|scope| scope.title == "topic t").unwrap();
                    let set = |key| scope.settings.iter().any(|setting| setting.key == key);
                    let holds = ["group_instance_id", "partitions", "instance"].map(set);
                    let means = match &expected {
                        Membership::None(Portion::All) | Membership::Group { instance_id: None } => [false; 3],
                        Membership::Group { .. } => [true, false, false],
                        Membership::None(Portion::Partitions(_)) => [false, true, false],
                        Membership::None(Portion::Instance { .. }) => [false, false, true],
                    };
                    assert_eq!(holds, means, "{scope}\n{text}");
                }
                (None, Err(errors)) => {
                    refused += 1;
                    assert!(errors.to_string().contains("topic."), "{errors}\n{text}");
                    assert_eq!(errors.iter().count(), 1, "{errors}\n{text}");
                }
                (expected, parsed) => panic!("{expected:?}, but {parsed:?}\n{text}"),
            }
        }
    }
    assert!(refused >= 4, "{refused}");
}

/// Keys, and the error that they give.
#[test]
fn what_contradicts_itself_is_refused_with_what_to_write() {
    let member = "write membership = \"group\", or leave it out";
    let cases = [
        (
            ("", "partitions = [0]\ninstance = '1/3'\n", ""),
            "7:12: consumer.instance: can't stand beside partitions: both say which partitions this worker reads; leave one of them out",
        ),
        (
            ("", "", "partitions = [0]\ninstance = '1/3'\n"),
            "9:12: topic.instance: can't stand beside partitions: both say which partitions this worker reads; leave one of them out",
        ),
        (
            ("", "group_instance_id = 'w'\n", ""),
            &format!(
                "6:21: consumer.group_instance_id: is for membership = \"group\", and membership is \"none\", with which the worker is no member; {member}"
            ),
        ),
        (
            ("", "partitions = []\n", ""),
            "6:14: consumer.partitions: is empty, with which nothing would be read; write which ones this worker reads, or leave it out to read all",
        ),
        (
            ("", "partitions = '0,x'\n", ""),
            "6:14: consumer.partitions: is \"0,x\"; write partitions by their numbers, such as [0, 2] or \"0, 2\"",
        ),
        (
            ("", "partitions = [-1, 1, 1]\n", ""),
            "6:14: consumer.partitions: has -1, and partitions are numbered from 0 on; write partitions by their numbers, such as [0, 2] or \"0, 2\"",
        ),
        (
            ("", "partitions = [0, 'x']\n", ""),
            "6:14: consumer.partitions: is a list; write partitions by their numbers, such as [0, 2] or \"0, 2\"",
        ),
        (("", "partitions = [0, 1, 0]\n", ""), "6:14: consumer.partitions: has 0 twice; leave it out once"),
        (
            ("", "instance = '0/3'\n", ""),
            "6:12: consumer.instance: is \"0/3\"; write the number of this worker and how many there are, from \"1/3\" to \"3/3\" for three",
        ),
        (
            ("", "instance = '4/3'\n", ""),
            "6:12: consumer.instance: is \"4/3\"; write the number of this worker and how many there are, from \"1/3\" to \"3/3\" for three",
        ),
        (
            ("", "instance = '+1/3'\n", ""),
            "6:12: consumer.instance: is \"+1/3\"; write the number of this worker and how many there are, from \"1/3\" to \"3/3\" for three",
        ),
        (("", "instance = 1\n", ""), "6:12: consumer.instance: is 1; write a text in quotes"),
        (
            ("client = 'confluent'\n", "", ""),
            "3:10: kafka.client: is \"confluent\"; write \"auto\", \"kafka\" or \"librdkafka\"",
        ),
        (
            ("", "client = 'kafka'\n", ""),
            "6:1: consumer.client: is no key of [consumer]; it belongs under [kafka]; move it there",
        ),
        (
            ("", "isolation_level = 'committed'\n", ""),
            "6:19: consumer.isolation_level: is \"committed\"; write \"read_committed\" or \"read_uncommitted\"",
        ),
        (
            (
                "",
                "multi_consumer_mode = false\n",
                "client = 'kafka'\nisolation_level = 'read_uncommitted'\npartitions = [1]\n",
            ),
            "9:10: topic.client: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true\n\
             10:19: topic.isolation_level: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true\n\
             11:14: topic.partitions: can't differ from topic to topic while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true",
        ),
    ];
    for ((kafka, consumer, topic), errors) in cases {
        let text = text(kafka, consumer, topic);
        assert_eq!(bad(&text), errors, "\n{text}");
    }
}

#[test]
fn a_member_is_refused_what_is_not_for_members() {
    if !HAS_LIBRDKAFKA {
        assert!(bad(&text("", "membership = 'group'\n", "")).contains("this program was built without it"));
        return;
    }
    let cases = [
        (
            ("", "membership = 'group'\npartitions = [0]\n", ""),
            "7:14: consumer.partitions: is for membership = \"none\", and membership is \"group\", with which Kafka shares out the partitions; leave it out, or write membership = \"none\"",
        ),
        (
            ("", "membership = 'group'\ninstance = '1/3'\n", ""),
            "7:12: consumer.instance: is for membership = \"none\", and membership is \"group\", with which Kafka shares out the partitions; leave it out, or write membership = \"none\"",
        ),
        (
            ("", "membership = 'group'\n", "instance = '1/3'\n"),
            "9:12: topic.instance: is for membership = \"none\", and membership is \"group\", with which Kafka shares out the partitions; leave it out, or write membership = \"none\"",
        ),
        (
            ("", "membership = 'group'\ngroup_instance_id = 'a b'\n", ""),
            "7:21: consumer.group_instance_id: is \"a b\", which is no static member's name: it has ' '; names are made of a-z, A-Z, 0-9, '.', '_' and '-'",
        ),
        (
            ("client = 'kafka'\n", "membership = 'group'\n", ""),
            "7:14: consumer.membership: is \"group\", and client is \"kafka\", which can't be a member of a group; write client = \"auto\" or \"librdkafka\", or membership = \"none\"",
        ),
        (
            ("", "membership = 'group'\n", "client = 'kafka'\n"),
            "6:14: consumer.membership: is \"group\", and client is \"kafka\", which can't be a member of a group; write client = \"auto\" or \"librdkafka\", or membership = \"none\"",
        ),
        (
            ("client = 'kafka'\n", "", "membership = 'group'\n"),
            "9:14: topic.membership: is \"group\", and client is \"kafka\", which can't be a member of a group; write client = \"auto\" or \"librdkafka\", or membership = \"none\"",
        ),
        (
            ("", "", "group_id = 'g-u'\nmembership = 'group'\n"),
            "7:8: topic.group_id: topics t and u share the group g-u, and only one of them is a member of it: while a group has members, nobody else may commit to it; give each a group_id of its own",
        ),
        (
            ("", "membership = 'group'\ngroup_instance_id = 'w'\n", "group_id = 'g-u'\n"),
            "9:8: topic.group_id: topics t and u share the group g-u, and have the same group_instance_id: the one member would throw out the other; give each a group_id of its own",
        ),
    ];
    for ((kafka, consumer, topic), errors) in cases {
        let text = text(kafka, consumer, topic);
        assert_eq!(bad(&text), errors, "\n{text}");
    }
    let single = good(&text("", "multi_consumer_mode = false\nmembership = 'group'\ngroup_instance_id = 'w'\n", ""));
    assert_eq!(single.topics[0].reading.membership, group(Some("w")));
    assert_eq!(single.topics[0].reading.library, Some(Library::Librdkafka), "the only one that can");
}

#[test]
fn a_client_is_that_of_the_topic_or_of_kafka() {
    let read = |kafka: &str, topic: &str| {
        let config = good(&text(kafka, "", topic));
        let source = |title: &str| {
            let scope = config.report.iter().find(|scope| scope.title == title).unwrap();
            let setting = scope.settings.iter().find(|setting| setting.key == "client").unwrap();
            format!("{} {}", setting.value, setting.source)
        };
        (config.topics[0].reading.library, config.topics[1].reading.library, source("topic t"), source("topic u"))
    };
    let said = |t: &str, u: &str| (t.to_owned(), u.to_owned());
    let (t, u, of_t, of_u) = read("", "paused = false\n");
    assert_eq!((t, u, (of_t, of_u)), (None, None, said("\"auto\" default", "\"auto\" default")));
    let (t, u, of_t, of_u) = read("client = 'kafka'\n", "client = 'auto'\n");
    let expected = said("\"auto\" [[topic]] line 9", "\"kafka\" [kafka] line 3");
    assert_eq!((t, u, (of_t, of_u)), (None, Some(Library::Kafka), expected));
    let (t, u, of_t, _) = read("client = 'kafka'\n", "paused = true\n");
    assert_eq!((t, u), (Some(Library::Kafka), Some(Library::Kafka)));
    assert_eq!(of_t, "\"kafka\" [kafka] line 3");
}

/// What is written, and does nothing with this client, is told; what merely holds by default is not.
#[test]
fn read_committed_with_a_client_that_can_not_is_a_warning() {
    let warned = |kafka: &str, consumer: &str, topic: &str| good(&text(kafka, consumer, topic)).warnings;
    assert_eq!(warned("client = 'kafka'\n", "", ""), Vec::<String>::new());
    let written = "isolation_level = 'read_committed'\n";
    assert_eq!(warned("", written, ""), Vec::<String>::new());
    let expected = "line 7: [consumer]: isolation_level = \"read_committed\" does nothing with client = \"kafka\", which delivers records of aborted transactions, too; write client = \"auto\" or \"librdkafka\"";
    assert_eq!(warned("client = 'kafka'\n", written, "paused = false\n"), [expected]);
    let config = good(&text("", "isolation_level = 'read_uncommitted'\n", ""));
    assert_eq!(config.topics[1].isolation, Isolation::ReadUncommitted);
}
