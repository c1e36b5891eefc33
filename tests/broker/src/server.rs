//! The brokers of one cluster, inside this process, and the handle by which a test moves them.
//!
//! Owns the listeners, the threads and the state. One accept thread a broker, one thread a
//! connection, all named `broker-…`. All state is behind one lock, never held while bytes are
//! converted, sent or received; whoever waits does so on a condition with a deadline.
//! Dropping the [`Server`] closes all sockets and waits for its threads.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api::{Api, Versions};
use crate::fault::{Fault, Order, OrderId};
use crate::log::{Codec, Log, NewRecord};

mod answer;
mod connection;
mod fetch;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod shared;
mod state;

use shared::Shared;
pub use state::Member;
use state::{Life, State};

/// How long a broker's threads may take to end. They end at once; a longer wait is a bug.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many brokers there are; their ids begin at 0.
    pub brokers: i32,
    /// Whether asking for a missing topic creates it (`auto.create.topics.enable`). On, as in Kafka.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created so (`num.partitions`).
    pub num_partitions: i32,
    /// The most that one answer to Fetch has, in bytes (`fetch.max.bytes`).
    pub fetch_max_bytes: usize,
    /// What is served.
    pub versions: Versions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 1,
            auto_create_topics: true,
            num_partitions: 1,
            fetch_max_bytes: 55 << 20,
            versions: Versions::default(),
        }
    }
}

/// What a test asked for and did not get.
#[derive(Debug)]
pub enum Error {
    /// The listener could not be opened.
    Listen(io::Error),
    /// There is a topic of that name.
    TopicExists(String),
    /// There is no topic of that name, or it has no such partition.
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// There is no broker of that id.
    UnknownBroker(i32),
    /// Threads did not end in time.
    StillRunning {
        /// How many.
        threads: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(why) => write!(f, "the broker can't listen: {why}"),
            Self::TopicExists(topic) => write!(f, "topic {topic} exists already"),
            Self::UnknownPartition { topic, partition } => {
                write!(f, "there is no partition={partition} of topic={topic}; create the topic first")
            }
            Self::UnknownBroker(id) => write!(f, "there is no broker {id}; ids begin at 0"),
            Self::StillRunning { threads } => write!(f, "{threads} threads did not end within {END_WITHIN:?}"),
        }
    }
}

impl std::error::Error for Error {}

/// A running cluster. Ends with all its threads and sockets when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.bootstrap().join(","))
    }
}

impl Server {
    /// Starts the brokers, each on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// A listener or a thread could not be opened.
    pub fn start(options: Options) -> Result<Self, Error> {
        let listen = || TcpListener::bind(("127.0.0.1", 0));
        let listeners: Vec<TcpListener> =
            (0..options.brokers).map(|_| listen()).collect::<Result<_, _>>().map_err(Error::Listen)?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>().map_err(Error::Listen)?;
        let state = State::new(options, &addresses);
        let server = Self { shared: Arc::new(Shared::new(state)) };
        for (id, listener) in (0..).zip(listeners) {
            server.listen(id, listener)?;
        }
        Ok(server)
    }

    fn listen(&self, id: i32, listener: TcpListener) -> Result<(), Error> {
        let life = self.shared.change(|state| state.begin(id)).ok_or(Error::UnknownBroker(id))?;
        connection::accept(Arc::clone(&self.shared), life, listener).map_err(Error::Listen)
    }

    /// `host:port` of every broker, running or not.
    pub fn bootstrap(&self) -> Vec<String> {
        self.shared.lock().addresses().map(|address| address.to_string()).collect()
    }

    /// Stops a broker: connections break, new ones are refused. Its partitions keep it as their
    /// leader, and have none until it is started again or they are [moved](Self::move_leader).
    ///
    /// # Errors
    /// There is no such broker, or its threads do not end.
    pub fn stop(&self, broker: i32) -> Result<(), Error> {
        let ended = self.shared.change(|state| state.end(broker)).ok_or(Error::UnknownBroker(broker))?;
        let Some((life, address)) = ended else { return Ok(()) };
        self.await_end(&[(life, address)])
    }

