//! What librdkafka tells beside records: errors, statistics, its log. Called by `poll` on the consumer's own thread.
//!
//! Errors come with a text that has what the crate leaves out: the broker, and where a partition ends.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::membership::Rebalance;
use crate::record::{Offset, TopicPartition};

/// Errors that are kept for one look; with a hundred of one kind the next ones say nothing new.
const ERRORS: usize = 64;
/// Lines of librdkafka's about the configuration that are told in the life of the process.
const REMARKS: usize = 32;

/// An error as librdkafka tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    /// For instance `127.0.0.1:9092/1: Connect to ipv4#127.0.0.1:9092 failed: Connection refused (…)`.
    pub(super) text: String,
}

/// Where a partition ends, by the text that comes with `_PARTITION_EOF`; its offset is nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Everything below it was given out, or does not exist for this isolation level.
    pub(super) at: Offset,
    /// The high watermark.
    pub(super) log_end: Offset,
}

impl End {
    /// From `Fetch from broker 1 reached end of partition at offset 33 (HighwaterMark 33)`; `None` for another text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |behind: &str| {
            let rest = text.split_once(behind)?.1;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..end)?.parse().ok().and_then(Offset::new)
        };
        Some(Self { at: number(" reached end of partition at offset ")?, log_end: number("(HighwaterMark ")? })
    }
}

/// The part of librdkafka's statistics that is used here (its STATISTICS.md).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Debug, Deserialize)]
struct Broker {
    nodeid: i32,
    nodename: String,
    state: String,
    /// `logical`: a second connection to one of the brokers, to it as the group's coordinator.
    #[serde(default)]
    source: String,
    /// How many requests were not answered in their time.
    #[serde(default)]
    req_timeouts: u64,
    /// How many requests of each kind were sent.
    #[serde(default)]
    req: HashMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Debug, Deserialize)]
struct Partition {
    partition: i32,
    broker: i32,
    fetchq_size: usize,
    fetchq_cnt: usize,
}

/// How many fetches a broker was sent, and how many requests it has not answered in their time. librdkafka sends it one
/// fetch at a time, so that while none is answered both rise alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fetches {
    pub(super) sent: u64,
    pub(super) timeouts: u64,
}

/// How it stands with the broker that a partition is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its address.
    pub(super) broker: String,
    /// How it answers.
    pub(super) fetches: Fetches,
    /// librdkafka's word for what it does while it is not connected, or not yet.
    pub(super) down: Option<String>,
}

impl Statistics {
    /// How it stands with the broker of a partition; `None` while librdkafka knows none.
    pub(super) fn link(&self, topic: &str, partition: i32) -> Option<Link> {
        let partition = self.partition(topic, partition)?;
        let leads = |b: &&Broker| b.nodeid == partition.broker && b.nodeid >= 0 && b.source != "logical";
        let found = self.brokers.values().find(leads)?;
        let sent = found.req.get("Fetch").copied().unwrap_or(0);
        Some(Link {
            broker: found.nodename.clone(),
            fetches: Fetches { sent, timeouts: found.req_timeouts },
            down: (found.state != "UP").then(|| found.state.clone()),
        })
    }

    /// Bytes that librdkafka holds of all partitions, its own `per_message` bytes for each message included.
    pub(super) fn queued(&self, per_message: usize) -> usize {
        let partitions = self.topics.values().flat_map(|topic| topic.partitions.values());
        partitions.map(|p| p.fetchq_size + p.fetchq_cnt * per_message).sum()
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.values().find(|p| p.partition == partition)
    }
}

#[derive(Default)]
struct Notes {
    /// How much has been told in all.
    told: u64,
    errors: VecDeque<Trouble>,
    statistics: Option<Statistics>,
    rebalances: VecDeque<Rebalance>,
    /// librdkafka has given up.
    fatal: bool,
}

/// What has been told since the last look. Clones are handles of the same.
#[derive(Clone, Default)]
pub(super) struct Notebook(Arc<Mutex<Notes>>);

impl Notebook {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing that is done under the lock panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much has been told in all: `poll` does not say whether it has told something.
    pub(super) fn told(&self) -> u64 {
        self.notes().told
    }

    /// The oldest error that was not looked at.
    pub(super) fn error(&self) -> Option<Trouble> {
        self.notes().errors.pop_front()
    }

    /// The error that was told last: the one that a call to a partition's queue has just returned.
    pub(super) fn last_error(&self) -> Option<Trouble> {
        self.notes().errors.pop_back()
    }

    /// librdkafka has given up.
    pub(super) fn give_up(&self) {
        let mut notes = self.notes();
        notes.fatal = true;
        notes.told += 1;
    }

    /// Whether librdkafka has said that it has given up.
    pub(super) fn is_fatal(&self) -> bool {
        self.notes().fatal
    }

    /// The oldest decision of the group that was not looked at.
    pub(super) fn rebalance(&self) -> Option<Rebalance> {
        self.notes().rebalances.pop_front()
    }

    /// The newest statistics, once.
    pub(super) fn statistics(&self) -> Option<Statistics> {
        self.notes().statistics.take()
    }
}

/// What librdkafka calls.
pub(super) struct Context {
    pub(super) name: String,
    pub(super) notebook: Notebook,
    /// The consumer ends: nobody is left to finish what it holds.
    pub(super) closing: Arc<AtomicBool>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.notebook.notes().told += 1;
        tell(level, facility, text, &format_args!("consumer={}", self.name));
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let read = serde_json::from_slice(statistics);
        let mut notes = self.notebook.notes();
        notes.told += 1;
        match read {
            Ok(read) => notes.statistics = Some(read),
            Err(why) => log::debug!("statistics of librdkafka not understood consumer={} error=\"{why}\"", self.name),
        }
    }

    fn error(&self, error: KafkaError, text: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut notes = self.notebook.notes();
        notes.told += 1;
        if notes.errors.len() == ERRORS {
            notes.errors.pop_front();
        }
        notes.errors.push_back(Trouble { code, text: text.to_owned() });
    }
}

