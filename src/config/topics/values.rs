//! The keys that `[consumer]` and `[[topic]]` have in common: read, and held against each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Base;
use crate::config::errors::short;
use crate::config::read::Reader;
use crate::config::reading::{self, Kafka};
use crate::config::resolve::{DAY_MS, KAFKA_INT_MAX};
use crate::config::value::Choice;
use crate::config::{AutoOffsetReset, OnOutOfRange, OnTakeoverTimeout, TopicSettings};
use crate::failure::{OnFailure, Policy};

/// Less than this can't hold a batch worth fetching.
const FETCH_BYTES_MIN: u64 = 1 << 10;

impl Choice for AutoOffsetReset {
    const ALL: &'static [(&'static str, Self)] = &[("latest", Self::Latest), ("earliest", Self::Earliest)];
}

impl Choice for OnTakeoverTimeout {
    const ALL: &'static [(&'static str, Self)] = &[("wait", Self::Wait), ("proceed", Self::Proceed)];
}

impl Choice for OnOutOfRange {
    const ALL: &'static [(&'static str, Self)] = &[
        ("auto_offset_reset", Self::AutoOffsetReset),
        ("earliest", Self::Earliest),
        ("latest", Self::Latest),
        ("nearest", Self::Nearest),
        ("stop", Self::Stop),
    ];
}

impl Choice for OnFailure {
    const ALL: &'static [(&'static str, Self)] =
        &[("stop", Self::Stop), ("dead_letter", Self::DeadLetter), ("drop", Self::Drop)];
}

/// The values of one table as far as they could be read, so that what has to hold between some of
/// them is looked at although others are wrong.
#[derive(Clone, Default)]
pub(super) struct Values {
    pub(super) auto_offset_reset: Option<AutoOffsetReset>,
    pub(super) on_out_of_range: Option<OnOutOfRange>,
    pub(super) max_poll_records: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) fetch_max_wait: Option<Duration>,
    pub(super) fetch_min_bytes: Option<i32>,
    pub(super) max_partition_fetch_bytes: Option<usize>,
    pub(super) fetch_max_bytes: Option<usize>,
    pub(super) check_crcs: Option<bool>,
    pub(super) reading: reading::Keys,
    pub(super) takeover_timeout: Option<Duration>,
    pub(super) on_takeover_timeout: Option<OnTakeoverTimeout>,
    pub(super) sinks: Option<Vec<String>>,
    pub(super) failure: Option<Policy>,
}

impl Values {
    /// All of them; name and group are the caller's.
    pub(super) fn complete(self) -> Option<TopicSettings> {
        Some(TopicSettings {
            name: Arc::default(),
            group: String::new(),
            auto_offset_reset: self.auto_offset_reset?,
            on_out_of_range: self.on_out_of_range?,
            max_poll_records: self.max_poll_records?,
            timeout: self.timeout?,
            fetch_max_wait: self.fetch_max_wait?,
            fetch_min_bytes: self.fetch_min_bytes?,
            max_partition_fetch_bytes: self.max_partition_fetch_bytes?,
            fetch_max_bytes: self.fetch_max_bytes?,
            check_crcs: self.check_crcs?,
            takeover_timeout: self.takeover_timeout?,
            on_takeover_timeout: self.on_takeover_timeout?,
            reading: self.reading.reading()?,
            isolation: self.reading.isolation?,
            sinks: self.sinks?,
            failure: self.failure?,
            paused: false,
            came_later: false,
        })
    }
}

/// Reads the keys that `[consumer]` and `[[topic]]` have in common. `below` are those of `[consumer]`, if
/// this is a topic.
pub(super) fn values(
    reader: &mut Reader<'_, '_>,
    sinks: &BTreeSet<&str>,
    kafka: &Kafka,
    below: Option<&Values>,
) -> Values {
    let values = Values {
        reading: reading::read(reader, kafka, below.map(|below| &below.reading)),
        auto_offset_reset: reader.choice("auto_offset_reset"),
        on_out_of_range: reader.choice("on_out_of_range"),
        max_poll_records: reader.number("max_poll_records", 1..=KAFKA_INT_MAX),
        timeout: reader.millis("timeout_ms", 1..=DAY_MS),
        fetch_max_wait: reader.millis("fetch_max_wait_ms", 1..=DAY_MS),
        fetch_min_bytes: reader.size("fetch_min_bytes", 1..=KAFKA_INT_MAX),
        max_partition_fetch_bytes: reader.size("max_partition_fetch_bytes", FETCH_BYTES_MIN..=KAFKA_INT_MAX),
        fetch_max_bytes: reader.size("fetch_max_bytes", FETCH_BYTES_MIN..=KAFKA_INT_MAX),
        check_crcs: reader.flag("check_crcs"),
        takeover_timeout: reader.millis("takeover_timeout_ms", 0..=DAY_MS),
        on_takeover_timeout: reader.choice("on_takeover_timeout"),
        sinks: reader.texts("sink", "[\"orders\", \"audit\"]", |_| Ok(())),
        failure: failure(reader),
    };
    let complete = !reader.context.faults.incomplete();
    let named = || values.sinks.iter().flatten();
    if let Some((_, name)) = named().enumerate().find(|(index, name)| named().take(*index).any(|other| other == *name))
    {
        reader.wrong("sink", format!("has \"{}\" twice; write it once", short(name)));
    }
    for name in named().filter(|name| complete && !sinks.contains(name.as_str())) {
        let offer =
            reader.context.faults.offer(name, sinks.iter().copied()).map(|offer| format!("did you mean \"{offer}\"?"));
        let advice = offer.unwrap_or_else(|| "declare it as [sink.NAME], or use drop, log or stdout".to_owned());
        reader.wrong("sink", format!("is \"{}\", and there is no such sink; {advice}", short(name)));
    }
    between(reader, &values, below);
    values
}

