//! The client over the `kafka` crate: the only folder that names it. For brokers from 0.11 to 3.9.
//!
//! Owns the links, and on them the crate's clients; owns the positions. It never waits: `poll`
//! collects what the links have brought, starts what can be started, and gives events away one by
//! one. A link for surveys (metadata, bounds), one for the group, and one a broker for records, so
//! that a slow or broken broker costs the partitions of the others nothing, and a commit never
//! waits behind a fetch that the broker holds.
//!
//! What the crate does that has to be made up for is told in ARCHITECTURE.md, "Non-obvious".

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::backoff::Backoff;
use crate::client::{
    Assignment, Call, Client, Cluster, Connection, Event, Fault, FetchSettings, Inspect, Manage, Remembered, Retry,
    Room,
};
use crate::memory::{Held, LOOK_AGAIN, Place};
use crate::record::{Offset, TopicPartition};
use crate::wire::Wire;

mod answer;
mod choose;
mod control;
mod coordinators;
mod data;
mod fault;
mod fetch;
mod fetch_size;
mod group;
mod inspect;
mod link;
mod manage;
mod partition;
mod survey;

use control::{Control, Survey};
use fetch::DataLink;
use group::GroupCall;
pub(crate) use link::{Link, panic_text};
use partition::Partition;
use survey::Known;

const FIRST_RETRY: Duration = Duration::from_millis(100);
/// A broker that comes back is found again within this and the time of a connect.
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// A broker that does not answer a wire socket is named by that socket's own timeout, which comes first.
const SLACK: Duration = Duration::from_secs(1);

/// The name of the link for surveys among those that are in trouble.
const SURVEY: &str = "survey";

/// The outcome of a call on the survey's or the group's link.
enum ControlReply {
    Surveyed(Result<Survey, Fault>),
    Committed(Result<Vec<Assignment>, Fault>),
    ReadBack(Result<Vec<(TopicPartition, Option<Offset>)>, Fault>),
}

/// A client of one group and its topics. See [`Client`].
pub struct KafkaClient {
    name: String,
    group: String,
    topics: Vec<Arc<str>>,
    connection: Arc<Connection>,
    settings: Arc<FetchSettings>,
    ready: (Sender<()>, Receiver<()>),
    survey: Link<Control, ControlReply>,
    survey_due: Instant,
    survey_backoff: Backoff,
    /// Since when surveys fail, told or not.
    survey_fails: Option<Instant>,
    group_link: Link<Control, ControlReply>,
    group_call: GroupCall,
    /// The commit that is to be sent next.
    commit_wanted: Option<Vec<(TopicPartition, Offset)>>,
    /// When what the group has is looked at next.
    read_back_due: Instant,
    /// What the group has, as far as this client knows: what it found there or has committed.
    in_group: HashMap<TopicPartition, Offset>,
    /// The group had live members when something was committed last.
    taken: bool,
    known: BTreeMap<Arc<str>, Known>,
    /// What an earlier run has committed.
    remembered: HashMap<TopicPartition, Offset>,
    /// Who leads which partition, as the last survey had it.
    leaders: HashMap<TopicPartition, String>,
    /// Partitions that exist and can't be started: since when, and whether that was told.
    unstarted: BTreeMap<TopicPartition, (Instant, bool)>,
    /// How many of them each topic was last told to have.
    told_unstarted: HashMap<Arc<str>, usize>,
    parts: Vec<Partition>,
    data: BTreeMap<String, DataLink>,
    events: VecDeque<Event>,
    faults: VecDeque<Fault>,
    /// The links that are in trouble, by name.
    troubled: BTreeSet<String>,
    polled: Instant,
    /// What the answers hold that are not done with, as a whole.
    held: Held,
    /// It waits for the reserve.
    place: Option<Place>,
}

/// A wire socket to a broker that serves what is asked over it. Whether the crate can read records there, too,
/// is for [`data`] to look at.
fn open_wire(connection: &Connection, host: &str) -> Result<Wire, Fault> {
    let wire = Wire::connect_as(connection, host)?;
    wire.require()?;
    Ok(wire)
}

/// The cluster behind `connection`, for those who ask without consuming. Nothing is connected before
/// the first question; each round of questions, which begins with the topics' partitions, connects anew.
pub fn cluster(connection: Arc<Connection>) -> Box<dyn Cluster> {
    Box::new(Control::new(connection))
}

/// The same for those who also want to know why something does not move.
pub fn inspect(connection: Arc<Connection>) -> Box<dyn Inspect> {
    Box::new(Control::new(connection))
}

