#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const NONE: [i64; 0] = [];

fn record(value: &str) -> NewRecord {
    NewRecord { timestamp_ms: 1000, key: None, value: Some(value.as_bytes().to_vec()) }
}

fn records(count: usize) -> Vec<NewRecord> {
    (0..count).map(|index| record(&format!("value-{index:04}"))).collect()
}

/// Offset, codec and claimed size of each complete message of a set; then the incomplete rest.
fn messages(set: &[u8]) -> (Vec<(i64, u8)>, &[u8]) {
    let (mut found, mut rest) = (Vec::new(), set);
    while rest.len() >= 12 {
        let offset = i64::from_be_bytes(rest[..8].try_into().unwrap());
        let size = usize::try_from(i32::from_be_bytes(rest[8..12].try_into().unwrap())).unwrap();
        let Some(body) = rest.get(12..12 + size) else { break };
        assert_eq!(u32::from_be_bytes(body[..4].try_into().unwrap()), crc32fast::hash(&body[4..]));
        assert_eq!(body[4], 0, "magic");
        found.push((offset, body[5]));
        rest = &rest[12 + size..];
    }
    (found, rest)
}

fn fetched(log: &Log, position: i64, max_bytes: usize) -> Vec<i64> {
    let set = log.read(position, max_bytes, Least::Nothing).unwrap().down_convert(position).unwrap();
    messages(&set).0.into_iter().map(|(offset, _)| offset).collect()
}

#[test]
fn a_header_is_laid_out_as_documented() {
    let mut log = Log::starting_at(7);
    log.append_transactional(records(3), Codec::Gzip);
    let bytes = log.batches()[0].encoded();
    assert_eq!(bytes[..8], 7_i64.to_be_bytes(), "base offset");
    assert_eq!(bytes[8..12], i32::try_from(bytes.len() - 12).unwrap().to_be_bytes(), "batch length");
    assert_eq!(bytes[16], 2, "magic");
    assert_eq!(bytes[17..21], crc32c::crc32c(&bytes[21..]).to_be_bytes(), "checksum");
    assert_eq!(bytes[21..23], (1_i16 | 0x10).to_be_bytes(), "attributes: gzip, transactional");
    assert_eq!(bytes[23..27], 2_i32.to_be_bytes(), "last offset delta");
    assert_eq!(bytes[57..61], 3_i32.to_be_bytes(), "count");
}

#[test]
fn a_batch_has_the_size_that_was_asked_for() {
    for size in (68..400).chain(8_240..8_270).chain([16_460, 1 << 20, (1 << 21) + 74]) {
        let mut log = Log::default();
        match log.append_sized(size, 0) {
            Ok(_) => assert_eq!(log.batches()[0].size(), size),
            Err(NoSuchSize { next }) => assert!(matches!((size, next), (126, 127) | (8255, 8256)), "{size} {next}"),
        }
    }
    assert_eq!(Log::default().append_sized(10, 0), Err(NoSuchSize { next: 68 }));
}

#[test]
fn a_first_batch_larger_than_the_limit_answers_nothing() {
    let mut log = Log::default();
    log.append_sized(500, 0).unwrap();
    assert_eq!(fetched(&log, 0, 499), NONE);
    assert_eq!(fetched(&log, 0, 500), [0]);
    // But its bytes count as read, as with Kafka.
    assert_eq!(log.read(0, 499, Least::Nothing).unwrap().size(), 499);
    // A newer fetch gets it whole, and nothing more.
    log.append_sized(500, 0).unwrap();
    assert_eq!(log.read(0, 1, Least::OneBatch).unwrap().raw(), log.batches()[0].encoded());
}

