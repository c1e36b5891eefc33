//! A partition's log as a list of batches, and what a fetch reads from it.
//!
//! Pure: no I/O, no clock, no thread. What always holds:
//! - batches lie in ascending order and do not overlap; offsets between them do not exist;
//! - a batch is encoded (magic 2) when it is made, so its size is the real one;
//! - log start ≤ high watermark ≤ log end.

use std::ops::Range;
use std::sync::Arc;

mod codec;
mod convert;
mod encode;
#[cfg(test)]
mod tests;

pub use convert::{Malformed, UnsupportedCompression, read_message_set};
pub(crate) use encode::PRODUCER_ID;

/// How the records of a batch are compressed. The number is Kafka's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip
    Gzip = 1,
    /// snappy, in the framing of xerial's `SnappyOutputStream`, as Kafka does
    Snappy = 2,
    /// lz4: a valid frame of stored blocks
    Lz4 = 3,
    /// zstd: a valid frame of raw blocks
    Zstd = 4,
}

/// A record as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the partition.
    pub offset: i64,
    /// Milliseconds since 1970 (UTC).
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<Vec<u8>>,
    /// `None`: a null value.
    pub value: Option<Vec<u8>>,
}

/// A record before it has an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since 1970 (UTC).
    pub timestamp_ms: i64,
    /// `None`: a null key.
    pub key: Option<Vec<u8>>,
    /// `None`: a null value.
    pub value: Option<Vec<u8>>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Its records are dropped by consumers that read committed ones only.
    Abort = 0,
    /// Its records count.
    Commit = 1,
}

/// What compaction does with a batch that has no records left. Kafka keeps the header of the last
/// batch of a producer that is still known, and drops all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// The batch is gone.
    Dropped,
    /// Its 61 bytes stay, with a record count of 0.
    Kept,
}

/// What is in a batch beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// The records are compressed with it.
    pub codec: Codec,
    /// The batch belongs to a transaction.
    pub transactional: bool,
    /// The batch is a transaction marker, and no data.
    pub control: bool,
}

/// A record batch (magic 2). Immutable; its size is that of its encoding.
#[derive(Debug)]
pub struct Batch {
    base: i64,
    last: i64,
    kind: Kind,
    records: Vec<Record>,
    encoded: Vec<u8>,
}

impl Batch {
    fn new(base: i64, last: i64, kind: Kind, records: Vec<Record>) -> Self {
        let encoded = encode::batch(base, last, kind, &records);
        Self { base, last, kind, records, encoded }
    }

    /// The first offset that it was written with, whether or not that record still exists.
    pub fn base_offset(&self) -> i64 {
        self.base
    }

    /// The last offset that it was written with, whether or not that record still exists.
    pub fn last_offset(&self) -> i64 {
        self.last
    }

    /// Codec and flags.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The records that still exist.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How the transaction ended, if this batch says so.
    fn marker(&self) -> Option<Marker> {
        let key = self.records.first().filter(|_| self.kind.control)?.key.as_deref()?;
        [Marker::Abort, Marker::Commit].into_iter().find(|marker| encode::marker(*marker).0 == key)
    }

    /// Its encoding, as it lies on a real broker's disk.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.encoded.len()
    }
}

/// A position outside the log (Kafka's error 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// No batch of one record has that size: even an empty one is larger, or the size is one of the few
/// that are jumped over because the record's length needs a byte more (126, 8255, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchSize {
    /// The next larger size that there is, in bytes.
    pub next: usize,
}

/// How much of the log a fetch takes at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Nothing: the byte limit is hard (Fetch up to version 2).
    Nothing,
    /// The first batch, whatever its size (Fetch from version 3 on).
    OneBatch,
}

/// What a fetch read: a stretch of bytes of the log, which may end within a batch.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    batches: Vec<Arc<Batch>>,
    size: usize,
}

impl Slice {
    /// The offset behind its last batch; `None`: it has none.
    pub fn end(&self) -> Option<i64> {
        self.batches.last().map(|batch| batch.last + 1)
    }

    /// Bytes of the log, an incomplete last batch included.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The bytes as they are (Fetch from version 4 on).
    pub fn raw(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size);
        for batch in &self.batches {
            bytes.extend_from_slice(batch.encoded());
        }
        bytes.truncate(self.size);
        bytes
    }
}

/// A partition's log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    start: i64,
    end: i64,
    held: Option<i64>,
    batches: Vec<Arc<Batch>>,
}

impl Log {
    /// An empty log whose first record will have `start` as its offset.
    pub fn starting_at(start: i64) -> Self {
        Self { start, end: start, ..Self::default() }
    }

    /// The first offset that may be fetched (*log start offset*).
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The offset of the next record (*log end offset*).
    pub fn end(&self) -> i64 {
        self.end
    }

