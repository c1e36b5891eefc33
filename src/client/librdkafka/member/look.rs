//! What a member looks at over its wire socket: its topics, and where the partitions begin that the group has given.
//!
//! Owns what one look learns, and what follows from it for the client; there is one at a time, on the member's link. What
//! always holds: a partition starts only with the group's offset and the log's range, and a topic that was made anew is
//! never read on at an offset of the one before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::GroupClient;
use crate::client::control::{Control, TopicState};
use crate::client::librdkafka::membership::Joining;
use crate::client::reader::{LONGEST_RETRY, Reader as _, is_coordinator_on_its_way};
use crate::client::{Assignment, Cluster as _, Event, Fault, Loss};
use crate::record::{Offset, TopicId, TopicPartition};

/// How often a topic that does not exist, or what could not be asked, is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What was learnt of the topics and of the partitions that are to be started.
pub(super) struct Look {
    topics: Vec<(Arc<str>, TopicState)>,
    starts: Vec<(TopicPartition, Result<Start, Fault>)>,
}

struct Start {
    assignment: Assignment,
    /// The group has an offset of another partition of the topic: so this one came later.
    others: bool,
}

impl GroupClient {
    /// Looks at the topics, and at what is needed to start what the group has given.
    pub(super) fn start_look(&mut self, now: Instant) {
        if self.link.is_busy() || now < self.look_due {
            return;
        }
        (self.look_due, self.look_began) = (now + self.connection.metadata_max_age, now);
        let (topics, group) = (self.topics.clone(), self.group.clone());
        let starts: Vec<TopicPartition> = self.unstarted.iter().cloned().collect();
        let allowed = self.connection.survey_timeout();
        let call = move |control: &mut Control| look(control, &topics, &group, starts);
        if let Err(fault) = self.link.start("survey", allowed, now, call) {
            self.look_failed(fault, now);
        }
    }

    fn look_failed(&mut self, fault: Fault, now: Instant) {
        self.look_due = now + self.backoff.next_wait();
        let since = *self.look_fails.get_or_insert(now);
        if is_coordinator_on_its_way(&fault, now.saturating_duration_since(since)) {
            log::debug!("no coordinator yet group_id={} error=\"{fault}\"", self.group);
            return;
        }
        self.trouble("survey", fault);
    }

    pub(super) fn collect_look(&mut self, now: Instant) {
        let look = match self.link.reply(now) {
            None => return,
            Some(Ok(answer)) => answer,
            Some(Err(fault)) => Err(fault),
        };
        match look {
            Ok(look) => {
                self.link.replace();
                self.backoff.reset();
                self.look_fails = None;
                self.well("survey");
                self.looked(look, now);
            }
            Err(fault) => self.look_failed(fault, now),
        }
    }

    fn looked(&mut self, look: Look, now: Instant) {
        let (mut leaders, mut count) = (HashMap::new(), 0);
        for (topic, state) in look.topics {
            match state {
                TopicState::Present(id, partitions) => {
                    count += partitions.len();
                    for (number, leader) in &partitions {
                        if let Some(leader) = leader {
                            leaders.insert(TopicPartition::new(Arc::clone(&topic), *number), leader.clone());
                        }
                    }
                    self.present(&topic, id, now);
                }
                TopicState::Missing => self.missing(&topic, now),
                TopicState::Unknown(fault) => {
                    self.look_due = self.look_due.min(now + LOOK_AGAIN);
                    if let Some(known) = self.known.get_mut(&topic) {
                        known.is_failing = true;
                    }
                    self.trouble(&format!("topic {topic}"), fault);
                }
            }
        }
        if self.losses.is_explained_by(self.look_began) {
            self.tell_losses();
        }
        self.reader.leaders(&leaders, now);
        if !self.joined && count > 0 {
            self.joined = true;
            let (topics, instance_id) = (self.topics.clone(), self.instance_id.clone());
            self.reader.join(Joining { topics, instance_id, partitions: count });
        }
        let mut rounds: BTreeMap<Arc<str>, Vec<Assignment>> = BTreeMap::new();
        for (partition, start) in look.starts {
            if !self.unstarted.contains(&partition) {
                continue;
            }
            match start {
                Ok(Start { mut assignment, others }) => {
                    self.unstarted.remove(&partition);
                    let anew = self.anew.remove(&partition);
                    assignment.is_new = anew || others && assignment.committed.is_none();
                    if assignment.committed.is_none() && !assignment.is_new {
                        assignment.remembered = self.remembered.get(&partition).copied();
                    }
                    self.held_parts.insert(partition.clone());
                    rounds.entry(Arc::clone(&partition.topic)).or_default().push(assignment);
                }
                Err(fault) => {
                    log::debug!("not started yet {partition} group_id={} error=\"{fault}\"", self.group);
                    self.look_due = self.look_due.min(now + LONGEST_RETRY);
                }
            }
        }
        self.tell_unstarted();
        self.events.extend(rounds.into_values().map(Event::Assigned));
    }

