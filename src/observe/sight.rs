//! What the observer has seen last, for whoever shows it: the newest samples, the verdicts, and how the
//! lag went.
//!
//! Written by the observer alone, as a whole and once a round; a reader holds what was the newest when it
//! looked, and keeps nobody waiting. Bounded: a topic's history is ten minutes with a point every five
//! seconds at most.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Round;
use crate::client::Fault;
use crate::progress::Since;
use crate::verdict::{Pace, Seen, Verdict};

/// How far back the lag of a topic is known.
pub const HISTORY: Duration = Duration::from_secs(600);
/// Points of it are at least this far from each other.
const SPACING: Duration = Duration::from_secs(5);

/// What is known of all topics.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// How often the cluster is looked at.
    pub interval: Duration,
    /// When the cluster was asked that last answered.
    pub asked: Option<Instant>,
    /// Rounds that the cluster answered.
    pub answered: u64,
    /// Rounds that it did not.
    pub failed: u64,
    /// It does not answer.
    pub fault: Option<Since<Fault>>,
    /// The topics that were asked about.
    pub topics: HashMap<Arc<str>, TopicSight>,
}

/// What is known of one topic.
#[derive(Clone, Debug, Default)]
pub struct TopicSight {
    /// What its partitions come to; `None` before the second look.
    pub verdict: Option<Verdict>,
    /// It was told as stalled, and still is.
    pub stalled: bool,
    /// Between the last two looks.
    pub rates: Option<Rates>,
    /// Its partitions, by number.
    pub partitions: Vec<PartSight>,
    /// Its lag, the oldest first.
    pub history: Arc<Vec<Point>>,
}

impl TopicSight {
    /// LAG of all partitions of which it is known; of a group without a committed offset, READABLE.
    pub fn lag(&self) -> Option<i64> {
        let of = |seen: &Seen| seen.lag().unwrap_or_else(|| i64::try_from(seen.readable()).unwrap_or(i64::MAX));
        self.known().map(of).reduce(i64::saturating_add)
    }

    /// READABLE of all partitions of which it is known.
    pub fn readable(&self) -> Option<u64> {
        self.known().map(Seen::readable).reduce(u64::saturating_add)
    }

    fn known(&self) -> impl Iterator<Item = &Seen> {
        self.partitions.iter().filter_map(|part| part.seen.as_ref().ok())
    }
}

/// How fast, in offsets a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The group's committed offsets went on.
    pub consumed: f64,
    /// The log ends went on.
    pub produced: f64,
}

/// What is known of one partition.
#[derive(Clone, Debug)]
pub struct PartSight {
    /// Its number.
    pub partition: i32,
    /// What the cluster said.
    pub seen: Result<Seen, Fault>,
    /// How it is doing; `None` at the first look.
    pub verdict: Option<Verdict>,
}

/// The lag at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: Instant,
    /// LAG of all partitions, in offsets.
    pub lag: i64,
}

/// Where the newest [`Sight`] is to be had.
#[derive(Debug, Default)]
pub struct Sights(Mutex<Arc<Sight>>);

impl Sights {
    /// The newest.
    pub fn newest(&self) -> Arc<Sight> {
        // It is replaced as a whole.
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on the cluster is looked at as often as this.
    pub(super) fn begin(&self, interval: Duration) {
        self.set(Sight { interval, ..(*self.newest()).clone() });
    }

    pub(super) fn set(&self, sight: Sight) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sight);
    }

    /// A round that was not answered.
    pub(super) fn fail(&self, fault: Fault, now: Instant) {
        let newest = self.newest();
        let since = newest.fault.as_ref().map_or(now, |earlier| earlier.since);
        self.set(Sight { failed: newest.failed + 1, fault: Some(Since { what: fault, since }), ..(*newest).clone() });
    }
}

/// What the judge has said of one topic in a round.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) verdicts: BTreeMap<i32, Verdict>,
    pub(super) pace: Option<Pace>,
    pub(super) stalled: bool,
}

