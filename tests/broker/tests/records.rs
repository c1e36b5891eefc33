//! What a consumer with the `kafka` crate reads. The rows are those of the design's table of what
//! that crate and the old protocol do.

use broker::log::{Emptied, Marker};
use broker::{Api, Codec, NewRecord, Options, Server};
use kafka::client::{Compression, FetchOffset, FetchPartition, ProduceMessage, RequiredAcks};

use crate::support::{ALL, NONE, client, fetch, plain_loop, server};

fn append(server: &Server, count: usize, codec: Codec) -> i64 {
    let value = "v".repeat(20);
    server.append("t", 0, &vec![("key", value.as_str()); count], codec).unwrap()
}

#[test]
fn plain_gzip_and_snappy_come_back_as_they_were_written() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy] {
        let server = server();
        // More than one of xerial's blocks, and more than one of Kafka's reads.
        let values: Vec<String> = (0..3000).map(|number| format!("{number:0100}")).collect();
        let records: Vec<_> = values.iter().map(|value| ("key", value.as_str())).collect();
        server.append("t", 0, &records, codec).unwrap();
        let mut client = client(&server);
        let answers = client.fetch_messages(&[FetchPartition::new("t", 0, 0).with_max_bytes(ALL)]).unwrap();
        let data = answers[0].topics()[0].partitions()[0].data().unwrap();
        assert_eq!(data.highwatermark_offset(), 3000);
        assert_eq!(data.messages().len(), 3000);
        for (number, message) in data.messages().iter().enumerate() {
            assert_eq!(message.offset, i64::try_from(number).unwrap());
            assert_eq!((message.key, message.value), (&b"key"[..], values[number].as_bytes()));
        }
    }
}

#[test]
fn row_1_plain_records_before_a_compressed_batch_vanish() {
    let server = server();
    for _ in 0..20 {
        append(&server, 10, Codec::None);
        append(&server, 10, Codec::Gzip);
        append(&server, 10, Codec::Snappy);
    }
    let mut client = client(&server);
    let delivered = plain_loop(&mut client, 600, ALL);
    let compressed: Vec<i64> = (0..600).filter(|offset| offset / 10 % 3 != 0).collect();
    assert_eq!(delivered, compressed);
    // Nothing is missing in the log: a fetch of one batch gives it.
    assert_eq!(fetch(&mut client, 0, 600).unwrap(), (0..10).collect::<Vec<_>>());
}

