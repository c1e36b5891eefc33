//! A handler that lives long: records go in, answers come out, both at the same time.
//!
//! Owns the running handler and what it was given, and remembers between two writes what was settled behind a
//! record that failed. What always holds:
//! - records are given in their order, and after one that failed no more are given before the lane goes on there;
//! - what was settled behind it is remembered only for the write that goes on there: any other one forgets it;
//! - after a handler was lost the records that it had are given one at a time, so that the one of which it is lost
//!   the next time is known.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use super::Settings;
use super::answers::{Lines, Owed, Settled};
use super::loss::{Cause, Loss};
use super::process::{Process, Starter};
use super::told::Kind;
use crate::record::{Offset, Records, TopicPartition};
use crate::sink::{Progress, Stopped, Why, json};

/// How much is gathered before it is written: as much as a pipe holds.
const CHUNK: usize = 64 << 10;
/// How much of the answers is read at once.
const ANSWERS: usize = 16 << 10;
/// A handler that has closed its output is mostly about to end: how long that may take.
const ABOUT_TO_END: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Stream {
    starter: Starter,
    running: Option<Running>,
    remembered: Option<Remembered>,
    /// So many records are given one at a time.
    careful: usize,
    buffer: Vec<u8>,
}

/// A handler and what it was given.
#[derive(Debug)]
struct Running {
    process: Process,
    owed: Owed,
    lines: Lines,
    /// Lines that are given, and not all in the pipe yet.
    out: Vec<u8>,
    /// So much of `out` is in the pipe.
    written: usize,
    /// Where the lines in `out` end that are not in the pipe as a whole.
    ends: VecDeque<usize>,
    /// It has answered something.
    has_answered: bool,
    started: Instant,
}

/// What was settled behind a record that was not.
#[derive(Debug)]
struct Remembered {
    partition: TopicPartition,
    from: Offset,
    settled: BTreeMap<Offset, Settled>,
}

impl Stream {
    pub(super) fn new(starter: Starter) -> Self {
        Self { starter, running: None, remembered: None, careful: 0, buffer: vec![0; ANSWERS] }
    }

    fn name(&self) -> &str {
        self.starter.told.sink()
    }

    fn say(&self, kind: Kind, line: fmt::Arguments<'_>) {
        self.starter.told.say(kind, line);
    }

    /// Lets the handler end in peace.
    pub(super) fn end(&mut self) {
        if let Some(running) = self.running.take() {
            let pid = running.process.pid();
            let ending = running.process.end(self.starter.settings.kill_timeout);
            self.say(Kind::Came, format_args!("handler ended sink={} pid={pid} status=\"{ending}\"", self.name()));
        }
    }

    /// An answer is for good, so what is answered is safe.
    pub(super) fn write(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        let mut states = self.recall(partition, records);
        let mut head = Vec::new();
        json::append_head(&mut head, partition);
        loop {
            let (mut running, fresh) = match self.running.take() {
                Some(running) => (running, false),
                None => match self.start() {
                    Ok(running) => (running, true),
                    Err(why) => return self.stopped(partition, records, states, why),
                },
            };
            let mut given = Vec::new();
            let result = self.run(&mut running, &mut given, &states, &head, records, progress);
            let (mut advanced, mut owed) = (false, 0);
            for (state, index) in running.owed.states().iter().zip(given) {
                match state {
                    Settled::No => owed += 1,
                    Settled::Done | Settled::Failed { .. } => {
                        advanced = true;
                        states[index] = state.clone();
                        self.careful = self.careful.saturating_sub(1);
                    }
                }
            }
            let Err(cause) = result else {
                self.running = Some(running);
                return self.stopped(partition, records, states, String::new());
            };
            let has_worked = advanced || (!fresh && running.has_answered);
            let loss = self.lose(running, cause, owed);
            let calm = loss.is_none(has_worked, fresh);
            let name = self.name();
            if calm {
                let line = format_args!("handler ended, it is started again sink={name} reason=\"{loss}\"");
                self.say(Kind::Came, line);
            } else {
                self.say(Kind::Lost, format_args!("handler lost sink={name} error=\"{loss}\""));
            }
            if !calm {
                self.careful = owed;
                return self.stopped(partition, records, states, loss.to_string());
            }
        }
    }

