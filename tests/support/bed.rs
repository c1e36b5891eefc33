//! An embedded broker, and a place for workers beside it: what most tests begin with.

use std::time::Duration;

use broker::{Codec, NewRecord, Options, Server};
use worker::client::reading::Library;

use super::worker::{Config, Ended, PATIENCE, Rec, Site, Worker};

/// Offset, key, value. For the crate `kafka` empty is null, because it cannot tell them apart.
pub type Entry = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A broker and a site, and the library that its workers read with.
pub struct Bed {
    pub server: Server,
    pub site: Site,
    client: Library,
}

impl Bed {
    /// One broker with these topics, of one partition each.
    pub fn new(topics: &[&str]) -> Self {
        Self::with(Options::default(), topics)
    }

    pub fn with(options: Options, topics: &[&str]) -> Self {
        let server = Server::start(options).unwrap();
        for topic in topics {
            server.create_topic(topic, 1).unwrap();
        }
        Self { server, site: Site::new(), client: Library::Kafka }
    }

    /// The same, read with this library.
    #[must_use]
    pub fn by(self, client: Library) -> Self {
        Self { client, ..self }
    }

    /// A configuration for these topics of this broker.
    pub fn config(&self, topics: &[&str]) -> Config {
        Config::new(&self.server.bootstrap(), topics).set("kafka", "client", format!("'{}'", self.client))
    }

    pub fn start(&self, config: &Config) -> Worker {
        self.site.start(&config.to_string())
    }

    /// Starts a worker on these topics, and waits until it reads them.
    #[track_caller]
    pub fn started(&self, config: &Config) -> Worker {
        let worker = self.start(config);
        worker.wait_started();
        worker
    }

    /// Appends `count` records as one batch; each value says its offset.
    pub fn fill_as(&self, topic: &str, partition: i32, count: usize, codec: Codec) {
        let append = |log: &mut broker::Log| {
            let from = log.end();
            log.append((from..).take(count).map(numbered), codec);
        };
        self.server.with_log(topic, partition, append).unwrap();
    }

    pub fn fill(&self, topic: &str, count: usize) {
        self.fill_as(topic, 0, count, Codec::None);
    }

    /// What the log holds, control records left out.
    pub fn held(&self, topic: &str, partition: i32) -> Vec<Entry> {
        let can_tell = self.client == Library::Librdkafka;
        let full = |bytes: &Option<Vec<u8>>| bytes.clone().filter(|bytes| can_tell || !bytes.is_empty());
        let read = |log: &mut broker::Log| log.records().map(|r| (r.offset, full(&r.key), full(&r.value))).collect();
        self.server.with_log(topic, partition, read).unwrap()
    }

    /// What has arrived, in that order.
    pub fn arrived(&self, topic: &str, partition: i32) -> Vec<Entry> {
        let own = |record: &Rec| record.topic == topic && record.partition == partition;
        self.site.records().into_iter().filter(own).map(|r| (r.offset, r.key, r.value)).collect()
    }

    pub fn arrived_offsets(&self, topic: &str, partition: i32) -> Vec<i64> {
        self.arrived(topic, partition).into_iter().map(|(offset, ..)| offset).collect()
    }

    /// Waits until group `g-TOPIC` has committed `offset` or more, and says what it has.
    #[track_caller]
    pub fn await_committed(&self, topic: &str, partition: i32, offset: i64) {
        let group = format!("g-{topic}");
        self.server.await_committed(&group, topic, partition, offset, PATIENCE);
        assert_eq!(self.server.committed(&group, topic, partition), Some(offset), "committed by {group}");
    }

    pub fn committed(&self, topic: &str) -> Option<i64> {
        self.server.committed(&format!("g-{topic}"), topic, 0)
    }

    /// Waits until the log's end is committed, and checks that all it holds arrived once and in order.
    #[track_caller]
    pub fn await_all(&self, topic: &str, partition: i32) {
        let end = self.server.bounds(topic, partition).unwrap().1;
        self.await_committed(topic, partition, end);
        self.assert_all(topic, partition);
    }

    /// All that the log holds has arrived once and in order, and nothing else.
    #[track_caller]
    pub fn assert_all(&self, topic: &str, partition: i32) {
        let (held, arrived) = (self.held(topic, partition), self.arrived(topic, partition));
        let at = held.iter().zip(&arrived).position(|(held, arrived)| held != arrived);
        let at = at.or((held.len() != arrived.len()).then(|| held.len().min(arrived.len())));
        if let Some(at) = at {
            let near = |list: &[Entry]| list.iter().skip(at.saturating_sub(2)).take(5).map(|e| e.0).collect::<Vec<_>>();
            panic!(
                "{topic}/{partition}: {} records held, {} arrived; they differ from the {at}th on: held {:?}, arrived {:?}",
                held.len(),
                arrived.len(),
                near(&held),
                near(&arrived)
            );
        }
    }

    /// Stops the worker, which has to end well.
    #[track_caller]
    pub fn stop(&self, worker: Worker) -> Ended {
        let ended = worker.stop();
        assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
        ended
    }
}

/// A record whose key and value say its offset.
pub fn numbered(offset: i64) -> NewRecord {
    NewRecord {
        timestamp_ms: 1_700_000_000_000 + offset,
        key: Some(format!("k{}", offset % 7).into_bytes()),
        value: Some(format!("value {offset}").into_bytes()),
    }
}

/// Bytes that no codec makes shorter, always the same for the same seed (xorshift).
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// A time that a request may take in tests of requests that take too long, in milliseconds.
pub const SHORT: Duration = Duration::from_millis(400);
