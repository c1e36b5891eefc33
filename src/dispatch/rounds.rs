//! The statistics of the poll rounds, as the service that this replaces wrote them:
//! `polled [A:10, B:0] total=10`. One line a round, and at most one a second.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// More than one line a second is noise.
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) struct Rounds {
    counts: BTreeMap<Arc<str>, u64>,
    every: Duration,
    end: Instant,
}

impl Rounds {
    /// Of no topic yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { counts: BTreeMap::new(), every: SHORTEST, end: now + SHORTEST }
    }

    /// From now on it counts these topics, in rounds of this length; the present round ends when it would.
    pub(super) fn follow<'a>(&mut self, topics: impl Iterator<Item = &'a Arc<str>>, every: Duration) {
        let mut before = std::mem::take(&mut self.counts);
        self.counts = topics.map(|topic| (Arc::clone(topic), before.remove(topic).unwrap_or(0))).collect();
        self.every = every.max(SHORTEST);
    }

    pub(super) fn count(&mut self, topic: &Arc<str>, records: usize) {
        if let Some(count) = self.counts.get_mut(topic) {
            *count += records as u64;
        }
    }

    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// The line of the round that ended by `now`; the next round begins.
    pub(super) fn line(&mut self, now: Instant) -> Option<String> {
        if now < self.end {
            return None;
        }
        self.end = now + self.every;
        let mut line = String::from("polled [");
        let mut total = 0;
        for (index, (topic, count)) in self.counts.iter_mut().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(line, "{comma}{topic}:{count}");
            total += std::mem::take(count);
        }
        let _ = write!(line, "] total={total}");
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_round_with_the_silent_topics_in_it() {
        let now = Instant::now();
        let topics: [Arc<str>; 2] = ["A".into(), "B".into()];
        let mut rounds = Rounds::new(now);
        rounds.follow(topics[..1].iter(), Duration::from_millis(1));
        rounds.count(&topics[0], 7);
        rounds.follow(topics.iter(), Duration::from_millis(1));
        rounds.count(&topics[0], 3);
        assert_eq!(rounds.line(now + Duration::from_millis(999)), None);
        assert_eq!(rounds.line(now + SHORTEST).as_deref(), Some("polled [A:10, B:0] total=10"));
        assert_eq!(rounds.line(now + SHORTEST * 2).as_deref(), Some("polled [A:0, B:0] total=0"));
    }
}
