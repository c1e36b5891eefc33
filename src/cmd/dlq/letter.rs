//! A dead letter as it stands in its file or its topic. What writes it is [`crate::dead_letter`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[cfg(feature = "librdkafka")]
use crate::dead_letter::{self, HEADERS};
use crate::record::{Arena, Header, Headers, Offset, Record, TopicPartition};

/// A line.
#[derive(Debug, Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    value: Value,
    #[serde(default)]
    headers: Vec<HeaderLine>,
    #[serde(default)]
    sink: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    attempts: u32,
    first_failure: Option<i64>,
    dead: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Key {
    key: Option<String>,
    key_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Value {
    value: Option<String>,
    value_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HeaderLine {
    name: String,
    #[serde(flatten)]
    value: Value,
}

fn bytes(text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (_, Some(base64)) => STANDARD.decode(base64).map(Some).map_err(|error| format!("is no base64: {error}")),
        (text, None) => Ok(text.map(String::into_bytes)),
    }
}

/// A dead letter.
#[derive(Debug)]
pub(super) struct Letter {
    /// Where the record comes from.
    pub(super) partition: TopicPartition,
    pub(super) offset: Offset,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    /// The sink that did not take it.
    pub(super) sink: String,
    pub(super) reason: String,
    pub(super) attempts: u32,
    /// Milliseconds since 1970 (UTC).
    pub(super) first_failure_ms: Option<i64>,
    pub(super) dead_ms: Option<i64>,
}

impl Letter {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| format!("is no dead letter: {error}"))?;
        let offset = Offset::new(line.offset).ok_or_else(|| format!("has the offset {}", line.offset))?;
        let header = |header: HeaderLine| Ok((header.name, bytes(header.value.value, header.value.value_base64)?));
        Ok(Self {
            partition: TopicPartition::new(line.topic, line.partition),
            offset,
            timestamp_ms: line.timestamp,
            key: bytes(line.key.key, line.key.key_base64)?,
            value: bytes(line.value.value, line.value.value_base64)?,
            headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
            sink: line.sink,
            reason: line.reason,
            attempts: line.attempts,
            first_failure_ms: line.first_failure,
            dead_ms: line.dead,
        })
    }
}

#[cfg(feature = "librdkafka")]
impl Letter {
    /// From a record of a topic.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of(record: &Record<'_>) -> Result<Self, String> {
        let mut headers: Vec<(String, Option<Vec<u8>>)> =
            record.headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect();
        // The record may have been a dead letter before: the last ones are ours.
        let first = headers.len().checked_sub(HEADERS.len());
        let own = first.map(|first| headers.split_off(first)).unwrap_or_default();
        if !own.iter().map(|(name, _)| name.as_str()).eq(HEADERS) {
            return Err(format!("is no dead letter: its last headers are not {}", HEADERS.join(", ")));
        }
        let text = |at: usize| {
            let value = own.get(at).and_then(|(_, value)| value.as_deref()).unwrap_or_default();
            String::from_utf8(value.to_vec()).map_err(|_| format!("has a header {} that is no text", HEADERS[at]))
        };
        let number =
            |at: usize| text(at)?.parse::<i64>().map_err(|_| format!("has a header {} that is no number", HEADERS[at]));
        let short =
            |at: usize| i32::try_from(number(at)?).map_err(|_| format!("has a header {} too large", HEADERS[at]));
        let offset = Offset::new(number(2)?).ok_or("has a negative offset")?;
        Ok(Self {
            partition: TopicPartition::new(text(0)?, short(1)?),
            offset,
            timestamp_ms: own.get(3).is_some_and(|(_, value)| value.is_some()).then(|| number(3)).transpose()?,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            sink: text(4)?,
            reason: text(5)?,
            attempts: short(6)?.unsigned_abs(),
            first_failure_ms: Some(number(7)?),
            dead_ms: Some(number(8)?),
        })
    }

    /// The line that it would be in a file.
    pub(super) fn line(self) -> (String, Self) {
        let kept = Kept(vec![self]);
        let mut line = Vec::new();
        for letter in &kept.0 {
            let whole = dead_letter::Letter {
                partition: &letter.partition,
                record: kept.record(0),
                sink: &letter.sink,
                reason: &letter.reason,
                attempts: letter.attempts,
                first_failure_ms: letter.first_failure_ms.unwrap_or_default(),
                dead_ms: letter.dead_ms.unwrap_or_default(),
            };
            whole.append(&mut line);
        }
        line.pop();
        let text = String::from_utf8_lossy(&line).into_owned();
        let Kept(mut letters) = kept;
        // It is the one that went in.
        (text, letters.remove(0))
    }
}

/// Letters as records.
pub(super) struct Kept(pub(super) Vec<Letter>);

impl Arena for Kept {
    fn record(&self, index: usize) -> Record<'_> {
        let Some(letter) = self.0.get(index) else { return Record::default() };
        Record {
            offset: letter.offset,
            timestamp_ms: letter.timestamp_ms,
            key: letter.key.as_deref(),
            value: letter.value.as_deref(),
            headers: Headers::of(self, index),
        }
    }

    fn header(&self, index: usize, number: usize) -> Option<Header<'_>> {
        let (name, value) = self.0.get(index)?.headers.get(number)?;
        Some((name, value.as_deref()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        let text = any::<String>().prop_map(String::into_bytes);
        proptest::option::of(prop_oneof![text, proptest::collection::vec(any::<u8>(), 0..20)])
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(
            (offset, timestamp_ms) in (0..i64::MAX, proptest::option::of(any::<i64>())),
            (key, value) in (some_bytes(), some_bytes()),
            headers in proptest::collection::vec((any::<String>(), some_bytes()), 0..4),
            reason in any::<String>(),
        ) {
            let partition = TopicPartition::new("orders", 3);
            let offset = Offset::new(offset).unwrap();
            let kept = Kept(vec![Letter {
                partition: partition.clone(), offset, timestamp_ms, key, value, headers,
                sink: "out".to_owned(), reason, attempts: 2, first_failure_ms: Some(5), dead_ms: Some(6),
            }]);
            let mut line = Vec::new();
            let letter = dead_letter::Letter {
                partition: &partition, record: kept.record(0), sink: "out", reason: &kept.0[0].reason,
                attempts: 2, first_failure_ms: 5, dead_ms: 6,
            };
            letter.append(&mut line);
            let read = Letter::parse(std::str::from_utf8(&line).unwrap()).unwrap();
            prop_assert_eq!(format!("{:?}", read), format!("{:?}", kept.0[0]));
        }

        #[test]
        fn any_text_is_a_letter_or_an_error(text in any::<String>()) {
            let _ = Letter::parse(&text);
        }
    }
}
