//! Each fault, as its client sees it.

use std::io::Read;
use std::time::{Duration, Instant};

use broker::{Api, Codec, Fault, Order, Server};
use kafka::Error;
use kafka::client::FetchPartition;
use kafka::error::KafkaCode;
use kafka_protocol::messages::ApiVersionsRequest;

use crate::support::{ALL, LONG, Wire, client, fetch, fetch_from, server, three_brokers};

fn with_a_record() -> Server {
    let server = server();
    server.append("t", 0, &[("k", "v")], Codec::None).unwrap();
    server
}

/// The bytes that come for an ApiVersions request, until the connection is closed.
fn bytes_for_api_versions(server: &Server) -> Vec<u8> {
    let mut wire = Wire::to(server, 0);
    wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
    let mut bytes = Vec::new();
    drop(wire.0.read_to_end(&mut bytes));
    bytes
}

#[test]
fn an_order_strikes_as_often_as_it_says() {
    let server = with_a_record();
    let mut client = client(&server);
    let storage = |result: kafka::Result<Vec<i64>>| matches!(result, Err(Error::Kafka(KafkaCode::Unknown)));
    let once = server.on(Api::Fetch, Fault::Error(56));
    assert!(server.is_pending(once));
    assert!(storage(fetch(&mut client, 0, ALL)));
    assert!(!server.is_pending(once));
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0]);

    server.order(Order::new(Api::Fetch, Fault::Error(56)).after(1).times(2));
    let struck: Vec<bool> = (0..4).map(|_| storage(fetch(&mut client, 0, ALL))).collect();
    assert_eq!(struck, [false, true, true, false]);

    let always = server.order(Order::new(Api::Fetch, Fault::Error(56)).always());
    assert!((0..5).all(|_| storage(fetch(&mut client, 0, ALL))));
    server.cancel(always);
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0]);

    // Two orders of one scope strike one after the other; other requests are left alone.
    server.on(Api::Fetch, Fault::Error(56));
    server.on(Api::Fetch, Fault::Error(6));
    assert!(storage(fetch(&mut client, 0, ALL)));
    client.load_metadata(&["t"]).unwrap();
    assert!(matches!(fetch(&mut client, 0, ALL), Err(Error::Kafka(KafkaCode::NotLeaderForPartition))));
    assert_eq!(server.requests(Api::Fetch), 14);
}

#[test]
fn an_order_is_for_one_broker_or_one_partition() {
    let server = three_brokers();
    for partition in 0..3 {
        server.append("t", partition, &[("k", "v")], Codec::None).unwrap();
    }
    let mut client = client(&server);
    server.order(Order::new(Api::Fetch, Fault::Error(56)).broker(1).always());
    server.order(Order::new(Api::Fetch, Fault::Error(3)).partition("t", 2).always());
    server.order(Order::new(Api::Fetch, Fault::CloseUnserved).topic("other").always());
    assert_eq!(fetch_from(&mut client, 0, 0, ALL).unwrap(), [0]);
    assert!(matches!(fetch_from(&mut client, 1, 0, ALL), Err(Error::Kafka(KafkaCode::Unknown))));
    assert!(matches!(fetch_from(&mut client, 2, 0, ALL), Err(Error::Kafka(KafkaCode::UnknownTopicOrPartition))));
}

#[test]
fn an_error_of_one_partition_leaves_the_others_of_its_request_alone() {
    let server = server();
    server.add_partitions("t", 1).unwrap();
    for partition in 0..2 {
        server.append("t", partition, &[("k", "v")], Codec::None).unwrap();
    }
    let mut client = client(&server);
    server.order(Order::new(Api::Fetch, Fault::Error(1)).partition("t", 1));
    let answers = client.fetch_messages(&[FetchPartition::new("t", 0, 0), FetchPartition::new("t", 1, 0)]).unwrap();
    for partition in answers[0].topics()[0].partitions() {
        assert_eq!(partition.data().is_ok(), partition.partition() == 0);
    }
}

#[test]
fn a_connection_is_closed_before_or_after_the_work() {
    let server = with_a_record();
    for (fault, stored) in [(Fault::CloseUnserved, None), (Fault::CloseServed, Some(5))] {
        server.on(Api::OffsetCommit, fault);
        assert!(matches!(client(&server).commit_offset("g", "t", 0, 5), Err(Error::Io(_))));
        assert_eq!(server.committed("g", "t", 0), stored);
    }
}

#[test]
fn an_answer_is_cut_off() {
    let server = with_a_record();
    let whole = {
        let mut wire = Wire::to(&server, 0);
        wire.call(0, &ApiVersionsRequest::default()).unwrap();
        wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
        wire.receive().unwrap().len() + 4
    };
    for bytes in [0, 3, 4, 11, whole - 1] {
        server.on(Api::ApiVersions, Fault::Truncate(bytes));
        assert_eq!(bytes_for_api_versions(&server).len(), bytes);
    }
    server.on(Api::Fetch, Fault::Truncate(20));
    assert!(matches!(fetch(&mut client(&server), 0, ALL), Err(Error::Io(_))));
}

#[test]
fn something_else_answers_at_the_port() {
    let server = with_a_record();
    server.order(Order::any(Fault::http()));
    assert!(bytes_for_api_versions(&server).starts_with(b"HTTP/1.1 400"));
    server.order(Order::any(Fault::tls_alert()));
    assert_eq!(bytes_for_api_versions(&server), [0x15, 3, 3, 0, 2, 2, 10]);
    server.order(Order::any(Fault::random(100, 1)));
    server.order(Order::any(Fault::random(100, 2)));
    let (one, two) = (bytes_for_api_versions(&server), bytes_for_api_versions(&server));
    assert_eq!((one.len(), two.len()), (100, 100));
    assert_ne!(one, two);
    assert!(one[0] & 0x80 == 0, "a length that is not negative");
}

