//! One run of the command for each batch: its exit code is the answer.
//!
//! Owns the search for the record of which a run fails: the batch is halved until it is one record. What always
//! holds: a record is taken only if a run with exit code 0 was given it, and rejected only if a run that was given it
//! alone has failed. What a run with exit code 0 has left unread, be it in its pipe, it has not taken.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use rustix::process::Signal;

use super::process::{Process, Starter};
use crate::record::{Records, TopicPartition};
use crate::sink::{Progress, Stopped, Why, json};

/// EX_TEMPFAIL of sysexits.h: try again later.
const TRY_AGAIN: i32 = 75;
/// How much is gathered before it is written: as much as a pipe holds.
const CHUNK: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Batch {
    starter: Starter,
    out: Vec<u8>,
}

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
enum Run {
    Done,
    /// It says nothing against the records.
    Again(String),
    Failed(String),
}

impl Batch {
    pub(super) fn new(starter: Starter) -> Self {
        Self { starter, out: Vec::new() }
    }

    /// A run with exit code 0 is for good, so what it was given is safe.
    pub(super) fn write(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        let mut head = Vec::new();
        json::append_head(&mut head, partition);
        let mut done = 0;
        // Among the records before this one is one of which a run has failed.
        let mut suspects: Option<usize> = None;
        while done < records.len() {
            let end = suspects.unwrap_or(records.len().min(done + self.starter.settings.max_batch_records));
            let count = if suspects.is_some() { (end - done).div_ceil(2) } else { end - done };
            let part = records.slice(done..done + count);
            match self.run(&head, &part) {
                Run::Done => {
                    done += count;
                    suspects = suspects.filter(|end| done < *end);
                    progress.safe(done);
                }
                Run::Again(why) => return Err(Stopped { done, why: Why::Retry(why) }),
                Run::Failed(why) if count == 1 => return Err(Stopped { done, why: Why::Reject(why) }),
                Run::Failed(why) => {
                    let level = if suspects.is_none() { log::Level::Info } else { log::Level::Debug };
                    let offset = |index| part.get(index).map_or(-1, |record| record.offset.get());
                    log::log!(
                        level,
                        "handler failed, looking for the record sink={} {partition} offsets={}-{} records={count} error=\"{why}\"",
                        self.starter.told.sink(),
                        offset(0),
                        offset(count - 1)
                    );
                    suspects = Some(done + count);
                }
            }
        }
        Ok(())
    }

    /// Runs the command with these records.
    fn run(&mut self, head: &[u8], records: &Records) -> Run {
        let mut process = match Process::start(&self.starter, false) {
            Ok(process) => process,
            Err(why) => return Run::Again(why),
        };
        let until = Instant::now() + self.starter.settings.timeout;
        let (mut next, mut written) = (0, 0);
        let mut unread = false;
        self.out.clear();
        let ended = loop {
            while !unread && next < records.len() && self.out.len() - written < CHUNK {
                if written > 0 {
                    self.out.drain(..written);
                    written = 0;
                }
                if let Some(record) = records.get(next) {
                    json::append_rest(&mut self.out, head, &record);
                }
                next += 1;
            }
            if !unread {
                match process.write(&self.out[written..]) {
                    Ok(count) => written += count,
                    Err(_) => unread = true,
                }
            }
            let all = written == self.out.len() && next == records.len();
            if all || unread {
                process.close_input();
                let left = until.saturating_duration_since(Instant::now());
                break process.await_end(left);
            }
            let ready = process.wait(true, until);
            if ready.ended {
                // What it has left in its pipe it has not read.
                unread = true;
            } else if Instant::now() >= until {
                break false;
            }
        };
        unread |= process.unread() > 0;
        self.out.shrink_to(2 * CHUNK);
        let pid = process.pid();
        let ending = process.stop(self.starter.settings.kill_timeout);
        let (records, timeout) = (records.len(), self.starter.settings.timeout.as_millis());
        if !ended {
            return Run::Again(format!(
                "the handler (process {pid}) did not end within timeout_ms={timeout} with {records} records, and was \
                 killed ({ending}); raise timeout_ms, lower max_batch_records, or see what it waits for"
            ));
        }
        let code = ending.status.and_then(|status| status.code());
        let signal = ending.status.and_then(|status| status.signal()).and_then(Signal::from_named_raw);
        let fails = |what: &dyn fmt::Display| format!("the handler {what} with {records} records: {ending}");
        match (code, signal) {
            (Some(0), _) if unread => Run::Again(format!(
                "the handler ended with exit code 0 before it had read all of {records} records; it has to read its \
                 standard input to the end, as exit code 0 says that all are done"
            )),
            (Some(0), _) => Run::Done,
            (Some(TRY_AGAIN), _) => Run::Again(fails(&"asks for another try")),
            // Somebody has ended it: an operator, a supervisor, the system when memory is short. A program that
            // crashes ends by others.
            (None, Some(Signal::KILL | Signal::TERM | Signal::INT | Signal::HUP)) => Run::Again(fails(&"was ended")),
            (None, None) if ending.status.is_none() => Run::Again(fails(&"can't be ended")),
            _ => Run::Failed(fails(&"failed")),
        }
    }
}
