//! One partition of this client: its position, and the proof of every step it takes.
//!
//! Pure but for the time it is given. Invariants:
//! - the position moves by spans only, and each offset of a span is in its records or was proved
//!   not to exist: by an answer that begins at the position, by a batch header, or by an answer
//!   that holds exactly the one batch at the position;
//! - an answer that begins behind the position is a suspicion, not a proof. It is kept until the
//!   offsets before it are proved to be absent, or read.

use std::time::{Duration, Instant};

use super::answer::Run;
use super::fault::{in_transaction, unreadable};
use super::fetch_size::FetchSize;
use crate::backoff::Backoff;
use crate::client::reader::{FIRST_PARTITION_RETRY, LONGEST_RETRY, PartState, slow_retry};
use crate::client::{Bounds, Event, Fault};
use crate::record::{Offset, Records, Span, TopicPartition};
use crate::wire::{Batch, Codec};

/// What passes by itself is a trouble to be told when it has lasted for so long; less is a leader that moves.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// An answer that says nothing of a partition is common under a quota, and soon followed by one that does.
/// After so long it is a trouble to be told.
const TELL_UNANSWERED: Duration = Duration::from_secs(30);

/// Good answers after which a partition is asked together with others again.
const ALONE_FOR: u32 = 32;

/// What to ask the broker next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Records, with the others of this broker.
    Fetch,
    /// The header of the batch at the position.
    Header(Why),
    /// Exactly the batch at the position, alone: `size` bytes, up to offset `last`, for which
    /// `memory` bytes are to be set aside. `filled`: it has a record at or behind the position for certain.
    Exact { size: usize, last: Offset, memory: usize, filled: bool },
    /// Where the log begins and ends: the broker says that the position is outside.
    Bounds,
}

/// Why a header is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing of it was delivered yet: a transaction is another library's.
    First,
    /// An answer did not begin at the position.
    Suspicion,
    /// The fetch size does not fit the data.
    Size,
    /// The answer could not be decoded, for this reason or another.
    Undecodable,
}

/// See the module's text.
pub(super) struct Partition {
    pub(super) name: TopicPartition,
    /// The address of its leader, as the last metadata had it.
    pub(super) leader: Option<String>,
    pub(super) position: Option<Offset>,
    /// Rises with each seek: what was asked before it is not for this position.
    pub(super) epoch: u64,
    pub(super) step: Step,
    pub(super) size: FetchSize,
    /// Nothing is asked before then.
    pub(super) not_before: Option<Instant>,
    /// To be asked without others for so many more answers: one with it could not be decoded.
    pub(super) alone: u32,
    /// How much memory an answer takes, as a multiple of the bytes asked for.
    pub(super) expansion: f64,
    held: Option<Run>,
    log_end: Option<Offset>,
    failing: Option<Fault>,
    /// Since when it fails, told or not.
    failing_since: Option<Instant>,
    /// Since when answers have said nothing of it.
    unanswered: Option<Instant>,
    backoff: Backoff,
    told_transactions: bool,
    /// Another library takes over what was written in transactions.
    may_hand_over: bool,
    /// The first batch was looked at since the last seek.
    looked: bool,
}

impl Partition {
    pub(super) fn new(name: TopicPartition, limit: usize, may_hand_over: bool) -> Self {
        Self {
            name,
            leader: None,
            position: None,
            epoch: 0,
            step: Step::Fetch,
            size: FetchSize::new(limit),
            not_before: None,
            alone: 0,
            expansion: 2.0,
            held: None,
            log_end: None,
            failing: None,
            failing_since: None,
            unanswered: None,
            backoff: Backoff::new(FIRST_PARTITION_RETRY, LONGEST_RETRY),
            told_transactions: false,
            may_hand_over,
            looked: false,
        }
    }

    /// Starts at `to`; whatever was known of another place is forgotten.
    pub(super) fn seek(&mut self, to: Option<Offset>) {
        self.position = to;
        self.epoch += 1;
        self.step = Step::Fetch;
        self.not_before = None;
        self.held = None;
        self.unanswered = None;
        self.looked = false;
    }

    /// How it stands with it.
    pub(super) fn state(&self) -> PartState {
        PartState {
            position: self.position,
            was_read: self.epoch > 0,
            is_failing: self.failing_since.is_some(),
            is_told_failing: self.failing.is_some(),
        }
    }

