//! A reader without a client: it is polled as a consumer thread would, and what it tells is checked and kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use worker::client::librdkafka::LibrdkafkaReader;
use worker::client::reader::Reader;
use worker::client::{Bounds, Connection, Event, Fault, FetchSettings, Isolation, Room, Security};
use worker::memory::{Held, Reserve};
use worker::record::{Offset, Span, TopicPartition};

/// Longer than any test needs that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Settings {
    pub memory: usize,
    pub reserve: usize,
    pub isolation: Isolation,
}

impl Default for Settings {
    fn default() -> Self {
        Self { memory: 64 << 20, reserve: 32 << 20, isolation: Isolation::ReadCommitted }
    }
}

/// A record, copied.
pub struct Copy {
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

#[derive(Default)]
pub struct Part {
    position: Option<Offset>,
    records: Vec<Copy>,
    outside: Option<(Offset, Bounds)>,
    failing: Option<Fault>,
}

pub struct Harness {
    pub reader: LibrdkafkaReader,
    ready: Receiver<()>,
    connection: Connection,
    parts: HashMap<TopicPartition, Part>,
    leaders: HashMap<TopicPartition, String>,
    pub room: usize,
    /// All that was told but spans.
    pub events: Vec<Event>,
    /// How many records came in all; each is looked at and copied if `keep`.
    pub count: u64,
    pub keep: bool,
    /// Spans that nobody is done with.
    pub held: Option<Vec<Span>>,
}

pub fn connection(bootstrap: &str) -> Connection {
    Connection {
        bootstrap_servers: bootstrap.split(',').map(str::to_owned).collect(),
        client_id: "test".to_owned(),
        connect_timeout: Duration::from_secs(3),
        request_timeout: Duration::from_secs(10),
        metadata_max_age: Duration::from_secs(60),
        security: Security::default(),
        properties: Vec::new(),
        known: Default::default(),
    }
}

pub fn fetch_settings(settings: &Settings) -> FetchSettings {
    FetchSettings {
        max_wait: Duration::from_millis(500),
        min_bytes: 1,
        max_partition_bytes: 100 << 20,
        max_bytes: 500 << 20,
        memory: settings.memory,
        reserve: Reserve::new(settings.reserve),
        check_crcs: true,
        isolation: settings.isolation,
        times: Arc::default(),
    }
}

impl Harness {
    pub fn new(bootstrap: &str, settings: Settings) -> Self {
        let connection = connection(bootstrap);
        let (tx, ready) = bounded(1);
        let shared = Arc::new(connection.clone());
        let reader = LibrdkafkaReader::new("t", "g", shared, Arc::new(fetch_settings(&settings)), tx, Held::default());
        Self {
            reader,
            ready,
            connection,
            parts: HashMap::new(),
            leaders: HashMap::new(),
            room: settings.memory,
            events: Vec::new(),
            count: 0,
            keep: true,
            held: None,
        }
    }

    /// Reads a partition from there on.
    pub fn seek(&mut self, topic: &str, partition: i32, to: i64) -> TopicPartition {
        let name = TopicPartition::new(topic, partition);
        let to = Offset::new(to).unwrap();
        if !self.parts.contains_key(&name) {
            self.reader.add(&name);
            let leader = self.connection.bootstrap_servers[0].clone();
            self.leaders.insert(name.clone(), leader);
            self.reader.leaders(&self.leaders, Instant::now());
        }
        self.reader.seek(&name, to);
        // What was told of it holds until something else is told.
        let failing = self.parts.remove(&name).and_then(|part| part.failing);
        self.parts.insert(name.clone(), Part { position: Some(to), failing, ..Part::default() });
        name
    }

    /// As a survey would tell it.
    pub fn lead(&mut self, name: &TopicPartition, leader: Option<&str>) {
        match leader {
            Some(leader) => self.leaders.insert(name.clone(), leader.to_owned()),
            None => self.leaders.remove(name),
        };
        self.reader.leaders(&self.leaders, Instant::now());
    }