/// The same for those who move the offsets of groups.
pub fn manage(connection: Arc<Connection>) -> Box<dyn Manage> {
    Box::new(Control::new(connection))
}

impl KafkaClient {
    /// A client called `name` in its threads' names. `remembered`: what an earlier run has read. Nothing is connected before the first `poll`.
    pub fn new(
        name: &str,
        group: &str,
        topics: Vec<Arc<str>>,
        connection: Arc<Connection>,
        settings: Arc<FetchSettings>,
        remembered: &[Remembered],
    ) -> Self {
        let (ready_tx, ready_rx) = bounded(1);
        let control = |role: &str| {
            let connection = Arc::clone(&connection);
            Link::new(format!("link:{name}/{role}"), ready_tx.clone(), move || Control::new(Arc::clone(&connection)))
        };
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            topics,
            survey: control("survey"),
            survey_due: now,
            survey_backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            survey_fails: None,
            group_link: control("group"),
            group_call: GroupCall::None,
            commit_wanted: None,
            read_back_due: now + connection.metadata_max_age,
            in_group: HashMap::new(),
            taken: false,
            known: Known::from_earlier(remembered),
            remembered: remembered.iter().map(|r| (r.partition.clone(), r.offset)).collect(),
            leaders: HashMap::new(),
            unstarted: BTreeMap::new(),
            told_unstarted: HashMap::new(),
            parts: Vec::new(),
            data: BTreeMap::new(),
            events: VecDeque::new(),
            faults: VecDeque::new(),
            troubled: BTreeSet::new(),
            polled: now,
            held: Held::default(),
            place: None,
            ready: (ready_tx, ready_rx),
            connection,
            settings,
        }
    }

    /// A link is in trouble; told when it is the first time. Of a broker that goes, its link and the
    /// survey hear both, and that no broker answers is what the links to all of them have heard: it is
    /// told once. A trouble that somebody has to do something about is always told.
    fn trouble(&mut self, link: &str, fault: Fault) {
        let survey = self.troubled.contains(SURVEY);
        let brokers = self.data.keys().any(|broker| self.troubled.contains(broker));
        let said = if link == SURVEY { brokers } else { survey && self.data.contains_key(link) };
        let news = self.troubled.insert(link.to_owned());
        if news && !(said && fault.retry() == Retry::Soon) {
            self.faults.push_back(fault);
        } else {
            log::debug!("still in trouble link={link} group_id={} error=\"{fault}\"", self.group);
        }
    }

    fn well(&mut self, link: &str) {
        if self.troubled.remove(link) && self.troubled.is_empty() {
            self.events.push_back(Event::Connected);
        }
    }
}

impl Client for KafkaClient {
    fn ready(&self) -> &Receiver<()> {
        &self.ready.1
    }

    fn wake(&self) -> Option<Instant> {
        let links = [self.survey.deadline(), self.group_link.deadline()];
        let survey = (!self.survey.is_busy()).then_some(self.survey_due);
        // What was due at the last poll was started then, or waits for room.
        let later = |at: &Instant| *at > self.polled;
        let read_back = (!self.group_link.is_busy()).then_some(self.read_back_due);
        let own = links.into_iter().flatten().chain(survey).chain(read_back);
        // Its turn at the reserve wakes it; this is for the case that the one before it does not come.
        let line = self.place.as_ref().map(|_| self.polled + LOOK_AGAIN);
        own.chain(line).chain(self.data_wakes()).filter(later).min()
    }

    fn poll(&mut self, room: Room) -> Result<Option<Event>, Fault> {
        let now = Instant::now();
        self.polled = now;
        self.collect_group(now);
        self.collect_survey(now);
        self.collect_data(now);
        self.start_group(now);
        self.start_survey(now);
        self.start_data(room, now);
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.faults.pop_front().map_or(Ok(None), Err)
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        self.events.retain(|event| !matches!(event, Event::Span(span) if span.partition == *partition));
        if let Some(part) = self.parts.iter_mut().find(|part| part.name == *partition) {
            part.seek(Some(to));
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        debug_assert!(self.commit_wanted.is_none(), "one commit at a time");
        self.commit_wanted = Some(offsets.to_vec());
    }

    fn under_way(&self) -> Option<Call> {
        let links = [self.survey.call(), self.group_link.call()];
        links.into_iter().flatten().chain(self.data_calls()).min_by_key(|call| call.since)
    }

    fn held(&self) -> Option<Held> {
        Some(self.held.clone())
    }
}
