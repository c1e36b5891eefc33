//! A client that shares the partitions of its topics with other members of the group, by Kafka's own protocol.
//!
//! Owns a reader whose consumer has subscribed, and a link on which the wire socket is asked where partitions begin and
//! what the group has. What always holds:
//! - a partition that the group gives is read once the group's offset and the log's range are known;
//! - one that it takes away is kept, unread, until the consumer has let it go, so that what is in flight can be finished
//!   and committed; the other members wait for it no longer than that;
//! - commits go through librdkafka, with the member's generation: the broker refuses those of a member that was
//!   replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::LibrdkafkaReader;
use super::loss::Losses;
use super::membership::{COMMIT, Rebalance};
use crate::backoff::Backoff;
use crate::client::control::Control;
use crate::client::link::Link;
use crate::client::reader::{FIRST_RETRY, LONGEST_RETRY, Reader as _, SLACK, Troubled, drop_spans, queued_bytes};
use crate::client::{Call, Client, Connection, Event, Fault, FetchSettings, Loss, Remembered, Room};
use crate::memory::Held;
use crate::record::{Offset, TopicId, TopicPartition};

mod look;

use look::Look;

/// librdkafka counts a member that does not poll for `max.poll.interval.ms` (five minutes) as dead.
const POLL_AT_LEAST: Duration = Duration::from_secs(10);

/// What is known of a topic.
#[derive(Default)]
struct Known {
    id: Option<TopicId>,
    told: bool,
    is_missing: bool,
    is_failing: bool,
}

/// See the module's text.
pub struct GroupClient {
    name: String,
    group: String,
    topics: Vec<Arc<str>>,
    connection: Arc<Connection>,
    instance_id: Option<String>,
    reader: LibrdkafkaReader,
    ready: Receiver<()>,
    link: Link<Control, Result<Look, Fault>>,
    look_due: Instant,
    /// When the last look began.
    look_began: Instant,
    /// Gone, and not told yet.
    losses: Losses,
    /// Since when each look has failed.
    look_fails: Option<Instant>,
    backoff: Backoff,
    known: BTreeMap<Arc<str>, Known>,
    remembered: HashMap<TopicPartition, Offset>,
    /// Given by the group, and not started yet.
    unstarted: BTreeSet<TopicPartition>,
    /// The topic was made anew: what the group has of these means nothing.
    anew: BTreeSet<TopicPartition>,
    /// Started, and not taken away.
    held_parts: BTreeSet<TopicPartition>,
    /// Taken away by the group, and not let go yet.
    revoked: BTreeSet<TopicPartition>,
    /// All that is being revoked at a time is let go at a time.
    released: Vec<TopicPartition>,
    commit_link: Link<(), Result<(), Fault>>,
    /// What the commit under way would commit.
    committing: Vec<(TopicPartition, Offset)>,
    events: VecDeque<Event>,
    faults: VecDeque<Fault>,
    /// What was told of the cluster and of the reader.
    troubled: Troubled<String>,
    joined: bool,
    /// Topics of which the group has nothing for this member, as was told.
    none_held: BTreeSet<Arc<str>>,
    polled: Instant,
    held: Held,
}

