//! Tickets: who is still busy with a batch.
//!
//! A batch travels with a ticket. `share` makes another part of it (a second sink, a key lane, a
//! dead letter); the reference count is the counter of parts. When the last part is gone, one
//! [`Ack`] goes to the consumer: good if every part said `done`, failed if one was dropped without.
//!
//! Acks travel in groups: what a lane has delivered with one flush is acknowledged by one message a
//! consumer, because each message may wake a thread.
//!
//! While a batch is still under way, its parts may say how far they are; what all of them have done is a [`Mark`].
//!
//! Invariants: a ticket acknowledges exactly once; dropping one never blocks, because the ack
//! channel holds as many messages as the consumer may have batches in flight. A mark may be lost, an ack is not: so
//! each of them says all that is done, and they have a channel of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::record::{Offset, Records};

/// One partition from one seek to the next. Its number is never used again in this process, so an
/// ack that comes late, for a slot that has ended, cannot be mistaken for another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u64);

/// The end of a batch's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The slot that the batch was delivered in.
    pub slot: Slot,
    /// Its number in the slot, from 0.
    pub seq: u64,
    /// Bytes of the consumer's budget that it gives back.
    pub bytes: usize,
    /// Whether every part of it was delivered.
    pub ok: bool,
}

/// How far a batch is that is still under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The slot that the batch is delivered in.
    pub slot: Slot,
    /// Its number in the slot, from 0.
    pub seq: u64,
    /// All of its records below this offset are delivered by every part.
    pub below: Offset,
    /// So many records are that.
    pub records: u64,
}

/// Marks that wait for a consumer, at the most: the next one says what one that finds no room would have said.
const MARKS: usize = 64;

/// Where tickets say what was delivered.
#[derive(Clone, Debug)]
pub struct AckSender {
    acks: Sender<Vec<Ack>>,
    marks: Sender<Mark>,
}

/// Where a consumer hears of it.
#[derive(Clone, Debug)]
pub struct AckReceiver {
    /// Of each batch that was handed over, once.
    pub acks: Receiver<Vec<Ack>>,
    /// Of those that take long, now and then.
    pub marks: Receiver<Mark>,
}

/// For a consumer that has at most so many batches in flight.
pub fn channel(batches: usize) -> (AckSender, AckReceiver) {
    let (acks_tx, acks) = bounded(batches);
    let (marks_tx, marks) = bounded(MARKS);
    (AckSender { acks: acks_tx, marks: marks_tx }, AckReceiver { acks, marks })
}

#[derive(Debug)]
struct Pending {
    ack: Ack,
    failed: AtomicBool,
    /// All of the batch's.
    records: Records,
    progress: Mutex<Progress>,
    /// `None` once the ack was taken out.
    to: Option<AckSender>,
}

/// How far each part is.
#[derive(Debug)]
struct Progress {
    /// What a part has below this offset it has delivered; `None`: it has delivered all.
    parts: Vec<Option<Offset>>,
    /// One of them has said so before its end: the batch takes long.
    is_slow: bool,
    told: Offset,
}

impl Pending {
    /// The ack, and where it goes; only once.
    fn end(&mut self) -> Option<(AckSender, Ack)> {
        self.ack.ok = !*self.failed.get_mut();
        Some((self.to.take()?, self.ack))
    }

    /// A part has come so far. Nothing is said of a batch whose parts all come to their end soon.
    fn advance(&self, part: usize, below: Option<Offset>, is_end: bool) -> Option<Mark> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress.parts.get_mut(part)? = below;
        progress.is_slow |= !is_end;
        if !progress.is_slow {
            return None;
        }
        let last = self.records.get(self.records.len().checked_sub(1)?)?.offset;
        let below = progress.parts.iter().flatten().min().copied().unwrap_or(last.next());
        if below <= progress.told {
            return None;
        }
        progress.told = below;
        let records = self.records.count_below(below) as u64;
        Some(Mark { slot: self.ack.slot, seq: self.ack.seq, below, records })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((to, ack)) = self.end() {
            self.records = Records::none();
            send(&to, vec![ack]);
        }
    }
}

fn send(to: &AckSender, group: Vec<Ack>) {
    // A consumer that is gone has no use for it, and a full channel cannot be: see above.
    let _ = to.acks.try_send(group);
}

/// One part of a batch's delivery.
#[derive(Debug)]
pub struct Ticket {
    /// `None` once it is done.
    pending: Option<Arc<Pending>>,
    part: usize,
}

impl Ticket {
    /// The only part, so far, of batch `seq` of `slot`, which has these records.
    pub fn new(slot: Slot, seq: u64, bytes: usize, records: Records, to: AckSender) -> Self {
        let ack = Ack { slot, seq, bytes, ok: false };
        let progress = Mutex::new(Progress { parts: vec![Some(Offset::ZERO)], is_slow: false, told: Offset::ZERO });
        let pending = Pending { ack, failed: AtomicBool::new(false), records, progress, to: Some(to) };
        Self { pending: Some(Arc::new(pending)), part: 0 }
    }

    /// Another part: the batch is delivered when both are done.
    #[must_use]
    pub fn share(&self) -> Self {
        let mut part = 0;
        if let Some(pending) = &self.pending {
            let mut progress = pending.progress.lock().unwrap_or_else(PoisonError::into_inner);
            part = progress.parts.len();
            progress.parts.push(Some(Offset::ZERO));
        }
        Self { pending: self.pending.clone(), part }
    }

    /// What this part has below `offset` is delivered, and stays so, whatever becomes of the rest; `None`: all that it
    /// has. It is not done by that.
    pub fn mark(&self, offset: Option<Offset>) {
        self.tell(offset, false);
    }