    /// Starts a stopped broker on the port that it had. Without effect on a running one.
    ///
    /// # Errors
    /// There is no such broker, or somebody else has taken its port meanwhile.
    pub fn start_again(&self, broker: i32) -> Result<(), Error> {
        let (address, up) = self.shared.lock().node(broker).ok_or(Error::UnknownBroker(broker))?;
        if up {
            return Ok(());
        }
        self.listen(broker, TcpListener::bind(address).map_err(Error::Listen)?)
    }

    /// Stops all brokers. `Drop` does the same, but cannot say that it failed.
    ///
    /// # Errors
    /// Threads do not end.
    pub fn shutdown(self) -> Result<(), Error> {
        self.end_all()
    }

    fn end_all(&self) -> Result<(), Error> {
        let ended: Vec<(Life, SocketAddr)> = self.shared.change(State::end_all);
        self.await_end(&ended)
    }

    /// Waits for the threads of lives that have ended.
    fn await_end(&self, ended: &[(Life, SocketAddr)]) -> Result<(), Error> {
        let deadline = Instant::now() + END_WITHIN;
        for (_, address) in ended {
            // An accepting thread is woken only by a connection. If it is gone already, this fails.
            drop(TcpStream::connect_timeout(address, END_WITHIN));
        }
        let threads = |state: &State| ended.iter().map(|(life, _)| state.threads_of(*life)).sum::<usize>();
        if self.shared.wait_until(&self.shared.noted, deadline, |state| threads(state) == 0) {
            return Ok(());
        }
        Err(Error::StillRunning { threads: threads(&self.shared.lock()) })
    }

    /// Breaks the open connections of a broker, which goes on (`connections.max.idle.ms`, a firewall).
    pub fn disconnect(&self, broker: i32) {
        self.shared.note(|state| state.disconnect_all(broker));
    }

