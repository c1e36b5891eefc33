//! How one partition does over several looks at the cluster: where it stands, and how fast that changes.
//!
//! Pure: a sample says when it was taken. Owns, of one partition, the samples of the last moments, and the one
//! since which it has not moved; the judgement itself is [`verdict`]'s.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::Fault;
use crate::record::TopicPartition;
use crate::sample::{Round, Watched};
use crate::verdict::{Sample, Seen, Verdict, View, verdict};

/// Samples that are kept, however short the time between them is.
const MOST: usize = 64;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Trend {
    /// What rates are counted over.
    window: Duration,
    /// Samples in which the cluster answered, oldest first.
    samples: VecDeque<Sample>,
    /// The last sample at which it moved, or had nothing to read.
    anchor: Option<Sample>,
}

/// How fast a partition is read and written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Offsets a second by which the group's committed offset went on; none while it has no committed offset.
    pub consumed: Option<f64>,
    /// Offsets a second by which the log end went on.
    pub produced: f64,
    /// The time that they were counted over.
    pub over: Duration,
}

impl Rates {
    /// How long it takes, at these rates, until `readable` offsets are read; `None` if that is never.
    pub fn catch_up(&self, readable: u64) -> Option<Duration> {
        if readable == 0 {
            return Some(Duration::ZERO);
        }
        let gained = self.consumed? - self.produced;
        // Less than an offset an hour is none.
        if gained <= 1.0 / 3600.0 { None } else { Duration::try_from_secs_f64(readable as f64 / gained).ok() }
    }
}

impl Trend {
    /// Of a partition that was not looked at yet. `window`: what rates are counted over, at least two looks.
    pub fn new(window: Duration) -> Self {
        Self { window, samples: VecDeque::new(), anchor: None }
    }

    /// Takes another sample, later than those before, and judges.
    pub fn add(&mut self, sample: Sample, view: Option<&View<'_>>) -> Verdict {
        let judged = verdict(self.anchor.as_ref().unwrap_or(&sample), &sample, view);
        match &judged {
            // The next one is compared with what was known before.
            Verdict::Stalled { .. } if self.anchor.is_some() => {}
            Verdict::Unknown(_) | Verdict::Missing => {}
            _ => self.anchor = Some(sample.clone()),
        }
        if sample.seen.is_ok() {
            // The oldest one that is still needed is at the far end of the window, or just beyond it.
            let beyond = |kept: &Sample| sample.at.saturating_duration_since(kept.at) >= self.window;
            while self.samples.len() >= MOST || (self.samples.len() > 1 && self.samples.get(1).is_some_and(beyond)) {
                self.samples.pop_front();
            }
            self.samples.push_back(sample);
        }
        judged
    }

    /// `judged`, which [`Trend::add`] said last, for who has looked for a short time only. Two looks may fall between
    /// two commits; so what moves is judged by the whole window, but for what was read to its end less than `grace`
    /// ago: all there is to read then is younger than that. See [`Verdict::patient`].
    pub fn patient(&self, judged: Verdict, grace: Duration) -> Verdict {
        let may_move = match &judged {
            Verdict::Stalled { still, .. } => *still < grace,
            Verdict::CatchingUp(_) | Verdict::FallingBack(_) => true,
            _ => false,
        };
        if let (Some(first), Some(last)) = (self.samples.front(), self.samples.back())
            && may_move
        {
            let recent = |sample: &&Sample| last.at.saturating_duration_since(sample.at) < grace;
            let all_read = |sample: &Sample| sample.seen.as_ref().is_ok_and(|seen| seen.readable() == 0);
            let whole = verdict(first, last, None);
            let moved = matches!(&whole, Verdict::CatchingUp(pace) | Verdict::FallingBack(pace) if pace.consumed > 0);
            if moved && !self.samples.iter().rev().take_while(recent).any(all_read) {
                return whole.patient(grace);
            }
        }
        judged.patient(grace)
    }

