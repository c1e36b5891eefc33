//! Everything that is told, at one moment: from what the threads publish to [`Status`].
//!
//! Reads the board, the lanes, the newest sight and the life of the process; writes nothing. The metrics,
//! the page and the JSON are made of the same look, so that they never disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::status::{
    CallStatus, ConsumerStatus, ObservedStatus, PartitionStatus, ProcessStatus, SinkStatus, Status, TopicStatus,
    TroubleStatus, VerdictStatus,
};
use crate::client::{Fault, Retry};
use crate::observe::sight::{PartSight, Point, Sights, TopicSight};
use crate::progress::counts::Counts;
use crate::progress::{Board, Entry, LaneState, PartProgress, Phase, Progress, Pulse, Since, Snapshot, State};
use crate::record::TopicPartition;
use crate::verdict::{Reason, Verdict};

/// A thread that comes round once a second and has not for so long stands still.
const LATE: Duration = Duration::from_secs(10);
/// How many names a sentence has at most.
const NAMED: usize = 5;

/// What the supervisor tells of the process.
#[derive(Debug)]
pub struct Life {
    /// The supervisor's own.
    pub pulse: Pulse,
    stopping: AtomicBool,
    /// Topics that are neither read nor known to be missing; `None` before they are known.
    waiting: Mutex<Option<Vec<Arc<str>>>>,
}

impl Life {
    /// Of a process that starts.
    pub fn new(now: Instant) -> Self {
        Self { pulse: Pulse::new(now), stopping: AtomicBool::new(false), waiting: Mutex::new(None) }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Arc<str>>>> {
        // It is replaced as a whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process was told to stop, or has to.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// These topics are neither read yet nor known to be missing.
    pub fn set_waiting(&self, topics: Vec<Arc<str>>) {
        *self.waiting() = Some(topics);
    }
}

/// What runs, and where it tells of itself.
pub struct Sources {
    /// The configuration's file.
    pub config: PathBuf,
    /// When the process started.
    pub started: (Instant, SystemTime),
    /// What the consumers and the lanes tell of themselves.
    pub board: Arc<Board>,
    /// What the observer has seen.
    pub sights: Arc<Sights>,
    /// The observer's.
    pub observer: Arc<Pulse>,
    /// The supervisor's.
    pub life: Arc<Life>,
}

/// One consumer's part of a look: what has no place in [`Status`].
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) group: String,
    pub(super) status: ConsumerStatus,
    pub(super) counts: Arc<Counts>,
    /// The places of its topics in the status.
    pub(super) topics: std::ops::Range<usize>,
}

/// All that is told at one moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) status: Status,
    pub(super) consumers: Vec<Consumer>,
    /// Of each topic, in the order of the status.
    pub(super) histories: Vec<Arc<Vec<Point>>>,
    /// Of each sink, in the order of the status.
    pub(super) sink_failures: Vec<u64>,
    /// Rounds of the observer: answered, and not.
    pub(super) rounds: (u64, u64),
    pub(super) now: Instant,
}

/// What fails for so long and passes by itself makes the process not ready; a broker restarts in less.
const FAILS_FOR_LONG: Duration = Duration::from_secs(30);

fn topics_of(entry: &Entry) -> impl Iterator<Item = Arc<str>> {
    entry.watched.topics.iter().map(|(name, _)| Arc::clone(name))
}

