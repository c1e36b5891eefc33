//! From a configuration to consumers.
//!
//! Pure. The only place that knows the mode: below it there are consumers with topics, and nothing
//! else. Owns the shares: how much memory and how many batches each consumer may hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::FetchSettings;
use crate::config::{Config, Mode, TopicSettings};
use crate::consumer::core::{Policy, Settings};

/// Batches in flight in the whole process, at most, shared out evenly: it bounds the lanes' queues,
/// whose places exist from the start.
const BATCHES: usize = 32 << 10;
/// Enough for one consumer to keep its lane busy, however few consumers there are.
const MOST_BATCHES: usize = 512;
/// Enough to have one batch written while the next one is on its way, however many there are.
const LEAST_BATCHES: usize = 8;

/// One consumer: a group and its topics.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// Its name in log lines and thread names: its topic, or its group if it has several.
    pub name: String,
    /// What its core needs.
    pub settings: Settings,
    /// What its client needs.
    pub fetch: FetchSettings,
}

/// All that is to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The consumers, in the order of their topics.
    pub consumers: Vec<ConsumerPlan>,
    /// The sink of each topic.
    pub routes: BTreeMap<Arc<str>, String>,
}

impl Plan {
    /// What `config` comes to.
    pub fn new(config: &Config) -> Self {
        let groups: Vec<Vec<&TopicSettings>> = match config.mode {
            Mode::Multi => config.topics.iter().map(|topic| vec![topic]).collect(),
            Mode::Single => vec![config.topics.iter().collect()],
        };
        let shares = groups.len().max(1);
        // The last quarter is for what is larger than foreseen: answers that expand, and the
        // library's own lists.
        let memory = config.memory_limit / 4 * 3 / shares;
        let batches = (BATCHES / shares).clamp(LEAST_BATCHES, MOST_BATCHES);
        let consumers = groups.iter().filter_map(|topics| consumer(config, topics, memory, batches)).collect();
        let routes = config.topics.iter().map(|topic| (Arc::clone(&topic.name), topic.sink.clone())).collect();
        Self { consumers, routes }
    }

    /// How many batches may wait in the queue of the lane of `sink`: the budgets of all consumers
    /// with a topic that is routed to it, so that the dispatcher always finds room.
    pub fn queue(&self, sink: &str) -> usize {
        let routed = |consumer: &&ConsumerPlan| {
            consumer.settings.topics.iter().any(|(topic, _)| self.routes.get(topic).is_some_and(|s| s == sink))
        };
        self.consumers.iter().filter(routed).map(|consumer| consumer.settings.batches).sum()
    }
}

fn consumer(config: &Config, topics: &[&TopicSettings], memory: usize, batches: usize) -> Option<ConsumerPlan> {
    // In single mode the configuration has made sure that all agree in what belongs to the client.
    let first = topics.first()?;
    let name = if topics.len() == 1 { first.name.to_string() } else { first.group.clone() };
    let policy = |topic: &&TopicSettings| {
        let policy = Policy {
            reset: topic.auto_offset_reset,
            on_out_of_range: topic.on_out_of_range,
            max_poll_records: topic.max_poll_records,
            takeover_timeout: topic.takeover_timeout,
            on_takeover_timeout: topic.on_takeover_timeout,
        };
        (Arc::clone(&topic.name), policy)
    };
    Some(ConsumerPlan {
        name,
        settings: Settings {
            group: first.group.clone(),
            topics: topics.iter().map(policy).collect(),
            pace: config.commit,
            drain_timeout: config.drain_timeout,
            batches,
            bytes: memory,
        },
        fetch: first.fetch(memory),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(mode: bool) -> Plan {
        let text = format!(
            "[kafka]\nbootstrap_servers = ['b:1']\n[consumer]\ngroup_id = 'g'\ntopics = ['a', 'b', 'c']\n\
             multi_consumer_mode = {mode}\n[memory]\nlimit = '64MiB'\n[[topic]]\nname = 'b'\nsink = 'drop'\n"
        );
        Plan::new(&crate::config::parse(&text, &|_| None).unwrap())
    }

    #[test]
    fn a_consumer_and_a_group_a_topic() {
        let plan = plan(true);
        let groups: Vec<_> = plan.consumers.iter().map(|c| (c.name.as_str(), c.settings.group.as_str())).collect();
        assert_eq!(groups, [("a", "g-a"), ("b", "g-b"), ("c", "g-c")]);
        assert!(plan.consumers.iter().all(|c| c.settings.bytes == 16 << 20 && c.fetch.memory == 16 << 20));
        assert_eq!(plan.queue("log"), 2 * MOST_BATCHES);
        assert_eq!(plan.queue("drop"), MOST_BATCHES);
    }

    #[test]
    fn one_consumer_for_all_in_single_mode() {
        let plan = plan(false);
        assert_eq!(plan.consumers.len(), 1);
        assert_eq!((plan.consumers[0].name.as_str(), plan.consumers[0].settings.group.as_str()), ("g", "g"));
        assert_eq!(plan.consumers[0].settings.topics.len(), 3);
    }
}
