//! Counters of a consumer and of its topics, for metrics.
//!
//! They outlive the runs of a consumer, so that they only grow. Writing is some relaxed additions a batch,
//! a fetch or a commit, never one a record; no two of them need to agree.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Since;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of the times that are told apart, in seconds: from a local broker that has data to a
/// request that nears its timeout. A fetch without data takes `fetch_max_wait_ms`.
pub const TIMES: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Times {
    /// One for each of [`TIMES`], and the last for what took longer. Not cumulated.
    buckets: [Counter; TIMES.len() + 1],
    micros: Counter,
}

/// Where it is told is no part of what is told, so that settings compare by the rest.
impl PartialEq for Times {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Times {}

impl Times {
    /// It took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = TIMES.iter().position(|bound| seconds <= *bound).unwrap_or(TIMES.len());
        self.buckets[bucket].add(1);
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Their sum in seconds, and how many were in each of the ranges that end at [`TIMES`] and infinity.
    pub fn get(&self) -> (f64, [u64; TIMES.len() + 1]) {
        (self.micros.get() as f64 / 1e6, self.buckets.each_ref().map(Counter::get))
    }
}

/// What came of one topic.
#[derive(Debug, Default)]
pub struct TopicCounts {
    /// Records handed over to the sink; again after a failure.
    pub records: Counter,
    /// Bytes of memory that those took.
    pub bytes: Counter,
    /// The batches that those were.
    pub batches: Counter,
    /// Records that the sink has written and flushed.
    pub delivered: Counter,
    /// Offsets that Kafka's retention took before they were read.
    pub expired: Counter,
    /// Offsets that exist and were not read, by choice.
    pub reset: Counter,
    /// Offsets without a record: compacted away, or a transaction's marker.
    pub absent: Counter,
}

/// How much of a consumer may be in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Batches.
    pub batches: usize,
    /// Bytes of records, without the reserve.
    pub bytes: usize,
}

/// What came of one consumer, in all its runs.
#[derive(Debug, Default)]
pub struct Counts {
    /// Fetches that were answered, the broker's waiting for data included.
    pub fetches: Arc<Times>,
    /// Commits that succeeded.
    pub commits: Times,
    /// Commits that failed. Each is tried again.
    pub commit_failures: Counter,
    faults: Counter,
    last: Mutex<Option<Since<String>>>,
    /// What there may be at once.
    pub limits: Limits,
    topics: BTreeMap<Arc<str>, TopicCounts>,
}

impl Counts {
    /// Of a consumer of these topics, whose client tells its fetches to `fetches`.
    pub fn new(topics: impl IntoIterator<Item = Arc<str>>, fetches: Arc<Times>, limits: Limits) -> Self {
        let topics = topics.into_iter().map(|topic| (topic, TopicCounts::default())).collect();
        Self { fetches, topics, limits, ..Self::default() }
    }

    /// Something failed, and is tried again.
    pub fn fail(&self, error: String) {
        self.faults.add(1);
        let error = Since { what: error, since: Instant::now() };
        // It is replaced as a whole.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// How often something failed: the client, a partition, a commit.
    pub fn faults(&self) -> u64 {
        self.faults.get()
    }

    /// What failed last, also if it works again, and when.
    pub fn last_fault(&self) -> Option<Since<String>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of one topic; `None` if the consumer does not have it.
    pub fn topic(&self, name: &str) -> Option<&TopicCounts> {
        self.topics.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_where_it_belongs() {
        let times = Times::default();
        for ms in [1, 2, 600, 60_000] {
            times.observe(Duration::from_millis(ms));
        }
        assert_eq!(times.get(), (60.603, [1, 1, 0, 0, 0, 0, 1, 0, 0, 1]));
    }
}
