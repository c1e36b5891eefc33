//! How fast the worker is with the client librdkafka, beside a bare loop over the same library with the same
//! properties; and what 200 topics without records cost beside 200 bare consumers.
//!
//! One real broker, one partition, records of 100 B and 1 KB, each codec. Both contenders by turns, three rounds, the
//! median of each. The bare loop looks at every record's value, and at nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use worker::client::{Connection, FetchSettings};
use worker::config::Config;
use worker::plan::Plan;

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use support::kafka::Kafka;
use support::kafka::install::{self, Version};
use support::kafka::tool::Produce;

#[path = "run.rs"]
mod run;

use run::{Case, cpu, median, run_worker, show};

const ROUNDS: usize = 3;
/// How many topics are without records.
const IDLE: usize = 200;
/// For how long they are looked at.
const IDLE_FOR: Duration = Duration::from_secs(30);

fn main() {
    if let Err(why) = install::available(Version::V3) {
        println!("no benchmark: {why}");
        std::process::exit(1);
    }
    if let Ok(broker) = std::env::var("WORKER_BENCH_IDLE") {
        return idle_consumers(&broker);
    }
    install::FULL_SPEED.store(true, Ordering::Relaxed);
    let kafka = Kafka::node(&[]);
    if std::env::args().any(|argument| argument == "--idle") {
        return idle(&kafka);
    }
    let scale: u64 = std::env::var("WORKER_BENCH_SCALE").ok().and_then(|v| v.parse().ok()).unwrap_or(100);
    // For instance `1000-lz4`, or `zstd`; without any, all of them.
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    println!("records/s, median of {ROUNDS} rounds (lowest to highest); ratio of the medians\n");
    println!("| records | codec | worker | bare loop | worker / bare | CPU s/M records, worker : bare |");
    println!("|---|---|---|---|---|---|");
    for (size, records) in [(100, 4_000_000), (1000, 1_500_000)] {
        for codec in ["none", "lz4", "zstd", "gzip"] {
            let case = Case { topic: format!("bench-{size}-{codec}"), records: records * scale / 100 };
            if !only.is_empty() && !only.iter().any(|only| case.topic.ends_with(only)) {
                continue;
            }
            let configs = format!("compression.type={codec};batch.size=65536;linger.ms=20");
            kafka.tool().create(&case.topic, "1", "");
            kafka.tool().produce(&Produce {
                size,
                mixed: true,
                configs: &configs,
                ..Produce::new(&case.topic, case.records)
            });
            let (mut worker, mut bare) = (Vec::new(), Vec::new());
            let (mut worker_cpu, mut bare_cpu) = (Vec::new(), Vec::new());
            run_bare(&kafka, &case);
            for round in 0..ROUNDS {
                for turn in 0..2 {
                    if (round + turn) % 2 == 0 {
                        let (rate, cpu, _) = run_worker(&kafka, &case, "librdkafka", true, round);
                        worker.push(rate);
                        worker_cpu.push(cpu);
                    } else {
                        let (rate, cpu) = run_bare(&kafka, &case);
                        bare.push(rate);
                        bare_cpu.push(cpu);
                    }
                }
            }
            let (w, b) = (median(&mut worker), median(&mut bare));
            println!(
                "| {size} B | {codec} | {} | {} | {:.2} | {:.2} : {:.2} |",
                show(&worker),
                show(&bare),
                w / b,
                median(&mut worker_cpu) * 1e6,
                median(&mut bare_cpu) * 1e6
            );
        }
    }
}

/// What the client of one topic is made from, with the defaults.
fn settings(broker: &str, topic: &str) -> (Connection, FetchSettings) {
    let text = format!(
        "[kafka]\nbootstrap_servers = [\"{broker}\"]\n[consumer]\ngroup_id = \"bare\"\ntopics = [\"{topic}\"]\nsink = \"drop\"\n"
    );
    let config: Config = worker::config::parse(&text, &|_| None).unwrap();
    (config.kafka.connection(), Plan::new(&config).consumers[0].fetch.clone())
}

/// Records a second, and seconds of CPU of the whole process a record.
fn run_bare(kafka: &Kafka, case: &Case) -> (f64, f64) {
    let (connection, settings) = settings(kafka.address(0), &case.topic);
    let config = worker::client::librdkafka::config("bare", &connection, &settings, 1);
    let (topic, records) = (case.topic.clone(), case.records);
    let before = cpu("self");
    let body = move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
        consumer.assign(&list).unwrap();
        let (mut seen, mut started) = (0_u64, Instant::now());
        while seen < records {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    if seen == 0 {
                        // As of the worker, the time before the first record does not count.
                        started = Instant::now();
                    }
                    black_box(message.payload());
                    seen += 1;
                }
                Some(Err(error)) => drop(error),
                None => {}
            }
        }
        records as f64 / started.elapsed().as_secs_f64()
    };
    let rate = thread::spawn(body).join().unwrap();
    (rate, (cpu("self") - before) / records as f64)
}

fn idle(kafka: &Kafka) {
    let names: Vec<String> = (0..IDLE).map(|number| format!("idle-{number}")).collect();
    names.iter().for_each(|name| drop(kafka.tool().create(name, "1", "")));
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("consumer.toml");
    let text = format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\nclient = \"librdkafka\"\n[consumer]\ngroup_id = \"idle\"\ntopics = {names:?}\n\
         sink = \"drop\"\n[log]\nlevel = \"warn\"\n",
        kafka.address(0)
    );
    fs::write(&config, text).unwrap();
    println!(
        "{IDLE} topics without records, for {IDLE_FOR:?}\n\n| | % of a core | resident MiB | threads |\n|---|---|---|---|"
    );
    let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"));
    worker.arg("-c").arg(&config).stdin(Stdio::null());
    look_at("worker", worker);
    let mut bare = Command::new(std::env::current_exe().unwrap());
    bare.env("WORKER_BENCH_IDLE", kafka.address(0)).stdin(Stdio::piped());
    look_at("bare", bare);
}

/// What a process costs that has had time to start.
fn look_at(name: &str, mut command: Command) {
    let mut child = run::Killed(command.spawn().unwrap());
    thread::sleep(IDLE_FOR);
    let pid = child.0.id().to_string();
    let (before, since) = (cpu(&pid), Instant::now());
    thread::sleep(IDLE_FOR);
    let share = (cpu(&pid) - before) / since.elapsed().as_secs_f64() * 100.0;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    println!("| {name} | {share:.1} | {} | {} |", number("VmRSS:") >> 10, number("Threads:"));
    child.stop();
}

/// The other process: consumers that are polled by one thread each, until standard input ends.
fn idle_consumers(broker: &str) {
    let stop = Arc::new(());
    for number in 0..IDLE {
        let topic = format!("idle-{number}");
        let (connection, settings) = settings(broker, &topic);
        // One topic's share of the memory, as if there were all of them.
        let settings = FetchSettings { memory: settings.memory / IDLE, ..settings };
        let config = worker::client::librdkafka::config("bare", &connection, &settings, 1);
        let alive = Arc::clone(&stop);
        thread::spawn(move || {
            let consumer: BaseConsumer = config.create().unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
            consumer.assign(&list).unwrap();
            while Arc::strong_count(&alive) > 1 {
                drop(consumer.poll(Duration::from_secs(1)));
            }
        });
    }
    let _ = std::io::read_to_string(std::io::stdin());
}
