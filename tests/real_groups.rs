//! The group's offsets on a real Kafka: where the daemon starts, that others go on where it stopped and
//! it where others did, and what it does beside a live member.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::await_size;
use crate::support::kafka::tool::Produce;
use crate::support::on::On;
use crate::support::worker::{Site, sink};
use crate::{kafka_or_skip, on_each};

on_each!(
    restarts_go_on_exactly_where_they_stopped,
    java_and_the_worker_go_on_where_the_other_stopped,
    the_first_position_is_committed_before_any_record,
    nothing_is_committed_over_a_live_member,
    beside_a_live_member_commits_are_refused_until_it_leaves,
    a_missing_topic_is_not_created_and_read_from_its_start_when_it_comes,
);

fn restarts_go_on_exactly_where_they_stopped(on: On) {
    let kafka = &on.shared();
    let topic = Kafka::name("restarts");
    let count = 150_000;
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, count));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    // Small fetches, so that there is something left to do when it is stopped.
    let config = kafka.config(&group, &[&topic]).set("consumer", "max_partition_fetch_bytes", "'16KiB'");
    let site = Site::new();
    let mut delivered = 0;
    for _ in 0..3 {
        let before = fs::metadata(site.out()).map_or(0, |file| file.len());
        let worker = site.start(&config.to_string());
        await_size(&site.out(), before + 1_000_000);
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0));
        delivered = site.records().len();
        assert_eq!(kafka.committed(&own_group, &topic, 0), Some(delivered as i64), "all that was delivered");
        assert!(ended.sums(&topic).contains(&format!("committed={delivered} in_flight=0 ")), "{}", ended.sums(&topic));
    }
    assert!(delivered < count as usize, "each was stopped on the way");
    let worker = site.start(&config.to_string());
    worker.wait_words(&["continuing", &topic, &format!("offset={delivered}")]);
    kafka.await_committed(&own_group, &topic, 0, count as i64);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (0..count as i64).collect::<Vec<_>>());
}

fn java_and_the_worker_go_on_where_the_other_stopped(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let topic = Kafka::name("java");
    tool.create(&topic, "1", "");
    tool.produce(&Produce::new(&topic, 100));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    tool.join(&own_group, &own_group, &topic, on.member());
    kafka.await_committed(&own_group, &topic, 0, 100);
    tool.leave(&own_group);
    tool.produce(&Produce { first: 100, ..Produce::new(&topic, 50) });

    // As in production, `latest`: what stands in the group goes before it.
    let config = kafka.config(&group, &[&topic]).set("consumer", "auto_offset_reset", "'latest'");
    let site = Site::new();
    let worker = site.start(&config.to_string());
    worker.wait_words(&["continuing", &topic, "offset=100"]);
    kafka.await_committed(&own_group, &topic, 0, 150);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (100..150).collect::<Vec<_>>());

    tool.produce(&Produce { first: 150, ..Produce::new(&topic, 20) });
    let printed = tool.java(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &["--bootstrap-server", &kafka.bootstrap, "--topic", &topic, "--group", &own_group, "--max-messages", "20"],
    );
    let numbers: Vec<u64> = printed.lines().filter_map(|line| line.get(..12)?.parse().ok()).collect();
    assert_eq!(numbers, (150..170).collect::<Vec<_>>(), "{printed}");
    kafka.await_committed(&own_group, &topic, 0, 170);

    tool.produce(&Produce { first: 170, ..Produce::new(&topic, 5) });
    let worker = site.start(&config.to_string());
    kafka.await_committed(&own_group, &topic, 0, 175);
    assert_eq!(worker.stop().code(), Some(0));
    let expected: Vec<i64> = (100..150).chain(170..175).collect();
    assert_eq!(sink::offsets(&site.records(), &topic, 0), expected);
}

