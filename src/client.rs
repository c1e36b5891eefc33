//! The seam between the worker and a Kafka client library. All above it is written once.
//!
//! Owns the traits and the words in which clients speak: events, faults, bounds. It touches no
//! library and no socket. What every client promises:
//! - a position moves only by a [`Span`], in which each offset is delivered or
//!   proved not to exist;
//! - `poll` never waits: what it has to wait for, it announces by `ready` and `wake`;
//! - after an error it has already rebuilt itself, and goes on from the positions it had.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::memory::{Held, Reserve};
use crate::progress::counts::Times;
use crate::record::{Offset, Span, TopicId, TopicPartition};

pub mod assigned;
pub mod control;
pub mod fault;
mod kafka;
#[cfg(feature = "librdkafka")]
pub mod librdkafka;
pub(crate) mod link;
pub mod properties;
#[doc(hidden)]
pub mod reader;
pub mod reading;
pub mod security;

pub use fault::{Fault, Resource, Retry};
pub use reading::{Isolation, Library, Membership, Portion, Reading};
pub use security::{Principal, Security};

/// How much the consumer can take at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory for records, those of fetches under way included. With none, nothing new is
    /// fetched; commits and the group are served all the same.
    pub bytes: usize,
}

/// Where a partition's log begins and ends at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that still exists (*log start offset*).
    pub log_start: Offset,
    /// The next offset to be written, as far as consumers may read (*high watermark*).
    pub log_end: Offset,
}

impl Bounds {
    /// Whether a fetch at `offset` is in range. Both ends are: at the log start there is the first
    /// record, and at the log end the next one will be.
    pub fn contain(&self, offset: Offset) -> bool {
        self.log_start <= offset && offset <= self.log_end
    }
}

/// `log_start=4 log_end=9`
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log_start={} log_end={}", self.log_start, self.log_end)
    }
}

/// A partition that the client now holds, with what is needed to decide where to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The group's committed offset, if it has one.
    pub committed: Option<Offset>,
    /// Its range at this moment.
    pub bounds: Bounds,
    /// What an earlier run of this program has committed, if the group has nothing: the group has forgotten
    /// it. Never of a partition that is new.
    pub remembered: Option<Offset>,
    /// It appeared after the client had first seen its topic, or looked for it in vain: whatever it
    /// holds was written since then.
    pub is_new: bool,
}

/// What a client is told of a partition that an earlier run of this program has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id at that time, where the broker knows ids.
    pub topic_id: Option<TopicId>,
    /// What was committed last.
    pub offset: Offset,
}

/// Why partitions are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The topic was deleted.
    TopicDeleted,
    /// The group counts this worker as dead: they are another member's by now.
    LeftGroup,
}

/// What a client has to tell.
#[derive(Debug)]
pub enum Event {
    /// The id of a topic that is being read, where the broker knows ids. Told before its partitions.
    TopicId(Arc<str>, TopicId),
    /// Partitions of one topic that the client holds from now on. Nothing of them is fetched before
    /// a [`Client::seek`].
    Assigned(Vec<Assignment>),
    /// So many partitions of the topic exist and can't be started at present, for instance because they have
    /// no leader; told when that changes.
    Unstarted(Arc<str>, usize),
    /// The topic exists, and none of its partitions is this client's: others read them. Told once.
    NoneHeld(Arc<str>),
    /// The topic does not exist at present. It is looked for again; told once.
    Missing(Arc<str>),
    /// Records, or the proof that there are none.
    Span(Span),
    /// The position is outside the log. Nothing of it is fetched before a [`Client::seek`].
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The position that is outside.
        at: Offset,
        /// The range that it is outside of.
        bounds: Bounds,
    },
    /// One partition can't be read at present; the client goes on trying where that makes sense.
    Failing(TopicPartition, Fault),
    /// A partition that was failing is read again.
    Recovered(TopicPartition),
    /// The client as a whole works again, after `poll` had returned an error. Told once.
    Connected,
    /// The answer to [`Client::commit`], for all its partitions or for the group as a whole.
    Committed(Result<Vec<(TopicPartition, Offset)>, Fault>),
    /// Another worker, in these words, has committed a partition after this client had. Told before the
    /// [`Event::ReadBack`] of each look at which that is so.
    OtherWorker(TopicPartition, String),
    /// What the group has for partitions that are read, looked at now and then. No commit of this client
    /// was under way meanwhile.
    ReadBack(Vec<(TopicPartition, Option<Offset>)>),
    /// Partitions that the client no longer has. Their positions mean nothing now.
    Lost(Vec<TopicPartition>, Loss),
    /// The group is about to give these partitions to another member. Nothing more of them is fetched; they are held
    /// until [`Client::release`], so that what is in flight can be finished and committed.
    Revoking(Vec<TopicPartition>),
}

