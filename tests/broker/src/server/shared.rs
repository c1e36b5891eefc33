//! The one lock of a cluster, and the two conditions on which its threads and its tests wait.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::state::State;

/// What all threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Signalled when logs, leaders or running brokers have changed: what a request waits for.
    pub(super) changed: Condvar,
    /// Signalled after every change, requests that came in included: what a test waits for.
    pub(super) noted: Condvar,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Condvar::new(), noted: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test's closure in `with_log` must not fail every other thread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, which is looked at after each `signal`, at most until `deadline`. Says
    /// whether it was.
    pub(super) fn wait_until(&self, signal: &Condvar, deadline: Instant, done: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = signal.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Changes logs, leaders or running brokers, and wakes everyone.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = self.note(change);
        self.changed.notify_all();
        result
    }

    /// Changes what no request waits for.
    pub(super) fn note<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.noted.notify_all();
        result
    }
}
