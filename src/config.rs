//! The configuration: from the text of one file to a [`Config`], or to everything that is wrong with it.
//!
//! Owns the names, defaults, units and limits of all settings. [`load`] is the only I/O: it reads the file, and
//! what the file names for a password or for TLS; [`parse`] is a pure function of a text and an environment.
//!
//! A value is looked for in layers, and the uppermost that has it wins:
//!
//! 1. the program's defaults (`config/defaults.toml`)
//! 2. the profile that `[consumer]` names (`config/profiles.toml`)
//! 3. `[consumer]`
//! 4. the profile that the topic's `[[topic]]` names, if it names one
//! 5. the topic's `[[topic]]`
//!
//! The other tables have the first layer and their own. What always holds of a [`Config`]: at least
//! one topic, or patterns for topics, and no topic twice, so that no two consumers have the same group and topic; every sink
//! that a topic names is in `sinks`; no two file sinks write to one path; what goes to Kafka as a
//! 32-bit number fits; in [`Mode::Single`] all topics agree in what belongs to the client.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::client::{Connection, FetchSettings, Isolation, KnownHosts, Reading, Security};
use crate::dispatch::Order;
use crate::failure::Policy;
use crate::logging::LogFormat;
use crate::memory::Reserve;
use crate::sink::own::OwnSink;
use crate::sink::{exec, http, kafka};

pub mod discovery;
mod errors;
mod fixed;
mod read;
mod reading;
mod report;
mod resolve;
mod security;
mod sinks;
mod synonyms;
mod topics;
mod value;

#[cfg(test)]
mod tests;

use discovery::Discovery;
use read::{Files, NamedFile};

pub use errors::{Error, Errors, LoadError};
pub use fixed::Fixed;
pub use report::{Scope, Setting, Source};

pub use crate::consumer::resolve::{AutoOffsetReset, OnOutOfRange, OnTakeoverTimeout};
pub use crate::consumer::schedule::Pace as CommitSettings;
pub use crate::dispatch::gate::OnTimeout;
pub use crate::sink::Format;

/// The largest configuration that is read, in bytes: thousands of topics fit.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Everything that an operator can set, checked and complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[kafka]`
    pub kafka: KafkaSettings,
    /// `consumer.group_id`: the group that all topics share in [`Mode::Single`].
    pub group_id: String,
    /// `consumer.multi_consumer_mode`
    pub mode: Mode,
    /// The topics in the order of `consumer.topics`, then those that were found, each once, with all its layers resolved.
    pub topics: Vec<TopicSettings>,
    /// What holds for topics that the file does not name, if there are to be such: `consumer.topics_regex`.
    pub discovery: Option<Discovery>,
    /// `[commit]`
    pub commit: CommitSettings,
    /// `shutdown.drain_timeout_ms`: how long a stop waits for records that are under way.
    pub drain_timeout: Duration,
    /// `observe.interval_ms`: how often the cluster is looked at.
    pub observe_interval: Duration,
    /// `[watchdog]`
    pub watchdog: WatchdogSettings,
    /// `[gate]`
    pub gate: Option<GateSettings>,
    /// `state.dir`; `None`: beside the configuration's file.
    pub state_dir: Option<PathBuf>,
    /// `memory.limit`: bytes of all records in flight, fetches included.
    pub memory_limit: usize,
    /// `admin.listen`: where metrics, health and status are served; absent: nowhere.
    pub admin: Option<SocketAddr>,
    /// `log.level`: a level, or a filter as `env_logger` reads it.
    pub log_level: String,
    /// `log.format`
    pub log_format: LogFormat,
    /// The sinks that are used or have a table, by name.
    pub sinks: BTreeMap<String, SinkSettings>,
    /// How many lanes these sinks have. One that is not here has one.
    pub spreads: BTreeMap<String, Spread>,
    /// `[dead_letter]`: where records go that are given up with `on_failure = "dead_letter"`.
    pub dead_letter: Option<DeadLetter>,
    /// What is probably not meant, in words for the log; nothing that keeps the worker from running.
    pub warnings: Vec<String>,
    /// Every value with its source: the tables, then the topics.
    pub report: Vec<Scope>,
    /// The file that it was read from, if it was.
    pub file: Option<PathBuf>,
}

impl Config {
    /// The group that a topic has to itself in [`Mode::Multi`], whatever the mode is at present.
    pub fn group_of_its_own(&self, topic: &TopicSettings) -> String {
        match self.mode {
            Mode::Multi => topic.group.clone(),
            // No topic has a group_id that differs from the shared one.
            Mode::Single => topics::group_of_its_own(&self.group_id, &topic.name),
        }
    }
}

