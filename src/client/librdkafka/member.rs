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
use super::membership::{COMMIT, Joining, Rebalance};
use crate::backoff::Backoff;
use crate::client::control::{Control, TopicState};
use crate::client::link::Link;
use crate::client::reader::{
    FIRST_RETRY, LONGEST_RETRY, Reader as _, SLACK, Troubled, drop_spans, is_coordinator_on_its_way, queued_bytes,
};
use crate::client::{
    Assignment, Call, Client, Cluster, Connection, Event, Fault, FetchSettings, Loss, Remembered, Room,
};
use crate::memory::Held;
use crate::record::{Offset, TopicId, TopicPartition};

/// librdkafka counts a member that does not poll for `max.poll.interval.ms` (five minutes) as dead.
const POLL_AT_LEAST: Duration = Duration::from_secs(10);
/// How often a topic that does not exist, or what could not be asked, is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What was learnt of the topics and of the partitions that are to be started.
struct Look {
    topics: Vec<(Arc<str>, TopicState)>,
    starts: Vec<(TopicPartition, Result<Start, Fault>)>,
}

struct Start {
    assignment: Assignment,
    /// The group has an offset of another partition of the topic: so this one came later.
    others: bool,
}

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

    /// Looks at the topics, and at what is needed to start what the group has given.
    fn start_look(&mut self, now: Instant) {
        if self.link.is_busy() || now < self.look_due {
            return;
        }
        (self.look_due, self.look_began) = (now + self.connection.metadata_max_age, now);
        let (topics, group) = (self.topics.clone(), self.group.clone());
        let starts: Vec<TopicPartition> = self.unstarted.iter().cloned().collect();
        let allowed = self.connection.survey_timeout();
        let call = move |control: &mut Control| look(control, &topics, &group, starts);
        if let Err(fault) = self.link.start("survey", allowed, now, call) {
            self.look_failed(fault, now);
        }
    }

    fn look_failed(&mut self, fault: Fault, now: Instant) {
        self.look_due = now + self.backoff.next_wait();
        let since = *self.look_fails.get_or_insert(now);
        if is_coordinator_on_its_way(&fault, now.saturating_duration_since(since)) {
            log::debug!("no coordinator yet group_id={} error=\"{fault}\"", self.group);
            return;
        }
        self.trouble("survey", fault);
    }

    fn collect_look(&mut self, now: Instant) {
        let look = match self.link.reply(now) {
            None => return,
            Some(Ok(answer)) => answer,
            Some(Err(fault)) => Err(fault),
        };
        match look {
            Ok(look) => {
                self.link.replace();
                self.backoff.reset();
                self.look_fails = None;
                self.well("survey");
                self.looked(look, now);
            }
            Err(fault) => self.look_failed(fault, now),
        }
    }

    fn looked(&mut self, look: Look, now: Instant) {
        let (mut leaders, mut count) = (HashMap::new(), 0);
        for (topic, state) in look.topics {
            match state {
                TopicState::Present(id, partitions) => {
                    count += partitions.len();
                    for (number, leader) in &partitions {
                        if let Some(leader) = leader {
                            leaders.insert(TopicPartition::new(Arc::clone(&topic), *number), leader.clone());
                        }
                    }
                    self.present(&topic, id, now);
                }
                TopicState::Missing => self.missing(&topic, now),
                TopicState::Unknown(fault) => {
                    self.look_due = self.look_due.min(now + LOOK_AGAIN);
                    if let Some(known) = self.known.get_mut(&topic) {
                        known.is_failing = true;
                    }
                    self.trouble(&format!("topic {topic}"), fault);
                }
            }
        }
        if self.losses.is_explained_by(self.look_began) {
            self.tell_losses();
        }
        self.reader.leaders(&leaders, now);
        if !self.joined && count > 0 {
            self.joined = true;
            let (topics, instance_id) = (self.topics.clone(), self.instance_id.clone());
            self.reader.join(Joining { topics, instance_id, partitions: count });
        }
        let mut rounds: BTreeMap<Arc<str>, Vec<Assignment>> = BTreeMap::new();
        for (partition, start) in look.starts {
            if !self.unstarted.contains(&partition) {
                continue;
            }
            match start {
                Ok(Start { mut assignment, others }) => {
                    self.unstarted.remove(&partition);
                    let anew = self.anew.remove(&partition);
                    assignment.is_new = anew || others && assignment.committed.is_none();
                    if assignment.committed.is_none() && !assignment.is_new {
                        assignment.remembered = self.remembered.get(&partition).copied();
                    }
                    self.held_parts.insert(partition.clone());
                    rounds.entry(Arc::clone(&partition.topic)).or_default().push(assignment);
                }
                Err(fault) => {
                    log::debug!("not started yet {partition} group_id={} error=\"{fault}\"", self.group);
                    self.look_due = self.look_due.min(now + LONGEST_RETRY);
                }
            }
        }
        self.tell_unstarted();
        self.events.extend(rounds.into_values().map(Event::Assigned));
    }

    fn present(&mut self, topic: &Arc<str>, id: Option<TopicId>, now: Instant) {
        let Some(known) = self.known.get_mut(topic) else { return };
        known.is_missing = false;
        let another = known.id.is_some() && id.is_some() && known.id != id;
        known.id = id.or(known.id);
        if another {
            known.told = false;
        }
        if let Some(id) = id.filter(|_| !std::mem::replace(&mut known.told, true)) {
            self.events.push_back(Event::TopicId(Arc::clone(topic), id));
        }
        if std::mem::take(&mut known.is_failing) {
            self.well(&format!("topic {topic}"));
        }
        if another {
            log::warn!(
                "topic was deleted and made anew, reading it from its start topic={topic} group_id={}",
                self.group
            );
            self.remembered.retain(|name, _| name.topic != *topic);
            let of_topic = |name: &&TopicPartition| name.topic == *topic;
            let held: Vec<TopicPartition> = self.held_parts.iter().filter(of_topic).cloned().collect();
            if !held.is_empty() {
                self.held_parts.retain(|name| name.topic != *topic);
                self.anew.extend(held.iter().cloned());
                self.unstarted.extend(held.iter().cloned());
                held.iter().for_each(|name| self.reader.rest(name));
                self.events.push_back(Event::Lost(held, Loss::TopicDeleted));
                self.look_due = now;
            }
            // The group is joined again with another consumer, for the reason that stands in the reader's `add`.
            self.reader.remake();
        }
    }

    fn missing(&mut self, topic: &Arc<str>, now: Instant) {
        self.look_due = self.look_due.min(now + LOOK_AGAIN);
        if let Some(known) = self.known.get_mut(topic)
            && !std::mem::replace(&mut known.is_missing, true)
        {
            self.events.push_back(Event::Missing(Arc::clone(topic)));
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

fn look(control: &mut Control, topics: &[Arc<str>], group: &str, starts: Vec<TopicPartition>) -> Result<Look, Fault> {
    let topics = control.begin(topics)?;
    if starts.is_empty() {
        return Ok(Look { topics, starts: Vec::new() });
    }
    let bounds = control.bounds(&starts)?;
    // All partitions of these topics: whether the group has read one of them says what an absent offset means.
    let mut asked: Vec<TopicPartition> = Vec::new();
    for (topic, state) in &topics {
        if let TopicState::Present(_, partitions) = state
            && starts.iter().any(|start| start.topic == *topic)
        {
            asked.extend(partitions.iter().map(|(number, _)| TopicPartition::new(Arc::clone(topic), *number)));
        }
    }
    asked.extend(starts.iter().filter(|start| !asked.contains(start)).cloned().collect::<Vec<_>>());
    let committed: HashMap<TopicPartition, Option<Offset>> =
        asked.iter().cloned().zip(control.committed(group, &asked)?).collect();
    let start = |(partition, bounds): (TopicPartition, Result<_, Fault>)| {
        let own = committed.get(&partition).copied().flatten();
        let others = committed.iter().any(|(other, at)| other.topic == partition.topic && at.is_some());
        let start = bounds.map(|bounds| Start {
            assignment: Assignment {
                partition: partition.clone(),
                committed: own,
                bounds,
                remembered: None,
                is_new: false,
            },
            others,
        });
        (partition, start)
    };
    let starts = starts.into_iter().zip(bounds).map(start).collect();
    Ok(Look { topics, starts })
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