impl GroupClient {
    /// A member called `name` in its threads' names; `instance_id` makes it a static one. Nothing is connected before
    /// the first `poll`.
    pub fn new(
        name: &str,
        group: &str,
        topics: Vec<Arc<str>>,
        connection: Arc<Connection>,
        settings: Arc<FetchSettings>,
        instance_id: Option<String>,
        remembered: &[Remembered],
    ) -> Self {
        let (wake, ready): (Sender<()>, _) = bounded(1);
        let asks = Arc::clone(&connection);
        let make = move || Control::new(Arc::clone(&asks));
        let held = Held::default();
        let (now, known) = (Instant::now(), topics.iter().map(|topic| (Arc::clone(topic), Known::default())));
        let mut known: BTreeMap<_, _> = known.collect();
        for one in remembered {
            if let Some(known) = known.get_mut(&one.partition.topic) {
                known.id = one.topic_id;
            }
        }
        let reader = LibrdkafkaReader::new(name, group, Arc::clone(&connection), settings, wake.clone(), held.clone());
        let commit_link = Link::new(format!("link:{name}/group"), wake.clone(), || ());
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            topics,
            connection,
            instance_id,
            reader,
            ready,
            link: Link::new(format!("link:{name}/member"), wake, make),
            look_due: now,
            look_began: now,
            losses: Losses::default(),
            look_fails: None,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            known,
            remembered: remembered.iter().map(|one| (one.partition.clone(), one.offset)).collect(),
            unstarted: BTreeSet::new(),
            anew: BTreeSet::new(),
            held_parts: BTreeSet::new(),
            revoked: BTreeSet::new(),
            released: Vec::new(),
            commit_link,
            committing: Vec::new(),
            events: VecDeque::new(),
            faults: VecDeque::new(),
            troubled: Troubled::none(),
            joined: false,
            none_held: BTreeSet::new(),
            polled: now,
            held,
        }
    }

    fn trouble(&mut self, place: &str, fault: Fault) {
        if self.troubled.failed(place.to_owned(), &fault) {
            self.faults.push_back(fault);
        } else {
            log::debug!("still in trouble place={place} group_id={} error=\"{fault}\"", self.group);
        }
    }

    fn well(&mut self, place: &str) {
        if self.troubled.well(place) {
            self.events.push_back(Event::Connected);
        }
    }

    fn tell_unstarted(&mut self) {
        for topic in &self.topics {
            let count = self.unstarted.iter().filter(|name| name.topic == *topic).count();
            self.events.push_back(Event::Unstarted(Arc::clone(topic), count));
        }
    }

    /// A member of more than there are partitions waits for one of the others to leave; it has started all the same.
    fn tell_none_held(&mut self) {
        for topic in &self.topics {
            let has = |names: &BTreeSet<TopicPartition>| names.iter().any(|name| name.topic == *topic);
            if has(&self.held_parts) || has(&self.unstarted) || has(&self.revoked) {
                self.none_held.remove(topic);
            } else if self.none_held.insert(Arc::clone(topic)) {
                log::info!(
                    "no partition for this member at present topic={topic} group_id={} meaning=\"it is a spare member, and \
                     holds none: the others have all partitions; it steps in when one of them leaves\"",
                    self.group
                );
                self.events.push_back(Event::NoneHeld(Arc::clone(topic)));
            }
        }
    }

    /// What the group has decided.
    fn rebalanced(&mut self, rebalance: Rebalance, now: Instant) {
        match rebalance {
            Rebalance::Assigned(list) => {
                // With nothing it is a round of the group that has changed nothing here.
                let level = if list.is_empty() { log::Level::Debug } else { log::Level::Info };
                log::log!(level, "partitions assigned group_id={} {}", self.group, in_words(&list));
                // What is lost and given again comes in this order.
                self.tell_losses();
                self.reader.take_over(&list);
                self.unstarted.extend(list);
                self.look_due = now;
                self.tell_unstarted();
                self.tell_none_held();
            }
            Rebalance::Revoked(list) => {
                log::info!("partitions revoked group_id={} {}", self.group, in_words(&list));
                self.revoked.extend(list.iter().cloned());
                let (held, fresh): (Vec<_>, Vec<_>) = list.into_iter().partition(|name| self.held_parts.remove(name));
                self.unstarted.retain(|name| !self.revoked.contains(name));
                held.iter().for_each(|name| self.reader.rest(name));
                self.drop_spans(&held);
                // Of what was not started there is nothing to finish.
                self.let_go(&fresh);
                if !held.is_empty() {
                    self.events.push_back(Event::Revoking(held));
                }
            }
            Rebalance::Lost(list) => {
                let gone: BTreeSet<TopicPartition> = list.into_iter().collect();
                self.held_parts.retain(|name| !gone.contains(name));
                self.unstarted.retain(|name| !gone.contains(name));
                self.revoked.retain(|name| !gone.contains(name));
                self.released.clear();
                // What was made anew is gone already.
                let gone: Vec<TopicPartition> = gone.into_iter().filter(|name| !self.anew.contains(name)).collect();
                self.drop_spans(&gone);
                self.losses.add(gone, now);
                self.look_due = now;
            }
        }
    }

    /// Tells what is gone, and why, as far as the last look knows it.
    fn tell_losses(&mut self) {
        let is_missing = |name: &TopicPartition| self.known.get(&name.topic).is_some_and(|known| known.is_missing);
        let (deleted, left): (Vec<_>, Vec<_>) = self.losses.take().into_iter().partition(is_missing);
        for (gone, why) in [(deleted, Loss::TopicDeleted), (left, Loss::LeftGroup)] {
            if !gone.is_empty() {
                self.events.push_back(Event::Lost(gone, why));
            }
        }
    }

    fn drop_spans(&mut self, of: &[TopicPartition]) {
        drop_spans(&mut self.events, |name| of.contains(name));
    }

    /// Tells the group that it may give partitions away, once all of those are done that it has asked for at a time.
    fn let_go(&mut self, partitions: &[TopicPartition]) {
        for name in partitions {
            if self.revoked.remove(name) {
                self.released.push(name.clone());
            }
        }
        if self.revoked.is_empty() && !self.released.is_empty() {
            let released = std::mem::take(&mut self.released);
            self.reader.let_go(&released);
        }
    }

    fn collect_commit(&mut self, now: Instant) {
        let answer = match self.commit_link.reply(now) {
            None => return,
            Some(Ok(answer)) => answer,
            Some(Err(fault)) => Err(fault),
        };
        let sent = std::mem::take(&mut self.committing);
        self.events.push_back(Event::Committed(answer.map(|()| sent)));
    }

    /// Takes what the reader has to tell.
    fn take_told(&mut self, now: Instant) {
        let told = self.reader.told();
        let (events, links) = (std::mem::take(&mut told.events), std::mem::take(&mut told.links));
        let soon = std::mem::take(&mut told.survey_soon);
        self.events.extend(events);
        for (link, state) in links {
            match state {
                Ok(()) => self.well(&link),
                Err(fault) => self.trouble(&link, fault),
            }
        }
        if soon {
            self.look_due = self.look_due.min(now + self.backoff.next_wait());
        }
    }
}

