//! What becomes of a record that its sink does not take.
//!
//! Owns the policies of the topics and the place for dead letters; the lanes ask here. What always holds: a record
//! leaves its lane undelivered only by the word of a policy, and is then counted and in the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::dead_letter::{Destination, Letter};

/// How a lane says that it waits for the place of dead letters; the reason follows.
pub const LETTERS_FAIL: &str = "dead letters can't be written";

/// What becomes of a record that a sink rejects, or does not take within the bounds of its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It and all behind it in its topic wait, until the sink's files are opened anew (SIGHUP) or the worker is
    /// started again: then it is tried again. Other topics go on.
    Stop,
    /// It is written to the dead letters, and counts as done when it is safe there.
    DeadLetter,
    /// It is left out: counted, and in the log.
    Drop,
}

/// How often, for how long and how a sink is tried with the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many tries, the first one included; 0: without end.
    pub attempts: u32,
    /// For how long after the first failure; zero: without end.
    pub total: Duration,
    /// The longest wait before the second try. It doubles from try to try.
    pub first: Duration,
    /// The longest wait of all.
    pub longest: Duration,
    /// What becomes of the record then.
    pub on_failure: OnFailure,
}

impl Default for Policy {
    /// That of a topic nobody has said anything of: nothing is given up.
    fn default() -> Self {
        Self {
            attempts: 0,
            total: Duration::ZERO,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            on_failure: OnFailure::Stop,
        }
    }
}

impl Policy {
    /// Whether so many tries within this time after the first failure are all that there are.
    pub fn is_exhausted(&self, attempts: u32, since: Duration) -> bool {
        (self.attempts > 0 && attempts >= self.attempts) || (!self.total.is_zero() && since >= self.total)
    }
}

/// See the module's text. Shared by all lanes.
#[derive(Default)]
pub struct Failures {
    policies: Mutex<HashMap<Arc<str>, Policy>>,
    letters: Mutex<Option<Destination>>,
}

impl Failures {
    /// These policies hold from now on.
    pub fn set_policies(&self, policies: impl IntoIterator<Item = (Arc<str>, Policy)>) {
        *lock(&self.policies) = policies.into_iter().collect();
    }

    /// Dead letters go there from now on; `None`: there is no place for them.
    pub fn set_letters(&self, to: Option<Destination>) {
        *lock(&self.letters) = to;
    }

    /// The policy of a topic.
    pub fn policy(&self, topic: &str) -> Policy {
        lock(&self.policies).get(topic).copied().unwrap_or_default()
    }

    /// Writes dead letters. With `Ok` they are safe.
    ///
    /// # Errors
    /// The reason, in words for the log; then none of them counts as written.
    pub fn bury<'a>(&self, letters: impl Iterator<Item = Letter<'a>>) -> Result<(), String> {
        match &mut *lock(&self.letters) {
            Some(to) => to.put(letters),
            // A reload has taken the place away while a record was on its way there.
            None => Err("there is no [dead_letter] in the configuration any more; write it again".to_owned()),
        }
    }

    /// Opens the file of dead letters anew, if its name now means another one.
    ///
    /// # Errors
    /// The reason; the open file is written on.
    pub fn reopen(&self) -> Result<(), String> {
        lock(&self.letters).as_mut().map_or(Ok(()), Destination::reopen)
    }
}

/// What is guarded is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_ends_by_its_tries_or_by_its_time_and_by_nothing_else() {
        let endless = Policy::default();
        assert!(!endless.is_exhausted(u32::MAX, Duration::MAX));
        let tries = Policy { attempts: 3, ..endless };
        assert!(!tries.is_exhausted(2, Duration::MAX));
        assert!(tries.is_exhausted(3, Duration::ZERO));
        let time = Policy { total: Duration::from_secs(1), ..endless };
        assert!(!time.is_exhausted(u32::MAX, Duration::from_millis(999)));
        assert!(time.is_exhausted(1, Duration::from_secs(1)));
    }
}
