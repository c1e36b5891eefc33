//! The cluster for those who ask about many groups without consuming: the observer, operator commands.
//!
//! Owns a [`Control`] for what that can, and wire sockets to the groups' coordinators: the crate would
//! have to load the metadata of all topics anew for each group. Who coordinates a group is kept
//! until the coordinator says otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use super::control::Control;
use super::fault::{no_down_conversion, unreadable};
use crate::client::{Ahead, Bounds, Cluster, Connection, Fault, Inspect, Member};
use crate::record::{Offset, TopicPartition};
use crate::wire::{Batch, Codec, Header, Wire};

/// See the module's text.
pub(super) struct Watch {
    control: Control,
    /// The address of each group's coordinator.
    coordinators: HashMap<String, String>,
    /// Open sockets, by address; only during a round.
    open: HashMap<String, Wire>,
    /// Hosts that failed in this round: the other groups of a dead broker do not wait for it again.
    failed: HashMap<String, Fault>,
}

impl Watch {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let control = Control::new(connection);
        Self { control, coordinators: HashMap::new(), open: HashMap::new(), failed: HashMap::new() }
    }

    /// Asks `host` over the socket that is open to it, or a new one.
    fn ask<T>(&mut self, host: &str, ask: impl FnOnce(&mut Wire) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(fault) = self.failed.get(host) {
            return Err(fault.clone());
        }
        let mut wire = match self.open.remove(host) {
            Some(wire) => wire,
            None => self.control.connect(host).inspect_err(|fault| self.note(host, fault))?,
        };
        let answer = ask(&mut wire);
        if wire.is_open() {
            self.open.insert(host.to_owned(), wire);
        } else if let Err(fault) = &answer {
            self.note(host, fault);
        }
        answer
    }

    fn note(&mut self, host: &str, fault: &Fault) {
        self.failed.insert(host.to_owned(), fault.clone());
    }

    fn coordinator(&mut self, group: &str) -> Result<String, Fault> {
        if let Some(known) = self.coordinators.get(group) {
            return Ok(known.clone());
        }
        let mut last = Fault::NoLeader;
        for host in self.control.hosts() {
            match self.ask(&host, |wire| wire.coordinator(group)) {
                Ok(address) => {
                    self.coordinators.insert(group.to_owned(), address.clone());
                    return Ok(address);
                }
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }
}

impl Cluster for Watch {
    /// Every round begins with it: what failed in the last one is tried again.
    fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault> {
        self.open.clear();
        self.failed.clear();
        self.control.partitions(topics)
    }

    fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
        self.control.bounds(of)
    }

    fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        let host = self.coordinator(group)?;
        let answer = self.ask(&host, |wire| wire.committed(group, of));
        if answer.is_err() {
            // It may be another broker's group by now.
            self.coordinators.remove(group);
        }
        answer
    }

    fn commit(&mut self, group: &str, at: &[(TopicPartition, Offset)]) -> Result<(), Fault> {
        self.control.commit(group, at)
    }
}

/// Transaction markers in a row that are passed over in search of records.
const MARKERS: usize = 16;
/// A larger batch is not fetched only to learn whether the broker would convert it.
const WORTH_CONVERTING: usize = 1 << 20;

impl Watch {
    fn header(&mut self, leader: &str, partition: &TopicPartition, at: Offset) -> Result<Option<Batch>, Fault> {
        match self.ask(leader, |wire| wire.batch_header(&partition.topic, partition.partition, at))? {
            Header::Batch(batch) => Ok(Some(batch)),
            Header::Nothing { .. } => Ok(None),
            Header::OutOfRange => {
                Err(Fault::Refused { call: "Fetch", code: format!("offset {at} is outside the log") })
            }
            Header::Refused(fault) => Err(fault),
            Header::Inconclusive { throttle_ms } => Err(Fault::Unanswered { for_ms: u64::from(throttle_ms) }),
        }
    }
}

impl Inspect for Watch {
    fn members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        let host = self.coordinator(group)?;
        let answer = self.ask(&host, |wire| wire.members(group));
        if answer.is_err() {
            self.coordinators.remove(group);
        }
        answer
    }

    fn ahead(&mut self, partition: &TopicPartition, at: Offset) -> Result<Option<Ahead>, Fault> {
        let leader = self.control.leader(partition).cloned().ok_or(Fault::NoLeader)?;
        let mut offset = at;
        for _ in 0..MARKERS {
            let Some(batch) = self.header(&leader, partition, offset)? else { return Ok(None) };
            if let Some(marker) = batch.details.filter(|details| details.control) {
                offset = marker.last.next();
                continue;
            }
            let codec = batch.details.map_or(Codec::None, |details| details.codec);
            if let Some(fault) = unreadable(codec, offset) {
                return Err(fault);
            }
            if batch.size <= WORTH_CONVERTING
                && !self.ask(&leader, |wire| {
                    wire.serves_old_fetch(&partition.topic, partition.partition, offset, batch.size)
                })?
            {
                return Err(no_down_conversion(offset));
            }
            let (records, transactional) =
                (batch.details.map(|d| d.count), batch.details.is_some_and(|d| d.transactional));
            return Ok(Some(Ahead { offset, size: batch.size, records, transactional }));
        }
        Ok(None)
    }
}
