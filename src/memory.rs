//! The reserve, the part of `memory.limit` that no consumer owns; and what a consumer's answers hold.
//!
//! Three quarters of the limit are divided into shares, one a consumer; the last quarter is lent,
//! first come first served, to one fetch at a time that is larger than its consumer's share. So two
//! hundred topics and a record of 20 MB fit in the same limit.
//!
//! Knows no Kafka and no clock (time is a parameter), and never waits. Invariants:
//! - there is one [`Loan`] at a time, for the whole reserve;
//! - a loan can't be lost: it is given back by being dropped, and it travels with what it pays for:
//!   in the call that fetches, then in the arena of the records. So it comes back when the last
//!   record is done or thrown away, when a fetch fails, and when a thread that nobody waits for any
//!   more comes to its end; never earlier than the memory itself;
//! - nobody waits in vain: when the reserve becomes free, or the first in line leaves, the one who is
//!   first then is woken. If it does not come within [`LOOK_AGAIN`], it goes to the end of the line;
//! - a place in line is given up by being dropped.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

/// Who stands in line asks again after this at the latest, and who is first has this long to come. It
/// is longer than a broker holds a fetch of somebody who stands in line.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A loan that is out for so long is told to the log: a sink that stands still may hold it.
const LONG: Duration = Duration::from_secs(30);

/// The reserve of the process; clones are handles of the same one.
#[derive(Clone)]
pub struct Reserve(Arc<Shared>);

struct Shared {
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lent: Option<Lent>,
    /// Since when the first in line is known not to have come, though the reserve is free.
    offered: Option<Instant>,
    line: VecDeque<Standing>,
    next: u64,
}

struct Lent {
    to: String,
    since: Instant,
    told: bool,
}

struct Standing {
    number: u64,
    wake: Sender<()>,
}

impl State {
    fn is_first(&self, number: u64) -> bool {
        self.line.front().is_some_and(|first| first.number == number)
    }

    /// The reserve is there for the first in line from now on.
    fn offer(&mut self) {
        self.offered = None;
        if let Some(first) = self.line.front() {
            // Full means that a wake-up is already on its way.
            let _ = first.wake.try_send(());
        }
    }
}

impl Reserve {
    /// A reserve of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared { bytes, state: Mutex::default() }))
    }

    /// How large it is: the largest fetch that it can be lent for.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Stands in line for it. `who` is told to others while it has the loan; `wake` gets a message when
    /// it is its turn, unless one is still waiting there.
    pub fn line_up(&self, who: &str, wake: Sender<()>) -> Place {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.line.push_back(Standing { number, wake });
        drop(state);
        Place { reserve: self.clone(), number, who: who.to_owned() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock panics half way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether both are handles of the same one.
impl PartialEq for Reserve {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Reserve {}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserve({})", self.0.bytes)
    }
}

/// A place in line. Dropped, it is given up.
#[derive(Debug)]
pub struct Place {
    reserve: Reserve,
    number: u64,
    who: String,
}

/// A loan that has been out for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongLoan {
    /// Who has it.
    pub to: String,
    /// For how long.
    pub held: Duration,
}

impl Place {
    /// The loan, if the reserve is free and it is this one's turn.
    ///
    /// # Errors
    /// Not yet: the place is kept.
    pub fn take(self, now: Instant) -> Result<Loan, Self> {
        let mut state = self.reserve.state();
        if state.lent.is_none() && !state.is_first(self.number) {
            let offered = *state.offered.get_or_insert(now);
            if now.saturating_duration_since(offered) >= LOOK_AGAIN {
                state.line.rotate_left(1);
                state.offer();
                state.offered = Some(now);
            }
        }
        if state.lent.is_some() || !state.is_first(self.number) {
            drop(state);
            return Err(self);
        }
        state.line.pop_front();
        state.offered = None;
        state.lent = Some(Lent { to: self.who.clone(), since: now, told: false });
        drop(state);
        Ok(Loan { reserve: self.reserve.clone() })
    }

    /// Who has had the loan for long, told to one of those who wait, once a loan.
    pub fn long_loan(&self, now: Instant) -> Option<LongLoan> {
        let mut state = self.reserve.state();
        let lent = state.lent.as_mut()?;
        let held = now.saturating_duration_since(lent.since);
        if lent.told || held < LONG {
            return None;
        }
        lent.told = true;
        Some(LongLoan { to: lent.to.clone(), held })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.reserve.state();
        let first = state.is_first(self.number);
        // Gone already if it has become a loan.
        state.line.retain(|standing| standing.number != self.number);
        if first && state.lent.is_none() {
            state.offer();
        }
    }
}

/// The reserve, lent. Dropped, it is given back.
#[derive(Debug)]
pub struct Loan {
    reserve: Reserve,
}

impl Loan {
    /// How much memory it is.
    pub fn bytes(&self) -> usize {
        self.reserve.bytes()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut state = self.reserve.state();
        state.lent = None;
        state.offer();
    }
}

/// What the answers of one consumer hold, in bytes: each counts as a whole until the last of its
/// records is done. Clones are handles of the same count.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<AtomicUsize>);

impl Held {
    /// How much that is.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Another answer. It counts until its last handle is dropped.
    pub fn answer(&self) -> Arc<Answer> {
        Arc::new(Answer { total: Arc::clone(&self.0), bytes: AtomicUsize::new(0) })
    }
}

/// One answer's part of a [`Held`].
#[derive(Debug)]
pub struct Answer {
    total: Arc<AtomicUsize>,
    bytes: AtomicUsize,
}

impl Answer {
    /// The answer holds so much more.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.total.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
