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
    pub(super) fn new<'a>(topics: impl Iterator<Item = &'a Arc<str>>, every: Duration, now: Instant) -> Self {
        let every = every.max(SHORTEST);
        Self { counts: topics.map(|t| (Arc::clone(t), 0)).collect(), every, end: now + every }
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
        let mut rounds = Rounds::new(topics.iter(), Duration::from_millis(1), now);
        rounds.count(&topics[0], 7);
        rounds.count(&topics[0], 3);
        assert_eq!(rounds.line(now + Duration::from_millis(999)), None);
        assert_eq!(rounds.line(now + SHORTEST).as_deref(), Some("polled [A:10, B:0] total=10"));
        assert_eq!(rounds.line(now + SHORTEST * 2).as_deref(), Some("polled [A:0, B:0] total=0"));
    }
}
