//! What the batch at an offset is, by its first 61 bytes: one Fetch, whose answer is read only so far.
//!
//! Fetch from version 3 on gives the first batch whole, however small `max_bytes` is (KIP-74): so its
//! header always comes, and a batch of many megabytes costs one connection and no memory.

use std::fmt;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::exchange::{Exchange, Trouble};
use super::{Wire, refused};
use crate::client::{Fault, Principal, Resource};
use crate::record::Offset;

/// The first version that gives batches as they are stored (0.11 and newer), 4.x serves it too.
const VERSION: i16 = 4;
/// OFFSET_OUT_OF_RANGE
const OUT_OF_RANGE: i16 = 1;
/// Bytes of a batch of magic 2 before its records.
const HEADER: usize = 61;
/// What all formats have in common: offset (8), length (4), four bytes, and the magic.
const COMMON: usize = 17;
/// Offset and length, which the length does not count.
const LOG_OVERHEAD: usize = 12;
/// So much of a frame is read to its end, which keeps the connection; more is not worth it.
const WORTH_READING: usize = 64 << 10;

/// What is at an offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// The batch that holds the offset, or the first one behind it: then the offsets between the
    /// two do not exist.
    Batch(Batch),
    /// No batch at or behind the offset. Proves nothing if the high watermark is above it.
    Nothing {
        /// The log end, as far as consumers may read.
        high_watermark: Offset,
    },
    /// The offset is outside the log.
    OutOfRange,
    /// The broker refuses this partition, for instance as it does not lead it.
    Refused(Fault),
    /// The answer is without the partition, as it is when a quota throttles us: to be repeated, and
    /// never a proof of anything.
    Inconclusive {
        /// How long the broker wants to be left alone, in milliseconds.
        throttle_ms: u32,
    },
}

/// A batch, as far as its first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its base offset. For magic 0 and 1 with compression it is that of the *last* record.
    pub base: Offset,
    /// All its bytes: what a fetch needs to get it.
    pub size: usize,
    /// The format: 2 from Kafka 0.11 on.
    pub magic: i8,
    /// What only the header of magic 2 tells.
    pub details: Option<Details>,
    /// The log end, as far as consumers may read.
    pub high_watermark: Offset,
}

/// What the header of a batch of magic 2 tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// The last offset that belongs to the batch, be its record there still or compacted away.
    pub last: Offset,
    /// How the records are compressed.
    pub codec: Codec,
    /// Written in a transaction, which may have been aborted.
    pub transactional: bool,
    /// No records of a producer, but the marker that ends a transaction.
    pub control: bool,
    /// How many records there are; 0 for one that compaction has emptied.
    pub count: u32,
}

/// The compression of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not compressed.
    None,
    /// `gzip`
    Gzip,
    /// `snappy`
    Snappy,
    /// `lz4`
    Lz4,
    /// `zstd`
    Zstd,
    /// A number that Kafka 3.9 does not know.
    Unknown(u8),
}

/// The name that `compression.type` has for it.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip => f.write_str("gzip"),
            Self::Snappy => f.write_str("snappy"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd => f.write_str("zstd"),
            Self::Unknown(number) => write!(f, "unknown-{number}"),
        }
    }
}

impl Wire {
    /// What the batch at `position` is. The broker has to lead the partition.
    ///
    /// If the batch has more than 64 KiB, the connection is closed instead of reading it
    /// ([`Wire::is_open`]): the next question needs a new one.
    ///
    /// # Errors
    /// The broker did not answer, its answer makes no sense, or [`Fault::TooOld`].
    pub fn batch_header(&mut self, topic: &str, partition: i32, position: Offset) -> Result<Header, Fault> {
        const CALL: &str = "Fetch";
        self.require_version(ApiKey::Fetch, VERSION, "Fetch 4")?;
        let ask = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(position.get())
            .with_partition_max_bytes(1);
        let topics = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![ask]);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_max_bytes(1)
            .with_isolation_level(0)
            .with_topics(vec![topics]);
        let who = self.who.clone();
        let mut exchange = self.send(CALL, ApiKey::Fetch, VERSION, &request)?;
        let started = exchange.started;
        let result = parse(&mut exchange, topic, partition, &who).and_then(|header| {
            let worth_it = exchange.left <= WORTH_READING;
            if worth_it {
                exchange.read_to_end(&mut Vec::new())?;
            }
            Ok((header, worth_it))
        });
        let (header, worth_it) = self.conclude(CALL, started, result)?;
        if !worth_it {
            self.stream = None;
        }
        Ok(header)
    }
}

