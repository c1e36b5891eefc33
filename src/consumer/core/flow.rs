//! What flows through: spans in, batches out as far as the budget goes, acks back.

use super::*;

impl Core {
    pub(super) fn span(&mut self, span: Span) {
        let Some(&part) = self.index.get(&span.partition) else { return };
        let Place::Reading(tracker) = &self.parts[part].place else { return };
        if self.parts[part].revoked.is_some() {
            return;
        }
        self.bytes_in_flight += span.bytes;
        self.waiting.push_back(Waiting {
            part,
            slot: tracker.slot(),
            offsets: span.offsets,
            records: span.records,
            bytes: span.bytes,
        });
    }

    /// Cuts what is waiting into batches, as far as the budget of batches goes.
    pub(super) fn hand_over(&mut self, out: &mut Vec<Output>) {
        while let Some(front) = self.waiting.front_mut() {
            let part = &mut self.parts[front.part];
            let Place::Reading(tracker) = &mut part.place else {
                unreachable!("a slot's end takes what waits with it")
            };
            if front.records.is_empty() {
                tracker.pass(&front.offsets);
                self.bytes_in_flight -= front.bytes;
                self.dirty = true;
                self.waiting.pop_front();
                continue;
            }
            if self.batches_in_flight >= self.settings.batches {
                return;
            }
            let quota = self.topics.get(&part.partition.topic).map_or(1, |t| t.policy.max_poll_records.max(1));
            let count = quota.min(front.records.len());
            // What lies between two batches belongs to the first, so the ranges stay adjacent.
            let end = front.records.get(count).map_or(front.offsets.end, |next| next.offset);
            let bytes = if count == front.records.len() {
                front.bytes
            } else {
                (front.bytes as u128 * count as u128 / front.records.len() as u128) as usize
            };
            let records = front.records.slice(0..count);
            let seq = tracker.deliver(&(front.offsets.start..end), count as u64);
            self.batches_in_flight += 1;
            out.push(Output::Deliver(Delivery {
                partition: part.partition.clone(),
                records,
                slot: front.slot,
                seq,
                bytes,
            }));
            if count == front.records.len() {
                self.waiting.pop_front();
            } else {
                front.offsets.start = end;
                front.records = front.records.skip(count);
                front.bytes -= bytes;
            }
        }
    }

    /// One of a slot that has ended means nothing.
    pub(super) fn mark(&mut self, mark: Mark, out: &mut Vec<Output>) {
        let Some(&index) = self.slots.get(&mark.slot) else { return };
        let Place::Reading(tracker) = &mut self.parts[index].place else { return };
        let before = tracker.acknowledged();
        self.schedule.done(tracker.mark(mark.seq, mark.below, mark.records));
        self.dirty |= tracker.acknowledged() != before;
        self.leave_if_due(index, out);
    }

    pub(super) fn ack(&mut self, ack: Ack, out: &mut Vec<Output>) {
        self.batches_in_flight -= 1;
        self.bytes_in_flight -= ack.bytes;
        // An ack of a slot that has ended gives back its budget and means nothing else.
        let Some(&index) = self.slots.get(&ack.slot) else { return };
        let Place::Reading(tracker) = &mut self.parts[index].place else { return };
        if ack.ok {
            let before = tracker.acknowledged();
            self.schedule.done(tracker.ack(ack.seq));
            self.dirty |= tracker.acknowledged() != before;
            self.leave_if_due(index, out);
        } else if self.drain.is_none() {
            // Its lane gave it up without a word: all from the first undelivered record on is read again.
            let (back, committed) = (tracker.acknowledged(), tracker.committed());
            if self.parts[index].revoked.is_some() {
                // The member that has it next reads them again. It stays in flight here until the time is up.
                return;
            }
            log::warn!("a batch was not delivered, reading again {} offset={back}", self.parts[index].partition);
            self.end_slot(index);
            self.begin_slot(index, back, committed, out);
        }
    }

    /// Ends the slot of a partition, and with it all that waits in it.
    pub(super) fn end_slot(&mut self, index: usize) {
        self.forget_waiting(index);
        let part = &mut self.parts[index];
        part.leaving = None;
        if let Place::Reading(tracker) = &part.place {
            part.past.add(tracker);
            self.slots.remove(&tracker.slot());
        }
    }

    /// Drops what of a partition is not handed over yet.
    pub(super) fn forget_waiting(&mut self, index: usize) {
        if let Place::Reading(tracker) = &self.parts[index].place {
            let slot = tracker.slot();
            let bytes_in_flight = &mut self.bytes_in_flight;
            self.waiting.retain(|w| {
                if w.slot == slot {
                    *bytes_in_flight -= w.bytes;
                }
                w.slot != slot
            });
        }
    }

    pub(super) fn new_slot(&mut self) -> Slot {
        self.next_slot += 1;
        Slot(self.next_slot)
    }
}
