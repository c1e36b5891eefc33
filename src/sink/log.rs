//! The sink `log`: one line of the worker's own log a record.
//!
//! For looking at a topic, and as the default of a first start. It never fails, and blocks as long as
//! the logger does (standard error: a pipe that nobody reads blocks it without a bound). What the
//! logger does with a line can't be known: a record counts as delivered once the line was handed over.
//!
//! What always holds: one record is one line, whatever its bytes. Key and value stand in quotes;
//! quotes, backslashes, line breaks and whatever else can't be printed are escaped as in a Rust
//! string, so that a record can neither forge a log line nor a `key=value` detail of its own. Headers are one such text.

use std::fmt;

use log::Level;

use super::{Sink, Stopped};
use crate::record::{Headers, Record, Records, TopicPartition};

/// Logs each record at one level.
#[derive(Debug)]
pub struct LogSink {
    level: Level,
    max_value_bytes: usize,
}

impl LogSink {
    /// Logs at `level`. Of a key and of a value at most `max_value_bytes` bytes are shown, and how
    /// many were cut off is said behind them.
    pub const fn new(level: Level, max_value_bytes: usize) -> Self {
        Self { level, max_value_bytes }
    }
}

impl Sink for LogSink {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        if log::log_enabled!(self.level) {
            for record in records.iter() {
                log::log!(self.level, "{}", Line { partition, record, max_bytes: self.max_value_bytes });
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        log::logger().flush();
        Ok(())
    }
}

/// `record topic=orders partition=3 offset=12 timestamp=1700000000000 key="a" value="b" headers="trace=7, by=null"`
struct Line<'a> {
    partition: &'a TopicPartition,
    record: Record<'a>,
    max_bytes: usize,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} offset={}", self.partition, self.record.offset)?;
        if let Some(timestamp) = self.record.timestamp_ms {
            write!(f, " timestamp={timestamp}")?;
        }
        let headers = headers(self.record.headers);
        let headers = (!headers.is_empty()).then_some(("headers", Some(headers.as_bytes())));
        for (name, bytes) in [("key", self.record.key), ("value", self.record.value)].into_iter().chain(headers) {
            let Some(bytes) = bytes else {
                write!(f, " {name}=null")?;
                continue;
            };
            let shown = &bytes[..whole_characters(bytes, self.max_bytes)];
            write!(f, " {name}={:?}", String::from_utf8_lossy(shown))?;
            if shown.len() < bytes.len() {
                write!(f, " {name}_cut_bytes={}", bytes.len() - shown.len())?;
            }
        }
        Ok(())
    }
}

/// `a=1, b=null`: for people; a sink that writes JSON tells exactly what is what.
fn headers(headers: Headers<'_>) -> String {
    let mut text = String::new();
    for (name, value) in headers {
        let comma = if text.is_empty() { "" } else { ", " };
        let value = value.map_or("null".into(), String::from_utf8_lossy);
        text.extend([comma, name, "=", &value]);
    }
    text
}

/// How many of the first `max` bytes to show, so that a UTF-8 character is not cut in two. Bytes that
/// are no UTF-8 are cut at `max` itself, give or take the length of a character.
fn whole_characters(bytes: &[u8], max: usize) -> usize {
    if bytes.len() <= max {
        return bytes.len();
    }
    // A character has at most three bytes behind its first one, and those are 10xxxxxx.
    let earliest = max.saturating_sub(3);
    (earliest..=max).rev().find(|&end| bytes[end] & 0xc0 != 0x80).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Offset, Written};

    fn line(key: Option<&[u8]>, value: Option<&[u8]>, max_bytes: usize) -> String {
        let record = Record { offset: Offset::ZERO, key, value, ..Record::default() };
        Line { partition: &TopicPartition::new("orders", 3), record, max_bytes }.to_string()
    }

    #[test]
    fn a_line_shows_where_the_record_is_from_and_what_is_in_it() {
        assert_eq!(
            line(Some("车".as_bytes()), Some(b"{\"a\":1}"), 100),
            "record topic=orders partition=3 offset=0 key=\"车\" value=\"{\\\"a\\\":1}\""
        );
        assert_eq!(line(None, Some(b""), 100), "record topic=orders partition=3 offset=0 key=null value=\"\"");
    }

    #[test]
    fn headers_and_the_time_are_shown_where_there_are_some() {
        let written = Written::new(&[("trace", Some(b"7")), ("by", None), ("x\"\n", Some(b"\xff=1"))]);
        let record = Record { timestamp_ms: Some(17), headers: Headers::of(&written, 0), ..Record::default() };
        let line = |max_bytes| Line { partition: &TopicPartition::new("t", 0), record, max_bytes }.to_string();
        let rest = "record topic=t partition=0 offset=0 timestamp=17 key=null value=null";
        assert_eq!(line(100), format!("{rest} headers=\"trace=7, by=null, x\\\"\\n=�=1\""));
        assert_eq!(line(7), format!("{rest} headers=\"trace=7\" headers_cut_bytes=20"));
    }

    #[test]
    fn a_record_cannot_forge_a_line_or_a_detail() {
        let line = line(None, Some(b"x\r\n[ERROR] \x1b[2J\" offset=99\xff\xc2\x85\xe2\x80\xae"), 100);
        assert!(line.ends_with(r#"key=null value="x\r\n[ERROR] \u{1b}[2J\" offset=99�\u{85}\u{202e}""#), "{line}");
    }

    #[test]
    fn what_is_cut_is_counted_and_characters_stay_whole() {
        assert!(line(None, Some(b"abcdef"), 4).ends_with("value=\"abcd\" value_cut_bytes=2"));
        assert!(line(None, Some(b"abcdef"), 6).ends_with("value=\"abcdef\""));
        assert!(line(None, Some(b"abcdef"), 0).ends_with("value=\"\" value_cut_bytes=6"));
        assert!(line(None, Some("ab价格".as_bytes()), 4).ends_with("value=\"ab\" value_cut_bytes=6"));
        assert!(line(Some("价格".as_bytes()), None, 3).ends_with("key=\"价\" key_cut_bytes=3 value=null"));
        // No UTF-8 at all: still cut near the limit, not at the beginning.
        assert_eq!(whole_characters(&[0x80; 100], 50), 50);
    }

    proptest! {
        #[test]
        fn any_record_is_one_printable_line(
            key in any::<Option<Vec<u8>>>(),
            text in any::<String>(),
            max_bytes in 0_usize..60,
        ) {
            let line = line(key.as_deref(), Some(text.as_bytes()), max_bytes);
            prop_assert!(!line.chars().any(char::is_control), "{}", line);
            let shown = whole_characters(text.as_bytes(), max_bytes);
            prop_assert!(shown <= max_bytes && text.is_char_boundary(shown));
            prop_assert!(shown + 4 > max_bytes.min(text.len()));
        }
    }
}
