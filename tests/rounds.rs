//! One consumer for all topics, the gate, and the statistics of the rounds.

use broker::Codec;

use crate::support::bed::Bed;
use crate::support::worker::{Config, PATIENCE};

fn single(bed: &Bed, topics: &[&str]) -> Config {
    bed.config(topics).set("consumer", "multi_consumer_mode", false)
}

#[test]
fn one_group_for_all_topics() {
    let bed = Bed::new(&["a", "b", "c"]);
    let config = single(&bed, &["a", "b", "c"])
        .more("[[topic]]\nname = 'b'\nmax_poll_records = 1\nauto_offset_reset = 'latest'");
    (0..100).for_each(|_| bed.fill("a", 500));
    bed.fill("b", 30);
    bed.fill("c", 20);
    let worker = bed.started(&config);
    worker.wait_words(&["worker starting", "topics=3 mode=single"]);
    bed.fill("b", 25);
    for (topic, end) in [("a", 50_000), ("b", 55), ("c", 20)] {
        assert!(bed.server.await_committed("g", topic, 0, end, PATIENCE), "{topic}");
    }
    bed.assert_all("a", 0);
    bed.assert_all("c", 0);
    assert_eq!(bed.arrived_offsets("b", 0), (30..55).collect::<Vec<_>>());
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("a"), "delivered=50000 committed=50000 in_flight=0 expired=0 reset=0");
    assert_eq!(ended.sums("b"), "delivered=25 committed=55 in_flight=0 expired=0 reset=30");
    assert_eq!(ended.sums("c"), "delivered=20 committed=20 in_flight=0 expired=0 reset=0");
    assert_eq!(ended.lines_with(&["consumer started topic=", "group_id=g"]).len(), 3);
}

/// What can't be decoded comes in one answer with the others, which must not suffer.
#[test]
fn a_topic_that_cannot_be_read_or_is_missing_stops_none_of_the_others() {
    let bed = Bed::new(&["a", "lz4", "b"]);
    for topic in ["a", "lz4", "b"] {
        bed.fill(topic, 10);
    }
    bed.fill_as("lz4", 0, 10, Codec::Lz4);
    let worker = bed.started(&single(&bed, &["a", "lz4", "b", "missing"]));
    worker.wait_words(&["ERROR", "partition fails topic=lz4 partition=0 group_id=g", "codec=lz4"]);
    worker.wait_words(&["WARN", "topic missing topic=missing"]);
    for _ in 0..5 {
        bed.fill_as("a", 0, 10, Codec::Gzip);
        bed.fill_as("b", 0, 10, Codec::None);
        for topic in ["a", "b"] {
            let end = bed.server.bounds(topic, 0).unwrap().1;
            assert!(bed.server.await_committed("g", topic, 0, end, PATIENCE), "{topic}");
            bed.assert_all(topic, 0);
        }
    }
    assert_eq!(bed.server.committed("g", "lz4", 0), Some(10));
    bed.stop(worker);
    assert_eq!(bed.server.auto_created(), [""; 0]);
}

fn gated(bed: &Bed, max_attempts: u32, on_timeout: &str) -> Config {
    bed.config(&["a", "b", "c"])
        .set("gate", "required_topics", "['a', 'b']")
        .set("gate", "max_attempts", max_attempts)
        .set("gate", "timeout_ms", 200)
        .set("gate", "on_timeout", format!("'{on_timeout}'"))
        .set("log", "level", "'info,worker=debug'")
}

#[test]
fn a_gate_opens_when_every_required_topic_has_records() {
    let bed = Bed::new(&["a", "b", "c"]);
    bed.fill("a", 10);
    bed.fill("c", 10);
    let worker = bed.started(&gated(&bed, 1_000, "exit"));
    worker.wait_words(&["DEBUG", "gate closed attempt=3 of=1000 missing=\"b\""]);
    assert!(bed.site.records().is_empty());
    assert_eq!((bed.committed("a"), bed.committed("c")), (Some(0), Some(0)));
    bed.fill("b", 10);
    worker.wait_words(&["INFO", "gate open"]);
    for topic in ["a", "b", "c"] {
        bed.await_all(topic, 0);
    }
    bed.stop(worker);
}

#[test]
fn a_gate_that_expires_lets_the_records_through() {
    let bed = Bed::new(&["a", "b", "c"]);
    bed.fill("a", 10);
    bed.fill("c", 10);
    let worker = bed.started(&gated(&bed, 2, "proceed"));
    worker.wait_words(&["WARN", "gate expired missing=\"b\"", "action=proceed"]);
    bed.await_all("a", 0);
    bed.fill("b", 10);
    bed.await_all("b", 0);
    bed.await_all("c", 0);
    bed.stop(worker);
}

#[test]
fn a_gate_that_expires_ends_the_worker_if_it_is_to() {
    let bed = Bed::new(&["a", "b", "c"]);
    bed.fill("a", 10);
    let ended = bed.start(&gated(&bed, 15, "exit")).exit(PATIENCE);
    assert_eq!(ended.code(), Some(1), "{}", ended.log.join("\n"));
    assert_eq!(ended.lines_with(&["WARN", "gate expired missing=\"b\"", "action=exit"]).len(), 1);
    assert_eq!(ended.lines_with(&["ERROR", "gate stays closed, stopping error=\"no record of b within"]).len(), 1);
    assert_eq!(ended.lines_with(&["reading again"]).len(), 0, "{}", ended.log.join("\n"));
    assert_eq!(ended.sums("a"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert!(bed.site.records().is_empty());
    assert_eq!(bed.committed("a"), Some(0));
}

#[test]
fn a_worker_stops_while_its_gate_is_closed() {
    let bed = Bed::new(&["a", "b", "c"]);
    bed.fill("a", 10);
    let config = gated(&bed, 1_000, "exit").set("shutdown", "drain_timeout_ms", 500);
    let worker = bed.started(&config);
    worker.wait_words(&["DEBUG", "gate closed attempt=1"]);
    let ended = bed.stop(worker);
    assert_eq!(bed.committed("a"), Some(0));
    assert!(bed.site.records().is_empty());
    assert_eq!(ended.sums("a"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
}

/// Milliseconds of the day of a line of the log: `2026-01-31T12:34:56.789Z …`.
fn time_of(line: &str) -> u64 {
    let part = |range: std::ops::Range<usize>| line[range].parse::<u64>().unwrap();
    ((part(11..13) * 60 + part(14..16)) * 60 + part(17..19)) * 1_000 + part(20..23)
}

#[test]
fn the_rounds_are_told_once_a_second_at_debug() {
    let bed = Bed::new(&["a", "b"]);
    bed.fill("a", 10);
    let config = bed.config(&["a", "b"]).set("log", "level", "'info,worker=debug'").set("consumer", "timeout_ms", 100);
    let worker = bed.started(&config);
    let (line, _) = worker.wait_words_after(0, &["DEBUG", "polled [a:10, b:0] total=10"]);
    bed.fill("a", 3);
    bed.fill("b", 4);
    let (line, _) = worker.wait_words_after(line, &["DEBUG", "polled [a:3, b:4] total=7"]);
    worker.wait_words_after(line, &["DEBUG", "polled [a:0, b:0] total=0"]);
    let ended = bed.stop(worker);
    let times: Vec<u64> = ended.lines_with(&["polled ["]).iter().map(|line| time_of(line)).collect();
    assert!(times.len() >= 3);
    // Midnight makes a step back, which is none.
    assert!(times.windows(2).all(|pair| pair[1] < pair[0] || pair[1] - pair[0] >= 990), "{times:?}");
}
