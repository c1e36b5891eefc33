//! From samples to news. Pure: time is a parameter.
//!
//! Owns, of each partition, the sample since which it has not moved, and of each topic what was told.
//! Only changes that an operator must know are news: a topic that stalls or falls back for long, and the
//! end of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sight::Judged;
use super::{Asked, Demand, Round};
use crate::progress::{Entry, LaneState, Snapshot};
use crate::record::TopicPartition;
use crate::sample::TopicRound;
use crate::verdict::{Pace, Reason, Sample, Verdict, View, verdict};

/// What has changed with a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It has readable records, and has made no progress for the watchdog's time.
    Stalled { topic: Arc<str>, group: String, partitions: Vec<i32>, readable: u64, still: Duration, reason: Reason },
    /// It is no longer so.
    Moves { topic: Arc<str>, group: String, after: Duration },
    /// It is written to faster than it is read, for the watchdog's time.
    FallsBack { topic: Arc<str>, group: String, pace: Pace, since: Duration },
    /// It is no longer so.
    CatchesUp { topic: Arc<str>, group: String, readable: u64, after: Duration },
}

impl News {
    pub(super) fn topic(&self) -> &Arc<str> {
        match self {
            Self::Stalled { topic, .. }
            | Self::Moves { topic, .. }
            | Self::FallsBack { topic, .. }
            | Self::CatchesUp { topic, .. } => topic,
        }
    }

    pub(super) fn level(&self) -> log::Level {
        match self {
            Self::Stalled { .. } | Self::FallsBack { .. } => log::Level::Warn,
            Self::Moves { .. } | Self::CatchesUp { .. } => log::Level::Info,
        }
    }

    /// Whether one line can tell both: the same has happened, for the same reason.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Stalled { reason: one, .. }, Self::Stalled { reason: other, .. }) => match (one, other) {
                (Reason::Sink { sink: one, .. }, Reason::Sink { sink: other, .. }) => one == other,
                (Reason::Trouble(one, _), Reason::Trouble(other, _)) => one == other,
                (Reason::Dispatcher(_), Reason::Dispatcher(_)) => true,
                _ => false,
            },
            (Self::Moves { .. }, Self::Moves { .. }) => true,
            _ => false,
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalled { topic, group, partitions, readable, still, reason } => {
                let numbers: Vec<String> = partitions.iter().map(i32::to_string).collect();
                write!(
                    f,
                    "topic stalled topic={topic} group_id={group} partitions={} readable={readable} no_progress_ms={} reason=\"{reason}\"",
                    numbers.join(","),
                    still.as_millis()
                )
            }
            Self::Moves { topic, group, after } => {
                write!(f, "topic moves again topic={topic} group_id={group} after_ms={}", after.as_millis())
            }
            Self::FallsBack { topic, group, pace, since } => write!(
                f,
                "topic falls back topic={topic} group_id={group} for_ms={} {pace} meaning=\"it is written to faster than it is read\"",
                since.as_millis()
            ),
            Self::CatchesUp { topic, group, readable, after } => write!(
                f,
                "topic catches up topic={topic} group_id={group} readable={readable} after_ms={}",
                after.as_millis()
            ),
        }
    }
}

#[derive(Default)]
struct Topic {
    /// Of each partition the last sample at which it moved, or had nothing to read.
    anchors: BTreeMap<i32, Sample>,
    /// Told as stalled, which began then.
    stalled: Option<Instant>,
    falling: Option<Falling>,
}

struct Falling {
    since: Instant,
    told: bool,
}

/// See the module's text.
pub(super) struct Judge {
    stall_timeout: Duration,
    /// The topics of each consumer, by its number.
    consumers: HashMap<usize, HashMap<Arc<str>, Topic>>,
    /// Of the last round.
    judged: HashMap<Arc<str>, Judged>,
}

/// What all the partitions of a topic come to.
#[derive(Default)]
struct Sum {
    judged: bool,
    unknown: bool,
    pace: Option<Pace>,
    stalled: Vec<(i32, u64, Duration, Reason)>,
    /// Of each partition that was known before.
    verdicts: BTreeMap<i32, Verdict>,
}

