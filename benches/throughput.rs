//! How fast the worker is, beside what it is made of and beside Kafka's own consumer.
//!
//! One real broker, one partition, uncompressed records of 100 B and 1 KB. Three contenders by turns,
//! three rounds, each first once, the median of each: the worker process (sink `drop`, default `[commit]`), a bare loop
//! over the `kafka` crate in a spawned thread, and Kafka's ConsumerPerformance. The machine is shared
//! with the broker: compare the ratios, not the figures.
//!
//! The bare loop does what it must to use what it fetched: it looks at every record's offset, key and
//! value. It asks for as many bytes at once as the worker does at most; with `-- --sizes` it is run with
//! other sizes too, to show that this is not chosen to its disadvantage.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use kafka::client::{FetchPartition, KafkaClient};

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use support::kafka::Kafka;
use support::kafka::install::{self, Install, Version};
use support::kafka::tool::Produce;

#[path = "run.rs"]
mod run;

use run::{Case, cpu, median, run_worker, show};

const ROUNDS: usize = 3;
/// What the worker asks for at most in one fetch of plain records.
const FETCH: i32 = 4 << 20;

fn main() {
    if let Err(why) = install::available(Version::V3) {
        println!("no benchmark: {why}");
        std::process::exit(1);
    }
    install::FULL_SPEED.store(true, Ordering::Relaxed);
    let kafka = Kafka::node(&[]);
    let scale: u64 = std::env::var("WORKER_BENCH_SCALE").ok().and_then(|v| v.parse().ok()).unwrap_or(100);
    let cases: Vec<(usize, Case)> = [(100, 6_000_000), (1000, 1_500_000)]
        .into_iter()
        .map(|(size, records)| {
            let case = Case { topic: format!("bench-{size}"), records: records * scale / 100 };
            println!("producing {} records of {size} B", case.records);
            kafka.tool().create(&case.topic, "1", "");
            kafka.tool().produce(&Produce { size, ..Produce::new(&case.topic, case.records) });
            (size, case)
        })
        .collect();
    if std::env::args().any(|a| a == "--sizes") {
        return cases.iter().for_each(|(size, case)| sizes(&kafka, case, *size));
    }
    println!("\nrecords/s, median of {ROUNDS} rounds (lowest to highest); ratios of the medians\n");
    println!(
        "| records | check_crcs | worker | bare loop | ConsumerPerformance | worker / bare | worker / Java | CPU s/M records, worker : bare |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    // For instance `WORKER_BENCH_ONLY=100:false`.
    let only = std::env::var("WORKER_BENCH_ONLY").ok();
    let mut peak = 0;
    for (size, case) in &cases {
        for crc in [true, false] {
            let name = format!("{size}:{crc}");
            if only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            let (mut worker, mut bare, mut java) = (Vec::new(), Vec::new(), Vec::new());
            let (mut worker_cpu, mut bare_cpu) = (Vec::new(), Vec::new());
            // The broker compiles itself while it serves: the first of all would measure that.
            run_bare(&kafka, case, crc, FETCH);
            for round in 0..ROUNDS {
                // Whoever comes later finds it a little faster; so each is first and last by turns.
                for turn in 0..3 {
                    match (round + turn) % 3 {
                        0 => {
                            let (rate, cpu, rss) = run_worker(&kafka, case, "kafka", crc, round);
                            worker.push(rate);
                            worker_cpu.push(cpu);
                            peak = peak.max(rss);
                        }
                        1 => {
                            let (rate, cpu) = run_bare(&kafka, case, crc, FETCH);
                            bare.push(rate);
                            bare_cpu.push(cpu);
                        }
                        _ => java.push(run_java(&kafka, case, crc, round)),
                    }
                }
            }
            let (w, b, j) = (median(&mut worker), median(&mut bare), median(&mut java));
            println!(
                "| {size} B | {crc} | {} | {} | {} | {:.2} | {:.2} | {:.2} : {:.2} |",
                show(&worker),
                show(&bare),
                show(&java),
                w / b,
                w / j,
                median(&mut worker_cpu) * 1e6,
                median(&mut bare_cpu) * 1e6
            );
        }
    }
    println!("\nhighest resident memory of the worker: {} MiB (one topic, memory.limit 256 MiB)", peak >> 20);
}

fn sizes(kafka: &Kafka, case: &Case, bytes: usize) {
    for crc in [false] {
        for size in [1, 2, 4, 8, 50] {
            let mut rates: Vec<f64> = (0..ROUNDS).map(|_| run_bare(kafka, case, crc, size << 20).0).collect();
            println!("bare loop, {bytes} B, {size} MiB a fetch, check_crcs={crc}: {:.2} M/s", median(&mut rates) / 1e6);
        }
    }
}

/// A bare loop over the crate, in a thread of its own: on the main thread its allocations are slower.
/// Returns records a second, and seconds of CPU a record.
fn run_bare(kafka: &Kafka, case: &Case, crc: bool, fetch: i32) -> (f64, f64) {
    let (broker, topic, records) = (kafka.address(0).to_owned(), case.topic.clone(), case.records);
    let body = move || {
        let mut client = KafkaClient::new(vec![broker]);
        client.load_metadata(&[&topic]).unwrap();
        client.set_fetch_crc_validation(crc);
        client.set_fetch_max_wait_time(Duration::from_millis(500)).unwrap();
        client.set_fetch_min_bytes(1024);
        let (mut position, mut count) = (0, 0);
        let started = Instant::now();
        while count < records {
            let ask = FetchPartition::new(&topic, 0, position).with_max_bytes(fetch);
            for response in client.fetch_messages(&[ask]).unwrap() {
                for message in
                    response.topics().iter().flat_map(|t| t.partitions()).flat_map(|p| p.data().unwrap().messages())
                {
                    black_box((message.key, message.value));
                    position = message.offset + 1;
                    count += 1;
                }
            }
        }
        (records as f64 / started.elapsed().as_secs_f64(), cpu("thread-self") / records as f64)
    };
    thread::spawn(body).join().unwrap()
}

fn run_java(kafka: &Kafka, case: &Case, crc: bool, round: usize) -> f64 {
    let install = Install::get(Version::V3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("consumer.properties");
    fs::write(&config, format!("check.crcs={crc}\n")).unwrap();
    let output = Command::new("java")
        .args(install.jvm("512m", "-tools"))
        .arg("org.apache.kafka.tools.ConsumerPerformance")
        .args(["--bootstrap-server", kafka.address(0), "--topic", &case.topic])
        .args(["--group", &format!("java-{}-{crc}-{round}", case.topic), "--messages", &case.records.to_string()])
        .args(["--consumer.config", &config.display().to_string(), "--timeout", "30000"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|l| l.contains(", ")).unwrap_or_else(|| panic!("no figures: {text}"));
    // The last column is fetch.nMsg.sec: without the time of the group's rebalance.
    line.rsplit(", ").next().unwrap().trim().replace(',', ".").parse().unwrap()
}