impl Sources {
    /// Why the process is not ready, in whole sentences; none if it is.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.life.is_stopping() {
            reasons.push("the worker is stopping".to_owned());
        }
        match &*self.life.waiting() {
            None => reasons.push("the worker is starting".to_owned()),
            Some(topics) if topics.is_empty() => {}
            Some(topics) => reasons.push(format!("not read yet: {}", named(topics))),
        }
        reasons.extend(failing(&self.board.entries(), Instant::now()));
        let held: BTreeSet<Arc<str>> =
            self.board.lanes().into_values().flat_map(|lane| lane.stopped.into_keys()).collect();
        if !held.is_empty() {
            let held: Vec<Arc<str>> = held.into_iter().collect();
            reasons.push(format!("stopped by a record that its sink does not take: {}", named(&held)));
        }
        let sight = self.sights.newest();
        let stalled = |topic: &Arc<str>| sight.topics.get(&**topic).is_some_and(|seen| seen.stalled);
        let stalled: Vec<Arc<str>> = self.topics().into_iter().filter(stalled).collect();
        if !stalled.is_empty() {
            reasons.push(format!("stalled: {}", named(&stalled)));
        }
        reasons
    }

    /// Which of the threads that see to everything else has not come round for too long; none if all is well.
    pub(super) fn not_alive(&self) -> Vec<String> {
        // Both come round once a second, whatever they wait for.
        let now = Instant::now();
        let all = [("supervisor", self.life.pulse.still(now)), ("observe", self.observer.still(now))];
        let late = all.into_iter().filter(|(name, still)| {
            // The observer ends with the drain, and nothing is judged then.
            *still > LATE && !(*name == "observe" && self.life.is_stopping())
        });
        late.map(|(name, age)| format!("thread {name} has not come round for {} ms", age.as_millis())).collect()
    }

    /// Whether there is such a topic.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.topics().iter().any(|name| **name == *topic)
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.board.entries().iter().flat_map(topics_of).collect()
    }

    pub(super) fn look(&self, now: Instant) -> Look {
        let sight = self.sights.newest();
        let lanes: BTreeMap<String, LaneState> = self.board.lanes().into_iter().collect();
        let (mut topics, mut consumers, mut histories) = (Vec::new(), Vec::new(), Vec::new());
        for Entry { watched, progress, .. } in self.board.entries() {
            let snapshot = progress.snapshot();
            let status = consumer(&progress, &snapshot, now);
            let from = topics.len();
            let last_error = trouble(progress.counts().last_fault().as_ref(), now);
            for (name, sinks) in &watched.topics {
                let seen = sight.topics.get(name);
                let mut told = topic(name, &snapshot, seen, now);
                told.group.clone_from(&watched.group);
                told.sink = sinks.join(", ");
                for lane in sinks.iter().filter_map(|sink| lanes.get(sink)) {
                    told.stopped = told.stopped.or_else(|| trouble(lane.stopped.get(name), now));
                    let (letters, dropped) = lane.given_up.get(name).copied().unwrap_or_default();
                    (told.dead_letters, told.dropped) = (told.dead_letters + letters, told.dropped + dropped);
                }
                (told.consumer, told.last_error) = (status.clone(), last_error.clone());
                topics.push(told);
                histories.push(seen.map(|seen| Arc::clone(&seen.history)).unwrap_or_default());
            }
            let (group, counts) = (watched.group.clone(), Arc::clone(progress.counts()));
            consumers.push(Consumer { group, status, counts, topics: from..topics.len() });
        }
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        let sink = |(name, state): (&String, &LaneState)| {
            let trouble = state.trouble.clone().map(|why| TroubleStatus { error: why.what, age_ms: age(why.since) });
            SinkStatus { sink: name.clone(), busy_for_ms: state.busy.map(age), trouble }
        };
        let not_ready = self.not_ready();
        let status = Status {
            process: ProcessStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                config: self.config.display().to_string(),
                started_unix_ms: millis(self.started.1.duration_since(UNIX_EPOCH).unwrap_or_default()),
                uptime_ms: age(self.started.0),
                stopping: self.life.is_stopping(),
            },
            ready: not_ready.is_empty(),
            not_ready,
            observed: ObservedStatus {
                age_ms: sight.asked.map(age),
                interval_ms: millis(sight.interval),
                error: sight.fault.as_ref().map(|fault| fault.what.to_string()),
            },
            topics,
            sinks: lanes.iter().map(sink).collect(),
        };
        let sink_failures = lanes.values().map(|lane| lane.failures).collect();
        Look { status, consumers, histories, sink_failures, rounds: (sight.answered, sight.failed), now }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn named(topics: &[Arc<str>]) -> String {
    listed(topics, "topics")
}

/// Some names, and how many more.
fn listed(names: &[impl AsRef<str>], of: &str) -> String {
    let some: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    match names.len() - some.len() {
        0 => some.join(", "),
        rest => format!("{} and {rest} more {of}", some.join(", ")),
    }
}

/// Whether a fault keeps records from being read until somebody does something, or has for long.
fn stands(fault: &Since<Fault>, now: Instant) -> bool {
    fault.what.retry() != Retry::Soon || now.saturating_duration_since(fault.since) >= FAILS_FOR_LONG
}

/// Consumers in trouble, and partitions that can't be read: a sentence for each fault.
fn failing(entries: &[Entry], now: Instant) -> Vec<String> {
    let (mut troubles, mut partitions) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries {
        let snapshot = entry.progress.snapshot();
        if let Some(trouble) = snapshot.trouble.as_ref().filter(|trouble| stands(trouble, now)) {
            let topics: &mut Vec<Arc<str>> = troubles.entry(trouble.what.to_string()).or_default();
            topics.extend(topics_of(entry));
        }
        // What another member has by now is that one's trouble.
        let gone = |name| snapshot.part(name).is_some_and(|part| part.state == State::Gone);
        let failing = snapshot.faults.iter().filter(|(name, fault)| stands(fault, now) && !gone(name));
        let failing = failing.map(|(name, fault)| (name, fault.what.to_string()));
        let stopped = snapshot.parts.iter().filter_map(|part| match part.state {
            State::Stopped(at) => Some((&part.report.partition, Reason::Stopped(at).to_string())),
            State::Held | State::Reading | State::Gone => None,
        });
        for (name, why) in failing.chain(stopped) {
            let names: &mut Vec<TopicPartition> = partitions.entry(why).or_default();
            names.push(name.clone());
        }
    }
    let troubles = troubles.iter().map(|(why, topics)| format!("in trouble: {}: {why}", named(topics)));
    let partitions = partitions.iter_mut().map(|(why, names)| {
        names.sort();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        format!("can't be read: {}: {why}", listed(&names, "partitions"))
    });
    troubles.chain(partitions).collect()
}

