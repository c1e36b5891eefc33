//! The cluster as data: brokers, topics, groups, orders, counters. No I/O but to shut sockets down.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::Options;
use crate::api::Api;
use crate::fault::Orders;
use crate::log::Log;

/// A broker from one start to its stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) broker: i32,
    number: u64,
}

struct Node {
    address: SocketAddr,
    up: bool,
    life: u64,
    /// Connections of this life, by their number.
    sockets: HashMap<u64, TcpStream>,
    /// Threads that still run, by life.
    threads: HashMap<u64, usize>,
}

pub(super) struct Partition {
    pub(super) leader: Option<i32>,
    pub(super) log: Log,
}

pub(super) struct Topic {
    pub(super) id: [u8; 16],
    pub(super) partitions: Vec<Partition>,
    pub(super) down_conversion: bool,
}

pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) metadata: String,
}

/// A live member of a group, as DescribeGroups shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `member.id`
    pub id: String,
    /// `client.id`
    pub client_id: String,
    /// Its address, with a slash before it, as Kafka writes it.
    pub host: String,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) members: Vec<Member>,
    coordinator: Option<i32>,
    offsets: BTreeMap<(String, i32), Committed>,
}

pub(super) struct State {
    pub(super) options: Options,
    pub(super) orders: Orders,
    nodes: Vec<Node>,
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, Group>,
    auto_created: Vec<String>,
    requests: BTreeMap<Api, u64>,
    connections: u64,
}

impl State {
    pub(super) fn new(options: Options, addresses: &[SocketAddr]) -> Self {
        let node = |address: &SocketAddr| Node {
            address: *address,
            up: false,
            life: 0,
            sockets: HashMap::new(),
            threads: HashMap::new(),
        };
        Self {
            options,
            orders: Orders::default(),
            nodes: addresses.iter().map(node).collect(),
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            auto_created: Vec::new(),
            requests: BTreeMap::new(),
            connections: 0,
        }
    }

