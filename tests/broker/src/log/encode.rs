//! The encoding of a batch, magic 2: 61 bytes of header, then the records.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>.

use super::{Codec, Kind, Marker, NoSuchSize, Record, codec};

/// Bytes of a batch before its records.
const HEADER: usize = 61;
/// Where the checksummed part begins: behind base offset, length, leader epoch, magic and checksum.
const CHECKSUMMED: usize = 21;
/// Attribute bits.
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The producer id of transactional batches; that of others is -1.
pub(crate) const PRODUCER_ID: i64 = 1000;

/// Encodes a batch.
pub(super) fn batch(base: i64, last: i64, kind: Kind, records: &[Record]) -> Vec<u8> {
    let first_timestamp = records.first().map_or(-1, |record| record.timestamp_ms);
    let max_timestamp = records.iter().map(|record| record.timestamp_ms).max().unwrap_or(-1);
    let mut plain = Vec::new();
    for record in records {
        put_record(&mut plain, record, base, first_timestamp);
    }
    // An emptied batch has no records section at all, compressed or not.
    let payload = if records.is_empty() { plain } else { codec::compress(kind.codec, plain) };
    let (producer_id, epoch) = if kind.transactional { (PRODUCER_ID, 0_i16) } else { (-1, -1) };
    let attributes =
        kind.codec as i16 | if kind.transactional { TRANSACTIONAL } else { 0 } | if kind.control { CONTROL } else { 0 };

    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&base.to_be_bytes());
    out.extend_from_slice(&length(HEADER - 12 + payload.len()).to_be_bytes());
    out.extend_from_slice(&0_i32.to_be_bytes()); // leader epoch
    out.push(2); // magic
    out.extend_from_slice(&[0; 4]); // the checksum, below
    out.extend_from_slice(&attributes.to_be_bytes());
    out.extend_from_slice(&length(usize::try_from(last - base).unwrap_or(0)).to_be_bytes());
    out.extend_from_slice(&first_timestamp.to_be_bytes());
    out.extend_from_slice(&max_timestamp.to_be_bytes());
    out.extend_from_slice(&producer_id.to_be_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    let sequence: i32 = if kind.transactional && !kind.control { 0 } else { -1 };
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&length(records.len()).to_be_bytes());
    out.extend_from_slice(&payload);
    let checksum = crc32c::crc32c(&out[CHECKSUMMED..]);
    out[CHECKSUMMED - 4..CHECKSUMMED].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// Key and value of a transaction marker: version, type; version, epoch of the coordinator.
pub(super) fn marker(marker: Marker) -> (Vec<u8>, Vec<u8>) {
    (vec![0, 0, 0, marker as u8], vec![0; 6])
}

/// Key and value of the record that fills a batch of `size` bytes.
pub(super) fn filling(size: usize) -> Result<(Option<Vec<u8>>, Vec<u8>), NoSuchSize> {
    let total = |key: usize, value: usize| {
        // attributes, timestamp, offset and header count are one byte each, and so is the key's length
        let body = 5 + key + varint_len(value) + value;
        HEADER + varint_len(body) + body
    };
    // Where the value's length needs a byte more, one size is left out; a key of one byte meets it.
    let mut next = usize::MAX;
    for key in [0, 1] {
        let overhead = total(key, size) - size;
        for value in size.saturating_sub(overhead)..=size {
            let found = total(key, value);
            if found == size {
                return Ok(((key > 0).then(|| vec![b'k'; key]), vec![b'x'; value]));
            }
            if found > size {
                next = next.min(found);
                break;
            }
        }
    }
    Err(NoSuchSize { next })
}

fn put_record(out: &mut Vec<u8>, record: &Record, base: i64, first_timestamp: i64) {
    let mut body = vec![0]; // attributes
    put_varint(&mut body, record.timestamp_ms - first_timestamp);
    put_varint(&mut body, record.offset - base);
    for field in [&record.key, &record.value] {
        match field {
            None => put_varint(&mut body, -1),
            Some(bytes) => {
                put_varint(&mut body, i64::from(length(bytes.len())));
                body.extend_from_slice(bytes);
            }
        }
    }
    put_varint(&mut body, 0); // headers
    put_varint(out, i64::from(length(body.len())));
    out.extend_from_slice(&body);
}

/// A signed number in zigzag encoding, seven bits a byte.
fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn varint_len(number: usize) -> usize {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, i64::from(length(number)));
    bytes.len()
}

/// A length as the protocol writes it. What is larger than 2 GiB cannot be said in it; the model
/// never holds such a batch.
pub(super) fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

impl Codec {
    /// The codec of a batch's attributes.
    pub(super) fn from_attributes(attributes: u8) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|codec| *codec as u8 == attributes & 7)
    }
}