impl Judge {
    pub(super) fn new(stall_timeout: Duration) -> Self {
        Self { stall_timeout, consumers: HashMap::new(), judged: HashMap::new() }
    }

    /// What was said of each topic in the last round.
    pub(super) fn take_judged(&mut self) -> HashMap<Arc<str>, Judged> {
        std::mem::take(&mut self.judged)
    }

    /// Judges what the cluster was asked at `asked`, beside what the consumers on the board tell at `now`.
    /// Who is no longer there is forgotten.
    pub(super) fn round(
        &mut self,
        round: Round,
        board: &[Entry],
        lanes: &HashMap<String, LaneState>,
        asked: Instant,
        now: Instant,
    ) -> (Vec<News>, Vec<Demand>) {
        let (mut news, mut demands) = (Vec::new(), Vec::new());
        let entries: HashMap<usize, &Entry> = board.iter().map(|entry| (entry.consumer, entry)).collect();
        self.consumers.retain(|consumer, _| entries.contains_key(consumer));
        for Asked { consumer, seen } in round {
            let Some(Entry { watched, progress, .. }) = entries.get(&consumer) else { continue };
            let topics = self.consumers.entry(consumer).or_default();
            let snapshot = progress.snapshot();
            let mut by_topic: HashMap<Arc<str>, Vec<(TopicPartition, Sample)>> = HashMap::new();
            for TopicRound { topic, partitions } in seen {
                let sampled = |(partition, seen)| (partition, Sample { at: asked, seen });
                by_topic.insert(topic, partitions.unwrap_or_default().into_iter().map(sampled).collect());
            }
            for (name, sinks) in &watched.topics {
                let topic = topics.entry(Arc::clone(name)).or_default();
                let samples = by_topic.remove(name).unwrap_or_default();
                let idle = LaneState::default();
                let (sink, lane) = slowest(sinks, lanes, name).unwrap_or(("", &idle));
                let sum = topic.judge(samples, &snapshot, sink, lane);
                let grown = now.saturating_duration_since(progress.born()) >= self.stall_timeout;
                let own =
                    sum.stalled.iter().find(|(_, _, still, r)| *still >= self.stall_timeout && r.is_consumers_own());
                if let Some((partition, _, still, reason)) = own.filter(|_| grown) {
                    let still = still.as_millis();
                    let why = format!("topic={name} partition={partition} no_progress_ms={still}: {reason}");
                    demands.push(Demand { consumer, run: progress.run(), why });
                }
                topic.tell(&sum, name, &watched.group, self.stall_timeout, asked, &mut news);
                let judged = Judged { verdicts: sum.verdicts, pace: sum.pace, stalled: topic.stalled.is_some() };
                self.judged.insert(Arc::clone(name), judged);
            }
        }
        // One new run helps all topics of a consumer.
        demands.dedup_by_key(|demand| demand.consumer);
        (news, demands)
    }
}

/// The sink that a topic waits for, if it waits: one that has stopped it, one that fails, the one that is busy longest.
fn slowest<'a>(
    sinks: &'a [String],
    lanes: &'a HashMap<String, LaneState>,
    topic: &str,
) -> Option<(&'a str, &'a LaneState)> {
    let known = sinks.iter().filter_map(|sink| Some((sink.as_str(), lanes.get(sink)?)));
    known.min_by_key(|(_, lane)| {
        let trouble = lane.trouble.as_ref().map(|trouble| trouble.since);
        // What is not there comes last.
        let since = |at: Option<Instant>| (at.is_none(), at);
        (!lane.stopped.contains_key(topic), since(trouble), since(lane.busy))
    })
}