    /// Creates a topic; its partitions are led by the brokers in turn.
    ///
    /// # Errors
    /// There is one of that name.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        let created = self.shared.change(|state| state.create_topic(name, partitions));
        if created { Ok(()) } else { Err(Error::TopicExists(name.to_owned())) }
    }

    /// Deletes a topic, and with it the offsets that groups have committed for it.
    pub fn delete_topic(&self, name: &str) {
        self.shared.change(|state| state.delete_topic(name));
    }

    /// Adds partitions to a topic.
    ///
    /// # Errors
    /// There is no such topic.
    pub fn add_partitions(&self, name: &str, partitions: i32) -> Result<(), Error> {
        let found = self.shared.change(|state| state.add_partitions(name, partitions));
        if found { Ok(()) } else { Err(unknown(name, 0)) }
    }

    /// The topics that were created because somebody asked for them.
    pub fn auto_created(&self) -> Vec<String> {
        self.shared.lock().auto_created().to_vec()
    }

    /// A topic's id; a topic that is created anew under the same name has another.
    pub fn topic_id(&self, name: &str) -> Option<[u8; 16]> {
        self.shared.lock().topic(name).map(|topic| topic.id)
    }

    /// Switches `message.downconversion.enable` of a topic: off, Fetch up to 3 gets error 35.
    ///
    /// # Errors
    /// There is no such topic.
    pub fn set_down_conversion(&self, name: &str, enabled: bool) -> Result<(), Error> {
        self.shared.change(|state| {
            state.topic_mut(name).map(|topic| topic.down_conversion = enabled).ok_or_else(|| unknown(name, 0))
        })
    }

    /// Gives a partition another leader, or none.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn move_leader(&self, topic: &str, partition: i32, to: Option<i32>) -> Result<(), Error> {
        self.shared.change(|state| {
            let found = state.partition_mut(topic, partition).ok_or_else(|| unknown(topic, partition))?;
            found.leader = to;
            Ok(())
        })
    }

    /// Looks at a partition's log, or changes it. Waiting fetches see the change at once.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn with_log<R>(&self, topic: &str, partition: i32, with: impl FnOnce(&mut Log) -> R) -> Result<R, Error> {
        self.shared.change(|state| {
            let found = state.partition_mut(topic, partition).ok_or_else(|| unknown(topic, partition))?;
            Ok(with(&mut found.log))
        })
    }

    /// Appends records of key and value as one batch, as of now, and returns the first one's offset.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn append(&self, topic: &str, partition: i32, records: &[(&str, &str)], codec: Codec) -> Result<i64, Error> {
        let timestamp_ms = now_ms();
        let records = records.iter().map(|(key, value)| NewRecord {
            timestamp_ms,
            key: Some(key.as_bytes().to_vec()),
            value: Some(value.as_bytes().to_vec()),
        });
        self.with_log(topic, partition, |log| log.append(records, codec).start)
    }

    /// A partition's log start and log end.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        let state = self.shared.lock();
        let found = state.partition(topic, partition).ok_or_else(|| unknown(topic, partition))?;
        Ok((found.log.start(), found.log.end()))
    }

    /// The offset that a group has committed.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.shared.lock().committed(group, topic, partition).map(|committed| committed.offset)
    }

    /// Commits an offset, or takes it away (as `offsets.retention.minutes` does).
    pub fn set_committed(&self, group: &str, topic: &str, partition: i32, offset: Option<i64>) {
        self.shared.note(|state| state.set_committed(group, topic, partition, offset, ""));
    }

    /// Gives a group live members: commits from outside get UNKNOWN_MEMBER_ID. None: it is empty.
    pub fn set_members(&self, group: &str, members: Vec<Member>) {
        self.shared.note(|state| state.set_members(group, members));
    }

    /// Puts a broker in charge of a group.
    pub fn move_coordinator(&self, group: &str, to: i32) {
        self.shared.note(|state| state.move_coordinator(group, to));
    }

    /// Changes what is served, as an upgrade does.
    pub fn set_versions(&self, versions: Versions) {
        self.shared.note(|state| state.options.versions = versions);
    }

    /// Orders a fault for the next request of a kind.
    pub fn on(&self, api: Api, fault: Fault) -> OrderId {
        self.order(Order::new(api, fault))
    }

    /// Orders a fault.
    pub fn order(&self, order: Order) -> OrderId {
        self.shared.note(|state| state.orders.add(order))
    }

    /// Cancels an order. Requests that hang stay so.
    pub fn cancel(&self, order: OrderId) {
        self.shared.note(|state| state.orders.cancel(order));
    }

    /// Cancels all orders.
    pub fn cancel_all(&self) {
        self.shared.note(|state| state.orders.cancel_all());
    }

    /// Whether an order has not yet struck as often as it was to.
    pub fn is_pending(&self, order: OrderId) -> bool {
        self.shared.lock().orders.is_pending(order)
    }

    /// How many requests of a kind have come in.
    pub fn requests(&self, api: Api) -> u64 {
        self.shared.lock().requests(api)
    }

    /// How many connections have been opened.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections()
    }

    /// Waits until this many requests of a kind have come in, and says whether they have.
    pub fn await_requests(&self, api: Api, count: u64, at_most: Duration) -> bool {
        self.shared.wait_until(&self.shared.noted, Instant::now() + at_most, |state| state.requests(api) >= count)
    }

    /// Waits until a group has committed at least this offset, and says whether it has.
    pub fn await_committed(&self, group: &str, topic: &str, partition: i32, offset: i64, at_most: Duration) -> bool {
        self.shared.wait_until(&self.shared.noted, Instant::now() + at_most, |state| {
            state.committed(group, topic, partition).is_some_and(|committed| committed.offset >= offset)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end_all() {
            eprintln!("broker: {error}");
        }
    }
}

fn unknown(topic: &str, partition: i32) -> Error {
    Error::UnknownPartition { topic: topic.to_owned(), partition }
}

/// The clock of records appended now, in milliseconds since 1970 (UTC).
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
