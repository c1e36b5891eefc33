//! ListOffsets 0 and 1.

use super::answer::{Asked, led};
use crate::log::Log;
use crate::request::{ListPartition, Topics};
use crate::wire::Writer;

/// What stands for the log end, and for the log start, in place of a timestamp.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

pub(super) fn list(asked: &Asked<'_>, topics: &Topics<ListPartition>, out: &mut Writer) {
    let state = asked.shared.lock();
    out.array(topics.len());
    for (topic, partitions) in topics {
        out.string(topic);
        out.array(partitions.len());
        for wanted in partitions {
            let log = match asked.struck.error(topic, wanted.partition) {
                Some(error) => Err(error),
                None => led(&state, asked.life, topic, wanted.partition).map(|partition| &partition.log),
            };
            out.i32(wanted.partition);
            out.i16(log.err().unwrap_or(0));
            if asked.version == 0 {
                let offset = log.ok().and_then(|log| before(log, wanted.timestamp));
                out.array(usize::from(offset.is_some()));
                offset.into_iter().for_each(|offset| out.i64(offset));
            } else {
                let (timestamp, offset) = log.ok().and_then(|log| at(log, wanted.timestamp)).unwrap_or((-1, -1));
                out.i64(timestamp);
                out.i64(offset);
            }
        }
    }
}

/// Version 0: where the last segment begins that was last written to at that time or before. This
/// log is one segment.
fn before(log: &Log, timestamp: i64) -> Option<i64> {
    match timestamp {
        LATEST => Some(log.high_watermark()),
        EARLIEST => Some(log.start()),
        time => log.records().last().is_none_or(|last| last.timestamp_ms <= time).then(|| log.start()),
    }
}

/// From version 1 on: the first record of a time or later, with its timestamp.
fn at(log: &Log, timestamp: i64) -> Option<(i64, i64)> {
    match timestamp {
        LATEST => Some((-1, log.high_watermark())),
        EARLIEST => Some((-1, log.start())),
        time => log.at_time(time).map(|record| (record.timestamp_ms, record.offset)),
    }
}