#[test]
fn an_answer_is_cut_at_the_bytes_read() {
    let mut log = Log::default();
    // One record a batch: converted, 100 bytes of batch become fewer.
    for _ in 0..4 {
        log.append_sized(100, 0).unwrap();
    }
    let set = log.read(0, 250, Least::Nothing).unwrap().down_convert(0).unwrap();
    assert_eq!(set.len(), 250, "the slice, with the part of a third batch");
    let (found, rest) = messages(&set);
    assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(rest[..8], (-1_i64).to_be_bytes(), "filled with an overflow message");

    // Many small records in a batch: converted they are more, and only the first batch is granted.
    let mut log = Log::default();
    log.append((0..50).map(|_| record("")), Codec::None);
    log.append((0..50).map(|_| record("")), Codec::None);
    let set = log.read(0, 1 << 20, Least::Nothing).unwrap().down_convert(0).unwrap();
    assert_eq!(set.len(), 50 * 26);
    assert_eq!(messages(&set).0.len(), 50);
}

#[test]
fn plain_records_below_the_position_are_left_out_and_compressed_ones_are_not() {
    let mut log = Log::default();
    log.append(records(10), Codec::None);
    log.append(records(10), Codec::Gzip);
    assert_eq!(fetched(&log, 4, 1 << 20)[..6], [4, 5, 6, 7, 8, 9]);
    let set = log.read(14, 1 << 20, Least::Nothing).unwrap().down_convert(14).unwrap();
    assert_eq!(messages(&set).0, [(19, 1)], "one wrapper, with its last offset");
    let (inner, codec) = read_message_set(&set[..messages_len(&set)], 0).unwrap();
    assert_eq!((inner.len(), codec), (10, Codec::Gzip));
}

fn messages_len(set: &[u8]) -> usize {
    set.len() - messages(set).1.len()
}

#[test]
fn data_behind_a_control_batch_comes_twice() {
    let mut log = Log::starting_at(10);
    log.append_control(Marker::Commit, 0);
    log.append_transactional(records(5), Codec::None);
    log.append_control(Marker::Commit, 0);
    assert_eq!(fetched(&log, 10, 1 << 20), [11, 12, 13, 14, 15, 11, 12, 13]);
    assert_eq!(fetched(&log, 11, 1 << 20), [11, 12, 13, 14, 15]);
}

#[test]
fn a_control_batch_alone_is_answered_by_the_head_of_an_overflow_message() {
    let mut log = Log::default();
    log.append_control(Marker::Abort, 0);
    let set = log.read(0, 1 << 20, Least::Nothing).unwrap().down_convert(0).unwrap();
    assert_eq!(set, [&(-1_i64).to_be_bytes()[..], &61_i32.to_be_bytes()[..]].concat());
}

#[test]
fn zstd_fails_a_fetch_that_begins_with_it_and_cuts_one_that_meets_it_later() {
    let mut log = Log::default();
    log.append(records(2), Codec::None);
    log.append(records(2), Codec::None);
    log.append(records(2), Codec::Zstd);
    assert_eq!(log.read(4, 1 << 20, Least::Nothing).unwrap().down_convert(4), Err(UnsupportedCompression));
    // The second batch is read together with the third one, and goes down with it for this fetch.
    assert_eq!(fetched(&log, 0, 1 << 20), [0, 1]);
    assert_eq!(fetched(&log, 2, 1 << 20), [2, 3]);
}

#[test]
fn only_positions_outside_the_log_are_out_of_range() {
    let mut log = Log::default();
    log.append(records(10), Codec::None);
    log.delete_records(4);
    assert_eq!((log.start(), log.end()), (4, 10));
    let read = |log: &Log, at| log.read(at, 1 << 20, Least::Nothing).map(|slice| slice.size() > 0);
    assert_eq!(read(&log, 3), Err(OutOfRange));
    assert_eq!(read(&log, 4), Ok(true), "in the middle of the batch that was kept");
    assert_eq!(read(&log, 10), Ok(false));
    assert_eq!(read(&log, 11), Err(OutOfRange));
    log.truncate(8);
    assert_eq!((log.start(), log.end(), log.batches().len()), (4, 8, 0));
    assert_eq!(read(&log, 9), Err(OutOfRange));
    log.truncate(2);
    assert_eq!((log.start(), log.end()), (2, 2));
}

