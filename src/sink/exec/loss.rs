//! A handler that lives long is lost: why, in words for the log and for the lane, and what is no loss. Pure.

use std::fmt;
use std::time::Duration;

use super::answers::Nonsense;
use super::process::Ending;

/// Why a handler can't be used any more.
#[derive(Debug)]
pub(super) enum Cause {
    Ended,
    ClosedInput,
    ClosedOutput,
    Silent,
    /// The same, and it has not answered before.
    NotReady,
    Nonsense(Nonsense),
}

/// A handler that was lost.
pub(super) struct Loss {
    pub(super) cause: Cause,
    pub(super) pid: i32,
    pub(super) ending: Ending,
    /// So many records it had been given without an answer.
    pub(super) owed: usize,
    pub(super) timeout: Duration,
    pub(super) start_timeout: Duration,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, pid, ending, owed, timeout, start_timeout } = self;
        write!(f, "the handler (process {pid}) ")?;
        match cause {
            Cause::Ended => write!(f, "ended with {owed} records not answered"),
            Cause::ClosedInput => write!(
                f,
                "closed its standard input with {owed} records not answered, and was ended; it has to read to the end"
            ),
            Cause::ClosedOutput => {
                write!(f, "closed its standard output with {owed} records not answered, and was ended")
            }
            Cause::Silent => write!(
                f,
                "gave no answer for timeout_ms={} with {owed} records not answered, and was killed; it has to answer \
                 what it was given without waiting for more, and to flush its output behind each answer; or raise \
                 timeout_ms, or lower max_batch_records",
                timeout.as_millis()
            ),
            Cause::NotReady => write!(
                f,
                "gave no answer for start_timeout_ms={} since its start, with {owed} records not answered, and was \
                 killed; it has to answer what it was given without waiting for more, and to flush its output behind \
                 each answer; or, if it takes so long to start, raise start_timeout_ms",
                start_timeout.as_millis()
            ),
            Cause::Nonsense(nonsense) => write!(f, "answers nonsense, and was killed: {nonsense}"),
        }?;
        write!(f, " ({ending})")
    }
}

impl Loss {
    /// Whether it is none, and nobody has to hear of it: one that ends with exit code 0 now and then, having done
    /// something, does so on purpose; and one that ended while there was nothing for it to do has lost nothing.
    pub(super) fn is_none(&self, has_worked: bool, fresh: bool) -> bool {
        let well = self.ending.by_itself && self.ending.status.is_some_and(|status| status.success());
        matches!(self.cause, Cause::Ended) && ((well && has_worked) || (!fresh && self.owed == 0))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn loss(cause: Cause, code: i32, owed: usize) -> Loss {
        let ending = Ending { status: Some(ExitStatus::from_raw(code << 8)), by_itself: true, last_words: None };
        Loss { cause, pid: 1, ending, owed, timeout: Duration::ZERO, start_timeout: Duration::ZERO }
    }

    #[test]
    fn which_end_is_no_loss() {
        assert!(loss(Cause::Ended, 0, 7).is_none(true, true));
        assert!(loss(Cause::Ended, 3, 0).is_none(false, false));
        // Without an answer it would be a loop.
        assert!(!loss(Cause::Ended, 0, 7).is_none(false, true));
        assert!(!loss(Cause::Ended, 3, 7).is_none(true, false));
        // It may end well by itself before it could be killed, and it was nonsense all the same.
        let nonsense = Cause::Nonsense(Nonsense("x".to_owned()));
        assert!(!loss(nonsense, 0, 7).is_none(true, true));
        assert!(!loss(Cause::Silent, 0, 7).is_none(true, true));
    }
}
