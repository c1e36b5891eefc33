//! What a consumer does next: the whole of its behaviour, without client, channel or clock.
//!
//! The driver feeds it inputs and asks for the next action; a simulation does the same with random
//! ones. It owns the partitions' places and trackers, the budget, and the commit schedule.
//! Invariants:
//! - no record is delivered before the first position of its partition is committed;
//! - a place that the log no longer has is left only when everything delivered from it is done;
//! - while commits fail, what is delivered and not committed grows up to its limit and what was under way;
//! - what is delivered, or waiting to be, never exceeds the budget of batches and of bytes, but for
//!   the one answer that the client had already asked for;
//! - at the end of the drain one last commit is tried, whatever the backoff;
//! - a partition that the group takes away is let go when it is done and committed, or its time is up; nothing of
//!   it is committed after that.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{Assignment, Bounds, Event, Room};
use crate::consumer::part::{Part, Place};
use crate::consumer::resolve::{AutoOffsetReset, OnOutOfRange, OnTakeoverTimeout};
use crate::consumer::schedule::{Pace, Schedule};
use crate::record::{Offset, Records, Span, TopicPartition};
use crate::ticket::{Ack, Mark, Slot};
use crate::trouble::Trouble;

mod commit;
mod flow;
mod revoke;
mod start;

/// How often offsets are committed that have not changed: a group without members keeps them for
/// `offsets.retention.minutes` (a week by default) from their last commit, and a topic may be silent
/// for longer.
const REFRESH: Duration = Duration::from_secs(3600);
/// How long the answer to the last commit is waited for after the drain's deadline.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// The settings of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `auto_offset_reset`
    pub reset: AutoOffsetReset,
    /// `on_out_of_range`
    pub on_out_of_range: OnOutOfRange,
    /// `max_poll_records`: records in one batch, at most.
    pub max_poll_records: usize,
    /// `takeover_timeout_ms`
    pub takeover_timeout: Duration,
    /// `on_takeover_timeout`
    pub on_takeover_timeout: OnTakeoverTimeout,
    /// The topic came to be while the worker ran: whatever it holds was written since.
    pub came_later: bool,
}

/// The settings of one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name of its group.
    pub group: String,
    /// Its topics.
    pub topics: Vec<(Arc<str>, Policy)>,
    /// `[commit]`
    pub pace: Pace,
    /// `shutdown.drain_timeout_ms`
    pub drain_timeout: Duration,
    /// Batches that may be in flight at once; the ack channel holds as many.
    pub batches: usize,
    /// Bytes of records that may be held at once.
    pub bytes: usize,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Action {
    /// Give these offsets to the client's `commit`.
    Commit(Vec<(TopicPartition, Offset)>),
    /// Give these partitions to the client's `release`.
    Release(Vec<TopicPartition>),
    /// Poll the client; if it has nothing, wait for it, for acks, for `stop`, or until `until`.
    Poll {
        /// What it may fetch.
        room: Room,
        /// When to ask for the next action at the latest.
        until: Option<Instant>,
    },
    /// The consumer is at its end.
    Done,
}

/// What has happened.
#[derive(Debug)]
pub enum Input {
    /// The client has something.
    Event(Event),
    /// A batch is done, or failed.
    Ack(Ack),
    /// A batch that is under way has come so far.
    Mark(Mark),
    /// The action `Commit` was carried out.
    CommitSent,
    /// The action `Release` was carried out.
    Released(Vec<TopicPartition>),
    /// The process ends: finish what is in flight, commit, be done.
    Stop,
}

/// What follows from it.
#[derive(Debug)]
pub enum Output {
    /// Hand these records over, with a ticket of this slot, number and size.
    Deliver(Delivery),
    /// Set the client's position.
    Seek(TopicPartition, Offset),
    /// The topic is being read for the first time.
    Started(Arc<str>),
    /// The topic does not exist at present.
    Missing(Arc<str>),
    /// The partition stopped, because its position is outside of this range.
    Stopped(TopicPartition, Offset, Bounds),
}

/// A batch to be handed over.
#[derive(Debug)]
pub struct Delivery {
    /// Where it comes from.
    pub partition: TopicPartition,
    /// Its records.
    pub records: Records,
    /// The slot its ticket belongs to.
    pub slot: Slot,
    /// Its number in the slot.
    pub seq: u64,
    /// Bytes of the budget it holds.
    pub bytes: usize,
}

