//! Fetch 0 and 4: what is read, how long it waits, and what is made of it.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::answer::{Asked, Interrupted, led};
use super::state::State;
use crate::fault::{Fault, code};
use crate::log::{Least, PRODUCER_ID, Slice};
use crate::request::{Fetch, FetchPartition};
use crate::wire::Writer;

/// From this version on, batches are answered as they are, and the first one whatever its size.
const BATCHES_AS_THEY_ARE: i16 = 4;
/// Where the checksum stands: in a message of magic 0, in a batch of magic 2.
const MESSAGE_CHECKSUM: usize = 12;
const BATCH_CHECKSUM: usize = 17;

/// One partition's part of a fetch, before its bytes are made.
struct Read {
    result: Result<Slice, i16>,
    high_watermark: i64,
    /// The first offset of each aborted transaction that was read; `None`: not asked for.
    aborted: Option<Vec<i64>>,
    down_conversion: bool,
}

/// Everything that one look at the logs gave.
struct Look {
    /// In the order of the request.
    reads: Vec<Read>,
    /// Bytes of log.
    size: usize,
    /// Something that lets Kafka answer at once: an error, or nothing to wait for.
    at_once: bool,
}

pub(super) fn fetch(asked: &Asked<'_>, request: &Fetch, out: &mut Writer) -> Result<(), Interrupted> {
    if asked.struck.has(&Fault::Throttled) {
        if asked.version >= 1 {
            out.i32(1000); // throttle time, in milliseconds
        }
        out.array(0);
        return Ok(());
    }
    let reads = wait(asked, request)?.reads;
    let mut reads = reads.into_iter();
    if asked.version >= 1 {
        out.i32(0); // throttle time
    }
    out.array(request.topics.len());
    for (topic, partitions) in &request.topics {
        out.string(topic);
        out.array(partitions.len());
        for (asked_for, read) in partitions.iter().zip(&mut reads) {
            partition(asked, topic, asked_for, read, out);
        }
    }
    Ok(())
}

/// Looks at the logs until there is enough, something is wrong, or the time is over.
fn wait(asked: &Asked<'_>, request: &Fetch) -> Result<Look, Interrupted> {
    let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + max_wait;
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut state = asked.shared.lock();
    loop {
        let look = look(asked, &state, request);
        let left = deadline.saturating_duration_since(Instant::now());
        if look.at_once || look.size >= enough || left.is_zero() {
            return Ok(look);
        }
        state = asked.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        if !state.lives(asked.life) {
            return Err(Interrupted);
        }
    }
}

fn look(asked: &Asked<'_>, state: &State, request: &Fetch) -> Look {
    let old = asked.version < BATCHES_AS_THEY_ARE;
    let cap = state.options.fetch_max_bytes;
    let mut left = request.max_bytes.map_or(cap, |max| cap.min(usize::try_from(max).unwrap_or(0)));
    let mut least = if old { Least::Nothing } else { Least::OneBatch };
    let mut look = Look { reads: Vec::new(), size: 0, at_once: false };
    let mut interesting = false;
    for (topic, partitions) in &request.topics {
        for wanted in partitions {
            let (result, high_watermark) = match asked.struck.error(topic, wanted.partition) {
                Some(error) => (Err(error), -1),
                None => read(asked, state, topic, wanted, left, least),
            };
            if let Ok(slice) = &result {
                // Once something was read, the limits hold for all that follows.
                if slice.size() > 0 {
                    least = Least::Nothing;
                }
                left = left.saturating_sub(slice.size());
                look.size += slice.size();
            }
            // A partition that does not exist is answered so, but does not end the wait of others.
            let unknown = result.as_ref().err() == Some(&code::UNKNOWN_TOPIC_OR_PARTITION);
            interesting |= !unknown;
            look.at_once |= result.is_err() && !unknown;
            let down_conversion = !old || state.topic(topic).is_none_or(|topic| topic.down_conversion);
            let aborted = request.committed_only.then(|| aborted(state, topic, wanted, &result));
            look.reads.push(Read { result, high_watermark, aborted, down_conversion });
        }
    }
    look.at_once |= !interesting;
    look
}

fn aborted(state: &State, topic: &str, wanted: &FetchPartition, read: &Result<Slice, i16>) -> Vec<i64> {
    let end = read.as_ref().ok().and_then(Slice::end);
    let log = state.partition(topic, wanted.partition).map(|partition| &partition.log);
    end.zip(log).map_or_else(Vec::new, |(end, log)| log.aborted(wanted.position..end))
}

fn read(
    asked: &Asked<'_>,
    state: &State,
    topic: &str,
    wanted: &FetchPartition,
    left: usize,
    least: Least,
) -> (Result<Slice, i16>, i64) {
    let log = match led(state, asked.life, topic, wanted.partition) {
        Ok(partition) => &partition.log,
        Err(error) => return (Err(error), -1),
    };
    let max_bytes = left.min(usize::try_from(wanted.max_bytes).unwrap_or(0));
    match log.read(wanted.position, max_bytes, least) {
        Ok(slice) => (Ok(slice), log.high_watermark()),
        Err(crate::log::OutOfRange) => (Err(code::OFFSET_OUT_OF_RANGE), -1),
    }
}

/// Writes one partition. Only here are bytes made, after the lock was given back.
fn partition(asked: &Asked<'_>, topic: &str, wanted: &FetchPartition, read: Read, out: &mut Writer) {
    let old = asked.version < BATCHES_AS_THEY_ARE;
    let unknown = read.result.as_ref().err() == Some(&code::UNKNOWN_TOPIC_OR_PARTITION);
    let bytes = match read.result {
        // This is said before anything else, even of a position out of range.
        _ if !read.down_conversion && !unknown => Err(code::UNSUPPORTED_VERSION),
        Ok(slice) if old => slice.down_convert(wanted.position).map_err(|_| code::UNSUPPORTED_COMPRESSION_TYPE),
        result => result.map(|slice| slice.raw()),
    };
    let (error, high_watermark, mut bytes) = match bytes {
        Ok(bytes) => (0, read.high_watermark, bytes),
        Err(error) => (error, -1, Vec::new()),
    };
    // Where the conversion fails, the records are null; where the reading fails, there are none.
    let unconverted = [code::UNSUPPORTED_COMPRESSION_TYPE, code::UNSUPPORTED_VERSION].contains(&error);
    if asked.struck.has_for(&Fault::Checksum, topic, wanted.partition) {
        let at = if old { MESSAGE_CHECKSUM } else { BATCH_CHECKSUM };
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0xff;
        }
    }
    out.i32(wanted.partition);
    out.i16(error);
    out.i64(high_watermark);
    if !old {
        out.i64(high_watermark); // last stable offset: no transaction is ever open here
        // Aborted transactions: null but for committed readers, and for what does not exist.
        match read.aborted {
            Some(firsts) => {
                out.array(firsts.len());
                for first in firsts {
                    out.i64(PRODUCER_ID);
                    out.i64(first);
                }
            }
            None if unknown => out.array(0),
            None => out.null_array(),
        }
    }
    out.nullable_bytes((!unconverted).then_some(&bytes));
}
