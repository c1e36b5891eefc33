//! The consumer of librdkafka with its threads: made, asked what it has to tell, and let go in the right order.
//!
//! Messages that were taken hold their queue, and queues hold the consumer: it ends, on a thread of its own, when the
//! last message is done. Until then what is closed reads nothing, and is no member of its group any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Place, TopicPartitionList};

use super::Queue;
use super::context::{Context, Notebook};
use super::membership::Joining;
use super::properties::{membership, properties, reason};
use crate::client::{Connection, FetchSettings};
use crate::record::{Offset, TopicPartition};

/// Calls of one look at the main queue: what is told faster than that is looked at with the next.
const LOOKS: usize = 1_000;
/// How long its end is waited for. It takes some milliseconds, but for a name server that does not answer: librdkafka
/// waits for its threads, and they for that.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How often a consumer that only waits for its messages to be done asks what the group wants of it.
const LET_GO_AGAIN: Duration = Duration::from_millis(100);

/// Called by librdkafka's threads under a lock of a queue: brief, and it never waits.
fn wake(ready: &Sender<()>) {
    // Full means that a wake-up is already on its way.
    let _ = ready.try_send(());
}

/// Partitions, each with an offset, as librdkafka takes them.
fn listed(offsets: &[(TopicPartition, Offset)]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (part, offset) in offsets {
        list.add_partition_offset(&part.topic, part.partition, Place::Offset(offset.get()))?;
    }
    Ok(list)
}

/// What the messages that were taken hold, so that it is known when all are done.
pub(super) type Tether = Arc<Sender<()>>;

/// See the module's text.
pub(super) struct Session {
    consumer: Arc<BaseConsumer<Context>>,
    tether: Tether,
    /// Disconnected when nobody has the tether.
    all_done: Receiver<()>,
    /// A handle of each queue that was made.
    queues: Vec<(TopicPartition, Arc<Queue>)>,
    pub(super) notebook: Notebook,
    /// For how many partitions its memory was divided.
    pub(super) partitions: usize,
    ready: Sender<()>,
    closing: Arc<AtomicBool>,
}

impl Session {
    /// Starts librdkafka's threads. Nothing is assigned.
    ///
    /// # Errors
    /// In librdkafka's words, for instance that a certificate can't be read.
    pub(super) fn new(
        name: &str,
        group: &str,
        connection: &Connection,
        settings: &FetchSettings,
        partitions: usize,
        joining: Option<&Joining>,
        ready: Sender<()>,
    ) -> Result<Self, String> {
        let notebook = Notebook::default();
        let closing = Arc::new(AtomicBool::new(false));
        let context = Context { name: name.to_owned(), notebook: notebook.clone(), closing: Arc::clone(&closing) };
        let mut config = properties(group, connection, settings, partitions);
        if let Some(joining) = joining {
            membership(&mut config, joining);
        }
        let made = config.create_with_context(context);
        let mut consumer: BaseConsumer<Context> = made.map_err(|error| reason(&error))?;
        let signal = ready.clone();
        consumer.set_nonempty_callback(move || wake(&signal));
        // What was told before there was the callback is looked at with the first poll.
        wake(&ready);
        if let Some(joining) = joining {
            let topics: Vec<&str> = joining.topics.iter().map(|topic| &**topic).collect();
            consumer.subscribe(&topics).map_err(|error| reason(&error))?;
        }
        let (tether, all_done) = bounded(0);
        let (consumer, tether) = (Arc::new(consumer), Arc::new(tether));
        Ok(Self { consumer, tether, all_done, queues: Vec::new(), notebook, partitions, ready, closing })
    }

    /// For what holds messages.
    pub(super) fn tether(&self) -> Tether {
        Arc::clone(&self.tether)
    }

