//! One delivery: what was taken from the queue is written, flushed once, and what was given up is seen to.
//!
//! Owns the order of things. It takes about [`LONGEST_DELIVERY`](super::LONGEST_DELIVERY) where a sink lets it; a batch may
//! be cut for that. What always holds:
//! - what is marked as done is flushed, or said to be safe by the sink, and nothing before it was given up whose dead
//!   letter is not safe;
//! - what is given up is remembered, and not written again after a failed flush;
//! - dead letters are put behind the good flush, and before any ticket is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::item::{Item, Lost, letters, mark, unix_ms};
use super::{GivenUp, Lane};
use crate::backoff::Backoff;
use crate::failure::{LETTERS_FAIL, OnFailure, Policy};
use crate::record::{Offset, Records, TopicPartition};
use crate::sink::{Progress, Stopped, Why};
use crate::ticket::Ticket;
use crate::trouble::{Phrases, Trouble};

const STOPS: Phrases = Phrases {
    begins: "topic stopped, its records wait",
    goes_on: "topic still stopped, its records wait",
    ends: "topic goes on",
    flaps: "topic stopped again and again",
};
/// For how long a sink may be busy with one write, as far as its pace tells.
const TOGETHER: Duration = Duration::from_millis(250);
/// More at once makes nobody faster.
const MOST_TOGETHER: usize = 10_000;
/// What to do about a topic that is stopped.
const ADVICE: &str = "mend what rejects it and send SIGHUP, or set on_failure of the topic to dead_letter or drop";

/// How far an item was written.
enum Written {
    All,
    TopicStops,
    /// The time is over.
    Cut,
    /// A flush in between has failed, for this reason.
    NotFlushed(String),
}

/// What was written of a delivery, and flushed.
struct Delivered {
    /// So many items have come to their end.
    items: usize,
    /// The one behind them was cut.
    is_cut: bool,
}

/// A record that is tried.
pub(super) struct Head {
    partition: TopicPartition,
    offset: Offset,
    attempts: u32,
    since: Instant,
    first_failure: SystemTime,
    backoff: Backoff,
}

impl Head {
    fn new(partition: TopicPartition, offset: Offset, policy: &Policy) -> Self {
        let backoff = Backoff::new(policy.first, policy.longest);
        Self { partition, offset, attempts: 0, since: Instant::now(), first_failure: SystemTime::now(), backoff }
    }
}

/// A topic of which nothing is written.
pub(super) struct Halted {
    trouble: Trouble,
    why: String,
    /// What waits, in its order.
    items: VecDeque<Item>,
}

impl Halted {
    pub(super) fn wake(&self) -> Option<Instant> {
        self.trouble.wake()
    }
}

