//! From the text to the configuration: the tables one after the other.
//!
//! Owns the order of reading, the limits of the global settings, and what has to hold between
//! tables. Topics and sinks have modules of their own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::discovery::Discovery;
use super::errors::{Errors, Faults, Lines, TableName};
use super::read::{Context, Files, Layer, Origin, Reader};
use super::value::{self, Choice};
use super::{
    CommitSettings, Config, GateSettings, KafkaSettings, OnTimeout, WatchdogSettings, reading, security, sinks, topics,
};
use crate::client::properties::owned;
use crate::failure::OnFailure;
use crate::logging::LogFormat;
use crate::sink::own::OwnSink;

pub(super) const DEFAULTS: &str = include_str!("defaults.toml");
pub(super) const PROFILES: &str = include_str!("profiles.toml");

/// No time is longer than a day. That fits in the 32 bits that Kafka has for milliseconds.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// What Kafka's protocol and its clients count in 32 bits with sign.
pub(super) const KAFKA_INT_MAX: u64 = i32::MAX as u64;
/// Below this there is no room for a few topics' fetches side by side.
const MEMORY_MIN: u64 = 16 << 20;
/// More than any machine has for this; keeps a slip of the hand from becoming a limit.
const MEMORY_MAX: u64 = if usize::BITS < 64 { 1 << 31 } else { 1 << 40 };
/// Metadata is asked at most ten times a second.
const METADATA_AGE_MIN_MS: u64 = 100;

/// The cluster is looked at ten times a second at most.
const OBSERVE_MIN_MS: u64 = 100;
/// Less is no stall: a commit, a leader that moves, a full disk that is noticed take as long.
const STALL_MIN_MS: u64 = 1000;

const TABLES: [&str; 14] = [
    "kafka",
    "consumer",
    "topic",
    "commit",
    "shutdown",
    "observe",
    "watchdog",
    "gate",
    "state",
    "memory",
    "admin",
    "log",
    "sink",
    "dead_letter",
];

impl Choice for LogFormat {
    const ALL: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Choice for OnTimeout {
    const ALL: &'static [(&'static str, Self)] = &[("proceed", Self::Proceed), ("exit", Self::Exit)];
}

/// The parsed texts that the layers are taken from.
pub(super) struct Tables<'a> {
    pub(super) file: &'a DeTable<'a>,
    pub(super) defaults: &'a DeTable<'a>,
    pub(super) profiles: &'a DeTable<'a>,
}

impl<'a> Tables<'a> {
    /// The embedded table at `path`; none for a name that has no defaults.
    pub(super) fn default_layer(&self, path: &[&str]) -> Option<Layer<'a>> {
        let mut table = self.defaults;
        for name in path {
            table = table.get(*name)?.get_ref().as_table()?;
        }
        Some(Layer { origin: Origin::Default, table })
    }

    /// The file's table `name` and its place. An error if it is there and no table.
    pub(super) fn in_file(&self, context: &mut Context<'a>, name: &str) -> Option<(usize, &'a DeTable<'a>)> {
        let entry = self.file.get(name)?;
        let table = entry.get_ref().as_table();
        if table.is_none() {
            let text = value::wrong(entry.get_ref(), &format!("its keys under [{name}], once"));
            context.faults.add(entry.span().start, name.to_owned(), text);
        }
        Some((entry.span().start, table?))
    }

    /// The layers of `[kafka]` as other tables see them.
    pub(super) fn kafka_layers(&self) -> Vec<Layer<'a>> {
        let file = self.file.get("kafka").and_then(|entry| entry.get_ref().as_table());
        let file = file.map(|table| Layer { origin: Origin::File { inherited: Some("kafka") }, table });
        self.default_layer(&["kafka"]).into_iter().chain(file).collect()
    }

    /// A reader of the global table `name`: the defaults, and the file over them.
    fn reader<'c>(&self, context: &'c mut Context<'a>, name: &str) -> Reader<'c, 'a> {
        let found = self.in_file(context, name);
        let file = found.map(|(_, table)| Layer { origin: Origin::File { inherited: None }, table });
        let layers = self.default_layer(&[name]).into_iter().chain(file).collect();
        Reader::new(context, TableName::new(name), found.map_or(0, |(at, _)| at), layers)
    }
}

