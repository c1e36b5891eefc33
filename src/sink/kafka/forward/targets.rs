//! The topics that records go to: looked up before the first record, and again from time to time; and the faults of their
//! cluster, with what to do.

use std::sync::Arc;
use std::time::Instant;

use super::KafkaSink;
use crate::client::Fault;
use crate::record::TopicPartition;
use crate::sink::Why;

/// Topics that are looked up with one question.
const TOGETHER: usize = 1_000;

/// A topic that records go to.
pub(super) struct Target {
    pub(super) name: Arc<str>,
    pub(super) partitions: i32,
    /// When it was looked up; `None`: that holds no more.
    pub(super) looked: Option<Instant>,
    /// Of each partition, as far as records have gone there through this producer.
    pub(super) started: Vec<Start>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    No,
    /// The first record is under way.
    First,
    Yes,
}

impl Target {
    /// It has so many partitions at this moment.
    fn found(&mut self, partitions: usize) {
        self.partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.looked = Some(Instant::now());
        self.started.resize(partitions, Start::No);
    }
}

impl KafkaSink {
    /// A fault of the cluster, in the words of the table that it is written in.
    pub(super) fn fault(&self, fault: &Fault) -> String {
        let table = &self.settings.table;
        match fault {
            Fault::TopicMissing { topic } => format!(
                "topic {topic} does not exist there, and the worker creates none: kafka-topics --bootstrap-server {} --create --topic {topic} --partitions N",
                self.connection.bootstrap_servers.join(",")
            ),
            Fault::Unauthorized { code, .. } => code.clone(),
            other if table == "kafka" => other.to_string(),
            other => ["bootstrap_servers", "tls", "sasl"]
                .iter()
                .fold(other.to_string(), |text, key| text.replace(&format!("kafka.{key}"), &format!("{table}.{key}"))),
        }
    }

    /// What to do about a missing ACL.
    pub(super) fn allow(&self, topic: &str) -> String {
        format!(
            "{} may not write there: kafka-acls --add --allow-principal {} --operation Write --topic {topic} (brokers before 2.8 also want --operation IdempotentWrite --cluster)",
            self.connection.security.principal(),
            self.connection.security.principal().for_acls()
        )
    }

    /// The topic for the records of a partition, by its index, with the number of its partitions.
    pub(super) fn target(&mut self, from: &TopicPartition) -> Result<usize, Why> {
        let name = self.settings.topic.name(from);
        // Of a topic that a pattern finds nobody could see that before.
        if self.settings.same_cluster && name == *from.topic {
            let why = "it comes from there, and would come again without an end; write another topic for its sink";
            return Err(Why::Retry(format!("to topic {name}: {why}")));
        }
        let known = self.targets.iter().position(|target| *target.name == *name);
        let is_fresh =
            |target: &Target| target.looked.is_some_and(|at| at.elapsed() < self.connection.metadata_max_age);
        if let Some(known) = known.filter(|known| self.targets.get(*known).is_some_and(is_fresh)) {
            return Ok(known);
        }
        let topic: Arc<str> = Arc::from(name.as_str());
        // The others with it that would be asked for next: one question for all of them.
        let others: Vec<usize> = (0..self.targets.len())
            .filter(|other| Some(*other) != known && self.targets.get(*other).is_some_and(|target| !is_fresh(target)))
            .take(TOGETHER)
            .collect();
        let names = others.iter().filter_map(|other| self.targets.get(*other)).map(|target| Arc::clone(&target.name));
        let asked = self.cluster.partitions(&[Arc::clone(&topic)].into_iter().chain(names).collect::<Vec<_>>());
        let mut found = asked.map(Vec::into_iter);
        let own = match &mut found {
            Ok(found) => found.next().unwrap_or(Err(Fault::NoLeader)),
            Err(fault) => Err(fault.clone()),
        };
        for (other, found) in others.into_iter().zip(found.into_iter().flatten()) {
            if let (Some(target), Ok(list)) = (self.targets.get_mut(other), found) {
                target.found(list.len());
            }
        }
        let partitions = match own {
            Ok(list) => list.len(),
            // What is known still holds as far as anybody knows, and records that can't be written are told of.
            Err(fault) if !matches!(fault, Fault::TopicMissing { .. }) && known.is_some() => {
                log::debug!("topic not looked up sink={} topic={topic} error=\"{fault}\"", self.name);
                let target = known.and_then(|known| Some((known, self.targets.get_mut(known)?)));
                let (known, target) = target.ok_or_else(|| Why::Retry(fault.to_string()))?;
                target.looked = Some(Instant::now());
                return Ok(known);
            }
            Err(Fault::Unauthorized { code, .. }) => {
                return Err(Why::Retry(format!("to topic {topic}: {code}; {}", self.allow(&topic))));
            }
            Err(Fault::Refused { code, .. }) if code.contains("InvalidTopic") => {
                return Err(Why::Reject(format!("to topic {topic}: the cluster takes no such name ({code})")));
            }
            Err(fault) => return Err(Why::Retry(format!("to topic {topic}: {}", self.fault(&fault)))),
        };
        if partitions == 0 {
            return Err(Why::Retry(format!("to topic {topic}: it has no partitions at present")));
        }
        let known = known.unwrap_or_else(|| {
            self.targets.push(Target { name: topic, partitions: 0, looked: None, started: Vec::new() });
            self.targets.len() - 1
        });
        if let Some(target) = self.targets.get_mut(known) {
            target.found(partitions);
        }
        Ok(known)
    }
}
