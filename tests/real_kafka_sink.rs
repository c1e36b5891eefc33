//! What the sink `kafka` makes of records, on real brokers: all that they are made of, their order, and what becomes of them
//! when the worker is killed, the target is restarted, or a record is refused.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::on_brokers;
use crate::support::eventually_within;
use crate::support::http;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::LONG;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Flow, Message, Produce, Read};
use crate::support::worker::{Config, Site};

on_brokers!(
    records_arrive_as_they_were,
    keys_go_where_a_java_producer_puts_them,
    kill_9_at_random_under_load_loses_nothing_and_keeps_the_order,
    a_restart_of_the_target_under_load_loses_nothing_and_keeps_the_order,
    a_record_that_is_too_large_is_a_dead_letter_and_the_rest_goes_on,
    a_batch_that_is_too_large_is_made_smaller,
    records_that_a_compacted_topic_refuses_are_dead_letters_and_no_others,
    a_target_that_is_missing_is_waited_for,
    a_target_with_fewer_partitions_is_told,
    a_stop_does_not_wait_for_a_target_that_hangs,
);

/// A configuration that forwards topics of one cluster to `to`, read by librdkafka, which alone tells all of a record.
fn forward(kafka: &Kafka, group: &str, topics: &[&str], to: &str) -> Config {
    kafka
        .config(group, topics)
        .set("kafka", "client", "'librdkafka'")
        .set("sink.k", "type", "'kafka'")
        .set("sink.k", "topic", format!("'{to}'"))
        .set("sink.k", "timeout_ms", 3_000)
        .set("consumer", "sink", "'k'")
}

fn with_dead_letters(config: Config) -> Config {
    config.set("consumer", "on_failure", "'dead_letter'").set("dead_letter", "path", "'@DIR@/dead.jsonl'")
}

#[track_caller]
fn await_committed(kafka: &Kafka, group: &str, topic: &str, ends: &[i64]) {
    for (partition, end) in ends.iter().enumerate() {
        kafka.await_committed(&format!("{group}-{topic}"), topic, i32::try_from(partition).unwrap(), *end);
    }
}

/// Each partition's records.
fn by_partition(read: Vec<Read>) -> BTreeMap<i32, Vec<Read>> {
    let mut all: BTreeMap<i32, Vec<Read>> = BTreeMap::new();
    read.into_iter().for_each(|record| all.entry(record.partition).or_default().push(record));
    all
}

/// Values as they came for the first time must be those of the source, in its order. Returns how many came again.
#[track_caller]
fn account(source: &[Read], copied: &[Read]) -> usize {
    let value = |record: &Read| record.value.clone();
    let mut expected = source.iter().map(value);
    let mut seen = std::collections::HashSet::new();
    for (at, record) in copied.iter().map(value).enumerate() {
        if seen.insert(record.clone()) {
            assert_eq!(expected.next(), Some(record), "record {at} is out of order, or one before it is missing");
        }
    }
    assert_eq!(expected.next(), None, "missing from here on");
    copied.len() - source.len()
}

type Shape = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(String, Option<Vec<u8>>)>);

/// All that records are made of, as librdkafka reads them.
fn shapes(kafka: &Kafka, topic: &str, count: usize) -> Vec<Shape> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.bootstrap).set("group.id", topic).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(0)).unwrap();
    consumer.assign(&list).unwrap();
    let until = Instant::now() + LONG;
    let mut shapes = Vec::new();
    while shapes.len() < count {
        assert!(Instant::now() < until, "{} of {count} records", shapes.len());
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = polled.unwrap();
        let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        let headers = message.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default();
        let (key, value) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
        shapes.push((key, value, message.timestamp().to_millis(), headers));
    }
    shapes
}

fn records_arrive_as_they_were(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("shapes");
    let copy = format!("copy-of-{topic}.x");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().create(&copy, "1", "");
    let bytes: Vec<u8> = (0..=255).collect();
    let at = |key, value| Message { topic: &topic, partition: 0, key, value, timestamp_ms: Some(77) };
    let sent = [at(None, None), at(Some(b""), Some(b"")), at(Some(&bytes), Some(&bytes)), at(Some(b"k"), None)];
    kafka.tool().send("", End::Plain, &sent);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some(&b"\xff\0"[..]) })
        .insert(Header { key: "", value: Some(&b""[..]) })
        .insert(Header { key: "ü", value: None::<&[u8]> })
        .insert(Header { key: "a", value: Some(&b"2"[..]) });
    let record = BaseRecord::<str, str>::to(&topic).payload("v").headers(headers).timestamp(1_700_000_000_123);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let (site, group) = (Site::new(), Kafka::name("g"));
        let config =
            forward(kafka, &group, &[&topic], "copy-of-{topic}.x").set("sink.k", "compression", format!("'{codec}'"));
        let worker = site.start(&config.to_string());
        await_committed(kafka, &group, &topic, &[5]);
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0));
        assert!(ended.lines_with(&["sink fails"]).is_empty(), "{:#?}", ended.log);
    }
    let original = shapes(kafka, &topic, 5);
    assert_eq!(original[4].3.len(), 4);
    let expected: Vec<Shape> = original.iter().cycle().take(25).cloned().collect();
    assert_eq!(shapes(kafka, &copy, 25), expected);
}