/// The interpreter of a virtual environment with aiokafka, made once below the target directory.
fn python() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("aiokafka");
    let python = home.join("bin/python");
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    if run(Command::new(&python).args(["-c", "import aiokafka"])).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&home))
            .map_err(|why| format!("python3 -m venv: {why}"))?;
        let install = ["-m", "pip", "install", "--quiet", "aiokafka"];
        run(Command::new(&python).args(install)).map_err(|why| format!("pip install aiokafka: {why}"))?;
    }
    Ok(python)
}

#[test]
fn aiokafka_and_the_worker_go_on_where_the_other_stopped() {
    let kafka = kafka_or_skip!();
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            let text = format!("\nSKIPPED {}:{}: no aiokafka here: {why}\n", file!(), line!());
            std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
            return;
        }
    };
    let topic = Kafka::name("aiokafka");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 100));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    let take = |count: i64| -> Vec<i64> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_groups/take.py");
        let mut command = Command::new(&python);
        command.arg(script).args([&kafka.bootstrap, &own_group, &topic, &count.to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    };
    assert_eq!(take(40), (0..40).collect::<Vec<_>>());
    assert_eq!(kafka.committed(&own_group, &topic, 0), Some(40));
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic]).to_string());
    kafka.await_committed(&own_group, &topic, 0, 100);
    assert_eq!(worker.stop().code(), Some(0));
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (40..100).collect::<Vec<_>>());
    kafka.tool().produce(&Produce { first: 100, ..Produce::new(&topic, 10) });
    assert_eq!(take(10), (100..110).collect::<Vec<_>>());
}

fn the_first_position_is_committed_before_any_record(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let names: Vec<String> = ["latest", "earliest", "empty"].map(Kafka::name).into();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    let [latest, earliest, empty] = topics[..] else { unreachable!() };
    for topic in &topics {
        tool.create(topic, "1", "");
    }
    for topic in [latest, earliest] {
        tool.produce(&Produce::new(topic, 100));
    }
    let group = Kafka::name("g");
    let group_of = |topic: &str| format!("{group}-{topic}");
    let latest_topic = format!("[[topic]]\nname = '{latest}'\nauto_offset_reset = 'latest'\n");
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &topics).more(&latest_topic).to_string());
    worker.wait_started();
    // "Started" says that the first position stands in the group.
    assert_eq!(kafka.committed(&group_of(latest), latest, 0), Some(100));
    assert_eq!(kafka.committed(&group_of(empty), empty, 0), Some(0));
    let line = worker.wait_words(&["starting", latest]);
    assert!(line.contains("offset=100 log_start=0 log_end=100") && line.contains("not_read=100"), "{line}");
    for (topic, first) in [(latest, 100), (earliest, 100), (empty, 0)] {
        tool.produce(&Produce { first, ..Produce::new(topic, 10) });
        kafka.await_committed(&group_of(topic), topic, 0, first as i64 + 10);
    }
    let ended = worker.stop();
    assert_eq!(ended.sums(latest), "delivered=10 committed=110 in_flight=0 expired=0 reset=100");
    let records = site.records();
    assert_eq!(sink::offsets(&records, latest, 0), (100..110).collect::<Vec<_>>());
    assert_eq!(sink::offsets(&records, earliest, 0), (0..110).collect::<Vec<_>>());
    assert_eq!(sink::offsets(&records, empty, 0), (0..10).collect::<Vec<_>>());
}

