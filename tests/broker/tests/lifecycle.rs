//! Waiting, stopping, starting, ending.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use broker::{Api, Codec, Fault};
use kafka::client::KafkaClient;

use crate::support::{ALL, LONG, Wire, client, fetch, fetch_from, server, three_brokers};

#[test]
fn a_waiting_fetch_is_woken_by_an_append_and_by_nothing_else() {
    let server = server();
    let mut waiting = client(&server);
    waiting.set_fetch_max_wait_time(Duration::from_secs(60)).unwrap();
    let (send, receive) = mpsc::channel();
    let thread = thread::spawn(move || send.send((fetch(&mut waiting, 0, ALL), Instant::now())).unwrap());
    assert!(server.await_requests(Api::Fetch, 1, LONG));
    // Other requests do not end the wait.
    client(&server).commit_offset("g", "t", 0, 1).unwrap();
    assert!(receive.try_recv().is_err());
    let appended = Instant::now();
    server.append("t", 0, &[("k", "v")], Codec::None).unwrap();
    let (offsets, at) = receive.recv_timeout(LONG).unwrap();
    assert_eq!(offsets.unwrap(), [0]);
    assert!(at.duration_since(appended) < LONG);
    thread.join().unwrap();
}

#[test]
fn a_fetch_waits_its_time_for_the_bytes_it_wants() {
    let server = server();
    server.append("t", 0, &[("k", "v")], Codec::None).unwrap();
    let mut client = client(&server);
    client.set_fetch_max_wait_time(Duration::from_millis(150)).unwrap();
    client.set_fetch_min_bytes(1 << 16);
    let start = Instant::now();
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0], "what there is, when the time is over");
    assert!(start.elapsed() >= Duration::from_millis(150));
    // An error is never waited for.
    client.set_fetch_max_wait_time(Duration::from_secs(60)).unwrap();
    let start = Instant::now();
    assert!(fetch(&mut client, 99, ALL).is_err());
    assert!(start.elapsed() < LONG);
}

#[test]
fn row_6_a_restarted_broker_has_its_port_again_and_old_connections_stay_dead() {
    let server = three_brokers();
    server.append("t", 1, &[("k", "v")], Codec::None).unwrap();
    let mut old = client(&server);
    assert_eq!(fetch_from(&mut old, 1, 0, ALL).unwrap(), [0]);
    let addresses = server.bootstrap();

    server.stop(1).unwrap();
    assert!(std::net::TcpStream::connect(&addresses[1]).is_err());
    assert!(fetch_from(&mut old, 1, 0, ALL).is_err());
    let mut wire = Wire::to(&server, 0);
    let answer = wire.call(4, &kafka_protocol::messages::MetadataRequest::default().with_topics(None)).unwrap();
    assert_eq!(answer.brokers.len(), 2);
    let leaders: Vec<i32> = answer.topics[0].partitions.iter().map(|partition| partition.leader_id.0).collect();
    assert_eq!(leaders, [0, -1, 2]);

    server.start_again(1).unwrap();
    assert_eq!(server.bootstrap(), addresses);
    for _ in 0..3 {
        assert!(fetch_from(&mut old, 1, 0, ALL).is_err());
    }
    assert_eq!(fetch_from(&mut client(&server), 1, 0, ALL).unwrap(), [0]);
}

#[test]
fn dropping_a_server_ends_waiting_hanging_and_idle_connections() {
    let server = three_brokers();
    let _idle = client(&server);
    server.on(Api::ListOffsets, Fault::Hang);
    server.on(Api::OffsetFetch, Fault::Delay(Duration::from_secs(3600)));
    let spawn = |call: fn(&mut KafkaClient) -> bool| {
        let mut client = client(&server);
        client.set_fetch_max_wait_time(Duration::from_secs(3600)).unwrap();
        thread::spawn(move || call(&mut client))
    };
    let threads = [
        spawn(|client| fetch(client, 0, ALL).is_err()),
        spawn(|client| client.fetch_topic_offsets("t", kafka::client::FetchOffset::Latest).is_err()),
        spawn(|client| client.fetch_group_topic_offset("g", "t").is_err()),
    ];
    for api in [Api::Fetch, Api::ListOffsets, Api::OffsetFetch] {
        assert!(server.await_requests(api, 1, LONG));
    }
    let addresses = server.bootstrap();
    server.shutdown().expect("all threads of the broker end");
    for thread in threads {
        assert!(thread.join().unwrap(), "its client got an error");
    }
    for address in addresses {
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