/// A span, or what is left of one, that waits for the budget.
struct Waiting {
    part: usize,
    slot: Slot,
    offsets: Range<Offset>,
    records: Records,
    bytes: usize,
}

struct Topic {
    policy: Policy,
    started: bool,
    /// Partitions that exist and can't be started yet.
    unstarted: usize,
    /// The group had an offset of one of its partitions, so it has started in an earlier run.
    continued: bool,
}

/// What is known of somebody else who commits in the group.
#[derive(Default)]
struct Foreign {
    /// What the log has of it.
    trouble: Trouble,
    /// Who it was last; empty if there is nobody.
    who: String,
    /// Looks that found nobody since.
    quiet: u32,
    /// Those of them that mean something, because we had committed before.
    proven: u32,
    /// We have committed since the last look.
    committed: bool,
}

struct Drain {
    deadline: Instant,
    last_tried: bool,
}

/// The consumer's state.
pub struct Core {
    settings: Settings,
    topics: HashMap<Arc<str>, Topic>,
    parts: Vec<Part>,
    index: HashMap<TopicPartition, usize>,
    slots: HashMap<Slot, usize>,
    next_slot: u64,
    waiting: VecDeque<Waiting>,
    batches_in_flight: usize,
    bytes_in_flight: usize,
    schedule: Schedule,
    /// What the log has of failing commits, and why the last one failed.
    commits: (Trouble, String),
    /// Somebody else who commits in the group.
    foreign: Foreign,
    /// Another worker that the look at the group found whose answer is about to come.
    other: Option<(TopicPartition, String)>,
    /// It was told that nothing more is fetched because of them.
    told_full: bool,
    /// What the commit under way would commit.
    sent: Vec<(usize, Slot, Offset)>,
    /// Something may be there to commit.
    dirty: bool,
    /// When what has not changed is to be committed too; from then on until it was tried.
    refresh_at: Option<Instant>,
    drain: Option<Drain>,
    /// Since when the group has live members, which refuse our commits.
    members_since: Option<Instant>,
    /// It was told that this takes longer than it should.
    told_takeover: bool,
}

impl Core {
    /// A consumer that holds nothing yet.
    pub fn new(settings: Settings) -> Self {
        let topics = settings.topics.iter().cloned();
        Self {
            topics: topics
                .map(|(name, policy)| {
                    let continued = policy.came_later;
                    (name, Topic { policy, started: false, unstarted: 0, continued })
                })
                .collect(),
            parts: Vec::new(),
            index: HashMap::new(),
            slots: HashMap::new(),
            next_slot: 0,
            waiting: VecDeque::new(),
            batches_in_flight: 0,
            bytes_in_flight: 0,
            schedule: Schedule::new(settings.pace),
            commits: (Trouble::default(), String::new()),
            foreign: Foreign::default(),
            other: None,
            told_full: false,
            sent: Vec::new(),
            dirty: false,
            refresh_at: None,
            drain: None,
            members_since: None,
            told_takeover: false,
            settings,
        }
    }

    /// What to do at `now`. Asking changes nothing.
    pub fn next(&self, now: Instant) -> Action {
        let done = self.releasable(now);
        if !done.is_empty() {
            return Action::Release(done);
        }
        match (self.go_on(now), self.release_deadline()) {
            (Action::Poll { room, until }, Some(deadline)) => {
                Action::Poll { room, until: Some(until.map_or(deadline, |until| until.min(deadline))) }
            }
            (action, _) => action,
        }
    }

    fn go_on(&self, now: Instant) -> Action {
        let due = if self.dirty || self.is_refresh_due(now) { self.schedule.due(now) } else { None };
        let Some(drain) = &self.drain else {
            if due.is_some_and(|due| due <= now) {
                let offsets = self.committable(now);
                if !offsets.is_empty() {
                    return Action::Commit(offsets);
                }
            }
            let until = [due, self.refresh_at].into_iter().flatten().filter(|&at| at > now).min();
            return Action::Poll { room: self.room(), until };
        };
        if self.schedule.in_flight() {
            let end = drain.deadline + LAST_COMMIT;
            return if now >= end { Action::Done } else { Action::Poll { room: Room::default(), until: Some(end) } };
        }
        let offsets = self.committable(now);
        let late = now >= drain.deadline;
        let idle = self.batches_in_flight == 0;
        if offsets.is_empty() || drain.last_tried {
            if idle && offsets.is_empty() || late {
                return Action::Done;
            }
        } else {
            let held_back = self.schedule.backoff_until().is_some_and(|until| now < until);
            if late || (!held_back && (idle || due.is_some_and(|due| due <= now))) {
                return Action::Commit(offsets);
            }
        }
        let wake = self.schedule.backoff_until().or(due).filter(|&at| at > now && !offsets.is_empty());
        Action::Poll { room: Room::default(), until: Some(wake.map_or(drain.deadline, |at| at.min(drain.deadline))) }
    }

