//! A client of the worker over [`Log`]s, without a network: for tests above the trait.
//!
//! A test keeps a [`Stage`] and gives the consumer a [`Scripted`] client of it. What every client
//! promises holds here too: positions move by spans, `poll` never waits, a fault is told and then the
//! client goes on. What is to go wrong stands in the script, and happens once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use worker::client::{Assignment, Bounds, Client, Cluster, Event, Fault, Room};
use worker::record::{Arena, Headers, Offset, Record, Records, Span, TopicPartition};

use crate::log::{Log, Record as Kept};

/// Something that goes wrong, once.
#[derive(Debug)]
pub enum Mishap {
    /// The next `poll` fails.
    Poll(Fault),
    /// The next commit is refused.
    Commit(Fault),
    /// The next `poll` panics with these words.
    Panic(&'static str),
    /// The next `poll` does not return before the other end is dropped.
    Hang(Receiver<()>),
    /// From the next `poll` on that client brings nothing more, and says nothing of it.
    Silence,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<TopicPartition, Log>,
    committed: BTreeMap<TopicPartition, i64>,
    /// Every commit that succeeded, in order.
    commits: Vec<(TopicPartition, i64)>,
    script: VecDeque<Mishap>,
    /// Wakes the clients.
    wake: Vec<Sender<()>>,
}

/// The logs and the group behind a scripted client.
#[derive(Clone)]
pub struct Stage {
    state: Arc<Mutex<State>>,
}

impl Stage {
    /// Nothing but these partitions, and a client for them.
    pub fn new(logs: impl IntoIterator<Item = (TopicPartition, Log)>) -> (Self, Scripted) {
        let state = State { logs: logs.into_iter().collect(), ..State::default() };
        let stage = Self { state: Arc::new(Mutex::new(state)) };
        let client = stage.client();
        (stage, client)
    }

    /// Another client of the same logs and group, for a consumer that is started again.
    pub fn client(&self) -> Scripted {
        let (ready, woken) = bounded(1);
        self.state().wake.push(ready);
        Scripted {
            stage: self.clone(),
            woken,
            assigned: BTreeSet::new(),
            positions: BTreeMap::new(),
            commit: None,
            failed: false,
            silent: false,
        }
    }

