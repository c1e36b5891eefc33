//! Which topics and partitions there are, and who leads them.

use std::collections::HashSet;

use super::*;
use crate::client::Loss;
use crate::client::control::TopicState;
use crate::client::reader::is_coordinator_on_its_way;
use crate::client::{Membership, Portion};
use crate::record::TopicId;

/// How often a topic that does not exist, or a partition that can't be started, is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A topic that was there counts as deleted when it has been missing for so long: a broker that has
/// just started may not know all topics yet.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// A partition that can't be started is a trouble to be told when that has lasted for so long; less is a leader
/// that moves.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// What this client has seen of a topic.
pub(super) enum Known {
    /// It exists. The partitions that the first look saw; what comes later is new. `appeared`: it was looked
    /// for in vain before, so that what a group has of it was meant for another of that name.
    Present {
        first: Vec<i32>,
        appeared: bool,
        id: Option<TopicId>,
        /// The id was told to the consumer.
        told: bool,
        missing_since: Option<Instant>,
    },
    /// It did not exist when it was looked for, or has gone; then this is what was known of it, because a
    /// broker may not know a topic for a while that is there all the same.
    Missing(Option<(TopicId, Vec<i32>)>),
}

impl Known {
    /// What an earlier run has seen: a topic that has another id now was made anew, and a partition that
    /// was not there then is new.
    pub(super) fn from_earlier(remembered: &[Remembered]) -> BTreeMap<Arc<str>, Self> {
        let mut topics = BTreeMap::new();
        for one in remembered {
            let known = topics.entry(Arc::clone(&one.partition.topic)).or_insert_with(|| Self::Present {
                first: Vec::new(),
                appeared: false,
                id: one.topic_id,
                told: false,
                missing_since: None,
            });
            if let Self::Present { first, .. } = known {
                first.push(one.partition.partition);
            }
        }
        topics
    }
}

impl AssignedClient {
    /// Looks at the metadata as soon as the link allows.
    pub(super) fn survey_soon(&mut self, now: Instant) {
        let soon = now + self.survey_backoff.next_wait();
        self.survey_due = self.survey_due.min(soon);
    }

    pub(super) fn start_survey(&mut self, now: Instant) {
        if self.survey.is_busy() || now < self.survey_due {
            return;
        }
        let held: HashSet<TopicPartition> = self.parts.iter().cloned().collect();
        let (topics, group, portion) = (self.topics.clone(), self.group.clone(), self.portion());
        let allowed = self.connection.survey_timeout();
        let call =
            move |control: &mut Control| ControlReply::Surveyed(control.survey(&topics, &group, &held, &portion));
        self.survey_due = now + self.connection.metadata_max_age;
        if let Err(fault) = self.survey.start("survey", allowed, now, call) {
            self.survey_failed(fault, now);
        }
    }

    pub(super) fn collect_survey(&mut self, now: Instant) {
        let survey = match self.survey.reply(now) {
            None => return,
            Some(Ok(ControlReply::Surveyed(answer))) => answer,
            Some(Ok(ControlReply::Committed(_) | ControlReply::ReadBack(_))) => return,
            Some(Err(fault)) => Err(fault),
        };
        match survey {
            Ok(survey) => {
                // Surveys are rare: a connection that waits for the next one would only cost.
                self.survey.replace();
                self.survey_backoff.reset();
                self.survey_fails = None;
                self.well(&Place::Survey);
                self.surveyed(survey, now);
            }
            Err(fault) => self.survey_failed(fault, now),
        }
    }

    fn survey_failed(&mut self, fault: Fault, now: Instant) {
        self.survey_due = now + self.survey_backoff.next_wait();
        let since = *self.survey_fails.get_or_insert(now);
        if is_coordinator_on_its_way(&fault, now.saturating_duration_since(since)) {
            log::debug!("no coordinator yet group_id={} error=\"{fault}\"", self.group);
            return;
        }
        self.trouble(Place::Survey, fault);
    }

