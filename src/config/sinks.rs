//! The tables `[sink.NAME]`.
//!
//! Owns the keys of each type of sink. The sinks `drop`, `log` and `stdout` exist without a table; one
//! in the file changes their settings, not their type.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use super::errors::TableName;
use super::read::{Context, Layer, Origin, Reader};
use super::resolve::{KAFKA_INT_MAX, Tables, entries};
use super::value::{self, Choice};
use super::{DeadLetter, Format, KafkaSettings, SinkSettings, Spread};
use crate::dispatch::Order;

mod exec;
mod http;
mod kafka;

pub(super) use kafka::{check_ways, read_whole};

/// The sinks that exist without a table.
pub(super) const BUILT_IN: [&str; 3] = ["drop", "log", "stdout"];
/// Of one value in a log line; more belongs into a file.
const SHOWN_MAX: u64 = 1 << 20;
/// Below this a file would be begun every few records.
const ROTATE_MIN: u64 = 1 << 10;
const ROTATE_MAX: u64 = 1 << 50;
/// Each is a thread, and perhaps a process.
const LANES_MAX: u64 = 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Drop,
    Log,
    Stdout,
    File,
    Exec,
    Http,
    Kafka,
}

impl Choice for Type {
    const ALL: &'static [(&'static str, Self)] = &[
        ("drop", Self::Drop),
        ("log", Self::Log),
        ("stdout", Self::Stdout),
        ("file", Self::File),
        ("exec", Self::Exec),
        ("http", Self::Http),
        ("kafka", Self::Kafka),
    ];
}

impl Type {
    /// Whether each lane can have one of its own.
    fn may_have_lanes(self) -> bool {
        match self {
            Self::Drop | Self::Exec | Self::Http | Self::Kafka => true,
            // Two that write to the same would mix their lines.
            Self::Log | Self::Stdout | Self::File => false,
        }
    }
}

impl Choice for Order {
    const ALL: &'static [(&'static str, Self)] = &[("partition", Self::Partition), ("key", Self::Key)];
}

/// What is noted of all sinks.
struct Places<'p, 'a> {
    /// The files that are written, and by whom.
    paths: &'p mut HashMap<PathBuf, &'a str>,
    spreads: &'p mut BTreeMap<String, Spread>,
    /// `[kafka]`, unless it is wrong.
    kafka: Option<&'p KafkaSettings>,
}

impl Choice for Format {
    const ALL: &'static [(&'static str, Self)] = &[("json", Self::Json), ("raw", Self::Raw)];
}

/// The names that a topic may give as its sink, whether their tables are right or not.
pub(super) fn names<'a>(tables: &Tables<'a>, context: &mut Context<'a>) -> BTreeSet<&'a str> {
    let table = tables.in_file(context, "sink").map(|(_, table)| table);
    let own = context.own.keys().map(String::as_str);
    BUILT_IN.into_iter().chain(own).chain(table.into_iter().flat_map(entries).map(|(_, name, _)| name)).collect()
}

/// Reads the sinks of the file, and the built-in ones that are used; and the file for dead letters, which no sink
/// may write to.
pub(super) fn read<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    used: &BTreeSet<String>,
    kafka: Option<&KafkaSettings>,
    spreads: &mut BTreeMap<String, Spread>,
) -> (Option<BTreeMap<String, SinkSettings>>, Option<DeadLetter>) {
    let mut paths = HashMap::new();
    let mut places = Places { paths: &mut paths, spreads, kafka };
    let sinks = read_sinks(tables, context, used, &mut places);
    (sinks, dead_letter(tables, context, kafka, &mut paths))
}