/// What becomes of records that the sink does not take.
fn failure(reader: &mut Reader<'_, '_>) -> Option<Policy> {
    let attempts = reader.number("retry_attempts", 0..=KAFKA_INT_MAX);
    let total = reader.millis("retry_total_ms", 0..=DAY_MS);
    let first = reader.millis("retry_initial_ms", 1..=DAY_MS);
    let longest = reader.millis("retry_max_ms", 1..=DAY_MS);
    let on_failure = reader.choice("on_failure");
    let policy =
        Policy { attempts: attempts?, total: total?, first: first?, longest: longest?, on_failure: on_failure? };
    if policy.first > policy.longest {
        let text = format!(
            "waits only grow: retry_initial_ms is {}, and retry_max_ms is {}; write a retry_initial_ms of at most that",
            policy.first.as_millis(),
            policy.longest.as_millis()
        );
        let key = if reader.own("retry_initial_ms").is_some() { "retry_initial_ms" } else { "retry_max_ms" };
        reader.wrong(key, text);
    }
    if policy.on_failure == OnFailure::DeadLetter && !reader.context.has_dead_letter {
        let text = "is \"dead_letter\", and there is no place for dead letters; write [dead_letter] with path = \"/var/lib/worker/dead.jsonl\"";
        reader.wrong("on_failure", text.to_owned());
    }
    Some(policy)
}

/// What has to hold between the values of one topic.
fn between(reader: &mut Reader<'_, '_>, values: &Values, below: Option<&Values>) {
    if let (Some(min), Some(partition), Some(all)) =
        (values.fetch_min_bytes, values.max_partition_fetch_bytes, values.fetch_max_bytes)
        && let most = partition.min(all)
        && usize::try_from(min).is_ok_and(|min| min > most)
    {
        let text = format!(
            "every fetch would wait in vain: fetch_min_bytes is {min}, and max_partition_fetch_bytes and fetch_max_bytes let it bring {most}; write a fetch_min_bytes of at most {most}"
        );
        // At the one of the three that this table has.
        let keys = ["fetch_min_bytes", "max_partition_fetch_bytes", "fetch_max_bytes"];
        let key = keys.into_iter().find(|key| reader.own(key).is_some()).unwrap_or("fetch_min_bytes");
        reader.wrong(key, text);
    }
    let pair = |values: &Values| (values.timeout, values.fetch_max_wait);
    let news = below.is_none_or(|below| pair(below) != pair(values));
    if let (Some(timeout), Some(wait)) = pair(values)
        && wait > timeout
        && news
    {
        let (line, table) = (reader.context.lines.line(reader.place("fetch_max_wait_ms")), reader.table());
        let (wait, timeout) = (wait.as_millis(), timeout.as_millis());
        reader.context.warnings.push(format!(
            "line {line}: {table}: fetch_max_wait_ms ({wait}) is longer than timeout_ms ({timeout}): rounds end before the broker answers, and look empty"
        ));
    }
}

/// In single mode one client fetches all topics: what belongs to it can't differ.
pub(super) fn one_client(reader: &mut Reader<'_, '_>, base: &Base<'_, '_>, group: Option<&str>, topic: &Values) {
    // What could not be read has its own error.
    fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
        matches!((a, b), (Some(a), Some(b)) if a != b)
    }
    let base_values = &base.values;
    let differs = [
        ("group_id", differ(&group, &base.group_id.as_deref())),
        ("timeout_ms", differ(&topic.timeout, &base_values.timeout)),
        ("fetch_max_wait_ms", differ(&topic.fetch_max_wait, &base_values.fetch_max_wait)),
        ("fetch_min_bytes", differ(&topic.fetch_min_bytes, &base_values.fetch_min_bytes)),
        ("max_partition_fetch_bytes", differ(&topic.max_partition_fetch_bytes, &base_values.max_partition_fetch_bytes)),
        ("fetch_max_bytes", differ(&topic.fetch_max_bytes, &base_values.fetch_max_bytes)),
        ("check_crcs", differ(&topic.check_crcs, &base_values.check_crcs)),
    ];
    let differs = differs.into_iter().filter_map(|(key, differs)| differs.then_some(key));
    for key in differs.chain(topic.reading.differ(&base_values.reading, reader)) {
        let by_profile = if reader.own(key).is_some() { "" } else { " (here by its profile)" };
        reader.wrong(key, format!(
            "can't differ from topic to topic{by_profile} while consumer.multi_consumer_mode = false, as one client fetches them all; write it under [consumer], or set multi_consumer_mode = true"
        ));
    }
}
