//! Tickets: who is still busy with a batch.
//!
//! A batch travels with a ticket. `share` makes another part of it (a second sink, a key lane, a
//! dead letter); the reference count is the counter of parts. When the last part is gone, one
//! [`Ack`] goes to the consumer: good if every part said `done`, failed if one was dropped without.
//!
//! Acks travel in groups: what a lane has delivered with one flush is acknowledged by one message a
//! consumer, because each message may wake a thread.
//!
//! Invariants: a ticket acknowledges exactly once; dropping one never blocks, because the ack
//! channel holds as many messages as the consumer may have batches in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

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

#[derive(Debug)]
struct Pending {
    ack: Ack,
    failed: AtomicBool,
    /// `None` once the ack was taken out.
    acks: Option<Sender<Vec<Ack>>>,
}

impl Pending {
    /// The ack, and where it goes; only once.
    fn end(&mut self) -> Option<(Sender<Vec<Ack>>, Ack)> {
        self.ack.ok = !*self.failed.get_mut();
        Some((self.acks.take()?, self.ack))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((acks, ack)) = self.end() {
            send(&acks, vec![ack]);
        }
    }
}

fn send(acks: &Sender<Vec<Ack>>, group: Vec<Ack>) {
    // A consumer that is gone has no use for it, and a full channel cannot be: see above.
    let _ = acks.try_send(group);
}

/// One part of a batch's delivery.
#[derive(Debug)]
pub struct Ticket {
    /// `None` once it is done.
    pending: Option<Arc<Pending>>,
}

impl Ticket {
    /// The only part, so far, of batch `seq` of `slot`.
    pub fn new(slot: Slot, seq: u64, bytes: usize, acks: Sender<Vec<Ack>>) -> Self {
        let ack = Ack { slot, seq, bytes, ok: false };
        Self { pending: Some(Arc::new(Pending { ack, failed: AtomicBool::new(false), acks: Some(acks) })) }
    }

    /// Another part: the batch is delivered when both are done.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { pending: self.pending.clone() }
    }

    /// This part is delivered.
    pub fn done(self) {
        Self::all_done([self]);
    }

    /// These parts are delivered; one message for each run of tickets of the same consumer.
    pub fn all_done(tickets: impl IntoIterator<Item = Self>) {
        let mut group: Option<(Sender<Vec<Ack>>, Vec<Ack>)> = None;
        for mut ticket in tickets {
            // Of the parts that end at the same time, exactly one is the last.
            let last = ticket.pending.take().and_then(Arc::into_inner);
            let Some((acks, ack)) = last.and_then(|mut last| last.end()) else {
                continue;
            };
            match &mut group {
                Some((to, list)) if to.same_channel(&acks) => list.push(ack),
                _ => {
                    if let Some((to, list)) = group.replace((acks, vec![ack])) {
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
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    #[test]
    fn the_last_part_acknowledges_once() {
        let (tx, rx) = bounded(1);
        let first = Ticket::new(Slot(7), 3, 10, tx);
        let second = first.share();
        first.done();
        assert!(rx.try_recv().is_err());
        second.done();
        assert_eq!(rx.try_recv().ok(), Some(vec![Ack { slot: Slot(7), seq: 3, bytes: 10, ok: true }]));
        assert!(rx.try_recv().is_err());
    }

    #[test]
    fn one_part_dropped_undone_fails_the_batch() {
        let (tx, rx) = bounded(1);
        let first = Ticket::new(Slot(7), 3, 10, tx);
        let second = first.share();
        drop(first);
        second.done();
        assert_eq!(rx.try_recv().map(|acks| acks[0].ok).ok(), Some(false));
    }

    #[test]
    fn tickets_that_end_together_are_one_message_a_consumer() {
        let (one, from_one) = bounded(4);
        let (two, from_two) = bounded(4);
        let ticket = |seq, acks: &Sender<Vec<Ack>>| Ticket::new(Slot(7), seq, 10, acks.clone());
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
