//! Given topics that are meant by patterns: which are read, from where, and what becomes of those that come and go.

use std::fs;

use worker::client::reading::Library;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::Produce;
use crate::support::worker::{Config, PATIENCE, Site, Worker};
use crate::{for_clients, on_brokers};

for_clients!(topics_that_fit_are_found_and_those_that_come_later_are_read_from_their_start);
on_brokers!(topics_are_found_on_kafka);

/// No topic but by these patterns.
fn patterns(config: Config, patterns: &str) -> Config {
    config.without("consumer", "topics").set("consumer", "topics_regex", patterns)
}

fn topics_that_fit_are_found_and_those_that_come_later_are_read_from_their_start(client: Library) {
    let bed = Bed::new(&["orders-1", "orders-2", "orders-test", "prices", "my-orders-3"]).by(client);
    bed.fill("orders-1", 5);
    let config = patterns(bed.config(&[]), "['orders-.*', 'price']")
        .set("consumer", "topics_exclude_regex", "'.*-test'")
        .set("consumer", "auto_offset_reset", "'latest'");
    let worker = bed.started(&config);
    assert_eq!(worker.count(&["topics found count=2 topics=\"orders-1,orders-2\""]), 1, "{}", worker.log().join("\n"));
    bed.fill("orders-1", 5);
    bed.fill("prices", 5);
    bed.await_committed("orders-1", 0, 10);
    assert_eq!(bed.arrived_offsets("orders-1", 0), [5, 6, 7, 8, 9], "auto_offset_reset holds for what was there");

    let before = worker.log().len();
    bed.server.create_topic("orders-4", 2).unwrap();
    bed.fill_as("orders-4", 1, 7, broker::Codec::None);
    worker.wait_words_after(before, &["topics found count=1 topics=\"orders-4\""]);
    worker.wait_words_after(before, &["starting topic=orders-4 partition=1 offset=0", "new partition"]);
    bed.await_all("orders-4", 1);

    bed.server.delete_topic("orders-2");
    worker.wait_words_after(before, &["found topics are gone count=1 topics=\"orders-2\""]);
    bed.fill("orders-1", 5);
    bed.await_committed("orders-1", 0, 15);
    bed.server.create_topic("orders-2", 1).unwrap();
    bed.fill("orders-2", 3);
    bed.await_all("orders-2", 0);
    let ended = bed.stop(worker);
    for topic in ["orders-test", "prices", "my-orders-3"] {
        assert!(bed.arrived(topic, 0).is_empty(), "{topic}");
    }
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
    assert_eq!(bed.arrived_offsets("orders-1", 0), (5..15).collect::<Vec<_>>(), "nothing was read twice");
    assert_eq!(bed.server.auto_created(), [""; 0]);
}

/// Where a topic goes can be said for those that fit.
#[test]
fn a_table_with_a_pattern_says_where_its_topics_go() {
    let bed = Bed::new(&["a-1", "a-2", "b-1", "listed"]);
    for topic in ["a-1", "a-2", "b-1", "listed"] {
        bed.fill(topic, 3);
    }
    let config =
        bed.config(&["listed"]).set("consumer", "topics_regex", "'.-.'").set("consumer", "sink", "'drop'").more(
            "[[topic]]\nname = 'a-2'\nsink = 'other'\n[[topic]]\nregex = 'a-.*|listed'\nsink = ['out', 'other']\n\
         [sink.other]\ntype = 'file'\npath = '@DIR@/other.jsonl'\n",
        );
    let worker = bed.started(&config);
    for topic in ["a-1", "a-2", "b-1", "listed"] {
        bed.await_committed(topic, 0, 3);
    }
    bed.stop(worker);
    let of = |file: &str| {
        let text = fs::read_to_string(bed.site.path(file)).unwrap();
        let count = |topic: &str| text.matches(&format!("\"topic\":\"{topic}\"")).count();
        ["a-1", "a-2", "b-1", "listed"].map(count)
    };
    assert_eq!((of("out.jsonl"), of("other.jsonl")), ([3, 0, 0, 3], [3, 3, 0, 3]));
}

