//! A verdict in words: one word for programs, a line for an operator.

use std::fmt;
use std::time::Duration;

use super::{Pace, Reason, Verdict};
use crate::progress::Phase;

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readable, before, consumed, within } = self;
        write!(f, "readable={readable} before={before} consumed={consumed} within_ms={}", within.as_millis())
    }
}

impl Verdict {
    /// Its word, for programs: one of this list, which does not change.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Empty => "empty",
            Self::Uncommitted { .. } => "uncommitted",
            Self::Behind { .. } => "behind",
            Self::NotStarted { .. } => "not-started",
            Self::CatchingUp(_) => "catching-up",
            Self::FallingBack(_) => "falling-back",
            Self::Stalled { .. } => "stalled",
            Self::OutOfRange { .. } => "out-of-range",
            Self::Paused { .. } => "paused",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Missing => "missing",
            Self::Unknown(fault) if fault.is_refusal() => "failing",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The same for who has looked for a short time only: `grace` is how long a consumer that works well may
    /// go without a commit. A shorter stall means nothing yet, nor does it to be behind by less than that.
    #[must_use]
    pub fn patient(self, grace: Duration) -> Self {
        match self {
            Self::Stalled { readable, still, .. } if still < grace => Self::Behind { readable, still },
            Self::FallingBack(pace) if pace.behind().is_some_and(|behind| behind < grace) => Self::CatchingUp(pace),
            // Nothing was readable before, so it is all younger than the time in between.
            Self::FallingBack(Pace { readable, before: 0, consumed: 0, within }) if within < grace => {
                Self::Behind { readable, still: within }
            }
            other => other,
        }
    }
}

/// In an operator's words, with what it rests on.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle: everything is read"),
            Self::Empty => f.write_str("empty topic: there is no record in it"),
            Self::Uncommitted { readable, fault: None } => {
                write!(f, "delivered, not committed yet: readable={readable}")
            }
            Self::Uncommitted { readable, fault: Some(fault) } => {
                write!(f, "delivered, commits fail: readable={readable} error=\"{fault}\"")
            }
            Self::CatchingUp(pace) => write!(f, "behind and catching up: {pace}"),
            Self::FallingBack(pace) => write!(f, "behind and falling back: {pace}"),
            Self::Behind { readable, still } => {
                write!(f, "behind: readable={readable} no_progress_ms={}, too short to tell", still.as_millis())
            }
            Self::NotStarted { readable } => write!(f, "not started: readable={readable}, no committed offset"),
            Self::Stalled { readable, still, reason } => {
                write!(f, "stalled: readable={readable} no_progress_ms={} reason=\"{reason}\"", still.as_millis())
            }
            Self::OutOfRange { committed, bounds } => {
                write!(f, "out of range at next start: committed={committed} {bounds}")
            }
            Self::Paused { readable, expired } => {
                write!(f, "paused: readable={readable} expired={expired}")
            }
            Self::Elsewhere { readable } => write!(f, "read by another worker: readable={readable}"),
            Self::Missing => f.write_str("missing: the topic does not exist"),
            Self::Unknown(fault) => write!(f, "{}: {fault}", self.word()),
        }
    }
}

/// In an operator's words.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = Duration::as_millis;
        match self {
            Self::Thread(Phase::HandingOver, lasts) => {
                write!(f, "the consumer's thread has been handing over to the dispatcher for {} ms", ms(lasts))
            }
            Self::Thread(_, lasts) => {
                write!(f, "the consumer's thread has not come back from its client for {} ms", ms(lasts))
            }
            Self::Settling(lasts) => write!(
                f,
                "the consumer starts again, and has waited {} ms for the sink to finish what it handed over before",
                ms(lasts)
            ),
            Self::Held(None) => f.write_str("its first position is not committed yet"),
            Self::Held(Some(fault)) => write!(f, "its first position can't be committed: {fault}"),
            Self::Stopped(at) => {
                write!(
                    f,
                    "it stopped at offset {at}, which is out of range (on_out_of_range is stop): set an offset for the group and restart, or choose another policy"
                )
            }
            Self::Failing(fault, lasts) => write!(f, "it can't be read for {} ms: {fault}", ms(lasts)),
            Self::Sink { sink, waiting, by_others, error } => {
                let what = if *by_others {
                    "other records of this consumer, which take all of its memory.limit or batches,"
                } else {
                    "its records"
                };
                write!(f, "{what} have waited {} ms for sink {sink}", ms(waiting))?;
                match error {
                    Some(error) => write!(f, ", which fails: {error}"),
                    None => f.write_str(", which is slow, or busy with what came before"),
                }
            }
            Self::Dispatcher(waiting) => write!(
                f,
                "its records have waited {} ms in the dispatcher: the gate is closed, or it does not move",
                ms(waiting)
            ),
            Self::Trouble(fault, lasts) => write!(f, "the client has been in trouble for {} ms: {fault}", ms(lasts)),
            Self::Call(call, lasts) => write!(f, "{call} has not come back from the broker for {} ms", ms(lasts)),
            Self::Commits(fault, lasts) => write!(
                f,
                "commits have failed for {} ms, and nothing more is fetched beyond commit.max_uncommitted: {fault}",
                ms(lasts)
            ),
            Self::NotAssigned => {
                f.write_str("the consumer does not know the partition yet; it looks every kafka.metadata_max_age_ms")
            }
            Self::Unexplained => f.write_str("nothing that is known explains it"),
        }
    }
}
