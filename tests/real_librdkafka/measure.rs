//! What the reader costs beside a bare loop over the same library. Not run by `cargo test`; for figures:
//! `cargo test --release --test integration real_librdkafka::measure -- --ignored --nocapture --test-threads=1`

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::*;

const COUNT: u64 = 1_000_000;

/// Records a second of a bare loop with the same properties, which looks at each record's bytes.
fn bare(kafka: &Kafka, topic: &str, count: u64) -> f64 {
    let settings = harness::fetch_settings(&Settings { memory: 192 << 20, ..Settings::default() });
    let config = worker::client::librdkafka::config("g", &harness::connection(&kafka.bootstrap), &settings, 1);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(0)).unwrap();
    let since = Instant::now();
    consumer.assign(&list).unwrap();
    let (mut seen, mut bytes) = (0, 0);
    while seen < count {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            seen += 1;
            bytes += message.payload().map_or(0, <[u8]>::len);
        }
    }
    assert!(bytes > 0);
    count as f64 / since.elapsed().as_secs_f64()
}

fn reader(kafka: &Kafka, topic: &str, count: u64) -> f64 {
    let mut harness = Harness::new(&kafka.bootstrap, Settings { memory: 192 << 20, ..Settings::default() });
    harness.keep = false;
    let since = Instant::now();
    let part = harness.seek(topic, 0, 0);
    harness.until("all are read", |h| h.count >= count);
    assert_eq!(harness.position(&part), count as i64);
    count as f64 / since.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement of some minutes"]
fn the_reader_beside_a_bare_loop() {
    let kafka = kafka_or_skip!();
    for (size, count) in [(100, COUNT), (1_000, COUNT / 4)] {
        for codec in ["none", "lz4", "zstd", "gzip"] {
            let topic = Kafka::name("speed");
            kafka.tool().create(&topic, "1", PLAIN);
            let configs = format!("compression.type={codec};batch.size=65536;linger.ms=20");
            kafka.tool().produce(&Produce { size, configs: &configs, ..Produce::new(&topic, count) });
            // By turns, the best of each: others use the machine as well.
            let (mut best_bare, mut best_reader) = (0.0_f64, 0.0_f64);
            for _ in 0..4 {
                best_bare = best_bare.max(bare(kafka, &topic, count));
                best_reader = best_reader.max(reader(kafka, &topic, count));
            }
            println!(
                "size={size} codec={codec} bare={best_bare:.0} reader={best_reader:.0} ratio={:.2}",
                best_reader / best_bare
            );
        }
    }
}