    fn present(&mut self, topic: &Arc<str>, id: Option<TopicId>, now: Instant) {
        let Some(known) = self.known.get_mut(topic) else { return };
        known.is_missing = false;
        let another = known.id.is_some() && id.is_some() && known.id != id;
        known.id = id.or(known.id);
        if another {
            known.told = false;
        }
        if let Some(id) = id.filter(|_| !std::mem::replace(&mut known.told, true)) {
            self.events.push_back(Event::TopicId(Arc::clone(topic), id));
        }
        if std::mem::take(&mut known.is_failing) {
            self.well(&format!("topic {topic}"));
        }
        if another {
            log::warn!(
                "topic was deleted and made anew, reading it from its start topic={topic} group_id={}",
                self.group
            );
            self.remembered.retain(|name, _| name.topic != *topic);
            let of_topic = |name: &&TopicPartition| name.topic == *topic;
            let held: Vec<TopicPartition> = self.held_parts.iter().filter(of_topic).cloned().collect();
            if !held.is_empty() {
                self.held_parts.retain(|name| name.topic != *topic);
                self.anew.extend(held.iter().cloned());
                self.unstarted.extend(held.iter().cloned());
                held.iter().for_each(|name| self.reader.rest(name));
                self.events.push_back(Event::Lost(held, Loss::TopicDeleted));
                self.look_due = now;
            }
            // The group is joined again with another consumer, for the reason that stands in the reader's `add`.
            self.reader.remake();
        }
    }

    fn missing(&mut self, topic: &Arc<str>, now: Instant) {
        self.look_due = self.look_due.min(now + LOOK_AGAIN);
        if let Some(known) = self.known.get_mut(topic)
            && !std::mem::replace(&mut known.is_missing, true)
        {
            self.events.push_back(Event::Missing(Arc::clone(topic)));
        }
    }
}

fn look(control: &mut Control, topics: &[Arc<str>], group: &str, starts: Vec<TopicPartition>) -> Result<Look, Fault> {
    let topics = control.begin(topics)?;
    if starts.is_empty() {
        return Ok(Look { topics, starts: Vec::new() });
    }
    let bounds = control.bounds(&starts)?;
    // All partitions of these topics: whether the group has read one of them says what an absent offset means.
    let mut asked: Vec<TopicPartition> = Vec::new();
    for (topic, state) in &topics {
        if let TopicState::Present(_, partitions) = state
            && starts.iter().any(|start| start.topic == *topic)
        {
            asked.extend(partitions.iter().map(|(number, _)| TopicPartition::new(Arc::clone(topic), *number)));
        }
    }
    asked.extend(starts.iter().filter(|start| !asked.contains(start)).cloned().collect::<Vec<_>>());
    let committed: HashMap<TopicPartition, Option<Offset>> =
        asked.iter().cloned().zip(control.committed(group, &asked)?).collect();
    let start = |(partition, bounds): (TopicPartition, Result<_, Fault>)| {
        let own = committed.get(&partition).copied().flatten();
        let others = committed.iter().any(|(other, at)| other.topic == partition.topic && at.is_some());
        let start = bounds.map(|bounds| Start {
            assignment: Assignment {
                partition: partition.clone(),
                committed: own,
                bounds,
                remembered: None,
                is_new: false,
            },
            others,
        });
        (partition, start)
    };
    let starts = starts.into_iter().zip(bounds).map(start).collect();
    Ok(Look { topics, starts })
}
