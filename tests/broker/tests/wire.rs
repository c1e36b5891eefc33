//! Batches and versions over a bare socket, and requests that are none.

use std::io::{Read, Write};

use broker::log::Marker;
use broker::server::Member;
use broker::{Api, Codec, NewRecord, Versions};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, DescribeGroupsRequest, FetchRequest, GroupId, ListOffsetsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;

use crate::support::{ALL, Wire, client, fetch, server};

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn fetch_4(position: i64, max_bytes: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(position).with_partition_max_bytes(max_bytes);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(max_bytes)
        .with_topics(vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![partition])])
}

fn batch_at(wire: &mut Wire, position: i64, max_bytes: i32) -> Bytes {
    let answer = wire.call(4, &fetch_4(position, max_bytes)).unwrap();
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.clone().unwrap_or_default()
}

#[test]
fn fetch_4_gives_the_first_batch_whole_and_a_stranger_reads_it() {
    let server = server();
    let record = |key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms| NewRecord {
        timestamp_ms,
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
    };
    server
        .with_log("t", 0, |log| {
            let records =
                [record(Some(b"k"), Some(b"v"), 500), record(None, None, 499), record(Some(b""), Some(b""), 900)];
            log.append(records, Codec::None);
            log.append_control(Marker::Abort, 0);
            log.append([record(None, Some(&[7; 300]), 1)], Codec::Lz4);
        })
        .unwrap();
    let mut wire = Wire::to(&server, 0);
    let mut bytes = batch_at(&mut wire, 1, 1);
    assert_eq!(bytes, server.with_log("t", 0, |log| log.batches()[0].encoded().to_vec()).unwrap());
    let set = RecordBatchDecoder::decode(&mut bytes).expect("kafka-protocol checks the checksum, too");
    let found: Vec<_> = set
        .records
        .iter()
        .map(|record| (record.offset, record.timestamp, record.key.as_deref(), record.value.as_deref()))
        .collect();
    assert_eq!(
        found,
        [(0, 500, Some(&b"k"[..]), Some(&b"v"[..])), (1, 499, None, None), (2, 900, Some(&b""[..]), Some(&b""[..])),]
    );
    let control = RecordBatchDecoder::decode(&mut batch_at(&mut wire, 3, 1)).unwrap();
    assert!(control.records[0].control && control.records[0].transactional);
    assert_eq!(control.records[0].key.as_deref(), Some(&[0, 0, 0, 0][..]), "an abort marker");
    let lz4 = batch_at(&mut wire, 4, 1);
    assert_eq!((lz4[16], lz4[22] & 7), (2, 3));
    // With room for more, a batch may come cut off.
    let both = batch_at(&mut wire, 0, ALL);
    let first = server.with_log("t", 0, |log| log.batches()[0].size()).unwrap();
    let cut = i32::try_from(first + 10).unwrap();
    assert_eq!(batch_at(&mut wire, 0, cut), both[..first + 10]);
    // Down-conversion does not concern it, and a position outside is an error here, too.
    server.set_down_conversion("t", false).unwrap();
    assert_eq!(batch_at(&mut wire, 0, ALL), both);
    let outside = wire.call(4, &fetch_4(99, 1)).unwrap();
    let outside = &outside.responses[0].partitions[0];
    assert_eq!((outside.error_code, outside.high_watermark), (1, -1));
}

#[test]
fn offsets_are_listed_by_time() {
    let server = server();
    server
        .with_log("t", 0, |log| {
            for timestamp_ms in [100, 200, 300] {
                log.append([NewRecord { timestamp_ms, ..NewRecord::default() }], Codec::Gzip);
            }
            log.delete_records(1);
        })
        .unwrap();
    let mut wire = Wire::to(&server, 0);
    for (timestamp, expected) in [(-2, (-1, 1)), (-1, (-1, 3)), (0, (200, 1)), (201, (300, 2)), (301, (-1, -1))] {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition])]);
        let answer = wire.call(1, &request).unwrap();
        let found = &answer.topics[0].partitions[0];
        assert_eq!((found.timestamp, found.offset), expected, "at {timestamp}");
    }
}

