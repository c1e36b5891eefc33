//! A lane: the thread that drives one sink.
//!
//! Owns the sink and the end of a queue. It takes what has queued up, writes it, flushes once, and
//! only then are the tickets done. Invariants:
//! - records of a partition reach the sink in their order, also during retries;
//! - a ticket is done only after a good flush behind all its records; one that is given up at the
//!   end of the process is dropped undone, and its records come again after the restart;
//! - every wait ends by `abort`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, at, never, select};

use crate::backoff::Backoff;
use crate::consumer::{Batch, Never};
use crate::progress::LaneProgress;
use crate::sink::{Sink, Why};
use crate::ticket::Ticket;
use crate::trouble::{Phrases, Trouble};

/// How many records are written before a flush at the most, so that acknowledgements keep coming
/// while a long queue is worked off.
const RECORDS_A_FLUSH: usize = 100_000;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

const FAILS: Phrases = Phrases {
    begins: "sink fails, its topics wait",
    goes_on: "sink still fails, its topics wait",
    ends: "sink works again",
    flaps: "sink fails again and again",
};

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
    /// Its queues, one after the other: it goes on to the next one when the dispatcher has let the present
    /// one go and it is empty. The lane ends when there is no next one.
    pub queues: Receiver<Receiver<Vec<Batch>>>,
    /// Dropped at the other end when retries are to be given up.
    pub abort: Receiver<Never>,
    /// A message asks for the sink's files to be opened anew.
    pub reopen: Receiver<()>,
    /// What it tells of itself.
    pub progress: Arc<LaneProgress>,
    /// For somebody else to see.
    pub busy: Arc<Busy>,
}

/// Drives `sink`, called `name` in the log, until its last queue is closed and empty, or `abort` is dropped.
pub fn run(name: &str, sink: &mut dyn Sink, ends: &Ends) {
    let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut lane = Lane {
        name,
        sink,
        abort: &ends.abort,
        busy: &ends.busy,
        progress: &ends.progress,
        trouble: Trouble::default(),
        why: String::new(),
        backoff,
    };
    let mut taken = Vec::new();
    let mut reopen = ends.reopen.clone();
    // One of the two is `never` at any moment: while there is a queue, the next one waits.
    let (mut queue, mut queues) = (never(), ends.queues.clone());
    loop {
        let alarm = lane.trouble.wake().map_or_else(never, at);
        select! {
            recv(queue) -> batches => match batches {
                Ok(batches) => taken.extend(batches),
                Err(_) => (queue, queues) = (never(), ends.queues.clone()),
            },
            recv(queues) -> next => match next {
                Ok(next) => (queue, queues) = (next, never()),
                Err(_) => return,
            },
            recv(reopen) -> asked => match asked {
                Ok(()) => lane.reopen(),
                // Nobody is left to ask.
                Err(_) => reopen = never(),
            },
            recv(alarm) -> _ => lane.remind(),
            recv(ends.abort) -> _ => return,
        }
        let mut records: usize = taken.iter().map(|b| b.records.len()).sum();
        while records < RECORDS_A_FLUSH
            && let Ok(batches) = queue.try_recv()
        {
            records += batches.iter().map(|b| b.records.len()).sum::<usize>();
            taken.extend(batches);
        }
        if lane.is_aborted() {
            return;
        }
        ends.progress.set_busy(!taken.is_empty());
        if !taken.is_empty() {
            if lane.deliver(&taken).is_err() {
                return;
            }
            // The memory is given back before the consumer hears of it.
            let tickets: Vec<Ticket> = taken.drain(..).map(|batch| batch.ticket).collect();
            Ticket::all_done(tickets);
        }
        ends.progress.set_busy(false);
    }
}

/// The process ends before the sink took the records.
struct GivenUp;

struct Lane<'a> {
    name: &'a str,
    sink: &'a mut dyn Sink,
    abort: &'a Receiver<Never>,
    progress: &'a LaneProgress,
    busy: &'a Busy,
    trouble: Trouble,
    /// The last reason of the trouble.
    why: String,
    backoff: Backoff,
}

impl Lane<'_> {
    /// Writes all of it and flushes; comes back only with success, or at the process's end.
    fn deliver(&mut self, batches: &[Batch]) -> Result<(), GivenUp> {
        loop {
            self.write(batches)?;
            match self.busy.during(|| self.sink.flush()) {
                Ok(()) => {
                    self.well();
                    return Ok(());
                }
                Err(why) => self.wait(&why)?,
            }
        }
    }

    fn write(&mut self, batches: &[Batch]) -> Result<(), GivenUp> {
        for batch in batches {
            let mut done = 0;
            while done < batch.records.len() {
                match self.busy.during(|| self.sink.write(&batch.partition, &batch.records.skip(done))) {
                    Ok(()) => break,
                    Err(stopped) => {
                        done += stopped.done;
                        let (Why::Retry(why) | Why::Reject(why)) = stopped.why;
                        let offset = batch.records.get(done).map_or(-1, |r| r.offset.get());
                        self.wait(&format!("{} offset={offset}: {why}", batch.partition))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits before the next try; tells the log when the trouble begins, and that it goes on.
    fn wait(&mut self, why: &str) -> Result<(), GivenUp> {
        self.progress.set_trouble(Some(why));
        let (name, now) = (self.name, Instant::now());
        why.clone_into(&mut self.why);
        if let Some(word) = self.trouble.failed(now, now) {
            FAILS.log(word, log::Level::Warn, &format_args!("sink={name}"), &why);
        }
        match self.abort.recv_timeout(self.backoff.next_wait()) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                log::warn!("sink given up at the end, its records are delivered again sink={name} error=\"{why}\"");
                Err(GivenUp)
            }
            Ok(never) => match never {},
        }
    }

    /// Nobody waits for a delivery any more.
    fn is_aborted(&self) -> bool {
        matches!(self.abort.try_recv(), Err(TryRecvError::Disconnected))
    }

    fn well(&mut self) {
        self.backoff.reset();
        if self.trouble.since().is_some() {
            self.progress.set_trouble(None);
        }
        if let Some(word) = self.trouble.works(Instant::now()) {
            FAILS.log(word, log::Level::Warn, &format_args!("sink={}", self.name), &self.why);
        }
    }

    fn remind(&mut self) {
        if let Some(word) = self.trouble.due(Instant::now()) {
            FAILS.log(word, log::Level::Warn, &format_args!("sink={}", self.name), &self.why);
        }
    }

    fn reopen(&mut self) {
        match self.busy.during(|| self.sink.reopen()) {
            Ok(()) => log::info!("sink reopened sink={}", self.name),
            Err(why) => log::warn!("sink not reopened, going on with what is open sink={} error=\"{why}\"", self.name),
        }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
