//! Who there is to be watched: consumers and paused topics by number, lanes by their sinks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::counts::Counts;
use super::{LaneProgress, LaneState, Phase, Progress};
use crate::sample::Watched;

/// One consumer on the [`Board`].
#[derive(Clone)]
pub struct Entry {
    /// Its number, which is never used again.
    pub consumer: usize,
    /// What it consumes.
    pub watched: Arc<Watched>,
    /// What its current run tells of itself.
    pub progress: Arc<Progress>,
}

/// Who there is to be watched, as it changes: consumers, paused topics, lanes.
#[derive(Default)]
pub struct Board {
    consumers: Mutex<BTreeMap<usize, Entry>>,
    lanes: Mutex<BTreeMap<(String, usize), Arc<LaneProgress>>>,
}

impl Board {
    fn consumers(&self) -> MutexGuard<'_, BTreeMap<usize, Entry>> {
        // A map is whole at any moment.
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane_map(&self) -> MutexGuard<'_, BTreeMap<(String, usize), Arc<LaneProgress>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there is a consumer of this number, which does this before its first run.
    pub fn add(&self, consumer: usize, watched: Watched, phase: Phase, counts: &Arc<Counts>) {
        let progress = Arc::new(Progress::new(0, Instant::now(), Arc::clone(counts)));
        progress.enter(phase);
        self.consumers().insert(consumer, Entry { consumer, watched: Arc::new(watched), progress });
    }

    /// There is no such consumer any more.
    pub fn remove(&self, consumer: usize) {
        self.consumers().remove(&consumer);
    }

    /// All consumers, and the paused topics, in the order in which they came.
    pub fn entries(&self) -> Vec<Entry> {
        self.consumers().values().cloned().collect()
    }

    /// Another run of a consumer begins, which adds to `counts`. Returns its progress, which is on the board if the consumer is.
    pub fn begin(&self, consumer: usize, run: u32, counts: &Arc<Counts>) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(run, Instant::now(), Arc::clone(counts)));
        if let Some(entry) = self.consumers().get_mut(&consumer) {
            entry.progress = Arc::clone(&progress);
        }
        progress
    }

    /// From now on a sink has this lane. Returns its progress.
    pub fn add_lane(&self, sink: &str, number: usize) -> Arc<LaneProgress> {
        let progress = Arc::new(LaneProgress::default());
        self.lane_map().insert((sink.to_owned(), number), Arc::clone(&progress));
        progress
    }

    /// There is no such lane any more.
    pub fn remove_lane(&self, sink: &str, number: usize) {
        self.lane_map().remove(&(sink.to_owned(), number));
    }

    /// What the lanes are doing, by the names of their sinks: those of one sink together.
    pub fn lanes(&self) -> HashMap<String, LaneState> {
        let mut sinks: HashMap<String, LaneState> = HashMap::new();
        for ((sink, _), lane) in self.lane_map().iter() {
            sinks.entry(sink.clone()).or_default().join(lane.get());
        }
        sinks
    }
}