/// `partitions="orders-0, orders-2"`
fn in_words(list: &[TopicPartition]) -> String {
    let names: Vec<String> = list.iter().map(|name| format!("{}-{}", name.topic, name.partition)).collect();
    format!("count={} partitions=\"{}\"", names.len(), names.join(", "))
}

impl Client for GroupClient {
    fn ready(&self) -> &Receiver<()> {
        &self.ready
    }

    fn wake(&self) -> Option<Instant> {
        let later = |at: &Instant| *at > self.polled;
        let look = if self.link.is_busy() { self.link.deadline() } else { Some(self.look_due) };
        let links = [look, self.commit_link.deadline(), self.losses.deadline()];
        let own = links.into_iter().chain([Some(self.polled + POLL_AT_LEAST)]).flatten().filter(later);
        own.chain(self.reader.wake()).min()
    }

    fn poll(&mut self, room: Room) -> Result<Option<Event>, Fault> {
        let now = Instant::now();
        self.polled = now;
        self.collect_look(now);
        self.reader.poll(Room { bytes: room.bytes.saturating_sub(queued_bytes(&self.events)) }, now);
        self.take_told(now);
        while let Some(rebalance) = self.reader.rebalance() {
            self.rebalanced(rebalance, now);
        }
        self.collect_commit(now);
        self.start_look(now);
        if self.losses.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell_losses();
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.faults.pop_front().map_or(Ok(None), Err)
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        self.drop_spans(std::slice::from_ref(partition));
        if self.held_parts.contains(partition) {
            self.reader.seek(partition, to);
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        debug_assert!(!self.commit_link.is_busy(), "one commit at a time");
        let is_gone = self.losses.has_any(offsets.iter().map(|(name, _)| name));
        let Some(commit) = (if is_gone { None } else { self.reader.commit(offsets) }) else {
            let why = "not a member of the group at present".to_owned();
            self.events.push_back(Event::Committed(Err(Fault::Broken { call: COMMIT, why })));
            return;
        };
        let allowed = self.connection.request_timeout + SLACK;
        match self.commit_link.start(COMMIT, allowed, Instant::now(), move |()| commit()) {
            Ok(()) => self.committing = offsets.to_vec(),
            Err(fault) => self.events.push_back(Event::Committed(Err(fault))),
        }
    }

    fn release(&mut self, partitions: &[TopicPartition]) {
        self.let_go(partitions);
    }

    fn under_way(&self) -> Option<Call> {
        let links = [self.link.call(), self.commit_link.call()];
        links.into_iter().flatten().chain(self.reader.under_way()).min_by_key(|call| call.since)
    }

    fn held(&self) -> Option<Held> {
        Some(self.held.clone())
    }
}

impl Drop for GroupClient {
    fn drop(&mut self) {
        log::debug!("leaving the group consumer={} group_id={}", self.name, self.group);
    }
}
