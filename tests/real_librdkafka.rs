//! The reader over librdkafka against a real Kafka: what it delivers, and what it proves to be absent.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use worker::client::{Event, Fault, Isolation};

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::{End, Message, Produce};

mod faults;
mod harness;
mod lives;
mod measure;

use harness::{Harness, Settings};

const PLAIN: &str = "";

#[test]
fn all_codecs_are_read_in_order_without_a_gap() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("codecs");
    kafka.tool().create(&topic, "1", PLAIN);
    for (first, codec) in [(0, "none"), (500, "gzip"), (1000, "snappy"), (1500, "lz4"), (2000, "zstd")] {
        let configs = format!("compression.type={codec};batch.size=4096;linger.ms=5;enable.idempotence=true");
        kafka.tool().produce(&Produce { first, configs: &configs, size: 60, keys: "7", ..Produce::new(&topic, 500) });
    }
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    harness.until("all are read", |h| h.position(&part) == 2500);
    for (n, record) in harness.records(&part).iter().enumerate() {
        assert_eq!(record.offset, n as i64);
        assert_eq!(&record.value.as_deref().unwrap()[..12], format!("{n:012}").as_bytes());
        assert_eq!(record.key.as_deref(), Some(format!("k{}", n % 7).as_bytes()));
    }
    assert_eq!(harness.records(&part).len(), 2500);
}

#[test]
fn null_is_told_from_empty_and_headers_and_timestamps_come_as_they_were_sent() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("shapes");
    kafka.tool().create(&topic, "1", PLAIN);
    let at = |key, value| Message { topic: &topic, partition: 0, key, value, timestamp_ms: Some(77) };
    let bytes: Vec<u8> = (0..=255).collect();
    let sent = [at(None, None), at(Some(b""), Some(b"")), at(Some(&bytes), Some(&bytes)), at(Some(b"k"), None)];
    kafka.tool().send(PLAIN, End::Plain, &sent);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &kafka.bootstrap).create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "a", value: Some("1") })
        .insert(Header { key: "", value: Some("") })
        .insert(Header { key: "ü", value: None::<&str> })
        .insert(Header { key: "a", value: Some("2") });
    let record = BaseRecord::<str, str>::to(&topic).payload("v").headers(headers).timestamp(1_700_000_000_123);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();

    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    harness.until("all are read", |h| h.position(&part) == 5);
    let records = harness.records(&part);
    let shapes: Vec<_> = records.iter().take(4).map(|r| (r.key.as_deref(), r.value.as_deref())).collect();
    assert_eq!(shapes, sent.map(|m| (m.key, m.value)));
    assert!(records.iter().take(4).all(|record| record.timestamp_ms == Some(77) && record.headers.is_empty()));
    let last = &records[4];
    assert_eq!((last.timestamp_ms, last.key.as_deref()), (Some(1_700_000_000_123), None));
    let expected = [("a", Some(&b"1"[..])), ("", Some(b"")), ("ü", None), ("a", Some(b"2"))];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
    assert_eq!(last.headers, expected);
}

#[test]
fn a_topic_that_ends_with_a_transaction_marker_is_read_to_its_end() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("markers");
    kafka.tool().create(&topic, "1", PLAIN);
    let configs = format!("enable.idempotence=true;transactional.id={topic}");
    let part = |first, end| Produce { first, end, configs: &configs, ..Produce::new(&topic, 10) };
    for (first, end) in [(0, End::Commit), (10, End::Abort), (20, End::Commit), (30, End::Abort)] {
        kafka.tool().produce(&part(first, end));
    }
    crate::support::eventually("four markers are there", || kafka.tool().bounds(&topic) == [(0, 44)]);
    let numbers = |harness: &Harness, part: &_| -> Vec<i64> {
        let number = |value: &[u8]| String::from_utf8_lossy(&value[..12]).parse().unwrap();
        harness.records(part).iter().map(|r| number(r.value.as_deref().unwrap())).collect()
    };
    let mut committed = Harness::new(&kafka.bootstrap, Settings::default());
    let name = committed.seek(&topic, 0, 0);
    let since = Instant::now();
    committed.until("the end is reached", |h| h.position(&name) == 44);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(numbers(&committed, &name), (0..10).chain(20..30).collect::<Vec<_>>());

    let settings = Settings { isolation: Isolation::ReadUncommitted, ..Settings::default() };
    let mut all = Harness::new(&kafka.bootstrap, settings);
    let name = all.seek(&topic, 0, 0);
    all.until("the end is reached", |h| h.position(&name) == 44);
    assert_eq!(numbers(&all, &name), (0..40).collect::<Vec<_>>());

    // More of it while it is read: again up to the marker.
    kafka.tool().produce(&part(40, End::Commit));
    committed.until("the new end is reached", |h| h.position(&name) == 55);
    kafka.tool().produce(&part(50, End::Abort));
    committed.until("only aborted records came", |h| h.position(&name) == 66);
}

