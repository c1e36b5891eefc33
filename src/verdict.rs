//! How a partition is doing: one judgement, for the watchdog, for metrics, for an operator who asks.
//!
//! Pure: two samples of the cluster, and what the consumer tells of itself, if there is one. What there
//! is to read is taken from the cluster alone, never from the thread that is judged. Words:
//! *LAG* is what `kafka-consumer-groups` prints: log end − committed; it may be larger than what exists,
//! or negative. *READABLE* is log end − max(committed, log start), never negative. *EXPIRED* is what lies
//! between the committed offset and the log start. Verdicts go by READABLE.

use std::time::{Duration, Instant};

use crate::client::{Bounds, Fault};
use crate::progress::{LaneState, PartProgress, Phase, Since, Snapshot, State};
use crate::record::Offset;

mod text;

/// What is read within less time than this is no falling back.
const NOTICEABLE: Duration = Duration::from_secs(5);

/// What the cluster said of a partition and a group at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked.
    pub at: Instant,
    /// What it said, or why it did not.
    pub seen: Result<Seen, Fault>,
}

/// See [`Sample`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The log's range.
    pub bounds: Bounds,
    /// The group's committed offset, if it has one.
    pub committed: Option<Offset>,
    /// The last stable offset, where it is known: what lies behind it waits for a transaction that is open, and who reads
    /// only what is committed is not given it (Kafka's KIP-98).
    pub last_stable: Option<Offset>,
}

impl Seen {
    /// LAG, in offsets; `None` without a committed offset.
    pub fn lag(&self) -> Option<i64> {
        Some(self.bounds.log_end.get().saturating_sub(self.committed?.get()))
    }

    /// READABLE, in offsets. A group without a committed offset has all of the log before it; what waits for an open
    /// transaction is not readable for who reads only what is committed.
    pub fn readable(&self) -> u64 {
        self.left_from(self.committed.unwrap_or(self.bounds.log_start))
    }

    /// EXPIRED, in offsets.
    pub fn expired(&self) -> u64 {
        self.committed.map_or(0, |committed| self.bounds.log_start.since(committed))
    }

    fn left_from(&self, offset: Offset) -> u64 {
        let end = self.last_stable.map_or(self.bounds.log_end, |stable| stable.min(self.bounds.log_end));
        end.since(offset.max(self.bounds.log_start))
    }
}

/// What the process knows of one partition's consumer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The consumer as a whole.
    pub consumer: &'a Snapshot,
    /// The partition; `None` if the consumer does not know it yet.
    pub part: Option<&'a PartProgress>,
    /// The sink that its records go to.
    pub sink: &'a str,
    /// What that sink's lane is doing.
    pub lane: &'a LaneState,
    /// Why nothing of the topic is written for now, by its `on_failure`.
    pub stopped: Option<&'a Since<String>>,
}

/// How much there is to read, and how it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// READABLE now.
    pub readable: u64,
    /// READABLE at the earlier sample.
    pub before: u64,
    /// Offsets that the group's committed offset went on by in between.
    pub consumed: u64,
    /// The time in between.
    pub within: Duration,
}

impl Pace {
    /// How long it takes to read what is there, as fast as it went; `None` if nothing was committed.
    pub fn behind(&self) -> Option<Duration> {
        let ratio = self.readable as f64 / self.consumed as f64;
        Duration::try_from_secs_f64(self.within.as_secs_f64() * ratio).ok()
    }
}

