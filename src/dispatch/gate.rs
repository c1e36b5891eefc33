//! The wait gate: the first records are held back until each required topic has some.
//!
//! Pure. What it holds is bounded by the consumers' budgets, which those records still occupy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::consumer::Batch;

/// What to do when the required topics do not all have records in time (`gate.on_timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Let the records go, with a warning.
    Proceed,
    /// End the process.
    Exit,
}

/// Whether the gate holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    Closed,
    /// Every required topic has records.
    Open,
    /// The attempts are used up.
    Expired {
        /// The topics that had none.
        missing: Vec<Arc<str>>,
        /// How long it held.
        waited: Duration,
    },
}

/// A gate that still holds.
#[derive(Debug)]
pub struct Gate {
    missing: BTreeSet<Arc<str>>,
    held: Vec<Vec<Batch>>,
    started: Instant,
    attempt: u32,
    max_attempts: u32,
    every: Duration,
    on_timeout: OnTimeout,
}

impl Gate {
    /// Holds until each of `required` has records, or `max_attempts` times `every` have passed.
    pub fn new(
        required: impl IntoIterator<Item = Arc<str>>,
        max_attempts: u32,
        every: Duration,
        on_timeout: OnTimeout,
        now: Instant,
    ) -> Self {
        Self {
            missing: required.into_iter().collect(),
            held: Vec::new(),
            started: now,
            attempt: 0,
            max_attempts,
            every,
            on_timeout,
        }
    }

    /// Takes batches of one topic in.
    pub fn hold(&mut self, batches: Vec<Batch>) {
        if let Some(first) = batches.first() {
            self.missing.remove(&first.partition.topic);
        }
        self.held.push(batches);
    }

    /// Topics for which this does not hold are no longer waited for: they were removed, or paused.
    pub fn wait_only_for(&mut self, topic: impl Fn(&Arc<str>) -> bool) {
        self.missing.retain(topic);
    }

    /// When to look at the state at the latest: the end of the attempt.
    pub fn wake(&self) -> Instant {
        self.started + self.every.saturating_mul(self.attempt + 1)
    }

    /// `gate.on_timeout`
    pub fn on_timeout(&self) -> OnTimeout {
        self.on_timeout
    }

    /// Whether it holds at `now`; counts the attempts, and tells the log of each.
    pub fn state(&mut self, now: Instant) -> State {
        let waited = now.saturating_duration_since(self.started);
        if self.missing.is_empty() {
            let held: usize = self.held.iter().map(Vec::len).sum();
            log::info!("gate open held_batches={held} after_ms={}", waited.as_millis());
            return State::Open;
        }
        while self.attempt < self.max_attempts && self.wake() <= now {
            self.attempt += 1;
            log::debug!("gate closed attempt={} of={} missing=\"{}\"", self.attempt, self.max_attempts, self.names());
        }
        if self.attempt < self.max_attempts {
            return State::Closed;
        }
        let action = match self.on_timeout {
            OnTimeout::Proceed => "proceed",
            OnTimeout::Exit => "exit",
        };
        log::warn!("gate expired missing=\"{}\" after_ms={} action={action}", self.names(), waited.as_millis());
        State::Expired { missing: self.missing.iter().cloned().collect(), waited }
    }

    /// What it held, in the order it came.
    pub fn into_held(self) -> Vec<Vec<Batch>> {
        self.held
    }

    fn names(&self) -> String {
        self.missing.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Records, TopicPartition};
    use crate::ticket::{Slot, Ticket};

    fn batch(topic: &str) -> Vec<Batch> {
        let (acks, _) = crate::ticket::channel(1);
        let ticket = Ticket::new(Slot(1), 0, 0, Records::none(), acks);
        vec![Batch { partition: TopicPartition::new(topic, 0), records: Records::none(), ticket }]
    }

    fn gate(now: Instant) -> Gate {
        Gate::new(["a".into(), "b".into()], 3, Duration::from_secs(2), OnTimeout::Proceed, now)
    }

    #[test]
    fn opens_when_the_last_required_topic_has_records() {
        let now = Instant::now();
        let mut gate = gate(now);
        for topic in ["a", "other", "a"] {
            gate.hold(batch(topic));
            assert_eq!(gate.state(now), State::Closed);
        }
        gate.hold(batch("b"));
        assert_eq!(gate.state(now), State::Open);
        let order: Vec<_> = gate.into_held().iter().flatten().map(|b| b.partition.topic.to_string()).collect();
        assert_eq!(order, ["a", "other", "a", "b"]);
    }

    #[test]
    fn a_topic_that_is_removed_is_no_longer_waited_for() {
        let now = Instant::now();
        let mut gate = gate(now);
        gate.hold(batch("a"));
        assert_eq!(gate.state(now), State::Closed);
        gate.wait_only_for(|topic| **topic != *"b");
        assert_eq!(gate.state(now), State::Open);
    }

    #[test]
    fn expires_after_all_attempts_and_names_what_is_missing() {
        let now = Instant::now();
        let mut gate = gate(now);
        gate.hold(batch("a"));
        assert_eq!(gate.state(now + Duration::from_millis(5_999)), State::Closed);
        let end = now + Duration::from_secs(6);
        let expired = State::Expired { missing: vec!["b".into()], waited: Duration::from_secs(6) };
        assert_eq!(gate.state(end), expired);
    }
}
