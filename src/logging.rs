//! The form of the log's lines, and where they go: one line an event, on standard error.
//!
//! Owns the process's logger and its panic hook; everything else uses the macros of `log`. Three forms:
//! - text: time, level, words, `key=value` details; colours only on a terminal;
//! - json: an object a line, with the details as fields, see [`split`];
//! - either of them to the journal of systemd: each line begins with its priority, `<3>` to `<7>`
//!   (sd-daemon(3)), which the journal takes off; text has no time then, because the journal has its own.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::{env, thread};

use clap::ValueEnum;
use log::{Level, Record};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::client::link::panic_text;

mod foreign;
pub mod split;

pub use foreign::foreign;

/// `log.format`: how a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum LogFormat {
    /// Time, level, words, key=value details
    Text,
    /// An object a line, for collectors
    Json,
}

/// The log of this process, whose level can change.
#[derive(Clone)]
pub struct Logger {
    inner: Arc<RwLock<env_logger::Logger>>,
    format: LogFormat,
    journal: bool,
}

impl Logger {
    /// Sets it up: once, before the first line. `filter` as `log.level` has it.
    pub fn start(filter: &str, format: LogFormat) -> Self {
        let journal = is_journal(env::var("JOURNAL_STREAM").ok().as_deref(), io::stderr());
        let inner = build(filter, format, journal);
        log::set_max_level(inner.filter());
        let logger = Self { inner: Arc::new(RwLock::new(inner)), format, journal };
        // It fails only where there is a log already, which nobody else makes.
        let _ = log::set_boxed_logger(Box::new(logger.clone()));
        tell_panics();
        logger
    }

    /// From now on only lines of these levels are written.
    pub fn set_level(&self, filter: &str) {
        let new = build(filter, self.format, self.journal);
        let most = new.filter();
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = new;
        log::set_max_level(most);
    }

    fn inner(&self) -> RwLockReadGuard<'_, env_logger::Logger> {
        // It is replaced as a whole.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !tells_secrets(metadata.target()) && self.inner().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !tells_secrets(record.target()) {
            self.inner().log(record);
        }
    }

    fn flush(&self) {
        self.inner().flush();
    }
}

/// The crates `ureq` and `ureq-proto` write each byte of a request at TRACE, passwords and records included. No filter
/// lets that through.
fn tells_secrets(target: &str) -> bool {
    target.starts_with("ureq")
}

fn build(filter: &str, format: LogFormat, journal: bool) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    // What that crate has to say of itself is told by whoever calls it, in the worker's words.
    builder.filter_module("rdkafka", log::LevelFilter::Off).parse_filters(filter);
    match (format, journal) {
        (LogFormat::Text, false) => builder.format(|out, record| {
            let style = out.default_level_style(record.level());
            writeln!(out, "{} {style}{:5}{style:#} {}", out.timestamp_millis(), record.level(), record.args())
        }),
        (LogFormat::Text, true) => builder.format(journal_text),
        (LogFormat::Json, journal) => builder.format(move |out, record| {
            if journal {
                write!(out, "<{}>", priority(record.level()))?;
            }
            let time = out.timestamp_millis();
            writeln!(out, "{}", json(&time, record))
        }),
    };
    builder.build()
}

thread_local! {
    /// A panic of this thread would be nothing new.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The result of `run`, or nothing if it panics, of which no line is made: for a library that panics where it
/// should fail, and where what follows is dealt with.
pub(crate) fn without_panic<T>(run: impl FnOnce() -> T) -> Option<T> {
    EXPECTED.set(true);
    // What it was called with is looked at no more.
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    EXPECTED.set(false);
    result.ok()
}

fn tell_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if EXPECTED.get() {
            return;
        }
        if log::log_enabled!(Level::Warn) {
            let thread = thread::current();
            log::warn!("{}", panic_line(thread.name(), info.location(), &panic_text(info.payload())));
        } else {
            before(info);
        }
    }));
}

/// A panic is a line of the log like any other, so that no collector meets one of another form. What follows
/// from it, whoever waits for that thread says.
fn panic_line(thread: Option<&str>, place: Option<&Location<'_>>, words: &str) -> String {
    let place = place.map(ToString::to_string).unwrap_or_default();
    format!("panic thread={} at={place} panic={words:?}", thread.unwrap_or("unnamed"))
}

/// Whether `stream` is the one that systemd has connected to its journal: `JOURNAL_STREAM` is its device
/// and its inode, with a colon between them (systemd.exec(5)). Set alone it says nothing: a child whose
/// standard error leads elsewhere has it, too.
fn is_journal(variable: Option<&str>, stream: impl AsFd) -> bool {
    let Some((device, inode)) = variable.and_then(|text| text.split_once(':')) else { return false };
    let Ok(file) = stream.as_fd().try_clone_to_owned().map(File::from) else { return false };
    file.metadata().is_ok_and(|found| {
        device.parse().is_ok_and(|device: u64| device == found.dev())
            && inode.parse().is_ok_and(|inode: u64| inode == found.ino())
    })
}