/// A blocking call to a broker that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called: Kafka's name of the request.
    pub what: &'static str,
    /// When it was started.
    pub since: Instant,
}

/// A client of one group and its topics. Owned and called by one consumer thread.
pub trait Client: Send {
    /// Signalled when `poll` may have something. To be waited on after `poll` returned `None`.
    fn ready(&self) -> &Receiver<()>;

    /// When `poll` wants to be called again even if nothing is ready: a deadline, a backoff, the
    /// next look at the metadata. `None`: not before `ready`.
    fn wake(&self) -> Option<Instant>;

    /// Takes what has come in, and asks for more as far as `room` allows. Never waits.
    ///
    /// # Errors
    /// The whole client is in trouble, for instance no broker can be reached. It has rebuilt
    /// itself and tries again by itself, with a backoff; the same trouble is told once.
    fn poll(&mut self, room: Room) -> Result<Option<Event>, Fault>;

    /// Sets the position of a partition, drops what is under way for it, and fetches from there.
    fn seek(&mut self, partition: &TopicPartition, to: Offset);

    /// Commits offsets to the group, as they are. Answered by one [`Event::Committed`]; at most one
    /// commit is under way.
    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]);

    /// Lets partitions go that are being revoked. No commit of them follows.
    fn release(&mut self, _partitions: &[TopicPartition]) {}

    /// The call that has been under way for longest, for those who watch; `None` also if the client does
    /// not know.
    fn under_way(&self) -> Option<Call> {
        None
    }

    /// What its answers hold, also when it is gone itself; `None` if the client does not know.
    fn held(&self) -> Option<Held> {
        None
    }
}

/// Questions about a cluster, answered one at a time by a blocking call with a deadline.
/// Used by the client's own thread below the seam, by the observer and by operator commands.
pub trait Cluster: Send {
    /// The partitions of each topic. Never creates a topic.
    ///
    /// # Errors
    /// Outside: no broker could be asked. Inside: that topic's are not known, for instance
    /// [`Fault::TopicMissing`].
    fn partitions(&mut self, topics: &[Arc<str>]) -> Result<Vec<Result<Vec<TopicPartition>, Fault>>, Fault>;

    /// The names of all topics that the cluster has and lets us see, without its own.
    ///
    /// # Errors
    /// No broker could be asked.
    fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault>;

    /// Log start and log end of each partition.
    ///
    /// # Errors
    /// Outside: no broker could be asked. Inside: that partition has none at present, for instance
    /// while it has no leader.
    fn bounds(&mut self, of: &[TopicPartition]) -> Result<Vec<Result<Bounds, Fault>>, Fault>;

    /// The last stable offset of each partition, as far as it is known: before it no transaction is open.
    ///
    /// # Errors
    /// No broker could be asked.
    fn last_stable(&mut self, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        Ok(vec![None; of.len()])
    }

    /// The group's committed offset of each partition.
    ///
    /// # Errors
    /// The coordinator could not be asked, or refused.
    fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault>;

    /// Commits offsets to the group without being a member of it.
    ///
    /// # Errors
    /// The coordinator could not be asked, or refused, for instance because the group has members.
    fn commit(&mut self, group: &str, at: &[(TopicPartition, Offset)]) -> Result<(), Fault>;
}

/// A live member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the coordinator calls it.
    pub id: String,
    /// What it calls itself.
    pub client_id: String,
    /// Where it connects from, as the broker writes it: `/10.0.0.7`.
    pub host: String,
}

/// `worker at 10.0.0.7`
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.client_id, self.host.trim_start_matches('/'))
    }
}

/// The batch that is read next from an offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Where it was asked, or the first offset behind that which is no transaction marker.
    pub offset: Offset,
    /// All its bytes.
    pub size: usize,
    /// How many records there are in it, where the format says so.
    pub records: Option<u32>,
    /// It was written in a transaction, which may have been aborted.
    pub transactional: bool,
}

/// What is asked to find out why something does not move, beside all that [`Cluster`] answers. Nothing of it
/// joins a group, commits, or reads records.
pub trait Inspect: Cluster {
    /// The live members of a group; none if there is no such group.
    ///
    /// # Errors
    /// The coordinator could not be asked, or refused.
    fn members(&mut self, group: &str) -> Result<Vec<Member>, Fault>;

