//! Quick starts and stops with librdkafka on a real Kafka: its threads are stopped in the right order, whatever they
//! are about to do. `WORKER_STARTS=1000` makes a thousand of the twenty.

use std::time::{Duration, Instant};
use std::{env, thread};

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Flow;
use crate::support::worker::{PATIENCE, Site, sink};

const TOPICS: usize = 6;
const PARTITIONS: u32 = 2;
/// The longest time that a process is let run for, in milliseconds.
const AT_MOST_MS: u64 = 300;

/// A stop at any moment of the start ends well, and what was delivered is committed: nothing comes twice.
#[test]
fn quick_starts_and_stops_end_well_and_lose_nothing() {
    let kafka = kafka_or_skip!();
    let starts: usize = env::var("WORKER_STARTS").map_or(20, |count| count.parse().unwrap());
    let tool = kafka.tool();
    let names: Vec<String> = (0..TOPICS).map(|_| Kafka::name("starts")).collect();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    topics.iter().for_each(|topic| drop(tool.create(topic, &PARTITIONS.to_string(), "")));
    let (group, flow) = (Kafka::name("g"), Kafka::name("flow"));
    let config = kafka.config(&group, &topics).set("kafka", "client", "'librdkafka'").to_string();
    let configs = "linger.ms=5";
    tool.flow(Flow { name: &flow, topics: &topics, partitions: PARTITIONS, rate: 600, size: 50, configs });
    let site = Site::new();
    let (mut longest, mut sum, mut reading) = (Duration::ZERO, Duration::ZERO, 0);
    // xorshift: the same moments each time, as far as the machine lets them be the same.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for start in 0..starts {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let worker = site.start(&config);
        // From here on signals are received.
        worker.wait_words(&["worker starting"]);
        // The moment is what is tested: it is no wait for anything.
        thread::sleep(Duration::from_millis(state % (AT_MOST_MS + 1)));
        let asked = Instant::now();
        worker.signal("TERM");
        let ended = worker.exit(PATIENCE);
        let took = asked.elapsed();
        let log = || format!("start {start}: {:?}\n{}", ended.status, ended.log.join("\n"));
        assert_eq!(ended.code(), Some(0), "{}", log());
        for words in ["ERROR", "panic", "not committed at the end", "did not drain", "given up"] {
            assert_eq!(ended.lines_with(&[words]), [""; 0], "{}", log());
        }
        (longest, sum) = (longest.max(took), sum + took);
        reading += usize::from(!ended.lines_with(&["consumer started topic="]).is_empty());
    }
    println!(
        "starts={starts} of_these_reading_at_the_stop={reading} longest_stop_ms={} mean_stop_ms={}",
        longest.as_millis(),
        sum.as_millis() / starts.max(1) as u128
    );
    let flowed = tool.end_flow(&flow);
    assert_eq!(flowed.refused, 0);
    let worker = site.start(&config);
    let ends: Vec<(&str, i32, i64)> = topics
        .iter()
        .flat_map(|topic| (0..).zip(tool.bounds(topic)).map(|(partition, (_, end))| (*topic, partition, end)))
        .collect();
    for (topic, partition, end) in &ends {
        kafka.await_committed(&format!("{group}-{topic}"), topic, *partition, *end);
    }
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    for (topic, partition, end) in &ends {
        assert_eq!(sink::offsets(&records, topic, *partition), (0..*end).collect::<Vec<_>>(), "{topic}-{partition}");
    }
}
