//! What to ask a broker next: one question of one partition, or one fetch for all the others.
//!
//! Touches no link. What always holds: neither kind of question waits for the other longer than one
//! call takes; memory for an answer is set aside before it is asked for.

use super::fetch::{Asked, AskedPart, DataLink};
use super::partition::Step;
use super::*;
use crate::memory::{Loan, LongLoan};

/// Less than this is not worth a request while more memory is about to come back.
const SMALLEST: usize = 16 << 10;
/// How long a broker may hold a fetch while another partition waits for memory, which may come at any
/// time: so that it is used then, and nobody asks without a pause. Shorter than
/// [`LOOK_AGAIN`](crate::memory::LOOK_AGAIN).
const SHORT_OF_MEMORY: Duration = Duration::from_millis(200);

impl KafkaReader {
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
        let data = self.data.get(broker)?;
        if data.hung {
            return self.probe(broker, now);
        }
        let own_first = !data.last_was_own;
        let asked = if own_first {
            self.choose_own(broker, *free, all_free, room, now)
                .or_else(|| self.choose_common(broker, *free, all_free, now))
        } else {
            self.choose_common(broker, *free, all_free, now)
                .or_else(|| self.choose_own(broker, *free, all_free, room, now))
        };
        if let Some(Asked::Records { parts, .. }) = &asked {
            *free = free.saturating_sub(parts.iter().map(|part| part.reserved).sum());
        }
        asked
    }

    /// A question over the wire socket, which ends by itself if the broker still hangs; a fetch of the crate's
    /// would hold its thread for two minutes.
    fn probe(&mut self, broker: &str, now: Instant) -> Option<Asked> {
        let (index, position) = self.due(broker, now).into_iter().next()?;
        let part = &self.parts[index];
        let (name, epoch) = (part.name.clone(), part.epoch);
        Some(Asked::Header(AskedPart { name, epoch, position, bytes: 0, reserved: 0 }))
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
        let share = self.settings.memory;
        for (index, position) in self.due(broker, now) {
            let part = &self.parts[index];
            let mut asked = AskedPart { name: part.name.clone(), epoch: part.epoch, position, bytes: 0, reserved: 0 };
            let own = match part.step {
                // Questions without records need no memory; but a consumer that can take nothing
                // is not helped by their answers either.
                Step::Bounds if room.bytes > 0 => Asked::Bounds(asked),
                Step::Header(_) if room.bytes > 0 => Asked::Header(asked),
                Step::Exact { size, memory, .. } if free >= memory && memory <= share => {
                    asked.bytes = size;
                    asked.reserved = memory;
                    Asked::Records { parts: vec![asked], loan: None }
                }
                Step::Exact { size, memory, .. } if memory > share && may_borrow(free, share) => {
                    let Some(loan) = self.borrow(now) else { continue };
                    asked.bytes = size;
                    Asked::Records { parts: vec![asked], loan: Some(loan) }
                }
                Step::Fetch if part.alone > 0 => {
                    let Some(bytes) = affordable(part, part.size.ask(), free, all_free) else { continue };
                    asked.bytes = bytes;
                    asked.reserved = set_aside(part, bytes);
                    Asked::Records { parts: vec![asked], loan: None }
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
        if self.parts.iter().any(|part| part.leader.is_some() && is_oversized(part, self.settings.memory)) {
            // Half of the share stays free for as long as one of them needs the reserve, which is
            // not lent to a consumer that has used up more: else it might wait for ever.
            left = left.saturating_sub(self.settings.memory / 2);
        }
        let mut first = None;
        for (index, position) in self.due(broker, now) {
            let part = &self.parts[index];
            if part.step != Step::Fetch || part.alone > 0 {
                continue;
            }
            let Some(bytes) = affordable(part, part.size.ask().min(bytes_left), left, all_free) else { continue };
            let reserved = set_aside(part, bytes);
            left = left.saturating_sub(reserved);
            bytes_left -= bytes;
            first.get_or_insert(index);
            common.push(AskedPart { name: part.name.clone(), epoch: part.epoch, position, bytes, reserved });
        }
        let data = self.data.get_mut(broker)?;
        // The next round begins one further on, so that each has its turn at being the first.
        data.turn = first? + 1;
        data.last_was_own = false;
        Some(Asked::Records { parts: common, loan: None })
    }

    /// How long `broker` may hold a fetch: not at all while a partition waits with a question of its
    /// own, or is asked one, and not for long while one waits for memory.
    pub(super) fn may_wait(&self, broker: &str, free: usize, now: Instant) -> Duration {
        let longest = self.settings.max_wait;
        let of_one = |(index, _): (usize, Offset)| match self.parts[index].step {
            Step::Fetch => longest,
            Step::Exact { memory, .. } if memory > free => longest.min(SHORT_OF_MEMORY),
            Step::Exact { .. } | Step::Header(_) | Step::Bounds => Duration::ZERO,
        };
        self.due(broker, now).into_iter().map(of_one).min().unwrap_or(longest)
    }

    /// Keeps the place in line for the reserve only while somebody could make use of a loan: who has
    /// it and can't would hold up all other consumers.
    pub(super) fn stand_in_line(&mut self, free: usize, now: Instant) {
        let share = self.settings.memory;
        let Some(place) = &self.place else { return };
        if let Some(LongLoan { to, held }) = place.long_loan(now) {
            log::warn!(
                "the memory reserve is lent for long to={to} for_ms={} meaning=\"records larger than a share wait until its records are delivered; look at its sink\"",
                held.as_millis()
            );
        }
        let useful = |(broker, data): (&String, &DataLink)| {
            let wants = |(index, _): (usize, Offset)| is_oversized(&self.parts[index], share);
            data.not_before.is_none_or(|at| at <= now) && self.due(broker, now).into_iter().any(wants)
        };
        if !may_borrow(free, share) || !self.data.iter().any(useful) {
            self.place = None;
        }
    }

    /// The reserve, if it is there for this consumer; else a place in line for it.
    fn borrow(&mut self, now: Instant) -> Option<Loan> {
        let line_up = || self.settings.reserve.line_up(&self.name, self.ready.clone());
        match self.place.take().unwrap_or_else(line_up).take(now) {
            Ok(loan) => Some(loan),
            Err(place) => {
                self.place = Some(place);
                None
            }
        }
    }
}

/// Whether what the partition asks for next is larger than the consumer's share.
pub(super) fn is_oversized(part: &Partition, share: usize) -> bool {
    matches!(part.step, Step::Exact { memory, .. } if memory > share)
}

/// Whether a consumer with so much of its share free may have a loan. One whose sink is slow would
/// keep it from all others.
fn may_borrow(free: usize, share: usize) -> bool {
    free > 0 && free >= share / 2
}

/// How many of the bytes that are wanted fit into the memory that is left; `None` if that is not worth
/// a request, because more is about to come back.
fn affordable(part: &Partition, want: usize, free: usize, all_free: bool) -> Option<usize> {
    let bytes = want.min((free as f64 / part.expansion) as usize);
    (bytes > 0 && (bytes >= want.min(SMALLEST) || all_free)).then_some(bytes)
}

/// Memory to set aside for an answer of so many bytes.
fn set_aside(part: &Partition, bytes: usize) -> usize {
    (bytes as f64 * part.expansion) as usize
}
