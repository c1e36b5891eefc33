//! What holds for every configuration, and for every text that is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use proptest::prelude::*;
use worker::client::reading::HAS_LIBRDKAFKA;
use worker::client::{Isolation, Library};
use worker::config::{AutoOffsetReset, OnOutOfRange, OnTakeoverTimeout, Scope, TopicSettings};
use worker::failure::OnFailure;

use super::{EXAMPLE, example_with_all_settings, good, parse};

/// What a layer of the model says: key and value, both as in the file.
type Model = HashMap<&'static str, String>;

fn model(values: &[(&'static str, &str)]) -> Model {
    values.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

const PROFILES: [&str; 3] = ["balanced", "high-throughput", "real-time"];

/// What the three profiles set, written down a second time.
fn profile(name: &str) -> Model {
    let (records, timeout, wait, bytes) = match name {
        "balanced" => ("500", "3000", "500", "1024"),
        "high-throughput" => ("1000", "5000", "1000", "10240"),
        "real-time" => ("100", "1000", "100", "1"),
        other => panic!("{other}"),
    };
    model(&[
        ("max_poll_records", records),
        ("timeout_ms", timeout),
        ("fetch_max_wait_ms", wait),
        ("fetch_min_bytes", bytes),
    ])
}

fn defaults() -> Model {
    model(&[
        ("auto_offset_reset", "'latest'"),
        ("on_out_of_range", "'auto_offset_reset'"),
        ("max_partition_fetch_bytes", "104857600"),
        ("fetch_max_bytes", "524288000"),
        ("check_crcs", "true"),
        ("isolation_level", "'read_committed'"),
        ("client", "'auto'"),
        ("takeover_timeout_ms", "60000"),
        ("on_takeover_timeout", "'wait'"),
        ("sink", "'log'"),
        ("retry_attempts", "0"),
        ("retry_total_ms", "0"),
        ("retry_initial_ms", "100"),
        ("retry_max_ms", "10000"),
        ("on_failure", "'stop'"),
    ])
}

fn as_model(topic: &TopicSettings) -> Model {
    let reset = match topic.auto_offset_reset {
        AutoOffsetReset::Latest => "'latest'",
        AutoOffsetReset::Earliest => "'earliest'",
    };
    let range = match topic.on_out_of_range {
        OnOutOfRange::AutoOffsetReset => "'auto_offset_reset'",
        OnOutOfRange::Earliest => "'earliest'",
        OnOutOfRange::Latest => "'latest'",
        OnOutOfRange::Nearest => "'nearest'",
        OnOutOfRange::Stop => "'stop'",
    };
    let takeover = match topic.on_takeover_timeout {
        OnTakeoverTimeout::Wait => "'wait'",
        OnTakeoverTimeout::Proceed => "'proceed'",
    };
    let isolation = match topic.isolation {
        Isolation::ReadCommitted => "'read_committed'",
        Isolation::ReadUncommitted => "'read_uncommitted'",
    };
    let failure = topic.failure;
    let on_failure = match failure.on_failure {
        OnFailure::Stop => "'stop'",
        OnFailure::DeadLetter => "'dead_letter'",
        OnFailure::Drop => "'drop'",
    };
    let client = match topic.reading.library {
        None => "'auto'",
        Some(Library::Kafka) => "'kafka'",
        Some(Library::Librdkafka) => "'librdkafka'",
    };
    HashMap::from([
        ("isolation_level", isolation.to_owned()),
        ("client", client.to_owned()),
        ("auto_offset_reset", reset.to_owned()),
        ("on_out_of_range", range.to_owned()),
        ("max_poll_records", topic.max_poll_records.to_string()),
        ("timeout_ms", topic.timeout.as_millis().to_string()),
        ("fetch_max_wait_ms", topic.fetch_max_wait.as_millis().to_string()),
        ("fetch_min_bytes", topic.fetch_min_bytes.to_string()),
        ("max_partition_fetch_bytes", topic.max_partition_fetch_bytes.to_string()),
        ("fetch_max_bytes", topic.fetch_max_bytes.to_string()),
        ("check_crcs", topic.check_crcs.to_string()),
        ("takeover_timeout_ms", topic.takeover_timeout.as_millis().to_string()),
        ("on_takeover_timeout", takeover.to_owned()),
        ("sink", format!("'{}'", topic.sinks.join("', '"))),
        ("retry_attempts", failure.attempts.to_string()),
        ("retry_total_ms", failure.total.as_millis().to_string()),
        ("retry_initial_ms", failure.first.as_millis().to_string()),
        ("retry_max_ms", failure.longest.as_millis().to_string()),
        ("on_failure", on_failure.to_owned()),
    ])
}

/// Any of the keys, each with any of its right values.
fn layer() -> impl Strategy<Value = Model> {
    let number = |from: u32| (from..100_000).prop_map(|n| n.to_string());
    let one_of = |words: &'static [&'static str]| proptest::sample::select(words).prop_map(str::to_owned);
    let values = (
        proptest::option::of(one_of(&["'latest'", "'earliest'"])),
        proptest::option::of(one_of(&["'auto_offset_reset'", "'latest'", "'earliest'", "'nearest'", "'stop'"])),
        proptest::option::of(one_of(&["true", "false"])),
        proptest::option::of(one_of(&["'drop'", "'log'", "'stdout'"])),
        proptest::option::of(one_of(&["'wait'", "'proceed'"])),
        proptest::option::of(one_of(&["'read_committed'", "'read_uncommitted'"])),
        proptest::option::of(one_of(&["'stop'", "'drop'"])),
        proptest::collection::vec(proptest::option::of(number(1)), 7),
        // Above any fetch_min_bytes, below which every fetch would wait in vain.
        proptest::collection::vec(proptest::option::of(number(1).prop_map(|n| format!("1{n:0>6}"))), 2),
    );
    values.prop_map(|(reset, range, crcs, sink, takeover, isolation, failure, numbers, sizes)| {
        let keys = [
            "auto_offset_reset",
            "on_out_of_range",
            "check_crcs",
            "sink",
            "on_takeover_timeout",
            "isolation_level",
            "on_failure",
            "takeover_timeout_ms",
            "max_poll_records",
            "timeout_ms",
            "fetch_max_wait_ms",
            "fetch_min_bytes",
            "retry_attempts",
            "retry_total_ms",
            "max_partition_fetch_bytes",
            "fetch_max_bytes",
        ];
        let values = [reset, range, crcs, sink, takeover, isolation, failure].into_iter().chain(numbers).chain(sizes);
        keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

/// `client`, for `[kafka]` and for a topic.
fn client() -> impl Strategy<Value = Option<&'static str>> {
    let library: &[&str] = if HAS_LIBRDKAFKA { &["'auto'", "'kafka'", "'librdkafka'"] } else { &["'auto'", "'kafka'"] };
    proptest::option::of(proptest::sample::select(library))
}

fn write(text: &mut String, table: &str, layer: &Model) {
    text.push_str(table);
    for (key, value) in layer {
        writeln!(text, "{key} = {value}").unwrap();
    }
}

fn source(scope: &Scope, key: &str) -> String {
    let source = &scope.settings.iter().find(|setting| setting.key == key).unwrap().source;
    source.to_string().split(" line ").next().unwrap().to_owned()
}

/// Text that resembles a configuration: the example, cut up and sewn together wrongly.
fn scraps() -> impl Strategy<Value = String> {
    let at = 0..EXAMPLE.len();
    let scrap = prop_oneof![
        4 => (at, 1usize..200).prop_map(|(at, len)| {
            let whole = example_with_all_settings();
            whole.chars().skip(at).take(len).collect::<String>()
        }),
        2 => proptest::sample::select(&["[", "]", "[[topic]]\n", "[sink.x]\n", "name = 't'\n", "\"", "'''", "=", ".", "{", "}", "\n", "${", "$$", "#", "\u{feff}", "é", "\r", "\0", "1e400", "0x", "-0", "1979-05-27", "topics = [", "profile = 'real-time'\n"][..]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    proptest::collection::vec(scrap, 0..12).prop_map(|scraps| scraps.concat())
}

fn a_config_or_errors_with_lines(text: &str) {
    if let Err(errors) = parse(text) {
        let lines = text.lines().count().max(1);
        assert!(errors.iter().count() > 0);
        for error in errors.iter() {
            assert!((1..=lines).contains(&error.line), "{error} of {lines} lines in {text:?}");
            assert!(error.column > 0 && !error.text.is_empty() && !error.text.contains("bug"), "{error} in {text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A naive merge, the lowest layer first, gives the same values, from the same places.
    #[test]
    fn layers_lie_as_documented(
        consumer in layer(), topic in layer(), clients in (client(), client()),
        chosen in proptest::option::of(proptest::sample::select(&PROFILES[..])),
        own in proptest::option::of(proptest::sample::select(&PROFILES[..])),
    ) {
        let profile_line = |name: &Option<&str>| name.map_or(String::new(), |name| format!("profile = '{name}'\n"));
        let client = |client: Option<&'static str>| client.map(|client| ("client", client.to_owned()));
        let kafka: Model = client(clients.0).into_iter().collect();
        let topic: Model = topic.into_iter().chain(client(clients.1)).collect();
        let mut text = String::new();
        write(&mut text, "[kafka]\nbootstrap_servers = 'a:1'\n", &kafka);
        write(&mut text, &format!("[consumer]\ngroup_id = 'g'\ntopics = ['bare', 'own']\n{}", profile_line(&chosen)), &consumer);
        write(&mut text, &format!("[[topic]]\nname = 'own'\n{}", profile_line(&own)), &topic);

        let chosen = chosen.unwrap_or("balanced");
        let mut layers = vec![
            (defaults(), "default".to_owned()),
            (kafka, "[kafka]".to_owned()),
            (profile(chosen), format!("profile {chosen}")),
            (consumer, "[consumer]".to_owned()),
        ];
        let config = good(&text);
        let scope = |title: &str| config.report.iter().find(|scope| scope.title == title).unwrap();
        for index in [0, 1] {
            if index == 1 {
                layers.extend(own.map(|name| (profile(name), format!("profile {name}, [[topic]]"))));
                layers.push((topic.clone(), "[[topic]]".to_owned()));
            }
            let mut merged: BTreeMap<&str, (String, String)> = BTreeMap::new();
            for (layer, from) in &layers {
                merged.extend(layer.iter().map(|(key, value)| (*key, (value.clone(), from.clone()))));
            }
            let values: Model = merged.iter().map(|(key, (value, _))| (*key, value.clone())).collect();
            prop_assert_eq!(as_model(&config.topics[index]), values, "{}", text);
            let scope = scope(["topic bare", "topic own"][index]);
            for (key, (_, from)) in &merged {
                prop_assert_eq!(&source(scope, key), from, "{} in {}", key, text);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_config_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        a_config_or_errors_with_lines(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn scraps_of_a_config_are_a_config_or_errors(text in scraps()) {
        a_config_or_errors_with_lines(&text);
    }

    /// One change in a right file is enough to reach what wholly wrong ones don't.
    #[test]
    fn a_damaged_config_is_a_config_or_errors(from in 0..8000usize, len in 0..60usize, patch in "[\\PC\n]{0,6}") {
        let whole = example_with_all_settings();
        let chars: Vec<char> = whole.chars().collect();
        let from = from.min(chars.len());
        let rest = &chars[(from + len).min(chars.len())..];
        let text: String = chars[..from].iter().copied().chain(patch.chars()).chain(rest.iter().copied()).collect();
        a_config_or_errors_with_lines(&text);
    }

    /// No topic is consumed twice by one group, however the names of groups collide.
    #[test]
    fn a_group_has_a_topic_once(names in proptest::collection::vec("[ab-]{1,3}", 1..6), own in proptest::option::of("[ab-]{1,3}"), multi: bool) {
        let list: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
        let own = own.filter(|_| multi).map_or(String::new(), |group| format!("[[topic]]\nname = '{}'\ngroup_id = '{group}'\n", names[0]));
        let config = good(&format!("[kafka]\nbootstrap_servers = 'a:1'\n[consumer]\nmulti_consumer_mode = {multi}\ngroup_id = 'a'\ntopics = [{}]\n{own}", list.join(",")));
        let pairs: BTreeSet<_> = config.topics.iter().map(|t| (t.group.clone(), t.name.clone())).collect();
        prop_assert_eq!(pairs.len(), config.topics.len());
        let distinct: BTreeSet<_> = names.iter().collect();
        prop_assert_eq!(distinct.len(), config.topics.len());
    }
}