    /// Takes in what has happened at `now`.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Output> {
        let mut out = Vec::new();
        self.refresh_at.get_or_insert(now + REFRESH);
        match input {
            Input::Ack(ack) => self.ack(ack, &mut out),
            Input::Mark(mark) => self.mark(mark, &mut out),
            Input::CommitSent => {
                self.sent = self.committable_parts(now);
                self.refresh_at = Some(now + REFRESH);
                self.schedule.sent();
                if let Some(drain) = &mut self.drain {
                    drain.last_tried = now >= drain.deadline;
                }
            }
            Input::Released(partitions) => self.released(&partitions, now),
            Input::Stop => {
                if self.drain.is_none() {
                    self.drain = Some(Drain { deadline: now + self.settings.drain_timeout, last_tried: false });
                    self.refresh_at = Some(now);
                    let left = std::mem::take(&mut self.waiting);
                    self.bytes_in_flight -= left.iter().map(|w| w.bytes).sum::<usize>();
                }
            }
            Input::Event(Event::Committed(answer)) => self.commit_answered(answer, now, &mut out),
            Input::Event(Event::OtherWorker(partition, who)) => self.other = Some((partition, who)),
            Input::Event(Event::ReadBack(found)) => self.read_back(found, now),
            // Whatever kept commits from succeeding may be over: the backoff was for the trouble.
            Input::Event(Event::Connected) => self.schedule.try_again(),
            Input::Event(Event::Revoking(partitions)) => self.revoking(&partitions, now),
            Input::Event(Event::Lost(partitions, _)) => self.lost(&partitions),
            Input::Event(event) if self.drain.is_none() => self.event(event, &mut out),
            // While draining nothing new begins; what the client still brings is read after the restart.
            Input::Event(_) => {}
        }
        if self.drain.is_none() {
            self.hand_over(&mut out);
        }
        out
    }

    fn event(&mut self, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::Assigned(round) => self.assigned(&round, out),
            Event::Unstarted(name, count) => {
                if let Some(topic) = self.topics.get_mut(&name) {
                    topic.unstarted = count;
                }
            }
            Event::NoneHeld(name) => {
                if self.topics.get_mut(&name).is_some_and(|topic| !std::mem::replace(&mut topic.started, true)) {
                    out.push(Output::Started(name));
                }
            }
            Event::Missing(topic) => out.push(Output::Missing(topic)),
            Event::Span(span) => self.span(span),
            Event::OutOfRange { partition, at, bounds } => self.out_of_range(&partition, at, bounds, out),
            // Told to the log by the driver; the client goes on trying by itself.
            Event::Failing(..)
            | Event::Recovered(..)
            | Event::Connected
            | Event::Committed(_)
            | Event::OtherWorker(..)
            | Event::ReadBack(_)
            | Event::Lost(..)
            | Event::Revoking(_)
            | Event::TopicId(..) => {}
        }
    }

    fn is_refresh_due(&self, now: Instant) -> bool {
        self.refresh_at.is_some_and(|at| at <= now)
    }

    fn room(&self) -> Room {
        if self.is_held_up() {
            return Room::default();
        }
        Room { bytes: self.settings.bytes.saturating_sub(self.bytes_in_flight) }
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        &self.settings.group
    }

    /// Who else commits in the group, by the last looks at it.
    pub fn shared(&self) -> Option<&str> {
        Some(self.foreign.who.as_str()).filter(|words| !words.is_empty())
    }

    /// Batches that are handed over and not acknowledged.
    pub fn batches_in_flight(&self) -> usize {
        self.batches_in_flight
    }

    /// Whether what is in flight takes all of the budget, so that nothing more is fetched.
    pub fn is_full(&self) -> bool {
        self.batches_in_flight >= self.settings.batches || self.bytes_in_flight >= self.settings.bytes
    }

    /// What became of each partition, for the last lines of the log and for tests.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

#[cfg(test)]
#[path = "core_simulation.rs"]
mod simulation;
#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