#[test]
fn row_2_one_compressed_batch_an_answer_and_none_if_it_does_not_fit() {
    let server = server();
    for _ in 0..3 {
        append(&server, 10, Codec::Gzip);
    }
    let size = server.with_log("t", 0, |log| log.batches()[0].size()).unwrap();
    let size = i32::try_from(size).unwrap();
    let mut client = client(&server);
    assert_eq!(fetch(&mut client, 0, ALL).unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(fetch(&mut client, 0, size).unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(fetch(&mut client, 0, size - 1).unwrap(), NONE);
    // Row 14: the batch begins below the position; the crate leaves out what is below.
    assert_eq!(fetch(&mut client, 7, ALL).unwrap(), [7, 8, 9]);
}

#[test]
fn row_3_a_marker_a_compacted_tail_and_a_large_batch_all_look_empty() {
    let server = server();
    append(&server, 5, Codec::None);
    server.with_log("t", 0, |log| log.append_control(Marker::Commit, 0)).unwrap();
    let mut client = client(&server);
    assert_eq!(fetch(&mut client, 5, ALL).unwrap(), NONE, "a marker");
    server
        .with_log("t", 0, |log| {
            log.append([NewRecord::default()], Codec::None);
            log.compact(Emptied::Dropped, |offset| offset == 6);
        })
        .unwrap();
    assert_eq!(fetch(&mut client, 6, ALL).unwrap(), NONE, "a compacted tail");
    server.with_log("t", 0, |log| log.append_sized(5000, 0)).unwrap().unwrap();
    assert_eq!(fetch(&mut client, 6, 4999).unwrap(), NONE, "a batch larger than the fetch");
    assert_eq!(fetch(&mut client, 6, 5000).unwrap(), [7]);
}

#[test]
fn row_4_lz4_and_zstd_cannot_be_read() {
    let server = server();
    append(&server, 5, Codec::Lz4);
    append(&server, 5, Codec::Zstd);
    let mut client = client(&server);
    assert!(matches!(fetch(&mut client, 0, ALL), Err(kafka::Error::UnsupportedCompression)));
    assert!(matches!(fetch(&mut client, 5, ALL), Err(kafka::Error::Kafka(kafka::error::KafkaCode::Unknown))));
    server.set_down_conversion("t", false).unwrap();
    assert!(matches!(
        fetch(&mut client, 0, ALL),
        Err(kafka::Error::Kafka(kafka::error::KafkaCode::UnsupportedVersion))
    ));
}

#[test]
fn row_12_the_cap_starves_what_is_late_in_a_request() {
    let server = Server::start(Options { fetch_max_bytes: 1000, ..Options::default() }).unwrap();
    server.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        server.with_log("t", partition, |log| log.append_sized(900, 0)).unwrap().unwrap();
    }
    let mut client = client(&server);
    let requests = [FetchPartition::new("t", 0, 0), FetchPartition::new("t", 1, 0)];
    let answers = client.fetch_messages(&requests).unwrap();
    let counts: Vec<usize> =
        answers[0].topics()[0].partitions().iter().map(|part| part.data().unwrap().messages().len()).collect();
    assert_eq!(counts, [1, 0]);
}

#[test]
fn row_13_the_first_data_behind_a_marker_comes_twice() {
    let server = server();
    server
        .with_log("t", 0, |log| {
            log.append((0..10).map(|_| NewRecord::default()), Codec::None);
            log.append_control(Marker::Commit, 0);
            let records = (0..5).map(|_| NewRecord { value: Some(vec![b'x'; 10]), ..NewRecord::default() });
            log.append_transactional(records, Codec::None);
            log.append_control(Marker::Abort, 0);
        })
        .unwrap();
    let mut client = client(&server);
    // Aborted, and delivered all the same.
    assert_eq!(fetch(&mut client, 10, ALL).unwrap(), [11, 12, 13, 14, 15, 11, 12, 13]);
}

#[test]
fn a_position_outside_the_log_is_out_of_range() {
    let server = server();
    append(&server, 10, Codec::None);
    server.with_log("t", 0, |log| log.delete_records(4)).unwrap();
    let mut client = client(&server);
    for (position, in_range) in [(3, false), (4, true), (10, true), (11, false)] {
        let out = matches!(
            fetch(&mut client, position, ALL),
            Err(kafka::Error::Kafka(kafka::error::KafkaCode::OffsetOutOfRange))
        );
        assert_eq!(out, !in_range, "position {position}");
    }
    let offset = |client: &mut kafka::client::KafkaClient, at| client.fetch_topic_offsets("t", at).unwrap()[0].offset;
    assert_eq!(offset(&mut client, FetchOffset::Earliest), 4);
    assert_eq!(offset(&mut client, FetchOffset::Latest), 10);
}

#[test]
fn what_the_crate_produces_is_in_the_log() {
    for (compression, codec) in
        [(Compression::NONE, Codec::None), (Compression::GZIP, Codec::Gzip), (Compression::SNAPPY, Codec::Snappy)]
    {
        let server = server();
        let mut client = client(&server);
        client.set_compression(compression);
        let messages =
            [ProduceMessage::new("t", 0, Some(b"k"), Some(b"one")), ProduceMessage::new("t", 0, None, Some(b"two"))];
        let confirms = client.produce_messages(RequiredAcks::One, std::time::Duration::from_secs(1), messages).unwrap();
        assert_eq!(confirms[0].partition_confirms[0].offset, Ok(0));
        assert_eq!(fetch(&mut client, 0, ALL).unwrap(), [0, 1]);
        server
            .with_log("t", 0, |log| {
                assert_eq!(log.batches()[0].kind().codec, codec);
                assert_eq!(log.records().map(|record| record.key.is_some()).collect::<Vec<_>>(), [true, false]);
            })
            .unwrap();
        assert_eq!(server.requests(Api::Produce), 1);
    }
}
