//! From the text of one value to the value: numbers, sizes, names, `${NAME}`.
//!
//! Pure functions. An error says what the value is and what to write instead; where it stands, and
//! under which key, is added by the caller.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use log::Level;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::errors::{nearest, short};

/// A value that is one of a few words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The words, and what they stand for.
    const ALL: &'static [(&'static str, Self)];

    /// The word for this value.
    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

impl Choice for Level {
    const ALL: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// Kafka's limit for the name of a topic.
const TOPIC_NAME_MAX: usize = 249;
/// Far below what the protocol can carry (32,767 bytes), and more than any console shows.
const NAME_MAX: usize = 255;
/// The name of a sink is part of a thread's name.
const SINK_NAME_MAX: usize = 64;

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// What stands there, as the subject of an error: `is "abc"`.
fn is(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "is empty".to_owned(),
        DeValue::String(text) => format!("is \"{}\"", short(text)),
        DeValue::Integer(number) => format!("is {}", short(&number.to_string())),
        DeValue::Float(number) => format!("is {}", short(number.as_str())),
        DeValue::Boolean(flag) => format!("is {flag}"),
        DeValue::Datetime(_) => "is a date or time".to_owned(),
        DeValue::Array(_) => "is a list".to_owned(),
        DeValue::Table(_) => "is a table".to_owned(),
    }
}

/// An error about a value of the wrong kind.
pub(super) fn wrong(value: &DeValue<'_>, wanted: &str) -> String {
    format!("{}; write {wanted}", is(value))
}

/// The value as a `T`, if it is one. What to say if not, the caller knows better than serde.
fn read<T: DeserializeOwned>(value: &DeValue<'_>) -> Option<T> {
    T::deserialize(ValueDeserializer::from(Spanned::new(0..0, value.clone()))).ok()
}

pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    read(value).ok_or_else(|| wrong(value, "true or false, without quotes"))
}

pub(super) fn string(value: &DeValue<'_>) -> Result<String, String> {
    read(value).ok_or_else(|| wrong(value, "a text in quotes"))
}

pub(super) fn choice<T: Choice>(value: &DeValue<'_>) -> Result<T, String> {
    let text = value.as_str().unwrap_or_default();
    if let Some((_, found)) = T::ALL.iter().find(|(word, _)| *word == text) {
        return Ok(*found);
    }
    let words: Vec<_> = T::ALL.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let wanted = match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    let offer = nearest(text, T::ALL.iter().map(|(word, _)| *word));
    Err(offer.map_or_else(
        || wrong(value, &wanted),
        |offer| format!("{}; did you mean \"{offer}\"? It is one of {}", is(value), words.join(", ")),
    ))
}

pub(super) fn number(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    read(value)
        .filter(|number| range.contains(number))
        .ok_or_else(|| wrong(value, &format!("a whole number from {} to {}", range.start(), range.end())))
}

/// A whole number, also below zero.
pub(super) fn integer(value: &DeValue<'_>) -> Option<i64> {
    read(value)
}

/// Bytes, or a text such as `100MiB`.
pub(super) fn size(value: &DeValue<'_>, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = match value {
        DeValue::String(text) => parse_size(text),
        other => read(other),
    };
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        let (from, to) = (show_size(*range.start()), show_size(*range.end()));
        wrong(value, &format!("bytes, or a text such as \"1MiB\" (B, KB, MB, GB, KiB, MiB, GiB), from {from} to {to}"))
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The size as it would be written in the file: the largest unit that gives a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let unit = UNITS[..3].iter().rev().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| bytes.to_string(), |(name, factor)| format!("\"{}{name}\"", bytes / factor))
}

/// The text as it would be written in the file.
pub(super) fn show_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            '$' => shown.push_str("$$"),
            c if c.is_control() => shown.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown.push('"');
    shown
}

/// The list as it would be written in the file.
pub(super) fn show_list<'s>(texts: impl IntoIterator<Item = &'s str>) -> String {
    format!("[{}]", texts.into_iter().map(show_text).collect::<Vec<_>>().join(", "))
}

pub(super) fn topic_name(name: &str) -> Result<(), String> {
    kafka_name(name, "topic")
}

/// The same rule: `org.apache.kafka.common.requests.JoinGroupRequest.validateGroupInstanceId`.
pub(super) fn instance_id(name: &str) -> Result<(), String> {
    kafka_name(name, "static member")
}

/// Kafka's rule for the name of a `thing`: `org.apache.kafka.common.internals.Topic.validate`.
fn kafka_name(name: &str, thing: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err(format!("is empty; write the {thing}'s name"))
    } else if let Some(bad) = name.chars().find(|c| !legal(*c)) {
        Err(format!(
            "is \"{}\", which is no {thing}'s name: it has '{}'; names are made of a-z, A-Z, 0-9, '.', '_' and '-'",
            short(name),
            bad.escape_debug()
        ))
    } else if name.len() > TOPIC_NAME_MAX {
        let length = name.len();
        Err(format!("is a name of {length} characters; a {thing}'s name has at most {TOPIC_NAME_MAX}"))
    } else if name == "." || name == ".." {
        Err(format!("is \"{name}\", which Kafka does not allow as a {thing}'s name; write another"))
    } else {
        Ok(())
    }
}

/// A group or a client id: Kafka takes any text, a person does not.
pub(super) fn plain_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("is empty; write a name".to_owned())
    } else if name.trim() != name || name.chars().any(char::is_control) {
        Err(format!("is \"{}\", with blanks around it or control characters; leave them out", short(name)))
    } else if name.chars().count() > NAME_MAX {
        let length = name.chars().count();
        Err(format!("is a name of {length} characters; write one of at most {NAME_MAX}"))
    } else {
        Ok(())
    }
}

