//! Dead letters: records that a sink did not take, with all that is needed to try them again.
//!
//! Owns the form of a letter, and where letters go: a file that they are appended to, or a topic. In a file a letter is a
//! line of JSON: the record as [`crate::sink::json`] writes it, byte for byte, and behind it
//! - `sink`, the one that did not take it, and `reason`, its words;
//! - `attempts`, how often it was tried;
//! - `first_failure` and `dead`, when that began and ended: milliseconds since 1970 (UTC).
//!
//! In a topic a letter is the record with its key, value and headers, and behind these headers of its own
//! ([`HEADERS`]). Its timestamp is `dead`: with that of the record retention could delete it at once.
//!
//! What always holds: what was put is on the disk, or with all replicas in sync, before `put` returns; and the same
//! record may be there more than once, for instance after a crash.

use std::path::Path;

use crate::record::{Record, TopicPartition};
use crate::sink::file::{FileSink, OpenError};
#[cfg(feature = "librdkafka")]
use crate::sink::kafka::{KafkaSink, Settings};
use crate::sink::{Format, Sink as _, json};

/// The headers of a letter in a topic, in their order; numbers are written in decimal digits. That of the timestamp is
/// null if the record has none.
pub const HEADERS: [&str; 9] = [
    "dead_letter.topic",
    "dead_letter.partition",
    "dead_letter.offset",
    "dead_letter.timestamp",
    "dead_letter.sink",
    "dead_letter.reason",
    "dead_letter.attempts",
    "dead_letter.first_failure",
    "dead_letter.dead",
];

/// A record that was given up.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Where it comes from.
    pub partition: &'a TopicPartition,
    /// The record.
    pub record: Record<'a>,
    /// The sink that did not take it.
    pub sink: &'a str,
    /// Why not.
    pub reason: &'a str,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was not taken for the first time: milliseconds since 1970 (UTC).
    pub first_failure_ms: i64,
    /// When it was given up: milliseconds since 1970 (UTC).
    pub dead_ms: i64,
}

impl Letter<'_> {
    /// Appends its line.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        json::append_head(out, self.partition);
        json::append_rest(out, &[], &self.record);
        // The record's own brace and line break: the object goes on.
        out.truncate(out.len() - 2);
        json::append_text(out, "sink", self.sink);
        json::append_text(out, "reason", self.reason);
        json::append_number(out, "attempts", i64::from(self.attempts));
        json::append_number(out, "first_failure", self.first_failure_ms);
        json::append_number(out, "dead", self.dead_ms);
        out.extend_from_slice(b"}\n");
    }

    /// The values of [`HEADERS`].
    #[cfg(feature = "librdkafka")]
    fn headers(&self) -> [Option<String>; 9] {
        [
            Some(self.partition.topic.to_string()),
            Some(self.partition.partition.to_string()),
            Some(self.record.offset.to_string()),
            self.record.timestamp_ms.map(|ms| ms.to_string()),
            Some(self.sink.to_owned()),
            Some(self.reason.to_owned()),
            Some(self.attempts.to_string()),
            Some(self.first_failure_ms.to_string()),
            Some(self.dead_ms.to_string()),
        ]
    }
}

/// Where letters go.
#[derive(Debug)]
pub enum Destination {
    /// A file.
    File(LetterFile),
    /// A topic.
    #[cfg(feature = "librdkafka")]
    Topic(Box<LetterTopic>),
}

impl Destination {
    /// Puts letters, all or none of them.
    pub(crate) fn put<'a>(&mut self, letters: impl Iterator<Item = Letter<'a>>) -> Result<(), String> {
        match self {
            Self::File(file) => file.put(letters),
            #[cfg(feature = "librdkafka")]
            Self::Topic(topic) => topic.put(letters),
        }
    }

    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        match self {
            Self::File(file) => file.reopen(),
            #[cfg(feature = "librdkafka")]
            Self::Topic(_) => Ok(()),
        }
    }
}

/// The topic that letters go to.
#[cfg(feature = "librdkafka")]
#[derive(Debug)]
pub struct LetterTopic(KafkaSink);

#[cfg(feature = "librdkafka")]
impl LetterTopic {
    /// Nothing is connected before the first letter.
    pub fn new(settings: &Settings) -> Self {
        Self(KafkaSink::new("dead_letter", settings))
    }

    fn put<'a>(&mut self, letters: impl Iterator<Item = Letter<'a>>) -> Result<(), String> {
        for letter in letters {
            let values = letter.headers();
            let more: Vec<_> =
                HEADERS.into_iter().zip(values.iter().map(|v| v.as_deref().map(str::as_bytes))).collect();
            let record = Record { timestamp_ms: Some(letter.dead_ms), ..letter.record };
            self.0.put(letter.partition, letter.sink, &record, &more)?;
        }
        self.0.flush()
    }
}

/// The file that letters go to.
#[derive(Debug)]
pub struct LetterFile(FileSink);

impl LetterFile {
    /// Opens `path`, or makes it, and locks it.
    ///
    /// # Errors
    /// It can't be opened, is no file, or is written by somebody else.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        FileSink::open(path, Format::Json, None).map(Self)
    }

    /// Appends letters, all or none of them.
    pub(crate) fn put<'a>(&mut self, letters: impl Iterator<Item = Letter<'a>>) -> Result<(), String> {
        for letter in letters {
            self.0.append(|line| letter.append(line))?;
        }
        self.0.flush()
    }

    pub(crate) fn reopen(&mut self) -> Result<(), String> {
        self.0.reopen()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::Offset;

    #[test]
    fn a_letter_is_the_record_and_what_became_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.jsonl");
        let mut file = LetterFile::open(&path).unwrap();
        let partition = TopicPartition::new("orders", 3);
        let record = Record {
            offset: Offset::new(12).unwrap(),
            timestamp_ms: Some(1),
            key: None,
            value: Some(b"\xff\n"),
            ..Record::default()
        };
        let letter = Letter {
            partition: &partition,
            record,
            sink: "out",
            reason: "it said \"no\"",
            attempts: 2,
            first_failure_ms: 5,
            dead_ms: 6,
        };
        file.put([letter, letter].into_iter()).unwrap();
        let line = concat!(
            r#"{"topic":"orders","partition":3,"offset":12,"timestamp":1,"key":null,"value_base64":"/wo=","#,
            r#""sink":"out","reason":"it said \"no\"","attempts":2,"first_failure":5,"dead":6}"#,
            "\n"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line.repeat(2));
    }
}
