//! `worker diagnose` on a real Kafka: one topic of each verdict.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::kafka::Kafka;
use crate::support::kafka::free_ports;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Produce};
use crate::support::on::On;
use crate::support::worker::{Site, Worker};
use crate::{kafka_or_skip, on_brokers, on_each};

on_each!(a_topic_of_each_verdict_on_a_real_kafka);
on_brokers!(what_needs_no_look_at_records_is_found_on_either_broker);

const TOPICS: [&str; 14] = [
    "idle",
    "empty",
    "catching-up",
    "falling-back",
    "stalled",
    "expired",
    "beyond",
    "lz4",
    "zstd",
    "no-conversion",
    "aborted",
    "sink-failing",
    "shared",
    "missing",
];

/// Commits and records that go on while a look is taken.
fn moving<T>(kafka: &Kafka, group: &str, catching: &str, falling: &str, body: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1..1_000 {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                kafka.tool().commit(&format!("{group}-{catching}"), catching, 0, turn * 20).unwrap();
                kafka.tool().commit(&format!("{group}-{falling}"), falling, 0, turn).unwrap();
                kafka.tool().produce(&Produce::new(falling, 200));
                thread::sleep(Duration::from_millis(50));
            }
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// A worker of its own consumes the topic whose sink fails; the others are nobody's. `--nocapture` shows the text.
fn a_topic_of_each_verdict_on_a_real_kafka(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let group = Kafka::name("diagnose");
    let names: Vec<String> = TOPICS.iter().map(|topic| Kafka::name(topic)).collect();
    let name = |topic: &str| names[TOPICS.iter().position(|known| *known == topic).unwrap()].as_str();
    let group_of = |topic: &str| format!("{group}-{}", name(topic));
    for topic in TOPICS.iter().filter(|topic| **topic != "missing") {
        let configs = if *topic == "no-conversion" && on.version == Version::V3 {
            "message.downconversion.enable=false"
        } else {
            ""
        };
        tool.create(name(topic), "1", configs);
    }
    for topic in ["idle", "stalled", "expired", "beyond", "no-conversion", "sink-failing", "shared"] {
        tool.produce(&Produce::new(name(topic), 100));
    }
    for topic in ["catching-up", "falling-back"] {
        tool.produce(&Produce::new(name(topic), 100_000));
    }
    for codec in ["lz4", "zstd"] {
        tool.produce(&Produce { configs: &format!("compression.type={codec}"), ..Produce::new(name(codec), 100) });
    }
    let configs = format!("enable.idempotence=true;transactional.id={}", Kafka::name("transaction"));
    tool.produce(&Produce { configs: &configs, end: End::Abort, ..Produce::new(name("aborted"), 10) });
    let commit = |topic: &str, at| tool.commit(&group_of(topic), name(topic), 0, at).unwrap();
    for (topic, at) in
        [("idle", 100), ("stalled", 40), ("expired", 30), ("beyond", 120), ("shared", 100), ("sink-failing", 0)]
    {
        commit(topic, at);
    }
    for topic in ["catching-up", "falling-back", "lz4", "zstd", "no-conversion"] {
        commit(topic, 0);
    }
    // Behind the ten records there is only the marker.
    commit("aborted", 10);
    tool.trim(name("expired"), 0, 70);
    tool.join(
        &group_of("shared"),
        &group_of("shared"),
        name("shared"),
        &format!("{};client.id=old-service", on.member()),
    );

    let listen = format!("'127.0.0.1:{}'", free_ports(1)[0]);
    let site = Site::new();
    let config = |topics: &[&str]| {
        let config =
            kafka.config(&group, topics).set("sink.full", "type", "'file'").set("sink.full", "path", "'/dev/full'");
        let config = config.set("admin", "listen", &listen).set("consumer", "auto_offset_reset", "'latest'");
        config.more(&format!("[[topic]]\nname = '{}'\nsink = 'full'\n", name("sink-failing")))
    };
    let worker = site.start(&config(&[name("sink-failing")]).to_string());
    worker.wait_words(&["sink fails"]);

    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let file = site.write_config(&config(&all).to_string()).display().to_string();
    let run = |arguments: &[&str]| {
        let ended = Worker::run(&[&["diagnose", "-c", &file, "--for", "3s"], arguments].concat());
        assert_eq!((ended.code(), ended.log.as_slice()), (Some(1), &[][..]));
        ended.stdout
    };
    let (json, text) =
        moving(kafka, &group, name("catching-up"), name("falling-back"), || (run(&["--json"]), run(&[])));
    tool.leave(&group_of("shared"));
    println!("{}", text.join("\n"));
    let report: Value = serde_json::from_str(&json[0]).unwrap();
    let found = report["topics"].as_array().unwrap().iter().map(|topic| (topic["topic"].as_str().unwrap(), topic));
    let found: BTreeMap<&str, &Value> = found.collect();
    // What the crate can't read, librdkafka could; but nobody does here.
    let unread = if on.is_old() { "unreadable" } else { "stalled" };
    let verdicts = TOPICS.map(|topic| (topic, found[name(topic)]["verdict"].as_str().unwrap()));
    assert_eq!(
        verdicts,
        [
            ("idle", "idle"),
            ("empty", "empty"),
            ("catching-up", "catching-up"),
            ("falling-back", "falling-back"),
            ("stalled", "stalled"),
            ("expired", "out-of-range"),
            ("beyond", "out-of-range"),
            ("lz4", unread),
            ("zstd", unread),
            ("no-conversion", unread),
            ("aborted", "stalled"),
            ("sink-failing", "sink-failing"),
            ("shared", "shared-group"),
            ("missing", "missing"),
        ],
        "{report:#}"
    );
    let evidence = |topic: &str| found[name(topic)]["evidence"].to_string();
    if on.is_old() {
        assert!(evidence("no-conversion").contains("down-conversion is disabled"), "{}", evidence("no-conversion"));
    }
    assert!(evidence("shared").contains("old-service at 127.0.0.1"), "{}", evidence("shared"));
    assert!(evidence("sink-failing").contains("No space left on device"), "{}", evidence("sink-failing"));
    assert!(!evidence("aborted").contains("could not be looked at"), "{}", evidence("aborted"));
    assert!(!tool.topics().contains(&name("missing").to_owned()), "asking makes no topic");
    assert_eq!(kafka.committed(&group_of("stalled"), name("stalled"), 0), Some(40), "asking moves nothing");
}

/// Nobody consumes; so it needs no client that can read the records there. The member is of the newest protocol.
fn what_needs_no_look_at_records_is_found_on_either_broker(version: Version) {
    let kafka = Kafka::shared_of(version);
    let tool = kafka.tool();
    let group = Kafka::name("diagnose");
    let names = ["idle", "empty", "expired", "shared", "missing"].map(Kafka::name);
    let [idle, empty, expired, shared, missing] = names.each_ref().map(String::as_str);
    for topic in [idle, empty, expired, shared] {
        tool.create(topic, "1", "");
    }
    for (topic, at) in [(idle, 100), (expired, 30), (shared, 100)] {
        tool.produce(&Produce::new(topic, 100));
        tool.commit(&format!("{group}-{topic}"), topic, 0, at).unwrap();
    }
    tool.trim(expired, 0, 70);
    let own = format!("{group}-{shared}");
    tool.join(&own, &own, shared, &format!("{};client.id=old-service", version.member()));
    let site = Site::new();
    let topics = names.each_ref().map(String::as_str);
    let config = kafka.config(&group, &topics).set("consumer", "auto_offset_reset", "'latest'");
    let file = site.write_config(&config.to_string()).display().to_string();
    let ended = Worker::run(&["diagnose", "-c", &file, "--for", "1s", "--json"]);
    tool.leave(&own);
    assert_eq!((ended.code(), ended.log.as_slice()), (Some(1), &[][..]));
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let found = report["topics"].as_array().unwrap();
    let of = |topic: &str| found.iter().find(|entry| entry["topic"] == topic).unwrap();
    let verdicts = [idle, empty, expired, shared, missing].map(|topic| of(topic)["verdict"].as_str().unwrap());
    assert_eq!(verdicts, ["idle", "empty", "out-of-range", "shared-group", "missing"], "{report:#}");
    let evidence = of(shared)["evidence"].to_string();
    assert!(evidence.contains("old-service at 127.0.0.1"), "{evidence}");
}

/// Kafka 4 serves the crate `kafka` no records at all. What helps is named with its place in the configuration.
#[test]
fn what_kafka_4_serves_no_more_is_unreadable_and_the_other_client_is_named() {
    let kafka = kafka_or_skip!(V4);
    let (topic, group) = (Kafka::name("too-new"), Kafka::name("diagnose"));
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 10));
    kafka.tool().commit(&format!("{group}-{topic}"), &topic, 0, 4).unwrap();
    let site = Site::new();
    let config = kafka.config(&group, &[&topic]).set("kafka", "client", "'kafka'");
    for (config, place) in [
        (config.clone(), format!("below [[topic]] name = \"{topic}\" in ")),
        (config.set("consumer", "multi_consumer_mode", false), "below [kafka] in ".to_owned()),
    ] {
        // In the other mode the group is that of all topics.
        kafka.tool().commit(&group, &topic, 0, 4).unwrap();
        let file = site.write_config(&config.to_string()).display().to_string();
        let ended = Worker::run(&["diagnose", "-c", &file, "--for", "1s", "--json"]);
        assert_eq!((ended.code(), ended.log.as_slice()), (Some(1), &[][..]));
        let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
        let found = &report["topics"][0];
        assert_eq!(found["verdict"], "unreadable", "{report:#}");
        let told =
            |key: &str| found[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<String>();
        assert!(told("evidence").contains("is too new for the client 'kafka'"), "{report:#}");
        let remedy = told("remedy");
        assert!(remedy.contains(&format!("client = \"auto\" (or \"librdkafka\") {place}{file}")), "{remedy}");
    }
}
