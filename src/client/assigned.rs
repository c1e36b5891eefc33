//! A client that holds partitions without asking anybody: the group is where offsets are stored, nothing
//! else.
//!
//! Owns the links for surveys (metadata, bounds) and for the group, what is known of the topics, and the
//! readers, one a library: which of them reads a topic is decided here. Invariants:
//! - it never waits: `poll` collects what the links have brought, starts what can be started, and
//!   gives events away one by one; a commit never waits behind a fetch that the broker holds;
//! - a partition is in one reader at a time, and goes from one to the other at its position;
//! - everything but records goes over the wire socket, whatever reads the records.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::control::{Control, Survey};
use super::link::Link;
use super::reader::{FIRST_RETRY, LONGEST_RETRY, Reader, SLACK, Troubled, drop_spans, queued_bytes};
use super::reading::Library;
use super::{
    Assignment, Call, Client, Committed, Connection, Event, Fault, FetchSettings, Reading, Remembered, Retry, Room,
};
use crate::backoff::Backoff;
use crate::memory::Held;
use crate::record::{Offset, TopicPartition};

mod group;
mod library;
mod survey;

use group::GroupCall;
use survey::Known;

/// The outcome of a call on the survey's or the group's link.
enum ControlReply {
    Surveyed(Result<Survey, Fault>),
    Committed(Result<Vec<Assignment>, Fault>),
    ReadBack(Result<Vec<(TopicPartition, Option<Committed>)>, Fault>),
}

/// What can be in trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The link for surveys.
    Survey,
    /// What is known of one topic.
    Topic(Arc<str>),
    /// A reader's connection.
    Reader(Library, String),
}

/// A client of one group and its topics. See [`Client`].
pub struct AssignedClient {
    name: String,
    group: String,
    topics: Vec<Arc<str>>,
    connection: Arc<Connection>,
    settings: Arc<FetchSettings>,
    reading: Reading,
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
    /// When what the group has is looked at next, if nothing is committed before.
    read_back_due: Instant,
    /// The last look at it was answered.
    last_look_answered: bool,
    /// What the group has, as far as this client knows: what it found there or has committed.
    in_group: HashMap<TopicPartition, Offset>,
    /// Partitions that this client has committed itself: from then on the mark beside the offset is its own.
    marked: BTreeSet<TopicPartition>,
    /// The group had live members when something was committed last.
    taken: bool,
    known: BTreeMap<Arc<str>, Known>,
    /// What an earlier run has committed.
    remembered: HashMap<TopicPartition, Offset>,
    /// Who leads which partition, as the last survey had it.
    leaders: HashMap<TopicPartition, String>,
    /// Partitions that exist and can't be started: since when, and whether that was told.
    unstarted: BTreeMap<TopicPartition, (Instant, bool)>,
    /// Partitions that are to be read and do not exist, as told.
    absent: HashMap<Arc<str>, BTreeSet<i32>>,
    /// Topics without a partition for this client, as told.
    none_held: BTreeSet<Arc<str>>,
    /// How many of them each topic was last told to have.
    told_unstarted: HashMap<Arc<str>, usize>,
    /// The partitions that are held.
    parts: BTreeSet<TopicPartition>,
    readers: BTreeMap<Library, Box<dyn Reader>>,
    /// Who reads a topic, where that is decided.
    libraries: HashMap<Arc<str>, Library>,
    events: VecDeque<Event>,
    faults: VecDeque<Fault>,
    troubled: Troubled<Place>,
    polled: Instant,
    /// What the readers' answers hold that are not done with, as a whole.
    held: Held,
}