    /// Bytes of memory that an answer holds which is not proved yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |run| run.bytes)
    }

    /// An answer without error: its records from the position on, and the high watermark.
    pub(super) fn answered(
        &mut self,
        asked: usize,
        run: Option<Run>,
        high_watermark: Option<Offset>,
        now: Instant,
        events: &mut impl Extend<Event>,
    ) {
        let Some(position) = self.position else { return };
        self.log_end = high_watermark;
        let exact = match self.step {
            Step::Exact { size, last, filled, .. } => Some((size, last, filled)),
            _ => None,
        };
        match run {
            Some(run) if self.may_hand_over && !self.looked => {
                self.held = Some(run);
                self.step = Step::Header(Why::First);
            }
            Some(run) if run.first == position || exact.is_some() => {
                let begins_held = self.held.as_ref().is_some_and(|held| held.first == run.first);
                let run = if begins_held { self.held.take().unwrap_or(run) } else { run };
                self.deliver(run, asked, events);
            }
            Some(run) => {
                self.held = Some(run);
                self.step = Step::Header(Why::Suspicion);
            }
            // Nothing there yet, as far as consumers may read.
            None if high_watermark.is_none_or(|end| end <= position) => {
                self.size.answered(asked, 0, false);
                self.step = Step::Fetch;
                self.well(events);
            }
            None => match exact {
                // The broker cut it off: an answer may be no longer than its own setting.
                Some((size, _, true)) => self.fail(Fault::Cut { offset: position, size }, now, events),
                // The batch was in the answer, whole and alone, and nothing of it is left from here on.
                Some((_, last, _)) if last >= position => self.advance(last.next(), events),
                _ => self.step = Step::Header(Why::Suspicion),
            },
        }
    }

    /// The header of the batch at or behind the position. `limits`: what a fetch may ask for, each
    /// with the setting that says so.
    pub(super) fn header(
        &mut self,
        batch: &Batch,
        limits: &[(usize, &'static str)],
        now: Instant,
        events: &mut impl Extend<Event>,
    ) {
        let Some(position) = self.position else { return };
        let why = match self.step {
            Step::Header(why) => why,
            _ => Why::Suspicion,
        };
        // Before magic 2 a compressed batch bears the offset of its last record, and a plain one that
        // of its only record: so it ends there, and where it begins only its records tell.
        let last = batch.details.map_or(batch.base, |details| details.last);
        let begins_behind = batch.details.is_some() && batch.base > position;
        let control = batch.details.is_some_and(|details| details.control);
        let codec = batch.details.map_or(Codec::None, |details| details.codec);
        let transactional = batch.details.is_some_and(|details| details.transactional);
        self.looked |= last >= position;
        if last < position {
            // An answer to something else, or a log that was cut meanwhile: no proof of anything.
            self.retry(now);
        } else if self.may_hand_over && transactional {
            self.fail(in_transaction(position, last), now, events);
        } else if begins_behind {
            self.advance(batch.base, events);
        } else if control {
            self.tell_transactions();
            self.advance(last.next(), events);
        } else if let Some(fault) = unreadable(codec, position, Some(last)) {
            self.fail(fault, now, events);
        } else if let Some(&(limit, setting)) = limits.iter().find(|(limit, _)| batch.size > *limit) {
            self.fail(Fault::TooLarge { offset: position, size: batch.size, limit, setting }, now, events);
        } else {
            self.size.header(batch.size, codec != Codec::None);
            let whole = self.held.take_if(|run| why == Why::First && run.first == position);
            if let Some(run) = whole {
                return self.deliver(run, self.size.ask(), events);
            }
            self.step = match why {
                Why::Size | Why::First => Step::Fetch,
                Why::Suspicion | Why::Undecodable => {
                    // A compressed one is taken to expand as those before it did.
                    let expansion = if codec == Codec::None { 1.0 } else { self.expansion };
                    let memory = (batch.size as f64 * expansion) as usize;
                    // Of a batch that begins before the position what is left may have been compacted away.
                    let filled = batch.details.is_none_or(|d| d.count > 0 && batch.base == position);
                    Step::Exact { size: batch.size, last, memory, filled }
                }
            };
        }
    }

    /// Every transaction ends with a control batch, so each is noticed by it.
    fn tell_transactions(&mut self) {
        if !std::mem::replace(&mut self.told_transactions, true) {
            log::warn!(
                "topic has transactions {} meaning=\"this client delivers the records of aborted ones too\"",
                self.name
            );
        }
    }

    /// The answer that held this partition, and perhaps others, could not be decoded; the crate does
    /// not say whose fault it was. Asked alone, then batch by batch, it comes out.
    pub(super) fn undecodable(&mut self, now: Instant, events: &mut impl Extend<Event>) {
        match (self.step, self.position) {
            (Step::Exact { .. }, Some(offset)) => self.fail(Fault::Corrupt { offset }, now, events),
            _ if self.alone > 0 => self.step = Step::Header(Why::Undecodable),
            _ => {}
        }
        self.alone = ALONE_FOR;
        self.size.shrink();
    }

    /// The log's bounds, after the broker had said that the position is outside.
    pub(super) fn bounds(&mut self, bounds: Bounds, now: Instant, events: &mut impl Extend<Event>) {
        let Some(position) = self.position else { return };
        self.step = Step::Fetch;
        if bounds.contain(position) {
            self.retry(now);
        } else {
            let event = Event::OutOfRange { partition: self.name.clone(), at: position, bounds };
            self.seek(None);
            events.extend([event]);
        }
    }

    /// The partition can't be read at present; it is tried again after a while that fits the fault.
    pub(super) fn fail(&mut self, fault: Fault, now: Instant, events: &mut impl Extend<Event>) {
        use crate::client::Retry;
        let since = *self.failing_since.get_or_insert(now);
        let (wait, tell) = match fault.retry() {
            Retry::Soon => {
                // One reason follows the other while a leader is sought: told is the first.
                let told = self.failing.as_ref().is_some_and(|told| told.retry() == Retry::Soon);
                (self.backoff.next_wait(), !told && now.saturating_duration_since(since) >= TELL_AFTER)
            }
            Retry::Slowly | Retry::Never => {
                self.step = Step::Header(Why::Suspicion);
                (slow_retry(&fault), self.failing.as_ref() != Some(&fault))
            }
        };
        self.not_before = Some(now + wait);
        if tell {
            self.failing = Some(fault.clone());
            events.extend([Event::Failing(self.name.clone(), fault)]);
        }
    }

    /// Not an answer: ask the same again, a little later.
    pub(super) fn retry(&mut self, now: Instant) {
        self.not_before = Some(now + self.backoff.next_wait());
    }

    /// An answer came that says nothing of this partition. That proves nothing; ask again.
    pub(super) fn unanswered(&mut self, now: Instant, events: &mut impl Extend<Event>) {
        let since = *self.unanswered.get_or_insert(now);
        let unanswered = now.saturating_duration_since(since);
        self.retry(now);
        if unanswered >= TELL_UNANSWERED && self.failing.is_none() {
            let fault = Fault::Unanswered { for_ms: u64::try_from(unanswered.as_millis()).unwrap_or(u64::MAX) };
            self.failing = Some(fault.clone());
            events.extend([Event::Failing(self.name.clone(), fault)]);
        }
    }

    fn deliver(&mut self, run: Run, asked: usize, events: &mut impl Extend<Event>) {
        let Some(position) = self.position else { return };
        let end = run.last.next();
        let more = self.log_end.is_some_and(|log_end| log_end > end);
        let ratio = run.bytes as f64 / asked.max(1) as f64;
        self.expansion = ratio.max(self.expansion * 0.9).max(1.0);
        let look = self.size.answered(asked, run.used, more);
        self.step = if look { Step::Header(Why::Size) } else { Step::Fetch };
        self.held = None;
        // What the reserve has lent is no part of the consumer's share.
        self.moved(position, end, run.records, run.bytes - run.lent, events);
    }

    /// Everything from the position to `to` is proved to be absent.
    fn advance(&mut self, to: Offset, events: &mut impl Extend<Event>) {
        let Some(position) = self.position else { return };
        self.moved(position, to, Records::none(), 0, events);
        match self.held.take() {
            Some(run) if run.first == to => self.deliver(run, self.size.ask(), events),
            Some(run) if run.first > to => {
                self.held = Some(run);
                self.step = Step::Header(Why::Suspicion);
            }
            _ => self.step = Step::Fetch,
        }
    }

    fn moved(&mut self, from: Offset, to: Offset, records: Records, bytes: usize, events: &mut impl Extend<Event>) {
        self.position = Some(to);
        self.well(events);
        let partition = self.name.clone();
        events.extend([Event::Span(Span { partition, offsets: from..to, records, bytes, log_end: self.log_end })]);
    }

    fn well(&mut self, events: &mut impl Extend<Event>) {
        self.failing_since = None;
        self.unanswered = None;
        self.alone = self.alone.saturating_sub(1);
        self.not_before = None;
        self.backoff.reset();
        if self.failing.take().is_some() {
            events.extend([Event::Recovered(self.name.clone())]);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_say_nothing_for_long_are_a_trouble_and_an_answer_ends_it() {
        let mut part = Partition::new(TopicPartition::new("t", 0), 1 << 20, false);
        part.seek(Some(Offset::default()));
        let (start, mut events) = (Instant::now(), Vec::new());
        for seconds in [0, 10, 29] {
            part.unanswered(start + Duration::from_secs(seconds), &mut events);
        }
        assert!(events.is_empty(), "a quota does so for a while: {events:?}");
        for seconds in [30, 31] {
            part.unanswered(start + Duration::from_secs(seconds), &mut events);
        }
        assert!(matches!(&events[..], [Event::Failing(_, Fault::Unanswered { for_ms: 30_000 })]), "{events:?}");
        part.answered(100, None, Some(Offset::default()), Instant::now(), &mut events);
        assert!(matches!(&events[..], [_, Event::Recovered(_)]), "{events:?}");
    }
}