#[test]
fn lengths_counts_and_correlation_ids_lie() {
    let server = with_a_record();
    server.on(Api::ApiVersions, Fault::Length(i32::MAX));
    let mut wire = Wire::to(&server, 0);
    wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
    let mut head = [0; 8];
    wire.0.read_exact(&mut head).unwrap();
    assert_eq!(head, [0x7f, 255, 255, 255, 0, 0, 0, 5]);

    server.on(Api::ApiVersions, Fault::Count(i32::MAX));
    let mut wire = Wire::to(&server, 0);
    wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
    assert_eq!(wire.receive().unwrap()[..10], [0, 0, 0, 5, 0, 0, 0x7f, 255, 255, 255]);
    // In a flexible version: Metadata 9 of no topics; correlation id, tags, throttle time, count.
    server.on(Api::Metadata, Fault::Count(1000));
    wire.send(&[0, 3, 0, 9, 0, 0, 0, 6, 255, 255, 0, 1, 0, 0, 0, 0]);
    assert_eq!(wire.receive().unwrap()[..11], [0, 0, 0, 6, 0, 0, 0, 0, 0, 0xe9, 0x07]);

    // Row 15: the crate does not compare; the response says which one it is.
    let mut client = client(&server);
    let id = |client: &mut kafka::client::KafkaClient| {
        client.fetch_messages(&[FetchPartition::new("t", 0, 0)]).unwrap()[0].correlation_id()
    };
    let first = id(&mut client);
    server.on(Api::Fetch, Fault::CorrelationId(-1));
    assert_eq!(id(&mut client), first);
    assert_eq!(id(&mut client), first + 2);
}

#[test]
fn an_answer_is_late_or_never_comes() {
    let server = with_a_record();
    let mut client = client(&server);
    server.on(Api::Fetch, Fault::Delay(Duration::from_millis(120)));
    let start = Instant::now();
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0]);
    assert!(start.elapsed() >= Duration::from_millis(120));

    server.on(Api::ApiVersions, Fault::Hang);
    let mut wire = Wire::to(&server, 0);
    wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
    assert!(server.await_requests(Api::ApiVersions, 1, LONG));
    wire.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = wire.0.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "open, and silent");
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0], "other connections go on");
}

#[test]
fn row_17_a_throttled_answer_has_no_topics() {
    let server = with_a_record();
    let mut client = client(&server);
    server.on(Api::Fetch, Fault::Throttled);
    assert_eq!(client.fetch_messages(&[FetchPartition::new("t", 0, 0)]).unwrap()[0].topics().len(), 0);
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0]);
}

#[test]
fn metadata_comes_without_leaders_or_with_errors() {
    let server = with_a_record();
    let mut client = client(&server);
    server.on(Api::Metadata, Fault::NoLeader);
    client.load_metadata(&["t"]).unwrap();
    assert!(client.topics().partitions("t").unwrap().partition(0).unwrap().leader().is_none());
    server.on(Api::Metadata, Fault::Error(29));
    let mut wire = Wire::to(&server, 0);
    let request = kafka_protocol::messages::MetadataRequest::default().with_topics(None);
    let answer = wire.call(4, &request).unwrap();
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (29, 0));
    client.load_metadata(&["t"]).unwrap();
    assert!(client.topics().partitions("t").unwrap().partition(0).unwrap().leader().is_some());
}

#[test]
fn a_checksum_is_damaged() {
    let server = with_a_record();
    let mut client = client(&server);
    client.set_fetch_crc_validation(true);
    server.on(Api::Fetch, Fault::Checksum);
    assert!(matches!(fetch(&mut client, 0, ALL), Err(Error::Kafka(KafkaCode::CorruptMessage))));
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0]);
    client.set_fetch_crc_validation(false);
    server.on(Api::Fetch, Fault::Checksum);
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0], "only the checksum is damaged");
}

#[test]
fn an_answer_is_longer_than_it_should_be() {
    let server = with_a_record();
    let mut wire = Wire::to(&server, 0);
    let mut length = || {
        wire.send(&[0, 18, 0, 0, 0, 0, 0, 5, 255, 255]);
        wire.receive().unwrap().len()
    };
    let right = length();
    server.on(Api::ApiVersions, Fault::Oversized(1 << 20));
    assert_eq!(length(), right + (1 << 20));
    assert_eq!(length(), right);
}

#[test]
fn an_order_is_for_one_group() {
    let server = with_a_record();
    let mut client = client(&server);
    client.set_retry_max_attempts(1);
    server.order(Order::new(Api::FindCoordinator, Fault::Error(15)).group("g").always());
    assert!(client.commit_offset("g", "t", 0, 1).is_err());
    client.commit_offset("other", "t", 0, 1).unwrap();
}

#[test]
fn connections_are_broken_while_the_broker_goes_on() {
    let server = with_a_record();
    let mut old = client(&server);
    assert_eq!(fetch(&mut old, 0, ALL).unwrap(), [0]);
    server.disconnect(0);
    assert!(fetch(&mut old, 0, ALL).is_err());
    assert_eq!(fetch(&mut client(&server), 0, ALL).unwrap(), [0]);
}
