//! The sink `exec`: records to a program of the user's, in whatever language, as lines of JSON on its standard input.
//!
//! Two ways ([`Mode`]): a handler that lives long and answers on its standard output (`stream`), or one run of the
//! command a batch, of which the exit code is the answer (`batch`). README.md, "Handlers", is the specification.
//!
//! Owns the handler's process, its pipes, and the thread that logs its standard error. What always holds:
//! - `write` says Ok only for what a handler has acknowledged, so `flush` has nothing to do;
//! - what a handler has acknowledged behind a record that failed is not given again when the lane goes on there;
//! - no write or read of a pipe blocks: both are waited for together, and `timeout` is the longest time without an
//!   answer (`stream`; `start_timeout` for a process's first one) or for a run (`batch`). A write blocks at most that long for each of its records, and, where a
//!   handler has to be ended, `kill_timeout` and 2 s more;
//! - a handler has a process group of its own, which is killed as a whole when the process that was started has
//!   ended; none outlives its sink, nor [`kill_left`];
//! - whatever a handler writes, no more than a line of 64 KiB and one buffer of it are kept.
//!
//! How long to wait before a handler that failed is tried again is the lane's to decide, as for every sink.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Brake, Progress, Sink, Stopped};
use crate::record::{Records, TopicPartition};

mod answers;
mod batch;
mod command;
mod loss;
mod process;
mod stream;
mod talk;
mod told;

pub use command::{CommandError, probe};
pub use process::kill_left;

/// How records are given, and what counts as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One process for many records, which answers on its standard output.
    Stream,
    /// One run of the command for each batch; its exit code is the answer.
    Batch,
}

/// What is configured of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// How records are given.
    pub mode: Mode,
    /// `stream`: how long no answer may come while one is owed. `batch`: how long a run may take.
    pub timeout: Duration,
    /// `stream`: how long the first answer of a process may take from its start, if that is longer than `timeout`.
    pub start_timeout: Duration,
    /// `stream`: how many records are given before an answer is waited for. `batch`: how many a run gets. At least 1.
    pub max_batch_records: usize,
    /// How long a handler may take to end, once its input was closed or it was sent SIGTERM.
    pub kill_timeout: Duration,
}

impl Settings {
    /// The program.
    pub fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }
}

/// Gives records to handlers.
#[derive(Debug)]
pub struct ExecSink {
    way: Way,
    brake: Arc<process::Brake>,
}

#[derive(Debug)]
enum Way {
    Stream(Box<stream::Stream>),
    Batch(batch::Batch),
}

impl ExecSink {
    /// A sink `name` (for the log). The handler is started when there is something for it.
    ///
    /// # Errors
    /// The command can't be run.
    pub fn open(name: &str, settings: Settings) -> Result<Self, CommandError> {
        probe(settings.program())?;
        let mode = settings.mode;
        let starter = process::Starter::new(name, settings);
        let brake = Arc::clone(&starter.brake);
        let way = match mode {
            Mode::Stream => Way::Stream(Box::new(stream::Stream::new(starter))),
            Mode::Batch => Way::Batch(batch::Batch::new(starter)),
        };
        Ok(Self { way, brake })
    }
}

impl Sink for ExecSink {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        self.write_with_progress(partition, records, &mut Progress::new(&mut |_| {}, Instant::now()))
    }

    fn write_with_progress(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        match &mut self.way {
            Way::Stream(stream) => stream.write(partition, records, progress),
            Way::Batch(batch) => batch.write(partition, records, progress),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Ends the handler; the next write starts one anew, so that a new version of its program is taken.
    fn reopen(&mut self) -> Result<(), String> {
        if let Way::Stream(stream) = &mut self.way {
            stream.end();
        }
        Ok(())
    }

    /// The handler that runs is ended, by SIGTERM and then by SIGKILL, and no other one is started.
    fn brake(&self) -> Option<Brake> {
        let brake = Arc::clone(&self.brake);
        Some(Box::new(move || brake.press()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