fn keys_go_where_a_java_producer_puts_them(version: Version) {
    let kafka = Kafka::shared_of(version);
    let (topic, direct) = (Kafka::name("keys"), Kafka::name("direct"));
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "2", "");
    kafka.tool().create(&direct, "7", "");
    kafka.tool().create(&copy, "7", "");
    kafka.tool().produce(&Produce { partition: None, keys: "300", ..Produce::new(&direct, 300) });
    kafka.tool().produce(&Produce { partition: None, keys: "300", ..Produce::new(&topic, 3_000) });
    let ends: Vec<i64> = kafka.tool().bounds(&topic).iter().map(|(_, end)| *end).collect();
    let (site, group) = (Site::new(), Kafka::name("g"));
    let config =
        forward(kafka, &group, &[&topic], "{topic}-copy").set("sink.k", "lanes", 3).set("sink.k", "order", "'key'");
    let worker = site.start(&config.to_string());
    await_committed(kafka, &group, &topic, &ends);
    assert_eq!(worker.stop().code(), Some(0));

    let places = |topic: &str| -> BTreeMap<Option<Vec<u8>>, Vec<i32>> {
        let mut places: BTreeMap<_, Vec<i32>> = BTreeMap::new();
        for record in kafka.tool().read(topic, "read_committed") {
            let place = places.entry(record.key).or_default();
            place.push(record.partition);
            place.dedup();
        }
        places
    };
    assert_eq!(places(&copy).len(), 300);
    assert_eq!(places(&copy), places(&direct));
    let by_key = |topic: &str| {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for record in kafka.tool().read(topic, "read_committed") {
            keys.entry(record.key).or_default().push(record.value);
        }
        keys
    };
    assert_eq!(by_key(&copy), by_key(&topic), "each key in its order, none twice");
}

fn seed() -> u64 {
    let seed: Option<u64> = std::env::var("WORKER_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    println!("WORKER_TESTS_SEED={seed}");
    seed | 1
}

/// How many records of each partition came again, after all have come, in order.
#[track_caller]
fn account_all(source: &Kafka, topic: &str, target: &Kafka, copy: &str) -> usize {
    let (original, copied) = (
        by_partition(source.tool().read(topic, "read_committed")),
        by_partition(target.tool().read(copy, "read_committed")),
    );
    original.iter().map(|(partition, records)| account(records, &copied[partition])).sum()
}

fn kill_9_at_random_under_load_loses_nothing_and_keeps_the_order(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("killed");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "2", "");
    kafka.tool().create(&copy, "2", "");
    let flow = Flow { name: &topic, topics: &[&topic], partitions: 2, rate: 4_000, size: 100, configs: "" };
    kafka.tool().flow(flow);
    let (site, group, mut random) = (Site::new(), Kafka::name("g"), seed());
    let config = forward(kafka, &group, &[&topic], "{topic}-copy").set("sink.k", "partition", "'same'").to_string();
    for _ in 0..8 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let worker = site.start(&config);
        // A random moment is what is wanted, not an event.
        std::thread::sleep(Duration::from_millis(random % 1_500));
        worker.kill9();
    }
    let sent = kafka.tool().end_flow(&topic).sent;
    let worker = site.start(&config);
    let ends: Vec<i64> = kafka.tool().bounds(&topic).iter().map(|(_, end)| *end).collect();
    await_committed(kafka, &group, &topic, &ends);
    assert_eq!(worker.stop().code(), Some(0));
    let again = account_all(kafka, &topic, kafka, &copy);
    println!("kill -9 eight times within {sent} records: missing 0, order kept, delivered twice {again}");
}