    /// Takes out what librdkafka has to tell. Returns the partitions whose records came here and not in their own
    /// queue; the records are lost to it.
    pub(super) fn listen(&self) -> Vec<TopicPartition> {
        use rdkafka::Message as _;
        let mut strays = Vec::new();
        for _ in 0..LOOKS {
            let told = self.notebook.told();
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => strays.push(TopicPartition::new(message.topic(), message.partition())),
                Some(Err(KafkaError::MessageConsumptionFatal(_))) => self.notebook.give_up(),
                Some(Err(_)) => {}
                // It says nothing of what it has given to the context instead.
                None if self.notebook.told() == told => break,
                None => {}
            }
        }
        strays.dedup();
        strays
    }

    /// The partition's own queue. To be taken before the partition is assigned: a queue that the application has
    /// taken is left alone by the start of fetching (`RD_KAFKA_Q_F_FWD_APP`).
    pub(super) fn queue(&mut self, partition: &TopicPartition) -> Option<Arc<Queue>> {
        // It may be the same queue of librdkafka's, and the end of a handle takes the callback away. So none ends
        // while there may be a newer one: an earlier one ends here, or is kept for as long as messages hold it.
        self.queues.retain(|(name, queue)| name != partition || Arc::strong_count(queue) > 1);
        let mut queue = self.consumer.split_partition_queue(&partition.topic, partition.partition)?;
        let signal = self.ready.clone();
        queue.set_nonempty_callback(move || wake(&signal));
        let queue = Arc::new(queue);
        self.queues.push((partition.clone(), Arc::clone(&queue)));
        Some(queue)
    }

    /// Lets partitions go. When it returns, nothing that was fetched for them before is given out any more: the
    /// version of each partition is raised before the call is answered (`rd_kafka_toppar_op_fetch_stop`), and what
    /// bears an older one is thrown away by the queue.
    pub(super) fn unassign<'a>(&self, of: impl Iterator<Item = &'a TopicPartition>) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        for part in of {
            list.add_partition(&part.topic, part.partition);
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_unassign(&list).map_err(|error| reason(&error))
    }

    /// Fetches partitions, each from its offset on.
    pub(super) fn assign(&self, at: &[(TopicPartition, Offset)]) -> Result<(), String> {
        listed(at).and_then(|list| self.consumer.incremental_assign(&list)).map_err(|error| reason(&error))
    }

    /// Why librdkafka has given up, if it has.
    pub(super) fn fatal(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.consumer.client().fatal_error()
    }

    /// A commit as a member of the group, to be made on another thread: it waits for its answer. (Of one that does not
    /// wait the crate tells nothing: librdkafka calls back only who has set `offset_commit_cb`.)
    pub(super) fn commit(
        &self,
        offsets: &[(TopicPartition, Offset)],
    ) -> impl FnOnce() -> KafkaResult<()> + Send + use<> {
        let (consumer, offsets) = (Arc::clone(&self.consumer), offsets.to_vec());
        move || consumer.commit(&listed(&offsets)?, CommitMode::Sync)
    }

    /// Ends it on a thread of its own, as its end can't be interrupted. The receiver is disconnected when all its
    /// threads are gone; or, if messages are held, when it reads nothing more.
    pub(super) fn close(self, name: &str) -> Receiver<()> {
        let (done, gone) = bounded::<()>(0);
        let end = move || self.end(done);
        // Without a thread it ends here and now, as the closure is dropped.
        if let Err(why) = thread::Builder::new().name(format!("close:{name}")).spawn(end) {
            log::debug!("no thread for the end of librdkafka consumer={name} error=\"{why}\"");
        }
        gone
    }

    fn end(self, done: Sender<()>) {
        // What the group gives from now on is let go at once, see `Context::rebalance`.
        self.closing.store(true, Ordering::Relaxed);
        drop(self.tether);
        if self.all_done.try_recv().is_err_and(|error| error.is_empty()) {
            self.consumer.unsubscribe();
            if let Err(why) = self.consumer.unassign() {
                log::debug!("librdkafka does not let go error=\"{why}\"");
            }
            drop(done);
            while self.all_done.recv_timeout(LET_GO_AGAIN).is_err_and(|error| error.is_timeout()) {
                drop(self.consumer.poll(Duration::ZERO));
            }
        }
        // The last one of them ends the consumer, and waits for that.
        drop((self.queues, self.consumer));
    }

    /// Ends it, and waits for that, though not for ever.
    pub(super) fn close_and_wait(self, name: &str) {
        let gone = self.close(name);
        if gone.recv_timeout(CLOSE_WITHIN).is_err_and(|error| error.is_timeout()) {
            log::warn!(
                "librdkafka has not ended consumer={name} within_ms={} meaning=\"one of its threads waits for a name server, the network or its group; it is left behind\"",
                CLOSE_WITHIN.as_millis()
            );
        }
    }
}
