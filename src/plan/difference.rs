//! The difference of two plans: what is to be stopped, and what started, to come from the one to the other.

use std::collections::HashMap;
use std::fmt;

use super::{ConsumerPlan, Plan};

/// See the module's text. Whoever is in neither list is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The names of the consumers that are to be stopped: they are gone, or have changed.
    pub stop: Vec<String>,
    /// The consumers that are to be started: they are new, or have changed.
    pub start: Vec<ConsumerPlan>,
    /// In the words of an operator.
    pub said: Said,
}

/// What a reload comes to, by the names of topics (in single mode of the one consumer).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Not there before.
    pub added: Vec<String>,
    /// No longer there.
    pub removed: Vec<String>,
    /// Drained, and started again; or going on as another policy has it (`retry_…`, `on_failure`).
    pub changed: Vec<String>,
    /// No longer read.
    pub paused: Vec<String>,
    /// Read again.
    pub resumed: Vec<String>,
    /// How many consumers, and paused topics, are left alone.
    pub unchanged: usize,
}

impl Difference {
    /// What leads from `before` to `after`.
    pub fn new(before: &Plan, after: &Plan) -> Self {
        let old: HashMap<&str, &ConsumerPlan> = before.consumers.iter().map(|c| (c.name.as_str(), c)).collect();
        let new: HashMap<&str, &ConsumerPlan> = after.consumers.iter().map(|c| (c.name.as_str(), c)).collect();
        let paused = |plan: &Plan, name: &str| plan.paused.iter().any(|paused| *paused.topic == *name);
        let mut difference = Self::default();
        let said = &mut difference.said;
        for consumer in &before.consumers {
            let name = consumer.name.as_str();
            match new.get(name) {
                Some(same) if *same == consumer => {
                    said.unchanged += 1;
                    continue;
                }
                Some(_) => said.changed.push(name.to_owned()),
                None if paused(after, name) => {}
                None => said.removed.push(name.to_owned()),
            }
            difference.stop.push(name.to_owned());
        }
        for consumer in &after.consumers {
            let name = consumer.name.as_str();
            match old.get(name) {
                Some(same) if *same == consumer => continue,
                Some(_) => {}
                None if paused(before, name) => {}
                None => said.added.push(name.to_owned()),
            }
            difference.start.push(consumer.clone());
        }
        let read = |plan: &Plan, name: &str| plan.routes().any(|(topic, _)| **topic == *name);
        for topic in after.paused.iter().map(|paused| &*paused.topic) {
            match (paused(before, topic), read(before, topic)) {
                (true, _) => said.unchanged += 1,
                (false, _) => said.paused.push(topic.to_owned()),
            }
        }
        for topic in before.paused.iter().map(|paused| &*paused.topic).filter(|topic| !paused(after, topic)) {
            let list = if read(after, topic) { &mut said.resumed } else { &mut said.removed };
            list.push(topic.to_owned());
        }
        difference
    }
}

impl Said {
    /// Other policies hold for topics of these consumers, which go on with them.
    pub fn other_policies<'a>(&mut self, consumers: impl Iterator<Item = &'a str>) {
        for name in consumers {
            let told = [&self.added, &self.changed, &self.resumed].into_iter().flatten().any(|own| own == name);
            if !told {
                self.changed.push(name.to_owned());
                self.unchanged = self.unchanged.saturating_sub(1);
            }
        }
    }
}

/// `added=a,b removed=- changed=- paused=- resumed=- unchanged=5`
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(",") };
        write!(
            f,
            "added={} removed={} changed={} paused={} resumed={} unchanged={}",
            names(&self.added),
            names(&self.removed),
            names(&self.changed),
            names(&self.paused),
            names(&self.resumed),
            self.unchanged
        )
    }
}
