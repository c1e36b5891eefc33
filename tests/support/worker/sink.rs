//! What stands in the file of a sink with `format = "json"`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How often a file is looked at that is being waited for: a file has no event to wait on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A record as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rec {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Rec {
    /// Reads one line.
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        let json: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("no JSON ({why}): {line}"));
        let bytes_of = |json: &Value, name: &str| match (json.get(name), json.get(format!("{name}_base64"))) {
            (Some(Value::Null), None) => None,
            (Some(Value::String(text)), None) => Some(text.clone().into_bytes()),
            (None, Some(Value::String(text))) => Some(base64(text)),
            other => panic!("{name} is {other:?}: {line}"),
        };
        let bytes = |name: &str| bytes_of(&json, name);
        let headers = json.get("headers").into_iter().flat_map(|list| list.as_array().unwrap());
        let header = |header: &Value| (header["name"].as_str().unwrap().to_owned(), bytes_of(header, "value"));
        Self {
            topic: json["topic"].as_str().unwrap().to_owned(),
            partition: i32::try_from(json["partition"].as_i64().unwrap()).unwrap(),
            offset: json["offset"].as_i64().unwrap(),
            key: bytes("key"),
            value: bytes("value"),
            headers: headers.map(header).collect(),
        }
    }

    /// The value as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap()).unwrap()
    }
}

/// Reads a file; one that does not exist has no records, and half a line at the end is none.
#[track_caller]
pub fn read(path: &Path) -> Vec<Rec> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(Rec::parse).collect()
}

/// Waits until a file has at least `count` lines, and reads it.
#[track_caller]
pub fn wait(path: &Path, count: usize, at_most: Duration) -> Vec<Rec> {
    let deadline = Instant::now() + at_most;
    let (mut lines, mut seen) = (0, 0);
    loop {
        // Only what is new is counted, so that waiting for a million lines stays cheap.
        if let Ok(mut file) = File::open(path) {
            let mut new = Vec::new();
            file.seek(SeekFrom::Start(seen)).unwrap();
            seen += file.read_to_end(&mut new).unwrap() as u64;
            lines += new.iter().filter(|&&byte| byte == b'\n').count();
        }
        if lines >= count {
            return read(path);
        }
        assert!(Instant::now() < deadline, "{lines} records in {} after {at_most:?}, not {count}", path.display());
        thread::sleep(LOOK_EVERY);
    }
}

/// The offsets of one partition, in the order in which they arrived.
pub fn offsets(records: &[Rec], topic: &str, partition: i32) -> Vec<i64> {
    let own = records.iter().filter(|record| record.topic == topic && record.partition == partition);
    own.map(|record| record.offset).collect()
}

/// Decodes base64 (RFC 4648, section 4, with padding).
fn base64(text: &str) -> Vec<u8> {
    let value = |symbol: u8| match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is not in base64's alphabet"),
    };
    let symbols: Vec<u8> = text.bytes().filter(|&symbol| symbol != b'=').map(value).collect();
    let mut bytes = Vec::new();
    for group in symbols.chunks(4) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (at, &six)| bits | u32::from(six) << (18 - 6 * at));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn base64_is_read_as_rfc_4648_writes_it() {
    let cases: [(&str, &[u8]); 4] = [("", b""), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9vYmE=", b"fooba")];
    for (text, bytes) in cases {
        assert_eq!(base64(text), bytes);
    }
    assert_eq!(base64("/+8="), [0xff, 0xef]);
}
