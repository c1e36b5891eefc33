//! How a record becomes bytes of a file or a stream.
//!
//! Owns the choice between the formats, and what is the same for all records of one partition.
//! Touches no file. What always holds: each record becomes exactly one piece that ends in `\n`.

use super::json;
use crate::record::{Record, TopicPartition};

/// What is written of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, with topic, partition, offset, timestamp, key, value and headers; see
    /// [`json`]. Such a line never has a line break inside.
    Json,
    /// The value as it is, and `\n` behind it. Nothing else of the record is kept; a null value is
    /// an empty line, and a value that has line breaks itself can't be told from several records:
    /// choose [`Format::Json`] for those.
    Raw,
}

/// Writes records in one format, and allocates nothing for a record.
#[derive(Debug)]
pub(super) struct Encoder {
    format: Format,
    /// The beginning of a JSON line, the same for all records of the partition at hand.
    head: Vec<u8>,
}

impl Encoder {
    pub(super) const fn new(format: Format) -> Self {
        Self { format, head: Vec::new() }
    }

    /// To be called before the records of a partition.
    pub(super) fn begin(&mut self, partition: &TopicPartition) {
        if self.format == Format::Json {
            self.head.clear();
            json::append_head(&mut self.head, partition);
        }
    }

    /// Appends one record to `out`.
    pub(super) fn append(&self, out: &mut Vec<u8>, record: &Record<'_>) {
        match self.format {
            Format::Json => json::append_rest(out, &self.head, record),
            Format::Raw => {
                out.extend_from_slice(record.value.unwrap_or_default());
                out.push(b'\n');
            }
        }
    }
}

/// Records for the tests of the sinks.
#[cfg(test)]
pub(super) mod testing {
    use std::sync::Arc;

    use crate::record::{Arena, Headers, Offset, Record, Records};

    /// Key, value and timestamp of one record.
    pub(crate) type Content = (Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

    struct Owned {
        first: i64,
        contents: Vec<Content>,
    }

    impl Arena for Owned {
        fn record(&self, index: usize) -> Record<'_> {
            let (key, value, timestamp_ms) = &self.contents[index];
            Record {
                offset: Offset::new(self.first + index as i64).unwrap_or(Offset::ZERO),
                timestamp_ms: *timestamp_ms,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: Headers::default(),
            }
        }
    }

    /// Records from offset `first` on.
    pub(crate) fn records_from(first: i64, contents: Vec<Content>) -> Records {
        let count = contents.len();
        Records::new(Arc::new(Owned { first, contents }), 0..count)
    }

    /// Records from offset 0 on, with these values, and neither keys nor timestamps.
    pub(crate) fn records<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Records {
        records_from(0, values.into_iter().map(|value| (None, Some(value.as_ref().to_vec()), None)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::records_from;
    use super::*;

    #[test]
    fn raw_is_the_value_and_a_line_break() {
        let partition = TopicPartition::new("orders", 0);
        let mut encoder = Encoder::new(Format::Raw);
        let mut out = Vec::new();
        encoder.begin(&partition);
        let records =
            records_from(7, vec![(None, Some(b"\xff\0a".to_vec()), Some(1)), (Some(b"k".to_vec()), None, None)]);
        records.iter().for_each(|record| encoder.append(&mut out, &record));
        assert_eq!(out, b"\xff\0a\n\n");
    }

    #[test]
    fn json_lines_name_the_partition_that_was_begun_last() {
        let mut encoder = Encoder::new(Format::Json);
        let mut out = Vec::new();
        for topic in ["a", "b"] {
            encoder.begin(&TopicPartition::new(topic, 1));
            records_from(7, vec![(None, None, None)]).iter().for_each(|record| encoder.append(&mut out, &record));
        }
        assert_eq!(
            String::from_utf8_lossy(&out),
            "{\"topic\":\"a\",\"partition\":1,\"offset\":7,\"key\":null,\"value\":null}\n\
             {\"topic\":\"b\",\"partition\":1,\"offset\":7,\"key\":null,\"value\":null}\n"
        );
    }
}