impl ConsumerContext for Context {
    /// The group's decisions are only noted: what is taken away is let go when it is done.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let named = |element: TopicPartitionListElem<'_>| TopicPartition::new(element.topic(), element.partition());
        let named: Vec<TopicPartition> = list.elements().into_iter().map(named).collect();
        let given = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let lost = !given && consumer.assignment_lost();
        let rebalance = match (given, lost) {
            (true, _) => Rebalance::Assigned(named),
            (false, false) => Rebalance::Revoked(named),
            (false, true) => Rebalance::Lost(named),
        };
        let at_once = lost || self.closing.load(Ordering::Relaxed);
        log::debug!("the group has decided consumer={} decision={rebalance:?} at_once={at_once}", self.name);
        if at_once {
            let done = if given { consumer.incremental_assign(list) } else { consumer.incremental_unassign(list) };
            if let Err(why) = done {
                log::debug!("librdkafka does not let go consumer={} error=\"{why}\"", self.name);
            }
        }
        let mut notes = self.notebook.notes();
        notes.told += 1;
        notes.rebalances.push_back(rebalance);
    }
}

/// A line of librdkafka's own log. `whose` it is, as in `consumer=orders`.
pub(super) fn tell(level: RDKafkaLogLevel, facility: &str, text: &str, whose: &dyn Display) {
    let level = level as u8;
    // Configuration is the one thing that no fault of ours tells of.
    // The sink of type kafka sets this one on purpose; its end of a producer that has lost a record is what it wants.
    let is_ours = text.contains("enable.gapless.guarantee");
    if facility.contains("CONF") && level <= RDKafkaLogLevel::Warning as u8 && !is_ours && is_news(text) {
        log::warn!("librdkafka: {text} facility={facility}");
    } else {
        log::debug!("librdkafka: {text} facility={facility} severity={level} {whose}");
    }
}

/// Whether nobody in this process was told this yet: two hundred consumers have the same configuration.
fn is_news(text: &str) -> bool {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // A set is whole at any moment.
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.len() < REMARKS && told.insert(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_from_librdkafkas_text_and_from_no_other() {
        let at = |offset| Offset::new(offset).unwrap();
        let text = "Fetch from broker 1 reached end of partition at offset 33 (HighwaterMark 35)";
        assert_eq!(End::parse(text), Some(End { at: at(33), log_end: at(35) }));
        for other in [
            "",
            "Fetch from broker 1 failed at offset 33 (leader epoch 0): Broker: Unknown",
            "Fetch from broker 1 reached end of partition at offset INVALID (HighwaterMark 35)",
            "Fetch from broker 1 reached end of partition at offset 99999999999999999999 (HighwaterMark 35)",
        ] {
            assert_eq!(End::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_partitions_broker_is_found_in_the_statistics() {
        let text = r#"{"ts":1,"brokers":{
              "a:1/1":{"nodeid":1,"nodename":"a:1","state":"UP","rtt":{},"source":"learned","req_timeouts":2,
                "req":{"Fetch":7,"Metadata":3}},
              "b:1/2":{"nodeid":2,"nodename":"b:1","state":"CONNECT"},
              "GroupCoordinator":{"nodeid":1,"nodename":"a:1","state":"DOWN","source":"logical"},
              "c:1/bootstrap":{"nodeid":-1,"nodename":"c:1","state":"DOWN"}},
            "topics":{"t":{"topic":"t","partitions":{
              "0":{"partition":0,"broker":1,"fetchq_size":100,"fetchq_cnt":2},
              "1":{"partition":1,"broker":2,"fetchq_size":50,"fetchq_cnt":1},
              "2":{"partition":2,"broker":-1,"fetchq_size":0,"fetchq_cnt":0},
              "-1":{"partition":-1,"broker":-1,"fetchq_size":0,"fetchq_cnt":0}}}}}"#;
        let statistics: Statistics = serde_json::from_str(text).unwrap();
        let up = Link { broker: "a:1".to_owned(), fetches: Fetches { sent: 7, timeouts: 2 }, down: None };
        assert_eq!(statistics.link("t", 0), Some(up));
        let down = Some("CONNECT".to_owned());
        let down = Link { broker: "b:1".to_owned(), fetches: Fetches::default(), down };
        assert_eq!(statistics.link("t", 1), Some(down));
        assert_eq!((statistics.link("t", 2), statistics.link("t", 3), statistics.link("u", 0)), (None, None, None));
        assert_eq!(statistics.queued(10), 180);
    }

    #[test]
    fn errors_are_kept_in_order_and_bounded_in_number() {
        let context = Context { name: String::new(), notebook: Notebook::default(), closing: Arc::default() };
        for number in 0..ERRORS + 1 {
            context.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), &number.to_string());
        }
        let notebook = &context.notebook;
        assert_eq!(notebook.told(), ERRORS as u64 + 1);
        let text = |trouble: Option<Trouble>| trouble.map(|trouble| trouble.text);
        assert_eq!(text(notebook.error()).as_deref(), Some("1"));
        assert_eq!(text(notebook.last_error()).as_deref(), Some("64"));
        assert_eq!(std::iter::from_fn(|| notebook.error()).count(), ERRORS - 2);
    }
}
