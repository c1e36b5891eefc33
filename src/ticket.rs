//! Tickets: who is still busy with a batch.
//!
//! A batch travels with a ticket. `share` makes another part of it (a second sink, a key lane, a
//! dead letter); the reference count is the counter of parts. When the last part is gone, one
//! [`Ack`] goes to the consumer: good if every part said `done`, failed if one was dropped without.
//!
//! Invariants: a ticket acknowledges exactly once; dropping one never blocks, because the ack
//! channel holds as many acks as the consumer may have batches in flight.

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
    acks: Sender<Ack>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.ack.ok = !*self.failed.get_mut();
        // A consumer that is gone has no use for it, and a full channel cannot be: see above.
        let _ = self.acks.try_send(self.ack);
    }
}

/// One part of a batch's delivery.
#[derive(Debug)]
pub struct Ticket {
    pending: Arc<Pending>,
    done: bool,
}

impl Ticket {
    /// The only part, so far, of batch `seq` of `slot`.
    pub fn new(slot: Slot, seq: u64, bytes: usize, acks: Sender<Ack>) -> Self {
        let ack = Ack { slot, seq, bytes, ok: false };
        Self { pending: Arc::new(Pending { ack, failed: AtomicBool::new(false), acks }), done: false }
    }

    /// Another part: the batch is delivered when both are done.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { pending: Arc::clone(&self.pending), done: false }
    }

    /// This part is delivered.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            // Release pairs with the exclusive access in `Pending::drop`, which the Arc orders.
            self.pending.failed.store(true, Ordering::Release);
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
        assert_eq!(rx.try_recv().ok(), Some(Ack { slot: Slot(7), seq: 3, bytes: 10, ok: true }));
        assert!(rx.try_recv().is_err());
    }

    #[test]
    fn one_part_dropped_undone_fails_the_batch() {
        let (tx, rx) = bounded(1);
        let first = Ticket::new(Slot(7), 3, 10, tx);
        let second = first.share();
        drop(first);
        second.done();
        assert_eq!(rx.try_recv().map(|ack| ack.ok).ok(), Some(false));
    }
}
