//! The reader over librdkafka (crate `rdkafka`): the only folder that names it. For all brokers, codecs and listeners.
//!
//! Owns one `BaseConsumer`, made with the first seek, and the positions. Partitions are assigned by hand, each with its
//! offset; the consumer has the group's name, but never joins it and never commits. What always holds:
//! - each partition has its own queue, so that errors, statistics and the log of librdkafka are taken at once, and
//!   records only as far as there is room;
//! - nothing waits: librdkafka signals when a queue that was empty has something, and `poll` empties queues or says that
//!   it wants to come again;
//! - messages hold their queue, queues hold the consumer, and the consumer ends on a thread of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rdkafka::Message as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::backoff::Backoff;
use crate::client::link::Link;
use crate::client::reader::{FIRST_RETRY, LONGEST_RETRY, PartState, Reader, Told, drop_spans, queued_bytes};
use crate::client::{Call, Connection, Fault, FetchSettings, Room};
use crate::memory::{Answer as Account, Held, LOOK_AGAIN, Place};
use crate::record::{Offset, Records, TopicPartition};

mod ask;
mod batch;
mod context;
mod inquiry;
mod loss;
pub mod member;
mod membership;
mod partition;
pub mod producer;
mod properties;
mod session;
mod take;
mod trouble;

use ask::Asked;
use batch::Taken;
use inquiry::{Answer, Inquiry, Question};
use membership::{Joining, Rebalance};
use partition::{Partition, Step};
pub use properties::check_properties;
#[doc(hidden)]
pub use properties::properties as config;
use session::Session;

type Queue = PartitionQueue<context::Context>;

/// The name of this reader among the links that are in trouble.
const LINK: &str = "librdkafka";

/// Batches that are done and wait to be freed. More of them are freed where they are done.
const DONE: usize = 128;

/// See the module's text.
#[doc(hidden)]
pub struct LibrdkafkaReader {
    name: String,
    group: String,
    connection: Arc<Connection>,
    settings: Arc<FetchSettings>,
    ready: Sender<()>,
    session: Option<Session>,
    /// An earlier one that has not ended yet.
    closing: Option<Receiver<()>>,
    /// No consumer is made before then.
    not_before: Option<Instant>,
    backoff: Backoff,
    parts: Vec<Partition>,
    /// Topics of which partitions were let go since the consumer was made.
    left: BTreeSet<Arc<str>>,
    /// The partition whose turn it is to give records.
    turn: usize,
    link: Link<Inquiry, Answer>,
    asked: Option<Asked>,
    told: Told,
    polled: Instant,
    /// Another look at once would bring more.
    more: bool,
    /// The batches that were taken.
    taken: Held,
    /// The same, and what librdkafka holds.
    held: Held,
    /// The messages of batches that are done, to be freed by this thread.
    done: (Sender<Taken>, Receiver<Taken>),
    /// What librdkafka held when it last told.
    queued: Option<Arc<Account>>,
    /// It waits for the reserve.
    place: Option<Place>,
    /// What librdkafka said last of a broker, until all is well.
    last_trouble: Option<String>,
    /// How each broker (`host:port`) answers.
    answers: HashMap<String, trouble::Answers>,
    /// With what the group is joined; `None`: it is not.
    joining: Option<Joining>,
    /// The group takes partitions away, and waits for them.
    frozen: bool,
    /// What went with a consumer that was given up.
    dropped: Option<Rebalance>,
}

