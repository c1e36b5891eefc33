//! `client = "auto"`: which library reads a topic, and that nothing is lost or doubled when it changes.

use crate::kafka_or_skip;
use crate::on_brokers;
use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Produce};
use crate::support::worker::{Config, Site, sink};

on_brokers!(whatever_is_written_arrives_once_and_in_order,);

fn auto(kafka: &Kafka, group: &str, topics: &[&str]) -> Config {
    kafka.config(group, topics).set("kafka", "client", "'auto'")
}

/// Plain, then what the crate `kafka` can't read, then plain again.
fn whatever_is_written_arrives_once_and_in_order(version: Version) {
    let kafka = Kafka::shared_of(version);
    let tool = kafka.tool();
    let names: Vec<String> = ["lz4", "zstd", "gzip", "plain"].map(Kafka::name).into();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    for (topic, codec) in topics.iter().zip(["lz4", "zstd", "gzip", "none"]) {
        tool.create(topic, "2", "");
        for partition in [0, 1] {
            let configs = format!("compression.type={codec}");
            let some = |first, configs| {
                tool.produce(&Produce { partition: Some(partition), first, configs, ..Produce::new(topic, 50) });
            };
            some(0, "");
            some(50, configs.as_str());
            some(100, "");
        }
    }
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&auto(kafka, &group, &topics).to_string());
    for topic in &topics {
        for partition in [0, 1] {
            kafka.await_committed(&format!("{group}-{topic}"), topic, partition, 150);
        }
    }
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.lines_with(&["ERROR"]), Vec::<&str>::new());
    let records = site.records();
    for (topic, codec) in topics.iter().zip(["lz4", "zstd", "gzip", "none"]) {
        for partition in [0, 1] {
            assert_eq!(sink::offsets(&records, topic, partition), (0..150).collect::<Vec<_>>(), "{topic}-{partition}");
        }
        let words = ["INFO", "reading with librdkafka from now on", &format!("topic={topic}"), codec];
        let changes = usize::from(version == Version::V3 && matches!(codec, "lz4" | "zstd"));
        assert_eq!(ended.lines_with(&words).len(), changes, "told once, with the reason");
    }
}

/// Old fetches deliver what was aborted; so a topic of transactions is another library's from its first record on.
#[test]
fn nothing_that_was_aborted_is_delivered() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let topic = Kafka::name("aborted");
    tool.create(&topic, "1", "");
    let id = format!("enable.idempotence=true;transactional.id={topic}");
    let some = |first, end| tool.produce(&Produce { first, end, configs: &id, ..Produce::new(&topic, 20) });
    some(0, End::Abort);
    some(20, End::Commit);
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&auto(kafka, &group, &[&topic]).to_string());
    // 20 and a marker, twice.
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 42);
    worker.wait_words(&["INFO", "reading with librdkafka from now on", "written in a transaction"]);
    some(40, End::Abort);
    some(60, End::Commit);
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 84);
    assert_eq!(worker.stop().code(), Some(0));
    let offsets: Vec<i64> = (21..41).chain(63..83).collect();
    assert_eq!(sink::offsets(&site.records(), &topic, 0), offsets);
}

/// The broker refuses to convert for old fetches: another library needs no conversion.
#[test]
fn a_topic_without_down_conversion_is_read() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let topic = Kafka::name("no-conversion");
    tool.create(&topic, "1", "message.downconversion.enable=false");
    tool.produce(&Produce::new(&topic, 20));
    let group = Kafka::name("g");
    let site = Site::new();
    let worker = site.start(&auto(kafka, &group, &[&topic]).to_string());
    kafka.await_committed(&format!("{group}-{topic}"), &topic, 0, 20);
    worker.wait_words(&["INFO", "reading with librdkafka from now on", "message.downconversion.enable"]);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (0..20).collect::<Vec<_>>());
}