impl Topic {
    fn judge(
        &mut self,
        samples: Vec<(TopicPartition, Sample)>,
        consumer: &Snapshot,
        sink: &str,
        lane: &LaneState,
    ) -> Sum {
        let mut sum = Sum { judged: !samples.is_empty(), ..Sum::default() };
        // Partitions that are gone are forgotten.
        let numbers: Vec<i32> = samples.iter().map(|(name, _)| name.partition).collect();
        if sum.judged {
            self.anchors.retain(|number, _| numbers.contains(number));
        }
        for (partition, sample) in samples {
            let number = partition.partition;
            let Some(anchor) = self.anchors.get(&number) else {
                sum.unknown |= sample.seen.is_err();
                if sample.seen.is_ok() {
                    self.anchors.insert(number, sample);
                }
                continue;
            };
            let stopped = lane.stopped.get(&partition.topic);
            let view = View { consumer, part: consumer.part(&partition), sink, lane, stopped };
            let verdict = verdict(anchor, &sample, Some(&view));
            sum.verdicts.insert(number, verdict.clone());
            match verdict {
                Verdict::Stalled { readable, still, reason } => sum.stalled.push((number, readable, still, reason)),
                // Neither progress nor a stall: the next answer is compared with what was known before.
                Verdict::Unknown(_) | Verdict::Missing => sum.unknown = true,
                Verdict::CatchingUp(pace) | Verdict::FallingBack(pace) => {
                    sum.pace = Some(sum.pace.map_or(pace, |sum| add(sum, pace)));
                    self.anchors.insert(number, sample);
                }
                Verdict::Idle
                | Verdict::Empty
                | Verdict::Uncommitted { .. }
                | Verdict::Behind { .. }
                | Verdict::NotStarted { .. }
                | Verdict::OutOfRange { .. }
                | Verdict::Paused { .. }
                | Verdict::Elsewhere { .. } => {
                    self.anchors.insert(number, sample);
                }
            }
        }
        sum
    }

    fn tell(&mut self, sum: &Sum, name: &Arc<str>, group: &str, timeout: Duration, now: Instant, news: &mut Vec<News>) {
        let (topic, group) = (Arc::clone(name), group.to_owned());
        let long: Vec<_> = sum.stalled.iter().filter(|(_, _, still, _)| *still >= timeout).collect();
        if let Some((_, _, still, reason)) = long.iter().max_by_key(|(_, readable, ..)| readable)
            && self.stalled.is_none()
        {
            self.stalled = now.checked_sub(*still);
            news.push(News::Stalled {
                topic: Arc::clone(&topic),
                group: group.clone(),
                partitions: long.iter().map(|(number, ..)| *number).collect(),
                readable: long.iter().map(|(_, readable, ..)| readable).sum(),
                still: *still,
                reason: reason.clone(),
            });
        } else if sum.judged
            && !sum.unknown
            && sum.stalled.is_empty()
            && let Some(since) = self.stalled.take()
        {
            let after = now.saturating_duration_since(since);
            news.push(News::Moves { topic: Arc::clone(&topic), group: group.clone(), after });
        }
        self.tell_pace(sum, topic, group, timeout, now, news);
    }

    fn tell_pace(
        &mut self,
        sum: &Sum,
        topic: Arc<str>,
        group: String,
        timeout: Duration,
        now: Instant,
        news: &mut Vec<News>,
    ) {
        if !sum.judged || sum.unknown {
            return;
        }
        // A topic that is read all the time has a little before it all the time; what takes long to be
        // read is meant.
        let falls = sum.pace.filter(|pace| pace.readable > pace.before && pace.behind().is_none_or(|b| b >= timeout));
        match (falls, &mut self.falling) {
            (Some(pace), Some(falling)) => {
                let since = now.saturating_duration_since(falling.since);
                if !falling.told && since >= timeout {
                    falling.told = true;
                    news.push(News::FallsBack { topic, group, pace, since });
                }
            }
            (Some(pace), none) => *none = now.checked_sub(pace.within).map(|since| Falling { since, told: false }),
            // It stands still, which is told as such.
            (None, Some(_)) if !sum.stalled.is_empty() => {}
            (None, falling) => {
                if let Some(Falling { since, told: true }) = falling.take() {
                    let readable = sum.pace.map_or(0, |pace| pace.readable);
                    news.push(News::CatchesUp { topic, group, readable, after: now.saturating_duration_since(since) });
                }
            }
        }
    }
}

fn add(sum: Pace, one: Pace) -> Pace {
    Pace {
        readable: sum.readable + one.readable,
        before: sum.before + one.before,
        consumed: sum.consumed + one.consumed,
        within: sum.within.max(one.within),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
