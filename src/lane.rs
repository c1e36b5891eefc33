//! A lane: the thread that drives one sink.
//!
//! Owns the sink and the end of a queue. It takes what has queued up, writes it, flushes once, and
//! only then are the tickets done. Invariants:
//! - records of a partition reach the sink in their order, also during retries;
//! - a ticket is done, or marked, only after a good flush behind all its records, or when the sink says that they are
//!   as safe as that, but for those that a policy gave up
//!   ([`crate::failure`]), whose dead letters are safe by then; one that is given up at the end of the process is
//!   dropped undone, and its records come again after the restart;
//! - of a topic that its policy has stopped nothing is written; its batches wait here, with their tickets;
//! - every wait ends by `abort`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, at, never, select};

use crate::backoff::Backoff;
use crate::consumer::{Batch, Never};
use crate::failure::Failures;
use crate::progress::LaneProgress;
use crate::sink::Sink;
use crate::ticket::Ticket;
use crate::trouble::{Phrases, Trouble};

mod delivery;
mod given_up;
mod item;

use delivery::{Halted, Head};
use item::Item;

/// How many records are written before a flush at the most, so that acknowledgements keep coming
/// while a long queue is worked off.
const RECORDS_A_FLUSH: usize = 100_000;
/// For the same reason no batch is begun after so long: a handler may take milliseconds for each record.
pub const LONGEST_DELIVERY: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

const FAILS: Phrases = Phrases {
    begins: "sink fails, its topics wait",
    goes_on: "sink still fails, its topics wait",
    ends: "sink works again",
    flaps: "sink fails again and again",
};

/// The same, while a record that it did not take has stopped a topic: that it works again is not said of that record.
const FAILS_AND_STOPPED: Phrases = Phrases { ends: "sink goes on without the stopped topics", ..FAILS };

/// Since when a lane is in a call of its sink. A lane that stands still in one can't say so itself.
#[derive(Debug)]
pub struct Busy {
    base: Instant,
    /// Milliseconds from `base` to the call, plus one; 0 between calls.
    since: AtomicU64,
}

impl Busy {
    /// In no call.
    pub fn new(now: Instant) -> Self {
        Self { base: now, since: AtomicU64::new(0) }
    }

    /// Since when a call has not come back.
    pub fn since(&self) -> Option<Instant> {
        let ms = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.base + Duration::from_millis(ms))
    }

    /// Marks `call`.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let ms = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        // Nothing else is read by whoever reads it, so no order with other memory is needed.
        self.since.store(ms + 1, Ordering::Relaxed);
        let result = call();
        self.since.store(0, Ordering::Relaxed);
        result
    }
}

/// The ends of the channels that a lane holds.
pub struct Ends {
    /// The name of its sink, which other lanes may have, too: dead letters bear it.
    pub sink: Arc<str>,
    /// Its queues, one after the other: it goes on to the next one when the dispatcher has let the present
    /// one go and it is empty. The lane ends when there is no next one.
    pub queues: Receiver<Receiver<Vec<Batch>>>,
    /// Dropped at the other end when the process is about to end: what waits for an operator waits no more.
    pub stop: Receiver<Never>,
    /// Dropped at the other end when retries are to be given up.
    pub abort: Receiver<Never>,
    /// A message asks for the sink's files to be opened anew.
    pub reopen: Receiver<()>,
    /// No batch is begun after so long, [`LONGEST_DELIVERY`]: what is written is flushed and acknowledged first.
    pub longest: Duration,
    /// What becomes of what the sink does not take.
    pub failures: Arc<Failures>,
    /// What it tells of itself.
    pub progress: Arc<LaneProgress>,
    /// For somebody else to see.
    pub busy: Arc<Busy>,
}

/// Drives `sink`, called `name` in the log, until its last queue is closed and empty, or `abort` is dropped.
pub fn run(name: &str, sink: &mut dyn Sink, ends: &Ends) {
    let mut lane = Lane {
        name,
        sink,
        ends,
        trouble: Trouble::default(),
        why: String::new(),
        backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        together: 1,
        head: None,
        stopped: BTreeMap::new(),
        given_up: given_up::GivenUp::default(),
        asked_to_reopen: false,
        was_reopened: false,
        marked: Instant::now(),
    };
    let mut taken: Vec<Item> = Vec::new();
    let (mut reopen, mut stop) = (ends.reopen.clone(), ends.stop.clone());
    // One of the two is `never` at any moment: while there is a queue, the next one waits.
    let (mut queue, mut queues) = (never::<Vec<Batch>>(), ends.queues.clone());
    loop {
        let alarm = lane.wake().map_or_else(never, at);
        select! {
            recv(queue) -> batches => match batches {
                Ok(batches) => taken.extend(batches.into_iter().map(Item::new)),
                Err(_) => (queue, queues) = (never(), ends.queues.clone()),
            },
            recv(queues) -> next => match next {
                Ok(next) => (queue, queues) = (next, never()),
                Err(_) => return,
            },
            recv(reopen) -> asked => match asked {
                Ok(()) => {
                    lane.reopen();
                    taken = lane.resume();
                }
                // Nobody is left to ask.
                Err(_) => reopen = never(),
            },
            recv(stop) -> _ => {
                stop = never();
                lane.stopped.clear();
            }
            recv(alarm) -> _ => lane.remind(),
            recv(ends.abort) -> _ => return,
        }
        let mut records: usize = taken.iter().map(Item::len).sum();
        while records < RECORDS_A_FLUSH
            && let Ok(batches) = queue.try_recv()
        {
            records += batches.iter().map(|b| b.records.len()).sum::<usize>();
            taken.extend(batches.into_iter().map(Item::new));
        }
        if lane.is_aborted() {
            return;
        }
        while !taken.is_empty() {
            // What belongs together can be given together; the order within a partition stays.
            taken.sort_by(|a, b| a.partition().cmp(b.partition()));
            ends.progress.set_busy(true);
            match lane.deliver(std::mem::take(&mut taken)) {
                Ok((tickets, rest)) => {
                    // The memory was given back before the consumer hears of it.
                    Ticket::all_done(tickets);
                    taken = rest;
                }
                Err(GivenUp) => return,
            }
            if !taken.is_empty() && ends.reopen.try_recv().is_ok() {
                lane.reopen();
                lane.was_reopened = true;
            }
            if std::mem::take(&mut lane.was_reopened) {
                // What is stopped is older than what is left.
                let mut again = lane.resume();
                again.append(&mut taken);
                taken = again;
            }
            if lane.is_aborted() {
                return;
            }
        }
        ends.progress.set_busy(false);
    }
}