    /// Polls once, and hears what is told. Whether there was something.
    fn look(&mut self) -> bool {
        self.reader.poll(Room { bytes: self.room }, Instant::now());
        let events: Vec<Event> = self.reader.told().events.drain(..).collect();
        self.reader.told().survey_soon = false;
        let something = !events.is_empty();
        events.into_iter().for_each(|event| self.hear(event));
        something
    }

    /// One round: polls until nothing is told, and waits for a little if nothing was.
    pub fn turn(&mut self) {
        let mut idle = true;
        while self.look() {
            idle = false;
        }
        if idle {
            let soon = self
                .reader
                .wake()
                .map_or(Duration::from_millis(200), |at| at.saturating_duration_since(Instant::now()));
            let _ = self.ready.recv_timeout(soon.min(Duration::from_millis(200)));
        }
    }

    fn hear(&mut self, event: Event) {
        match &event {
            Event::Span(span) => {
                let part = self.parts.get_mut(&span.partition).expect("a span of a partition that is read");
                assert_eq!(part.position, Some(span.offsets.start), "spans are adjacent: {span:?}");
                assert!(span.offsets.start < span.offsets.end, "no span is empty: {span:?}");
                assert!(span.log_end.is_none_or(|end| end >= span.offsets.end));
                let last = span.records.len().checked_sub(1).and_then(|last| span.records.get(last));
                assert!(last.is_none_or(|last| last.offset < span.offsets.end), "{span:?}");
                part.position = Some(span.offsets.end);
                self.count += span.records.len() as u64;
                if let Some(held) = &mut self.held {
                    held.push(span.clone());
                }
                if !self.keep {
                    return;
                }
                let mut expected = span.offsets.start;
                for record in span.records.iter() {
                    assert!(record.offset >= expected && record.offset < span.offsets.end, "{span:?}");
                    expected = record.offset.next();
                    part.records.push(Copy {
                        offset: record.offset.get(),
                        timestamp_ms: record.timestamp_ms,
                        key: record.key.map(<[u8]>::to_vec),
                        value: record.value.map(<[u8]>::to_vec),
                        headers: record.headers.map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect(),
                    });
                }
                return;
            }
            Event::OutOfRange { partition, at, bounds } => {
                self.parts.get_mut(partition).unwrap().outside = Some((*at, *bounds));
            }
            Event::Failing(partition, fault) => {
                self.parts.get_mut(partition).unwrap().failing = Some(fault.clone());
            }
            Event::Recovered(partition) => {
                let before = self.parts.get_mut(partition).unwrap().failing.take();
                assert!(before.is_some(), "only what has failed recovers");
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Polls only when the reader has asked for it, until a partition is read up to there.
    pub fn when_ready(&mut self, part: &TopicPartition, to: i64) {
        while self.position(part) < to {
            self.ready.recv_timeout(PATIENCE).expect("the reader asks to be polled");
            self.look();
        }
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let places: Vec<_> = self.parts.iter().map(|(name, part)| (name.to_string(), part.position)).collect();
            assert!(Instant::now() < deadline, "in vain: {what}; {places:?} {:?}", self.events);
            self.turn();
        }
    }

    pub fn position(&self, part: &TopicPartition) -> i64 {
        self.parts[part].position.map_or(-1, Offset::get)
    }

    pub fn records(&self, part: &TopicPartition) -> &[Copy] {
        &self.parts[part].records
    }

    pub fn outside(&self, part: &TopicPartition) -> Option<(Offset, Bounds)> {
        self.parts[part].outside
    }

    pub fn forget(&mut self, part: &TopicPartition) {
        self.parts.get_mut(part).unwrap().outside = None;
    }

    pub fn failing(&self, part: &TopicPartition) -> Option<Fault> {
        self.parts[part].failing.clone()
    }
}