#[test]
fn holes_that_compaction_left_are_proved_to_be_absent() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("holes");
    // Two rounds have more bytes than a segment, so each begins a new one; all but the last one can be compacted.
    let segments = kafka.segment_bytes(8192);
    let configs = format!("cleanup.policy=compact;min.cleanable.dirty.ratio=0.01;{segments};delete.retention.ms=100");
    kafka.tool().create(&topic, "1", &configs);
    for round in 0..6 {
        kafka.tool().produce(&Produce { first: round * 50, keys: "5", ..Produce::new(&topic, 50) });
    }
    let count = || kafka.tool().read(&topic, "read_committed").len();
    crate::support::eventually_within(Duration::from_secs(90), "the log is compacted", || count() < 150);
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    let part = harness.seek(&topic, 0, 0);
    harness.until("the end is reached", |h| h.position(&part) == 300);
    // Spans are adjacent; the harness checks that. Each number is that of its offset.
    let records = harness.records(&part);
    assert!(records.len() < 300, "there are holes");
    for record in records {
        assert_eq!(&record.value.as_deref().unwrap()[..12], format!("{:012}", record.offset).as_bytes());
    }
}

#[test]
fn a_position_outside_of_the_log_is_told_with_both_ends() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("outside");
    kafka.tool().create(&topic, "2", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 100));
    kafka.tool().trim(&topic, 0, 40);
    let mut harness = Harness::new(&kafka.bootstrap, Settings::default());
    for outside in [3, 101] {
        let part = harness.seek(&topic, 0, outside);
        harness.until("it is told", |h| h.outside(&part).is_some());
        let (at, bounds) = harness.outside(&part).unwrap();
        assert_eq!((at.get(), bounds.log_start.get(), bounds.log_end.get()), (outside, 40, 100));
        harness.forget(&part);
    }
    // It goes on from where it is told to.
    let part = harness.seek(&topic, 0, 40);
    harness.until("the rest is read", |h| h.position(&part) == 100);
    assert_eq!(harness.records(&part).len(), 60);
}

#[test]
fn a_large_record_comes_through_a_small_share() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("large");
    kafka.tool().create(&topic, "1", "max.message.bytes=30000000");
    let produce = |first, count, size| {
        let configs = "max.request.size=30000000;buffer.memory=64000000";
        kafka.tool().produce(&Produce { first, size, configs, ..Produce::new(&topic, count) });
    };
    produce(0, 10, 100);
    produce(10, 1, 20_000_000);
    produce(11, 10, 100);
    let settings = Settings { memory: 1 << 20, reserve: 64 << 20, ..Settings::default() };
    let mut harness = Harness::new(&kafka.bootstrap, settings);
    let part = harness.seek(&topic, 0, 0);
    harness.until("all are read", |h| h.position(&part) == 21);
    assert_eq!(harness.records(&part)[10].value.as_ref().unwrap().len(), 20_000_000);
    // The loan has come back with it, else there would be none for another.
    harness.seek(&topic, 0, 5);
    harness.until("all are read again", |h| h.position(&part) == 21);
}

#[test]
fn a_record_that_is_larger_than_all_limits_is_named_with_the_setting() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("too-large");
    kafka.tool().create(&topic, "2", "max.message.bytes=30000000");
    kafka.tool().produce(&Produce::new(&topic, 10));
    let configs = "max.request.size=30000000;buffer.memory=64000000";
    kafka.tool().produce(&Produce { first: 10, size: 20_000_000, configs, ..Produce::new(&topic, 1) });
    kafka.tool().produce(&Produce { partition: Some(1), ..Produce::new(&topic, 10) });
    let settings = Settings { memory: 4 << 20, reserve: 8 << 20, ..Settings::default() };
    let mut harness = Harness::new(&kafka.bootstrap, settings);
    let (part, other) = (harness.seek(&topic, 0, 0), harness.seek(&topic, 1, 0));
    harness.until("it is told", |h| h.failing(&part).is_some());
    let Some(Fault::TooLarge { offset, size, limit, setting }) = harness.failing(&part) else {
        panic!("{:?}", harness.failing(&part));
    };
    assert_eq!((offset.get(), limit, setting), (10, 8 << 20, "memory.limit"));
    assert!(size > 20_000_000);
    assert_eq!(harness.position(&part), 10);
    // The other partition of that broker is read all the same, also what comes later.
    kafka.tool().produce(&Produce { partition: Some(1), first: 10, ..Produce::new(&topic, 10) });
    harness.until("the other partition is read", |h| h.position(&other) == 20);
}

/// Whether one of these was told.
fn told(events: &[Event], which: impl Fn(&Event) -> bool) -> bool {
    events.iter().any(which)
}