/// The sight after a round that was asked at `asked`: what was known `before` goes on in it.
pub(super) fn after(before: &Sight, round: Round, mut judged: HashMap<Arc<str>, Judged>, asked: Instant) -> Sight {
    let within = before.asked.map(|earlier| asked.saturating_duration_since(earlier));
    let mut topics: HashMap<Arc<str>, TopicSight> = HashMap::new();
    for one in round.into_iter().flat_map(|asked| asked.seen) {
        let topic = topics.entry(Arc::clone(&one.topic)).or_default();
        match one.partitions {
            Err(Fault::TopicMissing { .. }) => topic.verdict = Some(Verdict::Missing),
            Err(fault) => topic.verdict = Some(Verdict::Unknown(fault)),
            Ok(partitions) => topic.partitions.extend(partitions.into_iter().map(|(partition, seen)| {
                let said = judged.get_mut(&one.topic);
                let verdict = said.and_then(|said| said.verdicts.remove(&partition.partition));
                PartSight { partition: partition.partition, seen, verdict }
            })),
        }
    }
    for (name, topic) in &mut topics {
        let judged = judged.remove(name).unwrap_or_default();
        let earlier = before.topics.get(name);
        topic.partitions.sort_by_key(|part| part.partition);
        topic.stalled = judged.stalled;
        topic.verdict = topic.verdict.take().or_else(|| worst(&topic.partitions, judged.pace));
        topic.rates = earlier.zip(within).and_then(|(earlier, within)| rates(earlier, topic, within));
        let history = earlier.map(|earlier| Arc::clone(&earlier.history)).unwrap_or_default();
        topic.history = extend(history, topic.lag(), asked);
    }
    let (interval, answered, failed) = (before.interval, before.answered + 1, before.failed);
    Sight { interval, asked: Some(asked), answered, failed, fault: None, topics }
}

/// What the partitions come to: what somebody has to look at goes before what goes well.
fn worst(partitions: &[PartSight], pace: Option<Pace>) -> Option<Verdict> {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Stalled { readable, .. } => (9, *readable),
        Verdict::OutOfRange { .. } => (8, 0),
        Verdict::Missing => (7, 0),
        Verdict::Unknown(_) => (6, 0),
        Verdict::FallingBack(_) => (5, 0),
        Verdict::CatchingUp(_) => (4, 0),
        Verdict::NotStarted { readable } | Verdict::Behind { readable, .. } | Verdict::Uncommitted { readable, .. } => {
            (3, *readable)
        }
        Verdict::Idle => (2, 0),
        Verdict::Empty => (1, 0),
        Verdict::Paused { .. } | Verdict::Elsewhere { .. } => (0, 0),
    };
    let worst = partitions.iter().filter_map(|part| part.verdict.clone()).max_by_key(rank)?;
    Some(match (worst, pace) {
        // Of all those that move together.
        (Verdict::FallingBack(_) | Verdict::CatchingUp(_), Some(pace)) if pace.readable > pace.before => {
            Verdict::FallingBack(pace)
        }
        (Verdict::FallingBack(_) | Verdict::CatchingUp(_), Some(pace)) => Verdict::CatchingUp(pace),
        (other, _) => other,
    })
}

/// Of the partitions of which both looks know.
fn rates(earlier: &TopicSight, now: &TopicSight, within: Duration) -> Option<Rates> {
    let earlier: HashMap<i32, &Seen> =
        earlier.partitions.iter().filter_map(|part| Some((part.partition, part.seen.as_ref().ok()?))).collect();
    let pairs: Vec<(&Seen, &Seen)> = now
        .partitions
        .iter()
        .filter_map(|part| Some((*earlier.get(&part.partition)?, part.seen.as_ref().ok()?)))
        .collect();
    let seconds = within.as_secs_f64();
    if pairs.is_empty() || seconds <= 0.0 {
        return None;
    }
    let consumed =
        |(from, to): &(&Seen, &Seen)| from.committed.zip(to.committed).map_or(0, |(from, to)| to.since(from));
    let produced = |(from, to): &(&Seen, &Seen)| to.bounds.log_end.since(from.bounds.log_end);
    Some(Rates {
        consumed: pairs.iter().map(consumed).sum::<u64>() as f64 / seconds,
        produced: pairs.iter().map(produced).sum::<u64>() as f64 / seconds,
    })
}

