//! Given a topic that is missing, grows, is deleted or is named twice, the others run on.
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::eventually;

for_clients!(
    partitions_that_are_added_are_read_from_their_start,
    a_topic_that_is_deleted_and_made_anew_is_read_from_its_start,
    a_topic_that_is_made_anew_at_once,
    many_idle_topics_beside_a_busy_one,
);

#[test]
fn a_missing_topic_is_not_created_and_read_from_its_start_when_it_appears() {
    let bed = Bed::new(&["there"]);
    bed.fill("there", 5);
    let config = bed.config(&["there", "later"]).set("consumer", "auto_offset_reset", "'latest'");
    let worker = bed.started(&config);
    worker.wait_words(&["WARN", "topic missing topic=later", "not created by asking for it"]);
    worker.wait_words(&["consumers started topics=1 missing=1"]);
    bed.fill("there", 5);
    bed.await_committed("there", 0, 10);
    assert_eq!(bed.server.auto_created(), [""; 0]);

    bed.server.create_topic("later", 2).unwrap();
    bed.fill_as("later", 0, 5, broker::Codec::None);
    bed.fill_as("later", 1, 5, broker::Codec::Gzip);
    worker.wait_words(&["consumer started topic=later group_id=g-later"]);
    bed.await_all("later", 0);
    bed.await_all("later", 1);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["topic missing"]).len(), 1);
    assert_eq!(bed.server.auto_created(), [""; 0]);
}

fn partitions_that_are_added_are_read_from_their_start(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    bed.fill("t", 5);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'"));
    bed.server.add_partitions("t", 3).unwrap();
    bed.fill_as("t", 1, 5, broker::Codec::None);
    bed.fill_as("t", 3, 5, broker::Codec::Snappy);
    worker.wait_words(&["starting topic=t partition=3 offset=0", "new partition"]);
    bed.await_all("t", 1);
    bed.await_all("t", 3);
    bed.await_committed("t", 2, 0);
    bed.stop(worker);
    assert!(bed.arrived("t", 0).is_empty());
}

/// Partitions that came while no worker ran are told by the group: it has an offset of another one.
#[test]
fn partitions_that_were_added_while_it_was_down_are_read_from_their_start() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let config = bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'");
    bed.stop(bed.started(&config));
    bed.server.add_partitions("t", 1).unwrap();
    bed.fill_as("t", 1, 5, broker::Codec::None);
    let worker = bed.started(&config);
    bed.await_all("t", 1);
    bed.stop(worker);
    assert!(bed.arrived("t", 0).is_empty());
}

#[test]
fn a_topic_that_is_listed_twice_is_consumed_once() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let worker = bed.started(&bed.config(&["t", "t"]));
    worker.wait_words(&["WARN", "topic t is listed twice in consumer.topics; it is consumed once"]);
    worker.wait_words(&["all consumers started topics=1 missing=0"]);
    bed.await_all("t", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("t"), "delivered=5 committed=5 in_flight=0 expired=0 reset=0");
}

fn a_topic_that_is_deleted_and_made_anew_is_read_from_its_start(client: Library) {
    let bed = Bed::new(&["t", "other"]).by(client);
    bed.fill("t", 20);
    let worker = bed.started(&bed.config(&["t", "other"]).set("consumer", "auto_offset_reset", "'latest'"));
    bed.fill("t", 10);
    bed.await_committed("t", 0, 30);
    bed.server.delete_topic("t");
    worker.wait_words(&["WARN", "partition is gone topic=t partition=0"]);
    bed.fill("other", 5);
    bed.await_all("other", 0);
    bed.server.create_topic("t", 1).unwrap();
    bed.fill("t", 50);
    bed.await_committed("t", 0, 50);
    let expected: Vec<i64> = (20..30).chain(0..50).collect();
    assert_eq!(bed.arrived_offsets("t", 0), expected);
    bed.stop(worker);
}