#[test]
fn nothing_is_read_beyond_the_high_watermark() {
    let mut log = Log::default();
    log.append(records(2), Codec::None);
    log.hold_high_watermark(Some(2));
    log.append(records(2), Codec::None);
    assert_eq!(fetched(&log, 0, 1 << 20), [0, 1]);
    assert_eq!(fetched(&log, 3, 1 << 20), NONE);
    log.hold_high_watermark(None);
    assert_eq!(fetched(&log, 0, 1 << 20), [0, 1, 2, 3]);
}

#[test]
fn compaction_makes_holes_and_keeps_the_ends_of_a_batch() {
    let mut log = Log::default();
    for _ in 0..3 {
        log.append(records(4), Codec::Gzip);
    }
    log.compact(Emptied::Dropped, |offset| matches!(offset, 0 | 3 | 4..8));
    let ends: Vec<_> = log.batches().iter().map(|batch| (batch.base_offset(), batch.last_offset())).collect();
    assert_eq!(ends, [(0, 3), (8, 11)]);
    assert_eq!(log.records().map(|record| record.offset).collect::<Vec<_>>(), [1, 2, 8, 9, 10, 11]);
    let set = log.read(0, log.batches()[0].size(), Least::Nothing).unwrap().down_convert(0).unwrap();
    assert_eq!(messages(&set).0, [(2, 1)], "the wrapper has the last offset that still exists");

    // A tail that is gone: the end stays, and there is nothing to read.
    log.compact(Emptied::Dropped, |offset| offset >= 8);
    assert_eq!((log.end(), log.read(8, 1 << 20, Least::Nothing).unwrap().size()), (12, 0));
    // An emptied batch that stays has its header only.
    let mut log = Log::default();
    log.append(records(4), Codec::Snappy);
    log.compact(Emptied::Kept, |_| true);
    assert_eq!((log.batches()[0].size(), log.batches()[0].last_offset()), (61, 3));
    assert_eq!(fetched(&log, 0, 1 << 20), NONE);
}

#[test]
fn offsets_are_found_by_time() {
    let mut log = Log::default();
    for timestamp_ms in [100, 200, 300] {
        log.append([NewRecord { timestamp_ms, ..record("x") }], Codec::None);
    }
    let at = |time| log.at_time(time).map(|record| (record.offset, record.timestamp_ms));
    assert_eq!((at(0), at(101), at(300), at(301)), (Some((0, 100)), Some((1, 200)), Some((2, 300)), None));
}

#[test]
fn a_damaged_message_set_is_refused_wherever_it_is_cut() {
    let mut log = Log::default();
    log.append(records(3), Codec::Snappy);
    let set = log.read(0, 1 << 20, Least::Nothing).unwrap().down_convert(0).unwrap();
    let set = &set[..messages_len(&set)];
    assert_eq!(read_message_set(set, 0).unwrap().0.len(), 3);
    for cut in 1..set.len() {
        assert!(read_message_set(&set[..cut], 0).is_err(), "cut at {cut}");
    }
    for at in 8..set.len() {
        let mut damaged = set.to_vec();
        damaged[at] ^= 0x40;
        assert!(read_message_set(&damaged, 0).is_err(), "damaged at {at}");
    }
}

#[test]
fn aborted_transactions_are_told_as_far_as_they_were_read() {
    let mut log = Log::default();
    log.append_transactional(records(3), Codec::None); // 0 to 2
    log.append_transactional(records(2), Codec::None); // 3 and 4
    log.append_control(Marker::Abort, 0); // 5
    log.append(records(4), Codec::None); // 6 to 9
    log.append_transactional(records(2), Codec::None); // 10 and 11
    log.append_control(Marker::Commit, 0); // 12
    log.append_transactional(records(1), Codec::None); // 13
    log.append_control(Marker::Abort, 0); // 14
    assert_eq!(log.aborted(0..15), [0, 13]);
    // One that was begun before, and is not over yet; and one that is behind.
    assert_eq!(log.aborted(4..13), [0]);
    assert_eq!(log.aborted(5..14), [0, 13]);
    assert_eq!(log.aborted(6..13), NONE);
}