/// `[dead_letter]`
fn dead_letter<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    kafka: Option<&KafkaSettings>,
    paths: &mut HashMap<PathBuf, &'a str>,
) -> Option<DeadLetter> {
    let (at, table) = tables.in_file(context, "dead_letter")?;
    let file = Layer { origin: Origin::File { inherited: None }, table };
    let to_topic = table.contains_key("topic");
    let defaults = tables.default_layer(&["sink", "kafka"]).filter(|_| to_topic);
    let mut reader =
        Reader::new(context, TableName::new("dead_letter"), at, defaults.into_iter().chain([file]).collect());
    let path = reader.text("path", file_path);
    if to_topic {
        reader.leave_out("path");
        if reader.own("path").is_some() {
            reader.wrong(
                "path",
                "stands beside topic; dead letters go to one of them, so leave the other out".to_owned(),
            );
        }
        let found = kafka::read(&mut reader);
        let (context, scope) = reader.finish("[dead_letter]".to_owned());
        context.report.push(scope);
        let settings = found.resolve(tables, context, "dead_letter".to_owned(), at, kafka)?;
        if settings.topic.has_partition() {
            let at = table.get("topic").map_or(at, |topic| topic.span().start);
            let text = "has {partition} in it; of dead letters there is one topic, or one for each {topic}".to_owned();
            context.faults.add(at, "dead_letter.topic".to_owned(), text);
        }
        return Some(DeadLetter::Topic(Box::new(settings)));
    }
    let path = reader
        .required("path", path, "\"/var/lib/worker/dead.jsonl\", or topic = \"{topic}-dead\"")
        .map(|path| plain(&path));
    if let Some(other) = path.as_ref().and_then(|path| paths.get(path)) {
        let text = format!("is the file that [sink.{other}] writes to; give the dead letters their own file");
        reader.wrong("path", text);
    }
    let (context, scope) = reader.finish("[dead_letter]".to_owned());
    context.report.push(scope);
    path.map(DeadLetter::File)
}

fn read_sinks<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    used: &BTreeSet<String>,
    places: &mut Places<'_, 'a>,
) -> Option<BTreeMap<String, SinkSettings>> {
    let mut sinks = BTreeMap::new();
    let mut good = true;
    let table = tables.file.get("sink").and_then(|sink| sink.get_ref().as_table());
    for (at, name, value) in table.into_iter().flat_map(entries) {
        if let Err(text) = value::sink_name(name) {
            context.faults.add(at, "sink".to_owned(), text);
            good = false;
            continue;
        }
        let Some(table) = value.get_ref().as_table() else {
            let text = value::wrong(value.get_ref(), &format!("its keys under [sink.{name}], once"));
            context.faults.add(at, format!("sink.{name}"), text);
            good = false;
            continue;
        };
        let file = Layer { origin: Origin::File { inherited: None }, table };
        let Some(settings) = sink(tables, context, name, value.span().start, Some(file), places) else {
            good = false;
            continue;
        };
        if !used.contains(name) && !BUILT_IN.contains(&name) {
            let line = context.lines.line(at);
            context.warnings.push(format!(
                "line {line}: [sink.{name}] is used by no topic; write sink = \"{name}\" where it is meant"
            ));
        }
        sinks.insert(name.to_owned(), settings);
    }
    for name in BUILT_IN.into_iter().chain(context.own.keys().map(String::as_str)) {
        if used.contains(name) && !sinks.contains_key(name) {
            sinks.insert(name.to_owned(), sink(tables, context, name, 0, None, places)?);
        }
    }
    good.then_some(sinks)
}

