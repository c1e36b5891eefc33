//! The reader over the `kafka` crate: the only folder that names it. For brokers from 0.11 to 3.9.
//!
//! Owns the links to the brokers, and on them the crate's clients; owns the positions. A link a broker, so
//! that a slow or broken broker costs the partitions of the others nothing.
//!
//! What the crate does that has to be made up for is told in ARCHITECTURE.md, "Non-obvious".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::link::Link;
use super::reader::{FIRST_RETRY, LONGEST_RETRY, PartState, Reader, SLACK, Told, queued_bytes};
use super::{Call, Connection, Event, Fault, FetchSettings, Room};
use crate::backoff::Backoff;
use crate::memory::{Held, LOOK_AGAIN, Place};
use crate::record::{Offset, TopicPartition};
use crate::wire::Wire;

mod answer;
mod choose;
mod data;
pub(super) mod fault;
mod fetch;
mod fetch_size;
mod partition;

use fetch::DataLink;
use partition::Partition;

/// See the module's text.
pub(super) struct KafkaReader {
    name: String,
    connection: Arc<Connection>,
    settings: Arc<FetchSettings>,
    ready: Sender<()>,
    parts: Vec<Partition>,
    data: BTreeMap<String, DataLink>,
    told: Told,
    polled: Instant,
    /// What the answers hold that are not done with, as a whole.
    held: Held,
    /// It waits for the reserve.
    place: Option<Place>,
    /// Another library takes over what this one should not read.
    may_hand_over: bool,
}

/// A wire socket to a broker that serves what is asked over it. Whether the crate can read records there, too,
/// is for [`data`] to look at.
fn open_wire(connection: &Connection, host: &str) -> Result<Wire, Fault> {
    let wire = Wire::connect_as(connection, host)?;
    wire.require()?;
    Ok(wire)
}

impl KafkaReader {
    /// A reader whose threads are called `name`, and which wakes its client by `ready`. `may_hand_over`: what
    /// was written in transactions is unreadable, because another library can tell what was aborted.
    pub(super) fn new(
        name: &str,
        connection: Arc<Connection>,
        settings: Arc<FetchSettings>,
        ready: Sender<()>,
        held: Held,
        may_hand_over: bool,
    ) -> Self {
        Self {
            name: name.to_owned(),
            connection,
            settings,
            ready,
            parts: Vec::new(),
            data: BTreeMap::new(),
            told: Told::default(),
            polled: Instant::now(),
            held,
            place: None,
            may_hand_over,
        }
    }

    /// Drops the links that no partition needs any more.
    fn drop_stale_links(&mut self) {
        let needed: BTreeSet<&String> = self.parts.iter().filter_map(|part| part.leader.as_ref()).collect();
        let stale: Vec<String> = self.data.keys().filter(|broker| !needed.contains(broker)).cloned().collect();
        for broker in stale {
            self.data.remove(&broker);
            self.told.well(&broker);
        }
    }
}

impl Reader for KafkaReader {
    fn add(&mut self, partition: &TopicPartition) {
        let limit = self.settings.max_partition_bytes.min(self.settings.memory);
        self.parts.push(Partition::new(partition.clone(), limit, self.may_hand_over));
    }

    fn remove(&mut self, partition: &TopicPartition) {
        self.parts.retain(|part| part.name != *partition);
        self.drop_stale_links();
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.name == *partition) {
            part.seek(Some(to));
        }
    }

    fn leaders(&mut self, leaders: &HashMap<TopicPartition, String>, now: Instant) {
        for part in &mut self.parts {
            let leader = leaders.get(&part.name).cloned();
            if leader.is_some() && leader != part.leader {
                // Waits that were meant for the old leader are over.
                part.not_before = None;
            }
            if leader.is_none() && part.position.is_some() {
                // Nobody is asked for it, so that nobody else would say that it stands still.
                part.fail(Fault::NoLeader, now, &mut self.told.events);
            }
            part.leader = leader;
        }
        self.drop_stale_links();
    }

    fn poll(&mut self, room: Room, now: Instant) {
        self.polled = now;
        self.collect_data(now);
        self.start_data(room, now);
    }

    fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    fn wake(&self) -> Option<Instant> {
        // What was due at the last poll was started then, or waits for room.
        let later = |at: &Instant| *at > self.polled;
        // Its turn at the reserve wakes it; this is for the case that the one before it does not come.
        let line = self.place.as_ref().map(|_| self.polled + LOOK_AGAIN);
        self.data_wakes().chain(line).filter(later).min()
    }

    fn under_way(&self) -> Option<Call> {
        self.data_calls().min_by_key(|call| call.since)
    }

    fn state(&self, partition: &TopicPartition) -> Option<PartState> {
        self.parts.iter().find(|part| part.name == *partition).map(Partition::state)
    }
}
