//! Given a topic with such batches, every record arrives once and in order, and the end of the log
//! is committed.

use broker::log::{Emptied, Marker};
use broker::{Codec, NewRecord};
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::{Bed, noise, numbered};
use crate::support::worker::PATIENCE;

for_clients!(
    a_topic_is_delivered_and_committed_to_its_end,
    plain_gzip_and_snappy_batches_in_turn,
    the_position_moves_over_transaction_markers_to_the_end,
    a_log_of_markers_alone_is_read_to_its_end,
    what_compaction_left_is_delivered_and_its_holes_are_passed,
    offsets_that_never_were_at_the_end_of_the_log,
    a_start_in_the_middle_of_a_compressed_batch,
    a_batch_larger_than_the_first_fetch,
    a_partition_with_questions_of_its_own_does_not_wait_for_fifty_idle_ones,
);

fn a_topic_is_delivered_and_committed_to_its_end(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    bed.fill("t", 3);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("t"), "delivered=3 committed=3 in_flight=0 expired=0 reset=0");
}

fn plain_gzip_and_snappy_batches_in_turn(client: Library) {
    let bed = Bed::new(&[]).by(client);
    bed.server.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        let append = |log: &mut broker::Log| {
            // Batches of 1 to 41 records whose values have 0 to 700 bytes.
            for batch in 0..240_u64 {
                let codec = [Codec::None, Codec::Gzip, Codec::Snappy][batch as usize % 3];
                let records = (0..1 + batch * 7 % 41).map(|n| {
                    let value = noise(((batch * 31 + n * 17) % 700) as usize, batch * 100 + n);
                    NewRecord { value: Some(value), ..numbered(n as i64) }
                });
                log.append(records, codec);
            }
            log.end()
        };
        assert!(bed.server.with_log("t", partition, append).unwrap() > 4_000);
    }
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    bed.await_all("t", 1);
    let ended = bed.stop(worker);
    let total = bed.held("t", 0).len() + bed.held("t", 1).len();
    assert!(ended.sums("t").starts_with(&format!("delivered={total} ")), "{}", ended.sums("t"));
    bed.assert_all("t", 0);
    bed.assert_all("t", 1);
}

fn the_position_moves_over_transaction_markers_to_the_end(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let write = |from: i64, codec, marker| {
        let append = move |log: &mut broker::Log| {
            log.append_transactional((from..from + 5).map(numbered), codec);
            log.append_control(marker, 0);
        };
        bed.server.with_log("t", 0, append).unwrap();
    };
    write(0, Codec::None, Marker::Commit);
    write(6, Codec::Gzip, Marker::Commit);
    bed.server.with_log("t", 0, |log| log.append_control(Marker::Abort, 0)).unwrap();
    bed.server.with_log("t", 0, |log| log.append_control(Marker::Commit, 0)).unwrap();
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 14);
    bed.assert_all("t", 0);
    write(14, Codec::Snappy, Marker::Commit);
    bed.await_committed("t", 0, 20);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("t"), "delivered=15 committed=20 in_flight=0 expired=0 reset=0");
    bed.assert_all("t", 0);
}

fn a_log_of_markers_alone_is_read_to_its_end(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    for _ in 0..50 {
        bed.server.with_log("t", 0, |log| log.append_control(Marker::Abort, 0)).unwrap();
    }
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 50);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("t"), "delivered=0 committed=50 in_flight=0 expired=0 reset=0");
}

fn what_compaction_left_is_delivered_and_its_holes_are_passed(client: Library) {
    let cases = [
        ("plain-dropped", Codec::None, Emptied::Dropped),
        ("plain-kept", Codec::None, Emptied::Kept),
        ("gzip-dropped", Codec::Gzip, Emptied::Dropped),
        ("gzip-kept", Codec::Gzip, Emptied::Kept),
        ("snappy-dropped", Codec::Snappy, Emptied::Dropped),
        ("snappy-kept", Codec::Snappy, Emptied::Kept),
    ];
    let names = cases.map(|(name, ..)| name);
    let bed = Bed::new(&names).by(client);
    for (name, codec, emptied) in cases {
        (0..12).for_each(|_| bed.fill_as(name, 0, 10, codec));
        // The first batch; a batch's beginning, middle and tail; two batches side by side; the last one's tail.
        let gone = |offset: i64| {
            (0..10).contains(&offset)
                || (20..25).contains(&offset)
                || (33..36).contains(&offset)
                || (45..50).contains(&offset)
                || (60..80).contains(&offset)
                || (99..101).contains(&offset)
                || (115..120).contains(&offset)
        };
        bed.server.with_log(name, 0, |log| log.compact(emptied, gone)).unwrap();
    }
    let worker = bed.started(&bed.config(&names));
    for name in names {
        bed.await_committed(name, 0, 120);
        bed.assert_all(name, 0);
        assert_eq!(bed.arrived(name, 0).len(), 120 - 50);
    }
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("gzip-kept"), "delivered=70 committed=120 in_flight=0 expired=0 reset=0");
    assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
}

