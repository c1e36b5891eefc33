//! Partitions that the group has taken back without asking, until it is known why. Pure.
//!
//! librdkafka says the same of a topic that was deleted and of a member that counts as dead. The next look at the
//! topics tells them apart; it is waited for only briefly, as a broker that can't be asked says nothing.

use std::time::{Duration, Instant};

use crate::record::TopicPartition;

/// A loss that is not explained within this time is told as it is.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(2);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// When the first of them was lost, and when the last.
    at: Option<(Instant, Instant)>,
    names: Vec<TopicPartition>,
}

impl Losses {
    /// These are gone at `now`.
    pub(super) fn add(&mut self, names: Vec<TopicPartition>, now: Instant) {
        if !names.is_empty() {
            self.at = Some((self.at.map_or(now, |(first, _)| first), now));
            self.names.extend(names);
        }
    }

    /// Whether one of `names` is gone, and that is not told yet.
    pub(super) fn has_any<'n>(&self, mut names: impl Iterator<Item = &'n TopicPartition>) -> bool {
        names.any(|name| self.names.contains(name))
    }

    /// Whether a look that began then says why.
    pub(super) fn is_explained_by(&self, look: Instant) -> bool {
        self.at.is_some_and(|(_, last)| look >= last)
    }

    /// When they are to be told at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at.map(|(first, _)| first + EXPLAINED_WITHIN)
    }

    /// All of them, to be told now.
    pub(super) fn take(&mut self) -> Vec<TopicPartition> {
        self.at = None;
        std::mem::take(&mut self.names)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_look_that_began_later_explains_a_loss_and_it_is_told_in_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let name = |number| TopicPartition::new("t", number);
        let mut losses = Losses::default();
        losses.add(Vec::new(), now);
        assert_eq!((losses.deadline(), losses.is_explained_by(now)), (None, false));
        losses.add(vec![name(0)], now);
        losses.add(vec![name(1)], now + second);
        assert_eq!(losses.deadline(), Some(now + EXPLAINED_WITHIN));
        assert!(!losses.is_explained_by(now) && losses.is_explained_by(now + second));
        assert!(losses.has_any([name(1)].iter()) && !losses.has_any([name(2)].iter()));
        assert_eq!(losses.take(), [name(0), name(1)]);
        assert_eq!((losses.deadline(), losses.has_any([name(1)].iter())), (None, false));
    }
}
