//! What a consumer's log says of its troubles, and what it tells its supervisor of them.
//!
//! Owns what is in trouble (the client as a whole, partitions, topics that do not exist) and since
//! when; the texts are the faults' own. Decides nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::part::{Part, Place};
use super::{Fault, Notice};
use crate::client::{Bounds, Event, Loss};
use crate::record::{Offset, TopicPartition};
use crate::trouble::{Phrases, Troubles};

const CLIENT: Phrases = Phrases {
    begins: "consumer in trouble, retrying",
    goes_on: "consumer still in trouble, retrying",
    ends: "consumer works again",
    flaps: "consumer in trouble again and again",
};
const PARTITION: Phrases = Phrases {
    begins: "partition fails",
    goes_on: "partition still fails",
    ends: "partition is read again",
    flaps: "partition fails again and again",
};
const TOPIC: Phrases = Phrases {
    begins: "topic missing",
    goes_on: "topic still missing",
    ends: "topic exists now",
    flaps: "topic missing again and again",
};

const STOPPED: Phrases = Phrases {
    begins: "position out of range, stopped",
    goes_on: "position out of range, still stopped",
    ends: "position is in range again",
    flaps: "position out of range again and again, stopped",
};

/// What can be in trouble.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Client,
    Partition(TopicPartition),
    Topic(Arc<str>),
    /// A partition that stopped by its policy.
    Stopped(TopicPartition),
}

impl Who {
    fn phrases(&self) -> &'static Phrases {
        match self {
            Self::Client => &CLIENT,
            Self::Partition(_) => &PARTITION,
            Self::Topic(_) => &TOPIC,
            Self::Stopped(_) => &STOPPED,
        }
    }
}

/// How it stands in the log, but for the group.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => Ok(()),
            Self::Partition(partition) | Self::Stopped(partition) => write!(f, "{partition} "),
            Self::Topic(topic) => write!(f, "topic={topic} "),
        }
    }
}

/// See the module's text.
pub(super) struct Told {
    group: String,
    /// How the client stands in the log: all its topics.
    topics: String,
    troubles: Troubles<Who, Fault>,
    /// Why the last commit failed, if it did.
    commit: Option<Fault>,
    /// The topics that are not read yet.
    waiting: BTreeSet<Arc<str>>,
    /// What the supervisor knows of why they are not.
    why: Option<String>,
}

impl Told {
    pub(super) fn new(group: &str, topics: impl Iterator<Item = Arc<str>>) -> Self {
        let waiting: BTreeSet<Arc<str>> = topics.collect();
        Self {
            group: group.to_owned(),
            topics: in_words(&waiting),
            troubles: Troubles::default(),
            commit: None,
            waiting,
            why: None,
        }
    }

    /// The client is in trouble.
    pub(super) fn fault(&mut self, fault: Fault, now: Instant) -> Option<Notice> {
        let notice = self.waits_for(Some(&fault));
        self.fails(Who::Client, fault, now);
        notice
    }

    /// Something has happened. Returns what the supervisor is to know of it.
    pub(super) fn event(&mut self, event: &Event, now: Instant) -> Option<Notice> {
        match event {
            Event::Connected => {
                self.works(&Who::Client, now);
                self.waits_for(None)
            }
            Event::Failing(partition, fault) => {
                let notice = self.waits_for(Some(fault));
                self.fails(Who::Partition(partition.clone()), fault.clone(), now);
                notice
            }
            Event::Recovered(partition) => {
                self.works(&Who::Partition(partition.clone()), now);
                None
            }
            Event::Missing(topic) => {
                let fault = Fault::TopicMissing { topic: topic.to_string() };
                self.fails(Who::Topic(Arc::clone(topic)), fault, now);
                None
            }
            Event::Assigned(round) => {
                if let Some(first) = round.first() {
                    self.works(&Who::Topic(Arc::clone(&first.partition.topic)), now);
                }
                None
            }
            Event::Lost(partitions, loss) => {
                for partition in partitions {
                    let reason = match loss {
                        Loss::TopicDeleted => "topic deleted",
                        Loss::LeftGroup => {
                            "the group counts this worker as dead, and has given it to another member; what was not committed is delivered again there"
                        }
                    };
                    log::warn!("partition is gone {partition} group_id={} reason=\"{reason}\"", self.group);
                    self.troubles.forget(&Who::Partition(partition.clone()));
                    self.troubles.forget(&Who::Stopped(partition.clone()));
                }
                None
            }
            Event::Committed(answer) => {
                self.commit = answer.as_ref().err().cloned();
                let fault = self.commit.clone()?;
                self.waits_for(Some(&fault))
            }
            Event::Unstarted(..)
            | Event::NoneHeld(_)
            | Event::OtherWorker(..)
            | Event::Span(_)
            | Event::OutOfRange { .. }
            | Event::ReadBack(_)
            | Event::Revoking(_)
            | Event::TopicId(..) => None,
        }
    }

