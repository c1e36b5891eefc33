//! Records that were taken from librdkafka, copied: its own messages hold whole fetches, and are freed one by one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::memory::{Answer, Loan};
use crate::record::{Arena, Headers, Offset, Record};

/// The length that stands for null.
const NULL: u32 = u32::MAX;
/// The name of a header whose own name is no text (UTF-8): the crate can't give it.
const UNREADABLE: &str = "\u{FFFD}";

/// Where a record lies in the bytes: key, value and headers, one behind the other.
struct Entry {
    offset: Offset,
    /// Milliseconds; `i64::MIN` if the message has none.
    timestamp: i64,
    start: u32,
    key: u32,
    value: u32,
    headers: u32,
}

/// One partition's records, in ascending order.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    index: Vec<Entry>,
    /// A header's name could not be read.
    pub(super) damaged_headers: bool,
    /// What it counts in, once it is complete.
    held: Vec<Arc<Answer>>,
    loan: Option<Loan>,
}

impl Batch {
    /// With room for so many bytes and records, which others like it have had.
    pub(super) fn with_capacity(bytes: usize, records: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), index: Vec::with_capacity(records), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of keys, values and headers.
    pub(super) fn payload(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<Entry>()
    }

    /// The last record's offset.
    pub(super) fn last(&self) -> Option<Offset> {
        self.index.last().map(|entry| entry.offset)
    }

    /// How much it grows by a message, but for its headers.
    pub(super) fn size(message: &BorrowedMessage<'_>) -> usize {
        message.key_len() + message.payload_len() + size_of::<Entry>()
    }

    /// Takes a message in, whose offset is above the last one's.
    pub(super) fn push(&mut self, offset: Offset, message: &BorrowedMessage<'_>) {
        let start = self.bytes.len();
        let (key, value) = (message.key(), message.payload());
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let headers = self.bytes.len();
        if let Some(list) = message.headers() {
            for index in 0..list.count() {
                // The crate panics at a name that is not UTF-8, and the record has to be delivered all the same.
                match catch_unwind(AssertUnwindSafe(|| list.try_get(index))) {
                    Ok(Some(header)) => Headers::append(&mut self.bytes, header.key, header.value),
                    Ok(None) => {}
                    Err(_) => {
                        Headers::append(&mut self.bytes, UNREADABLE, None);
                        self.damaged_headers = true;
                    }
                }
            }
        }
        // A batch is closed long before it has 4 GiB, and one record has less than 2.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(NULL - 1);
        self.index.push(Entry {
            offset,
            timestamp: message.timestamp().to_millis().unwrap_or(i64::MIN),
            start: length(start),
            key: key.map_or(NULL, |key| length(key.len())),
            value: value.map_or(NULL, |value| length(value.len())),
            headers: length(self.bytes.len() - headers),
        });
    }

    /// From now on it counts, until the last of its records is done; what the loan pays for counts in no share.
    pub(super) fn count(&mut self, held: Vec<Arc<Answer>>, loan: Option<Loan>) -> usize {
        let memory = self.memory();
        let bytes = memory - loan.as_ref().map_or(0, Loan::bytes).min(memory);
        held.iter().for_each(|answer| answer.add(bytes));
        (self.held, self.loan) = (held, loan);
        bytes
    }
}

impl Arena for Batch {
    fn record(&self, index: usize) -> Record<'_> {
        let Some(entry) = self.index.get(index) else { return Record::default() };
        let mut rest = self.bytes.get(entry.start as usize..).unwrap_or_default();
        let mut take = |length: u32| {
            let (part, behind) = rest.split_at_checked(length as usize).unwrap_or((rest, &[]));
            rest = behind;
            part
        };
        let mut nullable = |length: u32| (length != NULL).then(|| take(length));
        let (key, value) = (nullable(entry.key), nullable(entry.value));
        let headers = Headers::new(take(entry.headers));
        let timestamp_ms = (entry.timestamp != i64::MIN).then_some(entry.timestamp);
        Record { offset: entry.offset, timestamp_ms, key, value, headers }
    }
}