impl Lane<'_> {
    /// Writes as much of it as there is time for, flushes, and sees to what was given up. Returns the tickets of what is
    /// done, and what is left for the next delivery; comes back only with success, or at the process's end.
    pub(super) fn deliver(&mut self, mut items: Vec<Item>) -> Result<(Vec<Ticket>, Vec<Item>), GivenUp> {
        self.limit(&mut items);
        let Delivered { items: ended, is_cut } = loop {
            match self.write_all(&mut items)? {
                Ok(delivered) => break delivered,
                Err(why) => {
                    let time = self.backoff.next_wait();
                    self.wait(time, &why)?;
                    // The sink has gone back to its last good flush.
                    self.reopen_if_asked();
                }
            }
        };
        let mut rest = items.split_off(ended + usize::from(is_cut));
        // An earlier try may have come further.
        rest.iter_mut().for_each(|item| (item.until, item.limit) = (item.from, None));
        self.bury(&items)?;
        // One that is cut in the middle of its tries is not well.
        if !is_cut || self.head.is_none() {
            self.well();
        }
        let mut tickets = Vec::with_capacity(items.len());
        for mut item in items {
            if item.until == item.batch.records.len() {
                tickets.push(item.batch.ticket);
                continue;
            }
            item.lost = item.lost.split_off(&item.until);
            item.mark(item.until);
            (item.from, item.limit) = (item.until, None);
            match self.stopped.get_mut(&item.batch.partition.topic) {
                Some(stopped) => stopped.items.push_back(item),
                None => rest.insert(0, item),
            }
        }
        Ok((tickets, rest))
    }

    /// Writes until all is written or the time is over, and flushes once. What a flush has failed with is returned: then
    /// nothing of it is done.
    fn write_all(&mut self, items: &mut [Item]) -> Result<Result<Delivered, String>, GivenUp> {
        let (until, mut written, mut is_cut) = (Instant::now() + self.ends.longest, 0, false);
        self.marked = Instant::now();
        items.iter_mut().for_each(|item| item.until = item.from);
        while written < items.len() && (written == 0 || Instant::now() < until) {
            let (before, now) = items.split_at_mut(written);
            let (mut taken, why) = self.write_together(before, now);
            let some = taken > 0;
            while let Some(item) = items.get_mut(written).filter(|item| taken > 0 && item.len() <= taken) {
                (item.until, taken) = (item.batch.records.len(), taken - item.len());
                written += 1;
            }
            let (before, now) = items.split_at_mut(written);
            let Some((item, rest)) = now.split_first_mut() else { break };
            let so_far = match why {
                None if some => continue,
                None => Written::All,
                Some(why) => {
                    item.until += taken;
                    self.after(item, why, until)?
                }
            };
            // What stands alone, or what is left of the one in which it has stopped.
            let so_far = if matches!(so_far, Written::All) { self.write(before, item, until)? } else { so_far };
            match so_far {
                Written::All => {}
                Written::TopicStops => self.limit(rest),
                Written::Cut => {
                    is_cut = true;
                    break;
                }
                Written::NotFlushed(why) => return Ok(Err(why)),
            }
            written += 1;
        }
        let flushed = self.ends.busy.during(|| self.sink.flush());
        Ok(flushed.map(|()| Delivered { items: written, is_cut }))
    }

    /// Gives `records`, the next ones of `items`, to the sink. `before`: what was written in this delivery.
    fn give(&mut self, before: &[Item], items: &[Item], records: &Records) -> Result<(), Stopped> {
        let Some(first) = items.first() else { return Ok(()) };
        let (began, partition) = (Instant::now(), &first.batch.partition);
        let (name, given_up) = (self.name, &mut self.given_up);
        let mut tell = |count| {
            mark(before, items, count);
            given_up.tell(name, Instant::now());
        };
        let mut progress = Progress::new(&mut tell, self.marked);
        let result = self.ends.busy.during(|| self.sink.write_with_progress(partition, records, &mut progress));
        let said = progress.said();
        self.marked = progress.last();
        match result {
            Ok(()) => {
                self.pace(records.len(), began);
                Ok(())
            }
            Err(stopped) if stopped.done < records.len() => {
                // A wait may follow.
                if said > 0 {
                    mark(before, items, stopped.done);
                }
                Err(stopped)
            }
            // One that says it took all has taken all.
            Err(_) => Ok(()),
        }
    }

    /// Writes the first items in one call, as far as they belong to one partition and nothing is to be left out of them. How
    /// many records were taken, and why no more; 0 and nothing if there is only one such item.
    ///
    /// A sink that asks somebody else has to wait for the answers of each call. So it is given as much at once as it has
    /// lately taken in [`TOGETHER`].
    fn write_together(&mut self, before: &[Item], items: &[Item]) -> (usize, Option<Why>) {
        let Some(first) = items.first() else { return (0, None) };
        let plain = |item: &&Item| {
            item.limit.is_none() && item.lost.is_empty() && item.batch.partition == first.batch.partition
        };
        let mut count = 0;
        let fits = |item: &&Item| {
            count += item.len();
            count <= self.together
        };
        let runs: Vec<Records> =
            items.iter().take_while(plain).take_while(fits).map(|item| item.batch.records.skip(item.from)).collect();
        let Some(items) = items.get(..runs.len()).filter(|_| runs.len() > 1) else { return (0, None) };
        let records = Records::join(&runs);
        match self.give(before, items, &records) {
            Ok(()) => (records.len(), None),
            Err(stopped) => (stopped.done, Some(stopped.why)),
        }
    }

    /// So many records were taken since `began`.
    fn pace(&mut self, count: usize, began: Instant) {
        let could = count as f64 * TOGETHER.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-6);
        // No more than that doubles from write to write: one that was fast says little.
        self.together = (could as usize).clamp(1, (count * 2).clamp(1, MOST_TOGETHER));
    }

    /// Of topics that have stopped nothing is written.
    fn limit(&self, items: &mut [Item]) {
        for item in items.iter_mut().filter(|item| self.stopped.contains_key(&item.batch.partition.topic)) {
            item.limit = Some(item.from);
        }
    }

    /// Writes an item, but for what was given up, to its end or its limit.
    fn write(&mut self, before: &[Item], item: &mut Item, until: Instant) -> Result<Written, GivenUp> {
        let limit = item.limit.unwrap_or(item.batch.records.len());
        while item.until < limit {
            // Nothing behind a record that was given up can be marked before its dead letter is safe: then the delivery has
            // to end in time, even if the sink is slow and this batch is long.
            let has_lost = before.iter().chain([&*item]).any(|item| !item.lost.is_empty());
            let most = if has_lost { item.until.saturating_add(self.together).min(limit) } else { limit };
            let end = item.lost.range(item.until..most).next().map_or(most, |(index, _)| *index);
            if end == item.until {
                item.until += 1;
                continue;
            }
            let records = item.batch.records.slice(item.until..end);
            match self.give(before, std::slice::from_ref(item), &records) {
                Ok(()) => {
                    item.until = end;
                    if has_lost && item.until < limit && Instant::now() >= until {
                        return Ok(Written::Cut);
                    }
                }
                Err(Stopped { done, why }) => {
                    item.until += done;
                    let so_far = self.after(item, why, until)?;
                    if !matches!(so_far, Written::All) {
                        return Ok(so_far);
                    }
                }
            }
        }
        Ok(Written::All)
    }

    /// The item's next record was not taken. `All`: it is gone on with.
    fn after(&mut self, item: &mut Item, why: Why, until: Instant) -> Result<Written, GivenUp> {
        if !self.goes_on(item, why)? {
            item.limit = Some(item.until);
            return Ok(Written::TopicStops);
        }
        if self.asked_to_reopen {
            if let Err(why) = self.ends.busy.during(|| self.sink.flush()) {
                return Ok(Written::NotFlushed(why));
            }
            self.reopen_if_asked();
        }
        Ok(if Instant::now() < until { Written::All } else { Written::Cut })
    }

    /// The item's next record was not taken. `false`: its topic stops.
    fn goes_on(&mut self, item: &mut Item, why: Why) -> Result<bool, GivenUp> {
        let (partition, offset) = (item.batch.partition.clone(), item.offset(item.until));
        let policy = self.ends.failures.policy(&partition.topic);
        let same = |head: &Head| head.offset == offset && head.partition == partition;
        let mut head = self.head.take().filter(same).unwrap_or_else(|| Head::new(partition, offset, &policy));
        head.attempts = head.attempts.saturating_add(1);
        let elapsed = head.since.elapsed();
        let (why, least) = match why {
            Why::Retry(why) => (why, Some(Duration::ZERO)),
            Why::RetryAfter(why, least) => (why, Some(least)),
            Why::Reject(why) => (why, None),
        };
        if self.is_aborted() {
            // A sink that was made to come back has said nothing of the record, and nobody hears what became of it.
            return Err(self.gives_up(&format!("{} offset={offset}: {why}", head.partition)));
        }
        let reason = match least {
            Some(least) if !policy.is_exhausted(head.attempts, elapsed) => {
                let time = head.backoff.next_wait().max(least);
                let time = if policy.total.is_zero() { time } else { time.min(policy.total.saturating_sub(elapsed)) };
                let why = format!("{} offset={offset}: {why}", head.partition);
                self.head = Some(head);
                self.wait(time, &why)?;
                return Ok(true);
            }
            _ => why,
        };
        if policy.on_failure == OnFailure::Stop {
            self.stop(&head, reason);
            return Ok(false);
        }
        let is_letter = policy.on_failure == OnFailure::DeadLetter;
        // Now, and not when the batch is through: a slow sink may need minutes for what is behind it.
        self.given_up.note(&head.partition, offset, is_letter, &reason);
        self.given_up.tell(self.name, Instant::now());
        let lost = Lost { reason, attempts: head.attempts, first_failure: head.first_failure, is_letter };
        item.lost.insert(item.until, lost);
        item.until += 1;
        Ok(true)
    }

    fn stop(&mut self, head: &Head, reason: String) {
        let (Head { partition, offset, attempts, .. }, now) = (head, Instant::now());
        let why = format!("partition={} offset={offset} attempts={attempts}: {reason}", partition.partition);
        // Before the line: whoever reads that finds the rest.
        self.ends.progress.stop(&partition.topic, &why);
        let mut trouble = Trouble::default();
        if let Some(word) = trouble.failed(now, now) {
            let who = format!("topic={} sink={} action=\"{ADVICE}\"", partition.topic, self.name);
            STOPS.log(word, log::Level::Error, &who, &why);
        }
        // If it stops once more in the same delivery, after a failed flush, nothing waits yet.
        self.stopped.insert(Arc::clone(&partition.topic), Halted { trouble, why, items: VecDeque::new() });
    }

    /// Puts the dead letters, and counts what was given up.
    fn bury(&mut self, items: &[Item]) -> Result<(), GivenUp> {
        let dead_ms = unix_ms(SystemTime::now());
        let letters = || letters(items, &self.ends.sink, dead_ms);
        if letters().next().is_some() {
            while let Err(why) = self.ends.failures.bury(letters()) {
                let time = self.backoff.next_wait();
                self.wait(time, &format!("{LETTERS_FAIL}: {why}"))?;
                self.reopen_if_asked();
            }
        }
        for item in items {
            for lost in item.lost.range(..item.until).map(|(_, lost)| lost) {
                self.ends.progress.gave_up(&item.batch.partition.topic, lost.is_letter);
            }
        }
        self.given_up.tell(self.name, Instant::now());
        Ok(())
    }

    /// What was stopped is tried again.
    pub(super) fn resume(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        for (topic, stopped) in std::mem::take(&mut self.stopped) {
            log::info!("topic is tried again topic={topic} sink={} batches={}", self.name, stopped.items.len());
            self.ends.progress.resume(&topic);
            items.extend(stopped.items);
        }
        items
    }

    pub(super) fn remind_of_stopped(&mut self) {
        let now = Instant::now();
        for (topic, stopped) in &mut self.stopped {
            if let Some(word) = stopped.trouble.due(now) {
                let who = format!("topic={topic} sink={} action=\"{ADVICE}\"", self.name);
                STOPS.log(word, log::Level::Error, &who, &stopped.why);
            }
        }
    }
}