fn sink<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    name: &'a str,
    at: usize,
    file: Option<Layer<'a>>,
    Places { paths, spreads, kafka }: &mut Places<'_, 'a>,
) -> Option<SinkSettings> {
    let built_in = BUILT_IN.contains(&name);
    let default = |name| tables.default_layer(&["sink", name]);
    if let Some(own) = context.own.get(name) {
        let layers = default("own").into_iter().chain(file).collect();
        let mut sink = Reader::new(context, TableName::new(&format!("sink.{name}")), at, layers);
        let spread = sink.number("lanes", 1..=LANES_MAX).zip(sink.choice("order"));
        let (context, scope) = sink.finish(format!("[sink.{name}]"));
        context.report.push(scope);
        let (lanes, order) = spread?;
        spreads.insert(name.to_owned(), Spread { lanes, order });
        return Some(SinkSettings::Own(own.clone()));
    }
    let layers = default(name).filter(|_| built_in).into_iter().chain(file).collect();
    let mut sink = Reader::new(context, TableName::new(&format!("sink.{name}")), at, layers);
    let kind = sink.choice::<Type>("type");
    let Some(kind) = sink.required("type", kind, "\"file\" (or exec, http, kafka, drop, log, stdout)") else {
        any_type(&mut sink);
        let (_, _) = sink.finish(format!("[sink.{name}]"));
        return None;
    };
    if built_in && kind.word() != name {
        sink.wrong(
            "type",
            format!(
                "is \"{}\", but a sink named {name} is always of type {name}; give this one another name",
                kind.word()
            ),
        );
        return None;
    }
    if !built_in && let Some(layer) = default(kind.word()) {
        sink.insert_below_file(layer);
    }
    let settings = match kind {
        Type::Drop => Some(SinkSettings::Drop),
        Type::Log => {
            let (level, max_value_bytes) = (sink.choice("level"), sink.size("max_value_bytes", 0..=SHOWN_MAX));
            level.zip(max_value_bytes).map(|(level, max_value_bytes)| SinkSettings::Log { level, max_value_bytes })
        }
        Type::Stdout => sink.choice("format").map(|format| SinkSettings::Stdout { format }),
        Type::File => file_sink(&mut sink, name, paths),
        Type::Exec => exec::read(&mut sink, name).map(SinkSettings::Exec),
        Type::Http => http::read(&mut sink, name).map(Box::new).map(SinkSettings::Http),
        Type::Kafka => None,
    };
    let found = (kind == Type::Kafka).then(|| kafka::read(&mut sink));
    if kind.may_have_lanes()
        && let (Some(lanes), Some(order)) = (sink.number("lanes", 1..=LANES_MAX), sink.choice("order"))
    {
        spreads.insert(name.to_owned(), Spread { lanes, order });
    }
    let (context, scope) = sink.finish(format!("[sink.{name}]"));
    context.report.push(scope);
    match found {
        // Its inner tables come behind its own.
        Some(found) => found
            .resolve(tables, context, format!("sink.{name}"), at, *kafka)
            .map(|found| SinkSettings::Kafka(Box::new(found))),
        None => settings,
    }
}

/// Of a sink without a type nobody knows which keys it has; but each has its type of value, and a key that
/// no type of sink has is wrong.
fn any_type(sink: &mut Reader<'_, '_>) {
    let _ = sink.choice::<log::Level>("level");
    let _ = sink.size::<usize>("max_value_bytes", 0..=SHOWN_MAX);
    let _ = sink.choice::<Format>("format");
    let _ = sink.number::<usize>("lanes", 1..=LANES_MAX);
    let _ = sink.choice::<Order>("order");
    let _ = sink.text("path", file_path);
    let _ = sink.size::<u64>("rotate_size", ROTATE_MIN..=ROTATE_MAX);
    let _ = sink.number::<usize>("rotate_keep", 1..=KAFKA_INT_MAX);
    exec::any(sink);
    http::any(sink);
    kafka::any(sink);
}

fn file_sink<'a>(
    sink: &mut Reader<'_, 'a>,
    name: &'a str,
    paths: &mut HashMap<PathBuf, &'a str>,
) -> Option<SinkSettings> {
    let path = sink.text("path", file_path);
    let path = sink.required("path", path, &format!("\"/var/lib/worker/{name}.jsonl\""));
    let format = sink.choice("format");
    let rotate_size = sink.size("rotate_size", ROTATE_MIN..=ROTATE_MAX);
    let rotate_keep = sink.number("rotate_keep", 1..=KAFKA_INT_MAX);
    if sink.own("rotate_keep").is_some() && sink.own("rotate_size").is_none() {
        let text = "does nothing without rotate_size; write how large a file may become, rotate_size = \"100MiB\"";
        sink.wrong("rotate_keep", text.to_owned());
    }
    let path = plain(&path?);
    if let Some(other) = paths.insert(path.clone(), name) {
        let text = format!(
            "is \"{}\", to which [sink.{other}] writes already; give each its own file, or use one sink for both",
            path.display()
        );
        sink.wrong("path", text);
    }
    Some(SinkSettings::File { path, format: format?, rotate_size, rotate_keep })
}

/// To be compared part by part, so that "a//b" and "a/./b" are "a/b".
fn plain(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| *part != Component::CurDir).collect()
}

fn file_path(path: &str) -> Result<(), String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return Err(format!(
            "is {}, which names no file; write one such as \"/var/lib/worker/orders.jsonl\"",
            value::show_text(path)
        ));
    }
    if path.contains(char::is_control) {
        return Err(format!("is {}, with control characters; leave them out", value::show_text(path)));
    }
    Ok(())
}
