//! Topics and leaders: with the `kafka` crate, and over the wire in every version.

use broker::{Options, Server};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::support::{NONE, Wire, client, fetch_from, server, three_brokers};

fn named(name: &'static str) -> MetadataRequest {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
    MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false)
}

#[test]
fn row_16_asking_for_a_missing_topic_creates_it() {
    let server = server();
    let mut client = client(&server);
    client.load_metadata(&["typo"]).unwrap();
    assert_eq!(server.auto_created(), ["typo"]);
    let partitions = |client: &kafka::client::KafkaClient| client.topics().partitions("typo").unwrap().len();
    assert_eq!(partitions(&client), 0, "the first answer does not have them yet");
    client.load_metadata(&["typo"]).unwrap();
    assert_eq!(partitions(&client), 1);
    assert_eq!(server.auto_created(), ["typo"]);

    let strict = Server::start(Options { auto_create_topics: false, ..Options::default() }).unwrap();
    let mut client = crate::support::client(&strict);
    client.load_metadata(&["typo"]).unwrap();
    assert_eq!(strict.auto_created(), [""; 0]);
}

#[test]
fn every_version_says_the_same() {
    let server = three_brokers();
    let mut wire = Wire::to(&server, 0);
    for version in 4..=12 {
        let answer = wire.call(version, &named("t")).unwrap();
        assert_eq!(answer.brokers.len(), 3);
        assert!(answer.brokers.iter().all(|broker| broker.host.as_str() == "127.0.0.1"));
        let ports: Vec<String> = answer.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        assert_eq!(ports, server.bootstrap());
        let [topic] = &answer.topics[..] else { panic!("one topic") };
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
        let leaders: Vec<i32> = topic.partitions.iter().map(|partition| partition.leader_id.0).collect();
        assert_eq!(leaders, [0, 1, 2]);
        let id = if version >= 10 { server.topic_id("t").unwrap() } else { [0; 16] };
        assert_eq!(topic.topic_id.as_bytes(), &id);

        let missing = wire.call(version, &named("missing")).unwrap();
        assert_eq!(missing.topics[0].error_code, 3);
        let invalid = wire.call(version, &named("in/valid")).unwrap();
        assert_eq!(invalid.topics[0].error_code, 17);
        let all = wire.call(version, &MetadataRequest::default().with_topics(None)).unwrap();
        assert_eq!(all.topics.len(), 1);
        let none = wire.call(version, &MetadataRequest::default()).unwrap();
        assert_eq!(none.topics.len(), 0);
    }
    assert_eq!(server.auto_created(), [""; 0]);
    // In version 12 a topic can be asked for by its id.
    let id = wire.call(12, &named("t")).unwrap().topics[0].topic_id;
    let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let by_id = MetadataRequest::default().with_topics(Some(vec![topic]));
    let answer = wire.call(12, &by_id).unwrap();
    assert_eq!(answer.topics[0].name.as_ref().unwrap().as_str(), "t");
    server.delete_topic("t");
    assert_eq!(wire.call(12, &by_id).unwrap().topics[0].error_code, 100);
}

#[test]
fn a_topic_that_is_created_anew_has_another_id() {
    let server = server();
    let first = server.topic_id("t");
    server.delete_topic("t");
    assert_eq!(server.topic_id("t"), None);
    server.create_topic("t", 1).unwrap();
    assert!(server.topic_id("t").is_some_and(|id| Some(id) != first));
    assert!(server.create_topic("t", 1).is_err());
}

#[test]
fn partitions_are_added_and_leaders_move() {
    let server = three_brokers();
    let mut client = client(&server);
    server.add_partitions("t", 1).unwrap();
    client.load_metadata(&["t"]).unwrap();
    assert_eq!(client.topics().partitions("t").unwrap().len(), 4);

    server.append("t", 1, &[("k", "v")], broker::Codec::None).unwrap();
    assert_eq!(fetch_from(&mut client, 1, 0, 1000).unwrap(), [0]);
    server.move_leader("t", 1, Some(2)).unwrap();
    assert!(matches!(
        fetch_from(&mut client, 1, 0, 1000),
        Err(kafka::Error::Kafka(kafka::error::KafkaCode::NotLeaderForPartition))
    ));
    client.load_metadata(&["t"]).unwrap();
    assert_eq!(fetch_from(&mut client, 1, 0, 1000).unwrap(), [0]);

    // Row 10: without a leader the crate leaves the partition out, and says nothing.
    server.move_leader("t", 1, None).unwrap();
    client.load_metadata(&["t"]).unwrap();
    assert!(client.topics().partitions("t").unwrap().partition(1).unwrap().leader().is_none());
    assert_eq!(fetch_from(&mut client, 1, 0, 1000).unwrap(), NONE);
    let answer = Wire::to(&server, 0).call(4, &named("t")).unwrap();
    let partition = &answer.topics[0].partitions[1];
    assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
}