/// Kafka's `FetchResponse.json`, version 4, behind the correlation id: throttle time, topics (name,
/// partitions (number, error, high watermark, last stable offset, aborted transactions, records)).
fn parse(answer: &mut Exchange<'_>, topic: &str, partition: i32, who: &Principal) -> Result<Header, Trouble> {
    let throttle_ms = u32::try_from(i32::from_be_bytes(answer.array()?)).unwrap_or(0);
    match i32::from_be_bytes(answer.array()?) {
        0 => return Ok(Header::Inconclusive { throttle_ms }),
        1 => {}
        count => return Err(nonsense(format!("{count} topics where one was asked"))),
    }
    let length = i16::from_be_bytes(answer.array()?);
    if usize::try_from(length) != Ok(topic.len()) {
        return Err(nonsense("another topic than was asked"));
    }
    let mut name = vec![0; topic.len()];
    answer.read(&mut name)?;
    if name != topic.as_bytes() {
        return Err(nonsense("another topic than was asked"));
    }
    match i32::from_be_bytes(answer.array()?) {
        0 => return Ok(Header::Inconclusive { throttle_ms }),
        1 => {}
        count => return Err(nonsense(format!("{count} partitions where one was asked"))),
    }
    if i32::from_be_bytes(answer.array()?) != partition {
        return Err(nonsense("another partition than was asked"));
    }
    let error = i16::from_be_bytes(answer.array()?);
    let high_watermark = i64::from_be_bytes(answer.array()?);
    let _last_stable_offset: [u8; 8] = answer.array()?;
    // Null (-1) or empty, as we ask for uncommitted records.
    if i32::from_be_bytes(answer.array()?) > 0 {
        return Err(nonsense("aborted transactions, which were not asked"));
    }
    let size = i32::from_be_bytes(answer.array()?);
    match error {
        0 => {}
        OUT_OF_RANGE => return Ok(Header::OutOfRange),
        code => return Ok(Header::Refused(refused(who, "Fetch", Resource::topic(topic), code))),
    }
    let high_watermark = offset(high_watermark, "high watermark")?;
    let available = match usize::try_from(size) {
        Ok(0) | Err(_) => return Ok(Header::Nothing { high_watermark }),
        Ok(size) => size,
    };
    if available < COMMON {
        return Err(nonsense(format!("a batch of {available} bytes")));
    }
    let mut bytes = [0; HEADER];
    let there = available.min(HEADER);
    answer.read(bytes.get_mut(..there).unwrap_or_default())?;
    Ok(Header::Batch(batch(&bytes, there, high_watermark)?))
}

/// The first bytes of a batch, `there` of them given.
fn batch(bytes: &[u8; HEADER], there: usize, high_watermark: Offset) -> Result<Batch, Trouble> {
    let base = i64::from_be_bytes(field(bytes, 0));
    let length = i32::from_be_bytes(field(bytes, 8));
    let [magic] = field(bytes, 16).map(u8::cast_signed);
    let body = usize::try_from(length).map_err(|_| nonsense(format!("a batch length of {length}")))?;
    let size = body.checked_add(LOG_OVERHEAD).ok_or_else(|| nonsense("a batch length beyond measure"))?;
    let base = offset(base, "base offset")?;
    let smallest = if magic >= 2 { HEADER } else { COMMON };
    if size < smallest || there < smallest {
        return Err(nonsense(format!("a batch of {size} bytes with magic {magic}, {there} bytes of it given")));
    }
    let details = if magic == 2 {
        let attributes = i16::from_be_bytes(field(bytes, 21));
        let delta = i32::from_be_bytes(field(bytes, 23));
        let count = i32::from_be_bytes(field(bytes, 57));
        let last = base.get().checked_add(i64::from(delta)).filter(|_| delta >= 0).unwrap_or(-1);
        Some(Details {
            last: offset(last, "last offset")?,
            codec: codec(attributes),
            transactional: attributes & 0x10 != 0,
            control: attributes & 0x20 != 0,
            count: u32::try_from(count).map_err(|_| nonsense(format!("{count} records in a batch")))?,
        })
    } else {
        None
    };
    Ok(Batch { base, size, magic, details, high_watermark })
}

/// The lowest three bits of the attributes.
fn codec(attributes: i16) -> Codec {
    match attributes.to_be_bytes()[1] & 7 {
        0 => Codec::None,
        1 => Codec::Gzip,
        2 => Codec::Snappy,
        3 => Codec::Lz4,
        4 => Codec::Zstd,
        number => Codec::Unknown(number),
    }
}

/// `N` bytes from `at` on; called with constants below the header's size only.
fn field<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

fn offset(number: i64, what: &str) -> Result<Offset, Trouble> {
    Offset::new(number).ok_or_else(|| nonsense(format!("a {what} of {number}")))
}

fn nonsense(what: impl Into<String>) -> Trouble {
    Trouble::Nonsense(what.into())
}
