//! Taking records out of librdkafka's queues, as far as there is room for them.
//!
//! One batch a poll, of the partition whose turn it is: so the room that the next one may use is known, and no
//! partition waits for another longer than one batch takes.

use super::*;
use crate::client::librdkafka::batch::{Batch, payload};
use crate::client::librdkafka::context::End;
use crate::client::librdkafka::partition::Pending;
use crate::client::librdkafka::properties::MESSAGE;

/// Bytes of a batch. Larger ones bring nothing, and stay as a whole until their last record is done.
const BATCH_BYTES: usize = 2 << 20;
/// Records of a batch.
const BATCH_RECORDS: usize = 2_048;

/// What came out of a partition's queue.
enum Found {
    /// Nothing is left.
    Empty,
    /// The batch, or the memory, is full.
    Full,
    /// librdkafka told the end.
    Ended(Option<End>),
    /// An error, after which nothing is believed.
    Failed(Code, String),
}

impl LibrdkafkaReader {
    /// See the module's text.
    pub(super) fn take(&mut self, room: Room, now: Instant) {
        let queued = queued_bytes(&self.told.events);
        let waiting: usize =
            self.parts.iter().filter_map(|part| part.pending.as_ref()).map(|pending| pending.batch.memory()).sum();
        let own = properties::taken(&self.settings).saturating_sub(self.taken.bytes());
        let free = room.bytes.saturating_sub(queued + waiting);
        self.take_pending(room.bytes.saturating_sub(queued), now);
        let mut free = free.min(own);
        for _ in 0..self.parts.len() {
            if free == 0 || queued > 0 {
                return;
            }
            self.turn = (self.turn + 1) % self.parts.len().max(1);
            let taken = self.take_from(self.turn, free, now);
            free = free.saturating_sub(taken);
            if taken > 0 {
                // There may be more, here or elsewhere.
                self.more = true;
                return;
            }
        }
    }

    /// Takes a batch of one partition. Returns its bytes.
    fn take_from(&mut self, index: usize, free: usize, now: Instant) -> usize {
        let Some(part) = self.parts.get_mut(index) else { return 0 };
        let (Step::Run | Step::Ask(Question::Batch { fault: None }), Some(position), None) =
            (&part.step, part.position, &part.pending)
        else {
            return 0;
        };
        let (Some(queue), Some(session)) = (&part.queue, &self.session) else { return 0 };
        let limit = BATCH_BYTES.min(free);
        let mut pending = None;
        let mut found = Found::Full;
        let mut expected = position;
        let back = self.done.0.clone();
        let batch = Batch::new(Arc::clone(queue), session.tether(), part.usual, back, |queue, messages| {
            let mut bytes = 0;
            found = loop {
                if messages.len() >= BATCH_RECORDS || bytes + messages.len() * MESSAGE >= limit {
                    break Found::Full;
                }
                match queue.poll(Duration::ZERO) {
                    None => break Found::Empty,
                    Some(Ok(message)) => {
                        let Some(offset) = Offset::new(message.offset()).filter(|offset| *offset >= expected) else {
                            continue;
                        };
                        expected = offset.next();
                        if bytes + payload(&message) + (messages.len() + 1) * MESSAGE > free {
                            // It has left librdkafka's queue, so it waits by itself until there is room for it.
                            pending = Some(Pending { batch: Batch::copied(&message) });
                            break Found::Full;
                        }
                        bytes += payload(&message);
                        messages.push(message);
                    }
                    Some(Err(error)) => {
                        let told = session.notebook.last_error();
                        let text = told.map(|trouble| trouble.text).unwrap_or_default();
                        break match error {
                            KafkaError::PartitionEOF(_) => Found::Ended(End::parse(&text)),
                            error => Found::Failed(error.rdkafka_error_code().unwrap_or(Code::Unknown), text),
                        };
                    }
                }
            };
            bytes
        });
        part.usual = batch.len();
        part.pending = pending;
        let taken = self.deliver(index, batch, None);
        match found {
            Found::Empty | Found::Full => {}
            Found::Ended(Some(End { at, log_end })) => {
                if let Some(part) = self.parts.get_mut(index) {
                    part.ended(at, log_end, &mut self.told.events);
                }
                self.more = true;
            }
            Found::Ended(None) => {
                log::debug!("an end of a partition that is not understood consumer={}", self.name);
                self.more = true;
            }
            Found::Failed(code, text) => self.partition_trouble(index, code, &text, now),
        }
        taken
    }

    /// Gives a batch on. Returns its bytes.
    fn deliver(&mut self, index: usize, mut batch: Batch, loan: Option<crate::memory::Loan>) -> usize {
        let (Some(part), Some(last)) = (self.parts.get_mut(index), batch.last()) else { return 0 };
        let count = batch.len();
        let bytes = batch.count(vec![self.taken.answer(), self.held.answer()], loan);
        part.deliver(Records::new(Arc::new(batch), 0..count), last, bytes, &mut self.told.events);
        bytes.max(1)
    }

    /// Gives on a record that has waited for room: within the share when enough of it is free, else with the
    /// reserve.
    fn take_pending(&mut self, free: usize, now: Instant) {
        let share = self.settings.memory;
        let mut wants_loan = false;
        for index in 0..self.parts.len() {
            let Some(Pending { batch }) = self.parts.get(index).and_then(|part| part.pending.as_ref()) else {
                continue;
            };
            let memory = batch.memory();
            let own = properties::taken(&self.settings);
            let loan = if memory <= own {
                if memory > free || memory > own.saturating_sub(self.taken.bytes()) {
                    continue;
                }
                None
            } else if free == 0 || free < share / 2 {
                // Who can't use it leaves it to others.
                continue;
            } else {
                wants_loan = true;
                let line_up = || self.settings.reserve.line_up(&self.name, self.ready.clone());
                match self.place.take().unwrap_or_else(line_up).take(now) {
                    Ok(loan) => Some(loan),
                    Err(place) => {
                        self.place = Some(place);
                        continue;
                    }
                }
            };
            let Some(pending) = self.parts.get_mut(index).and_then(|part| part.pending.take()) else { continue };
            self.deliver(index, pending.batch, loan);
            self.more = true;
            return;
        }
        if !wants_loan {
            self.place = None;
        }
    }
}