/// How a partition is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is read: empty polls are normal.
    Idle,
    /// The partition holds nothing, be it that it never did, or that retention took all.
    Empty,
    /// Everything is read and delivered, but the group does not have it yet.
    Uncommitted {
        /// READABLE, as seen from the group.
        readable: u64,
        /// Why commits fail, if that is known.
        fault: Option<Fault>,
    },
    /// Behind, and moving at least as fast as it is written to, or behind by some seconds only.
    CatchingUp(Pace),
    /// Behind, and there is more to read than before.
    FallingBack(Pace),
    /// There is something to read, and nothing has moved, but for so short a time that it means nothing: what
    /// is delivered is committed only now and then. Only [`Verdict::patient`] says so.
    Behind {
        /// READABLE.
        readable: u64,
        /// How long nothing has moved, at least.
        still: Duration,
    },
    /// The group has no committed offset, and no consumer is known: the next start goes by `auto_offset_reset`.
    NotStarted {
        /// READABLE: all of the log.
        readable: u64,
    },
    /// There is something to read, and nothing moves.
    Stalled {
        /// READABLE.
        readable: u64,
        /// How long nothing has moved, at least.
        still: Duration,
        /// Why.
        reason: Reason,
    },
    /// The committed offset is outside the log, and nobody reads: the next start will have to choose.
    OutOfRange {
        /// The committed offset.
        committed: Offset,
        /// What it is outside of.
        bounds: Bounds,
    },
    /// It is paused: nobody reads it, and that is as it should be.
    Paused {
        /// READABLE.
        readable: u64,
        /// EXPIRED.
        expired: u64,
    },
    /// Another worker reads it, by this one's `partitions` or `instance`: how it is doing is told there.
    Elsewhere {
        /// READABLE.
        readable: u64,
    },
    /// The topic does not exist.
    Missing,
    /// The cluster did not say.
    Unknown(Fault),
}

/// Why nothing moves, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The consumer's thread has been doing this for so long.
    Thread(Phase, Duration),
    /// What an earlier run of the consumer handed over is still with the sink.
    Settling(Duration),
    /// Its first position is not committed yet, for this reason.
    Held(Option<Fault>),
    /// It stopped by `on_out_of_range = "stop"`.
    Stopped(Offset),
    /// It can't be read.
    Failing(Fault, Duration),
    /// Records are handed over, and the sink does not finish them.
    Sink {
        /// The sink's name.
        sink: String,
        /// How long nothing has come back from it.
        waiting: Duration,
        /// The budget is used up by other partitions or topics of the same consumer.
        by_others: bool,
        /// What the sink says.
        error: Option<String>,
    },
    /// Records are handed over, and no sink has them: the dispatcher holds them.
    Dispatcher(Duration),
    /// The client as a whole is in trouble.
    Trouble(Fault, Duration),
    /// A call to a broker has not come back for so long.
    Call(&'static str, Duration),
    /// Commits fail, and nothing else explains it: as much is delivered without one as may be.
    Commits(Fault, Duration),
    /// The consumer does not know the partition yet.
    NotAssigned,
    /// Nothing that is known explains it.
    Unexplained,
}

impl Reason {
    /// Whether the cause is the consumer's own, so that a new run of it may help: its thread or its calls
    /// do not come back, or nothing outside explains it.
    pub fn is_consumers_own(&self) -> bool {
        match self {
            Self::Thread(..) | Self::Call(..) | Self::Unexplained => true,
            Self::Trouble(fault, _) => matches!(fault, Fault::Deadline { .. } | Fault::Stuck { .. }),
            Self::Settling(_)
            | Self::Held(_)
            | Self::Stopped(_)
            | Self::Failing(..)
            | Self::Sink { .. }
            | Self::Dispatcher(_)
            | Self::Commits(..)
            | Self::NotAssigned => false,
        }
    }
}

