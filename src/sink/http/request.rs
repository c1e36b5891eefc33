//! What is sent: the body and the headers that tell where its records are from. Pure.
//!
//! README.md, "HTTP", is the specification. What always holds: whatever a record's key or headers are, each header's
//! value is printable ASCII without line ends, and has at most [`HEADER_MAX`] bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::record::{Headers, Record, Records, TopicPartition};
use crate::sink::json;

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A request a record: its value as it is.
    Record,
    /// A JSON array of the objects that the sink `file` writes.
    Json,
    /// These objects, each with a line end behind it.
    Ndjson,
}

impl Body {
    /// What the body is called in Content-Type, if nobody says otherwise.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Record => "application/octet-stream",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Of a header's value, in bytes: usual servers take 8 KiB for a line, and some no more for all of them.
pub(super) const HEADER_MAX: usize = 4 << 10;

/// Writes the body of the next request into `out`: as many of `records` from the first on as may be in it, but at
/// least one. Says how many.
pub(super) fn fill(
    body: Body,
    (max_records, max_bytes): (usize, usize),
    partition: &TopicPartition,
    records: &Records,
    out: &mut Vec<u8>,
) -> usize {
    out.clear();
    if body == Body::Record {
        let first = records.get(0);
        out.extend_from_slice(first.and_then(|record| record.value).unwrap_or_default());
        return usize::from(first.is_some());
    }
    let mut head = Vec::new();
    json::append_head(&mut head, partition);
    if body == Body::Json {
        out.push(b'[');
    }
    let mut count = 0;
    for record in records.iter().take(max_records.max(1)) {
        let start = out.len();
        json::append_rest(out, &head, &record);
        // Its last byte is a line end, in place of which an array has a comma, or its end.
        if count > 0 && out.len() > max_bytes {
            out.truncate(start);
            break;
        }
        if body == Body::Json
            && let Some(last) = out.last_mut()
        {
            *last = b',';
        }
        count += 1;
    }
    if body == Body::Json {
        match out.last_mut() {
            Some(last) if count > 0 => *last = b']',
            _ => out.push(b']'),
        }
    }
    count
}

/// The headers that say what is in the body: names, and values for each of them.
pub(super) fn headers(body: Body, partition: &TopicPartition, records: &Records) -> Vec<(&'static str, String)> {
    let mut list =
        vec![("Kafka-Topic", partition.topic.to_string()), ("Kafka-Partition", partition.partition.to_string())];
    let offset = |index: usize| records.get(index).map_or_else(String::new, |record| record.offset.to_string());
    if body == Body::Record {
        list.push(("Kafka-Offset", offset(0)));
        if let Some(record) = records.get(0) {
            of_record(&record, &mut list);
        }
    } else {
        list.push(("Kafka-First-Offset", offset(0)));
        list.push(("Kafka-Last-Offset", offset(records.len().saturating_sub(1))));
        list.push(("Kafka-Record-Count", records.len().to_string()));
    }
    list
}

fn of_record(record: &Record<'_>, list: &mut Vec<(&'static str, String)>) {
    if let Some(timestamp) = record.timestamp_ms {
        list.push(("Kafka-Timestamp", timestamp.to_string()));
    }
    if let Some(key) = record.key {
        list.push(key_header(key));
    }
    if record.value.is_none() {
        list.push(("Kafka-Null-Value", "true".to_owned()));
    }
    list.extend(headers_header(record.headers));
}

fn key_header(key: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(key) {
        Ok(text) if key.iter().all(u8::is_ascii_graphic) && key.len() <= HEADER_MAX => ("Kafka-Key", text.to_owned()),
        _ if key.len().div_ceil(3) * 4 <= HEADER_MAX => ("Kafka-Key-Base64", STANDARD.encode(key)),
        _ => ("Kafka-Key-Length", key.len().to_string()),
    }
}

