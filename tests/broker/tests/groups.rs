//! Offsets of groups, with the `kafka` crate.

use broker::server::Member;
use broker::{Api, Fault, Order};
use kafka::Error;
use kafka::error::KafkaCode;

use crate::support::{LONG, client, server, three_brokers};

#[test]
fn committed_offsets_are_read_back_and_go_with_their_topic() {
    let server = three_brokers();
    let mut client = client(&server);
    let read = |client: &mut kafka::client::KafkaClient| {
        let mut offsets = client.fetch_group_topic_offset("g", "t").unwrap();
        offsets.sort_by_key(|offset| offset.partition);
        offsets.iter().map(|offset| offset.offset).collect::<Vec<_>>()
    };
    assert_eq!(read(&mut client), [-1, -1, -1]);
    client.commit_offset("g", "t", 1, 42).unwrap();
    assert_eq!(server.committed("g", "t", 1), Some(42));
    assert_eq!(server.committed("other", "t", 1), None);
    server.set_committed("g", "t", 2, Some(7));
    assert_eq!(read(&mut client), [-1, 42, 7]);
    server.set_committed("g", "t", 1, None);
    assert_eq!(read(&mut client), [-1, -1, 7]);
    server.delete_topic("t");
    server.create_topic("t", 3).unwrap();
    assert_eq!(read(&mut client), [-1, -1, -1]);
}

#[test]
fn row_21_a_group_with_members_refuses_a_commit_from_outside() {
    let server = server();
    let mut client = client(&server);
    server.set_members("g", vec![Member { id: "old-1".to_owned(), ..Member::default() }]);
    assert!(matches!(client.commit_offset("g", "t", 0, 1), Err(Error::Kafka(KafkaCode::UnknownMemberId))));
    assert_eq!(server.committed("g", "t", 0), None);
    server.set_members("g", Vec::new());
    client.commit_offset("g", "t", 0, 1).unwrap();
    assert!(server.await_committed("g", "t", 0, 1, LONG));
}

#[test]
fn another_broker_than_the_coordinator_refuses() {
    let server = three_brokers();
    let mut client = client(&server);
    server.move_coordinator("g", 1);
    client.commit_offset("g", "t", 0, 1).unwrap();
    // The client still asks broker 1, is refused, looks the coordinator up, and comes through.
    server.move_coordinator("g", 2);
    client.commit_offset("g", "t", 0, 2).unwrap();
    assert_eq!(server.committed("g", "t", 0), Some(2));
    assert_eq!(server.requests(Api::FindCoordinator), 2);
    assert_eq!(server.requests(Api::OffsetCommit), 3);
}

#[test]
fn errors_of_the_coordinator_are_ordered_by_code() {
    let server = server();
    let mut client = client(&server);
    client.set_retry_max_attempts(2);
    server.order(Order::new(Api::FindCoordinator, Fault::Error(15)).times(2));
    assert!(matches!(client.commit_offset("g", "t", 0, 1), Err(Error::Kafka(KafkaCode::GroupCoordinatorNotAvailable))));
    // Loading is waited for by the crate itself.
    server.on(Api::OffsetCommit, Fault::Error(14));
    client.commit_offset("g", "t", 0, 1).unwrap();
    server.on(Api::OffsetCommit, Fault::Error(16));
    client.commit_offset("g", "t", 0, 2).unwrap();
    server.on(Api::OffsetCommit, Fault::Error(22));
    assert!(matches!(client.commit_offset("g", "t", 0, 3), Err(Error::Kafka(KafkaCode::IllegalGeneration))));
    server.on(Api::OffsetFetch, Fault::Error(30));
    assert!(matches!(
        client.fetch_group_topic_offset("g", "t"),
        Err(Error::Kafka(KafkaCode::GroupAuthorizationFailed))
    ));
    assert_eq!(server.committed("g", "t", 0), Some(2), "what was refused was not stored");
}

#[test]
fn a_commit_of_a_generation_that_is_over_is_refused() {
    let server = server();
    let mut wire = crate::support::Wire::to(&server, 0);
    // OffsetCommit 1 of partition 0 of t: generation, member "m", offset 9.
    let mut commit = |generation: i8| {
        let mut bytes = vec![0, 8, 0, 1, 0, 0, 0, 1, 255, 255, 0, 1, b'g'];
        bytes.extend(i32::from(generation).to_be_bytes());
        bytes.extend([0, 1, b'm', 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 9, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0]);
        wire.send(&bytes);
        let answer = wire.receive().unwrap();
        answer[answer.len() - 2..].to_vec()
    };
    assert_eq!(commit(-1), [0, 0]);
    assert_eq!(commit(3), [0, 25]);
    server.set_members("g", vec![Member { id: "m".to_owned(), ..Member::default() }]);
    assert_eq!(commit(3), [0, 0]);
}