impl LibrdkafkaReader {
    /// A reader called `name` in its threads' names and in the log. Nothing is connected and there is no thread before
    /// the first seek. `ready` is signalled when `poll` may have something; `held` counts what its answers hold.
    pub fn new(
        name: &str,
        group: &str,
        connection: Arc<Connection>,
        settings: Arc<FetchSettings>,
        ready: Sender<()>,
        held: Held,
    ) -> Self {
        let asks = Arc::clone(&connection);
        let make = move || Inquiry::new(Arc::clone(&asks));
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            link: Link::new(format!("link:{name}/librdkafka"), ready.clone(), make),
            connection,
            settings,
            ready,
            session: None,
            closing: None,
            not_before: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            parts: Vec::new(),
            left: BTreeSet::new(),
            turn: 0,
            asked: None,
            told: Told::default(),
            polled: Instant::now(),
            more: false,
            taken: Held::default(),
            held,
            done: bounded(DONE),
            queued: None,
            place: None,
            last_trouble: None,
            answers: HashMap::new(),
            joining: None,
            frozen: false,
            dropped: None,
        }
    }

    fn part(&mut self, name: &TopicPartition) -> Option<&mut Partition> {
        self.parts.iter_mut().find(|part| part.name == *name)
    }

    /// Makes the consumer if there is something to read, and anew if there is much more to read than it was made for.
    fn make(&mut self, now: Instant) {
        let wanted = self.joining.is_some() || self.parts.iter().any(|part| part.step == Step::Start);
        if !wanted {
            return;
        }
        let count = self.joining.as_ref().map_or(self.parts.len(), |joining| joining.partitions);
        if self.session.as_ref().is_some_and(|session| count > session.partitions.saturating_mul(2)) {
            log::debug!("librdkafka is started anew consumer={} partitions={count}", self.name);
            self.remake();
        }
        if matches!(self.closing.as_ref().map(Receiver::try_recv), Some(Err(TryRecvError::Disconnected))) {
            self.closing = None;
        }
        let waits = self.closing.is_some() || self.not_before.is_some_and(|at| at > now);
        if self.session.is_some() || waits {
            return;
        }
        let ready = self.ready.clone();
        let joining = self.joining.as_ref();
        match Session::new(&self.name, &self.group, &self.connection, &self.settings, count, joining, ready) {
            Ok(session) => {
                self.session = Some(session);
                self.not_before = None;
                self.backoff.reset();
                self.told.well(LINK);
            }
            Err(why) => self.failed("the start of librdkafka", why, now),
        }
    }

    /// A call to librdkafka as a whole has failed.
    fn failed(&mut self, call: &'static str, why: String, now: Instant) {
        self.not_before = Some(now + self.backoff.next_wait());
        self.told.trouble(LINK, Fault::Broken { call, why });
    }

    /// Lets the consumer go; all positions are kept, and are read from by the next one.
    fn remake(&mut self) {
        self.left.clear();
        self.drop_membership();
        self.part_with();
        if let Some(session) = self.session.take() {
            self.closing = Some(session.close(&self.name));
        }
    }

    /// Forgets what was assigned.
    fn part_with(&mut self) {
        for part in &mut self.parts {
            part.queue = None;
            part.is_assigned = false;
            if part.step == Step::Run {
                part.step = Step::Start;
            }
        }
        self.queued = None;
        // The next consumer counts from zero.
        self.answers.clear();
    }

    /// Assigns what is to be fetched from another place than it is.
    fn assign(&mut self, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|_| !self.frozen) else { return };
        let left = self.parts.iter_mut().filter(|part| {
            let elsewhere = part.step != Step::Run;
            // What is asked about, or waits, is let go as well: librdkafka would go on fetching what nobody takes,
            // and one batch that is too large costs the other partitions of a broker their connection.
            elsewhere && part.is_assigned && !is_looked_at(&part.step)
        });
        let left: Vec<&mut Partition> = left.collect();
        let mut result = session.unassign(left.iter().map(|part| &part.name));
        for part in left {
            (part.is_assigned, part.queue) = (false, None);
        }
        let mut at = Vec::new();
        for part in self.parts.iter_mut().filter(|part| part.step == Step::Start && !part.is_assigned) {
            let Some(position) = part.position else { continue };
            part.queue = session.queue(&part.name);
            part.is_assigned = true;
            part.step = Step::Run;
            at.push((part.name.clone(), position));
        }
        if result.is_ok() && !at.is_empty() {
            result = session.assign(&at);
            self.more = true;
        }
        if let Err(why) = result {
            self.remake();
            self.failed("the assignment of partitions", why, now);
        }
    }

    /// Takes what librdkafka has to tell of itself.
    fn listen(&mut self, now: Instant) {
        let Some(session) = &self.session else { return };
        let strays = session.listen();
        let notebook = session.notebook.clone();
        for stray in strays {
            // Its queue had not been its own when it was fetched. It is fetched again.
            log::debug!("records outside of their queue {stray}");
            if let Some(part) = self.part(&stray).filter(|part| part.step == Step::Run) {
                part.step = Step::Start;
            }
        }
        while let Some(trouble) = notebook.error() {
            self.broker_trouble(&trouble);
        }
        if let Some(statistics) = notebook.statistics() {
            self.observe(&statistics, now);
        }
        let fatal = self.session.as_ref().filter(|session| session.notebook.is_fatal()).and_then(Session::fatal);
        if let Some((code, text)) = fatal {
            self.fatal(code, &text, now);
        }
    }
}