    /// The partition stopped, by its policy.
    pub(super) fn stopped(&mut self, partition: TopicPartition, at: Offset, bounds: Bounds, now: Instant) {
        let fault = Fault::OutOfRange { at, bounds, group: self.group.clone() };
        self.fails(Who::Stopped(partition), fault, now);
    }

    /// The topic is being read.
    pub(super) fn started(&mut self, topic: &Arc<str>) {
        self.waiting.remove(topic);
    }

    /// What the topics that are not read yet wait for, if that is news.
    fn waits_for(&mut self, fault: Option<&Fault>) -> Option<Notice> {
        let why = fault.map(ToString::to_string);
        if self.waiting.is_empty() || self.why == why {
            return None;
        }
        self.why.clone_from(&why);
        Some(Notice::Waiting { topics: self.waiting.iter().cloned().collect(), why })
    }

    fn fails(&mut self, who: Who, fault: Fault, now: Instant) {
        let (level, phrases) = (level(&who, &fault), who.phrases());
        let (named, text) = (self.named(&who), fault.to_string());
        phrases.log(self.troubles.fails(who, fault, now, now), level, &named, &text);
    }

    fn works(&mut self, who: &Who, now: Instant) {
        let named = self.named(who);
        if let Some((word, fault)) = self.troubles.works(who, now) {
            who.phrases().log(word, level(who, fault), &named, fault);
        }
    }

    /// Who it is, in the words of the log.
    fn named(&self, who: &Who) -> String {
        named(&self.topics, &self.group, who)
    }

    /// When [`remind`](Self::remind) is to be called at the latest.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.troubles.wake()
    }

    /// Writes what time alone has made worth a line.
    pub(super) fn remind(&mut self, now: Instant) {
        for (who, word, fault) in self.troubles.due(now) {
            who.phrases().log(word, level(who, fault), &named(&self.topics, &self.group, who), fault);
        }
    }

    /// The consumer has ended: what was delivered, and is not committed.
    pub(super) fn end(&self, parts: &[Part]) {
        let why = self.commit.as_ref().map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
        let mut left = parts.iter().filter_map(|part| match &part.place {
            Place::Reading(tracker) => Some((part, tracker, tracker.committable()?)),
            Place::Held(_) | Place::Stopped(_) | Place::Gone => None,
        });
        let Some((part, tracker, delivered)) = left.next() else { return };
        let committed = tracker.committed().map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        let (more, uncommitted) = left
            .fold((0, tracker.uncommitted()), |(more, sum), (_, tracker, _)| (more + 1, sum + tracker.uncommitted()));
        log::warn!(
            "not committed at the end {} group_id={} committed={committed} delivered_up_to={delivered} \
             more_partitions={more} uncommitted={uncommitted} error=\"{why}\" meaning=\"the next start goes on at the \
             committed offsets, and delivers again what comes after them\"",
            part.partition,
            self.group
        );
    }
}

/// Topics that a line names at most.
const NAMED: usize = 5;

/// `topic=t`, `topics=t,u`; of many some, and how many more.
fn in_words(topics: &BTreeSet<Arc<str>>) -> String {
    let names: Vec<&str> = topics.iter().take(NAMED).map(|name| &**name).collect();
    match (names.as_slice(), topics.len() - names.len()) {
        ([one], 0) => format!("topic={one}"),
        (some, 0) => format!("topics={}", some.join(",")),
        (some, more) => format!("topics={} and_more={more}", some.join(",")),
    }
}

fn named(topics: &str, group: &str, who: &Who) -> String {
    match who {
        Who::Client => format!("{topics} group_id={group}"),
        Who::Partition(_) | Who::Stopped(_) | Who::Topic(_) => format!("{who}group_id={group}"),
    }
}

/// A topic that does not exist may be created at any time.
fn level(who: &Who, fault: &Fault) -> log::Level {
    match who {
        Who::Topic(_) => log::Level::Warn,
        Who::Client | Who::Partition(_) | Who::Stopped(_) => fault.level(),
    }
}
