//! A record as one line of JSON.
//!
//! ```json
//! {"topic":"orders","partition":0,"offset":12,"timestamp":1700000000000,"key":"a","value":"b"}
//! ```
//! - `timestamp` is in milliseconds since 1970 (UTC), and absent where the client does not know it.
//! - `key` and `value` are strings, or null for a null key or value.
//! - A key or value that is not UTF-8 stands in base64 (RFC 4648, section 4, with padding) under
//!   `key_base64` or `value_base64`, in place of `key` or `value`: the name tells which it is.
//! - `headers` are a list of objects in the order in which they were written, as a name may be there more than once:
//!   `"headers":[{"name":"a","value":"b"},{"name":"a","value_base64":"//4="},{"name":"c","value":null}]`. Without
//!   headers there is no `headers`.
//! - Numbers are written in full. A reader that keeps numbers as doubles (JavaScript) has offsets
//!   exact up to 2^53.
//!
//! Written by hand straight into the buffer of the sink: nothing is allocated, and text without
//! characters to escape is copied in runs. Touches no file. What always holds: what is appended is
//! valid JSON (RFC 8259) and has exactly one `\n`, its last byte.

use crate::record::{Headers, Record, TopicPartition};

/// Appends the part that all records of a partition share: `{"topic":"orders","partition":0,"offset":`.
pub fn append_head(out: &mut Vec<u8>, partition: &TopicPartition) {
    out.extend_from_slice(b"{\"topic\":\"");
    append_escaped(out, partition.topic.as_bytes());
    out.extend_from_slice(b"\",\"partition\":");
    append_decimal(out, i64::from(partition.partition));
    out.extend_from_slice(b",\"offset\":");
}

/// Appends the line of `record`, of which `head` is the beginning as [`append_head`] wrote it.
pub fn append_rest(out: &mut Vec<u8>, head: &[u8], record: &Record<'_>) {
    out.extend_from_slice(head);
    append_tail(out, record);
}

/// The same with a number before all else: `{"seq":7,"topic":"orders",…`.
pub fn append_numbered(out: &mut Vec<u8>, seq: u64, head: &[u8], record: &Record<'_>) {
    out.extend_from_slice(b"{\"seq\":");
    append_decimal(out, seq.cast_signed());
    out.push(b',');
    // The head begins with a brace.
    out.extend_from_slice(&head[1..]);
    append_tail(out, record);
}

/// Appends what stands behind `"offset":`.
fn append_tail(out: &mut Vec<u8>, record: &Record<'_>) {
    append_decimal(out, record.offset.get());
    if let Some(timestamp) = record.timestamp_ms {
        append_number(out, "timestamp", timestamp);
    }
    append_bytes(out, "key", record.key);
    append_bytes(out, "value", record.value);
    append_headers(out, record.headers);
    out.extend_from_slice(b"}\n");
}

/// Appends `,"name":"text"`.
pub(crate) fn append_text(out: &mut Vec<u8>, name: &str, text: &str) {
    append_bytes(out, name, Some(text.as_bytes()));
}

/// Appends `,"name":number`.
pub(crate) fn append_number(out: &mut Vec<u8>, name: &str, number: i64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    append_decimal(out, number);
}

/// Appends `,"headers":[…]` if there are some.
pub(super) fn append_headers(out: &mut Vec<u8>, headers: Headers<'_>) {
    let start = out.len();
    for (name, value) in headers {
        out.extend_from_slice(if out.len() == start { b",\"headers\":[" } else { b"," });
        out.extend_from_slice(b"{\"name\":\"");
        append_escaped(out, name.as_bytes());
        out.push(b'"');
        append_bytes(out, "value", value);
        out.push(b'}');
    }
    if out.len() > start {
        out.push(b']');
    }
}

/// Appends `,"name":…`, as text where that is possible.
fn append_bytes(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    match bytes {
        None => out.extend_from_slice(b"\":null"),
        Some(bytes) if std::str::from_utf8(bytes).is_ok() => {
            out.extend_from_slice(b"\":\"");
            append_escaped(out, bytes);
            out.push(b'"');
        }
        Some(bytes) => {
            out.extend_from_slice(b"_base64\":\"");
            append_base64(out, bytes);
            out.push(b'"');
        }
    }
}

