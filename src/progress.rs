//! What the threads tell of themselves, for whoever watches them: the observer, the supervisor.
//!
//! Owns no thread and decides nothing. Invariants:
//! - a [`Progress`] is written by the one consumer thread it belongs to, and is for reading to all
//!   others; a consumer that is started again has a new one, so that an earlier run that still hangs
//!   somewhere can't speak for it;
//! - telling is cheap: the phase is one store, all the rest is written a few times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{Call, Event, Fault};
use crate::consumer::Report;
use crate::consumer::part::{Part, Place};
use crate::memory::Held;
use crate::record::{Offset, TopicPartition};

mod board;
pub mod counts;

pub use board::{Board, Entry};

use counts::Counts;

/// How often a consumer publishes what is not told by every turn of its loop. Watchers look every few
/// seconds; what is older than this is nobody's news.
pub const EVERY: Duration = Duration::from_millis(100);

/// That a thread's loop still turns.
#[derive(Debug)]
pub struct Pulse {
    base: Instant,
    /// Milliseconds from `base` to the last turn.
    last: AtomicU64,
}

impl Pulse {
    /// It turns now.
    pub fn new(now: Instant) -> Self {
        Self { base: now, last: AtomicU64::new(0) }
    }

    /// Another turn.
    pub fn beat(&self, now: Instant) {
        let ms = u64::try_from(now.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX);
        // Nothing else is read by whoever reads it, so no order with other memory is needed.
        self.last.store(ms, Ordering::Relaxed);
    }

    /// How long ago the last turn was.
    pub fn still(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.base + Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// Something, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since<T> {
    /// What it is.
    pub what: T,
    /// When it began.
    pub since: Instant,
}

/// What a consumer's thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It works: it decides, or is inside its client. Never takes long.
    Working,
    /// It waits for its client, acks, the stop, or a time. May take as long as it likes.
    Waiting,
    /// It hands batches over to the dispatcher, which takes them at once.
    HandingOver,
    /// It waits until what its earlier run, or the one whose place it takes, handed over is delivered or
    /// given up.
    Settling,
    /// It does not run: its topics are paused.
    Paused,
}

/// Where a partition stands, as its consumer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first position is chosen, and waits to be committed.
    Held,
    /// It is being read.
    Reading,
    /// It stopped here, by `on_out_of_range = "stop"`.
    Stopped(Offset),
    /// The topic no longer has it.
    Gone,
}

/// One partition's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartProgress {
    /// The partition, and what its delivery has come to so far.
    pub report: Report,
    /// Where it stands.
    pub state: State,
    /// The next offset to be delivered, while it is read.
    pub position: Option<Offset>,
    /// Everything below it is done, while it is read.
    pub acknowledged: Option<Offset>,
    /// When its position, or what is done of it, last went on in this run. Where a run begins is no progress.
    pub moved: Option<Instant>,
    /// Records are in flight, and since then none of them was acknowledged.
    pub unacknowledged: Option<Instant>,
    /// Why it can't be read at present.
    pub fault: Option<Since<Fault>>,
}

/// All that a consumer has published, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What the thread is doing.
    pub phase: Since<Phase>,
    /// The client as a whole is in trouble.
    pub trouble: Option<Since<Fault>>,
    /// Commits fail.
    pub commit: Option<Since<Fault>>,
    /// Somebody else commits in its group.
    pub shared: Option<Since<String>>,
    /// What is in flight takes all of the budget, so that nothing is fetched.
    pub full: Option<Instant>,
    /// The call to the brokers that has been under way for longest.
    pub call: Option<Call>,
    /// Its partitions, in the order in which it met them.
    pub parts: Vec<PartProgress>,
    /// Why partitions can't be read, also of those that can't be started and so are not among its partitions.
    pub faults: Vec<(TopicPartition, Since<Fault>)>,
}

impl Snapshot {
    /// What is known of one partition; `None` if the consumer does not know it yet.
    pub fn part(&self, partition: &TopicPartition) -> Option<&PartProgress> {
        self.parts.iter().find(|part| part.report.partition == *partition)
    }
}

#[derive(Default)]
struct Told {
    trouble: Option<Since<Fault>>,
    commit: Option<Since<Fault>>,
    shared: Option<Since<String>>,
    full: Option<Instant>,
    call: Option<Call>,
    parts: Vec<PartProgress>,
    /// Faults of partitions, which may be told before the partition is published for the first time.
    faults: Vec<(TopicPartition, Since<Fault>)>,
}

/// What one run of a consumer tells of itself.
pub struct Progress {
    run: u32,
    born: Instant,
    /// Milliseconds since `born`, and the phase in the three lowest bits: one number, so that they agree.
    phase: AtomicU64,
    batches: AtomicUsize,
    held: OnceLock<Held>,
    told: Mutex<Told>,
    counts: Arc<Counts>,
}

const PHASES: [Phase; 5] = [Phase::Working, Phase::Waiting, Phase::HandingOver, Phase::Settling, Phase::Paused];

