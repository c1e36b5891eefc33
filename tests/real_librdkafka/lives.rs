//! Many short lives of a reader: no hang, no crash, no thread that stays.

use std::fs;

use super::*;

/// The threads of librdkafka that this process has: its main threads and its brokers' (`rdk:main`, `rdk:broker1`).
fn threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        let name = fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        (name.starts_with("rdk:") || name.starts_with("close:lives")).then_some(())
    });
    names.count()
}

fn lives(bootstrap: &str, topic: &str, count: usize) -> Duration {
    let since = Instant::now();
    for life in 0..count {
        let mut harness = Harness::new(bootstrap, Settings::default());
        harness.seek(topic, 0, 0);
        // Dropped at all stages: before the first poll, while it connects, while it reads.
        for _ in 0..life % 5 {
            harness.turn();
        }
    }
    since.elapsed()
}

/// Run in a process of its own by [`a_thousand_lives_end`], so that the threads it counts are its own.
#[test]
#[ignore = "run by a_thousand_lives_end in a process of its own"]
fn a_thousand_lives() {
    let kafka = kafka_or_skip!();
    let topic = Kafka::name("lives");
    kafka.tool().create(&topic, "1", PLAIN);
    kafka.tool().produce(&Produce::new(&topic, 10_000));
    let [port] = crate::support::kafka::free_ports(1)[..] else { panic!("one port") };
    let closed = lives(&format!("127.0.0.1:{port}"), &topic, 500);
    let open = lives(&kafka.bootstrap, &topic, 500);
    println!("500 lives without a broker: {closed:?}, 500 with one: {open:?}");
    crate::support::eventually("all threads are gone", || threads() == 0);
}

#[test]
fn a_thousand_lives_end() {
    kafka_or_skip!();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["real_librdkafka::lives::a_thousand_lives", "--exact", "--ignored", "--nocapture"])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("a thousand starts and stops hang");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
}
