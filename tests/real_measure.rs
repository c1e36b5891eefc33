//! What the daemon costs against a real Kafka. Not run by `cargo test`; for figures:
//! `cargo test --release --test integration real_measure -- --ignored --nocapture --test-threads=1`

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::Produce;
use crate::support::worker::{Site, Worker};

/// Everything by default but the brokers and the sink.
fn config(kafka: &Kafka, topics: &[String], reset: &str) -> String {
    format!(
        "[kafka]\nbootstrap_servers = ['{}']\n[consumer]\ngroup_id = 'g'\ntopics = {topics:?}\n\
         auto_offset_reset = '{reset}'\nsink = 'drop'\n",
        kafka.bootstrap
    )
}

/// Processor time of a process so far: user and system, in the kernel's ticks of 10 ms.
fn processor_time(worker: &Worker) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
    // Behind the name, which may have blanks: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
#[ignore = "a measurement of half a minute"]
fn six_idle_topics() {
    let kafka = kafka_or_skip!();
    let topics: Vec<String> = (0..6).map(|_| Kafka::name("idle")).collect();
    for topic in &topics {
        kafka.tool().create(topic, "1", "");
    }
    let site = Site::new();
    let worker = site.start(&config(kafka, &topics, "latest"));
    worker.wait_started();
    let (began, before) = (Instant::now(), processor_time(&worker));
    // The time that passes is what is measured.
    thread::sleep(Duration::from_secs(20));
    let (used, passed) = (processor_time(&worker) - before, began.elapsed());
    let percent = 100.0 * used.as_secs_f64() / passed.as_secs_f64();
    println!(
        "six idle topics: {used:?} of processor time in {passed:.1?}: {percent:.2} % of a core; {} MiB resident, {} threads",
        worker.rss() >> 20,
        worker.threads()
    );
    assert!(percent < 1.0, "{percent:.2} % of a core");
    assert_eq!(worker.stop().code(), Some(0));
}

/// Six topics of 200 MB each, in records of 1000 bytes.
fn load(kafka: &Kafka) -> Vec<String> {
    let topics: Vec<String> = (0..6).map(|_| Kafka::name("load")).collect();
    for topic in &topics {
        kafka.tool().create(topic, "1", "");
        let configs = "batch.size=262144;linger.ms=10";
        kafka.tool().produce(&Produce { size: 1_000, configs, ..Produce::new(topic, EACH) });
    }
    topics
}

const EACH: u64 = 200_000;

#[test]
#[ignore = "a measurement of half a minute"]
fn six_topics_under_full_load() {
    let kafka = kafka_or_skip!();
    let topics = load(kafka);
    let site = Site::new();
    let began = Instant::now();
    let worker = site.start(&config(kafka, &topics, "earliest"));
    for topic in &topics {
        kafka.await_committed(&format!("g-{topic}"), topic, 0, EACH as i64);
    }
    let (passed, used) = (began.elapsed(), processor_time(&worker));
    let (peak, records) = (worker.peak_rss() >> 20, 6 * EACH);
    println!(
        "six topics under full load: {records} records of 1000 bytes in {passed:.2?} (start and commits included), {:.0}/s, \
         {used:?} of processor time; at most {peak} MiB resident",
        records as f64 / passed.as_secs_f64()
    );
    assert!(peak < 256 + 64, "{peak} MiB with memory.limit = 256MiB");
    assert_eq!(worker.stop().code(), Some(0));
}

/// The most that can be in memory: a sink that takes nothing, and topics that fill the whole budget.
#[test]
#[ignore = "a measurement of half a minute"]
fn six_topics_before_a_sink_that_takes_nothing() {
    let kafka = kafka_or_skip!();
    let topics = load(kafka);
    let site = Site::new();
    let full = config(kafka, &topics, "earliest").replace("'drop'", "'full'")
        + "[sink.full]\ntype = 'file'\npath = '/dev/full'\n[shutdown]\ndrain_timeout_ms = 100\n";
    let worker = site.start(&full);
    worker.wait_words(&["sink fails"]);
    // It grows until the budget is spent; nobody tells when that is.
    let mut peak = 0;
    loop {
        thread::sleep(Duration::from_secs(3));
        if worker.peak_rss() == peak {
            break;
        }
        peak = worker.peak_rss();
    }
    let peak = peak >> 20;
    println!("six topics before a sink that takes nothing: at most {peak} MiB resident");
    assert!(peak < 256 + 64, "{peak} MiB with memory.limit = 256MiB");
    let ended = worker.stop();
    let in_flight = |topic: &String| -> u64 {
        let sums = ended.sums(topic);
        let number = sums.split(' ').find_map(|field| field.strip_prefix("in_flight="));
        number.unwrap().parse().unwrap()
    };
    let in_flight: u64 = topics.iter().map(in_flight).sum();
    println!("in flight then: {in_flight} records of 1000 bytes");
}