fn nothing_is_committed_over_a_live_member(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let (topic, other) = (Kafka::name("member"), Kafka::name("no-member"));
    for topic in [&topic, &other] {
        tool.create(topic, "1", "");
    }
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    // The topic is empty: the member has committed nothing yet when the worker comes.
    tool.join(&own_group, &own_group, &topic, on.member());
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic, &other]).to_string());
    let line = worker.wait_words(&["WARN", "has live members", &own_group]);
    assert!(line.contains(" at 127.0.0.1; stop them"), "{line}");
    for topic in [&topic, &other] {
        tool.produce(&Produce::new(topic, 50));
    }
    kafka.await_committed(&format!("{group}-{other}"), &other, 0, 50);
    kafka.await_committed(&own_group, &topic, 0, 50);
    assert_eq!(sink::offsets(&site.records(), &topic, 0), [0_i64; 0], "nothing while the member reads");
    tool.leave(&own_group);
    tool.produce(&Produce { first: 50, ..Produce::new(&topic, 10) });
    kafka.await_committed(&own_group, &topic, 0, 60);
    let ended = worker.stop();
    let lines = ended.lines_with(&["WARN", "has live members"]);
    assert_eq!(lines.len(), 1, "told once: {lines:?}");
    let delivered = sink::offsets(&site.records(), &topic, 0);
    assert_eq!(delivered, (50..60).collect::<Vec<_>>(), "it goes on where the member stopped");
}

/// Where the group has an offset, the worker reads beside the member: its records arrive twice, in
/// both, and are committed by the member alone until it has left.
fn beside_a_live_member_commits_are_refused_until_it_leaves(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let topic = Kafka::name("beside");
    tool.create(&topic, "1", "");
    tool.produce(&Produce::new(&topic, 50));
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    tool.join(&own_group, &own_group, &topic, on.member());
    kafka.await_committed(&own_group, &topic, 0, 50);
    let site = Site::new();
    let worker = site.start(&kafka.config(&group, &[&topic]).to_string());
    worker.wait_words(&["continuing", &topic, "offset=50"]);
    tool.produce(&Produce { first: 50, ..Produce::new(&topic, 10) });
    worker.wait_words(&["WARN", "has live members", &own_group]);
    kafka.await_committed(&own_group, &topic, 0, 60);
    tool.leave(&own_group);
    assert_eq!(kafka.committed(&own_group, &topic, 0), Some(60));
    tool.produce(&Produce { first: 60, ..Produce::new(&topic, 10) });
    kafka.await_committed(&own_group, &topic, 0, 70);
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.lines_with(&["WARN", "has live members"]).len(), 1, "told once");
    assert_eq!(sink::offsets(&site.records(), &topic, 0), (50..70).collect::<Vec<_>>());
}

fn a_missing_topic_is_not_created_and_read_from_its_start_when_it_comes(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let (missing, there) = (Kafka::name("missing"), Kafka::name("there"));
    tool.create(&there, "1", "");
    let group = Kafka::name("g");
    let group_of = |topic: &str| format!("{group}-{topic}");
    // `latest`: but nothing that was written before it was noticed is skipped.
    let config = kafka.config(&group, &[&missing, &there]).set("consumer", "auto_offset_reset", "'latest'");
    let site = Site::new();
    let worker = site.start(&config.to_string());
    worker.wait_started();
    assert_eq!(worker.count(&["WARN", "topic missing", &missing]), 1);
    tool.produce(&Produce::new(&there, 30));
    kafka.await_committed(&group_of(&there), &there, 0, 30);
    // The broker would make it for anybody who asks for it: auto.create.topics.enable is true by default.
    assert!(!tool.topics().contains(&missing));

    let began = Instant::now();
    tool.create(&missing, "2", "");
    for partition in [Some(0), Some(1)] {
        tool.produce(&Produce { partition, ..Produce::new(&missing, 20) });
    }
    for partition in [0, 1] {
        kafka.await_committed(&group_of(&missing), &missing, partition, 20);
    }
    println!("a topic that appears is read after {:?}", began.elapsed());
    tool.grow(&missing, 4);
    for partition in [Some(2), Some(3)] {
        tool.produce(&Produce { partition, ..Produce::new(&missing, 20) });
    }
    for partition in [2, 3] {
        kafka.await_committed(&group_of(&missing), &missing, partition, 20);
    }
    worker.wait_words(&["consumer started", &missing]);
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    for partition in 0..4 {
        assert_eq!(sink::offsets(&records, &missing, partition), (0..20).collect::<Vec<_>>(), "partition {partition}");
    }
    assert_eq!(records.len(), 30 + 4 * 20);
}
