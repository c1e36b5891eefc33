//! One partition as its consumer sees it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use crate::client::Bounds;
use crate::consumer::tracker::{Sums, Tracker};
use crate::record::{Offset, TopicPartition};

/// Commits without an answer that are remembered: more than links that can be given up at a time.
const UNANSWERED: usize = 8;

/// A partition and where it stands.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub partition: TopicPartition,
    /// Where it stands.
    pub place: Place,
    /// The position was found to be outside the log; it is left when what was delivered is done.
    pub leaving: Option<(Offset, Bounds)>,
    /// What became of the offsets of earlier slots.
    pub past: Past,
    /// What somebody else has committed. Nothing below it is committed over it.
    pub foreign: Option<Offset>,
    /// Offsets of commits of ours that were not answered, the last few: they may land late.
    pub unanswered: VecDeque<Offset>,
    /// The group takes it away, and it is let go then at the latest.
    pub revoked: Option<Instant>,
}

/// Where a partition stands.
#[derive(Debug)]
pub enum Place {
    /// Its first position is chosen, and held back until the group has it.
    Held(Offset),
    /// It is being read.
    Reading(Tracker),
    /// It stopped at this offset, by `on_out_of_range = "stop"`.
    Stopped(Offset),
    /// The topic no longer has it.
    Gone,
}

/// Offsets that are behind us: those of earlier slots, and those between slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Records whose delivery was acknowledged.
    pub delivered: u64,
    /// Offsets that did not exist.
    pub absent: u64,
    /// Offsets that Kafka's retention took before they were read.
    pub expired: u64,
    /// Offsets that exist and were not read, by choice.
    pub reset: u64,
}

impl Past {
    /// Takes over the sums of a slot that ends. What is still in flight in it is read again.
    pub fn add(&mut self, tracker: &Tracker) {
        let Sums { delivered, absent, .. } = tracker.sums();
        self.delivered += delivered;
        self.absent += absent;
    }

    /// A jump passes these ranges over.
    pub fn jumped(&mut self, expired: Option<&Range<Offset>>, reset: Option<&Range<Offset>>) {
        let len = |range: Option<&Range<Offset>>| range.map_or(0, |r| r.end.since(r.start));
        self.expired += len(expired);
        self.reset += len(reset);
    }
}

impl Part {
    /// What became of all offsets so far, and how many records are in flight.
    pub fn sums(&self) -> (Past, u64) {
        let mut past = self.past;
        match &self.place {
            Place::Reading(tracker) => {
                past.add(tracker);
                (past, tracker.sums().in_flight)
            }
            Place::Held(_) | Place::Stopped(_) | Place::Gone => (past, 0),
        }
    }

    /// A commit of `at` was not answered.
    pub fn not_answered(&mut self, at: Offset) {
        if self.unanswered.back() != Some(&at) {
            self.unanswered.push_back(at);
        }
        if self.unanswered.len() > UNANSWERED {
            self.unanswered.pop_front();
        }
    }

    /// Whether nothing of it is under way, and the group has all that is done.
    pub fn is_done(&self) -> bool {
        match &self.place {
            Place::Reading(tracker) => tracker.sums().in_flight == 0 && tracker.committable().is_none(),
            Place::Held(_) | Place::Stopped(_) | Place::Gone => true,
        }
    }

    /// What the group has for it, as far as this process knows.
    pub fn committed(&self) -> Option<Offset> {
        match &self.place {
            Place::Reading(tracker) => tracker.committed(),
            Place::Held(_) | Place::Stopped(_) | Place::Gone => None,
        }
    }
}
