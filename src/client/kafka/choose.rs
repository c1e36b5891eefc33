//! What to ask a broker next: one question of one partition, or one fetch for all the others.
//!
//! Touches no link. What always holds: neither kind of question waits for the other longer than one
//! call takes; memory for an answer is set aside before it is asked for.

use super::fetch::{Asked, AskedPart};
use super::partition::Step;
use super::*;

/// Less than this is not worth a request while more memory is about to come back.
const SMALLEST: usize = 16 << 10;

impl KafkaClient {
    /// What to ask `broker` next. Questions that concern one partition alone, and the common fetch of
    /// all others, go by turns: neither waits for the other longer than one call takes.
    pub(super) fn choose(
        &mut self,
        broker: &str,
        free: &mut usize,
        all_free: bool,
        room: Room,
        now: Instant,
    ) -> Option<Asked> {
        let own_first = !self.data.get(broker)?.last_was_own;
        let asked = if own_first {
            self.choose_own(broker, *free, all_free, room, now)
                .or_else(|| self.choose_common(broker, *free, all_free, now))
        } else {
            self.choose_common(broker, *free, all_free, now)
                .or_else(|| self.choose_own(broker, *free, all_free, room, now))
        };
        if let Some(Asked::Records(parts)) = &asked {
            *free = free.saturating_sub(parts.iter().map(|part| part.reserved).sum());
        }
        asked
    }

    /// The partitions of `broker` that may be asked now, beginning with the one whose turn it is: their
    /// places in the list, and their positions.
    fn due(&self, broker: &str, now: Instant) -> Vec<(usize, Offset)> {
        let Some(data) = self.data.get(broker) else { return Vec::new() };
        let count = self.parts.len();
        let places = (0..count).map(|i| (data.turn + i) % count);
        places
            .filter_map(|index| {
                let part = &self.parts[index];
                let due = part.leader.as_deref() == Some(broker) && part.not_before.is_none_or(|at| at <= now);
                Some((index, part.position.filter(|_| due)?))
            })
            .collect()
    }

    fn choose_own(&mut self, broker: &str, free: usize, all_free: bool, room: Room, now: Instant) -> Option<Asked> {
        for (index, position) in self.due(broker, now) {
            let part = &self.parts[index];
            let mut asked = AskedPart { name: part.name.clone(), epoch: part.epoch, position, bytes: 0, reserved: 0 };
            let own = match part.step {
                // Questions without records need no memory; but a consumer that can take nothing
                // is not helped by their answers either.
                Step::Bounds if room.bytes > 0 => Asked::Bounds(asked),
                Step::Header(_) if room.bytes > 0 => Asked::Header(asked),
                Step::Exact { size, .. } if free >= size || all_free => {
                    asked.bytes = size;
                    asked.reserved = size;
                    Asked::Records(vec![asked])
                }
                Step::Fetch if part.alone > 0 => {
                    let Some(bytes) = affordable(part, part.size.ask(), free, all_free) else { continue };
                    asked.bytes = bytes;
                    asked.reserved = reserve(part, bytes);
                    Asked::Records(vec![asked])
                }
                _ => continue,
            };
            let data = self.data.get_mut(broker)?;
            data.turn = index + 1;
            data.last_was_own = true;
            return Some(own);
        }
        None
    }

    fn choose_common(&mut self, broker: &str, free: usize, all_free: bool, now: Instant) -> Option<Asked> {
        let mut common = Vec::new();
        let (mut left, mut bytes_left) = (free, self.settings.max_bytes);
        let mut first = None;
        for (index, position) in self.due(broker, now) {
            let part = &self.parts[index];
            if part.step != Step::Fetch || part.alone > 0 {
                continue;
            }
            let Some(bytes) = affordable(part, part.size.ask().min(bytes_left), left, all_free) else { continue };
            let reserved = reserve(part, bytes);
            left = left.saturating_sub(reserved);
            bytes_left -= bytes;
            first.get_or_insert(index);
            common.push(AskedPart { name: part.name.clone(), epoch: part.epoch, position, bytes, reserved });
        }
        let data = self.data.get_mut(broker)?;
        // The next round begins one further on, so that each has its turn at being the first.
        data.turn = first? + 1;
        data.last_was_own = false;
        Some(Asked::Records(common))
    }

    /// Whether a partition of `broker` waits with a question of its own, or is asked one that has to be
    /// answered at once.
    pub(super) fn is_pressed(&self, broker: &str, now: Instant) -> bool {
        let pressed = |part: &Partition| {
            part.leader.as_deref() == Some(broker)
                && part.position.is_some()
                && part.step != Step::Fetch
                && part.not_before.is_none_or(|at| at <= now)
        };
        self.parts.iter().any(pressed)
    }
}

/// How many of the bytes that are wanted fit into the memory that is left; `None` if that is not worth
/// a request, because more is about to come back.
fn affordable(part: &Partition, want: usize, free: usize, all_free: bool) -> Option<usize> {
    let bytes = want.min((free as f64 / part.expansion) as usize);
    (bytes > 0 && (bytes >= want.min(SMALLEST) || all_free)).then_some(bytes)
}

/// Memory to set aside for an answer of so many bytes.
fn reserve(part: &Partition, bytes: usize) -> usize {
    (bytes as f64 * part.expansion) as usize
}
