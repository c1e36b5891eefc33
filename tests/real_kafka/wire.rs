//! `worker::wire` against a real broker.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use worker::client::{Bounds, Committed, Fault};
use worker::record::{Offset, TopicPartition};
use worker::wire::{Batch, Codec, Details, Header, Wire};

use super::eventually;
use crate::support::kafka::install::Version;
use crate::support::kafka::tool::{End, Message, Produce};
use crate::support::kafka::{Kafka, free_ports};
use crate::{kafka_or_skip, on_brokers};

on_brokers!(
    headers_of_every_codec,
    headers_of_transactions_and_their_ends,
    compaction_leaves_a_gap_that_the_header_shows,
    a_large_batch_costs_a_connection_and_no_memory,
    a_quota_makes_the_answer_inconclusive,
    metadata_finds_topics_and_creates_none,
    metadata_shows_a_partition_without_leader_and_bounds_say_why,
    offsets_by_time_and_by_trim,
    a_frozen_broker_is_silent_and_a_killed_one_closes,
    who_is_in_a_group_and_keeps_others_from_committing,
);

const LONG: Duration = Duration::from_secs(30);

fn connect(kafka: &Kafka) -> Wire {
    Wire::connect(kafka.address(0), "wire-tests", LONG, LONG).unwrap()
}

fn at(offset: i64) -> Offset {
    Offset::new(offset).unwrap()
}

#[track_caller]
fn batch(wire: &mut Wire, topic: &str, offset: i64) -> (i64, usize, Details) {
    match wire.batch_header(topic, 0, at(offset)) {
        Ok(Header::Batch(Batch { base, size, magic: 2, details: Some(details), .. })) => (base.get(), size, details),
        other => panic!("{topic} at {offset}: {other:?}"),
    }
}

fn headers_of_every_codec(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("codecs");
    // Where down-conversion is forbidden the kafka crate gets nothing; the header is read all the same.
    let old = version == Version::V3;
    kafka.tool().create(&topic, "1", if old { "message.downconversion.enable=false" } else { "" });
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    for codec in codecs {
        let value = [b'v'; 100];
        let message = Message { topic: &topic, value: Some(&value), ..Message::default() };
        kafka.tool().send(&format!("compression.type={codec}"), End::Plain, &[message; 10]);
    }
    let mut wire = connect(kafka);
    wire.require().unwrap();
    match wire.require_old_fetch() {
        Ok(()) => assert!(old),
        Err(fault) => assert!(!old && matches!(fault, Fault::TooNew { fetch_min: 4, .. }), "{fault}"),
    }
    for (n, codec) in codecs.into_iter().enumerate() {
        let base = 10 * n as i64;
        for offset in [base, base + 9] {
            let (found, size, details) = batch(&mut wire, &topic, offset);
            let expected = Details { last: at(base + 9), codec, transactional: false, control: false, count: 10 };
            assert_eq!((found, details), (base, expected));
            assert_eq!(size > 1000, codec == Codec::None, "{codec}: {size}");
        }
    }
    assert_eq!(wire.batch_header(&topic, 0, at(50)), Ok(Header::Nothing { high_watermark: at(50) }));
    assert_eq!(wire.batch_header(&topic, 0, at(51)), Ok(Header::OutOfRange));
    let unknown = Fault::Refused { call: "Fetch", code: "UnknownTopicOrPartition".into() };
    assert_eq!(wire.batch_header(&topic, 1, at(0)), Ok(Header::Refused(unknown.clone())));
    assert_eq!(wire.batch_header("no-such-topic", 0, at(0)), Ok(Header::Refused(unknown)));
    assert!(wire.is_open());
}