/// The priority of syslog(3) that stands for a level.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// A line for the journal. One that has line breaks is several lines there, each with its priority.
fn journal_text<W: Write>(out: &mut W, record: &Record<'_>) -> io::Result<()> {
    let text = record.args().to_string();
    text.split('\n').try_for_each(|line| writeln!(out, "<{}>{line}", priority(record.level())))
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'static str,
    target: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Fields::is_empty")]
    fields: Fields<'a>,
}

struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl Fields<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// One event as one object. `time` is in RFC 3339, UTC, with milliseconds.
fn json(time: &dyn fmt::Display, record: &Record<'_>) -> String {
    let text = record.args().to_string();
    let (message, fields) = split::split(&text);
    let line = Line {
        timestamp: time.to_string(),
        level: record.level().as_str(),
        target: record.target(),
        message,
        fields: Fields(fields),
    };
    // Texts in a map of texts: there is nothing in it that JSON has not.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record<T>(level: Level, text: &str, then: impl FnOnce(&Record<'_>) -> T) -> T {
        then(&Record::builder().level(level).target("worker::lane").args(format_args!("{text}")).build())
    }

    #[test]
    fn no_filter_lets_the_bytes_of_requests_through() {
        let inner = build("trace,ureq_proto=trace", LogFormat::Text, false);
        let logger = Logger { inner: Arc::new(RwLock::new(inner)), format: LogFormat::Text, journal: false };
        let enabled = |target| {
            let metadata = log::Metadata::builder().level(Level::Trace).target(target).build();
            log::Log::enabled(&logger, &metadata)
        };
        assert!(enabled("worker::sink::http") && !enabled("ureq_proto::util") && !enabled("ureq::run"));
    }

    #[test]
    fn a_json_line_has_the_details_as_fields() {
        let text = "sink fails, its topics wait sink=orders error=\"No space left on device (os error 28)\"\nand more";
        let line = record(Level::Warn, text, |record| json(&"2026-11-21T08:00:00.123Z", record));
        assert_eq!(
            line,
            r#"{"timestamp":"2026-11-21T08:00:00.123Z","level":"WARN","target":"worker::lane","#.to_owned()
                + r#""message":"sink fails, its topics wait sink=orders error=\"No space left on device (os error 28)\"\nand more"}"#
        );
        let text = text.strip_suffix("\nand more").unwrap();
        let line = record(Level::Warn, text, |record| json(&"2026-11-21T08:00:00.123Z", record));
        assert!(
            line.ends_with(
                r#""message":"sink fails, its topics wait","fields":{"sink":"orders","error":"No space left on device (os error 28)"}}"#
            ),
            "{line}"
        );
    }

    #[test]
    fn the_crate_rdkafka_is_heard_only_when_it_is_asked_for() {
        use log::Log as _;
        let heard = |filter: &str, target: &str| {
            let metadata = log::Metadata::builder().level(Level::Error).target(target).build();
            build(filter, LogFormat::Text, false).enabled(&metadata)
        };
        assert!(heard("debug", "worker::lane") && !heard("debug", "rdkafka::consumer::base_consumer"));
        assert!(heard("warn,rdkafka=warn", "rdkafka::consumer::base_consumer"));
    }

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let line = panic_line(Some("link:t/0"), Some(Location::caller()), "called `unwrap()`\non \"None\"");
        let (words, fields) = split::split(&line);
        assert_eq!(
            (words, fields[0], fields[2]),
            ("panic", ("thread", "link:t/0"), ("panic", r#"called `unwrap()`\non \"None\""#))
        );
        assert!(fields[1].0 == "at" && fields[1].1.starts_with("src/logging.rs:"), "{line}");
    }

    #[test]
    fn every_line_for_the_journal_has_its_priority() {
        for (level, number) in
            [(Level::Error, 3), (Level::Warn, 4), (Level::Info, 6), (Level::Debug, 7), (Level::Trace, 7)]
        {
            let mut out = Vec::new();
            record(level, "one\ntwo", |record| journal_text(&mut out, record)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("<{number}>one\n<{number}>two\n"));
        }
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let found = file.metadata().unwrap();
        let (device, inode) = (found.dev(), found.ino());
        assert!(is_journal(Some(&format!("{device}:{inode}")), &file));
        for other in [format!("{device}:{}", inode + 1), format!("{}:{inode}", device + 1), "x".into(), ":".into()] {
            assert!(!is_journal(Some(&other), &file), "{other}");
        }
        assert!(!is_journal(None, &file));
    }
}