/// Reads the text.
pub(super) fn resolve(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    files: Option<Files<'_>>,
    open_to_all: bool,
    own: &BTreeMap<String, OwnSink>,
) -> Result<Config, Errors> {
    let (file, syntax) = DeTable::parse_recoverable(text);
    // That the embedded texts have no errors is proved by a test.
    let (defaults, _) = DeTable::parse_recoverable(DEFAULTS);
    let (profiles, _) = DeTable::parse_recoverable(PROFILES);
    let tables = Tables { file: file.get_ref(), defaults: defaults.get_ref(), profiles: profiles.get_ref() };
    let mut context = Context {
        lines: Lines::new(text),
        env,
        files,
        open_to_all,
        own,
        faults: Faults::default(),
        warnings: vec![],
        report: vec![],
        has_dead_letter: file.get_ref().contains_key("dead_letter"),
    };
    for error in &syntax {
        let at = error.span().map_or(text.len(), |span| span.start);
        context.faults.syntax(
            at,
            format!("can't be read as TOML: {}; correct it here, or what is open above it", error.message()),
        );
    }
    unknown_tables(&tables, &mut context);
    let config = read(&tables, &mut context);
    match (context.faults.finish(&context.lines), config) {
        (None, Some(mut config)) => {
            (config.warnings, config.report) = (context.warnings, context.report);
            Ok(config)
        }
        (Some(errors), _) => Err(errors),
        (None, None) => {
            Err(Errors::one("gave no configuration, and no error: this is a bug of the program".to_owned()))
        }
    }
}

fn unknown_tables<'a>(tables: &Tables<'a>, context: &mut Context<'a>) {
    let top = TableName { path: String::new(), header: String::new() };
    for key in tables.file.keys().filter(|key| !TABLES.contains(&key.get_ref().as_ref())) {
        context.faults.unknown(key.span().start, &top, key.get_ref(), &TABLES);
    }
}

/// Reads all tables before the first missing value ends it, so that all errors are found.
fn read<'a>(tables: &Tables<'a>, context: &mut Context<'a>) -> Option<Config> {
    let kafka = kafka(tables, context);
    let consumer_scope = context.report.len();
    let declared = sinks::names(tables, context);
    let reading = reading::of_kafka(tables, context, kafka.as_ref().map(|kafka| &kafka.security));
    let mut consumer = topics::read(tables, context, &declared, &reading);
    let commit = commit(tables, context);
    let drain_timeout = {
        let mut shutdown = tables.reader(context, "shutdown");
        let timeout = shutdown.millis("drain_timeout_ms", 0..=DAY_MS);
        finish(shutdown, "[shutdown]");
        timeout
    };
    let observe_interval = {
        let mut observe = tables.reader(context, "observe");
        let interval = observe.millis("interval_ms", OBSERVE_MIN_MS..=DAY_MS);
        finish(observe, "[observe]");
        interval
    };
    let stall_timeout = {
        let mut watchdog = tables.reader(context, "watchdog");
        let timeout = watchdog.millis("stall_timeout_ms", STALL_MIN_MS..=DAY_MS);
        finish(watchdog, "[watchdog]");
        timeout
    };
    let gate = gate(tables, context, consumer.names.as_ref());
    for topic in consumer.topics.iter().flatten().filter(|topic| topic.paused) {
        if let Ok(Some(gate)) = &gate
            && gate.required_topics.contains(&topic.name)
        {
            let name = &topic.name;
            context
                .warnings
                .push(format!("gate.required_topics has {name}, which is paused: the gate does not wait for it"));
        }
    }
    let state_dir = {
        let mut state = tables.reader(context, "state");
        let dir = state.text("dir", directory);
        finish(state, "[state]");
        dir.map(PathBuf::from)
    };
    let memory_limit = {
        let mut memory = tables.reader(context, "memory");
        let limit = memory.size("limit", MEMORY_MIN..=MEMORY_MAX);
        finish(memory, "[memory]");
        limit
    };
    let admin = admin(tables, context);
    let (log_level, log_format) = {
        let mut log = tables.reader(context, "log");
        let settings = (log.text("level", value::log_filter), log.choice::<LogFormat>("format"));
        finish(log, "[log]");
        settings
    };
    let possible = || {
        let found = consumer.discovery.iter().flatten().flat_map(Discovery::all);
        consumer.topics.iter().flatten().chain(found)
    };
    let used: BTreeSet<String> = possible().flat_map(|t| t.sinks.iter().cloned()).collect();
    let mut spreads = BTreeMap::new();
    let (sinks, dead_letter) = sinks::read(tables, context, &used, kafka.as_ref(), &mut spreads);
    if let Some(sinks) = &sinks {
        let all: Vec<_> = possible().collect();
        sinks::check_ways(tables, context, sinks, dead_letter.as_ref(), &all);
    }
    if let Some(table) = tables.file.get("dead_letter")
        && !possible().any(|topic| topic.failure.on_failure == OnFailure::DeadLetter)
        && consumer.topics.is_some()
        && consumer.discovery.is_some()
    {
        let line = context.lines.line(table.span().start);
        context.warnings.push(format!(
            "line {line}: [dead_letter] is used by no topic; write on_failure = \"dead_letter\" under [consumer] or a [[topic]]"
        ));
    }
    if let (Some(sinks), Some(mode)) = (&sinks, consumer.mode) {
        let found = consumer.discovery.iter_mut().flatten().flat_map(Discovery::all_mut);
        let mut all: Vec<_> = consumer.topics.iter_mut().flatten().chain(found).collect();
        sinks::read_whole(context, mode, sinks, &mut all);
    }
    // The base first, the topics last: they are many.
    context.report.splice(consumer_scope..consumer_scope, [consumer.base]);
    context.report.extend(consumer.scopes);
    Some(Config {
        kafka: kafka?,
        group_id: consumer.group_id?,
        mode: consumer.mode?,
        topics: consumer.topics?,
        discovery: consumer.discovery?,
        commit: commit?,
        drain_timeout: drain_timeout?,
        observe_interval: observe_interval?,
        watchdog: WatchdogSettings { stall_timeout: stall_timeout? },
        gate: gate.ok()?,
        state_dir,
        memory_limit: memory_limit?,
        admin,
        log_level: log_level?,
        log_format: log_format?,
        sinks: sinks?,
        spreads,
        dead_letter,
        warnings: vec![],
        report: vec![],
        file: None,
    })
}