/// The process ends before the sink took the records.
struct GivenUp;

struct Lane<'a> {
    name: &'a str,
    sink: &'a mut dyn Sink,
    ends: &'a Ends,
    trouble: Trouble,
    /// The last reason of the trouble.
    why: String,
    /// Of failed flushes, which are no one record's fault.
    backoff: Backoff,
    /// So many records may be given in one write.
    together: usize,
    /// The record that was not taken last.
    head: Option<Head>,
    /// The topics of which nothing is written for now.
    stopped: BTreeMap<Arc<str>, Halted>,
    /// What is to be told of records that were given up.
    given_up: given_up::GivenUp,
    /// During a wait; what is written has to be flushed before.
    asked_to_reopen: bool,
    /// In the middle of a delivery: what is stopped is tried again behind it.
    was_reopened: bool,
    /// When was told last what is done of a write that goes on, or the delivery began.
    marked: Instant,
}

/// What is to be told is told, however it ends.
impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.given_up.tell_all(self.name, Instant::now());
    }
}

impl Lane<'_> {
    /// Nobody waits for a delivery any more.
    fn is_aborted(&self) -> bool {
        matches!(self.ends.abort.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// When the log is to be reminded of something.
    fn wake(&self) -> Option<Instant> {
        let stopped = self.stopped.values().filter_map(Halted::wake);
        stopped.chain(self.trouble.wake()).chain(self.given_up.wake()).min()
    }

    /// Waits before the next try, and tells the log when the trouble begins.
    fn wait(&mut self, time: Duration, why: &str) -> Result<(), GivenUp> {
        self.ends.progress.set_trouble(Some(why));
        let (name, now) = (self.name, Instant::now());
        why.clone_into(&mut self.why);
        if let Some(word) = self.trouble.failed(now, now) {
            FAILS.log(word, log::Level::Warn, &format_args!("sink={name}"), &why);
        }
        let until = Instant::now() + time;
        let mut reopen = self.ends.reopen.clone();
        loop {
            select! {
                recv(self.ends.abort) -> _ => return Err(self.gives_up(why)),
                recv(reopen) -> asked => match asked {
                    // Perhaps just that makes the next try a success.
                    Ok(()) => {
                        self.asked_to_reopen = true;
                        return Ok(());
                    }
                    Err(_) => reopen = never(),
                },
                recv(at(until)) -> _ => return Ok(()),
            }
        }
    }

    /// Nobody waits for the next try.
    fn gives_up(&self, why: &str) -> GivenUp {
        log::warn!("sink given up at the end, its records are delivered again sink={} error=\"{why}\"", self.name);
        GivenUp
    }

    /// Reopens the sink if that was asked for during a wait. To be called where nothing is written that is not flushed.
    fn reopen_if_asked(&mut self) {
        if std::mem::take(&mut self.asked_to_reopen) {
            self.reopen();
            self.was_reopened = true;
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        self.head = None;
        if self.trouble.since().is_some() {
            self.ends.progress.set_trouble(None);
        }
        if let Some(word) = self.trouble.works(Instant::now()) {
            let fails = if self.stopped.is_empty() { &FAILS } else { &FAILS_AND_STOPPED };
            fails.log(word, log::Level::Warn, &format_args!("sink={}", self.name), &self.why);
        }
    }

    fn remind(&mut self) {
        if let Some(word) = self.trouble.due(Instant::now()) {
            FAILS.log(word, log::Level::Warn, &format_args!("sink={}", self.name), &self.why);
        }
        self.remind_of_stopped();
        self.given_up.tell(self.name, Instant::now());
    }

    fn reopen(&mut self) {
        match self.ends.busy.during(|| self.sink.reopen()) {
            Ok(()) => log::info!("sink reopened sink={}", self.name),
            Err(why) => log::warn!("sink not reopened, going on with what is open sink={} error=\"{why}\"", self.name),
        }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
