#![allow(clippy::unwrap_used, clippy::expect_used)]

use toml::de::{DeTable, DeValue};

use super::errors::{Lines, nearest};
use super::resolve::{DEFAULTS, PROFILES};
use super::value::{expand, log_filter, plain_name, server, show_size, show_text, size, topic_name};
use super::*;

/// A configuration with nothing but what is required, and `more`.
fn minimal(more: &str) -> String {
    format!("[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\n{more}")
}

fn good(text: &str) -> Config {
    parse(text, &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn bad(text: &str) -> String {
    parse(text, &|_| None).expect_err("wrong").to_string()
}

#[test]
fn the_embedded_texts_are_right() {
    let (_, defaults) = DeTable::parse_recoverable(DEFAULTS);
    let (profiles, errors) = DeTable::parse_recoverable(PROFILES);
    assert_eq!((defaults, errors), (vec![], vec![]));
    // Each sets the same four keys, as the documentation of `profile` says.
    for (name, profile) in profiles.get_ref() {
        let keys: Vec<_> = profile.get_ref().as_table().unwrap().keys().map(|k| k.get_ref().to_string()).collect();
        assert_eq!(keys, ["fetch_max_wait_ms", "fetch_min_bytes", "max_poll_records", "timeout_ms"]);
        let text = minimal(&format!("profile = '{}'", name.get_ref()));
        good(&text);
    }
    assert_eq!(profiles.get_ref().len(), 3);
}

#[test]
fn the_profiles_are_those_of_the_diagnosis() {
    let values = |name: &str| {
        let topic = good(&minimal(&format!("profile = '{name}'"))).topics.remove(0);
        let (timeout, wait) = (topic.timeout.as_millis(), topic.fetch_max_wait.as_millis());
        (topic.max_poll_records, timeout, wait, topic.fetch_min_bytes)
    };
    assert_eq!(values("balanced"), (500, 3000, 500, 1024));
    assert_eq!(values("high-throughput"), (1000, 5000, 1000, 10240));
    assert_eq!(values("real-time"), (100, 1000, 100, 1));
}

#[test]
fn sizes() {
    let parse = |text: &str| size(DeValue::parse(text).unwrap().get_ref(), &(1..=1 << 40)).ok();
    assert_eq!(parse("1_024"), Some(1024));
    assert_eq!(parse("0x400"), Some(1024));
    assert_eq!(parse("'100MiB'"), Some(100 << 20));
    assert_eq!(parse("'10MB'"), Some(10_000_000));
    assert_eq!(parse("'7 B'"), Some(7));
    for wrong in ["0", "-1", "'1'", "'MiB'", "'1.5MiB'", "'1mb'", "'1MiB '", "1.0", "true", "'99999999999999999999GiB'"]
    {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    for bytes in [1, 1023, 1024, 1_000_000, 100 << 20, 3 << 30, (1 << 40) - 1] {
        assert_eq!(parse(&show_size(bytes)), Some(bytes));
    }
}

#[test]
fn names_of_topics_follow_kafkas_rule() {
    for name in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
        assert_eq!(topic_name(name), Ok(()), "{name}");
    }
    for name in ["", ".", "..", "a b", "a/b", "主题", "a\n", &"x".repeat(250)] {
        assert!(topic_name(name).is_err(), "{name}");
    }
    assert!(plain_name("a\n").is_err() && plain_name("").is_err() && plain_name(" a").is_err());
    assert!(plain_name("my group: 1").is_ok());
}

#[test]
fn servers() {
    for name in ["a:1", "10.8.4.40:35888", "[::1]:9092", "broker-1.example.org:65535"] {
        assert_eq!(server(name), Ok(()), "{name}");
    }
    for name in ["", "a", "a:", ":1", "a:0", "a:65536", "a:+1", "a b:1", "::1:9092", "[a]:1", "SSL://a:1", "a:1/x"] {
        assert!(server(name).is_err(), "{name}");
    }
}

#[test]
fn filters_of_the_log() {
    for filter in ["info", "off", "warn,worker=debug", "worker::client=trace"] {
        assert_eq!(log_filter(filter), Ok(()), "{filter}");
    }
    for filter in ["", "INFO", "worker", "=info", "a b=info", "info,", "worker=loud"] {
        assert!(log_filter(filter).is_err(), "{filter}");
    }
}

#[test]
fn the_environment_in_texts() {
    let env = |name: &str| match name {
        "HOST" => Some("kafka1".to_owned()),
        "NESTED" => Some("${HOST}$$".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let expanded = |text: &str| expand(text, &env).map(|text| text.into_owned());
    assert_eq!(expanded("${HOST}:9092"), Ok("kafka1:9092".to_owned()));
    assert_eq!(expanded("${EMPTY}${HOST}${EMPTY}"), Ok("kafka1".to_owned()));
    assert_eq!(expanded("$${HOST} $$$$ $x 5$"), Ok("${HOST} $$ $x 5$".to_owned()));
    assert_eq!(expanded("${NESTED}"), Ok("${HOST}$$".to_owned()), "what a variable holds is not looked through");
    for wrong in ["${NONE}", "${HOST", "${}", "${1}", "${a-b}", "${ HOST }"] {
        assert!(expanded(wrong).is_err(), "{wrong}");
    }
    // What is shown can be written into a file, and means the same there.
    let shown = show_text("a\"b\\c$d\n${HOST}");
    let read = DeValue::parse(&shown).unwrap();
    assert_eq!(expanded(read.get_ref().as_str().unwrap()), Ok("a\"b\\c$d\n${HOST}".to_owned()));
}

#[test]
fn offers_are_near() {
    let keys = ["topics", "profile", "sink", "timeout_ms", "fetch_min_bytes", "fetch_max_bytes"];
    let offer = |name| nearest(name, keys.into_iter());
    assert_eq!(offer("topcis"), Some("topics"));
    assert_eq!(offer("Timeout-ms"), Some("timeout_ms"));
    assert_eq!(offer("fetch_maxbytes"), Some("fetch_max_bytes"));
    assert_eq!(offer("colour"), None);
    assert_eq!(offer(""), None);
}

#[test]
fn lines_and_columns() {
    let lines = |text: &str| {
        let lines = Lines::new(text);
        (0..=text.len()).map(|at| lines.line(at)).collect::<Vec<_>>()
    };
    assert_eq!(lines(""), [1]);
    assert_eq!(lines("a\n\nb\n"), [1, 1, 2, 3, 3, 3]);
    assert_eq!(lines("a\nb"), [1, 1, 2, 2]);
    assert_eq!(
        bad("# 主题\n[kafka]\nbootstrap_servers = ['主:1', 5]\n[consumer]\ngroup_id='g'\ntopics=['t']"),
        "3:29: kafka.bootstrap_servers: is 5; write a text in quotes"
    );
}

#[test]
fn a_group_is_named_after_its_topic_or_as_the_topic_says() {
    let text = "[kafka]\nbootstrap_servers = ['a:1']\n[consumer]\ngroup_id = 'g'\ntopics = ['x', 'y']\n[[topic]]\nname = 'y'\ngroup_id = 'own'\n";
    let groups: Vec<_> = good(text).topics.into_iter().map(|t| (t.name.to_string(), t.group)).collect();
    assert_eq!(groups, [("x".to_owned(), "g-x".to_owned()), ("y".to_owned(), "own".to_owned())]);
    let single = good(&minimal("multi_consumer_mode = false\n[[topic]]\nname = 't'\nsink = 'drop'"));
    assert_eq!((single.mode, single.topics[0].group.as_str()), (Mode::Single, "g"));
    assert_eq!(single.topics[0].sinks, ["drop"]);
}

#[test]
fn in_single_mode_the_clients_keys_cannot_differ() {
    let single = |topic: &str| minimal(&format!("multi_consumer_mode = false\n[[topic]]\nname = 't'\n{topic}"));
    for key in [
        "group_id = 'h'",
        "timeout_ms = 9000",
        "fetch_max_wait_ms = 1",
        "fetch_min_bytes = 1",
        "max_partition_fetch_bytes = '1MiB'",
        "fetch_max_bytes = '1MiB'",
        "check_crcs = false",
    ] {
        let name = key.split(' ').next().unwrap();
        let errors = bad(&single(key));
        assert!(
            errors.starts_with(&format!(
                "9:{}: topic.{name}: can't differ",
                key.len() - key.split(" = ").nth(1).unwrap().len() + 1
            )),
            "{errors}"
        );
        assert!(!errors.contains('\n'), "{errors}");
    }
    // The same value does not differ; the others may.
    for key in [
        "group_id = 'g'",
        "timeout_ms = 3000",
        "check_crcs = true",
        "max_poll_records = 1",
        "auto_offset_reset = 'earliest'",
        "on_out_of_range = 'stop'",
        "sink = 'drop'",
        "profile = 'balanced'",
    ] {
        good(&single(key));
    }
    let errors = bad(&single("profile = 'real-time'"));
    assert_eq!(errors.lines().count(), 3, "{errors}");
    assert!(
        errors.lines().all(|line| line.starts_with("9:11: topic.") && line.contains("(here by its profile)")),
        "{errors}"
    );
}

#[test]
fn sinks_that_exist_and_sinks_that_are_declared() {
    let config = good(&minimal(
        "sink = 'o'\n[sink.o]\ntype = 'file'\npath = './o//x.jsonl'\nrotate_size = '1MiB'\n[sink.stdout]\nformat = 'raw'",
    ));
    let file = SinkSettings::File {
        path: "o/x.jsonl".into(),
        format: Format::Json,
        rotate_size: Some(1 << 20),
        rotate_keep: None,
    };
    let stdout = SinkSettings::Stdout { format: Format::Raw };
    assert_eq!(config.sinks, BTreeMap::from([("o".to_owned(), file), ("stdout".to_owned(), stdout)]));
    assert_eq!(config.warnings, Vec::<String>::new());
    let log = SinkSettings::Log { level: Level::Info, max_value_bytes: 200 };
    assert_eq!(good(&minimal("")).sinks, BTreeMap::from([("log".to_owned(), log)]));
    assert_eq!(good(&minimal("sink = 'drop'")).sinks, BTreeMap::from([("drop".to_owned(), SinkSettings::Drop)]));
}

#[test]
fn warnings() {
    let config = good(
        "[kafka]\nbootstrap_servers = ['a:1', 'a:1']\n[consumer]\ngroup_id = 'g'\nfetch_max_wait_ms = 4000\ntopics = ['x', 'y', 'x']\n[[topic]]\nname = 'y'\ngroup_id = 'g-x'\n[sink.spare]\ntype = 'drop'",
    );
    assert_eq!(config.topics.len(), 2);
    assert_eq!(config.kafka.bootstrap_servers, ["a:1"]);
    assert_eq!(
        config.warnings,
        [
            "line 5: [consumer]: fetch_max_wait_ms (4000) is longer than timeout_ms (3000): rounds end before the broker answers, and look empty",
            "line 6: topic x is listed twice in consumer.topics; it is consumed once",
            "topics x and y share the group g-x: Kafka's tools show them as one, and members of one disturb the other; give each a group_id of its own",
            "line 10: [sink.spare] is used by no topic; write sink = \"spare\" where it is meant",
        ]
    );
}

/// Only what can be known: the same pattern, one for any name, and, where all topics are listed, each name.
#[test]
fn a_pattern_that_never_applies_is_told_of() {
    let of = |topics: &str, tables: &[&str]| {
        let tables: String = tables.iter().map(|table| format!("[[topic]]\n{table}\n")).collect();
        good(&format!("[kafka]\nbootstrap_servers = ['a:1']\n[consumer]\ngroup_id = 'g'\n{topics}\n{tables}")).warnings
    };
    let same = |line: u32, first: u32| {
        format!(
            "line {line}: this [[topic]] never applies: the one on line {first} fits the same topics, and the first that fits is taken; take one of them out, or put this one first"
        )
    };
    let names = "line 9: this [[topic]] never applies: each topic of consumer.topics that it fits has a [[topic]] of its own name, or fits an earlier one; take it out, or put it first";
    let (found, listed) = ("topics_regex = 'x.*'", "topics = ['xa', 'xb']");
    for topics in [found, listed] {
        assert_eq!(of(topics, &["regex = 'x.*'", "regex = 'x.*'\npaused = true"]), [same(9, 7)], "{topics}");
        assert_eq!(of(topics, &["regex = '.*'", "regex = 'xa'"]), [same(9, 7)], "{topics}");
        assert_eq!(of(topics, &["regex = 'xa'", "regex = '.*'"]), [""; 0], "{topics}");
    }
    assert_eq!(of(found, &["regex = 'x.+'", "regex = 'xa'"]), [""; 0], "nobody can know");
    assert_eq!(of(listed, &["regex = 'x.+'", "regex = 'xa'"]), [names]);
    assert_eq!(of(listed, &["name = 'xa'", "regex = '.a'"]), [names]);
    assert_eq!(of(listed, &["name = 'xa'", "regex = 'x.'"]), [""; 0]);
    assert_eq!(of(listed, &["regex = 'y.*'"]), ["line 7: this [[topic]] fits no topic of consumer.topics"]);
}

#[test]
fn the_group_of_topics_that_fit_is_shown_with_their_name() {
    let group = |mode: bool| {
        let config = good(&format!(
            "[kafka]\nbootstrap_servers = ['a:1']\n[consumer]\ngroup_id = 'rx'\nmulti_consumer_mode = {mode}\ntopics_regex = 'x.*'\n[[topic]]\nregex = 'xa.*'\nsink = 'log'"
        ));
        let scope = config.report.iter().find(|scope| scope.title == "topics that fit [[topic]] on line 7").unwrap();
        scope.settings.iter().find(|setting| setting.key == "group_id").unwrap().value.clone()
    };
    assert_eq!((group(true).as_str(), group(false).as_str()), ("\"rx-{topic}\"", "\"rx\""));
}

#[test]
fn what_a_broken_line_leads_to_is_not_told() {
    // The table of the sink, the group, and the topics stand in the part that can't be read.
    let text = "[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\nsink = 'o'\nmax_poll_records = 5OO\n[sink.o\ntype = 'file'\n[gate]\nrequired_topics = ['t']\n";
    let errors = bad(text);
    let lines: Vec<_> = errors.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["5", "6"], "{errors}");
}
