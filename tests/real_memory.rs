//! The daemon's memory beside a real Kafka: records of 20 MB among many topics.

use std::fs;

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::await_size;
use crate::support::kafka::tool::{End, Message, Produce};
use crate::support::worker::Site;

/// Six records of 20 MB and 1,970 of 1 kB, each with the end of its line.
const ALL: u64 = 6 * 20_000_001 + 1_970 * 1_001;

#[test]
fn records_of_20_mb_in_three_of_200_topics_arrive() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let lead = Kafka::name("wide");
    let small: Vec<String> = (0..197).map(|n| format!("{lead}-{n}")).collect();
    let large: Vec<String> = (0..3).map(|n| format!("{lead}-large-{n}")).collect();
    // A producer that writes to a topic before it exists waits for each of them.
    small.iter().for_each(|topic| drop(tool.create(topic, "1", "")));
    let value = vec![b'v'; 1_000];
    let messages = |topic| (0..10).map(move |_| topic);
    let messages: Vec<Message> = small
        .iter()
        .flat_map(messages)
        .map(|topic| Message { topic, value: Some(&value), ..Message::default() })
        .collect();
    // The producer sets a whole batch aside for each partition.
    tool.send("batch.size=65536", End::Plain, &messages);
    let configs = "max.request.size=33554432;buffer.memory=67108864";
    for topic in &large {
        tool.create(topic, "1", "max.message.bytes=33554432");
        tool.produce(&Produce { size: 20_000_000, configs, ..Produce::new(topic, 2) });
    }
    let topics: Vec<&str> = small.iter().chain(&large).map(String::as_str).collect();
    let site = Site::new();
    let config =
        kafka.config("g", &topics).set("sink.out", "format", "'raw'").set("consumer", "fetch_max_wait_ms", 500);
    let worker = site.start(&config.to_string());
    await_size(&site.out(), ALL);
    for topic in &large {
        kafka.await_committed(&format!("g-{topic}"), topic, 0, 2);
    }
    let peak = worker.peak_rss() >> 20;
    println!("200 topics of a real Kafka, 3 of them with records of 20 MB: at most {peak} MiB resident");
    assert!(peak < 256 + 64, "{peak} MiB with memory.limit = 256MiB");
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(fs::metadata(site.out()).unwrap().len(), ALL, "each record once");
}