    fn node_mut(&mut self, id: i32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(id).ok()?)
    }

    /// A broker's address, and whether it runs.
    pub(super) fn node(&self, id: i32) -> Option<(SocketAddr, bool)> {
        self.nodes.get(usize::try_from(id).ok()?).map(|node| (node.address, node.up))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.nodes.iter().map(|node| node.address)
    }

    /// The running brokers.
    pub(super) fn running(&self) -> Vec<(i32, SocketAddr)> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.up).map(|(id, node)| (id, node.address)).collect()
    }

    /// Begins a broker's next life.
    pub(super) fn begin(&mut self, id: i32) -> Option<Life> {
        let node = self.node_mut(id)?;
        node.up = true;
        node.life += 1;
        Some(Life { broker: id, number: node.life })
    }

    /// Ends a broker's life and breaks its connections. `None` within: it did not run.
    pub(super) fn end(&mut self, id: i32) -> Option<Option<(Life, SocketAddr)>> {
        let node = self.node_mut(id)?;
        if !node.up {
            return Some(None);
        }
        node.up = false;
        let ended = (Life { broker: id, number: node.life }, node.address);
        self.disconnect_all(id);
        Some(Some(ended))
    }

    pub(super) fn disconnect_all(&mut self, id: i32) {
        let sockets = self.node_mut(id).map(|node| std::mem::take(&mut node.sockets)).unwrap_or_default();
        for socket in sockets.into_values() {
            // Fails only if the client was faster.
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    pub(super) fn end_all(&mut self) -> Vec<(Life, SocketAddr)> {
        (0..).zip(0..self.nodes.len()).filter_map(|(id, _)| self.end(id).flatten()).collect()
    }

    pub(super) fn lives(&self, life: Life) -> bool {
        let node = usize::try_from(life.broker).ok().and_then(|index| self.nodes.get(index));
        node.is_some_and(|node| node.up && node.life == life.number)
    }

    pub(super) fn threads_of(&self, life: Life) -> usize {
        let node = usize::try_from(life.broker).ok().and_then(|index| self.nodes.get(index));
        node.and_then(|node| node.threads.get(&life.number)).copied().unwrap_or(0)
    }

    pub(super) fn thread_begins(&mut self, life: Life) {
        if let Some(node) = self.node_mut(life.broker) {
            *node.threads.entry(life.number).or_default() += 1;
        }
    }

    pub(super) fn thread_ends(&mut self, life: Life) {
        if let Some(node) = self.node_mut(life.broker) {
            let left = node.threads.get(&life.number).map_or(0, |running| running.saturating_sub(1));
            if left == 0 {
                node.threads.remove(&life.number)
            } else {
                node.threads.insert(life.number, left)
            };
        }
    }

    /// Takes a connection in and returns its number; `None` if the broker has stopped.
    pub(super) fn connect(&mut self, life: Life, socket: TcpStream) -> Option<u64> {
        if !self.lives(life) {
            return None;
        }
        self.connections += 1;
        let number = self.connections;
        self.node_mut(life.broker)?.sockets.insert(number, socket);
        Some(number)
    }

    pub(super) fn disconnect(&mut self, life: Life, connection: u64) {
        if let Some(node) = self.node_mut(life.broker) {
            node.sockets.remove(&connection);
        }
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(super) fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (&String, &Topic)> {
        self.topics.iter()
    }

    pub(super) fn partition(&self, topic: &str, partition: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)
    }

    pub(super) fn partition_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(partition).ok()?)
    }

    /// A partition's leader, if it has one and that one runs.
    pub(super) fn leader(&self, partition: &Partition) -> Option<i32> {
        partition.leader.filter(|id| self.node(*id).is_some_and(|(_, up)| up))
    }

    pub(super) fn create_topic(&mut self, name: &str, partitions: i32) -> bool {
        if self.topics.contains_key(name) {
            return false;
        }
        let topic = Topic { id: random_id(), partitions: Vec::new(), down_conversion: true };
        self.topics.insert(name.to_owned(), topic);
        self.add_partitions(name, partitions)
    }

    pub(super) fn create_automatically(&mut self, name: &str) {
        if self.create_topic(name, self.options.num_partitions) {
            self.auto_created.push(name.to_owned());
        }
    }

    pub(super) fn auto_created(&self) -> &[String] {
        &self.auto_created
    }

    pub(super) fn add_partitions(&mut self, name: &str, partitions: i32) -> bool {
        let brokers = self.nodes.len().max(1);
        let Some(topic) = self.topics.get_mut(name) else { return false };
        for _ in 0..partitions {
            let leader = i32::try_from(topic.partitions.len() % brokers).ok();
            topic.partitions.push(Partition { leader, log: Log::default() });
        }
        true
    }

    pub(super) fn delete_topic(&mut self, name: &str) {
        self.topics.remove(name);
        for group in self.groups.values_mut() {
            group.offsets.retain(|(topic, _), _| topic != name);
        }
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    pub(super) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        self.groups.get(group)?.offsets.get(&(topic.to_owned(), partition))
    }

    pub(super) fn set_committed(&mut self, group: &str, topic: &str, number: i32, at: Option<i64>, metadata: &str) {
        let offsets = &mut self.groups.entry(group.to_owned()).or_default().offsets;
        let key = (topic.to_owned(), number);
        match at {
            Some(offset) => offsets.insert(key, Committed { offset, metadata: metadata.to_owned() }),
            None => offsets.remove(&key),
        };
    }

    pub(super) fn set_members(&mut self, group: &str, members: Vec<Member>) {
        self.groups.entry(group.to_owned()).or_default().members = members;
    }

    pub(super) fn move_coordinator(&mut self, group: &str, to: i32) {
        self.groups.entry(group.to_owned()).or_default().coordinator = Some(to);
    }

    /// The broker in charge of a group: the chosen one, else one by the group's name; if that does
    /// not run, the next one that does, as after a failover.
    pub(super) fn coordinator(&self, group: &str) -> Option<(i32, SocketAddr)> {
        let by_name = || group.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let chosen = self.groups.get(group).and_then(|group| group.coordinator);
        let first = chosen.and_then(|id| usize::try_from(id).ok()).unwrap_or_else(by_name);
        (0..self.nodes.len()).find_map(|step| {
            let index = first.wrapping_add(step) % self.nodes.len();
            let node = self.nodes.get(index).filter(|node| node.up)?;
            Some((i32::try_from(index).ok()?, node.address))
        })
    }

    pub(super) fn count(&mut self, api: Api) {
        *self.requests.entry(api).or_default() += 1;
    }

    pub(super) fn requests(&self, api: Api) -> u64 {
        self.requests.get(&api).copied().unwrap_or(0)
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections
    }
}

/// Sixteen bytes that no other topic has. The standard library's only source of randomness.
fn random_id() -> [u8; 16] {
    let half = || RandomState::new().build_hasher().finish();
    ((u128::from(half()) << 64) | u128::from(half())).to_be_bytes()
}
