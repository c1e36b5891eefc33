//! Keeping the place on a real Kafka: groups that forget, and who is still in them.

use std::time::Duration;

use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Produce;
use crate::support::on::On;
use crate::support::worker::{PATIENCE, Site, sink};
use crate::{kafka_or_skip, on_each};

on_each!(offsets_that_somebody_deletes_are_committed_again_and_after_a_stop_taken_from_the_state_directory,);

const GROUP_COMMAND: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

fn delete_offsets(kafka: &Kafka, group: &str, topic: &str) {
    let arguments = ["--bootstrap-server", &kafka.bootstrap, "--group", group, "--topic", topic, "--delete-offsets"];
    let said = kafka.tool().java(GROUP_COMMAND, &arguments);
    assert!(said.contains("Successful"), "{said}");
}

fn offsets_that_somebody_deletes_are_committed_again_and_after_a_stop_taken_from_the_state_directory(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("forgotten");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 100));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    let config = kafka.config(&group, &[&topic]).set("kafka", "metadata_max_age_ms", "200");
    let site = Site::new();
    let worker = site.start(&config.to_string());
    kafka.await_committed(&own_group, &topic, 0, 100);
    delete_offsets(kafka, &own_group, &topic);
    worker.wait_words(&["WARN", "committed offset is gone, committing again", &topic, "offset=100"]);
    kafka.await_committed(&own_group, &topic, 0, 100);
    assert_eq!(worker.stop().code(), Some(0));

    delete_offsets(kafka, &own_group, &topic);
    kafka.tool().produce(&Produce { first: 100, ..Produce::new(&topic, 50) });
    // As in production: without the state directory these would be passed over.
    let worker = site.start(&config.set("consumer", "auto_offset_reset", "'latest'").to_string());
    worker.wait_words(&["WARN", "group has forgotten its offset", &own_group, "offset=100"]);
    kafka.await_committed(&own_group, &topic, 0, 150);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (0..150).collect::<Vec<_>>());
}

/// Kafka expires the offsets of a group that once had members so long after the last one has left,
/// however often somebody who is no member commits to it.
#[test]
fn a_group_that_a_member_left_loses_its_offset_once_and_gets_it_back() {
    let kafka = kafka_or_skip!(Kafka::node(&[
        ("offsets.retention.minutes", "1"),
        ("offsets.retention.check.interval.ms", "1000"),
    ]));
    let tool = kafka.tool();
    let topic = Kafka::name("expired");
    tool.create(&topic, "1", "");
    tool.produce(&Produce::new(&topic, 50));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    tool.join(&own_group, &own_group, &topic, "session.timeout.ms=6000");
    kafka.await_committed(&own_group, &topic, 0, 50);
    tool.leave(&own_group);
    tool.produce(&Produce { first: 50, ..Produce::new(&topic, 10) });
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic]).set("kafka", "metadata_max_age_ms", "1000").to_string());
    kafka.await_committed(&own_group, &topic, 0, 60);
    let gone = |line: &str| line.contains("committed offset is gone, committing again") && line.contains("offset=60");
    worker.wait_line(gone, Duration::from_secs(60) + PATIENCE);
    kafka.await_committed(&own_group, &topic, 0, 60);
    tool.produce(&Produce { first: 60, ..Produce::new(&topic, 10) });
    kafka.await_committed(&own_group, &topic, 0, 70);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(kafka.committed(&own_group, &topic, 0), Some(70));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (50..70).collect::<Vec<_>>());
}