fn headers_of_transactions_and_their_ends(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("control");
    kafka.tool().create(&topic, "1", "");
    let configs = format!("enable.idempotence=true;transactional.id={topic};linger.ms=1000");
    for end in [End::Commit, End::Abort] {
        kafka.tool().produce(&Produce { end, configs: &configs, ..Produce::new(&topic, 5) });
    }
    let mut wire = connect(kafka);
    // The producer hears that the transaction has ended before its marker is in the log.
    let end = Ok(Header::Nothing { high_watermark: at(12) });
    eventually("the last marker is in the log", || wire.batch_header(&topic, 0, at(12)) == end);
    for (base, last, control, count) in [(0, 4, false, 5), (5, 5, true, 1), (6, 10, false, 5), (11, 11, true, 1)] {
        let expected = Details { last: at(last), codec: Codec::None, transactional: true, control, count };
        let (found, _, details) = batch(&mut wire, &topic, last);
        assert_eq!((found, details), (base, expected));
    }
}

fn compaction_leaves_a_gap_that_the_header_shows(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("compacted");
    let configs = "cleanup.policy=compact;min.cleanable.dirty.ratio=0.01;delete.retention.ms=0";
    kafka.tool().create(&topic, "1", &format!("{configs};{}", kafka.segment_bytes(300)));
    // Each round overwrites the one before; a batch a round, a segment every few rounds.
    for round in 0..8 {
        let value = format!("round {round}");
        let message =
            |key| Message { topic: &topic, key: Some(key), value: Some(value.as_bytes()), ..Message::default() };
        kafka.tool().send("", End::Plain, &[message(b"a"), message(b"b"), message(b"c")]);
    }
    let mut wire = connect(kafka);
    eventually("the cleaner has been there", || batch(&mut wire, &topic, 0).0 > 0);
    let (base, _, details) = batch(&mut wire, &topic, 0);
    assert_eq!((base % 3, details.last.get(), details.count), (0, base + 2, 3), "a whole batch is gone, or more");
    assert_eq!(wire.bounds(&[(Arc::from(&*topic), 0)]).unwrap(), [Ok(Bounds { log_start: at(0), log_end: at(24) })]);
}

fn a_large_batch_costs_a_connection_and_no_memory(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("large");
    kafka.tool().create(&topic, "1", "max.message.bytes=20000000");
    let size = 12_000_000;
    kafka.tool().produce(&Produce { size, ..Produce::new(&topic, 1) });
    let mut wire = connect(kafka);
    let (base, found, details) = batch(&mut wire, &topic, 0);
    assert_eq!((base, details.count), (0, 1));
    assert!((size..size + 100).contains(&found), "{found}");
    assert!(!wire.is_open());
}

fn a_quota_makes_the_answer_inconclusive(version: Version) {
    let kafka = Kafka::node_of(version, &[]);
    kafka.tool().create("quota", "1", "");
    kafka.tool().produce(&Produce::new("quota", 100));
    kafka.tool().configure("client", "throttled", "consumer_byte_rate=100");
    // The quota takes a moment to reach the broker; a throttled connection answers late.
    eventually("the broker throttles", || {
        let mut wire = Wire::connect(kafka.address(0), "throttled", LONG, LONG).unwrap();
        matches!(wire.batch_header("quota", 0, at(0)), Ok(Header::Inconclusive { throttle_ms: 1.. }))
    });
}