    /// What the cluster said when it answered last.
    pub fn last(&self) -> Option<&Seen> {
        self.samples.back().and_then(|sample| sample.seen.as_ref().ok())
    }

    /// What the cluster said at the oldest sample that is kept.
    pub fn first(&self) -> Option<&Seen> {
        self.samples.front().and_then(|sample| sample.seen.as_ref().ok())
    }

    /// The rates over the window; `None` before two samples were answered.
    pub fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let over = last.at.saturating_duration_since(first.at);
        if over.is_zero() {
            return None;
        }
        let (first, last) = (first.seen.as_ref().ok()?, last.seen.as_ref().ok()?);
        let a_second = |offsets: u64| offsets as f64 / over.as_secs_f64();
        let consumed = first.committed.zip(last.committed).map(|(from, to)| a_second(to.since(from)));
        Some(Rates { consumed, produced: a_second(last.bounds.log_end.since(first.bounds.log_end)), over })
    }
}

/// One line of what there is to tell: a partition, or a topic without any.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number; `None` of a topic whose partitions are not known.
    pub partition: Option<i32>,
    /// What the cluster said this time, or why it did not.
    pub seen: Result<Seen, Fault>,
    /// How it is doing, as far as the cluster tells.
    pub verdict: Verdict,
    /// How fast it is read and written.
    pub rates: Option<Rates>,
}

/// The trends of all partitions that are looked at.
#[derive(Debug)]
pub struct Trends {
    window: Duration,
    trends: HashMap<(String, TopicPartition), Trend>,
}

impl Trends {
    /// Nothing was looked at yet. `window`: what rates are counted over.
    pub fn new(window: Duration) -> Self {
        Self { window, trends: HashMap::new() }
    }