pub(super) fn sink_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > SINK_NAME_MAX || !name.chars().all(legal) {
        return Err(format!(
            "\"{}\" can't be a sink's name; write 1 to {SINK_NAME_MAX} of a-z, A-Z, 0-9, '.', '_' and '-'",
            short(name)
        ));
    }
    Ok(())
}

/// `[0, 2]`, or `"0, 2"`: partitions, none twice.
pub(super) fn partitions(value: &DeValue<'_>) -> Result<BTreeSet<i32>, String> {
    const WANTED: &str = "partitions by their numbers, such as [0, 2] or \"0, 2\"";
    let wanted = || wrong(value, WANTED);
    let numbers: Vec<i32> = match value {
        DeValue::Array(array) => array.iter().map(|element| read(element.get_ref())).collect(),
        DeValue::String(text) => text.split(',').map(|part| part.trim().parse().ok()).collect(),
        _ => None,
    }
    .ok_or_else(wanted)?;
    if numbers.is_empty() {
        return Err("is empty, with which nothing would be read; write which ones this worker reads, or leave it out to read all".to_owned());
    }
    if let Some(negative) = numbers.iter().find(|number| **number < 0) {
        return Err(format!("has {negative}, and partitions are numbered from 0 on; write {WANTED}"));
    }
    let mut set = BTreeSet::new();
    match numbers.into_iter().find(|number| !set.insert(*number)) {
        Some(twice) => Err(format!("has {twice} twice; leave it out once")),
        None => Ok(set),
    }
}

/// `[401, 403]`: numbers of HTTP's statuses, none twice.
pub(super) fn statuses(value: &DeValue<'_>) -> Result<BTreeSet<u16>, String> {
    const WANTED: &str = "a list of statuses from 400 to 499, such as [401, 403]";
    let DeValue::Array(array) = value else { return Err(wrong(value, WANTED)) };
    let mut set = BTreeSet::new();
    for element in array.iter() {
        let status: Option<u16> = read(element.get_ref());
        match status.filter(|status| (400..=499).contains(status)) {
            None => return Err(format!("has one that {}; write {WANTED}", is(element.get_ref()))),
            Some(status) if !set.insert(status) => return Err(format!("has {status} twice; leave it out once")),
            Some(_) => {}
        }
    }
    Ok(set)
}

/// `1/3`: the number of this worker, and how many there are.
pub(super) fn instance(text: &str) -> Result<(u32, u32), String> {
    let parse = |digits: &str| digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    let read = || {
        let (number, of) = text.split_once('/')?;
        Some((parse(number.trim())?, parse(of.trim())?)).filter(|(number, of)| (1..=*of).contains(number))
    };
    read().ok_or_else(|| {
        format!(
            "is \"{}\"; write the number of this worker and how many there are, from \"1/3\" to \"3/3\" for three",
            short(text)
        )
    })
}

/// `host:port`, `[v6 address]:port`.
pub(super) fn server(server: &str) -> Result<(), String> {
    const WANTED: &str = "write host:port, such as \"broker1:9092\"";
    let is = format!("\"{}\"", short(server));
    if let Some((scheme, _)) = server.split_once("://") {
        return Err(format!("{is} has a protocol in front; leave out {}://, {WANTED}", short(scheme)));
    }
    let Some((host, port)) = server.rsplit_once(':') else {
        return Err(format!("{is} has no port; {WANTED}"));
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "[]:/,@".contains(c))
        }
    };
    if !good_host {
        return Err(format!("{is} has no valid host (a v6 address stands in [brackets]); {WANTED}"));
    }
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return Err(format!("{is} has no valid port; ports go from 1 to 65535: {WANTED}"));
    }
    Ok(())
}

/// `127.0.0.1:9464`, `[::1]:9464`, `localhost:9464`: where to listen. Port 0 is any that is free.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let wanted = "write an address of this machine and a port, such as \"127.0.0.1:9464\"";
    numeric.parse().map_err(|_| format!("\"{}\" is no address to listen at; {wanted}", short(text)))
}

/// `info`, or a list such as `warn,worker::client=debug`: the form that `env_logger` reads.
pub(super) fn log_filter(filter: &str) -> Result<(), String> {
    let level = |word: &str| word == "off" || Level::ALL.iter().any(|(level, _)| *level == word);
    let levels = || Level::ALL.iter().map(|(word, _)| *word).chain(["off"]);
    for part in filter.split(',') {
        let word = match part.split_once('=') {
            Some((module, word)) if !module.is_empty() && !module.contains(char::is_whitespace) => word,
            Some(_) => {
                return Err(format!("has \"{}\" without a module before the '='; write module=level", short(part)));
            }
            None => part,
        };
        if !level(word) {
            let offer = nearest(word, levels()).map(|offer| format!("did you mean {offer}? ")).unwrap_or_default();
            return Err(format!(
                "has \"{}\" for a level; {offer}write error, warn, info, debug, trace or off, or a list such as \"warn,worker=debug\"",
                short(word)
            ));
        }
    }
    Ok(())
}

/// Puts the environment into a text: `${NAME}` is the variable's value, `$$` is one `$`; any other
/// `$` stands for itself. What a variable holds is not looked through again.
pub(super) fn expand<'t>(text: &'t str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'t, str>, String> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err("has a \"${\" without \"}\"; write ${NAME}, or $$ for a plain $".to_owned());
            };
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!(
                    "has ${{{}}}, which is no name of an environment variable; write ${{NAME}}, or $$ for a plain $",
                    short(name)
                ));
            }
            out.push_str(&env(name).ok_or_else(|| {
                format!("needs the environment variable {name}, which is not set; set it, or write $$ for a plain $")
            })?);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}
