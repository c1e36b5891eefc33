//! A lane: the thread that drives one sink.
//!
//! Owns the sink and the end of a queue. It takes what has queued up, writes it, flushes once, and
//! only then are the tickets done. Invariants:
//! - records of a partition reach the sink in their order, also during retries;
//! - a ticket is done only after a good flush behind all its records; one that is given up at the
//!   end of the process is dropped undone, and its records come again after the restart;
//! - every wait ends by `abort`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, select};

use crate::backoff::Backoff;
use crate::consumer::{Batch, Never};
use crate::progress::LaneProgress;
use crate::sink::{Sink, Why};
use crate::ticket::Ticket;

/// How many records are written before a flush at the most, so that acknowledgements keep coming
/// while a long queue is worked off.
const RECORDS_A_FLUSH: usize = 100_000;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The ends of the channels that a lane holds.
pub struct Ends {
    /// Its queue; the lane ends when the dispatcher has dropped the other end.
    pub queue: Receiver<Vec<Batch>>,
    /// Dropped at the other end when retries are to be given up.
    pub abort: Receiver<Never>,
    /// A message asks for the sink's files to be opened anew.
    pub reopen: Receiver<()>,
    /// What it tells of itself.
    pub progress: Arc<LaneProgress>,
}

/// Drives `sink`, called `name` in the log, until its queue is closed and empty, or `abort` is dropped.
pub fn run(name: &str, sink: &mut dyn Sink, ends: &Ends) {
    let mut lane = Lane { name, sink, abort: &ends.abort, trouble: None, progress: &ends.progress };
    let mut taken = Vec::new();
    let mut reopen = ends.reopen.clone();
    loop {
        select! {
            recv(ends.queue) -> batches => match batches {
                Ok(batches) => taken.extend(batches),
                Err(_) => return,
            },
            recv(reopen) -> asked => match asked {
                Ok(()) => lane.reopen(),
                // Nobody is left to ask.
                Err(_) => reopen = crossbeam_channel::never(),
            },
        }
        let mut records: usize = taken.iter().map(|b| b.records.len()).sum();
        while records < RECORDS_A_FLUSH
            && let Ok(batches) = ends.queue.try_recv()
        {
            records += batches.iter().map(|b| b.records.len()).sum::<usize>();
            taken.extend(batches);
        }
        if lane.is_aborted() {
            return;
        }
        ends.progress.set_busy(!taken.is_empty());
        if !taken.is_empty() && lane.deliver(&taken).is_ok() {
            // The memory is given back before the consumer hears of it.
            let tickets: Vec<Ticket> = taken.drain(..).map(|batch| batch.ticket).collect();
            Ticket::all_done(tickets);
        }
        taken.clear();
        ends.progress.set_busy(false);
    }
}

/// The process ends before the sink took the records.
struct GivenUp;

struct Lane<'a> {
    name: &'a str,
    sink: &'a mut dyn Sink,
    abort: &'a Receiver<Never>,
    trouble: Option<(Instant, Backoff)>,
    progress: &'a LaneProgress,
}

impl Lane<'_> {
    /// Writes all of it and flushes; comes back only with success, or at the process's end.
    fn deliver(&mut self, batches: &[Batch]) -> Result<(), GivenUp> {
        loop {
            self.write(batches)?;
            match self.sink.flush() {
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
                match self.sink.write(&batch.partition, &batch.records.skip(done)) {
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

    /// Waits before the next try; tells the log when the trouble begins.
    fn wait(&mut self, why: &str) -> Result<(), GivenUp> {
        let name = self.name;
        self.progress.set_trouble(Some(why));
        let (_, backoff) = self.trouble.get_or_insert_with(|| {
            log::warn!("sink fails, its topics wait sink={name} error=\"{why}\"");
            (Instant::now(), Backoff::new(FIRST_RETRY, LONGEST_RETRY))
        });
        match self.abort.recv_timeout(backoff.next_wait()) {
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
        if let Some((since, _)) = self.trouble.take() {
            self.progress.set_trouble(None);
            log::info!("sink works again sink={} after_ms={}", self.name, since.elapsed().as_millis());
        }
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(()) => log::info!("sink reopened sink={}", self.name),
            Err(why) => log::warn!("sink not reopened, going on with what is open sink={} error=\"{why}\"", self.name),
        }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
