//! `worker offsets` on a real Kafka: what its own tools say afterwards, and what the daemon then delivers.

use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::Produce;
use crate::support::on::On;
use crate::support::worker::{Config, Ended, Site, Worker, sink};
use crate::{on_brokers, on_each};

on_each!(
    after_a_reset_kafkas_tools_and_the_worker_go_on_there,
    from_a_shared_group_to_one_a_topic_and_back_every_record_arrives_once,
);

on_brokers!(the_commands_move_what_kafkas_tools_see,);

fn run(site: &Site, config: &Config, command: &str, arguments: &[&str]) -> Ended {
    let file = site.write_config(&config.to_string()).display().to_string();
    Worker::run(&[&["offsets", command, "-c", &file], arguments].concat())
}

/// CURRENT-OFFSET of a partition, as `kafka-consumer-groups --describe` prints it.
#[track_caller]
fn described(kafka: &Kafka, group: &str, topic: &str, partition: i32) -> String {
    let text = kafka.describe_group(group);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = text.lines().map(words).find(|words| {
        words.get(1).is_some_and(|word| word == topic)
            && words.get(2).is_some_and(|word| *word == partition.to_string())
    });
    line.unwrap_or_else(|| panic!("no {topic}-{partition} in\n{text}"))[3].clone()
}

