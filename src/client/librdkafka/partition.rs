//! One partition of this reader: its position, what to do with it next, and how it is doing.
//!
//! Invariants:
//! - the position moves by spans only. A span ends behind a record that librdkafka gave out, or at the end that it
//!   has told; what lies before is in it or does not exist, because librdkafka gives out a partition in order;
//! - nothing is believed across an error: librdkafka passes over a batch that it can't read, and goes on with the next
//!   one. After an error the partition is assigned anew at its position.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Queue;
use super::batch::Batch;
use super::inquiry::Question;
use crate::backoff::Backoff;
use crate::client::reader::{FIRST_PARTITION_RETRY, LONGEST_RETRY, PartState, slow_retry};
use crate::client::{Bounds, Event, Fault, Retry};
use crate::record::{Offset, Records, Span, TopicPartition};

/// What passes by itself is a trouble to be told when it has lasted for so long; less is a leader that moves.
pub(super) const TELL_AFTER: Duration = Duration::from_secs(2);

/// A batch is believed to be damaged when it was so in this many answers, one after the other.
const DAMAGED: u32 = 3;

/// What to do with a partition next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: it has no position.
    Rest,
    /// To be assigned at its position.
    Start,
    /// librdkafka fetches it.
    Run,
    /// Something has to be found out before.
    Ask(Question),
    /// It is assigned again at its position, then.
    Wait(Instant),
}

/// A record that there is no room for yet, by itself.
pub(super) struct Pending {
    pub(super) batch: Batch,
}

/// See the module's text.
pub(super) struct Partition {
    pub(super) name: TopicPartition,
    pub(super) position: Option<Offset>,
    /// Rises with each seek: what was asked before it is not for this position.
    pub(super) epoch: u64,
    pub(super) step: Step,
    /// librdkafka has it.
    pub(super) is_assigned: bool,
    pub(super) queue: Option<Arc<Queue>>,
    pub(super) pending: Option<Pending>,
    /// `host:port`, as the metadata had it last.
    pub(super) leader: Option<String>,
    /// The metadata has no leader for it.
    pub(super) is_leaderless: bool,
    /// How many messages its last batch had.
    pub(super) usual: usize,
    was_read: bool,
    log_end: Option<Offset>,
    /// Where a batch could not be read, and how often.
    damaged: Option<(Offset, u32)>,
    /// What was told.
    failing: Option<Fault>,
    /// Since when it fails, told or not.
    failing_since: Option<Instant>,
    backoff: Backoff,
}

impl Partition {
    pub(super) fn new(name: TopicPartition) -> Self {
        Self {
            name,
            position: None,
            epoch: 0,
            step: Step::Rest,
            is_assigned: false,
            queue: None,
            pending: None,
            leader: None,
            is_leaderless: false,
            usual: 0,
            was_read: false,
            log_end: None,
            damaged: None,
            failing: None,
            failing_since: None,
            backoff: Backoff::new(FIRST_PARTITION_RETRY, LONGEST_RETRY),
        }
    }

    /// Starts at `to`; whatever was known of another place is forgotten.
    pub(super) fn seek(&mut self, to: Option<Offset>) {
        self.position = to;
        self.epoch += 1;
        self.step = if to.is_some() { Step::Start } else { Step::Rest };
        self.pending = None;
        self.was_read |= to.is_some();
    }

    pub(super) fn state(&self) -> PartState {
        PartState {
            position: self.position,
            was_read: self.was_read,
            is_failing: self.failing_since.is_some(),
            is_told_failing: self.failing.is_some(),
        }
    }

    /// What it waits for, beside librdkafka.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.step {
            Step::Wait(until) => Some(until),
            _ => self.failing_since.filter(|_| self.is_leaderless && self.failing.is_none()).map(|at| at + TELL_AFTER),
        }
    }

    /// Records that were taken, complete but for their account.
    pub(super) fn deliver(&mut self, records: Records, last: Offset, bytes: usize, events: &mut VecDeque<Event>) {
        self.moved(last.next(), records, bytes, events);
    }

    /// librdkafka has told the end of the partition.
    pub(super) fn ended(&mut self, at: Offset, log_end: Offset, events: &mut VecDeque<Event>) {
        self.log_end = Some(log_end);
        if self.position.is_some_and(|position| at > position) {
            self.moved(at, Records::none(), 0, events);
        } else {
            self.well(events);
        }
    }

    fn moved(&mut self, to: Offset, records: Records, bytes: usize, events: &mut VecDeque<Event>) {
        let Some(from) = self.position.replace(to) else { return };
        self.well(events);
        let log_end = self.log_end.map(|end| end.max(to));
        let partition = self.name.clone();
        events.push_back(Event::Span(Span { partition, offsets: from..to, records, bytes, log_end }));
    }

    /// The log's bounds, after librdkafka had said that the position is outside.
    pub(super) fn bounds(&mut self, bounds: Bounds, now: Instant, events: &mut VecDeque<Event>) {
        let Some(position) = self.position else { return };
        if bounds.contain(position) {
            // It was outside of a follower's log, or came from before a seek.
            self.step = Step::Wait(now + self.backoff.next_wait());
        } else {
            self.seek(None);
            events.push_back(Event::OutOfRange { partition: self.name.clone(), at: position, bounds });
        }
    }

    /// The batch at its position could not be read. Whether that is tried again soon, before it is a fault.
    pub(super) fn is_tried_again(&mut self, now: Instant) -> bool {
        let Some(position) = self.position else { return false };
        let times = self.damaged.filter(|(at, _)| *at == position).map_or(1, |(_, times)| times + 1);
        self.damaged = Some((position, times.min(DAMAGED)));
        if times < DAMAGED {
            self.step = Step::Wait(now + self.backoff.next_wait());
        }
        times < DAMAGED
    }

    /// It can't be read, and is assigned again at its position after a while that fits the fault.
    pub(super) fn fail(&mut self, fault: Fault, now: Instant, events: &mut VecDeque<Event>) {
        let wait = match fault.retry() {
            Retry::Soon => self.backoff.next_wait(),
            Retry::Slowly | Retry::Never => slow_retry(&fault),
        };
        self.step = Step::Wait(now + wait);
        self.ails(fault, now, events);
    }

    /// It is not read at present, and librdkafka goes on trying.
    pub(super) fn ails(&mut self, fault: Fault, now: Instant, events: &mut VecDeque<Event>) {
        let since = *self.failing_since.get_or_insert(now);
        let tell = match fault.retry() {
            // One reason follows the other while a leader is sought: told is the first.
            Retry::Soon => self.failing.is_none() && now.saturating_duration_since(since) >= TELL_AFTER,
            Retry::Slowly | Retry::Never => self.failing.as_ref() != Some(&fault),
        };
        if tell {
            self.failing = Some(fault.clone());
            events.push_back(Event::Failing(self.name.clone(), fault));
        }
    }

    /// It is read, or nothing speaks against it any more.
    pub(super) fn well(&mut self, events: &mut VecDeque<Event>) {
        self.failing_since = None;
        self.backoff.reset();
        if self.failing.take().is_some() {
            events.push_back(Event::Recovered(self.name.clone()));
        }
    }

    /// Its broker is connected: what ailed it for want of that is over, if that was all.
    pub(super) fn connected(&mut self, events: &mut VecDeque<Event>) {
        let passes = self.failing.as_ref().is_none_or(|fault| fault.retry() == Retry::Soon);
        if self.failing_since.is_some() && passes && self.step == Step::Run && !self.is_leaderless {
            self.well(events);
        }
    }
}