    fn tell(&self, offset: Option<Offset>, is_end: bool) {
        if let Some(pending) = &self.pending
            && let Some(mark) = pending.advance(self.part, offset, is_end)
            && let Some(to) = &pending.to
        {
            let _ = to.marks.try_send(mark);
        }
    }

    /// This part is delivered.
    pub fn done(self) {
        Self::all_done([self]);
    }

    /// These parts are delivered; one message for each run of tickets of the same consumer.
    pub fn all_done(tickets: impl IntoIterator<Item = Self>) {
        let mut group: Option<(AckSender, Vec<Ack>)> = None;
        for mut ticket in tickets {
            // Others may still be under way, and need not wait for this one.
            if ticket.pending.as_ref().is_some_and(|pending| Arc::strong_count(pending) > 1) {
                ticket.tell(None, true);
            }
            // Of the parts that end at the same time, exactly one is the last.
            let last = ticket.pending.take().and_then(Arc::into_inner);
            let Some((to, ack)) = last.and_then(|mut last| last.end()) else {
                continue;
            };
            match &mut group {
                Some((same, list)) if same.acks.same_channel(&to.acks) => list.push(ack),
                _ => {
                    if let Some((to, list)) = group.replace((to, vec![ack])) {
                        send(&to, list);
                    }
                }
            }
        }
        if let Some((to, list)) = group {
            send(&to, list);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(pending) = &self.pending {
            // Release pairs with the exclusive access in `Pending::end`, which the Arc orders.
            pending.failed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::{Arena, Record};

    /// Offsets 10, 12, 14, …
    struct Even;

    impl Arena for Even {
        fn record(&self, index: usize) -> Record<'_> {
            Record { offset: Offset::new(10 + 2 * index as i64).unwrap(), ..Record::default() }
        }
    }

    fn at(offset: i64) -> Option<Offset> {
        Offset::new(offset)
    }

    fn five(to: &AckSender) -> Ticket {
        Ticket::new(Slot(7), 3, 10, Records::new(Arc::new(Even), 0..5), to.clone())
    }

    #[test]
    fn what_all_parts_have_done_is_marked_and_told_once() {
        let (to, from) = channel(1);
        let marks = || from.marks.try_iter().map(|mark| (mark.below.get(), mark.records)).collect::<Vec<_>>();
        let one = five(&to);
        let (two, three) = (one.share(), one.share());
        one.mark(at(16));
        two.mark(None);
        assert_eq!(marks(), []);
        three.mark(at(13));
        three.mark(at(13));
        assert_eq!(marks(), [(13, 2)]);
        three.done();
        assert_eq!(marks(), [(16, 3)], "its end is told, as others are slow");
        one.mark(None);
        assert_eq!(marks(), [(19, 5)]);
        two.done();
        drop(one);
        assert_eq!(from.acks.try_recv().map(|acks| acks[0].ok).ok(), Some(false), "a mark is no ack");
    }

    #[test]
    fn of_a_batch_that_is_done_soon_no_mark_is_told_and_a_lost_mark_is_told_by_the_next() {
        let (to, from) = channel(1);
        let one = five(&to);
        one.share().done();
        one.done();
        assert_eq!(from.marks.try_iter().count(), 0);
        let many: Vec<Ticket> = (0..=MARKS).map(|_| five(&to)).collect();
        many.iter().for_each(|ticket| ticket.mark(at(12)));
        assert_eq!(from.marks.try_iter().count(), MARKS);
        many[MARKS].mark(at(14));
        assert_eq!(from.marks.try_recv().map(|mark| (mark.below.get(), mark.records)).ok(), Some((14, 2)));
    }

    #[test]
    fn the_last_part_acknowledges_once() {
        let (to, rx) = channel(1);
        let (first, rx) = (five(&to), rx.acks);
        let second = first.share();
        first.done();
        assert!(rx.try_recv().is_err());
        second.done();
        assert_eq!(rx.try_recv().ok(), Some(vec![Ack { slot: Slot(7), seq: 3, bytes: 10, ok: true }]));
        assert!(rx.try_recv().is_err());
    }

    #[test]
    fn one_part_dropped_undone_fails_the_batch() {
        let (to, rx) = channel(1);
        let (first, rx) = (five(&to), rx.acks);
        let second = first.share();
        drop(first);
        second.done();
        assert_eq!(rx.try_recv().map(|acks| acks[0].ok).ok(), Some(false));
    }

    #[test]
    fn tickets_that_end_together_are_one_message_a_consumer() {
        let ((one, from_one), (two, from_two)) = (channel(4), channel(4));
        let (from_one, from_two) = (from_one.acks, from_two.acks);
        let ticket = |seq, to: &AckSender| Ticket::new(Slot(7), seq, 10, Records::none(), to.clone());
        let shared = ticket(2, &one);
        let other_part = shared.share();
        Ticket::all_done([ticket(0, &one), ticket(1, &one), shared, ticket(3, &two), ticket(4, &one)]);
        let seqs = |acks: Vec<Ack>| acks.iter().map(|ack| (ack.seq, ack.ok)).collect::<Vec<_>>();
        assert_eq!(from_one.try_iter().map(seqs).collect::<Vec<_>>(), [vec![(0, true), (1, true)], vec![(4, true)]]);
        assert_eq!(from_two.try_iter().map(seqs).collect::<Vec<_>>(), [vec![(3, true)]]);
        drop(other_part);
        assert_eq!(from_one.try_iter().map(seqs).collect::<Vec<_>>(), [vec![(2, false)]]);
    }
}
