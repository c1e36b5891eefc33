//! The message sets of old clients (magic 0): what a broker converts a slice of its log down to,
//! and what it takes from an old producer.
//!
//! The down-conversion follows Kafka 3.9's `LazyDownConversionRecords`, `RecordsUtil.downConvert`
//! and `LazyDownConversionRecordsSend`, its oddities included.

use std::sync::Arc;

use super::{Batch, Codec, NewRecord, Record, Slice, codec, encode};
use crate::wire::Reader;

/// Offset and length, before each message.
const LOG_OVERHEAD: usize = 12;
/// The length that Kafka writes into an overflow message at least.
const BATCH_OVERHEAD: usize = 61;
/// How many bytes of batches are converted at a time.
const MAX_READ_SIZE: usize = 128 * 1024;
/// The most that one produced message set may expand to, in bytes.
const EXPANDED_MAX: usize = 256 << 20;

/// A batch in zstd, which old clients cannot be given (Kafka's error 76).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedCompression;

/// A message set of a producer that cannot be read: cut off, damaged, or of another format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Slice {
    /// The slice as a message set of magic 0, for a fetch at `position`.
    ///
    /// Its length is the larger of the slice's and that of the first converted batch; a last message
    /// may therefore be cut off, and what is not filled holds an *overflow message*, which claims to
    /// be longer than what follows. Control batches and records below the position fall away, but
    /// compressed batches stay whole.
    ///
    /// # Errors
    /// The first batch that is not a control batch is in zstd.
    pub fn down_convert(&self, position: i64) -> Result<Vec<u8>, UnsupportedCompression> {
        let whole = self.whole();
        let mut out = Vec::new();
        for batch in whole {
            out = convert(std::slice::from_ref(batch), position)?;
            if !out.is_empty() {
                break;
            }
        }
        if out.is_empty() {
            if !whole.is_empty() {
                put_overflow(&mut out, LOG_OVERHEAD);
            }
            return Ok(out);
        }
        let size = self.size.max(out.len());
        // Kafka goes on behind the *first* batch, even if that was dropped and the first converted
        // one lies further on: that one comes twice then.
        let mut rest = whole.get(1..).unwrap_or_default();
        while out.len() < size {
            match next_chunk(&mut rest, position) {
                Ok(Some(chunk)) => out.extend(chunk),
                // The consumer will meet the zstd batch first in its next fetch, and get the error.
                Ok(None) | Err(UnsupportedCompression) => {
                    rest = &[];
                    let missing = size - out.len();
                    put_overflow(&mut out, missing);
                }
            }
        }
        out.truncate(size);
        Ok(out)
    }

    /// The batches that are completely in the slice.
    fn whole(&self) -> &[Arc<Batch>] {
        let complete = self.batches.iter().map(|batch| batch.size()).sum::<usize>() <= self.size;
        let count = if complete { self.batches.len() } else { self.batches.len() - 1 };
        &self.batches[..count]
    }
}

/// Converts the next batches, as many as Kafka reads at a time; `None` when all are done.
fn next_chunk(rest: &mut &[Arc<Batch>], position: i64) -> Result<Option<Vec<u8>>, UnsupportedCompression> {
    while let Some(first) = rest.first() {
        let (mut count, mut size) = (1, first.size());
        while let Some(next) = rest.get(count).filter(|next| size + next.size() <= MAX_READ_SIZE) {
            (count, size) = (count + 1, size + next.size());
        }
        let (chunk, behind) = rest.split_at(count);
        *rest = behind;
        let converted = convert(chunk, position)?;
        if !converted.is_empty() {
            return Ok(Some(converted));
        }
    }
    Ok(None)
}

