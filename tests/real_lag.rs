//! `worker lag` beside `kafka-consumer-groups`, on a real Kafka.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::kafka::Kafka;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::Produce;
use crate::support::worker::{Ended, Site, Worker};
use crate::{kafka_or_skip, on_brokers};

on_brokers!(lag_is_what_kafka_consumer_groups_prints,);

/// Topic and partition to CURRENT-OFFSET, LOG-END-OFFSET and LAG, as they are printed.
type Printed = BTreeMap<(String, String), [String; 3]>;

/// Takes those columns out of a table with a line of titles.
fn columns(lines: impl Iterator<Item = String>) -> Printed {
    let lines: Vec<Vec<String>> = lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let Some(titles) = lines.iter().find(|words| words.first().is_some_and(|word| word == "GROUP")) else {
        return Printed::new();
    };
    let place = |title: &str| titles.iter().position(|word| word == title).unwrap();
    let [topic, partition, current, end, lag] =
        ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"].map(place);
    let rows = lines.iter().filter(|words| words.len() > 5 && words[0] != "GROUP");
    rows.map(|words| {
        let cells = [current, end, lag].map(|column| words[column].clone());
        ((words[topic].clone(), words[partition].clone()), cells)
    })
    .collect()
}

#[track_caller]
fn lag(site: &Site, config: &str, arguments: &[&str]) -> Ended {
    let file = site.write_config(config).display().to_string();
    let ended = Worker::run(&[&["lag", "-c", &file], arguments].concat());
    assert_eq!((ended.code(), ended.log.as_slice()), (Some(0), &[][..]));
    ended
}

fn lag_is_what_kafka_consumer_groups_prints(version: Version) {
    let kafka = Kafka::shared_of(version);
    let tool = kafka.tool();
    let names = ["normal", "expired", "beyond", "taken-empty", "none", "idle"].map(Kafka::name);
    let [normal, expired, beyond, empty, none, idle] = names.each_ref().map(String::as_str);
    let group = Kafka::name("g");
    let group_of = |topic: &str| format!("{group}-{topic}");
    for topic in &names {
        tool.create(topic, if topic == normal { "3" } else { "1" }, "");
    }
    for topic in [expired, beyond, none, idle] {
        tool.produce(&Produce::new(topic, 100));
    }
    for partition in 0..3 {
        tool.produce(&Produce { partition: Some(partition), ..Produce::new(normal, 40) });
    }
    for (partition, offset) in [(0, 0), (1, 25), (2, 40)] {
        tool.commit(&group_of(normal), normal, partition, offset).unwrap();
    }
    tool.commit(&group_of(expired), expired, 0, 30).unwrap();
    tool.trim(expired, 0, 70);
    tool.commit(&group_of(beyond), beyond, 0, 120).unwrap();
    tool.commit(&group_of(idle), idle, 0, 100).unwrap();
    // A member that has committed nothing, so that Kafka's tool has something to say of the group.
    tool.join(&group_of(empty), &group_of(empty), empty, version.member());

    let site = Site::new();
    let topics = names.each_ref().map(String::as_str);
    let ended = lag(&site, &kafka.config(&group, &topics).to_string(), &[]);
    let ours = columns(ended.stdout.iter().cloned());
    let mut theirs = Printed::new();
    for topic in topics.iter().filter(|topic| **topic != none) {
        theirs.append(&mut columns(kafka.describe_group(&group_of(topic)).lines().map(str::to_owned)));
    }
    tool.leave(&group_of(empty));
    assert_eq!(theirs.len(), 7, "{theirs:?}");
    for (key, cells) in &theirs {
        assert_eq!(ours.get(key), Some(cells), "{key:?} in {:#?}", ended.stdout);
    }
    let cells = |topic: &str| ours[&(topic.to_owned(), "0".to_owned())].join(" ");
    assert_eq!(
        [normal, expired, beyond, empty, none, idle].map(cells),
        ["0 40 40", "30 100 70", "120 100 -20", "- 0 -", "- 100 -", "100 100 0"]
    );
    let verdict = |topic: &str| {
        let line = ended.stdout.iter().find(|line| line.contains(&format!(" {topic} ")));
        line.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(
        [normal, expired, beyond, empty, none, idle].map(verdict),
        ["behind", "out-of-range", "out-of-range", "empty", "not-started", "idle"]
    );
    assert_eq!(kafka.committed(&group_of(normal), normal, 1), Some(25), "asking moves nothing");
}

/// For figures: `cargo test --release --test integration real_lag -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of a minute"]
fn many_topics() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let group = Kafka::name("many");
    let topics: Vec<String> = (0..600).map(|_| Kafka::name("many")).collect();
    for topic in &topics {
        tool.create(topic, "1", "");
    }
    tool.produce(&Produce::new(&topics[0], 100));
    for topic in &topics {
        tool.commit(&format!("{group}-{topic}"), topic, 0, 0).unwrap();
    }
    let site = Site::new();
    for count in [6, 200, 600] {
        let names: Vec<&str> = topics[..count].iter().map(String::as_str).collect();
        let config = kafka.config(&group, &names).to_string();
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            let ended = lag(&site, &config, &[]);
            times.push(began.elapsed());
            assert_eq!(ended.stdout.len(), 1 + count);
        }
        times.sort();
        println!("worker lag of {count} topics: {:.0?} (five times: {times:.0?}), two looks 500 ms apart", times[2]);
        assert!(count > 200 || times[2] < Duration::from_secs(2), "{times:?}");
    }
}