fn a_restart_of_the_target_under_load_loses_nothing_and_keeps_the_order(version: Version) {
    let kafka = Kafka::shared_of(version);
    let target = Kafka::node_of(version, &[]);
    let topic = Kafka::name("restarted");
    kafka.tool().create(&topic, "2", "");
    target.tool().create(&topic, "2", "");
    let flow = Flow { name: &topic, topics: &[&topic], partitions: 2, rate: 4_000, size: 100, configs: "" };
    kafka.tool().flow(flow);
    let (site, group) = (Site::new(), Kafka::name("g"));
    let config = forward(kafka, &group, &[&topic], "{topic}")
        .set("sink.k", "partition", "'same'")
        .set("sink.k", "bootstrap_servers", format!("['{}']", target.bootstrap))
        .to_string();
    let worker = site.start(&config);
    let written = |at_least: i64| {
        let sum = || target.tool().bounds(&topic).iter().map(|(_, end)| end).sum::<i64>();
        eventually_within(LONG, "the target has more records", || sum() >= at_least);
        sum()
    };
    let mut reached = 0;
    for kill in [true, false, true] {
        reached = written(reached + 5_000);
        if kill {
            target.kill(0);
            // Longer than the sink waits for an acknowledgement, so that it gives up and tries again.
            worker.wait_words(&["sink fails, its topics wait sink=k", "timeout_ms=3000", &target.bootstrap]);
        } else {
            target.stop(0);
        }
        target.start(0);
    }
    written(reached + 5_000);
    let sent = kafka.tool().end_flow(&topic).sent;
    let ends: Vec<i64> = kafka.tool().bounds(&topic).iter().map(|(_, end)| *end).collect();
    await_committed(kafka, &group, &topic, &ends);
    assert_eq!(worker.stop().code(), Some(0));
    let again = account_all(kafka, &topic, &target, &topic);
    println!("three restarts of the target within {sent} records: missing 0, order kept, delivered twice {again}");
}

/// The offsets of the dead letters of a site, and their reasons.
fn letters(site: &Site) -> Vec<(i64, String)> {
    let text = fs::read_to_string(site.path("dead.jsonl")).unwrap_or_default();
    let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let letter =
        |line: serde_json::Value| (line["offset"].as_i64().unwrap(), line["reason"].as_str().unwrap().to_owned());
    text.lines().map(|line| letter(parse(line))).collect()
}

fn a_record_that_is_too_large_is_a_dead_letter_and_the_rest_goes_on(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("large");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "1", "max.message.bytes=3000000");
    kafka.tool().create(&copy, "1", "");
    let mut first = 0;
    for (count, size) in [(2_000, 100), (1, 1_500_000), (500, 100), (2, 1_200_000), (1_000, 100)] {
        let configs = "max.request.size=3000000;enable.idempotence=true";
        kafka.tool().produce(&Produce { first, size, configs, partition: Some(0), ..Produce::new(&topic, count) });
        first += count;
    }
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&with_dead_letters(forward(kafka, &group, &[&topic], "{topic}-copy")).to_string());
    await_committed(kafka, &group, &topic, &[3_503]);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    let letters = letters(&site);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2_000, 2_501, 2_502]);
    for word in ["MessageSizeTooLarge", &copy, "max.message.bytes"] {
        assert!(letters[0].1.contains(word), "{word}: {}", letters[0].1);
    }
    let mut source = kafka.tool().read(&topic, "read_committed");
    source.retain(|record| record.value.as_ref().is_some_and(|value| value.len() < 1_000));
    let again = account(&source, &kafka.tool().read(&copy, "read_committed"));
    println!("three of 3503 records too large: missing 0, order kept, delivered twice {again}");
}

fn a_batch_that_is_too_large_is_made_smaller(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("batches");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().create(&copy, "1", "max.message.bytes=20000");
    kafka.tool().produce(&Produce { size: 1_000, partition: Some(0), ..Produce::new(&topic, 3_000) });
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&with_dead_letters(forward(kafka, &group, &[&topic], "{topic}-copy")).to_string());
    await_committed(kafka, &group, &topic, &[3_000]);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(letters(&site), []);
    assert!(!ended.lines_with(&["batches made smaller sink=k"]).is_empty(), "{:#?}", ended.log);
    let again = account(&kafka.tool().read(&topic, "read_committed"), &kafka.tool().read(&copy, "read_committed"));
    println!("batches too large for their topic: missing 0, order kept, delivered twice {again}");
}

