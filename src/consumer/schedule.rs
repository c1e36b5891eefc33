//! When to commit. Pure: time is a parameter.
//!
//! Owns the pace of one consumer's commits and their retries; knows no offsets.

use std::time::{Duration, Instant};

/// The longest wait between two attempts of a commit that keeps failing, but for a `retry_delay` that
/// is longer. A coordinator that comes back is found within it.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The pace (`[commit]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// At the latest so long after the last commit.
    pub interval: Duration,
    /// Or as soon as this many records are done,
    pub batch_size: u64,
    /// but not more often than this.
    pub min_interval: Duration,
    /// Attempts after the first, `retry_delay` apart, before it is a WARN and a growing backoff.
    pub max_retries: u32,
    /// Wait between attempts.
    pub retry_delay: Duration,
    /// While commits fail nothing more is fetched once so many offsets are delivered and not committed;
    /// 0: no limit.
    pub max_uncommitted: u64,
}

/// The state of one consumer's commits.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    /// Records done since the last commit.
    records: u64,
    /// Something has to be committed before anything else goes on: a first position, a jump.
    urgent: bool,
    last: Option<Instant>,
    in_flight: bool,
    failures: u32,
    failing_since: Option<Instant>,
    backoff_until: Option<Instant>,
}

/// What a failed attempt means for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An attempt among several; the next follows soon.
    Attempt,
    /// The retries are used up; it has been failing since then, and goes on with a growing backoff.
    Trouble(Instant),
}

impl Schedule {
    /// Nothing committed yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            records: 0,
            urgent: false,
            last: None,
            in_flight: false,
            failures: 0,
            failing_since: None,
            backoff_until: None,
        }
    }

    /// More records are done.
    pub fn done(&mut self, records: u64) {
        self.records += records;
    }

    /// Commit as soon as the backoff allows.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Whether an answer is outstanding.
    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// When the next attempt is due, given that there is something to commit. `None` while one is
    /// under way.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.in_flight {
            return None;
        }
        let regular = match self.last {
            _ if self.urgent => now,
            None => now,
            Some(last) if self.records >= self.pace.batch_size => last + self.pace.min_interval,
            Some(last) => last + self.pace.interval.max(self.pace.min_interval),
        };
        Some(self.backoff_until.map_or(regular, |until| until.max(regular)))
    }

    /// Until when a failed attempt holds the next one back.
    pub fn backoff_until(&self) -> Option<Instant> {
        self.backoff_until
    }

    /// The next attempt need not wait for the backoff.
    pub fn try_again(&mut self) {
        self.backoff_until = None;
    }

    /// An attempt is under way.
    pub fn sent(&mut self) {
        self.in_flight = true;
        self.records = 0;
        self.urgent = false;
    }

    /// Whether the last attempt failed.
    pub fn fails(&self) -> bool {
        self.failures > 0
    }

    /// It succeeded.
    pub fn succeeded(&mut self, now: Instant) {
        self.in_flight = false;
        self.last = Some(now);
        self.failures = 0;
        self.failing_since = None;
        self.backoff_until = None;
    }

    /// It failed.
    pub fn failed(&mut self, now: Instant) -> Failure {
        self.in_flight = false;
        self.urgent = true;
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let beyond = self.failures.saturating_sub(self.pace.max_retries + 1);
        let delay =
            self.pace.retry_delay.saturating_mul(1 << beyond.min(8)).min(MAX_BACKOFF.max(self.pace.retry_delay));
        self.backoff_until = Some(now + delay);
        if self.failures > self.pace.max_retries { Failure::Trouble(since) } else { Failure::Attempt }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn schedule() -> Schedule {
        Schedule::new(Pace {
            interval: 5000 * MS,
            batch_size: 100,
            min_interval: 100 * MS,
            max_retries: 2,
            retry_delay: 1000 * MS,
            max_uncommitted: 0,
        })
    }

    #[test]
    fn by_time_by_count_and_not_too_often() {
        let (mut s, t) = (schedule(), Instant::now());
        assert_eq!(s.due(t), Some(t), "the first one waits for nothing");
        s.sent();
        assert_eq!(s.due(t), None);
        s.succeeded(t);
        s.done(99);
        assert_eq!(s.due(t), Some(t + 5000 * MS));
        s.done(1);
        assert_eq!(s.due(t), Some(t + 100 * MS));
        s.hurry();
        assert_eq!(s.due(t), Some(t));
    }

    #[test]
    fn retries_are_never_given_up() {
        let (mut s, t) = (schedule(), Instant::now());
        let mut told = Vec::new();
        for _ in 0..12 {
            s.sent();
            told.push(s.failed(t));
            assert!(s.due(t).unwrap() <= t + MAX_BACKOFF, "the backoff is bounded");
        }
        let trouble = Failure::Trouble(t);
        assert_eq!(told[..4], [Failure::Attempt, Failure::Attempt, trouble, trouble]);
        assert_eq!(s.due(t), Some(t + MAX_BACKOFF));
        s.try_again();
        assert_eq!(s.due(t), Some(t), "the trouble is over");
        assert!(s.fails());
        s.succeeded(t);
        assert!(!s.fails());
    }
}
