//! What a destination of records has to do, and the list of those there are.
//!
//! A sink knows no Kafka, no thread and no offset arithmetic. It is owned by one lane thread, which
//! calls it, retries it and acknowledges for it. What a sink promises:
//! - `write` takes records in order and says how many of them it took;
//! - what it took counts only after the next successful `flush`: after a failed one the lane gives
//!   everything since the last good flush again, and the sink must be ready for that;
//! - what a stopped `write` took before it stopped stays taken: the lane goes on behind it, and need
//!   not flush in between;
//! - it never blocks without a bound that its own documentation states.

use std::fmt;
use std::time::{Duration, Instant};

use crate::record::{Records, TopicPartition};

pub mod drop;
pub mod exec;
pub mod file;
pub mod format;
pub mod http;
pub mod json;
pub mod kafka;
pub mod log;
pub mod own;
pub mod stdout;

pub use format::Format;

/// A destination of records.
pub trait Sink: Send {
    /// Takes `records`, all of `partition`, in order. `Ok` means that all were taken.
    ///
    /// # Errors
    /// [`Stopped`] says how many were taken before it stopped, and why; the lane goes on from there.
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped>;

    /// As [`write`](Self::write), for a sink whose records may take long. It may say how far it is, and then the group's
    /// offset can follow while the write goes on.
    ///
    /// # Errors
    /// As `write`. What was said to be safe is among what was taken.
    fn write_with_progress(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        let _ = progress;
        self.write(partition, records)
    }

    /// Makes everything taken so far as durable as this sink can: only then is it acknowledged.
    ///
    /// # Errors
    /// The reason, in words for the log. Nothing since the last good flush counts as delivered; the
    /// sink has gone back to that point, and all of it is given again.
    fn flush(&mut self) -> Result<(), String>;

    /// Opens its files anew (SIGHUP, after a log rotation). Called between a flush and a write.
    ///
    /// # Errors
    /// The reason, in words for the log. The sink goes on with what it had open.
    fn reopen(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// What another thread can call at the end of a stop, when nobody waits for what is under way any more: a call of this
    /// sink that has not come back, and each one from then on, comes back soon. Called again, it uses more force.
    /// `None`: calls end within their own bounds, and the end of the process does not wait for them.
    fn brake(&self) -> Option<Brake> {
        None
    }
}

/// See [`Sink::brake`].
pub type Brake = Box<dyn Fn() + Send>;

/// What is told of a write that goes on, not too often.
pub struct Progress<'a> {
    tell: &'a mut dyn FnMut(usize),
    told: usize,
    said: usize,
    last: Instant,
}

impl<'a> Progress<'a> {
    /// How often it is told.
    pub const EVERY: Duration = Duration::from_millis(250);

    /// Of a write that begins; `last`: when anything was told before.
    pub fn new(tell: &'a mut dyn FnMut(usize), last: Instant) -> Self {
        Self { tell, told: 0, said: 0, last }
    }

    /// The first `count` of the records are as durable as after a flush, with everything that was taken before them,
    /// whatever comes of the rest. It costs next to nothing to say so of each record.
    pub fn safe(&mut self, count: usize) {
        self.said = self.said.max(count);
        if self.said > self.told && self.last.elapsed() >= Self::EVERY {
            (self.told, self.last) = (self.said, Instant::now());
            (self.tell)(self.said);
        }
    }

    /// Something that was said is not told yet: who waits is to say it again then.
    pub fn wake(&self) -> Option<Instant> {
        (self.said > self.told).then(|| self.last + Self::EVERY)
    }

    /// How many records were said to be safe.
    pub fn said(&self) -> usize {
        self.said
    }

    /// When anything was told last.
    pub fn last(&self) -> Instant {
        self.last
    }
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({} told of {})", self.told, self.said)
    }
}

/// A `write` that did not take everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How many records were taken before this one.
    pub done: usize,
    /// Why the next one was not.
    pub why: Why,
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It may be taken later: a full disk, a closed pipe. The text says what and where.
    Retry(String),
    /// The same, and not before so long from now: whoever is behind the sink has asked for that time. What bounds
    /// retries, and an operator who wants another try at once, go before it.
    RetryAfter(String, Duration),
    /// It never will be, however often it is given. The text says what is wrong with it.
    Reject(String),
}