    /// What a client would meet at an offset: the next batch, or nothing if the log ends there. `old`: the client is the one
    /// over the crate `kafka`.
    ///
    /// # Errors
    /// [`Fault::Unreadable`], [`Fault::TooNew`]: this client will never read it. Else: it could not be learned, for instance because
    /// the partition has no leader or the offset is outside the log.
    fn ahead(&mut self, partition: &TopicPartition, at: Offset, old: bool) -> Result<Option<Ahead>, Fault>;
}

/// A topic as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id, where the broker knows ids.
    pub id: Option<TopicId>,
    /// Its partitions, in the order of their numbers.
    pub partitions: Vec<TopicPartition>,
}

/// What a group has committed of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: Offset,
    /// What the one who committed has written beside it; empty for most.
    pub metadata: String,
}

/// What an operator's commands need to move the offsets of groups.
pub trait Manage: Inspect {
    /// The topics with their ids. A round of questions begins with it. Never creates a topic.
    ///
    /// # Errors
    /// As for [`Cluster::partitions`].
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Result<Topic, Fault>>, Fault>;

    /// For each partition the offset of the first record whose timestamp is `time_ms` (milliseconds since 1970, UTC) or
    /// later; `None` if there is none.
    ///
    /// # Errors
    /// As for [`Cluster::bounds`].
    fn at_time(&mut self, of: &[TopicPartition], time_ms: u64) -> Result<Vec<Result<Option<Offset>, Fault>>, Fault>;

    /// What [`Cluster::committed`] answers, with the metadata.
    ///
    /// # Errors
    /// The coordinator could not be asked, or refused.
    fn committed_with_metadata(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Fault>;

    /// What [`Cluster::commit`] does, with metadata; a broker takes up to 4096 bytes of it
    /// (`offset.metadata.max.bytes`).
    ///
    /// # Errors
    /// As for [`Cluster::commit`]. Partitions that were not refused are committed.
    fn commit_with_metadata(
        &mut self,
        group: &str,
        at: &[(TopicPartition, Offset)],
        metadata: &str,
    ) -> Result<(), Fault>;
}

/// Hosts that have spoken plain Kafka in this process: when such a one closes a connection without a word,
/// it stops or starts, and is no stranger.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts(Arc<Mutex<BTreeSet<String>>>);

impl KnownHosts {
    fn hosts(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `host:port` is known.
    pub fn contain(&self, host: &str) -> bool {
        self.hosts().contains(host)
    }

    /// `host:port` has answered a request.
    pub fn add(&self, host: &str) {
        self.hosts().insert(host.to_owned());
    }
}

/// How a client talks to its brokers: what a client needs to be made.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `host:port` of brokers to ask first.
    pub bootstrap_servers: Vec<String>,
    /// The name under which the brokers' logs and quotas know this client.
    pub client_id: String,
    /// How long the opening of a connection may take.
    pub connect_timeout: Duration,
    /// How long any one request may take, beyond the time that a fetch is allowed to be held.
    pub request_timeout: Duration,
    /// How often topics, partitions and committed offsets are looked up anew.
    pub metadata_max_age: Duration,
    /// How they are protected, and who we are there.
    pub security: Security,
    /// More properties of librdkafka, name and value, as the configuration has them; none that the worker owns.
    pub properties: Vec<(String, String)>,
    /// Who has answered so far; shared by all clients of the process.
    pub known: KnownHosts,
}

impl Connection {
    /// How long a look at the metadata and the group may take: some hosts may have to time out before one answers, and
    /// the group is asked as well.
    pub(crate) fn survey_timeout(&self) -> Duration {
        let hosts = u32::try_from(self.bootstrap_servers.len()).unwrap_or(u32::MAX);
        self.connect_timeout.saturating_mul(hosts) + self.request_timeout * 2
    }
}

/// How records are fetched: the settings of one consumer's fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// How long the broker may hold a fetch that has less than `min_bytes` to answer.
    pub max_wait: Duration,
    /// How much has to be there before the broker answers earlier.
    pub min_bytes: i32,
    /// Upper limit of one partition's part of a fetch, in bytes.
    pub max_partition_bytes: usize,
    /// Upper limit of a fetch, in bytes.
    pub max_bytes: usize,
    /// The consumer's share of the memory for records, in bytes; a fetch that needs more needs the
    /// reserve.
    pub memory: usize,
    /// What one consumer at a time may borrow for a fetch that is larger than its share.
    pub reserve: Reserve,
    /// Whether each record's checksum is verified.
    pub check_crcs: bool,
    /// Which records of transactions are delivered, where the library knows.
    pub isolation: Isolation,
    /// Where it is told how long each fetch took that was answered.
    pub times: Arc<Times>,
}