impl Progress {
    /// Run `run` of a consumer, from 0, which begins at `born`, with `counts` of all its runs.
    pub fn new(run: u32, born: Instant, counts: Arc<Counts>) -> Self {
        let (phase, batches, told) = (AtomicU64::new(0), AtomicUsize::new(0), Mutex::default());
        Self { run, born, phase, batches, held: OnceLock::new(), told, counts }
    }

    /// What the consumer has come to in all its runs.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The number of the run.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// When the run began.
    pub fn born(&self) -> Instant {
        self.born
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        // Every change of it is complete in itself, whatever its thread died of.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread begins to do this.
    pub fn enter(&self, phase: Phase) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX >> 3);
        let number = PHASES.iter().position(|p| *p == phase).unwrap_or(0) as u64;
        self.phase.store(ms << 3 | number, Ordering::Relaxed);
    }

    /// So many batches are handed over, or about to be, and not acknowledged.
    pub fn set_batches(&self, in_flight: usize) {
        self.batches.store(in_flight, Ordering::Relaxed);
    }

    /// See [`Progress::set_batches`].
    pub fn batches(&self) -> usize {
        self.batches.load(Ordering::Relaxed)
    }

    /// Where it can be seen what the client's answers hold.
    pub fn set_held(&self, held: Held) {
        // A run has one client.
        let _ = self.held.set(held);
    }

    /// What the client's answers hold, in bytes; `None` if that is not known.
    pub fn held(&self) -> Option<usize> {
        self.held.get().map(Held::bytes)
    }

    /// What the thread is doing, and since when.
    pub fn phase(&self) -> Since<Phase> {
        let phase = self.phase.load(Ordering::Relaxed);
        let (what, since) = (PHASES[(phase & 7) as usize], self.born + Duration::from_millis(phase >> 3));
        Since { what, since }
    }

    /// The client is in trouble; or it is over.
    pub fn set_trouble(&self, fault: Option<&Fault>) {
        begin_or_end(&mut self.told().trouble, fault);
    }

    /// Takes over what an event says of faults.
    pub fn event(&self, event: &Event) {
        match event {
            Event::Connected => self.set_trouble(None),
            Event::Failing(partition, fault) => self.set_fault(partition, Some(fault)),
            Event::Recovered(partition) => self.set_fault(partition, None),
            Event::Lost(partitions, _) => partitions.iter().for_each(|partition| self.set_fault(partition, None)),
            Event::Committed(answer) => self.set_commit(answer.as_ref().err()),
            // Also those that were never started, of which no loss is told.
            Event::Missing(topic) => self.told().faults.retain(|(name, _)| name.topic != *topic),
            Event::Assigned(_)
            | Event::Unstarted(..)
            | Event::NoneHeld(_)
            | Event::OtherWorker(..)
            | Event::Span(_)
            | Event::OutOfRange { .. }
            | Event::ReadBack(_)
            | Event::Revoking(_)
            | Event::TopicId(..) => {}
        }
    }

    /// A commit failed, or succeeded.
    pub fn set_commit(&self, failed: Option<&Fault>) {
        begin_or_end(&mut self.told().commit, failed);
    }

    /// Somebody else commits in the group, in these words; or no longer does.
    pub fn set_shared(&self, why: Option<&str>) {
        let shared = &mut self.told().shared;
        if shared.as_ref().map(|shared| shared.what.as_str()) != why {
            let since = shared.as_ref().map_or_else(Instant::now, |earlier| earlier.since);
            *shared = why.map(|why| Since { what: why.to_owned(), since });
        }
    }

    /// A partition can't be read, or is read again.
    pub fn set_fault(&self, partition: &TopicPartition, fault: Option<&Fault>) {
        let mut told = self.told();
        let earlier = told.faults.iter().position(|(name, _)| name == partition);
        let mut since = earlier.map(|index| told.faults.swap_remove(index).1);
        begin_or_end(&mut since, fault);
        told.faults.extend(since.map(|since| (partition.clone(), since)));
    }

    /// Publishes where the partitions stand at `now`. `full`: the budget is used up. `parts` is always
    /// the same list, which only grows.
    pub fn publish(&self, parts: &[Part], full: bool, call: Option<Call>, now: Instant) {
        let mut told = self.told();
        told.full = if full { told.full.or(Some(now)) } else { None };
        told.call = call;
        for (index, part) in parts.iter().enumerate() {
            let new = part_progress(part, told.parts.get(index), now);
            self.count(told.parts.get(index).map(|old| &old.report), &new.report);
            match told.parts.get_mut(index) {
                Some(old) => *old = new,
                None => told.parts.push(new),
            }
        }
    }

    /// Adds what a partition's delivery has come to since it was published last.
    fn count(&self, old: Option<&Report>, new: &Report) {
        let Some(counts) = self.counts.topic(&new.partition.topic) else { return };
        let more = |of: fn(&Report) -> u64| of(new).saturating_sub(old.map_or(0, of));
        counts.delivered.add(more(|report| report.delivered));
        counts.expired.add(more(|report| report.expired));
        counts.reset.add(more(|report| report.reset));
    }

    /// All that was published.
    pub fn snapshot(&self) -> Snapshot {
        let told = self.told();
        let mut parts = told.parts.clone();
        for (name, fault) in &told.faults {
            if let Some(part) = parts.iter_mut().find(|part| part.report.partition == *name) {
                part.fault = Some(fault.clone());
            }
        }
        Snapshot {
            phase: self.phase(),
            trouble: told.trouble.clone(),
            commit: told.commit.clone(),
            shared: told.shared.clone(),
            full: told.full,
            call: told.call.clone(),
            parts,
            faults: told.faults.clone(),
        }
    }

    /// What became of each partition, as last published: for a run that can't say it itself.
    pub fn reports(&self) -> Vec<Report> {
        self.told().parts.iter().map(|part| part.report.clone()).collect()
    }
}