fn metadata_finds_topics_and_creates_none(version: Version) {
    let kafka = Kafka::shared_of(version);
    let (topic, typo) = (Kafka::name("exists"), Kafka::name("typo"));
    let id = kafka.tool().create(&topic, "3", "");
    let names = [typo.as_str(), &topic, "in/valid"].map(Arc::from);
    let mut wire = connect(kafka);
    let view = wire.metadata(&names).unwrap();
    assert_eq!(view.brokers, [(1, kafka.address(0).to_owned())]);
    assert_eq!(view.topics[0].partitions, Err(Fault::TopicMissing { topic: typo.clone() }));
    assert_eq!(view.topics[1].id.unwrap().to_string(), id);
    let partitions = view.topics[1].partitions.as_ref().unwrap();
    assert_eq!(partitions.iter().map(|p| p.partition).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(partitions.iter().all(|p| p.leader.as_deref() == Some(kafka.address(0))));
    let invalid = Fault::Refused { call: "Metadata", code: "InvalidTopicException".into() };
    assert_eq!(view.topics[2].partitions, Err(invalid));
    assert!(!kafka.tool().topics().contains(&typo), "the node would create it: auto.create.topics.enable is on");
    assert_eq!(wire.metadata(&[]).unwrap().topics, []);
}

fn metadata_shows_a_partition_without_leader_and_bounds_say_why(version: Version) {
    let kafka = Kafka::cluster_of(version, 3);
    let tool = kafka.tool();
    // With two replicas of which both must be in sync, the loss of nodes 2 and 3 would end the
    // quorum too: so the one replica of partition 1 is on node 2, and only that one is killed.
    tool.create("leaderless", "1;2", "min.insync.replicas=1");
    tool.produce(&Produce::new("leaderless", 4));
    let names = [Arc::from("leaderless")];
    let mut wire = connect(&kafka);
    let view = wire.metadata(&names).unwrap();
    let leaders = |view: &worker::wire::ClusterView| -> Vec<Option<String>> {
        view.topics[0].partitions.as_ref().unwrap().iter().map(|p| p.leader.clone()).collect()
    };
    assert_eq!(leaders(&view), [Some(kafka.address(0).to_owned()), Some(kafka.address(1).to_owned())]);
    let bounds = wire.bounds(&[(names[0].clone(), 0), (names[0].clone(), 1)]).unwrap();
    assert_eq!(bounds[0], Ok(Bounds { log_start: at(0), log_end: at(4) }));
    let refused = Fault::Refused { call: "ListOffsets", code: "NotLeaderOrFollower".into() };
    assert_eq!(bounds[1], Err(refused));

    kafka.kill(1);
    eventually("it is noticed", || leaders(&wire.metadata(&names).unwrap())[1].is_none());
    assert_eq!(leaders(&wire.metadata(&names).unwrap())[0].as_deref(), Some(kafka.address(0)));
}

fn offsets_by_time_and_by_trim(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("times");
    kafka.tool().create(&topic, "2", "retention.ms=-1");
    for timestamp_ms in [1000, 2000, 3000] {
        let message = Message { topic: &topic, timestamp_ms: Some(timestamp_ms), ..Message::default() };
        kafka.tool().send("", End::Plain, &[message; 2]);
    }
    let partitions = [(Arc::from(&*topic), 1), (Arc::from(&*topic), 0)];
    let mut wire = connect(kafka);
    assert_eq!(wire.at_time(&partitions, 1500).unwrap(), [Ok(None), Ok(Some(at(2)))]);
    assert_eq!(wire.at_time(&partitions, 3001).unwrap(), [Ok(None), Ok(None)]);
    kafka.tool().trim(&topic, 0, 3);
    let empty = Bounds { log_start: at(0), log_end: at(0) };
    let trimmed = Bounds { log_start: at(3), log_end: at(6) };
    assert_eq!(wire.bounds(&partitions).unwrap(), [Ok(empty), Ok(trimmed)]);
    assert_eq!(wire.batch_header(&topic, 0, at(2)), Ok(Header::OutOfRange));
    // The batch is kept whole: it begins below the log start.
    assert_eq!(batch(&mut wire, &topic, 3).0, 2);
}

fn a_frozen_broker_is_silent_and_a_killed_one_closes(version: Version) {
    let kafka = Kafka::node_of(version, &[]);
    let mut asked = Wire::connect(kafka.address(0), "wire-tests", LONG, Duration::from_millis(500)).unwrap();
    asked.metadata(&[]).unwrap();
    let mut idle = connect(&kafka);
    idle.metadata(&[]).unwrap();
    kafka.freeze(0);
    assert!(matches!(asked.metadata(&[]), Err(Fault::Silent { call: "Metadata", .. })));
    kafka.thaw(0);
    kafka.kill(0);
    assert!(matches!(idle.metadata(&[]), Err(Fault::Broken { .. })));
    let gone = Wire::connect(kafka.address(0), "wire-tests", LONG, LONG);
    assert!(matches!(gone, Err(Fault::Unreachable { .. })), "{gone:?}");
}

#[test]
fn listeners_with_tls_and_sasl_are_told_apart() {
    kafka_or_skip!(());
    let store = std::env::temp_dir().join(format!("worker-tests-{}.p12", std::process::id()));
    let made = Command::new("keytool")
        .args("-genkeypair -alias a -keyalg EC -dname CN=localhost -storetype PKCS12 -storepass secret".split(' '))
        .arg("-keystore")
        .arg(&store)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let [tls, sasl] = free_ports(2).try_into().unwrap();
    let own = "PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@";
    let listeners = format!("{own},SSL://127.0.0.1:{tls},SASL_PLAINTEXT://127.0.0.1:{sasl}");
    let kafka = Kafka::node(&[
        ("listeners", &listeners),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        ),
        ("ssl.keystore.location", store.to_str().unwrap()),
        ("ssl.keystore.password", "secret"),
        ("ssl.keystore.type", "PKCS12"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        (
            "listener.name.sasl_plaintext.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_a=\"b\";",
        ),
    ]);
    let told = |port: u16| {
        let answer = Wire::connect(&format!("127.0.0.1:{port}"), "wire-tests", LONG, LONG)
            .and_then(|mut wire| wire.metadata(&[Arc::from("t")]));
        match answer {
            Err(fault @ Fault::NotKafka { .. }) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let (tls, sasl) = (told(tls), told(sasl));
    connect(&kafka).metadata(&[]).unwrap();
    std::fs::remove_file(&store).unwrap();
    assert!(tls.contains("TLS listener"), "{tls}");
    assert!(sasl.contains("SASL listener"), "{sasl}");
}

/// Members of the classic protocol and, on Kafka 4, of the new one (KIP-848).
fn who_is_in_a_group_and_keeps_others_from_committing(version: Version) {
    let kafka = Kafka::shared_of(version);
    let topic = Kafka::name("who");
    kafka.tool().create(&topic, "1", "");
    kafka.tool().produce(&Produce::new(&topic, 10));
    let mut protocols = vec![Version::V3.member(), version.member()];
    protocols.dedup();
    let partition = TopicPartition::new(Arc::from(&*topic), 0);
    for protocol in protocols {
        let group = Kafka::name("who");
        let mut wire = connect(kafka);
        // The first question of all has the broker make the topic of the offsets.
        eventually("the group has a coordinator", || wire.coordinator(&group).as_deref() == Ok(kafka.address(0)));
        assert_eq!(wire.members(&group), Ok(Vec::new()), "{protocol}: a group that does not exist");
        let id = kafka.tool().join(&group, &group, &topic, protocol);
        let members = wire.members(&group).unwrap();
        let [member] = members.as_slice() else { panic!("{protocol}: {members:?}") };
        assert_eq!((&*member.id, &*member.client_id), (&*id, "tool"), "{protocol}");
        assert!(member.host.contains("127.0.0.1"), "{protocol}: {member:?}");
        kafka.await_committed(&group, &topic, 0, 10);

        match wire.commit(&group, &[(partition.clone(), at(3))], "") {
            Err(Fault::GroupHasMembers { code, .. }) => assert_eq!(code, "UnknownMemberId", "{protocol}"),
            other => panic!("{protocol}: {other:?}"),
        }
        let committed =
            |wire: &mut Wire| wire.committed(&group, std::slice::from_ref(&partition)).unwrap().remove(0).unwrap();
        assert_eq!(committed(&mut wire).offset, at(10), "{protocol}: it stays");
        kafka.tool().leave(&group);
        assert_eq!(wire.members(&group), Ok(Vec::new()), "{protocol}: it has left");
        wire.commit(&group, &[(partition.clone(), at(3))], "told").unwrap();
        assert_eq!(committed(&mut wire), Committed { offset: at(3), metadata: "told".to_owned() }, "{protocol}");
        assert_eq!(kafka.committed(&group, &topic, 0), Some(3), "{protocol}");
    }
}