fn offsets_that_never_were_at_the_end_of_the_log(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    bed.fill_as("t", 0, 10, Codec::Gzip);
    bed.server.with_log("t", 0, |log| log.skip(1_000)).unwrap();
    bed.fill_as("t", 0, 10, Codec::Gzip);
    bed.server.with_log("t", 0, |log| log.compact(Emptied::Kept, |offset| offset >= 1_015)).unwrap();
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 1_020);
    bed.stop(worker);
    bed.assert_all("t", 0);
    assert_eq!(bed.arrived("t", 0).len(), 15);
}

fn a_start_in_the_middle_of_a_compressed_batch(client: Library) {
    let bed = Bed::new(&["gzip", "snappy", "plain"]).by(client);
    for (topic, codec) in [("gzip", Codec::Gzip), ("snappy", Codec::Snappy), ("plain", Codec::None)] {
        bed.fill_as(topic, 0, 100, codec);
        bed.fill_as(topic, 0, 100, codec);
        bed.server.set_committed(&format!("g-{topic}"), topic, 0, Some(37));
    }
    let worker = bed.started(&bed.config(&["gzip", "snappy", "plain"]));
    for topic in ["gzip", "snappy", "plain"] {
        bed.await_committed(topic, 0, 200);
        assert_eq!(bed.arrived(topic, 0), bed.held(topic, 0)[37..]);
    }
    bed.stop(worker);
}

fn a_batch_larger_than_the_first_fetch(client: Library) {
    let bed = Bed::new(&["plain", "gzip", "snappy"]).by(client);
    for (topic, codec) in [("plain", Codec::None), ("gzip", Codec::Gzip), ("snappy", Codec::Snappy)] {
        bed.fill_as(topic, 0, 3, codec);
        let large = (0..6).map(|n| NewRecord { value: Some(noise(60_000, n)), ..numbered(n as i64) });
        bed.server.with_log(topic, 0, |log| log.append(large, codec)).unwrap();
        bed.fill_as(topic, 0, 3, codec);
        bed.server.with_log(topic, 0, |log| log.append_sized(1 << 20, 0)).unwrap().unwrap();
        bed.fill_as(topic, 0, 3, codec);
    }
    let worker = bed.started(&bed.config(&["plain", "gzip", "snappy"]));
    for topic in ["plain", "gzip", "snappy"] {
        bed.await_all(topic, 0);
    }
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["WARN"]), [""; 0]);
}

/// What only librdkafka can: lz4 and zstd, and to leave out what was aborted.
#[cfg(feature = "librdkafka")]
#[test]
fn every_codec_and_nothing_that_was_aborted() {
    let bed = Bed::new(&["t"]).by(Library::Librdkafka);
    let append = |log: &mut broker::Log| {
        let mut committed = Vec::new();
        for codec in [Codec::Zstd, Codec::None, Codec::Lz4, Codec::Gzip, Codec::Snappy] {
            for marker in [Marker::Abort, Marker::Commit] {
                let from = log.end();
                let range = log.append_transactional((from..from + 5).map(numbered), codec);
                log.append_control(marker, 0);
                committed.extend(range.filter(|_| marker == Marker::Commit));
            }
            let from = log.end();
            committed.extend(log.append((from..from + 5).map(numbered), codec));
        }
        committed
    };
    let committed = bed.server.with_log("t", 0, append).unwrap();
    let worker = bed.started(&bed.config(&["t"]));
    let end = bed.server.bounds("t", 0).unwrap().1;
    bed.await_committed("t", 0, end);
    assert_eq!(bed.arrived_offsets("t", 0), committed);
    bed.stop(worker);
}