    fn start(&self) -> Result<Running, String> {
        let process = Process::start(&self.starter, true)?;
        // Without its arguments: a secret may be among them.
        let (name, pid, program) = (self.name(), process.pid(), self.starter.settings.program());
        self.say(Kind::Came, format_args!("handler started sink={name} pid={pid} program={program:?}"));
        Ok(Running {
            process,
            owed: Owed::new(),
            lines: Lines::default(),
            out: Vec::new(),
            written: 0,
            ends: VecDeque::new(),
            has_answered: false,
            started: Instant::now(),
        })
    }

    /// Ends a handler that can't be used any more.
    fn lose(&self, mut running: Running, cause: Cause, owed: usize) -> Loss {
        let pid = running.process.pid();
        let Settings { timeout, start_timeout, .. } = self.starter.settings;
        if matches!(cause, Cause::ClosedInput | Cause::ClosedOutput) {
            running.process.await_end(ABOUT_TO_END);
        }
        let ending = running.process.stop(self.starter.settings.kill_timeout);
        // It was not its output that mattered.
        let cause = match cause {
            Cause::ClosedInput | Cause::ClosedOutput if ending.by_itself => Cause::Ended,
            other => other,
        };
        Loss { cause, pid, ending, owed, timeout, start_timeout }
    }

