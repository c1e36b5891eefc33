//! The session of a data link: the records of the partitions that one broker leads.

use std::sync::Arc;
use std::time::Duration;

use kafka::client::fetch::Response;
use kafka::client::{FetchPartition, KafkaClient};

use super::fault::{Meaning, fault, meaning};
use super::open_wire;
use crate::client::{Bounds, Connection, Fault, FetchSettings};
use crate::record::{Offset, TopicPartition};
use crate::wire::{Header, Wire};

/// One partition's part of a fetch.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) partition: TopicPartition,
    pub(super) position: Offset,
    pub(super) max_bytes: usize,
}

/// A fetch that brought no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The connection or the broker.
    Fault(Fault),
    /// One batch in it can't be decoded, and the crate threw the whole answer away for it.
    Undecodable(String),
}

/// A fetch's answer.
pub(super) struct Fetched {
    /// `None` if the crate knows no partition of those asked to be led by this broker.
    pub(super) response: Option<Arc<Response>>,
    /// Asked partitions that, as the crate sees it, this broker does not lead: it would silently
    /// leave them out.
    pub(super) moved: Vec<TopicPartition>,
}

/// See the module's text.
pub(super) struct Data {
    connection: Arc<Connection>,
    settings: Arc<FetchSettings>,
    broker: String,
    client: Option<KafkaClient>,
    last_correlation: i32,
    /// For batch headers and bounds: kept, because where codecs alternate each small batch needs one.
    wire: Option<Wire>,
}

impl Data {
    pub(super) fn new(connection: Arc<Connection>, settings: Arc<FetchSettings>, broker: String) -> Self {
        Self { connection, settings, broker, client: None, last_correlation: 0, wire: None }
    }

    fn wire(&self) -> Result<Wire, Fault> {
        Wire::connect_as(&self.connection, &self.broker)
    }

    /// Asks over the wire socket that is open, or over a new one: it may have been idle for so long that
    /// the broker closed it.
    fn ask<T>(&mut self, ask: impl Fn(&mut Wire) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(mut wire) = self.wire.take() {
            let answer = ask(&mut wire);
            if wire.is_open() {
                self.wire = Some(wire);
            }
            if !matches!(answer, Err(Fault::Broken { .. })) {
                return answer;
            }
        }
        let mut wire = self.wire()?;
        let answer = ask(&mut wire);
        self.wire = Some(wire).filter(Wire::is_open);
        answer
    }

    /// Fetches from all of `asks` at once. `wait`: how long the broker may wait for more.
    pub(super) fn fetch(&mut self, asks: &[Ask], wait: Duration) -> Result<Fetched, Failed> {
        self.open(asks).map_err(Failed::Fault)?;
        let Some(client) = &mut self.client else { return Ok(Fetched { response: None, moved: Vec::new() }) };
        let led = |ask: &&Ask| leads(client, &self.broker, &ask.partition);
        let (here, moved): (Vec<&Ask>, Vec<&Ask>) = asks.iter().partition(led);
        let moved: Vec<_> = moved.into_iter().map(|ask| ask.partition.clone()).collect();
        if here.is_empty() {
            return Ok(Fetched { response: None, moved });
        }
        let peer = format!("broker {}", self.broker);
        client.set_fetch_min_bytes(if wait.is_zero() { 0 } else { self.settings.min_bytes });
        client.set_fetch_max_wait_time(wait).map_err(|error| Failed::Fault(fault("Fetch", &peer, &error)))?;
        let asked = here.iter().map(|ask| {
            let bytes = i32::try_from(ask.max_bytes).unwrap_or(i32::MAX);
            FetchPartition::new(&ask.partition.topic, ask.partition.partition, ask.position.get()).with_max_bytes(bytes)
        });
        let asked: Vec<_> = asked.collect();
        let mut responses = client.fetch_messages(&asked).map_err(|error| match meaning("Fetch", &peer, &error) {
            Meaning::Undecodable(why) => Failed::Undecodable(why),
            Meaning::Broken(fault) => {
                self.client = None;
                Failed::Fault(fault)
            }
            Meaning::Code(code) => Failed::Fault(Fault::Refused { call: "Fetch", code: format!("{code:?}") }),
        })?;
        let response = responses.pop();
        if let Some(response) = &response {
            // The crate does not compare these numbers. One that does not rise is the answer to
            // another request, and everything after it would be off by one.
            let correlation = response.correlation_id();
            if correlation <= self.last_correlation {
                self.client = None;
                let why = format!("{peer}: correlation id {correlation} does not follow {}", self.last_correlation);
                self.last_correlation = 0;
                return Err(Failed::Fault(Fault::Broken { call: "Fetch", why }));
            }
            self.last_correlation = correlation;
        }
        Ok(Fetched { response: response.map(Arc::new), moved })
    }

    /// The header of the batch at `position`.
    pub(super) fn header(&mut self, partition: &TopicPartition, position: Offset) -> Result<Header, Fault> {
        self.ask(|wire| wire.batch_header(&partition.topic, partition.partition, position))
    }

    /// Where the partition begins and ends.
    pub(super) fn bounds(&mut self, partition: &TopicPartition) -> Result<Bounds, Fault> {
        let mut answers = self.ask(|wire| wire.bounds(&[(Arc::clone(&partition.topic), partition.partition)]))?;
        answers.pop().unwrap_or(Err(Fault::NoLeader))
    }

    /// Makes sure that the crate's client is connected and knows the topics and who leads them.
    fn open(&mut self, asks: &[Ask]) -> Result<(), Fault> {
        let complete = |client: &KafkaClient| asks.iter().all(|ask| leads(client, &self.broker, &ask.partition));
        if self.client.as_ref().is_some_and(complete) {
            return Ok(());
        }
        // The wire socket comes first: it has a connect timeout, it says what is behind the port
        // before the crate trusts a length from there, and it creates no topic.
        let mut wire = open_wire(&self.connection, &self.broker)?;
        wire.require_old_fetch()?;
        let mut names: Vec<Arc<str>> = asks.iter().map(|ask| Arc::clone(&ask.partition.topic)).collect();
        names.sort();
        names.dedup();
        let view = wire.metadata(&names)?;
        names.retain(|name| view.topics.iter().any(|t| t.name == *name && t.partitions.is_ok()));
        drop(wire);
        let client = self.client.get_or_insert_with(|| {
            let mut client = KafkaClient::new(vec![self.broker.clone()]);
            client.set_client_id(self.connection.client_id.clone());
            client.set_fetch_crc_validation(self.settings.check_crcs);
            self.last_correlation = 0;
            client
        });
        let peer = format!("broker {}", self.broker);
        if names.is_empty() {
            return Ok(());
        }
        client.load_metadata(&names).map_err(|error| {
            let fault = fault("Metadata", &peer, &error);
            self.client = None;
            fault
        })
    }
}

/// Whether, as the crate's metadata has it, `broker` leads the partition.
fn leads(client: &KafkaClient, broker: &str, partition: &TopicPartition) -> bool {
    let topics = client.topics();
    let leader = topics.partitions(&partition.topic).and_then(|p| p.partition(partition.partition)?.leader());
    leader.is_some_and(|leader| leader.host() == broker)
}
