//! From a configuration to consumers, and from one plan to the next.
//!
//! Pure. The only place that knows the mode: below it there are consumers with topics, and nothing
//! else. Owns the shares: how much memory and how many batches each consumer may hold, and what is left
//! to be lent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::{FetchSettings, Reading};
use crate::config::{Config, KafkaSettings, Mode, TopicSettings};
use crate::consumer::core::{Policy, Settings};
use crate::memory::Reserve;

mod difference;

pub use difference::Difference;

/// Batches in flight in the whole process, at most, shared out evenly: it bounds the lanes' queues,
/// whose places exist from the start.
const BATCHES: usize = 32 << 10;
/// Enough for one consumer to keep its lane busy, however few consumers there are.
const MOST_BATCHES: usize = 512;
/// Enough to have one batch written while the next one is on its way, however many there are.
const LEAST_BATCHES: usize = 8;

/// One consumer: a group and its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPlan {
    /// Its name in log lines and thread names: its topic, or its group if it has several.
    pub name: String,
    /// What its core needs.
    pub settings: Settings,
    /// What its client needs.
    pub fetch: FetchSettings,
    /// How its client reaches the brokers.
    pub kafka: Arc<KafkaSettings>,
    /// With which library, and who shares the partitions.
    pub reading: Reading,
    /// The sink of each of its topics.
    pub sinks: BTreeMap<Arc<str>, Vec<String>>,
}

impl ConsumerPlan {
    /// Whether it has a topic in common with `other`.
    pub fn shares_topic(&self, other: &Self) -> bool {
        self.sinks.keys().any(|topic| other.sinks.contains_key(topic))
    }

    /// The same with the shares of `other`.
    fn with_shares_of(mut self, other: &Self) -> Self {
        (self.settings.batches, self.settings.bytes) = (other.settings.batches, other.settings.bytes);
        self.fetch.memory = other.fetch.memory;
        self
    }
}

/// A topic that is not read for the time being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// Its name.
    pub topic: Arc<str>,
    /// The group that keeps its place.
    pub group: String,
    /// The sink that it would go to.
    pub sinks: Vec<String>,
}

/// All that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The consumers, in the order of their topics.
    pub consumers: Vec<ConsumerPlan>,
    /// The topics that are not read.
    pub paused: Vec<Paused>,
    /// All shares together never exceed this, in bytes.
    pub memory: usize,
    /// What is lent beside the shares.
    pub reserve: Reserve,
}

impl Plan {
    /// What `config` comes to: even shares.
    pub fn new(config: &Config) -> Self {
        let (memory, reserve) = (config.memory_limit / 4 * 3, Reserve::new(config.memory_limit / 4));
        Self::over(config, &Self { consumers: Vec::new(), paused: Vec::new(), memory, reserve })
    }

    /// What `config` comes to where `before` runs. A consumer that stays as it is keeps its share, so
    /// that it can be left alone; the others divide what is left of the memory, up to an even share. If
    /// that is less than half of an even share, the one with the largest share loses it and is
    /// among those that divide, which is a change. A share is never raised but when its consumer changes.
    /// The memory and the reserve are those of `before`, whatever `config` says.
    #[must_use]
    pub fn over(config: &Config, before: &Self) -> Self {
        let (paused, read): (Vec<_>, Vec<_>) = config.topics.iter().partition(|topic| topic.paused);
        let groups: Vec<Vec<&TopicSettings>> = match config.mode {
            Mode::Multi => read.into_iter().map(|topic| vec![topic]).collect(),
            Mode::Single => vec![read],
        };
        let groups: Vec<_> = groups.iter().filter_map(|topics| Some((topics.first()?, topics))).collect();
        let even = before.memory / groups.len().max(1);
        let batches = (BATCHES / groups.len().max(1)).clamp(LEAST_BATCHES, MOST_BATCHES);
        let kafka = Arc::new(config.kafka.clone());
        let make = |(first, topics): &(&&TopicSettings, &Vec<&TopicSettings>)| {
            consumer(config, first, topics, &before.reserve, &kafka, batches)
        };
        let mut consumers: Vec<ConsumerPlan> = groups.iter().map(make).collect();
        // Which of them stay as they are.
        let mut stays = vec![false; consumers.len()];
        for (consumer, stays) in consumers.iter_mut().zip(&mut stays) {
            let same = |old: &&ConsumerPlan| consumer.clone().with_shares_of(old) == **old;
            if let Some(old) = before.consumers.iter().find(|old| old.name == consumer.name).filter(same) {
                *consumer = old.clone();
                *stays = true;
            }
        }
        let share = loop {
            let held: usize = consumers.iter().zip(&stays).filter(|(_, s)| **s).map(|(c, _)| c.settings.bytes).sum();
            let others = stays.iter().filter(|stays| !**stays).count();
            let share = ((before.memory - held) / others.max(1)).min(even);
            let largest = (0..consumers.len()).filter(|&at| stays[at]).max_by_key(|&at| consumers[at].settings.bytes);
            match largest {
                Some(at) if others > 0 && share < even / 2 => stays[at] = false,
                _ => break share,
            }
        };
        for (consumer, _) in consumers.iter_mut().zip(stays).filter(|(_, stays)| !stays) {
            consumer.settings.batches = batches;
            (consumer.settings.bytes, consumer.fetch.memory) = (share, share);
        }
        let paused = paused.into_iter().map(|topic| Paused {
            topic: Arc::clone(&topic.name),
            group: topic.group.clone(),
            sinks: topic.sinks.clone(),
        });
        Self { consumers, paused: paused.collect(), memory: before.memory, reserve: before.reserve.clone() }
    }

    /// The topics that are read, each with its sinks.
    pub fn routes(&self) -> impl Iterator<Item = (&Arc<str>, &Vec<String>)> {
        self.consumers.iter().flat_map(|consumer| &consumer.sinks)
    }

    /// The sinks that are used.
    pub fn used(&self) -> BTreeSet<&String> {
        self.routes().flat_map(|(_, sinks)| sinks).collect()
    }
}

fn consumer(
    config: &Config,
    first: &TopicSettings,
    topics: &[&TopicSettings],
    reserve: &Reserve,
    kafka: &Arc<KafkaSettings>,
    batches: usize,
) -> ConsumerPlan {
    // In single mode the configuration has made sure that all agree in what belongs to the client.
    let name = match config.mode {
        Mode::Multi => first.name.to_string(),
        Mode::Single => first.group.clone(),
    };
    let policy = |topic: &&TopicSettings| {
        let policy = Policy {
            reset: topic.auto_offset_reset,
            on_out_of_range: topic.on_out_of_range,
            max_poll_records: topic.max_poll_records,
            takeover_timeout: topic.takeover_timeout,
            on_takeover_timeout: topic.on_takeover_timeout,
            came_later: topic.came_later,
        };
        (Arc::clone(&topic.name), policy)
    };
    ConsumerPlan {
        name,
        settings: Settings {
            group: first.group.clone(),
            topics: topics.iter().map(policy).collect(),
            pace: config.commit,
            drain_timeout: config.drain_timeout,
            batches,
            bytes: 0,
        },
        fetch: first.fetch(0, reserve.clone()),
        kafka: Arc::clone(kafka),
        reading: first.reading.clone(),
        sinks: topics.iter().map(|topic| (Arc::clone(&topic.name), topic.sinks.clone())).collect(),
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