/// Where the admin listens. Absent or wrong: nowhere; what is wrong has been told.
fn admin<'a>(tables: &Tables<'a>, context: &mut Context<'a>) -> Option<SocketAddr> {
    let mut admin = tables.reader(context, "admin");
    let listen = admin.text("listen", |text| value::address(text).map(drop));
    let address = listen.and_then(|text| value::address(&text).ok());
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        let line = admin.context.lines.line(admin.place("listen"));
        admin.context.warnings.push(format!(
            "line {line}: admin.listen is {address}, which other machines may reach, and there is no password: whoever \
             does sees topics, offsets and errors, and can change nothing; write 127.0.0.1:{} for this machine only",
            address.port()
        ));
    }
    finish(admin, "[admin]");
    address
}

fn finish(reader: Reader<'_, '_>, title: &str) {
    let (context, scope) = reader.finish(title.to_owned());
    context.report.push(scope);
}

fn directory(path: &str) -> Result<(), String> {
    if path.is_empty() || path.contains(char::is_control) {
        let path = value::show_text(path);
        return Err(format!("is {path}, which names no directory; write one such as \"/var/lib/worker\""));
    }
    Ok(())
}

fn kafka<'a>(tables: &Tables<'a>, context: &mut Context<'a>) -> Option<KafkaSettings> {
    const EXAMPLE: &str = "[\"127.0.0.1:9092\"]";
    let mut kafka = tables.reader(context, "kafka");
    let servers = kafka.list("bootstrap_servers", EXAMPLE, true, value::server);
    let servers = kafka.required("bootstrap_servers", servers, EXAMPLE);
    // What it means for the topics is read with them.
    let _: Option<reading::Client> = kafka.choice("client");
    let client_id = kafka.text("client_id", value::plain_name);
    let connect_timeout = kafka.millis("connect_timeout_ms", 1..=DAY_MS);
    let request_timeout = kafka.millis("request_timeout_ms", 1..=DAY_MS);
    let metadata_max_age = kafka.millis("metadata_max_age_ms", METADATA_AGE_MIN_MS..=DAY_MS);
    let (tls, sasl, librdkafka) = (kafka.inner("tls"), kafka.inner("sasl"), kafka.inner("librdkafka"));
    finish(kafka, "[kafka]");
    let security = security::read(tables, context, "kafka", tls, sasl);
    let properties = security::properties(context, "kafka", owned, librdkafka);
    let mut seen = HashSet::new();
    let servers = servers?.into_iter().map(Spanned::into_inner).filter(|server| seen.insert(server.clone()));
    Some(KafkaSettings {
        bootstrap_servers: servers.collect(),
        client_id: client_id?,
        connect_timeout: connect_timeout?,
        request_timeout: request_timeout?,
        metadata_max_age: metadata_max_age?,
        security: security.ok()?,
        properties: properties.ok()?,
    })
}