impl AssignedClient {
    /// A client called `name` in its threads' names. `remembered`: what an earlier run has read. Nothing is connected before the first `poll`.
    pub fn new(
        name: &str,
        group: &str,
        topics: Vec<Arc<str>>,
        connection: Arc<Connection>,
        settings: Arc<FetchSettings>,
        reading: Reading,
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
            last_look_answered: true,
            in_group: HashMap::new(),
            marked: BTreeSet::new(),
            taken: false,
            known: Known::from_earlier(remembered),
            remembered: remembered.iter().map(|r| (r.partition.clone(), r.offset)).collect(),
            leaders: HashMap::new(),
            unstarted: BTreeMap::new(),
            absent: HashMap::new(),
            none_held: BTreeSet::new(),
            told_unstarted: HashMap::new(),
            parts: BTreeSet::new(),
            readers: BTreeMap::new(),
            libraries: HashMap::new(),
            events: VecDeque::new(),
            faults: VecDeque::new(),
            troubled: Troubled::none(),
            polled: now,
            held: Held::default(),
            ready: (ready_tx, ready_rx),
            connection,
            settings,
            reading,
        }
    }

    /// Something is in trouble; told when it is the first time. Of a broker that goes, the reader's link and
    /// the survey hear both, and that no broker answers is what the links to all of them have heard: it is
    /// told once. A trouble that somebody has to do something about is always told.
    fn trouble(&mut self, place: Place, fault: Fault) {
        let said = match &place {
            Place::Survey => self.troubled.places().any(|other| matches!(other, Place::Reader(..))),
            Place::Reader(..) => self.troubled.places().any(|other| *other == Place::Survey),
            Place::Topic(_) => false,
        };
        let news = self.troubled.failed(place.clone(), &fault);
        if news && !(said && fault.retry() == Retry::Soon) {
            self.faults.push_back(fault);
        } else {
            log::debug!("still in trouble place={place:?} group_id={} error=\"{fault}\"", self.group);
        }
    }

    fn well(&mut self, place: &Place) {
        if self.troubled.well(place) {
            self.events.push_back(Event::Connected);
        }
    }

    /// Lets the readers do what they can, and takes what they have to tell.
    fn read(&mut self, room: Room, now: Instant) {
        let room = Room { bytes: room.bytes.saturating_sub(queued_bytes(&self.events)) };
        self.readers.values_mut().for_each(|reader| reader.poll(room, now));
        self.take_told(now);
    }
}

impl Client for AssignedClient {
    fn ready(&self) -> &Receiver<()> {
        &self.ready.1
    }

    fn wake(&self) -> Option<Instant> {
        let links = [self.survey.deadline(), self.group_link.deadline()];
        let survey = (!self.survey.is_busy()).then_some(self.survey_due);
        // What was due at the last poll was started then, or waits for room.
        let later = |at: &Instant| *at > self.polled;
        let read_back = (!self.group_link.is_busy()).then_some(self.read_back_due);
        let readers = self.readers.values().filter_map(|reader| reader.wake());
        links.into_iter().flatten().chain(survey).chain(read_back).filter(later).chain(readers).min()
    }

    fn poll(&mut self, room: Room) -> Result<Option<Event>, Fault> {
        let now = Instant::now();
        self.polled = now;
        self.collect_group(now);
        self.collect_survey(now);
        self.start_group(now);
        self.start_survey(now);
        self.read(room, now);
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.faults.pop_front().map_or(Ok(None), Err)
    }

    fn seek(&mut self, partition: &TopicPartition, to: Offset) {
        drop_spans(&mut self.events, |name| name == partition);
        if let Some(reader) = self.reader_of(partition) {
            reader.seek(partition, to);
        }
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        debug_assert!(self.commit_wanted.is_none(), "one commit at a time");
        self.commit_wanted = Some(offsets.to_vec());
    }

    fn under_way(&self) -> Option<Call> {
        let links = [self.survey.call(), self.group_link.call()];
        let readers = self.readers.values().filter_map(|reader| reader.under_way());
        links.into_iter().flatten().chain(readers).min_by_key(|call| call.since)
    }

    fn held(&self) -> Option<Held> {
        Some(self.held.clone())
    }
}