fn records_that_a_compacted_topic_refuses_are_dead_letters_and_no_others(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("uncompacted");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().create(&copy, "1", "cleanup.policy=compact");
    let values: Vec<String> = (0..1_000).map(|number| format!("value {number}")).collect();
    let refused = [0, 300, 301, 302, 700, 999];
    let message = |(number, value)| {
        let key = (!refused.contains(&number)).then_some(&b"k"[..]);
        Message { topic: &topic, partition: 0, key, value: Some(value), timestamp_ms: None }
    };
    let messages: Vec<Message> = values.iter().map(|value| value.as_bytes()).enumerate().map(message).collect();
    kafka.tool().send("", End::Plain, &messages);
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&with_dead_letters(forward(kafka, &group, &[&topic], "{topic}-copy")).to_string());
    await_committed(kafka, &group, &topic, &[1_000]);
    assert_eq!(worker.stop().code(), Some(0));
    let letters = letters(&site);
    let offsets: Vec<_> = letters.iter().map(|(offset, _)| usize::try_from(*offset).unwrap()).collect();
    assert_eq!(offsets, refused);
    assert!(letters[1].1.contains("InvalidRecord") && letters[1].1.contains(&copy), "{}", letters[1].1);
    let mut source = kafka.tool().read(&topic, "read_committed");
    source.retain(|record| record.key.is_some());
    let again = account(&source, &kafka.tool().read(&copy, "read_committed"));
    println!("six of 1000 records refused: missing 0, order kept, delivered twice {again}");
}

fn a_target_that_is_missing_is_waited_for(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("early");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 100));
    let (site, group) = (Site::new(), Kafka::name("g"));
    let worker = site.start(&forward(kafka, &group, &[&topic], "{topic}-copy").to_string());
    let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=k", &copy]);
    for word in ["offset=0", "does not exist", "--create", &kafka.bootstrap] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(!kafka.tool().topics().contains(&copy), "it is never created by the worker");
    assert_eq!(kafka.committed(&format!("{group}-{topic}"), &topic, 0).unwrap_or(0), 0);
    kafka.tool().create(&copy, "1", "");
    worker.wait_words(&["sink works again sink=k"]);
    await_committed(kafka, &group, &topic, &[100]);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(account(&kafka.tool().read(&topic, "read_committed"), &kafka.tool().read(&copy, "read_committed")), 0);
}

fn a_target_with_fewer_partitions_is_told(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("wide");
    let copy = format!("{topic}-copy");
    kafka.tool().create(&topic, "2", "");
    kafka.tool().create(&copy, "1", "");
    kafka.tool().produce(&Produce { partition: Some(1), ..Produce::new(&topic, 10) });
    let (site, group) = (Site::new(), Kafka::name("g"));
    let config = forward(kafka, &group, &[&topic], "{topic}-copy").set("sink.k", "partition", "'same'");
    let worker = site.start(&config.to_string());
    let line = worker.wait_words(&["sink fails, its topics wait sink=k", "partition=1 offset=0"]);
    for word in ["has no partition 1", "kafka-topics --alter", &copy, "partition = \"key\""] {
        assert!(line.contains(word), "{word}: {line}");
    }
    kafka.tool().grow(&copy, 2);
    await_committed(kafka, &group, &topic, &[0, 10]);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(account_all(kafka, &topic, kafka, &copy), 0);
}

/// What it may have taken comes again.
fn a_stop_does_not_wait_for_a_target_that_hangs(version: Version) {
    let kafka = Kafka::shared_of(version);
    let target = Kafka::node_of(version, &[]);
    let topic = Kafka::name("hanging");
    kafka.tool().create(&topic, "1", "");
    target.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 100));
    let (site, group) = (Site::new(), Kafka::name("g"));
    let config = forward(kafka, &group, &[&topic], "{topic}")
        .set("sink.k", "timeout_ms", 600_000)
        // A look-up ends within its own time, and is not what is tried here.
        .set("kafka", "metadata_max_age_ms", 600_000)
        .set("sink.k", "bootstrap_servers", format!("['{}']", target.bootstrap))
        .set("shutdown", "drain_timeout_ms", 300)
        .set("admin", "listen", "'127.0.0.1:0'");
    let worker = site.start(&config.to_string());
    await_committed(kafka, &group, &topic, &[100]);
    target.freeze(0);
    kafka.tool().produce(&Produce { first: 100, ..Produce::new(&topic, 100) });
    let admin = http::address(&worker);
    let hangs = || http::metric(admin, "worker_sink_busy_seconds{sink=\"k\"}").is_some_and(|busy| busy > 0.5);
    eventually_within(LONG, "the sink waits for its target", hangs);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.sums(&topic), "delivered=100 committed=100 in_flight=100 expired=0 reset=0");
    assert_eq!(ended.lines_with(&["threads did not end in time"]), [""; 0], "{:#?}", ended.log);
    target.thaw(0);
    let worker = site.start(&config.to_string());
    await_committed(kafka, &group, &topic, &[200]);
    assert_eq!(worker.stop().code(), Some(0));
    account_all(kafka, &topic, &target, &topic);
}