/// Whether librdkafka may go on fetching a partition while a question about it is asked: nothing is known to be wrong.
fn is_looked_at(step: &Step) -> bool {
    matches!(step, Step::Ask(Question::Batch { fault: None }))
}

impl Reader for LibrdkafkaReader {
    fn add(&mut self, partition: &TopicPartition) {
        if self.part(partition).is_some() {
            return;
        }
        // A topic that was made anew begins with a lower leader epoch, and librdkafka believes no leader of it
        // whose epoch is lower than the last one it knew of that name (`rd_kafka_toppar_leader_update`).
        if self.left.contains(&partition.topic) {
            self.remake();
        }
        self.parts.push(Partition::new(partition.clone()));
    }

    fn remove(&mut self, partition: &TopicPartition) {
        let Some(index) = self.parts.iter().position(|part| part.name == *partition) else { return };
        let part = self.parts.remove(index);
        self.drop_spans(partition);
        let Some(session) = &self.session else { return };
        self.left.insert(Arc::clone(&partition.topic));
        if part.is_assigned
            && let Err(why) = session.unassign([partition].into_iter())
        {
            log::debug!("not unassigned {partition} error=\"{why}\"");
            self.remake();
        }
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        self.drop_spans(partition);
        if let Some(part) = self.part(partition) {
            part.seek(Some(to));
            self.more = true;
        }
    }

    fn leaders(&mut self, leaders: &HashMap<TopicPartition, String>, now: Instant) {
        for part in &mut self.parts {
            part.leader = leaders.get(&part.name).cloned();
            part.is_leaderless = part.leader.is_none();
            if part.is_leaderless && part.position.is_some() {
                part.ails(Fault::NoLeader, now, &mut self.told.events);
            }
        }
    }

    fn poll(&mut self, room: Room, now: Instant) {
        self.polled = now;
        self.more = false;
        self.free();
        self.collect(now);
        self.listen(now);
        for part in &mut self.parts {
            if matches!(part.step, Step::Wait(until) if until <= now) {
                part.step = Step::Start;
            }
            if part.is_leaderless && part.state().is_failing {
                part.ails(Fault::NoLeader, now, &mut self.told.events);
            }
        }
        self.make(now);
        self.assign(now);
        self.take(room, now);
        self.ask(now);
    }

    fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    fn wake(&self) -> Option<Instant> {
        let wants = self.session.is_none() && self.parts.iter().any(|part| part.step == Step::Start);
        // Nothing tells that an earlier consumer has ended, or that one can be made again.
        let make = wants.then(|| self.not_before.into_iter().fold(self.polled + FIRST_RETRY, Instant::max));
        let line = self.place.as_ref().map(|_| self.polled + LOOK_AGAIN);
        let more = self.more.then_some(self.polled);
        let parts = self.parts.iter().filter_map(Partition::wake);
        parts.chain(make).chain(line).chain(more).chain(self.link.deadline()).min()
    }

    fn under_way(&self) -> Option<Call> {
        self.link.call()
    }

    fn state(&self, partition: &TopicPartition) -> Option<PartState> {
        self.parts.iter().find(|part| part.name == *partition).map(Partition::state)
    }
}

impl LibrdkafkaReader {
    /// Frees the messages that are done.
    fn free(&self) {
        self.done.1.try_iter().for_each(drop);
    }

    fn drop_spans(&mut self, of: &TopicPartition) {
        drop_spans(&mut self.told.events, |name| name == of);
    }
}

impl Drop for LibrdkafkaReader {
    fn drop(&mut self) {
        // The consumer's end is waited for only if nothing holds messages.
        self.told.events.clear();
        self.free();
        self.part_with();
        if let Some(session) = self.session.take() {
            session.close_and_wait(&self.name);
        }
    }
}