/// How topics are shared out among consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A consumer, and a group, a topic.
    Multi,
    /// One consumer and one group for all of them.
    Single,
}

/// When a topic that does not move is told of, and its consumer started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogSettings {
    /// How long a topic may have readable records and make no progress.
    pub stall_timeout: Duration,
}

/// How the brokers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port` of brokers to ask first; at least one, none twice.
    pub bootstrap_servers: Vec<String>,
    /// The name under which the brokers' logs and quotas know this program.
    pub client_id: String,
    /// How long the opening of a connection may take.
    pub connect_timeout: Duration,
    /// How long any one request may take, beyond the time that a fetch is allowed to be held.
    pub request_timeout: Duration,
    /// How often topics and partitions are looked up anew.
    pub metadata_max_age: Duration,
    /// `[kafka.tls]` and `[kafka.sasl]`
    pub security: Security,
    /// `[kafka.librdkafka]`: name and value of each property.
    pub properties: Vec<(String, String)>,
}

impl KafkaSettings {
    /// In the words of the client.
    pub fn connection(&self) -> Connection {
        Connection {
            bootstrap_servers: self.bootstrap_servers.clone(),
            client_id: self.client_id.clone(),
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            metadata_max_age: self.metadata_max_age,
            security: self.security.clone(),
            properties: self.properties.clone(),
            known: KnownHosts::default(),
        }
    }
}

/// All that holds for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Its name.
    pub name: Arc<str>,
    /// The whole name of the group that consumes it.
    pub group: String,
    /// Where a group without committed offset starts.
    pub auto_offset_reset: AutoOffsetReset,
    /// Where to go on when the position no longer exists.
    pub on_out_of_range: OnOutOfRange,
    /// Records in one batch, at most.
    pub max_poll_records: usize,
    /// How long a poll round lasts, at most.
    pub timeout: Duration,
    /// How long the broker may hold one fetch.
    pub fetch_max_wait: Duration,
    /// How many bytes have to be there before the broker answers earlier.
    pub fetch_min_bytes: i32,
    /// Upper limit of one partition's part of a fetch, in bytes; fits in 32 bits with sign.
    pub max_partition_fetch_bytes: usize,
    /// Upper limit of a fetch, in bytes; fits in 32 bits with sign.
    pub fetch_max_bytes: usize,
    /// Whether the records' checksums are verified.
    pub check_crcs: bool,
    /// How long a first start waits for other members of the group to leave it.
    pub takeover_timeout: Duration,
    /// What to do when they have not.
    pub on_takeover_timeout: OnTakeoverTimeout,
    /// `kafka.client`, `consumer.membership` and what belongs to it.
    pub reading: Reading,
    /// Which records of transactions are delivered, where the library knows.
    pub isolation: Isolation,
    /// The names of the sinks, keys of [`Config::sinks`]: each gets every record. At least one.
    pub sinks: Vec<String>,
    /// What becomes of records that the sink does not take.
    pub failure: Policy,
    /// It is not read for the time being; its group keeps its offset.
    pub paused: bool,
    /// It came to be while the worker looked for topics: nothing that was written before it was found is skipped.
    pub came_later: bool,
}

impl TopicSettings {
    /// How long this topic may have records to read without a commit while all is well: the longest wait for a
    /// commit, that of a fetch, and a second for what lies between.
    pub fn patience(&self, commit: &CommitSettings) -> Duration {
        commit.interval + self.fetch_max_wait + Duration::from_secs(1)
    }

    /// The part that a client needs, in its words. `memory`: the consumer's share, in bytes;
    /// `reserve`: what it may borrow.
    pub fn fetch(&self, memory: usize, reserve: Reserve) -> FetchSettings {
        FetchSettings {
            memory,
            reserve,
            max_wait: self.fetch_max_wait,
            min_bytes: self.fetch_min_bytes,
            max_partition_bytes: self.max_partition_fetch_bytes,
            max_bytes: self.fetch_max_bytes,
            check_crcs: self.check_crcs,
            isolation: self.isolation,
            times: Arc::default(),
        }
    }
}

/// Holds the first records back until every one of some topics has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSettings {
    /// The topics, all of them consumed here; at least one.
    pub required_topics: Vec<Arc<str>>,
    /// How many rounds to wait.
    pub max_attempts: u32,
    /// How long a round lasts.
    pub timeout: Duration,
    /// What to do when they are over.
    pub on_timeout: OnTimeout,
}