/// The latest fault, since the first one.
fn begin_or_end(trouble: &mut Option<Since<Fault>>, fault: Option<&Fault>) {
    let since = trouble.as_ref().map_or_else(Instant::now, |earlier| earlier.since);
    *trouble = fault.map(|fault| Since { what: fault.clone(), since });
}

fn part_progress(part: &Part, earlier: Option<&PartProgress>, now: Instant) -> PartProgress {
    let (state, position, acknowledged) = match &part.place {
        Place::Held(_) => (State::Held, None, None),
        Place::Reading(tracker) => (State::Reading, Some(tracker.position()), Some(tracker.acknowledged())),
        Place::Stopped(at) => (State::Stopped(*at), None, None),
        Place::Gone => (State::Gone, None, None),
    };
    let report = crate::consumer::report(part);
    let went_on = |earlier: &PartProgress| {
        earlier.position.is_some() && (earlier.position, earlier.acknowledged) != (position, acknowledged)
    };
    let moved = earlier.and_then(|earlier| if went_on(earlier) { Some(now) } else { earlier.moved });
    let unacknowledged = (report.in_flight > 0).then(|| {
        let still = earlier.filter(|earlier| earlier.acknowledged == acknowledged);
        still.and_then(|earlier| earlier.unacknowledged).unwrap_or(now)
    });
    PartProgress { report, state, position, acknowledged, moved, unacknowledged, fault: None }
}

/// What a lane tells of itself.
#[derive(Default)]
pub struct LaneProgress(Mutex<LaneState>);

/// What a lane is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// It has been at its present work since then; `None`: it has none.
    pub busy: Option<Instant>,
    /// Its sink fails.
    pub trouble: Option<Since<String>>,
    /// How often its sink failed; each time it was, or will be, tried again.
    pub failures: u64,
    /// The topics of which nothing is written for now, and why.
    pub stopped: BTreeMap<Arc<str>, Since<String>>,
    /// By topic: how many records are dead letters, and how many were dropped.
    pub given_up: BTreeMap<Arc<str>, (u64, u64)>,
}

impl LaneState {
    /// Together with another lane of the same sink: what began first counts.
    fn join(&mut self, other: Self) {
        self.busy = [self.busy, other.busy].into_iter().flatten().min();
        let older = |a: Since<String>, b: Since<String>| if b.since < a.since { b } else { a };
        self.trouble = match (self.trouble.take(), other.trouble) {
            (Some(a), Some(b)) => Some(older(a, b)),
            (a, b) => a.or(b),
        };
        self.failures += other.failures;
        for (topic, why) in other.stopped {
            let why = match self.stopped.remove(&topic) {
                Some(own) => older(own, why),
                None => why,
            };
            self.stopped.insert(topic, why);
        }
        for (topic, (letters, dropped)) in other.given_up {
            let own = self.given_up.entry(topic).or_default();
            *own = (own.0 + letters, own.1 + dropped);
        }
    }
}

impl LaneProgress {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It takes up its work, or is done with it.
    pub fn set_busy(&self, busy: bool) {
        self.state().busy = busy.then(Instant::now);
    }

    /// Its sink failed with these words, or works again.
    pub fn set_trouble(&self, why: Option<&str>) {
        let mut state = self.state();
        state.failures += u64::from(why.is_some());
        let since = state.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        state.trouble = why.map(|why| Since { what: why.to_owned(), since });
    }

    /// Nothing of this topic is written from now on.
    pub fn stop(&self, topic: &Arc<str>, why: &str) {
        let why = Since { what: why.to_owned(), since: Instant::now() };
        self.state().stopped.insert(Arc::clone(topic), why);
    }

    /// The topic goes on.
    pub fn resume(&self, topic: &Arc<str>) {
        self.state().stopped.remove(topic);
    }

    /// A record of this topic was given up.
    pub fn gave_up(&self, topic: &Arc<str>, is_letter: bool) {
        let mut state = self.state();
        let (letters, dropped) = state.given_up.entry(Arc::clone(topic)).or_default();
        *(if is_letter { letters } else { dropped }) += 1;
    }

    /// What it is doing.
    pub fn get(&self) -> LaneState {
        self.state().clone()
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