/// How the partition is doing. `earlier`: a sample from before; the further back, the longer a stall is
/// known for. `view`: what its consumer tells of itself; `None` where no consumer is known.
pub fn verdict(earlier: &Sample, now: &Sample, view: Option<&View<'_>>) -> Verdict {
    let seen = match &now.seen {
        Ok(seen) => seen,
        Err(Fault::TopicMissing { .. }) => return Verdict::Missing,
        Err(fault) => return Verdict::Unknown(fault.clone()),
    };
    if view.is_some_and(|view| view.consumer.phase.what == Phase::Paused) {
        return Verdict::Paused { readable: seen.readable(), expired: seen.expired() };
    }
    let before = earlier.seen.as_ref().ok();
    let within = now.at.saturating_duration_since(earlier.at);
    let consumed = match before.map(|before| before.committed) {
        Some(committed) if committed != seen.committed => Some(
            // A group that is set back has moved, if not forward.
            committed.zip(seen.committed).map_or(0, |(from, to)| to.since(from)),
        ),
        _ => None,
    };
    let part = view.and_then(|view| view.part);
    // What its consumer delivers counts, where that is known: commits come later, or fail.
    let moved = match part {
        Some(part) => part.moved.is_some_and(|at| at > earlier.at),
        None => consumed.is_some(),
    };
    if let Some(committed) = seen.committed.filter(|committed| !seen.bounds.contain(*committed))
        && !moved
        && view.is_none()
    {
        return Verdict::OutOfRange { committed, bounds: seen.bounds };
    }
    let readable = seen.readable();
    if readable == 0 {
        let empty = seen.bounds.log_start == seen.bounds.log_end;
        return if empty { Verdict::Empty } else { Verdict::Idle };
    }
    let left = part.and_then(|part| part.acknowledged).map(|done| seen.left_from(done));
    if let Some(view) = view {
        let fault = view.consumer.commit.as_ref().map(|commit| commit.what.clone());
        let delivers = moved && left.is_some_and(|left| left < readable);
        if left == Some(0) || (delivers && fault.is_some()) {
            return Verdict::Uncommitted { readable, fault };
        }
    }
    if seen.committed.is_none() && !moved && view.is_none() {
        return Verdict::NotStarted { readable };
    }
    let earlier_readable = before.map_or(readable, Seen::readable);
    if !moved && earlier_readable > 0 {
        let reason = view.map_or(Reason::Unexplained, |view| reason(view, now.at, within));
        return Verdict::Stalled { readable: left.unwrap_or(readable).min(readable), still: within, reason };
    }
    let pace = Pace { readable, before: earlier_readable, consumed: consumed.unwrap_or(0), within };
    // A topic that is written to steadily is always a little behind, now more, now less.
    let noticeable = pace.behind().is_none_or(|behind| behind >= NOTICEABLE);
    if readable > earlier_readable && noticeable { Verdict::FallingBack(pace) } else { Verdict::CatchingUp(pace) }
}

/// Whether the thread has not come back for `long`: what it is doing, and for how long.
pub fn stuck(consumer: &Snapshot, now: Instant, long: Duration) -> Option<Reason> {
    let lasts = now.saturating_duration_since(consumer.phase.since);
    match consumer.phase.what {
        phase @ (Phase::Working | Phase::HandingOver) if lasts >= long => Some(Reason::Thread(phase, lasts)),
        _ => None,
    }
}

/// Why a partition does not move that has not for `still`. What explains most comes first.
fn reason(view: &View<'_>, now: Instant, still: Duration) -> Reason {
    let consumer = view.consumer;
    let since = |at: Instant| now.saturating_duration_since(at);
    // What began in the first half of the stall may have caused it; later, it is one of many.
    let long = still / 2;
    if let Some(stuck) = stuck(consumer, now, long) {
        return stuck;
    }
    if consumer.phase.what == Phase::Settling {
        return Reason::Settling(since(consumer.phase.since));
    }
    let sink = |waiting: Instant, by_others: bool| {
        let error = view.stopped.or(view.lane.trouble.as_ref()).map(|trouble| trouble.what.clone());
        Reason::Sink { sink: view.sink.to_owned(), waiting: since(waiting), by_others, error }
    };
    let trouble = consumer.trouble.as_ref().map(|t| Reason::Trouble(t.what.clone(), since(t.since)));
    let Some(part) = view.part else { return trouble.unwrap_or(Reason::NotAssigned) };
    match part.state {
        State::Held => return Reason::Held(consumer.commit.as_ref().map(|commit| commit.what.clone())),
        State::Stopped(at) => return Reason::Stopped(at),
        State::Gone => return trouble.unwrap_or(Reason::NotAssigned),
        State::Reading => {}
    }
    if let Some(waiting) = part.unacknowledged {
        let idle_lane = view.lane.busy.is_none() && view.lane.trouble.is_none() && view.stopped.is_none();
        return if idle_lane { Reason::Dispatcher(since(waiting)) } else { sink(waiting, false) };
    }
    if let Some(fault) = &part.fault {
        return Reason::Failing(fault.what.clone(), since(fault.since));
    }
    if let Some(full) = consumer.full {
        return sink(full, true);
    }
    if let Some(trouble) = trouble {
        return trouble;
    }
    match (&consumer.call, &consumer.commit) {
        (Some(call), _) if since(call.since) >= long => Reason::Call(call.what, since(call.since)),
        (_, Some(commit)) if since(commit.since) >= long => Reason::Commits(commit.what.clone(), since(commit.since)),
        _ => Reason::Unexplained,
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
