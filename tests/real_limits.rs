//! What a real Kafka does to clients that read much: it caps an answer, throttles who reads too fast, and
//! deletes what nobody has read yet.

use std::fs;
use std::time::{Duration, Instant};

use crate::on_each;
use crate::real_kafka::eventually;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::{await_size, ranges};
use crate::support::kafka::tool::Produce;
use crate::support::on::On;
use crate::support::worker::{Site, sink};

on_each!(
    row_12_every_partition_that_is_behind_makes_progress,
    row_17_a_client_quota_slows_the_delivery_and_nothing_else,
    retention_by_size_and_by_time_overtakes_a_running_worker,
);

/// Row 12. The broker fills an answer up to 55 MiB, in the order of the request, so that with twenty
/// partitions of 4 MiB each the late ones get nothing as long as the early ones are behind.
fn row_12_every_partition_that_is_behind_makes_progress(on: On) {
    let kafka = &on.shared();
    let size = 10_000;
    // Partitions, and records of each: 40 MB in four of them, and more than an answer holds in twenty.
    for (partitions, each) in [(4, 4_000), (20, 1_000)] {
        let topic = Kafka::name("behind");
        kafka.tool().create(&topic, &partitions.to_string(), "");
        for (partition, first) in (0..partitions).zip((0..).step_by(each)) {
            let partition = Some(partition);
            // Else a producer that tries again, as it may on a new topic, changes the order.
            let configs = &format!("enable.idempotence=true;client.id={topic}");
            kafka.tool().produce(&Produce { partition, first, size, configs, ..Produce::new(&topic, each as u64) });
        }
        let group = Kafka::name("g");
        let site = Site::new();
        let config = kafka.config(&group, &[&topic]).set("sink.out", "format", "'raw'");
        let worker = site.start(&config.to_string());
        await_size(&site.out(), partitions as u64 * each as u64 * size as u64 / 2);
        worker.signal("STOP");
        let count = usize::try_from(partitions).unwrap();
        let half = ranges(&site.out(), count, each as u64);
        worker.signal("CONT");
        let counts: Vec<u64> =
            half.iter().map(|range| range.as_ref().map_or(0, |range| range.end - range.start)).collect();
        println!("{partitions} partitions of {each} records, half of all delivered: {counts:?}");
        assert!(counts.iter().all(|&count| count >= each as u64 / 10), "a partition starves: {counts:?}");
        for partition in 0..partitions {
            kafka.await_committed(&format!("{group}-{topic}"), &topic, partition, each as i64);
        }
        assert_eq!(worker.stop().code(), Some(0));
        let all = ranges(&site.out(), count, each as u64);
        let expected: Vec<_> = (0..partitions as u64).map(|n| Some(n * each as u64..(n + 1) * each as u64)).collect();
        assert_eq!(all, expected);
        fs::remove_file(site.out()).unwrap();
    }
}

/// Throttled, a fetch of the old version is answered without any topic, at once, as often as one asks.
fn row_17_a_client_quota_slows_the_delivery_and_nothing_else(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("quota");
    kafka.tool().create(&topic, "2", "");
    let count = 2_000;
    for partition in [Some(0), Some(1)] {
        kafka.tool().produce(&Produce { partition, size: 1_000, ..Produce::new(&topic, count) });
    }
    let group = Kafka::name("g");
    // Nobody else has this name, and nobody else its quota: 0.25 MB/s for 4 MB. Kafka takes the mean of some
    // ten seconds, so that the first 2.5 MB are free.
    let client = Kafka::name("throttled");
    kafka.tool().configure("client", &client, "consumer_byte_rate=250000");
    let config = kafka.config(&group, &[&topic]).set("kafka", "client_id", format!("'{client}'"));
    let config = config.set("consumer", "max_partition_fetch_bytes", "'64KiB'");
    let site = Site::new();
    let began = Instant::now();
    let worker = site.start(&config.to_string());
    for partition in [0, 1] {
        kafka.await_committed(&format!("{group}-{topic}"), &topic, partition, count as i64);
    }
    let took = began.elapsed();
    println!("4 MB at 0.25 MB/s: {took:?}");
    let ended = worker.stop();
    kafka.tool().configure("client", &client, "consumer_byte_rate=");
    assert_eq!(ended.code(), Some(0));
    assert!(took > Duration::from_secs(3), "not throttled: {took:?}");
    assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
    assert_eq!(ended.lines_with(&["ERROR"]), [""; 0]);
    let records = site.records();
    for partition in [0, 1] {
        assert_eq!(sink::offsets(&records, &topic, partition), (0..count as i64).collect::<Vec<_>>());
    }
}

/// Retention overtakes a worker that stands still for a while; what it took is counted to the record.
fn retention_by_size_and_by_time_overtakes_a_running_worker(on: On) {
    let often = [("log.retention.check.interval.ms", "100"), ("log.initial.task.delay.ms", "100")];
    let kafka = &on.node(&often);
    let tool = kafka.tool();
    let count = 200_000;
    for (topic, retention) in [("by-size", "retention.bytes=3000000"), ("by-time", "retention.ms=1000")] {
        tool.create(topic, "1", &kafka.segment_bytes(1_000_000));
        tool.produce(&Produce { configs: "batch.size=4000", ..Produce::new(topic, count) });
        let site = Site::new();
        // Small fetches, so that it takes its time.
        let config = kafka.config("g", &[topic]).set("consumer", "max_partition_fetch_bytes", "'8KiB'");
        let worker = site.start(&config.to_string());
        await_size(&site.out(), 500_000);
        worker.signal("STOP");
        let delivered = site.records().len() as i64;
        tool.configure("topic", topic, retention);
        eventually("retention deletes", || tool.bounds(topic)[0].0 > delivered + 50_000);
        tool.configure("topic", topic, "retention.bytes=-1;retention.ms=-1");
        worker.signal("CONT");
        worker.wait_words(&["WARN", "position out of range", &format!("topic={topic} partition=0")]);
        tool.produce(&Produce { first: count, ..Produce::new(topic, 10) });
        kafka.await_committed(&format!("g-{topic}"), topic, 0, count as i64 + 10);
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0));
        let start = tool.bounds(topic)[0].0;
        let offsets = sink::offsets(&site.records(), topic, 0);
        let lost = offsets.iter().zip(0..).take_while(|(at, expected)| **at == *expected).count() as i64;
        println!("{topic}: {lost} delivered, then the log starts at {start}");
        assert_eq!(offsets, (0..lost).chain(start..count as i64 + 10).collect::<Vec<_>>());
        let (delivered, expired) = (offsets.len(), start - lost);
        assert!(expired > 0);
        let sums = format!("delivered={delivered} committed={} in_flight=0 expired={expired} reset=0", count + 10);
        assert_eq!(ended.sums(topic), sums);
    }
}