fn convert(batches: &[Arc<Batch>], position: i64) -> Result<Vec<u8>, UnsupportedCompression> {
    let data = batches.iter().filter(|batch| !batch.kind.control);
    if data.clone().any(|batch| batch.kind.codec == Codec::Zstd) {
        return Err(UnsupportedCompression);
    }
    let mut out = Vec::new();
    for batch in data {
        let codec = batch.kind.codec;
        if codec == Codec::None {
            for record in batch.records.iter().filter(|record| record.offset >= position) {
                put_record(&mut out, record);
            }
        } else if let Some(last) = batch.records.last() {
            let mut inner = Vec::new();
            for record in &batch.records {
                put_record(&mut inner, record);
            }
            let value = codec::compress(codec, inner);
            put_message(&mut out, last.offset, codec, None, Some(&value));
        }
    }
    Ok(out)
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    put_message(out, record.offset, Codec::None, record.key.as_deref(), record.value.as_deref());
}

/// A message of magic 0: offset, size, crc32, magic, attributes, key, value.
fn put_message(out: &mut Vec<u8>, offset: i64, codec: Codec, key: Option<&[u8]>, value: Option<&[u8]>) {
    let size = 14 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    out.reserve(LOG_OVERHEAD + size);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&encode::length(size).to_be_bytes());
    let checksum = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0, codec as u8]);
    for field in [key, value] {
        out.extend_from_slice(&field.map_or(-1, |bytes| encode::length(bytes.len())).to_be_bytes());
        out.extend_from_slice(field.unwrap_or_default());
    }
    let crc = crc32fast::hash(&out[checksum + 4..]);
    out[checksum..checksum + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Fills `missing` bytes with the beginning of a message that is longer than them.
fn put_overflow(out: &mut Vec<u8>, missing: usize) {
    let end = out.len() + missing;
    out.extend_from_slice(&(-1_i64).to_be_bytes());
    out.extend_from_slice(&encode::length((missing + 1).max(BATCH_OVERHEAD)).to_be_bytes());
    out.resize(end, 0);
}

/// The records of a message set that an old producer sent, and its compression.
///
/// # Errors
/// The set is cut off, damaged, not of magic 0, or in a codec that old producers do not use.
pub fn read_message_set(set: &[u8], timestamp_ms: i64) -> Result<(Vec<NewRecord>, Codec), Malformed> {
    let (mut records, mut used) = (Vec::new(), Codec::None);
    for message in messages(set)? {
        if message.codec == Codec::None {
            records.push(message.record(timestamp_ms));
            continue;
        }
        used = message.codec;
        let packed = message.value.unwrap_or_default();
        let inner = codec::decompress(message.codec, packed, EXPANDED_MAX).map_err(|_| Malformed)?;
        for message in messages(&inner)? {
            // Kafka does not nest compression.
            if message.codec != Codec::None {
                return Err(Malformed);
            }
            records.push(message.record(timestamp_ms));
        }
    }
    Ok((records, used))
}

struct Message<'a> {
    codec: Codec,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl Message<'_> {
    fn record(&self, timestamp_ms: i64) -> NewRecord {
        NewRecord { timestamp_ms, key: self.key.map(<[u8]>::to_vec), value: self.value.map(<[u8]>::to_vec) }
    }
}

fn messages(set: &[u8]) -> Result<Vec<Message<'_>>, Malformed> {
    let mut reader = Reader::new(set);
    let mut found = Vec::new();
    while !reader.is_empty() {
        let message = (|| {
            reader.i64()?;
            reader.nullable_bytes()
        })();
        let Ok(Some(body)) = message else { return Err(Malformed) };
        let Some((checksum, checked)) = body.split_first_chunk() else { return Err(Malformed) };
        if u32::from_be_bytes(*checksum) != crc32fast::hash(checked) {
            return Err(Malformed);
        }
        let mut body = Reader::new(checked);
        let (Ok(0), Ok(attributes)) = (body.i8(), body.i8()) else { return Err(Malformed) };
        let codec = Codec::from_attributes(attributes.cast_unsigned()).ok_or(Malformed)?;
        let (Ok(key), Ok(value)) = (body.nullable_bytes(), body.nullable_bytes()) else { return Err(Malformed) };
        found.push(Message { codec, key, value });
    }
    Ok(found)
}