    /// How far consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.held.unwrap_or(self.end).clamp(self.start, self.end)
    }

    /// Keeps the high watermark at `at`, as while replicas lag behind. `None`: it follows the end.
    pub fn hold_high_watermark(&mut self, at: Option<i64>) {
        self.held = at;
    }

    /// The batches that the log holds.
    pub fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// The records that the log holds, those of control batches left out.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let from = self.start;
        let data = self.batches.iter().filter(|batch| !batch.kind.control);
        data.flat_map(|batch| batch.records.iter()).filter(move |record| record.offset >= from)
    }

    /// Appends records as one batch and returns their offsets. Nothing is appended for none.
    pub fn append(&mut self, records: impl IntoIterator<Item = NewRecord>, codec: Codec) -> Range<i64> {
        self.append_kind(records, Kind { codec, ..Kind::default() })
    }

    /// Appends records as one batch of a transaction. Whether it was committed is said by the
    /// [marker](Self::append_control) that follows.
    pub fn append_transactional(&mut self, records: impl IntoIterator<Item = NewRecord>, codec: Codec) -> Range<i64> {
        self.append_kind(records, Kind { codec, transactional: true, control: false })
    }

    /// Appends the marker that ends a transaction, and returns its offset.
    pub fn append_control(&mut self, marker: Marker, timestamp_ms: i64) -> i64 {
        let kind = Kind { codec: Codec::None, transactional: true, control: true };
        let (key, value) = encode::marker(marker);
        self.append_kind([NewRecord { timestamp_ms, key: Some(key), value: Some(value) }], kind).start
    }

    /// Appends one uncompressed record whose batch has exactly `size` bytes, and returns its offset.
    ///
    /// # Errors
    /// There is no such batch.
    pub fn append_sized(&mut self, size: usize, timestamp_ms: i64) -> Result<i64, NoSuchSize> {
        let (key, value) = encode::filling(size)?;
        Ok(self.append([NewRecord { timestamp_ms, key, value: Some(value) }], Codec::None).start)
    }

    fn append_kind(&mut self, records: impl IntoIterator<Item = NewRecord>, kind: Kind) -> Range<i64> {
        let base = self.end;
        let records: Vec<Record> = (base..)
            .zip(records)
            .map(|(offset, new)| Record { offset, timestamp_ms: new.timestamp_ms, key: new.key, value: new.value })
            .collect();
        if let Some(last) = records.last() {
            self.end = last.offset + 1;
            self.batches.push(Arc::new(Batch::new(base, self.end - 1, kind, records)));
        }
        base..self.end
    }

    /// Skips offsets, as if batches of that length had been written and compacted away.
    pub fn skip(&mut self, offsets: i64) {
        self.end += offsets.max(0);
    }

    /// Removes records, as compaction does: a batch that loses some keeps its first and last offset.
    pub fn compact(&mut self, emptied: Emptied, remove: impl Fn(i64) -> bool) {
        let batches = std::mem::take(&mut self.batches);
        self.batches = batches
            .into_iter()
            .filter_map(|batch| {
                if !batch.records.iter().any(|record| remove(record.offset)) {
                    return Some(batch);
                }
                let records: Vec<_> = batch.records.iter().filter(|record| !remove(record.offset)).cloned().collect();
                if records.is_empty() && emptied == Emptied::Dropped {
                    return None;
                }
                // Of an emptied one Kafka writes the header anew, without a codec (`DefaultRecordBatch.writeEmptyHeader`).
                let codec = if records.is_empty() { Codec::None } else { batch.kind.codec };
                Some(Arc::new(Batch::new(batch.base, batch.last, Kind { codec, ..batch.kind }, records)))
            })
            .collect();
    }

    /// Moves the log start up to `up_to` (at most to the high watermark), as retention and
    /// DeleteRecords do. A batch that is only partly below it stays whole.
    pub fn delete_records(&mut self, up_to: i64) {
        self.start = up_to.clamp(self.start, self.high_watermark());
        let start = self.start;
        self.batches.retain(|batch| batch.last >= start);
    }

    /// Drops what was written from offset `to` on, as after an unclean leader election. A batch
    /// that contains `to` goes as a whole.
    pub fn truncate(&mut self, to: i64) {
        let to = to.max(0);
        if to < self.end {
            self.batches.retain(|batch| batch.last < to);
            self.end = to;
            self.start = self.start.min(to);
        }
    }

    /// The aborted transactions that reach into `range`: the first offset of each.
    pub fn aborted(&self, range: Range<i64>) -> Vec<i64> {
        let (mut found, mut first) = (Vec::new(), None);
        for batch in self.batches.iter().filter(|batch| batch.kind.transactional) {
            if !batch.kind.control {
                first.get_or_insert(batch.base);
            } else if let Some(first) = first.take()
                && batch.marker() == Some(Marker::Abort)
                && first < range.end
                && batch.last >= range.start
            {
                found.push(first);
            }
        }
        found
    }

    /// The first record with this timestamp or a later one (ListOffsets by time).
    pub fn at_time(&self, timestamp_ms: i64) -> Option<&Record> {
        let until = self.high_watermark();
        self.records().find(|record| record.timestamp_ms >= timestamp_ms && record.offset < until)
    }

    /// What a fetch reads: from the batch that contains `position` or is the next one behind it, up
    /// to `max_bytes` or the high watermark.
    ///
    /// # Errors
    /// The position is below the log start or beyond the log end.
    pub fn read(&self, position: i64, max_bytes: usize, least: Least) -> Result<Slice, OutOfRange> {
        if position < self.start || position > self.end {
            return Err(OutOfRange);
        }
        let until = self.high_watermark();
        let from = self.batches.partition_point(|batch| batch.last < position);
        let mut readable = self.batches.iter().skip(from).take_while(|batch| batch.base < until).peekable();
        let limit = match (least, readable.peek()) {
            (_, None) => return Ok(Slice::default()),
            _ if position >= until => return Ok(Slice::default()),
            (Least::OneBatch, Some(first)) => max_bytes.max(first.size()),
            (Least::Nothing, Some(_)) => max_bytes,
        };
        let mut slice = Slice::default();
        while slice.size < limit {
            let Some(batch) = readable.next() else { return Ok(slice) };
            slice.size += batch.size();
            slice.batches.push(Arc::clone(batch));
        }
        slice.size = slice.size.min(limit);
        Ok(slice)
    }
}