/// The headers of the record as the list that they are in JSON, in ASCII: so no name or value of theirs is one of
/// HTTP's.
fn headers_header(headers: Headers<'_>) -> Option<(&'static str, String)> {
    let count = headers.count();
    if count == 0 {
        return None;
    }
    let mut json = Vec::new();
    json::append_headers(&mut json, headers);
    let text = String::from_utf8(json).unwrap_or_default();
    let list = text.strip_prefix(",\"headers\":").unwrap_or_default();
    let mut ascii = String::with_capacity(list.len());
    for c in list.chars() {
        // Outside of texts JSON is ASCII, so what is not stands in one.
        if c.is_ascii() && !c.is_ascii_control() {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            ascii.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
        if ascii.len() > HEADER_MAX {
            return Some(("Kafka-Headers-Count", count.to_string()));
        }
    }
    Some(("Kafka-Headers", ascii))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Arena, Offset, Written};

    struct Some10;

    impl Arena for Some10 {
        fn record(&self, index: usize) -> Record<'_> {
            let value = Some(&b"0123456789"[..index.min(10)]).filter(|_| index != 3);
            Record { offset: Offset::new(index as i64 + 5).unwrap(), key: Some(b"k"), value, ..Record::default() }
        }
    }

    fn filled(body: Body, limits: (usize, usize), from: usize) -> (usize, String) {
        let records = Records::new(Arc::new(Some10), from..10);
        let mut out = b"left".to_vec();
        let count = fill(body, limits, &TopicPartition::new("t", 2), &records, &mut out);
        (count, String::from_utf8(out).unwrap())
    }

    #[test]
    fn bodies_have_their_form_and_keep_their_limits() {
        assert_eq!(filled(Body::Record, (9, 1), 4), (1, "0123".to_owned()));
        assert_eq!(filled(Body::Record, (9, 1), 3), (1, String::new()));
        let one = |offset: i64, value: &str| {
            format!(r#"{{"topic":"t","partition":2,"offset":{offset},"key":"k","value":{value}}}"#)
        };
        let (a, b) = (one(7, "\"01\""), one(8, "null"));
        assert_eq!(filled(Body::Ndjson, (2, 1 << 20), 2), (2, format!("{a}\n{b}\n")));
        assert_eq!(filled(Body::Json, (2, 1 << 20), 2), (2, format!("[{a},{b}]")));
        let both = a.len() + b.len() + 2;
        assert_eq!(filled(Body::Ndjson, (9, both), 2), (2, format!("{a}\n{b}\n")));
        assert_eq!(filled(Body::Ndjson, (9, both - 1), 2), (1, format!("{a}\n")));
        assert_eq!(filled(Body::Json, (9, both), 2), (1, format!("[{a}]")));
        assert_eq!(filled(Body::Json, (9, both + 1), 2), (2, format!("[{a},{b}]")));
        assert_eq!(filled(Body::Json, (9, 1), 2), (1, format!("[{a}]")), "one record may have more");
        assert_eq!(filled(Body::Json, (100, 1 << 20), 0).0, 10);
    }

    #[test]
    fn headers_say_where_records_are_from() {
        let (part, records) = (TopicPartition::new("t", 2), Records::new(Arc::new(Some10), 3..6));
        let own = |name: &'static str, value: &str| (name, value.to_owned());
        assert_eq!(
            headers(Body::Json, &part, &records),
            [
                own("Kafka-Topic", "t"),
                own("Kafka-Partition", "2"),
                own("Kafka-First-Offset", "8"),
                own("Kafka-Last-Offset", "10"),
                own("Kafka-Record-Count", "3"),
            ]
        );
        assert_eq!(
            headers(Body::Record, &part, &records.slice(0..1)),
            [
                own("Kafka-Topic", "t"),
                own("Kafka-Partition", "2"),
                own("Kafka-Offset", "8"),
                own("Kafka-Key", "k"),
                own("Kafka-Null-Value", "true"),
            ]
        );
    }

    #[test]
    fn a_key_is_sent_as_it_is_in_base64_or_as_its_length() {
        let own = |name: &'static str, value: &str| (name, value.to_owned());
        assert_eq!(key_header(b"user:7/\"x\""), own("Kafka-Key", "user:7/\"x\""));
        assert_eq!(key_header(b""), own("Kafka-Key", ""));
        for (key, coded) in
            [(&b"a b"[..], "YSBi"), (b" a", "IGE="), ("é".as_bytes(), "w6k="), (b"\r\nX: y", "DQpYOiB5")]
        {
            assert_eq!(key_header(key), own("Kafka-Key-Base64", coded));
        }
        assert_eq!(key_header(&[b'a'; HEADER_MAX]).0, "Kafka-Key");
        assert_eq!(key_header(&[b'a'; HEADER_MAX + 1]), own("Kafka-Key-Length", "4097"));
        assert_eq!(key_header(&[0; 3072]).0, "Kafka-Key-Base64");
        assert_eq!(key_header(&[0; 3073]), own("Kafka-Key-Length", "3073"));
    }

    fn sent(headers: &[(&str, Option<&[u8]>)]) -> Option<(&'static str, String)> {
        let written = Written::new(headers);
        headers_header(Headers::of(&written, 0))
    }

    #[test]
    fn headers_of_a_record_are_one_header_in_ascii() {
        assert_eq!(sent(&[]), None);
        let (name, value) =
            sent(&[("trace", Some(b"7")), ("é😀\r\nX", Some(b"a\x7f")), ("n", None), ("n", Some(b"\xff"))]).unwrap();
        assert_eq!(name, "Kafka-Headers");
        assert_eq!(
            value,
            "[{\"name\":\"trace\",\"value\":\"7\"},{\"name\":\"\\u00e9\\ud83d\\ude00\\r\\nX\",\"value\":\"a\\u007f\"},\
             {\"name\":\"n\",\"value\":null},{\"name\":\"n\",\"value_base64\":\"/w==\"}]"
        );
        let large = [b'x'; HEADER_MAX];
        assert_eq!(sent(&[("a", Some(&large)), ("b", None)]), Some(("Kafka-Headers-Count", "2".to_owned())));
    }

    proptest! {
        #[test]
        fn no_key_and_no_header_gets_out_of_its_line(
            key in proptest::collection::vec(any::<u8>(), 0..5_000),
            headers in proptest::collection::vec((any::<String>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))), 0..6),
        ) {
            let list: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            for (name, value) in sent(&list).into_iter().chain([key_header(&key)]) {
                prop_assert!(value.len() <= HEADER_MAX && value.bytes().all(|b| (0x20..0x7f).contains(&b)), "{}: {}", name, value);
                if name == "Kafka-Headers" {
                    let read: serde_json::Value = serde_json::from_str(&value).unwrap();
                    let names: Vec<_> = read.as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap()).collect();
                    prop_assert_eq!(names, list.iter().map(|(name, _)| *name).collect::<Vec<_>>());
                }
            }
        }
    }
}