fn after_a_reset_kafkas_tools_and_the_worker_go_on_there(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let topic = Kafka::name("reset");
    tool.create(&topic, "2", "");
    for partition in [0, 1] {
        tool.produce(&Produce { partition: Some(partition), ..Produce::new(&topic, 100) });
    }
    let group = Kafka::name("g");
    let own_group = format!("{group}-{topic}");
    let config = kafka.config(&group, &[&topic]);
    let site = Site::new();
    let worker = site.start(&config.to_string());
    for partition in [0, 1] {
        kafka.await_committed(&own_group, &topic, partition, 100);
    }
    let ended = run(&site, &config, "reset", &["--topic", &topic, "--to-earliest", "--execute"]);
    assert_eq!((ended.code(), ended.lines_with(&["refused: the worker runs"]).len()), (Some(1), 1), "{:?}", ended.log);
    assert_eq!(worker.stop().code(), Some(0));

    // One partition to an offset, the other to the time of a record.
    let ended =
        run(&site, &config, "reset", &["--topic", &topic, "--partition", "0", "--to-offset", "40", "--execute"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    let records = tool.read(&topic, "read_uncommitted");
    let last = records.iter().filter(|record| record.partition == 1).max_by_key(|record| record.offset).unwrap();
    let at = records
        .iter()
        .filter(|record| record.partition == 1 && record.timestamp_ms >= last.timestamp_ms)
        .map(|record| record.offset)
        .min()
        .unwrap();
    let time = last.timestamp_ms.to_string();
    let ended = run(&site, &config, "reset", &["--topic", &topic, "--partition", "1", "--to-time", &time, "--execute"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    assert_eq!(described(kafka, &own_group, &topic, 0), "40");
    assert_eq!(described(kafka, &own_group, &topic, 1), at.to_string());
    // Everything behind the last record is later than any record.
    let ended = run(&site, &config, "reset", &["--topic", &topic, "--to-time", "2100-01-01T00:00:00Z"]);
    assert_eq!(ended.stdout.iter().filter(|line| line.contains("no record is of that time")).count(), 2);

    let worker = site.start(&config.to_string());
    for partition in [0, 1] {
        kafka.await_committed(&own_group, &topic, partition, 100);
    }
    assert_eq!(worker.stop().code(), Some(0));
    let records = site.records();
    assert_eq!(sink::offsets(&records, &topic, 0), (0..100).chain(40..100).collect::<Vec<_>>());
    assert_eq!(sink::offsets(&records, &topic, 1), (0..100).chain(at..100).collect::<Vec<_>>());
}

/// The seeds' move: a service with one group for all topics goes over to a group a topic, and back.
fn from_a_shared_group_to_one_a_topic_and_back_every_record_arrives_once(on: On) {
    let kafka = &on.shared();
    let tool = kafka.tool();
    let topics = [Kafka::name("there"), Kafka::name("back")];
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let counts = [3_000, 700];
    let mut written = [0, 0];
    let mut write = |share: u64| {
        for ((topic, count), written) in topics.iter().zip(counts).zip(&mut written) {
            let count = count / share;
            tool.produce(&Produce { first: *written, ..Produce::new(topic, count) });
            *written += count;
        }
        written
    };
    topics.iter().for_each(|topic| drop(tool.create(topic, "1", "")));
    let group = Kafka::name("g");
    // The old service: a member of the shared group that reads all topics.
    let old = write(1);
    tool.join(&group, &group, &names.join(","), on.member());
    for (topic, end) in topics.iter().zip(old) {
        kafka.await_committed(&group, topic, 0, end as i64);
    }
    let site = Site::new();
    let config = kafka.config(&group, &names).set("consumer", "auto_offset_reset", "'latest'");
    let (single, multi) = (
        config.clone().set("consumer", "multi_consumer_mode", false),
        config.set("consumer", "multi_consumer_mode", true),
    );
    let ended = run(&site, &multi, "migrate", &["--to-per-topic", "--execute"]);
    assert_eq!(ended.code(), Some(1), "{:?}", ended.stdout);
    assert_eq!(ended.lines_with(&[&format!("refused: group {group} has live members"), "127.0.0.1"]).len(), 1);
    tool.leave(&group);

    let mut is_multi = false;
    for _ in 0..4 {
        // What is written while nobody reads is what a change can lose.
        write(7);
        let (way, from) = if is_multi { ("--to-shared", &multi) } else { ("--to-per-topic", &single) };
        let ended = run(&site, from, "migrate", &[way, "--execute"]);
        assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
        assert!(ended.stdout.iter().any(|line| line == "sum: partitions=2 skipped=0 replayed=0"), "{:?}", ended.stdout);
        is_multi = !is_multi;
        write(7);
        let worker = site.start(&if is_multi { &multi } else { &single }.to_string());
        let ends = write(7);
        for (topic, end) in topics.iter().zip(ends) {
            let own = if is_multi { format!("{group}-{topic}") } else { group.clone() };
            kafka.await_committed(&own, topic, 0, end as i64);
            assert_eq!(described(kafka, &own, topic, 0), end.to_string());
        }
        assert_eq!(worker.stop().code(), Some(0));
    }
    let records = site.records();
    for ((topic, old), end) in topics.iter().zip(old).zip(written) {
        assert_eq!(sink::offsets(&records, topic, 0), (old as i64..end as i64).collect::<Vec<_>>(), "{topic}");
    }
}

/// The commands alone, which need no client that reads records; beside a member, on Kafka 4 one of the new protocol.
fn the_commands_move_what_kafkas_tools_see(version: Version) {
    let kafka = Kafka::shared_of(version);
    let tool = kafka.tool();
    let topic = Kafka::name("moved");
    tool.create(&topic, "2", "");
    for partition in [0, 1] {
        tool.produce(&Produce { partition: Some(partition), ..Produce::new(&topic, 100) });
    }
    let shared = Kafka::name("g");
    let own = format!("{shared}-{topic}");
    let site = Site::new();
    let config = kafka.config(&shared, &[&topic]);
    let single = config.clone().set("consumer", "multi_consumer_mode", false);
    tool.join(&shared, &shared, &topic, version.member());
    for partition in [0, 1] {
        kafka.await_committed(&shared, &topic, partition, 100);
    }
    let migrate = ["--to-per-topic", "--execute"];
    let ended = run(&site, &single, "migrate", &migrate);
    assert_eq!(ended.code(), Some(1), "{:?}", ended.stdout);
    let told = [&format!("refused: group {shared} has live members"), "tool at ", "127.0.0.1"];
    assert_eq!(ended.lines_with(&told).len(), 1, "{:?}", ended.log);
    tool.leave(&shared);
    tool.commit(&shared, &topic, 0, 30).unwrap();
    assert_eq!(run(&site, &single, "migrate", &migrate).code(), Some(0));
    let seen = || [0, 1].map(|partition| described(kafka, &own, &topic, partition));
    assert_eq!(seen(), ["30", "100"]);

    let by_offset = ["--topic", &topic, "--partition", "1", "--to-offset", "40", "--execute"];
    assert_eq!(run(&site, &config, "reset", &by_offset).code(), Some(0));
    assert_eq!(seen(), ["30", "40"]);
    let by_time = ["--topic", &topic, "--to-time", "2000-01-01T00:00:00Z", "--execute"];
    assert_eq!(run(&site, &config, "reset", &by_time).code(), Some(0));
    assert_eq!(seen(), ["0", "0"]);
    let shown = run(&site, &config, "show", &[]);
    assert_eq!(shown.code(), Some(0), "{:?}", shown.log);
    assert_eq!(shown.stdout.iter().filter(|line| line.contains(&topic)).count(), 2, "{:?}", shown.stdout);
}