fn trouble<T: ToString>(fault: Option<&Since<T>>, now: Instant) -> Option<TroubleStatus> {
    let fault = fault?;
    let age_ms = millis(now.saturating_duration_since(fault.since));
    Some(TroubleStatus { error: fault.what.to_string(), age_ms })
}

fn consumer(progress: &Progress, snapshot: &Snapshot, now: Instant) -> ConsumerStatus {
    let age = |at: Instant| millis(now.saturating_duration_since(at));
    let phase = match snapshot.phase.what {
        Phase::Working => "working",
        Phase::Waiting => "waiting",
        Phase::HandingOver => "handing over",
        Phase::Settling => "settling",
        Phase::Paused => "paused",
    };
    let call = snapshot.call.as_ref();
    ConsumerStatus {
        run: progress.run(),
        run_age_ms: age(progress.born()),
        phase: phase.to_owned(),
        phase_age_ms: age(snapshot.phase.since),
        trouble: trouble(snapshot.trouble.as_ref(), now),
        commit_trouble: trouble(snapshot.commit.as_ref(), now),
        shared_group: trouble(snapshot.shared.as_ref(), now),
        call: call.map(|call| CallStatus { request: call.what.to_owned(), age_ms: age(call.since) }),
        batches_in_flight: progress.batches() as u64,
        batches_budget: progress.counts().limits.batches as u64,
        bytes_budget: progress.counts().limits.bytes as u64,
        full_for_ms: snapshot.full.map(age),
    }
}

fn judged(verdict: Option<&Verdict>) -> Option<VerdictStatus> {
    let verdict = verdict?;
    let reason = match verdict {
        Verdict::Stalled { reason, .. } => Some(reason.to_string()),
        _ => None,
    };
    Some(VerdictStatus { word: verdict.word().to_owned(), text: verdict.to_string(), reason })
}

/// What its partitions come to.
fn topic(name: &Arc<str>, snapshot: &Snapshot, seen: Option<&TopicSight>, now: Instant) -> TopicStatus {
    let parts: Vec<&PartProgress> = snapshot.parts.iter().filter(|part| part.report.partition.topic == *name).collect();
    let mut partitions: BTreeMap<i32, PartitionStatus> = BTreeMap::new();
    for part in &parts {
        partitions.insert(part.report.partition.partition, here(part));
    }
    for (partition, fault) in snapshot.faults.iter().filter(|(partition, _)| partition.topic == *name) {
        let status = partitions.entry(partition.partition).or_default();
        (status.partition, status.trouble) = (partition.partition, trouble(Some(fault), now));
    }
    for sight in seen.into_iter().flat_map(|seen| &seen.partitions) {
        let status = partitions.entry(sight.partition).or_default();
        there(status, sight);
    }
    let moved = parts.iter().filter_map(|part| part.moved).max();
    let rates = seen.and_then(|seen| seen.rates);
    // Before the first look its consumer may know already why there will be none.
    let unknown = || judged(Some(&Verdict::Unknown(snapshot.trouble.as_ref()?.what.clone())));
    TopicStatus {
        topic: name.to_string(),
        verdict: judged(seen.and_then(|seen| seen.verdict.as_ref())).or_else(unknown),
        stalled: seen.is_some_and(|seen| seen.stalled),
        lag: seen.and_then(TopicSight::lag),
        readable: seen.and_then(TopicSight::readable),
        consumed_per_second: rates.map(|rates| rates.consumed),
        produced_per_second: rates.map(|rates| rates.produced),
        progress_age_ms: moved.map(|at| millis(now.saturating_duration_since(at))),
        partitions: partitions.into_values().collect(),
        ..TopicStatus::default()
    }
}

/// What its consumer says.
fn here(part: &PartProgress) -> PartitionStatus {
    let state = match part.state {
        State::Held => "held",
        State::Reading => "reading",
        State::Stopped(_) => "stopped",
        State::Gone => "not-held",
    };
    PartitionStatus {
        partition: part.report.partition.partition,
        state: Some(state.to_owned()),
        position: part.position.map(crate::record::Offset::get),
        acknowledged: part.acknowledged.map(crate::record::Offset::get),
        committed_here: part.report.committed,
        in_flight: part.report.in_flight,
        ..PartitionStatus::default()
    }
}

/// What the cluster says.
fn there(status: &mut PartitionStatus, sight: &PartSight) {
    status.partition = sight.partition;
    status.verdict = judged(sight.verdict.as_ref());
    match &sight.seen {
        Ok(seen) => {
            status.committed = seen.committed.map(crate::record::Offset::get);
            status.log_start = Some(seen.bounds.log_start.get());
            status.log_end = Some(seen.bounds.log_end.get());
            status.lag = seen.lag();
            status.readable = Some(seen.readable());
            status.expired = Some(seen.expired());
        }
        Err(fault) => status.error = Some(fault.to_string()),
    }
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