fn extend(history: Arc<Vec<Point>>, lag: Option<i64>, at: Instant) -> Arc<Vec<Point>> {
    let Some(lag) = lag else { return history };
    let close = history.last().is_some_and(|last| at.saturating_duration_since(last.at) < SPACING);
    // Of points that are close to each other the first stays.
    if close {
        return history;
    }
    let young = |point: &&Point| at.saturating_duration_since(point.at) <= HISTORY;
    Arc::new(history.iter().filter(young).copied().chain([Point { at, lag }]).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::client::Bounds;
    use crate::observe::Asked;
    use crate::record::{Offset, TopicPartition};
    use crate::sample::TopicRound;

    const S: Duration = Duration::from_secs(1);

    fn answer(partitions: &[(i64, i64)]) -> Round {
        let offset = |number| Offset::new(number).unwrap();
        let seen = |(end, committed): (i64, i64)| Seen {
            bounds: Bounds { log_start: offset(0), log_end: offset(end) },
            committed: Some(offset(committed)),
            last_stable: None,
        };
        let named = |(number, &ends): (i32, &(i64, i64))| (TopicPartition::new("t", number), Ok(seen(ends)));
        let partitions = Ok((0..).zip(partitions).map(named).collect());
        vec![Asked { consumer: 0, seen: vec![TopicRound { topic: "t".into(), partitions }] }]
    }

    fn judged(verdicts: &[Verdict], pace: Option<Pace>) -> HashMap<Arc<str>, Judged> {
        let verdicts = (0..).zip(verdicts.iter().cloned()).collect();
        HashMap::from([("t".into(), Judged { verdicts, pace, stalled: false })])
    }

    #[test]
    fn lag_rates_and_the_worst_verdict_of_a_topic() {
        let now = Instant::now();
        let first = after(&Sight::default(), answer(&[(100, 40), (10, 10)]), HashMap::new(), now);
        let topic = &first.topics["t"];
        assert_eq!((topic.lag(), topic.readable(), topic.rates), (Some(60), Some(60), None));
        assert_eq!(topic.verdict, None, "one look is no judgement");
        let pace = Pace { readable: 30, before: 60, consumed: 50, within: 10 * S };
        let said = judged(&[Verdict::CatchingUp(pace), Verdict::Idle], Some(pace));
        let second = after(&first, answer(&[(120, 90), (10, 10)]), said, now + 10 * S);
        let topic = &second.topics["t"];
        assert_eq!(topic.rates, Some(Rates { consumed: 5.0, produced: 2.0 }));
        assert_eq!(topic.verdict, Some(Verdict::CatchingUp(pace)));
        assert_eq!(topic.history.iter().map(|point| point.lag).collect::<Vec<_>>(), [60, 30]);
    }

    #[test]
    fn a_missing_topic_has_its_verdict_too() {
        let gone = TopicRound { topic: "t".into(), partitions: Err(Fault::TopicMissing { topic: "t".into() }) };
        let round = vec![Asked { consumer: 0, seen: vec![gone] }];
        let sight = after(&Sight::default(), round, HashMap::new(), Instant::now());
        assert_eq!(sight.topics["t"].verdict, Some(Verdict::Missing));
    }

    #[test]
    fn the_history_is_bounded_in_time_and_in_number() {
        let (mut sight, now) = (Sight::default(), Instant::now());
        for tenth in 0..20_000_u32 {
            sight = after(&sight, answer(&[(i64::from(tenth), 0)]), HashMap::new(), now + S / 10 * tenth);
        }
        let history = &sight.topics["t"].history;
        assert_eq!(history.len(), 121);
        assert_eq!(history.last().unwrap().at - history.first().unwrap().at, HISTORY);
    }

    #[test]
    fn a_round_that_was_not_answered_leaves_what_was_known() {
        let (sights, now) = (Sights::default(), Instant::now());
        sights.set(after(&Sight::default(), answer(&[(5, 1)]), HashMap::new(), now));
        let fault = Fault::Deadline { call: "observe", after_ms: 1 };
        sights.fail(fault.clone(), now + S);
        sights.fail(fault, now + 2 * S);
        let sight = sights.newest();
        assert_eq!((sight.failed, sight.topics["t"].lag()), (2, Some(4)));
        assert_eq!(sight.fault.as_ref().unwrap().since, now + S);
    }
}