    /// Gives the records that have no state yet, and takes answers, until all are settled or one has failed. `given`:
    /// the index of each record that was given, in the order of their numbers.
    fn run(
        &mut self,
        running: &mut Running,
        given: &mut Vec<usize>,
        states: &[Settled],
        head: &[u8],
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Cause> {
        let Settings { timeout, start_timeout, .. } = self.starter.settings;
        // Behind one that has failed before the lane will not go on in this write.
        let end = states.iter().position(|state| matches!(state, Settled::Failed { .. })).unwrap_or(records.len());
        running.owed.begin();
        // All before `done` are, and so many of them were given here.
        let (mut done, mut answered) = (0, 0);
        let mut next = 0;
        let mut since = Instant::now();
        let mut input_closed: Option<Instant> = None;
        let mut ended = running.process.wait(false, since).ended;
        loop {
            if running.take_answers(&mut self.buffer)? {
                since = Instant::now();
                while let Some(state) = states.get(done) {
                    if *state != Settled::Done {
                        if running.owed.states().get(answered) != Some(&Settled::Done) {
                            break;
                        }
                        answered += 1;
                    }
                    done += 1;
                }
            }
            progress.safe(done);
            if ended {
                return Err(Cause::Ended);
            }
            let careful = self.careful.saturating_sub(given.len() - running.owed.open());
            let window = if careful > 0 { 1 } else { self.starter.settings.max_batch_records };
            if running.owed.open() == 0 {
                since = Instant::now();
            }
            while !running.owed.has_failed()
                && input_closed.is_none()
                && next < end
                && running.owed.open() < window
                && running.out.len() - running.written < CHUNK
            {
                if states[next] == Settled::No
                    && let Some(record) = records.get(next)
                {
                    running.give(head, &record);
                    given.push(next);
                }
                next += 1;
            }
            if running.owed.open() == 0 && (next >= end || running.owed.has_failed()) {
                return Ok(());
            }
            if input_closed.is_none() && running.put().is_err() {
                // What it has read before may still be answered.
                input_closed = Some(Instant::now());
            }
            // An interpreter may take longer to start than any record takes.
            let ready = (!running.has_answered).then(|| running.started + start_timeout);
            let silent = (since + timeout).max(ready.unwrap_or(since));
            let until = input_closed.map_or(silent, |at| silent.min(at + self.starter.settings.kill_timeout));
            if Instant::now() >= until {
                return Err(match input_closed {
                    Some(_) => Cause::ClosedInput,
                    None if ready == Some(silent) => Cause::NotReady,
                    None => Cause::Silent,
                });
            }
            let write = input_closed.is_none() && !running.ends.is_empty();
            let until = progress.wake().map_or(until, |wake| until.min(wake));
            ended = running.process.wait(write, until).ended;
        }
    }

    /// What is known of the records from an earlier write that stopped before them.
    fn recall(&mut self, partition: &TopicPartition, records: &Records) -> Vec<Settled> {
        let mut states = vec![Settled::No; records.len()];
        let (Some(mut old), Some(first)) = (self.remembered.take(), records.get(0)) else { return states };
        if old.partition != *partition || first.offset < old.from {
            return states;
        }
        for (state, record) in states.iter_mut().zip(records.iter()) {
            if let Some(settled) = old.settled.remove(&record.offset) {
                *state = settled;
            }
            old.from = record.offset;
        }
        // What is left is behind these records, if the lane gives them in smaller pieces.
        old.settled.retain(|offset, _| *offset > old.from);
        if !old.settled.is_empty() {
            self.remembered = Some(old);
        }
        states
    }

    /// The result of a write, and what is to be remembered of it. `why`: what keeps the next record, if no answer does.
    fn stopped(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        mut states: Vec<Settled>,
        why: String,
    ) -> Result<(), Stopped> {
        let Some(done) = states.iter().position(|state| *state != Settled::Done) else { return Ok(()) };
        let why = match std::mem::replace(&mut states[done], Settled::No) {
            Settled::Failed { reason, retry: true } => {
                Why::Retry(format!("the handler asks for another try: {reason}"))
            }
            Settled::Failed { reason, retry: false } => Why::Reject(format!("the handler rejects it: {reason}")),
            Settled::No | Settled::Done => Why::Retry(why),
        };
        // One that is to be tried again is given again when its turn comes.
        let lasts = |state: &Settled| matches!(state, Settled::Done | Settled::Failed { retry: false, .. });
        let offset = |index| records.get(index).map_or(Offset::ZERO, |record| record.offset);
        let states = states.into_iter().enumerate().skip(done + 1).filter(|(_, state)| lasts(state));
        let mut settled: BTreeMap<Offset, Settled> = states.map(|(index, state)| (offset(index), state)).collect();
        if let Some(old) = self.remembered.take() {
            settled.extend(old.settled);
        }
        if !settled.is_empty() {
            self.remembered = Some(Remembered { partition: partition.clone(), from: offset(done), settled });
        }
        Err(Stopped { done, why })
    }
}

impl Running {
    fn give(&mut self, head: &[u8], record: &crate::record::Record<'_>) {
        json::append_numbered(&mut self.out, self.owed.give(), head, record);
        self.ends.push_back(self.out.len());
    }

    /// Writes what the pipe takes now.
    fn put(&mut self) -> std::io::Result<()> {
        self.written += self.process.write(&self.out[self.written..])?;
        while self.ends.front().is_some_and(|end| *end <= self.written) {
            self.ends.pop_front();
            self.owed.has_gone();
        }
        if self.written == self.out.len() {
            self.out.clear();
            // One huge record is no reason to keep its memory for ever.
            self.out.shrink_to(4 * CHUNK);
            self.written = 0;
        } else if self.written >= CHUNK {
            self.out.drain(..self.written);
            self.ends.iter_mut().for_each(|end| *end -= self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Takes what it has answered. Whether there was an answer.
    fn take_answers(&mut self, buffer: &mut [u8]) -> Result<bool, Cause> {
        let mut some = false;
        let (owed, lines) = (&mut self.owed, &mut self.lines);
        while let Some(count) = self.process.read(buffer) {
            if count == 0 {
                return Err(Cause::ClosedOutput);
            }
            let result = lines.push(&buffer[..count], |line| {
                owed.take(line)?;
                some = true;
                Ok(())
            });
            self.has_answered |= some;
            result.map_err(Cause::Nonsense)?;
        }
        Ok(some)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}