    fn surveyed(&mut self, survey: Survey, now: Instant) {
        let mut look_again = false;
        for (topic, state) in survey.topics {
            match state {
                TopicState::Present(id, partitions) => {
                    let portion = self.portion();
                    let own = || partitions.iter().filter(|(number, _)| portion.contains(*number));
                    look_again |= own().any(|(_, leader)| leader.is_none());
                    if self.is_another(&topic, id) {
                        self.survey_due = now;
                    }
                    self.present(&topic, id, &partitions);
                    self.not_there(&topic, &portion, &partitions);
                    let has = |number: i32| {
                        let listed = |name: &TopicPartition| name.topic == topic && name.partition == number;
                        self.parts.iter().any(listed) || survey.found.iter().any(|a| listed(&a.partition))
                    };
                    look_again |= own().any(|(number, _)| !has(*number));
                }
                TopicState::Missing => {
                    look_again = true;
                    self.missing(&topic, now);
                }
                TopicState::Unknown(fault) => {
                    look_again = true;
                    self.trouble(Place::Topic(topic), fault);
                }
            }
        }
        if !survey.members.is_empty() {
            log::warn!(
                "group has live members group_id={} members=\"{}\" meaning=\"they read the same topics: records are \
                 delivered there and here, and nothing can be committed here\" action=\"stop them\"",
                self.group,
                survey.members.join(", ")
            );
        }
        self.unfound(&survey.unfound, now);
        let mut rounds: BTreeMap<Arc<str>, Vec<Assignment>> = BTreeMap::new();
        for assignment in survey.found {
            if let Some((_, true)) = self.unstarted.remove(&assignment.partition) {
                self.events.push_back(Event::Recovered(assignment.partition.clone()));
            }
            rounds.entry(Arc::clone(&assignment.partition.topic)).or_default().push(assignment);
        }
        for (topic, mut round) in rounds {
            for assignment in &mut round {
                assignment.is_new = match self.known.get(&topic) {
                    // What the group has of it was committed by somebody who knew it.
                    Some(Known::Present { first, appeared, .. }) => {
                        !first.contains(&assignment.partition.partition)
                            && (*appeared || assignment.committed.is_none())
                    }
                    Some(Known::Missing(_)) | None => true,
                };
                if assignment.committed.is_none() && !assignment.is_new {
                    assignment.remembered = self.remembered.get(&assignment.partition).copied();
                }
                match assignment.committed {
                    Some(at) => self.in_group.insert(assignment.partition.clone(), at),
                    None => self.in_group.remove(&assignment.partition),
                };
                self.hold(&assignment.partition, &survey.old_fetch);
            }
            self.events.push_back(Event::Assigned(round));
        }
        self.tidy(now);
        if look_again {
            // A topic that was just made has no leaders for a moment.
            let lately = |since: &Instant| now.saturating_duration_since(*since) < LOOK_AGAIN;
            let soon = self.unstarted.values().any(|(since, told)| !told && lately(since));
            self.survey_due = self.survey_due.min(now + if soon { LONGEST_RETRY } else { LOOK_AGAIN });
        }
    }

    /// Which partitions are this client's.
    fn portion(&self) -> Portion {
        match &self.reading.membership {
            Membership::None(portion) => portion.clone(),
            // Then this is not the client.
            Membership::Group { .. } => Portion::All,
        }
    }

    /// Tells once which partitions of a portion do not exist, and when they do; and that nothing of a topic is
    /// left for this client.
    fn not_there(&mut self, topic: &Arc<str>, portion: &Portion, there: &[(i32, Option<String>)]) {
        let absent: BTreeSet<i32> = match portion {
            Portion::Partitions(list) => {
                list.iter().filter(|number| !there.iter().any(|(other, _)| other == *number)).copied().collect()
            }
            Portion::All | Portion::Instance { .. } => BTreeSet::new(),
        };
        let before = self.absent.insert(Arc::clone(topic), absent.clone()).unwrap_or_default();
        let named = |numbers: &BTreeSet<i32>| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        if !absent.is_subset(&before) {
            log::warn!(
                "partitions do not exist topic={topic} group_id={} partitions={} exist={} meaning=\"they are read as soon \
                 as they do\" action=\"correct the key partitions, if they are not meant to come\"",
                self.group,
                named(&absent),
                there.len()
            );
        }
        let came: BTreeSet<i32> = before.difference(&absent).copied().collect();
        if !came.is_empty() {
            log::info!("partitions exist now topic={topic} group_id={} partitions={}", self.group, named(&came));
        }
        let mine = there.iter().any(|(number, _)| portion.contains(*number));
        if mine {
            self.none_held.remove(topic);
        } else if self.none_held.insert(Arc::clone(topic)) {
            if absent.is_empty() {
                log::warn!(
                    "no partition is left for this worker topic={topic} group_id={} exist={} meaning=\"there are more \
                     workers by instance than partitions; new ones are read as they come\"",
                    self.group,
                    there.len()
                );
            }
            self.events.push_back(Event::NoneHeld(Arc::clone(topic)));
        }
    }