/// Two hundred topics and a busy one: all start, and none waits for another.
fn many_idle_topics_beside_a_busy_one(client: Library) {
    let names: Vec<String> = (0..200).map(|n| format!("idle-{n:03}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("busy");
    let bed = Bed::new(&names).by(client);
    for _ in 0..100 {
        bed.fill("busy", 1_000);
    }
    let config = bed
        .config(&names)
        .set("kafka", "metadata_max_age_ms", 60_000)
        // All connect at once; what does not fit into the listener's backlog is tried again by TCP after a second.
        .set("kafka", "connect_timeout_ms", 10_000);
    let worker = bed.start(&config);
    worker.wait_line(
        |line| line.contains("all consumers started topics=201 missing=0"),
        3 * crate::support::worker::PATIENCE,
    );
    for name in ["idle-000", "idle-117", "idle-199"] {
        bed.fill(name, 3);
        bed.await_all(name, 0);
    }
    bed.await_all("busy", 0);
    // A consumer, its fetches, its group's offsets, and now and then a look at the metadata. librdkafka's own threads
    // beside the first of them: one that rules, and one for each broker, its address as configured, and the coordinator.
    let each = if client == Library::Kafka { 4 } else { 3 + 4 };
    assert!(worker.threads() <= 201 * each + 10, "{} threads", worker.threads());
    assert!(worker.rss() <= worker.peak_rss() && worker.peak_rss() < 256 << 20, "{} bytes", worker.peak_rss());
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["sums topic="]).len(), 201);
    assert_eq!(ended.lines_with(&["WARN", "trouble"]), [""; 0]);
}

/// Such a partition starts later than the others, and is no less new for that.
#[test]
fn a_partition_that_was_added_while_it_was_down_and_has_no_leader_at_first() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let config = bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'");
    bed.stop(bed.started(&config));
    bed.server.add_partitions("t", 1).unwrap();
    bed.fill_as("t", 1, 5, broker::Codec::None);
    bed.server.move_leader("t", 1, None).unwrap();
    let worker = bed.start(&config);
    worker.wait_words(&["continuing topic=t partition=0"]);
    bed.server.move_leader("t", 1, Some(0)).unwrap();
    bed.await_all("t", 1);
    bed.stop(worker);
    assert!(bed.arrived("t", 0).is_empty());
}

/// On a first start, a partition that comes later because it had no leader starts as the others did.
#[test]
fn a_partition_that_has_no_leader_at_the_first_start() {
    let bed = Bed::new(&[]);
    bed.server.create_topic("t", 2).unwrap();
    bed.fill_as("t", 0, 5, broker::Codec::None);
    bed.fill_as("t", 1, 5, broker::Codec::None);
    bed.server.move_leader("t", 1, None).unwrap();
    let worker = bed.start(&bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'"));
    // The topic has not started before all of its partitions have.
    worker.wait_words(&["WARN", "partition fails topic=t partition=1", "has no leader"]);
    assert_eq!(worker.count(&["consumer started"]), 0);
    bed.server.move_leader("t", 1, Some(0)).unwrap();
    worker.wait_words(&["consumer started topic=t"]);
    bed.await_committed("t", 1, 5);
    bed.fill_as("t", 1, 5, broker::Codec::None);
    bed.await_committed("t", 1, 10);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 1), (5..10).collect::<Vec<_>>());
}

/// It is there again before anybody has missed it; only its id tells. What was read of the new one as
/// if it were the old one comes again, and nothing is missing.
fn a_topic_that_is_made_anew_at_once(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'"));
    bed.fill("t", 5);
    bed.await_committed("t", 0, 15);
    bed.server.delete_topic("t");
    bed.server.create_topic("t", 1).unwrap();
    bed.fill("t", 30);
    worker.wait_words(&["WARN", "partition is gone topic=t partition=0"]);
    worker.wait_words(&["starting topic=t partition=0 offset=0", "new partition"]);
    eventually("all of the new topic arrives", || {
        let arrived = bed.arrived_offsets("t", 0);
        arrived.ends_with(&(0..30).collect::<Vec<_>>())
    });
    // Before that the old position may have been committed up to there, too.
    eventually("all of it is committed", || bed.committed("t") == Some(30));
    bed.stop(worker);
    assert_eq!(bed.committed("t"), Some(30));
}