    /// Takes what the cluster said of `watched` when it was asked at `at`, and judges; `grace` is how long a topic may
    /// have something to read without a commit. In the order of the question, partitions by number. What no longer
    /// exists is forgotten.
    pub fn take(
        &mut self,
        watched: &[Watched],
        round: Round,
        at: Instant,
        grace: impl Fn(&str) -> Duration,
    ) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut there = HashSet::new();
        for (group, topics) in watched.iter().map(|watched| &watched.group).zip(round) {
            for one in topics {
                let row = |partition, seen, verdict, rates| Row {
                    group: group.clone(),
                    topic: Arc::clone(&one.topic),
                    partition,
                    seen,
                    verdict,
                    rates,
                };
                let partitions = match one.partitions {
                    Ok(partitions) => partitions,
                    Err(fault) => {
                        let sample = Sample { at, seen: Err(fault.clone()) };
                        rows.push(row(None, Err(fault), verdict(&sample, &sample, None), None));
                        continue;
                    }
                };
                for (partition, seen) in partitions {
                    let number = partition.partition;
                    let key = (group.clone(), partition);
                    there.insert(key.clone());
                    let trend = self.trends.entry(key).or_insert_with(|| Trend::new(self.window));
                    let judged = trend.add(Sample { at, seen: seen.clone() }, None);
                    let verdict = trend.patient(judged, grace(&one.topic));
                    rows.push(row(Some(number), seen, verdict, trend.rates()));
                }
            }
        }
        self.trends.retain(|key, _| there.contains(key));
        rows
    }

    /// The trend of a group's partition, if it is there.
    pub fn get(&self, group: &str, partition: &TopicPartition) -> Option<&Trend> {
        self.trends.get(&(group.to_owned(), partition.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::client::{Bounds, Fault};
    use crate::record::Offset;

    const S: Duration = Duration::from_secs(1);

    fn at(number: i64) -> Offset {
        Offset::new(number).unwrap()
    }

    fn sample(at_time: Instant, committed: i64, end: i64) -> Sample {
        let bounds = Bounds { log_start: Offset::ZERO, log_end: at(end) };
        Sample { at: at_time, seen: Ok(Seen { bounds, committed: Offset::new(committed), last_stable: None }) }
    }

    #[test]
    fn a_stall_is_counted_from_the_last_move_on() {
        let (mut trend, now) = (Trend::new(S * 10), Instant::now());
        assert!(matches!(trend.add(sample(now, 5, 9), None), Verdict::Stalled { still: Duration::ZERO, .. }));
        let lost = Sample { at: now + S, seen: Err(Fault::NoLeader) };
        assert_eq!(trend.add(lost, None), Verdict::Unknown(Fault::NoLeader));
        let Verdict::Stalled { still, .. } = trend.add(sample(now + S * 4, 5, 9), None) else { panic!() };
        assert_eq!(still, S * 4);
        assert!(matches!(trend.add(sample(now + S * 6, 6, 9), None), Verdict::CatchingUp(_)));
        let Verdict::Stalled { still, .. } = trend.add(sample(now + S * 9, 6, 9), None) else { panic!() };
        assert_eq!(still, S * 3);
    }

    #[test]
    fn rates_are_those_of_the_window() {
        let (mut trend, now) = (Trend::new(S * 10), Instant::now());
        assert_eq!(trend.rates(), None);
        trend.add(sample(now, 0, 1_000), None);
        assert_eq!(trend.rates(), None);
        for second in 1..=30_u32 {
            let moved = i64::from(second);
            // It is read ten times as fast in the first half.
            let committed = if second <= 15 { moved * 20 } else { 300 + (moved - 15) * 2 };
            trend.add(sample(now + S * second, committed, 1_000 + moved), None);
        }
        let rates = trend.rates().unwrap();
        assert_eq!(rates, Rates { consumed: Some(2.0), produced: 1.0, over: S * 10 });
        assert_eq!(rates.catch_up(60), Some(S * 60));
        assert_eq!(rates.catch_up(0), Some(Duration::ZERO));
        assert_eq!(Rates { consumed: Some(1.0), ..rates }.catch_up(60), None);
        assert_eq!(Rates { consumed: None, ..rates }.catch_up(60), None);
    }

    #[test]
    fn what_moves_is_judged_by_the_whole_window() {
        const GRACE: Duration = Duration::from_secs(6);
        // Committed and log end, a second apart; what is said of the last.
        let said = |looks: &[(i64, i64)]| {
            let (mut trend, now) = (Trend::new(S * 60), Instant::now());
            let mut told = Verdict::Idle;
            for (second, (committed, end)) in (0..).zip(looks) {
                let judged = trend.add(sample(now + S * second, *committed, *end), None);
                told = trend.patient(judged, GRACE);
            }
            told.word()
        };
        // The last looks fall between two commits.
        assert_eq!(said(&[(0, 1_000), (1, 1_500), (2, 2_000), (2, 2_500)]), "falling-back");
        assert_eq!(said(&[(0, 1_000), (90, 1_010), (180, 1_020), (180, 1_030)]), "catching-up");
        assert_eq!(said(&[(0, 1_000), (0, 1_000), (0, 1_000)]), "behind");
        assert_eq!(said(&[(0, 9), (1, 9), (1, 9), (1, 9), (1, 9), (1, 9), (1, 9), (1, 9)]), "stalled");
        // Now and then a record, which is committed some seconds later.
        let trickle = [(10, 10), (10, 10), (10, 11), (10, 11), (11, 11), (11, 11), (11, 12), (11, 12), (11, 12)];
        assert_eq!(said(&trickle), "behind");
        assert_eq!(said(&trickle[..6]), "idle");
        assert_eq!(said(&[(5, 5), (5, 6)]), "behind");
    }

    #[test]
    fn many_samples_in_a_short_time_are_not_all_kept() {
        let (mut trend, now) = (Trend::new(S * 1_000), Instant::now());
        (0..1_000).for_each(|second| drop(trend.add(sample(now + S * second, 0, 0), None)));
        assert_eq!(trend.samples.len(), MOST);
        assert_eq!(trend.last().unwrap().committed, Some(Offset::ZERO));
    }
}