#[test]
fn groups_are_described() {
    let server = server();
    server.set_committed("empty", "t", 0, Some(1));
    let member = Member { id: "m-1".to_owned(), client_id: "old".to_owned(), host: "/10.0.0.1".to_owned() };
    server.set_members("live", vec![member]);
    let groups = ["none", "empty", "live"].map(|name| GroupId(StrBytes::from_static_str(name)));
    let answer = Wire::to(&server, 0).call(0, &DescribeGroupsRequest::default().with_groups(groups.to_vec())).unwrap();
    let found: Vec<_> =
        answer.groups.iter().map(|group| (group.error_code, group.group_state.as_str(), group.members.len())).collect();
    assert_eq!(found, [(0, "Dead", 0), (0, "Empty", 0), (0, "Stable", 1)]);
    assert_eq!(answer.groups[2].members[0].client_id.as_str(), "old");
}

#[test]
fn a_version_that_is_not_offered_closes_the_connection() {
    let server = server();
    server.append("t", 0, &[("k", "v")], Codec::None).unwrap();
    let range = |wire: &mut Wire, api: Api| {
        let answer = wire.call(0, &ApiVersionsRequest::default()).unwrap();
        let found = answer.api_keys.iter().find(|found| found.api_key == api as i16).unwrap();
        (found.min_version, found.max_version)
    };
    let mut wire = Wire::to(&server, 0);
    assert_eq!(range(&mut wire, Api::Fetch), (0, 4));
    let mut old = client(&server);
    assert_eq!(fetch(&mut old, 0, ALL).unwrap(), [0]);

    server.set_versions(Versions::kafka_4());
    assert_eq!(range(&mut wire, Api::Fetch), (4, 4));
    assert_eq!(range(&mut wire, Api::Produce), (0, broker::api::OFFERED_PRODUCE));
    assert!(matches!(fetch(&mut old, 0, ALL), Err(kafka::Error::Io(_))));
    assert_eq!(batch_at(&mut wire, 0, 1).len(), server.with_log("t", 0, |log| log.batches()[0].size()).unwrap());

    // ApiVersions itself is answered in any version, in the form of version 0.
    let mut bare = Wire::to(&server, 0);
    bare.send(&[0, 18, 0, 3, 0, 0, 0, 9, 0, 1, b'x', 0]);
    let answer = bare.receive().unwrap();
    assert_eq!(answer[..6], [0, 0, 0, 9, 0, 35]);
}

#[test]
fn a_request_that_makes_no_sense_closes_its_connection_and_no_other() {
    let server = server();
    let mut bystander = Wire::to(&server, 0);
    let good = {
        // Fetch 0 of partition 0 of t, as bytes.
        let mut bytes = vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 1, b'c'];
        bytes.extend([255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]); // replica, wait, bytes
        bytes.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0]);
        bytes
    };
    let mut wire = Wire::to(&server, 0);
    wire.send(&good);
    assert!(wire.receive().is_some());
    for cut in 0..good.len() {
        let mut wire = Wire::to(&server, 0);
        wire.send(&good[..cut]);
        assert_eq!(wire.receive(), None, "cut at {cut}");
    }
    // An array that claims two thousand million elements, an unknown request, a bad string.
    let mut huge = good.clone();
    huge[23..27].copy_from_slice(&[0x7f; 4]);
    let mut unknown = good.clone();
    unknown[1] = 99;
    let mut not_text = good.clone();
    not_text[29] = 0xff;
    for bytes in [huge, unknown, not_text] {
        let mut wire = Wire::to(&server, 0);
        wire.send(&bytes);
        assert_eq!(wire.receive(), None, "{bytes:?}");
    }
    // HTTP, and a length of nearly 2 GiB, which is not waited for.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x7f, 0, 0, 0]] {
        let mut wire = Wire::to(&server, 0);
        wire.0.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        drop(wire.0.read_to_end(&mut rest));
        assert!(rest.is_empty(), "{rest:?}");
    }
    bystander.send(&good);
    assert!(bystander.receive().is_some());
}
