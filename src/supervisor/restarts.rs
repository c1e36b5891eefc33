//! How often a consumer may be started again. Pure: time is a parameter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;

/// So many restarts of one consumer within the window; the next failure ends the process.
pub(super) const MOST: usize = 3;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// One consumer's restarts.
#[derive(Debug)]
pub(super) struct Restarts {
    window: Duration,
    at: VecDeque<Instant>,
    backoff: Backoff,
}

impl Restarts {
    /// None so far. One counts for as long as `window`.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, at: VecDeque::new(), backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) }
    }

    /// It failed at `now`: how long to wait before it is started again; `None` if that did not help
    /// often enough.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        while self.at.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            self.at.pop_front();
        }
        if self.at.is_empty() {
            self.backoff.reset();
        }
        if self.at.len() >= MOST {
            return None;
        }
        self.at.push_back(now);
        Some(self.backoff.next_wait())
    }

    /// How many there were within the window.
    pub(super) fn count(&self) -> usize {
        self.at.len()
    }

    /// For how long one counts.
    pub(super) fn window(&self) -> Duration {
        self.window
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn three_within_the_window_and_again_when_they_are_long_past() {
        let (window, start) = (Duration::from_secs(600), Instant::now());
        let mut restarts = Restarts::new(window);
        let waits: Vec<_> = (0..3).map(|n| restarts.next(start + Duration::from_secs(n * 100)).unwrap()).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        assert!(waits[2] > FIRST_WAIT, "the wait grows: {waits:?}");
        assert_eq!(restarts.next(start + Duration::from_secs(599)), None);
        assert_eq!(restarts.count(), 3);
        assert!(restarts.next(start + window).is_some(), "the first is forgotten");
        assert_eq!(restarts.next(start + window), None);
        let first = restarts.next(start + window * 3).unwrap();
        assert!(first <= FIRST_WAIT, "all are forgotten, and with them the wait: {first:?}");
    }
}
