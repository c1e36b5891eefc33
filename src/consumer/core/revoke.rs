//! Partitions that the group gives to another member, and those that are lost.

use super::*;

impl Core {
    /// The group takes these away. What was not handed over yet is not ours to deliver any more; what is with a
    /// sink has as long as a stop would wait for it.
    pub(super) fn revoking(&mut self, partitions: &[TopicPartition], now: Instant) {
        for name in partitions {
            let Some(&index) = self.index.get(name) else { continue };
            self.forget_waiting(index);
            let part = &mut self.parts[index];
            part.leaving = None;
            part.revoked = Some(now + self.settings.drain_timeout);
        }
        self.dirty = true;
        self.schedule.hurry();
    }

    /// They are another member's already, or do not exist any more.
    pub(super) fn lost(&mut self, partitions: &[TopicPartition]) {
        for index in partitions.iter().filter_map(|p| self.index.get(p).copied()).collect::<Vec<_>>() {
            self.end_slot(index);
            // What a commit under way says of it is not about the next time that it is held.
            self.sent.retain(|(sent, ..)| *sent != index);
            let part = &mut self.parts[index];
            (part.place, part.revoked) = (Place::Gone, None);
        }
    }

    /// Those that can be let go now.
    pub(super) fn releasable(&self, now: Instant) -> Vec<TopicPartition> {
        let due = |part: &&Part| part.revoked.is_some_and(|deadline| deadline <= now || part.is_done());
        self.parts.iter().filter(due).map(|part| part.partition.clone()).collect()
    }

    /// When the first one is to be let go at the latest.
    pub(super) fn release_deadline(&self) -> Option<Instant> {
        self.parts.iter().filter_map(|part| part.revoked).min()
    }

    pub(super) fn released(&mut self, partitions: &[TopicPartition], now: Instant) {
        for name in partitions {
            let Some(&index) = self.index.get(name) else { continue };
            let part = &self.parts[index];
            if let Place::Reading(tracker) = &part.place
                && !part.is_done()
            {
                log::warn!(
                    "partition let go before it was done {name} group_id={} in_flight={} acknowledged={} committed={} \
                     after_ms={} meaning=\"what was not committed is delivered again by the member that has it now\"",
                    self.settings.group,
                    tracker.sums().in_flight,
                    tracker.acknowledged(),
                    tracker.committed().map_or_else(|| "none".to_owned(), |at| at.to_string()),
                    part.revoked.map_or(0, |deadline| {
                        let began = deadline.checked_sub(self.settings.drain_timeout).unwrap_or(deadline);
                        now.saturating_duration_since(began).as_millis()
                    })
                );
            }
            self.lost(std::slice::from_ref(name));
        }
    }
}
