//! What is in flight in one slot, and up to where it is done.
//!
//! Pure. Knows offsets and batch numbers, no records. Invariants, asserted in release builds too
//! because a breach would commit what was not delivered:
//! committed ≤ acknowledged ≤ position; spans are adjacent; a commit never goes backwards.

use std::collections::VecDeque;
use std::ops::Range;

use crate::record::Offset;
use crate::ticket::Slot;

#[derive(Debug)]
struct InFlight {
    /// The position behind it: its span's end, and that of the absent offsets that follow it.
    next: Offset,
    records: u64,
    acked: bool,
    /// Up to where it is done, and how many records that are, while it is under way.
    marked: Option<(Offset, u64)>,
    /// So many of its records are counted as delivered.
    counted: u64,
}

impl InFlight {
    /// Up to where it is done, and how many records that are.
    fn reach(&self) -> Option<(Offset, u64)> {
        let is_done = self.acked || self.marked.is_some_and(|(_, records)| records == self.records);
        if is_done { Some((self.next, self.records)) } else { self.marked }
    }
}

/// The state of one slot.
#[derive(Debug)]
pub struct Tracker {
    slot: Slot,
    first: Offset,
    /// Number of the batch at the front of `flight`.
    front: u64,
    flight: VecDeque<InFlight>,
    position: Offset,
    acknowledged: Offset,
    committed: Option<Offset>,
    sums: Sums,
}

/// Every offset between a slot's first and its position is in exactly one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Records whose delivery was acknowledged.
    pub delivered: u64,
    /// Records that are delivered, or being delivered, and not yet acknowledged.
    pub in_flight: u64,
    /// Offsets that do not exist: compacted away, or control records.
    pub absent: u64,
}

impl Tracker {
    /// A slot that starts at `first`. `committed` is what the group has, if it is this very place.
    pub fn start(slot: Slot, first: Offset, committed: Option<Offset>) -> Self {
        let tracker = Self {
            slot,
            first,
            front: 0,
            flight: VecDeque::new(),
            position: first,
            acknowledged: first,
            committed,
            sums: Sums::default(),
        };
        tracker.check();
        tracker
    }

    /// Its number.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The next offset to be delivered.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Everything below it is done.
    pub fn acknowledged(&self) -> Offset {
        self.acknowledged
    }

    /// What the group has of this slot.
    pub fn committed(&self) -> Option<Offset> {
        self.committed
    }

    /// Where the offsets from the slot's first to its position have gone.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// `records` of `span` are being delivered; the other offsets of it do not exist. The number
    /// that comes back is the one its ack will carry.
    pub fn deliver(&mut self, span: &Range<Offset>, records: u64) -> u64 {
        self.advance(span, records);
        self.sums.in_flight += records;
        self.flight.push_back(InFlight { next: span.end, records, acked: false, marked: None, counted: 0 });
        self.check();
        self.front + self.flight.len() as u64 - 1
    }

    /// There is nothing to deliver in `span`: it is done when what is below it is.
    pub fn pass(&mut self, span: &Range<Offset>) {
        self.advance(span, 0);
        match self.flight.back_mut() {
            Some(last) => last.next = span.end,
            None => self.acknowledged = span.end,
        }
        // Perhaps the last one has nothing left but to be acknowledged.
        self.settle();
    }

    fn advance(&mut self, span: &Range<Offset>, records: u64) {
        assert_eq!(span.start, self.position, "spans of slot {} are adjacent", self.slot.0);
        let offsets = span.end.since(span.start);
        assert!(offsets > 0 && records <= offsets, "a span of {offsets} offsets holds at most as many records");
        self.position = span.end;
        self.sums.absent += offsets - records;
    }

    /// Batch `seq` is delivered. Returns how many records this took from being in flight to done.
    pub fn ack(&mut self, seq: u64) -> u64 {
        let entry = seq.checked_sub(self.front).and_then(|index| self.flight.get_mut(usize::try_from(index).ok()?));
        let Some(entry) = entry else { panic!("batch {seq} of slot {} is acknowledged twice", self.slot.0) };
        assert!(!entry.acked, "batch {seq} of slot {} is acknowledged twice", self.slot.0);
        entry.acked = true;
        self.settle()
    }

    /// The first `records` of batch `seq`, all below `offset`, are delivered, and the rest is under way. One that comes
    /// after the batch's ack says nothing new. Returns how many records this took from being in flight to done.
    pub fn mark(&mut self, seq: u64, offset: Offset, records: u64) -> u64 {
        let entry = seq.checked_sub(self.front).and_then(|index| self.flight.get_mut(usize::try_from(index).ok()?));
        let Some(entry) = entry.filter(|entry| entry.marked.is_none_or(|(marked, _)| marked < offset)) else {
            return 0;
        };
        assert!(
            offset <= entry.next && records <= entry.records,
            "batch {seq} of slot {} is marked beyond its end",
            self.slot.0
        );
        entry.marked = Some((offset, records));
        self.settle()
    }

    /// Moves on as far as everything is done.
    fn settle(&mut self) -> u64 {
        let mut done = 0;
        for entry in &mut self.flight {
            let Some((offset, records)) = entry.reach() else { break };
            self.acknowledged = self.acknowledged.max(offset);
            done += records - entry.counted;
            entry.counted = records;
            if records < entry.records {
                break;
            }
        }
        while self.flight.front().is_some_and(|front| front.acked) {
            self.front += 1;
            self.flight.pop_front();
        }
        self.sums.delivered += done;
        self.sums.in_flight -= done;
        self.check();
        done
    }

    /// Offsets that are done and that the group does not have.
    pub fn uncommitted(&self) -> u64 {
        self.acknowledged.since(self.committed.unwrap_or(self.first))
    }

    /// What is to be committed now, if that is new.
    pub fn committable(&self) -> Option<Offset> {
        (self.committed != Some(self.acknowledged)).then_some(self.acknowledged)
    }

    /// The group has `at` now. More may have been acknowledged since it was asked to.
    pub fn set_committed(&mut self, at: Offset) {
        assert!(self.committed.is_none_or(|committed| committed <= at), "a commit of slot {} goes back", self.slot.0);
        self.committed = Some(at);
        self.check();
    }

    /// The group does not have what it had: everything that is acknowledged is to be committed again.
    pub fn uncommit(&mut self) {
        self.committed = None;
    }

    fn check(&self) {
        assert!(
            self.first <= self.acknowledged
                && self.acknowledged <= self.position
                && self.committed.is_none_or(|committed| committed <= self.acknowledged),
            "committed ≤ acknowledged ≤ position is broken: {self:?}"
        );
        let Sums { delivered, in_flight, absent } = self.sums;
        assert_eq!(
            self.position.since(self.first),
            delivered + in_flight + absent,
            "an offset is unaccounted for: {self:?}"
        );
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