    /// Partitions that can't be started: told when that has lasted.
    fn unfound(&mut self, unfound: &[(TopicPartition, Fault)], now: Instant) {
        for (name, fault) in unfound {
            let (since, told) = self.unstarted.entry(name.clone()).or_insert((now, false));
            if !*told && now.saturating_duration_since(*since) >= TELL_AFTER {
                *told = true;
                self.events.push_back(Event::Failing(name.clone(), fault.clone()));
            }
        }
        for topic in &self.topics {
            let count = unfound.iter().filter(|(name, _)| name.topic == *topic).count();
            if self.told_unstarted.get(topic).copied().unwrap_or_default() != count {
                self.told_unstarted.insert(Arc::clone(topic), count);
                self.events.push_back(Event::Unstarted(Arc::clone(topic), count));
            }
        }
    }

    /// Whether the topic was deleted and made anew since it was last seen: then what is known of its
    /// partitions is forgotten, and the next survey finds them as new ones.
    fn is_another(&mut self, topic: &Arc<str>, id: Option<TopicId>) -> bool {
        let another = match self.known.get(topic) {
            Some(Known::Present { id: Some(old), .. }) => id.is_some_and(|id| id != *old),
            _ => false,
        };
        if another {
            log::warn!(
                "topic was deleted and made anew, reading it from its start topic={topic} group_id={}",
                self.group
            );
            self.remembered.retain(|name, _| name.topic != *topic);
            self.forget(topic);
        }
        another
    }

    fn present(&mut self, topic: &Arc<str>, id: Option<TopicId>, partitions: &[(i32, Option<String>)]) {
        self.well(&Place::Topic(Arc::clone(topic)));
        let known = self.known.entry(Arc::clone(topic)).or_insert_with(|| {
            let first = partitions.iter().map(|(number, _)| *number).collect();
            Known::Present { first, appeared: false, id, told: false, missing_since: None }
        });
        if let Known::Missing(was) = known {
            // It appeared after it was looked for in vain: all of it is new, but for the very topic that was there.
            let same = was.take().filter(|(was, _)| Some(*was) == id);
            let appeared = same.is_none();
            let first = same.map(|(_, first)| first).unwrap_or_default();
            *known = Known::Present { first, appeared, id, told: false, missing_since: None };
        }
        if let Known::Present { missing_since, id: known_id, told, .. } = known {
            *missing_since = None;
            *known_id = id.or(*known_id);
            if let Some(id) = id.filter(|_| !std::mem::replace(told, id.is_some())) {
                self.events.push_back(Event::TopicId(Arc::clone(topic), id));
            }
        }
        self.leaders.retain(|name, _| name.topic != *topic);
        for (number, leader) in partitions {
            if let Some(leader) = leader {
                self.leaders.insert(TopicPartition::new(Arc::clone(topic), *number), leader.clone());
            }
        }
    }

    fn missing(&mut self, topic: &Arc<str>, now: Instant) {
        let gone = match self.known.get_mut(topic) {
            None => true,
            Some(Known::Missing(_)) => return,
            Some(Known::Present { missing_since, .. }) => {
                let since = *missing_since.get_or_insert(now);
                now.saturating_duration_since(since) >= GONE_AFTER
            }
        };
        if gone {
            self.forget(topic);
            self.events.push_back(Event::Missing(Arc::clone(topic)));
        }
    }

    /// The topic is gone, and with it all its partitions.
    fn forget(&mut self, topic: &Arc<str>) {
        let was = match self.known.remove(topic) {
            Some(Known::Present { id: Some(id), .. }) => {
                let of_topic = self.parts.iter().filter(|part| part.topic == *topic);
                Some((id, of_topic.map(|part| part.partition).collect()))
            }
            Some(Known::Missing(was)) => was,
            Some(Known::Present { id: None, .. }) | None => None,
        };
        self.known.insert(Arc::clone(topic), Known::Missing(was));
        let lost = |name: &TopicPartition| name.topic == *topic;
        let names: Vec<_> = self.parts.iter().filter(|name| lost(name)).cloned().collect();
        drop_spans(&mut self.events, lost);
        for name in &names {
            if let Some(reader) = self.reader_of(name) {
                reader.remove(name);
            }
        }
        self.parts.retain(|name| !lost(name));
        self.leaders.retain(|name, _| !lost(name));
        self.unstarted.retain(|name, _| !lost(name));
        if !names.is_empty() {
            self.events.push_back(Event::Lost(names, Loss::TopicDeleted));
        }
    }
}