/// What this client can't read stops its own partition with a line that says why, and nothing else;
/// when retention has taken it, the partition goes on by itself.
#[test]
fn what_cannot_be_read_stops_its_own_partition_alone() {
    let bed = Bed::new(&["large", "other"]);
    bed.server.create_topic("codecs", 3).unwrap();
    for partition in 0..3 {
        bed.fill_as("codecs", partition, 10, Codec::None);
    }
    bed.fill_as("codecs", 1, 10, Codec::Lz4);
    bed.fill_as("codecs", 2, 10, Codec::Zstd);
    bed.fill("large", 10);
    bed.server.with_log("large", 0, |log| log.append_sized(300_000, 0)).unwrap().unwrap();
    for partition in 0..3 {
        bed.fill_as("codecs", partition, 10, Codec::Gzip);
    }
    bed.fill("large", 10);
    let config = bed.config(&["large", "other", "codecs"]).set("consumer", "on_out_of_range", "'earliest'");
    let worker = bed.started(&config.set("consumer", "max_partition_fetch_bytes", "'200KiB'"));
    let line = worker.wait_words(&["partition fails", "topic=large partition=0"]);
    assert!(line.contains("the batch at offset=10 has 300000 bytes, a fetch may have 204800"), "{line}");
    assert!(line.contains("raise max_partition_fetch_bytes"), "{line}");
    for (partition, codec) in [(1, "lz4"), (2, "zstd")] {
        let line = worker.wait_words(&["partition fails", &format!("topic=codecs partition={partition}")]);
        assert!(line.contains("offsets 10 to 19") && line.contains(&format!("codec={codec}")), "{line}");
    }
    bed.await_all("codecs", 0);
    for (topic, partition) in [("large", 0), ("codecs", 1), ("codecs", 2)] {
        bed.await_committed(topic, partition, 10);
        assert_eq!(bed.arrived_offsets(topic, partition), (0..10).collect::<Vec<_>>());
    }
    // The others go on.
    bed.fill("other", 10);
    bed.fill_as("codecs", 0, 10, Codec::Snappy);
    bed.await_all("other", 0);
    bed.await_all("codecs", 0);

    for (topic, partition, next) in [("large", 0, 11), ("codecs", 1, 20), ("codecs", 2, 20)] {
        bed.server.with_log(topic, partition, |log| log.delete_records(next)).unwrap();
    }
    for (topic, partition, next) in [("large", 0, 11), ("codecs", 1, 20), ("codecs", 2, 20)] {
        let end = bed.server.bounds(topic, partition).unwrap().1;
        // Such a partition is tried again every 30 seconds.
        let group = format!("g-{topic}");
        assert!(bed.server.await_committed(&group, topic, partition, end, 3 * PATIENCE), "{topic}/{partition}");
        let expected: Vec<i64> = (0..10).chain(next..end).collect();
        assert_eq!(bed.arrived_offsets(topic, partition), expected, "{topic}/{partition}");
    }
    let ended = bed.stop(worker);
    assert!(ended.sums("large").contains("expired=1 "), "{}", ended.sums("large"));
    assert!(ended.sums("codecs").contains("expired=20 "), "{}", ended.sums("codecs"));
}

/// Each transaction marker, and each change from plain to compressed, needs a question that concerns one
/// partition alone. They must not wait for the long polls of the idle partitions.
fn a_partition_with_questions_of_its_own_does_not_wait_for_fifty_idle_ones(client: Library) {
    let bed = Bed::new(&[]).by(client);
    bed.server.create_topic("t", 50).unwrap();
    let append = |log: &mut broker::Log| {
        for _ in 0..8 {
            let from = log.end();
            log.append_transactional((from..from + 3).map(numbered), Codec::None);
            log.append_control(Marker::Commit, 0);
            let from = log.end();
            log.append((from..from + 3).map(numbered), Codec::Gzip);
        }
    };
    bed.server.with_log("t", 7, append).unwrap();
    let config = bed.config(&["t"]).set("consumer", "fetch_max_wait_ms", 500);
    let worker = bed.started(&config);
    let started = std::time::Instant::now();
    bed.await_committed("t", 7, 56);
    // By turns with the common fetch it took a quarter of a minute a marker.
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "it took {:?}", started.elapsed());
    bed.assert_all("t", 7);
    bed.stop(worker);
}