/// How the records of a sink are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// So many lanes: threads, each with a sink of its own.
    pub lanes: usize,
    /// What stays in its order.
    pub order: Order,
}

impl Default for Spread {
    fn default() -> Self {
        Self { lanes: 1, order: Order::Partition }
    }
}

/// One destination of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSettings {
    /// Nowhere.
    Drop,
    /// The log.
    Log {
        /// The level of the lines.
        level: Level,
        /// How many bytes of a value are shown.
        max_value_bytes: usize,
    },
    /// Standard output.
    Stdout {
        /// The form of a record.
        format: Format,
    },
    /// A file that is appended to.
    File {
        /// The file. If relative, to the directory in which the worker was started.
        path: PathBuf,
        /// The form of a record.
        format: Format,
        /// At how many bytes a new file is begun; absent: never.
        rotate_size: Option<u64>,
        /// How many full files are kept; absent: all.
        rotate_keep: Option<usize>,
    },
    /// A program.
    Exec(exec::Settings),
    /// A service that takes requests.
    Http(Box<http::Settings>),
    /// A topic of this or another cluster.
    Kafka(Box<kafka::Settings>),
    /// One of the program that has the worker inside.
    Own(OwnSink),
}

/// Where dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetter {
    /// `path`: a file.
    File(PathBuf),
    /// `topic`, of this or another cluster.
    Topic(Box<kafka::Settings>),
}

/// Reads a configuration. `env` gives the value of an environment variable, if it is set. The files that it names
/// are not looked into: a password from a file is empty.
///
/// # Errors
/// Everything that is wrong with the text, each with its line and key.
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Errors::one(format!("is larger than {MAX_FILE_BYTES} bytes, which no configuration is")));
    }
    resolve::resolve(text, env, None, false, &BTreeMap::new())
}

/// Whether `filter` can be a `log.level`: the same for the command line as for the file.
///
/// # Errors
/// What is wrong with it, and what to write instead.
pub fn check_log_level(filter: &str) -> Result<(), String> {
    value::log_filter(filter)
}

/// Of some names the one that `name` is most probably meant to be, if one comes near.
pub fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    errors::nearest(name, candidates)
}

/// A file that the configuration names for a password, a certificate or a key; no more of it than a configuration
/// may have.
fn named_file(path: &Path) -> io::Result<NamedFile> {
    let file = File::open(path)?;
    let open_to_all = is_open_to_all(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(NamedFile { bytes, open_to_all })
}

/// Whether every user of this machine may read it.
fn is_open_to_all(file: &Metadata) -> bool {
    file.is_file() && file.permissions().mode() & 0o004 != 0
}

/// Whether a program that has the worker inside may have a sink of this name.
///
/// # Errors
/// What is wrong with it.
pub fn check_own_sink_name(name: &str) -> Result<(), String> {
    value::sink_name(name)?;
    if sinks::BUILT_IN.contains(&name) {
        return Err(format!("\"{name}\" is that of a sink that there is always; write another"));
    }
    Ok(())
}

/// Reads a configuration that is no file, with the environment of this process. `own` are the sinks of the program.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_text(text: &str, own: &BTreeMap<String, OwnSink>) -> Result<Config, LoadError> {
    let path = || PathBuf::from("configuration");
    if text.len() > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path() });
    }
    let parsed = resolve::resolve(text, &|name| std::env::var(name).ok(), Some(Files(&named_file)), false, own);
    parsed.map_err(|errors| LoadError::Invalid { path: path(), errors })
}

/// Reads the configuration in the file `path`, with the environment of this process.
///
/// # Errors
/// The file can't be read, or everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    load_with(path, &BTreeMap::new())
}

/// The same where a program has sinks of its own.
///
/// # Errors
/// As for [`load`].
pub fn load_with(path: &Path, own: &BTreeMap<String, OwnSink>) -> Result<Config, LoadError> {
    let failed = |error: io::Error| LoadError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let open_to_all = file.metadata().is_ok_and(|about| is_open_to_all(&about));
    let mut bytes = Vec::new();
    // A device never ends: no more is read than is allowed, and one byte to know that there is more.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = 1 + bytes.iter().take(error.valid_up_to()).filter(|b| **b == b'\n').count();
        LoadError::NotUtf8 { path: path.to_owned(), line }
    })?;
    let files = Files(&named_file);
    let parsed = resolve::resolve(text, &|name| std::env::var(name).ok(), Some(files), open_to_all, own);
    let config = parsed.map_err(|errors| LoadError::Invalid { path: path.to_owned(), errors })?;
    // Of a file that is gone by now the path still says something.
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok(Config { file: Some(file), ..config })
}
