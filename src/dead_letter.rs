//! Dead letters: records that a sink did not take, with all that is needed to try them again.
//!
//! Owns the form of a letter and the file that letters are appended to. A letter is a line of JSON: the record as
//! [`crate::sink::json`] writes it, byte for byte, and behind it
//! - `sink`, the one that did not take it, and `reason`, its words;
//! - `attempts`, how often it was tried;
//! - `first_failure` and `dead`, when that began and ended: milliseconds since 1970 (UTC).
//!
//! What always holds: what was put is on the disk before `put` returns, as the sink `file` promises it; and the same
//! record may be there more than once, for instance after a crash.

use std::path::Path;

use crate::record::{Record, TopicPartition};
use crate::sink::file::{FileSink, OpenError};
use crate::sink::{Format, Sink as _, json};

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