fn commit<'a>(tables: &Tables<'a>, context: &mut Context<'a>) -> Option<CommitSettings> {
    let mut commit = tables.reader(context, "commit");
    let interval = commit.millis("interval_ms", 1..=DAY_MS);
    let batch_size = commit.number("batch_size", 1..=KAFKA_INT_MAX);
    let min_interval = commit.millis("min_interval_ms", 0..=DAY_MS);
    let max_retries = commit.number("max_retries", 0..=KAFKA_INT_MAX);
    let retry_delay = commit.millis("retry_delay_ms", 1..=DAY_MS);
    let max_uncommitted = commit.number("max_uncommitted", 0..=u64::MAX);
    if let (Some(min), Some(max)) = (min_interval, interval)
        && min > max
    {
        let (min, max) = (min.as_millis(), max.as_millis());
        // At the one of the two that the file has.
        let (key, text) = if commit.own("min_interval_ms").is_some() {
            ("min_interval_ms", format!("is {min}, more than interval_ms ({max}); write at most {max}"))
        } else {
            ("interval_ms", format!("is {max}, less than min_interval_ms ({min}); write at least {min}"))
        };
        commit.wrong(key, text);
    }
    finish(commit, "[commit]");
    Some(CommitSettings {
        interval: interval?,
        batch_size: batch_size?,
        min_interval: min_interval?,
        max_retries: max_retries?,
        retry_delay: retry_delay?,
        max_uncommitted: max_uncommitted?,
    })
}

/// `Ok(None)` without the table; `Err` if it is wrong, which has been told.
fn gate<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    topics: Option<&BTreeSet<Arc<str>>>,
) -> Result<Option<GateSettings>, ()> {
    const EXAMPLE: &str = "[\"orders\", \"prices\"]";
    if tables.in_file(context, "gate").is_none() {
        return Ok(None);
    }
    let mut gate = tables.reader(context, "gate");
    let required = gate.list("required_topics", EXAMPLE, false, value::topic_name);
    let required = gate.required("required_topics", required, EXAMPLE);
    let max_attempts = gate.number("max_attempts", 1..=KAFKA_INT_MAX);
    let timeout = gate.millis("timeout_ms", 1..=DAY_MS);
    let on_timeout = gate.choice("on_timeout");
    let mut known = Some(vec![]);
    if let (Some(required), Some(topics)) = (&required, topics) {
        for name in required {
            match (topics.get(name.get_ref().as_str()), &mut known) {
                (Some(topic), Some(known)) if !known.contains(topic) => known.push(Arc::clone(topic)),
                (Some(_), _) => {}
                (None, _) => {
                    let names = topics.iter().map(AsRef::as_ref);
                    let text = topics::not_consumed(&mut gate.context.faults, name.get_ref(), names);
                    if !gate.context.faults.incomplete() {
                        gate.wrong_at(name.span().start, "required_topics", text);
                    }
                    known = None;
                }
            }
        }
    }
    finish(gate, "[gate]");
    let settings = || {
        Some(GateSettings {
            required_topics: required.and(known)?,
            max_attempts: max_attempts?,
            timeout: timeout?,
            on_timeout: on_timeout?,
        })
    };
    settings().map(Some).ok_or(())
}

/// The tables inside the file's table `name`, each with the place of its name.
pub(super) fn entries<'a>(table: &'a DeTable<'a>) -> impl Iterator<Item = (usize, &'a str, &'a Spanned<DeValue<'a>>)> {
    table.iter().map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value))
}