    fn wake(&self, state: &State) {
        // Full: a wake-up is on its way already.
        for ready in &state.wake {
            let _ = ready.try_send(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it held the lock has failed already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the log of a partition, and wakes the client.
    pub fn with_log<T>(&self, partition: &TopicPartition, act: impl FnOnce(&mut Log) -> T) -> T {
        let mut state = self.state();
        let result = act(state.logs.entry(partition.clone()).or_insert_with(|| Log::starting_at(0)));
        self.wake(&state);
        result
    }

    /// Lets something go wrong, after what was ordered before.
    pub fn order(&self, mishap: Mishap) {
        let mut state = self.state();
        state.script.push_back(mishap);
        self.wake(&state);
    }

    /// What another client left in the group.
    pub fn set_committed(&self, partition: &TopicPartition, offset: i64) {
        self.state().committed.insert(partition.clone(), offset);
    }

    /// Every commit that succeeded so far, in order.
    pub fn commits(&self) -> Vec<(TopicPartition, i64)> {
        self.state().commits.clone()
    }

    /// What is ordered and has not happened yet.
    pub fn outstanding(&self) -> usize {
        self.state().script.len()
    }
}

/// See the module's text.
pub struct Scripted {
    stage: Stage,
    woken: Receiver<()>,
    assigned: BTreeSet<TopicPartition>,
    positions: BTreeMap<TopicPartition, i64>,
    commit: Option<Vec<(TopicPartition, Offset)>>,
    failed: bool,
    silent: bool,
}

struct Copies(Vec<Kept>);

impl Arena for Copies {
    fn record(&self, index: usize) -> Record<'_> {
        let record = &self.0[index];
        Record {
            offset: offset(record.offset),
            timestamp_ms: Some(record.timestamp_ms),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: Headers::default(),
        }
    }
}

/// A log has no negative offsets.
fn offset(number: i64) -> Offset {
    Offset::new(number).unwrap_or_default()
}

fn bounds(log: &Log) -> Bounds {
    Bounds { log_start: offset(log.start()), log_end: offset(log.high_watermark()) }
}

impl Scripted {
    fn assign(&mut self, state: &State) -> Option<Event> {
        let (new, log) = state.logs.iter().find(|(name, _)| !self.assigned.contains(*name))?;
        let is_new = self.assigned.iter().any(|name| name.topic == new.topic);
        self.assigned.insert(new.clone());
        let committed = state.committed.get(new).copied().map(offset);
        Some(Event::Assigned(vec![Assignment {
            partition: new.clone(),
            committed,
            bounds: bounds(log),
            remembered: None,
            is_new,
        }]))
    }

    fn answer_commit(&mut self, state: &mut State) -> Option<Event> {
        let offsets = self.commit.take()?;
        if let Some(Mishap::Commit(_)) = state.script.front()
            && let Some(Mishap::Commit(fault)) = state.script.pop_front()
        {
            return Some(Event::Committed(Err(fault)));
        }
        for (name, at) in &offsets {
            state.committed.insert(name.clone(), at.get());
            state.commits.push((name.clone(), at.get()));
        }
        Some(Event::Committed(Ok(offsets)))
    }

    fn span(&mut self, state: &State) -> Option<Event> {
        for (name, position) in &mut self.positions {
            let Some(log) = state.logs.get(name) else { continue };
            let (at, range) = (offset(*position), bounds(log));
            if !range.contain(at) {
                let partition = name.clone();
                self.positions.remove(&partition);
                return Some(Event::OutOfRange { partition, at, bounds: range });
            }
            if *position < log.high_watermark() {
                let here = |record: &&Kept| (*position..log.high_watermark()).contains(&record.offset);
                let kept: Vec<Kept> = log.records().filter(here).cloned().collect();
                let (count, bytes) = (kept.len(), kept.iter().map(size).sum());
                *position = log.high_watermark();
                return Some(Event::Span(Span {
                    partition: name.clone(),
                    offsets: at..range.log_end,
                    records: Records::new(Arc::new(Copies(kept)), 0..count),
                    bytes,
                    log_end: Some(range.log_end),
                }));
            }
        }
        None
    }
}

impl Cluster for Stage {
    fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault> {
        let state = self.state();
        let of = |topic: &Arc<str>| {
            let partitions: Vec<_> = state.logs.keys().filter(|name| name.topic == *topic).cloned().collect();
            let missing = Fault::TopicMissing { topic: topic.to_string() };
            if partitions.is_empty() { Err(missing) } else { Ok(partitions) }
        };
        Ok(topics.iter().map(of).collect())
    }

    fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault> {
        Ok(self.state().logs.keys().map(|name| Arc::clone(&name.topic)).collect())
    }

    fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
        let state = self.state();
        Ok(of.iter().map(|name| state.logs.get(name).map(bounds).ok_or(Fault::NoLeader)).collect())
    }

    fn committed(&mut self, _group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        let state = self.state();
        Ok(of.iter().map(|name| state.committed.get(name).copied().map(offset)).collect())
    }

    fn commit(&mut self, _group: &str, at: &[(TopicPartition, Offset)]) -> Result<(), Fault> {
        let mut state = self.state();
        state.committed.extend(at.iter().map(|(name, at)| (name.clone(), at.get())));
        Ok(())
    }
}

fn size(record: &Kept) -> usize {
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    len(&record.key) + len(&record.value)
}

impl Client for Scripted {
    fn ready(&self) -> &Receiver<()> {
        &self.woken
    }

    fn wake(&self) -> Option<Instant> {
        None
    }

    fn poll(&mut self, room: Room) -> Result<Option<Event>, Fault> {
        let stage = self.stage.clone();
        let mut state = stage.state();
        if let Some(Mishap::Panic(_) | Mishap::Hang(_) | Mishap::Silence) = state.script.front() {
            let mishap = state.script.pop_front();
            drop(state);
            match mishap {
                Some(Mishap::Panic(words)) => panic!("{words}"),
                Some(Mishap::Hang(until)) => until.iter().for_each(drop),
                _ => self.silent = true,
            }
            state = stage.state();
        }
        if self.silent {
            return Ok(self.answer_commit(&mut state));
        }
        if let Some(Mishap::Poll(_)) = state.script.front()
            && let Some(Mishap::Poll(fault)) = state.script.pop_front()
        {
            self.failed = true;
            return Err(fault);
        }
        if std::mem::take(&mut self.failed) {
            return Ok(Some(Event::Connected));
        }
        if let Some(event) = self.answer_commit(&mut state) {
            return Ok(Some(event));
        }
        if let Some(event) = self.assign(&state) {
            return Ok(Some(event));
        }
        Ok(if room.bytes > 0 { self.span(&state) } else { None })
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        self.positions.insert(partition.clone(), to.get());
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        self.commit = Some(offsets.to_vec());
    }
}
