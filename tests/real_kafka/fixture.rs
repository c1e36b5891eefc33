//! The fixture itself: that it does what the other tests take for granted.

use std::io::{BufRead, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::eventually;
use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::tool::{End, GroupOffset, Message, Produce, Produced};

const PLAIN: &str = "";

#[test]
fn records_come_back_as_they_were_sent() {
    let tool = kafka_or_skip!().tool();
    let topic = Kafka::name("as-sent");
    tool.create(&topic, "2", PLAIN);
    assert!(tool.topics().contains(&topic));

    let at = |partition, key, value| Message { topic: &topic, partition, key, value, timestamp_ms: Some(77) };
    let bytes: Vec<u8> = (0..=255).collect();
    let sent =
        [at(0, None, None), at(0, Some(b""), Some(b"")), at(0, Some(&bytes), Some(&bytes)), at(1, Some(b"k"), None)];
    let range = |partition, first, last, count| Produced { partition, first, last, count };
    assert_eq!(tool.send(PLAIN, End::Plain, &sent), [range(0, 0, 2, 3), range(1, 0, 0, 1)]);

    let mut read = tool.read(&topic, "read_committed");
    read.sort_by_key(|record| (record.partition, record.offset));
    assert!(read.iter().all(|record| record.timestamp_ms == 77));
    let read: Vec<_> = read.iter().map(|r| (r.partition, r.key.as_deref(), r.value.as_deref())).collect();
    let expected: Vec<_> = sent.iter().map(|m| (m.partition, m.key, m.value)).collect();
    assert_eq!(read, expected);

    tool.delete(&topic);
    eventually("the topic is gone", || !tool.topics().contains(&topic));
}

#[test]
fn numbered_records_go_on_where_they_are_told() {
    let tool = kafka_or_skip!().tool();
    let topic = Kafka::name("numbered");
    tool.create(&topic, "2", PLAIN);
    for (first, codec) in [(0, "none"), (500, "gzip"), (1000, "snappy"), (1500, "lz4"), (2000, "zstd")] {
        // Else a producer that tries again, as it may on a new topic, changes the order.
        let configs = format!("compression.type={codec};batch.size=4096;linger.ms=5;enable.idempotence=true");
        tool.produce(&Produce { first, configs: &configs, size: 60, keys: "7", ..Produce::new(&topic, 500) });
    }
    let chosen = tool.produce(&Produce { partition: None, keys: "seq", ..Produce::new(&topic, 200) });
    assert_eq!(chosen.iter().map(|p| p.count).sum::<u64>(), 200);
    assert_eq!(chosen.len(), 2, "200 different keys go to both partitions: {chosen:?}");

    let read = tool.read(&topic, "read_committed");
    let first: Vec<_> = read.iter().filter(|r| r.partition == 0).take(2500).collect();
    for (n, record) in first.iter().enumerate() {
        let value = record.value.as_deref().unwrap();
        assert_eq!((record.offset, &value[..12], value.len()), (n as i64, format!("{n:012}").as_bytes(), 60));
        assert_eq!(record.key.as_deref(), Some(format!("k{}", n % 7).as_bytes()));
    }

    tool.trim(&topic, 0, 1234);
    assert_eq!(tool.bounds(&topic)[0].0, 1234);
}

#[test]
fn aborted_transactions_are_there_but_not_committed() {
    let tool = kafka_or_skip!().tool();
    let topic = Kafka::name("transactions");
    tool.create(&topic, "1", PLAIN);
    let configs = format!("enable.idempotence=true;transactional.id={topic}");
    let part = |first, end| Produce { first, end, configs: &configs, ..Produce::new(&topic, 10) };
    tool.produce(&part(0, End::Commit));
    tool.produce(&part(10, End::Abort));
    tool.produce(&part(20, End::Commit));

    eventually("three control records are there", || tool.bounds(&topic) == [(0, 33)]);
    let numbers = |isolation| {
        let read = tool.read(&topic, isolation);
        read.iter().map(|r| String::from_utf8_lossy(&r.value.as_ref().unwrap()[..12]).parse().unwrap()).collect()
    };
    let committed: Vec<u64> = numbers("read_committed");
    let all: Vec<u64> = numbers("read_uncommitted");
    assert_eq!(committed, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(all, (0..30).collect::<Vec<_>>());
}

#[test]
fn groups_commit_and_refuse_as_in_production() {
    let kafka = kafka_or_skip!();
    let tool = kafka.tool();
    let (topic, group) = (Kafka::name("lag"), Kafka::name("group"));
    tool.create(&topic, "1", PLAIN);
    tool.produce(&Produce::new(&topic, 100));
    tool.commit(&group, &topic, 0, 40).unwrap();
    assert_eq!(
        tool.group(&group),
        [GroupOffset { topic: topic.clone(), partition: 0, committed: 40, log_end: 100, lag: 60 }]
    );
    let text = kafka.describe_group(&group);
    let line = text.lines().find(|line| line.contains(&topic)).expect(&text);
    let columns: Vec<_> = line.split_whitespace().collect();
    assert_eq!(columns[..6], [group.as_str(), &topic, "0", "40", "100", "60"]);

    let member = tool.join("one", &group, &topic, "session.timeout.ms=6000");
    assert_eq!(tool.members(&group), ("Stable".to_owned(), vec![member]));
    let refused = tool.commit(&group, &topic, 0, 0).unwrap_err();
    assert!(refused.starts_with("CommitFailedException"), "{refused}");
    eventually("the member has committed what it read", || tool.group(&group)[0].lag == 0);
    tool.leave("one");
    assert_eq!(tool.members(&group), ("Empty".to_owned(), vec![]));
    tool.commit(&group, &topic, 0, 7).unwrap();
    assert_eq!(tool.group(&group)[0].committed, 7);
}

#[test]
fn a_node_comes_back_with_its_data_at_its_port() {
    let kafka = kafka_or_skip!(Kafka::node(&[("auto.create.topics.enable", "false")]));
    let tool = kafka.tool();
    tool.create("stays", "1", PLAIN);
    tool.produce(&Produce::new("stays", 10));
    tool.configure("topic", "stays", "retention.ms=5000000");

    kafka.kill(0);
    TcpStream::connect(kafka.address(0)).expect_err("nobody listens");
    kafka.start(0);
    assert_eq!(tool.bounds("stays"), [(0, 10)]);

    kafka.freeze(0);
    let mut socket = TcpStream::connect(kafka.address(0)).expect("the kernel still accepts");
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    std::io::Write::write_all(&mut socket, b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\0\0").unwrap();
    socket.read_exact(&mut [0]).expect_err("ApiVersions is not answered while frozen");
    kafka.thaw(0);
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket.read_exact(&mut [0]).expect("and is answered when it goes on");

    kafka.stop(0);
    kafka.start(0);
    assert_eq!(tool.bounds("stays"), [(0, 10)]);
}

#[test]
fn a_cluster_moves_its_leaders() {
    let kafka = kafka_or_skip!(Kafka::cluster(3));
    let tool = kafka.tool();
    assert_eq!(tool.brokers(3).len(), 3);
    tool.create("moves", "1,2;2,3", PLAIN);
    let leaders = || tool.partitions("moves").iter().map(|p| p.leader).collect::<Vec<_>>();
    eventually("every broker has heard of it", || leaders() == [Some(1), Some(2)]);
    tool.produce(&Produce::new("moves", 10));

    kafka.kill(0);
    eventually("node 2 leads both", || leaders() == [Some(2), Some(2)]);
    kafka.start(0);
    eventually("node 1 is in sync again", || tool.partitions("moves").first().is_some_and(|p| p.in_sync.contains(&1)));
    tool.elect("moves", 0);
    eventually("node 1 leads again", || leaders().first() == Some(&Some(1)));
    tool.reassign("moves", 0, "3,2");
    eventually("node 3 leads", || leaders().first() == Some(&Some(3)));
    eventually("every broker knows", || tool.partitions("moves").first().is_some_and(|p| p.replicas == [3, 2]));
    assert_eq!(tool.bounds("moves")[0], (0, 10));
}

const HOLD: &str = "WORKER_TESTS_HOLD_A_NODE";

/// Not a test: what the next one starts and kills.
#[test]
#[ignore = "holds a node until it is killed; started by nothing_outlives_the_process"]
fn holds_a_node() {
    if std::env::var_os(HOLD).is_none() {
        return; // Somebody runs all tests, with the ignored ones.
    }
    let kafka = Kafka::node(&[]);
    println!("\nADDRESS {}", kafka.address(0));
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn nothing_outlives_the_process() {
    kafka_or_skip!(());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "real_kafka::fixture::holds_a_node", "--ignored", "--nocapture"])
        .env(HOLD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("ADDRESS ").map(str::to_owned)).unwrap();
    TcpStream::connect(&address).expect("the node runs");
    child.kill().unwrap(); // kill -9
    child.wait().unwrap();
    eventually("the node is gone", || TcpStream::connect(&address).is_err());
}
