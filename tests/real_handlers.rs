//! Given Kafka and handlers, and kill -9 of both at any moment: what is missing, what comes twice, in which order.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::on_brokers;
use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::Produce;
use crate::support::worker::{PATIENCE, Rec, Site};

on_brokers!(handlers_and_workers_that_are_killed_lose_nothing_and_keep_the_order_of_keys);

const PARTITIONS: usize = 3;
const EACH: u64 = 8_000;

/// Writes the line, and only then says so. One write a line: what is killed has written all of it, or nothing.
const HANDLER: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
rest = b""
while chunk := os.read(0, 1 << 16):
    lines = (rest + chunk).split(b"\n")
    rest = lines.pop()
    for line in lines:
        os.write(out, line + b"\n")
        time.sleep(0.0002)
    os.write(1, b'{"ack":%d}\n' % json.loads(lines[-1])["seq"] if lines else b"")
"#;

/// The processes that this one has started.
fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task");
    let Ok(threads) = fs::read_dir(path) else { return Vec::new() };
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    let all: Vec<String> = threads.flatten().map(of).collect();
    all.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect()
}

/// By turns of a hash, so that a run can be had again.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

fn handlers_and_workers_that_are_killed_lose_nothing_and_keep_the_order_of_keys(version: Version) {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and there is no python3");
        eprintln!("\nSKIPPED: no python3 here\n");
        return;
    }
    let kafka = Kafka::shared_of(version);
    let (topic, group) = (Kafka::name("handled"), Kafka::name("g"));
    kafka.tool().create(&topic, &PARTITIONS.to_string(), "");
    for partition in 0..PARTITIONS {
        let first = partition as u64 * EACH;
        let partition = Some(i32::try_from(partition).unwrap());
        kafka.tool().produce(&Produce { partition, first, keys: "50", ..Produce::new(&topic, EACH) });
    }
    let site = Site::new();
    let handler = site.path("handler.py");
    fs::write(&handler, HANDLER).unwrap();
    fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
    let config = kafka
        .config(&group, &[&topic])
        .set("kafka", "client", "'auto'")
        .set("consumer", "sink", "'h'")
        .set("consumer", "retry_initial_ms", 10)
        .set("sink.h", "type", "'exec'")
        .set("sink.h", "command", "['@DIR@/handler.py', '@DIR@/out.jsonl']")
        .set("sink.h", "lanes", 4)
        .set("sink.h", "order", "'key'")
        .to_string();
    let own_group = format!("{group}-{topic}");
    let committed = || {
        let offsets = kafka.tool().group(&own_group);
        offsets.iter().map(|one| one.committed.max(0)).sum::<i64>()
    };
    let all = PARTITIONS as i64 * EACH as i64;
    let seed: Option<u64> = std::env::var("WORKER_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into());
    println!("kills at random moments: WORKER_TESTS_SEED={seed}");
    let mut random = seed | 1;
    let (mut handlers, mut workers) = (0, 0);
    let mut worker = site.start(&config);
    worker.wait_started();
    let end = Instant::now() + PATIENCE * 4;
    while committed() < all {
        assert!(Instant::now() < end, "{} of {all} are committed", committed());
        // A random moment is what is wanted, not an event.
        std::thread::sleep(Duration::from_millis(next(&mut random) % 150));
        if workers < 6 && next(&mut random).is_multiple_of(4) {
            worker.kill9();
            workers += 1;
            worker = site.start(&config);
            worker.wait_started();
        } else if handlers < 40 {
            let running = children(worker.pid());
            if let Some(pid) = running.get(next(&mut random) as usize % running.len().max(1)) {
                handlers += usize::from(kill(pid));
            }
        }
    }
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    let twice = account(&records, &site.out());
    println!(
        "{workers} workers and {handlers} handlers killed: {all} records, missing 0, order of keys kept, twice {twice}"
    );
    assert!(workers > 0 && handlers > 0);
}

fn kill(pid: &str) -> bool {
    Command::new("kill")
        .args(["-9", pid])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Each record is there, and for the first time behind those of its key and partition that were written before it. How
/// many came twice.
fn account(records: &[Rec], out: &Path) -> usize {
    let mut newest: HashMap<(i32, Option<Vec<u8>>), i64> = HashMap::new();
    let mut seen = vec![std::collections::BTreeSet::new(); PARTITIONS];
    for record in records {
        let partition = usize::try_from(record.partition).unwrap();
        if seen[partition].insert(record.offset) {
            let before = newest.insert((record.partition, record.key.clone()), record.offset);
            assert!(before < Some(record.offset), "{}: {record:?} came behind {before:?} of its key", out.display());
        }
    }
    for (partition, seen) in seen.iter().enumerate() {
        assert_eq!(seen.len(), EACH as usize, "partition {partition}");
    }
    records.len() - PARTITIONS * EACH as usize
}
