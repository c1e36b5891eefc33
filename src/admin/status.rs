//! What `GET /status` says, as JSON: written by a running worker, read by those who ask it.
//!
//! Owns the form and nothing else. A reader takes what it knows: fields that a later version adds are
//! passed over, and those that an earlier one did not have are what [`Default`] says. Times are lengths,
//! in milliseconds until the moment of the answer, so that two clocks need not agree.

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The process.
    pub process: ProcessStatus,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// Why not, in whole sentences; empty if it is ready.
    pub not_ready: Vec<String>,
    /// The last look at the cluster.
    pub observed: ObservedStatus,
    /// A topic each, in the order of the configuration.
    pub topics: Vec<TopicStatus>,
    /// The sinks that are used, by name.
    pub sinks: Vec<SinkStatus>,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStatus {
    /// The program's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The configuration file, as an absolute path where that could be found out.
    pub config: String,
    /// When it was started: milliseconds since 1970, UTC.
    pub started_unix_ms: u64,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// It was told to stop, and delivers what is under way.
    pub stopping: bool,
}

/// The observer's last round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedStatus {
    /// How long ago the cluster was asked that last answered; `None`: it has not yet.
    pub age_ms: Option<u64>,
    /// `observe.interval_ms`
    pub interval_ms: u64,
    /// Why the last round got no answer, if it got none.
    pub error: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicStatus {
    /// Its name.
    pub topic: String,
    /// The group that consumes it.
    pub group: String,
    /// The sink that its records go to.
    pub sink: String,
    /// How it is doing, by the last two looks at the cluster; `None` before the second one.
    pub verdict: Option<VerdictStatus>,
    /// It has stood still for longer than `watchdog.stall_timeout_ms`.
    pub stalled: bool,
    /// A record that its sink did not take has stopped it (`on_failure = "stop"`): nothing of it is written.
    pub stopped: Option<TroubleStatus>,
    /// Records that became dead letters, since the sink was opened.
    pub dead_letters: u64,
    /// Records that were dropped by `on_failure = "drop"`, since the sink was opened.
    pub dropped: u64,
    /// Its consumer.
    pub consumer: ConsumerStatus,
    /// LAG of all its partitions; `None` while it is not known of any.
    pub lag: Option<i64>,
    /// READABLE of all its partitions; `None` while it is not known of any.
    pub readable: Option<u64>,
    /// Offsets a second by which the group's committed offsets went on, between the last two looks.
    pub consumed_per_second: Option<f64>,
    /// Offsets a second by which the log ends went on, between the last two looks.
    pub produced_per_second: Option<f64>,
    /// How long ago anything of it went on; `None`: not in this run.
    pub progress_age_ms: Option<u64>,
    /// What failed last in its consumer, also if it works again, and how long ago.
    pub last_error: Option<TroubleStatus>,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionStatus>,
}

/// A judgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictStatus {
    /// One word of a closed list, see [`word`](crate::verdict::Verdict::word).
    pub word: String,
    /// In an operator's words, with what it rests on.
    pub text: String,
    /// Of what is stalled: why, as far as it is known.
    pub reason: Option<String>,
}

/// What the consumer of a topic tells of itself. Where one consumer has several topics, all of them say
/// the same here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerStatus {
    /// Its run, from 0: how often it was started again.
    pub run: u32,
    /// How long this run has lasted.
    pub run_age_ms: u64,
    /// What its thread is doing: `working`, `waiting`, `handing over`, `settling`, `paused`.
    pub phase: String,
    /// For how long.
    pub phase_age_ms: u64,
    /// Its client is in trouble.
    pub trouble: Option<TroubleStatus>,
    /// Its commits fail.
    pub commit_trouble: Option<TroubleStatus>,
    /// A commit that is not this worker's was found in the group lately; since when.
    pub shared_group: Option<TroubleStatus>,
    /// The call to a broker that has been under way for longest.
    pub call: Option<CallStatus>,
    /// Batches that are handed over and not acknowledged.
    pub batches_in_flight: u64,
    /// Batches that may be in flight at most.
    pub batches_budget: u64,
    /// Bytes of records that may be in memory at most, without the reserve.
    pub bytes_budget: u64,
    /// How long its budget has been used up, so that nothing is fetched.
    pub full_for_ms: Option<u64>,
}

/// What fails, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TroubleStatus {
    /// The error.
    pub error: String,
    /// For how long.
    pub age_ms: u64,
}

/// A call that is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallStatus {
    /// Kafka's name of the request.
    pub request: String,
    /// For how long.
    pub age_ms: u64,
}

/// One partition: what its consumer says of it, and what the cluster said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// `held`, `reading`, `stopped`, `not-held` (another member has it, or it does not exist any more); `None`: its consumer does not know it yet.
    pub state: Option<String>,
    /// The next offset to be delivered, while it is read.
    pub position: Option<i64>,
    /// Everything below it is delivered, while it is read.
    pub acknowledged: Option<i64>,
    /// What the consumer knows to be committed.
    pub committed_here: Option<i64>,
    /// Records that are handed over and not acknowledged.
    pub in_flight: u64,
    /// Why it can't be read at present.
    pub trouble: Option<TroubleStatus>,
    /// What the group has committed, says the cluster (CURRENT-OFFSET).
    pub committed: Option<i64>,
    /// LOG-START-OFFSET
    pub log_start: Option<i64>,
    /// LOG-END-OFFSET
    pub log_end: Option<i64>,
    /// LAG: log end − committed, as `kafka-consumer-groups` has it.
    pub lag: Option<i64>,
    /// READABLE: log end − max(committed, log start), never negative.
    pub readable: Option<u64>,
    /// EXPIRED: offsets between the committed one and the log start.
    pub expired: Option<u64>,
    /// How it is doing.
    pub verdict: Option<VerdictStatus>,
    /// Why the cluster did not say, if it did not.
    pub error: Option<String>,
}

/// One sink and its lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkStatus {
    /// Its name.
    pub sink: String,
    /// How long it has been at its present work; `None`: it has none.
    pub busy_for_ms: Option<u64>,
    /// It fails.
    pub trouble: Option<TroubleStatus>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_takes_what_it_knows() {
        let text = r#"{"ready":true,"news":[1],"topics":[{"topic":"t","partitions":[{"partition":3,"lag":-2}]}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert!(status.ready);
        assert_eq!(status.topics[0].partitions[0].lag, Some(-2));
        assert_eq!(serde_json::from_str::<Status>(&serde_json::to_string(&status).unwrap()).unwrap(), status);
    }
}