/// Nothing may be read before the list is there, and everything behind it.
#[test]
fn a_start_without_a_broker_waits_for_the_list() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 3);
    bed.server.stop(0).unwrap();
    let worker = bed.start(&patterns(bed.config(&[]), "'t'"));
    worker.wait_words(&["WARN", "topics can't be listed key=consumer.topics_regex"]);
    bed.server.start_again(0).unwrap();
    worker.wait_words(&["topics are listed again"]);
    worker.wait_started();
    bed.await_all("t", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["topics can't be listed"]).len(), 1);
}

/// A reload takes new patterns at once, and leaves what the old ones meant.
#[test]
fn hup_takes_new_patterns() {
    let bed = Bed::new(&["a-1", "b-1", "c"]);
    for topic in ["a-1", "b-1", "c"] {
        bed.fill(topic, 3);
    }
    // So long that only the reload can be what finds them.
    let slow = |config: Config| config.set("kafka", "metadata_max_age_ms", 3_600_000);
    let worker = bed.started(&slow(patterns(bed.config(&[]), "'a-.*'")));
    bed.await_all("a-1", 0);
    let before = worker.log().len();
    bed.site.write_config(&slow(patterns(bed.config(&[]), "'b-.*'")).to_string());
    worker.signal("HUP");
    worker.wait_words_after(before, &["consumer started topic=b-1"]);
    bed.await_all("b-1", 0);
    bed.fill("a-1", 3);
    let before = worker.log().len();
    bed.site.write_config(&slow(bed.config(&["c"])).to_string());
    worker.signal("HUP");
    worker.wait_words_after(before, &["reload complete"]);
    bed.await_all("c", 0);
    let ended = bed.stop(worker);
    assert_eq!(bed.arrived("a-1", 0).len(), 3, "it was left");
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
}

/// The commands ask the cluster as well.
#[test]
fn the_commands_know_what_the_patterns_find() {
    let bed = Bed::new(&["a-1", "a-2", "b"]);
    bed.fill("a-1", 3);
    let config = patterns(bed.config(&[]), "'a-.*'");
    let worker = bed.started(&config);
    bed.await_committed("a-1", 0, 3);
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let lag = Worker::run(&["lag", "-c", &file]);
    assert_eq!(lag.code(), Some(0), "{lag:?}");
    let text = lag.stdout.join("\n");
    assert!(text.contains("a-1") && text.contains("a-2") && !text.contains("g-b"), "{text}");
    let strange = Worker::run(&["lag", "-c", &file, "b"]);
    assert_eq!(strange.code(), Some(2));
    assert!(strange.log.join("\n").contains("neither in consumer.topics nor found by topics_regex"), "{strange:?}");
    bed.stop(worker);
    let shown = Worker::run(&["offsets", "show", "-c", &file]);
    assert!(shown.stdout.join("\n").contains("a-2"), "{shown:?}");
    bed.server.stop(0).unwrap();
    let lag = Worker::run(&["lag", "-c", &file]);
    assert_eq!(lag.code(), Some(1));
    assert!(lag.log.join("\n").contains("can't be asked which topics it has"), "{lag:?}");
}

/// The same against Kafka, which has topics of its own.
fn topics_are_found_on_kafka(version: Version) {
    let kafka = Kafka::shared_of(version);
    let tool = kafka.tool();
    let names = ["here-1", "here-2", "there"].map(Kafka::name);
    for name in &names {
        tool.create(name, "2", "");
        tool.produce(&Produce::new(name, 50));
    }
    let site = Site::new();
    let config = patterns(kafka.config("g", &[]), "'here-.*'").set("kafka", "client", "'auto'");
    let worker = site.start(&config.to_string());
    worker.wait_started();
    site.wait_records(100, PATIENCE);
    let later = Kafka::name("here-3");
    tool.create(&later, "2", "");
    tool.produce(&Produce::new(&later, 50));
    site.wait_records(150, PATIENCE);
    eventually("the groups have everything", || {
        [&names[0], &names[1], &later].iter().all(|topic| {
            let offsets = tool.group(&format!("g-{topic}"));
            offsets.len() == 2 && offsets.iter().map(|one| one.committed).sum::<i64>() == 50
        })
    });
    assert!(worker.log().iter().all(|line| !line.contains("__consumer_offsets")));
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(site.records().len(), 150);
}