/// For each byte what stands behind the backslash in its escape: 0 for one that is written as it is,
/// `u` for one that needs its number. RFC 8259, section 7: quotes, the backslash and everything
/// below U+0020 must be escaped, nothing else.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[b'\n' as usize] = b'n';
    escapes[b'\r' as usize] = b'r';
    escapes[b'\t' as usize] = b't';
    escapes[0x08] = b'b';
    escapes[0x0c] = b'f';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Appends UTF-8 text as the inside of a JSON string. No byte of a multi-byte character needs an
/// escape, so that this can go byte by byte.
fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0) {
        let byte = rest[at];
        out.extend_from_slice(&rest[..at]);
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            short => out.extend_from_slice(&[b'\\', short]),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a whole number in decimal. `write!` would do, at several times the cost.
fn append_decimal(out: &mut Vec<u8>, number: i64) {
    // The longest i64 has 19 digits.
    let mut digits = [0_u8; 19];
    let mut start = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends base64 with the standard alphabet and padding (RFC 4648, section 4).
fn append_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let symbol = |bits: u32, shift: u32| ALPHABET[(bits >> shift & 63) as usize];
    out.reserve(bytes.len().div_ceil(3) * 4);
    let (groups, tail) = bytes.as_chunks::<3>();
    for &[a, b, c] in groups {
        let bits = u32::from_be_bytes([0, a, b, c]);
        out.extend_from_slice(&[symbol(bits, 18), symbol(bits, 12), symbol(bits, 6), symbol(bits, 0)]);
    }
    match *tail {
        [a] => {
            let bits = u32::from_be_bytes([0, a, 0, 0]);
            out.extend_from_slice(&[symbol(bits, 18), symbol(bits, 12), b'=', b'=']);
        }
        [a, b] => {
            let bits = u32::from_be_bytes([0, a, b, 0]);
            out.extend_from_slice(&[symbol(bits, 18), symbol(bits, 12), symbol(bits, 6), b'=']);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::record::{Offset, Written};

    fn line(partition: &TopicPartition, record: &Record<'_>) -> Vec<u8> {
        let (mut head, mut out) = (Vec::new(), Vec::new());
        append_head(&mut head, partition);
        append_rest(&mut out, &head, record);
        out
    }

    fn base64(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        append_base64(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    /// Base64 backwards, written on purpose in another way than the encoder: bit by bit.
    fn decode(text: &str) -> Vec<u8> {
        assert_eq!(text.len() % 4, 0, "not padded: {text}");
        let alphabet = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect::<String>();
        let mut bits = Vec::new();
        for symbol in text.trim_end_matches('=').chars() {
            let number = alphabet.find(symbol).expect("a symbol of the alphabet");
            bits.extend((0..6).rev().map(|bit| number >> bit & 1));
        }
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | *bit as u8)).collect()
    }

    /// What a reader makes of `name`, whichever of its two names it has.
    fn read(line: &Value, name: &str) -> Option<Vec<u8>> {
        let coded = format!("{name}_base64");
        match (line.get(name), line.get(&coded)) {
            (Some(Value::Null), None) => None,
            (Some(Value::String(text)), None) => Some(text.as_bytes().to_vec()),
            (None, Some(Value::String(text))) => {
                let bytes = decode(text);
                assert!(std::str::from_utf8(&bytes).is_err(), "text stands in base64: {text}");
                Some(bytes)
            }
            other => panic!("neither or both of {name} and {coded}: {other:?}"),
        }
    }

    #[test]
    fn a_line_has_its_fields_in_order() {
        let partition = TopicPartition::new("orders", 3);
        let mut record = Record {
            offset: Offset::new(12).unwrap(),
            timestamp_ms: Some(1_700_000_000_000),
            key: Some(b"k\"\\\n\x01\x7f"),
            value: Some("\u{2028}价".as_bytes()),
            headers: Headers::default(),
        };
        assert_eq!(
            String::from_utf8(line(&partition, &record)).unwrap(),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":12,\"timestamp\":1700000000000,\
             \"key\":\"k\\\"\\\\\\n\\u0001\x7f\",\"value\":\"\u{2028}价\"}\n"
        );
        record.timestamp_ms = None;
        record.key = None;
        record.value = Some(b"\xff\xfe");
        assert_eq!(
            String::from_utf8(line(&partition, &record)).unwrap(),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":12,\"key\":null,\"value_base64\":\"//4=\"}\n"
        );
    }

    #[test]
    fn headers_keep_their_order_their_doubles_and_what_they_are() {
        let written = Written::new(&[("a\"", Some(b"1")), ("b", None), ("a\"", Some(b"\xff\xfe")), ("", Some(b""))]);
        let record = Record { offset: Offset::ZERO, headers: Headers::of(&written, 0), ..Record::default() };
        assert_eq!(
            String::from_utf8(line(&TopicPartition::new("t", 0), &record)).unwrap(),
            "{\"topic\":\"t\",\"partition\":0,\"offset\":0,\"key\":null,\"value\":null,\"headers\":[\
             {\"name\":\"a\\\"\",\"value\":\"1\"},{\"name\":\"b\",\"value\":null},\
             {\"name\":\"a\\\"\",\"value_base64\":\"//4=\"},{\"name\":\"\",\"value\":\"\"}]}\n"
        );
    }

    #[test]
    fn empty_is_not_null() {
        let record = Record { offset: Offset::ZERO, key: Some(b""), value: Some(b""), ..Record::default() };
        assert!(line(&TopicPartition::new("t", 0), &record).ends_with(b"\"key\":\"\",\"value\":\"\"}\n"));
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // The test vectors of RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn every_single_byte_comes_back() {
        for byte in 0..=u8::MAX {
            let bytes = [b'a', byte, b'b'];
            let record = Record { offset: Offset::ZERO, value: Some(&bytes), ..Record::default() };
            let parsed = serde_json::from_slice(&line(&TopicPartition::new("t", 0), &record)).unwrap();
            assert_eq!(read(&parsed, "value"), Some(bytes.to_vec()), "byte {byte:#x}");
        }
    }

    fn content() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![
            1 => Just(None),
            3 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Some),
            3 => any::<String>().prop_map(|text| Some(text.into_bytes())),
            2 => "[\\x00-\\x7f]{0,40}".prop_map(|text| Some(text.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn any_record_comes_back(
            topic in any::<String>(),
            partition in any::<i32>(),
            offset in 0..=i64::MAX,
            timestamp in any::<Option<i64>>(),
            key in content(),
            value in content(),
            headers in prop::collection::vec((any::<String>(), content()), 0..4),
        ) {
            let borrowed: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let written = Written::new(&borrowed);
            let record = Record {
                offset: Offset::new(offset).unwrap(),
                timestamp_ms: timestamp,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: Headers::of(&written, 0),
            };
            let line = line(&TopicPartition::new(topic.as_str(), partition), &record);
            prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
            let parsed: Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(parsed["topic"].as_str(), Some(topic.as_str()));
            prop_assert_eq!(parsed["partition"].as_i64(), Some(i64::from(partition)));
            prop_assert_eq!(parsed["offset"].as_i64(), Some(offset));
            prop_assert_eq!(parsed.get("timestamp").map(|number| number.as_i64().unwrap()), timestamp);
            prop_assert_eq!(read(&parsed, "key"), key);
            prop_assert_eq!(read(&parsed, "value"), value);
            let fields = 5 + usize::from(timestamp.is_some()) + usize::from(!headers.is_empty());
            prop_assert_eq!(parsed.as_object().unwrap().len(), fields);
            let read_back = parsed.get("headers").into_iter().flat_map(|list| list.as_array().unwrap());
            let pair = |header: &Value| (header["name"].as_str().unwrap().to_owned(), read(header, "value"));
            prop_assert_eq!(read_back.map(pair).collect::<Vec<_>>(), headers);
        }

        #[test]
        fn any_bytes_come_back_from_base64(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&base64(&bytes)), bytes);
        }
    }
}
