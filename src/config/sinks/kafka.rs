//! The keys of `type = "kafka"`, and the ways that records take through sinks of this type.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::super::read::{Context, Reader};
use super::super::resolve::{KAFKA_INT_MAX, Tables};
use super::super::security::{self, Found};
use super::super::value::{self, Choice};
use super::super::{DeadLetter, KafkaSettings, Mode, SinkSettings, TopicSettings};
use crate::client::Library;
use crate::client::properties::owned_by_producer;
use crate::failure::OnFailure;
use crate::sink::kafka::{Compression, Placement, Settings, Template};

const EXAMPLE: &str = "\"copy-of-{topic}\"";
const SERVERS: &str = "[\"broker1:9092\"]";
/// What is found by a pattern, in an error; no topic's name.
const FOUND: &str = "any that topics_regex finds";
/// The dead letters, among the names of sinks; those have no blanks.
const LETTERS: &str = "dead letters";
/// What librdkafka takes at most.
const LINGER_MAX_MS: u64 = 900_000;

impl Choice for Placement {
    const ALL: &'static [(&'static str, Self)] = &[("key", Self::Key), ("same", Self::Same)];
}

impl Choice for Compression {
    const ALL: &'static [(&'static str, Self)] = &[
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

/// What stands in the table itself.
pub(super) struct Own<'a> {
    topic: Option<String>,
    servers: Option<Vec<String>>,
    has_servers: bool,
    placement: Option<Placement>,
    compression: Option<Compression>,
    linger: Option<Duration>,
    timeout: Option<Duration>,
    tls: Found<'a>,
    sasl: Found<'a>,
    librdkafka: Found<'a>,
}

/// Reads it.
pub(super) fn read<'a>(sink: &mut Reader<'_, 'a>) -> Own<'a> {
    let topic = sink.text("topic", template);
    let topic = sink.required("topic", topic, EXAMPLE);
    let servers = sink.list("bootstrap_servers", SERVERS, true, value::server);
    Own {
        topic,
        servers: servers.map(|list| list.into_iter().map(Spanned::into_inner).collect()),
        has_servers: sink.own("bootstrap_servers").is_some(),
        placement: sink.choice("partition"),
        compression: sink.choice("compression"),
        linger: sink.millis("linger_ms", 0..=LINGER_MAX_MS),
        timeout: sink.millis("timeout_ms", 1..=KAFKA_INT_MAX),
        tls: sink.inner("tls"),
        sasl: sink.inner("sasl"),
        librdkafka: sink.inner("librdkafka"),
    }
}

impl<'a> Own<'a> {
    /// Reads the tables inside of it. `at`: where the sink begins.
    pub(super) fn resolve(
        self,
        tables: &Tables<'a>,
        context: &mut Context<'a>,
        owner: String,
        at: usize,
        kafka: Option<&KafkaSettings>,
    ) -> Option<Settings> {
        let built_in = security::is_built_in(context, at, &owner);
        let of_its_own = self.has_servers;
        for (key, table) in [("tls", self.tls), ("sasl", self.sasl)] {
            if let Some((at, _)) = table.filter(|_| !of_its_own) {
                let text = format!(
                    "stands without {owner}.bootstrap_servers, and [kafka] decides how its own cluster is talked to; write bootstrap_servers = {SERVERS} under [{owner}], or leave it out"
                );
                context.faults.add(at, format!("{owner}.{key}"), text);
            }
        }
        let security = match of_its_own {
            true => security::read(tables, context, &owner, self.tls, self.sasl).ok(),
            false => kafka.map(|kafka| kafka.security.clone()),
        };
        let properties = security::properties(context, &owner, owned_by_producer, self.librdkafka).ok();
        let template = self.topic.and_then(|text| Template::parse(&text).ok());
        let kafka = kafka?;
        built_in.ok()?;
        let servers: Vec<String> = match of_its_own {
            true => {
                let mut seen = HashSet::new();
                self.servers?.into_iter().filter(|server| seen.insert(server.clone())).collect()
            }
            false => kafka.bootstrap_servers.clone(),
        };
        if !of_its_own && (self.tls.is_some() || self.sasl.is_some()) {
            return None;
        }
        let servers_are_same = servers.iter().any(|server| kafka.bootstrap_servers.contains(server));
        Some(Settings {
            topic: template?,
            placement: self.placement?,
            compression: self.compression?,
            linger: self.linger?,
            timeout: self.timeout?,
            cluster: KafkaSettings {
                bootstrap_servers: servers,
                security: security?,
                properties: properties?,
                ..kafka.clone()
            },
            same_cluster: servers_are_same,
            table: if of_its_own { owner } else { "kafka".to_owned() },
        })
    }
}

/// Of a sink without a type: each key has its type of value.
pub(super) fn any(sink: &mut Reader<'_, '_>) {
    let _ = sink.text("topic", template);
    let _ = sink.list("bootstrap_servers", SERVERS, true, value::server);
    let _ = sink.choice::<Placement>("partition");
    let _ = sink.choice::<Compression>("compression");
    let _ = sink.millis("linger_ms", 0..=LINGER_MAX_MS);
    let _ = (sink.inner("tls"), sink.inner("sasl"), sink.inner("librdkafka"));
}

fn template(text: &str) -> Result<(), String> {
    let template = Template::parse(text).map_err(|why| format!("{why}; write a topic's name such as {EXAMPLE}"))?;
    // What the words stand for is legal by itself.
    let sample = template.name(&crate::record::TopicPartition::new("t", 0));
    value::topic_name(&sample).map_err(|_| {
        format!(
            "is {}, which makes no topic's name; names are made of a-z, A-Z, 0-9, '.', '_' and '-', {{topic}} and {{partition}}",
            value::show_text(text)
        )
    })
}

/// Whether records go where they can't, or in a circle, as far as that can be seen.
pub(in super::super) fn check_ways<'a>(
    tables: &Tables<'a>,
    context: &mut Context<'a>,
    sinks: &BTreeMap<String, SinkSettings>,
    dead_letter: Option<&DeadLetter>,
    topics: &[&TopicSettings],
) {
    let table = tables.file.get("sink").and_then(|sink| sink.get_ref().as_table());
    let letters = tables.file.get("dead_letter");
    let place = |sink: &str| {
        let table = if sink == LETTERS { letters } else { table?.get(sink) };
        Some(table?.get_ref().as_table()?.get("topic")?.span().start)
    };
    // Of what patterns find there are no names yet; what leads any topic into itself shows all the same.
    let name_of = |topic: &TopicSettings| match topic.name.is_empty() {
        true => Arc::from(FOUND),
        false => Arc::clone(&topic.name),
    };
    let names: Vec<Arc<str>> = topics.iter().map(|topic| name_of(topic)).collect();
    let mut told: BTreeSet<(&str, String)> = BTreeSet::new();
    // From each topic to those that are read here.
    let mut ways: Vec<Vec<(usize, &str)>> = Vec::with_capacity(topics.len());
    for (topic, own) in topics.iter().zip(&names) {
        let mut next = Vec::new();
        let to = topic.sinks.iter().filter_map(|sink| match sinks.get(sink) {
            Some(SinkSettings::Kafka(settings)) => Some((sink.as_str(), settings)),
            _ => None,
        });
        let letters = match dead_letter {
            Some(DeadLetter::Topic(settings)) if topic.failure.on_failure == OnFailure::DeadLetter => {
                Some((LETTERS, settings))
            }
            _ => None,
        };
        for (sink, settings) in to.chain(letters) {
            let name = settings.topic.name(&crate::record::TopicPartition::new(Arc::clone(own), 0));
            if let Err(why) = value::topic_name(&name)
                && !topic.name.is_empty()
            {
                told.insert((sink, format!("leads records of {} to a topic whose name {why}", topic.name)));
            }
            if settings.same_cluster {
                let to = names.iter().enumerate().filter(|(_, to)| settings.topic.can_lead(own, to));
                next.extend(to.map(|(index, _)| (index, sink)));
            }
        }
        ways.push(next);
    }
    for (start, name) in names.iter().enumerate() {
        for (first, sink) in &ways[start] {
            let (mut seen, mut left) = (HashSet::from([*first]), vec![*first]);
            while let Some(at) = left.pop() {
                left.extend(ways[at].iter().map(|(to, _)| *to).filter(|to| seen.insert(*to)));
            }
            if seen.contains(&start) {
                let way = match *first == start {
                    true => format!("into the topic that they come from ({name})"),
                    false => format!("to {}, and from there back to {name}", names[*first]),
                };
                let text = format!(
                    "leads records {way}, on the same cluster, without an end; write another topic, such as {EXAMPLE}, or another bootstrap_servers"
                );
                told.insert((sink, text));
            }
        }
    }
    for (sink, text) in told {
        let table = if sink == LETTERS { "dead_letter".to_owned() } else { format!("sink.{sink}") };
        context.faults.add(place(sink).unwrap_or(0), format!("{table}.topic"), text);
    }
}

/// With `client = "auto"` what is forwarded is read by librdkafka: the crate `kafka` knows no headers and no timestamps.
pub(in super::super) fn read_whole(
    context: &mut Context<'_>,
    mode: Mode,
    sinks: &BTreeMap<String, SinkSettings>,
    topics: &mut [&mut TopicSettings],
) {
    let is_forwarded =
        |topic: &TopicSettings| topic.sinks.iter().any(|sink| matches!(sinks.get(sink), Some(SinkSettings::Kafka(_))));
    // One client reads all of them then.
    let any = mode == Mode::Single && topics.iter().any(|topic| is_forwarded(topic));
    for topic in topics {
        let forwarded = is_forwarded(topic);
        match topic.reading.library {
            None if forwarded || any => topic.reading.library = Some(Library::Librdkafka),
            Some(Library::Kafka) if forwarded => context.warnings.push(format!(
                "{} is forwarded by a sink of type kafka and read with client = \"kafka\", which knows no headers and no timestamps, and takes empty keys and values for null: none of that arrives; write client = \"auto\" or \"librdkafka\"",
                if topic.name.is_empty() { "what topics_regex finds".to_owned() } else { format!("topic {}", topic.name) }
            )),
            None | Some(Library::Kafka | Library::Librdkafka) => {}
        }
    }
}
