//! The seam between a client without membership and a library: who reads the records of the
//! partitions that the client holds.
//!
//! The client knows the topics, the group and the leaders; a reader knows positions. What every reader promises:
//! - a position moves only by spans, as [`Client`](super::Client) says;
//! - it never waits: what it has to wait for, it announces by the channel that it was made with, and by
//!   [`Reader::wake`];
//! - it rebuilds by itself what has failed, and goes on from the positions it has.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Call, Event, Fault, Retry, Room};
use crate::record::{Offset, TopicPartition};

/// How long it is waited after a failure, at first.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The same of one partition, where the next try costs others nothing.
pub(super) const FIRST_PARTITION_RETRY: Duration = Duration::from_millis(50);
/// A broker that comes back is found again within this and the time of a connect.
pub(super) const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// A broker that does not answer a wire socket is named by that socket's own timeout, which comes first.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// A cluster that was just made has no coordinator for its first groups yet; it is a trouble after so long.
const COORDINATOR_COMES: Duration = Duration::from_secs(5);

/// Whether a look at the cluster that has failed for so long only waits for the group's coordinator: it is being chosen
/// (15), it reads what it has of its groups (14), or the broker that was named has not heard yet that it is the one (16).
pub(super) fn is_coordinator_on_its_way(fault: &Fault, failing_for: Duration) -> bool {
    const CODES: [&str; 3] = ["CoordinatorNotAvailable", "CoordinatorLoadInProgress", "NotCoordinator"];
    let comes = matches!(fault, Fault::Refused { code, .. } if CODES.contains(&code.as_str()));
    comes && failing_for < COORDINATOR_COMES
}

/// Bytes of the records that are to be told.
pub(super) fn queued_bytes(events: &VecDeque<Event>) -> usize {
    events.iter().map(|event| if let Event::Span(span) = event { span.bytes } else { 0 }).sum()
}

/// What was read of these partitions and not told yet is dropped.
pub(super) fn drop_spans(events: &mut VecDeque<Event>, of: impl Fn(&TopicPartition) -> bool) {
    events.retain(|event| !matches!(event, Event::Span(span) if of(&span.partition)));
}

/// What is in trouble, by a name of the client's own, and whether somebody has to do something about it.
#[derive(Debug)]
pub(super) struct Troubled<P>(BTreeMap<P, Retry>);

impl<P: Ord> Troubled<P> {
    /// Nothing is.
    pub(super) const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// `place` has failed. Whether that is news: a trouble that somebody has to do something about is, after one that
    /// passes by itself.
    pub(super) fn failed(&mut self, place: P, fault: &Fault) -> bool {
        let told = self.0.get(&place);
        let news = told.is_none_or(|told| *told == Retry::Soon && fault.retry() != Retry::Soon);
        if news {
            self.0.insert(place, fault.retry());
        }
        news
    }

    /// `place` works. Whether it was the last one in trouble.
    pub(super) fn well<Q: Ord + ?Sized>(&mut self, place: &Q) -> bool
    where
        P: Borrow<Q>,
    {
        self.0.remove(place).is_some() && self.0.is_empty()
    }

    /// All that is in trouble.
    pub(super) fn places(&self) -> impl Iterator<Item = &P> {
        self.0.keys()
    }
}

/// How long a reader waits before it tries a partition again that somebody has to do something about: retention may take
/// a batch away, or a broker's setting may change; an ACL is added while somebody looks at the log.
pub(super) fn slow_retry(fault: &Fault) -> Duration {
    Duration::from_secs(if fault.is_refusal() { 5 } else { 30 })
}

/// What a reader has to tell its client. Gathered by the reader, taken by the client after each call.
#[derive(Debug, Default)]
pub struct Told {
    /// Spans, and what becomes of partitions: `Span`, `OutOfRange`, `Failing`, `Recovered`.
    pub events: VecDeque<Event>,
    /// Connections (by a name of the reader's own) that are in trouble, or well again. Told at each failure and
    /// each success: the client knows what is news.
    pub links: VecDeque<(String, Result<(), Fault>)>,
    /// What it met makes a look at the metadata worthwhile.
    pub survey_soon: bool,
}

impl Told {
    /// A connection has failed.
    pub fn trouble(&mut self, link: &str, fault: Fault) {
        self.links.push_back((link.to_owned(), Err(fault)));
    }

    /// A connection works.
    pub fn well(&mut self, link: &str) {
        self.links.push_back((link.to_owned(), Ok(())));
    }
}

/// How it stands with one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartState {
    /// Its position; with none it is not read.
    pub position: Option<Offset>,
    /// It had a position at some time, or has one.
    pub was_read: bool,
    /// It can't be read at present.
    pub is_failing: bool,
    /// And that was told.
    pub is_told_failing: bool,
}

/// See the module's text. Owned and called by the client's thread.
pub trait Reader: Send {
    /// Takes a partition in. Nothing of it is fetched before a [`Reader::seek`].
    fn add(&mut self, partition: &TopicPartition);

    /// Lets a partition go, with all that is under way for it.
    fn remove(&mut self, partition: &TopicPartition);

    /// Sets the position, drops what is under way, and fetches from there.
    fn seek(&mut self, partition: &TopicPartition, to: Offset);

    /// Who leads each partition (`host:port`), as the metadata has it since a moment ago.
    fn leaders(&mut self, leaders: &HashMap<TopicPartition, String>, now: Instant);

    /// Collects what has come in, and asks for more as far as `room` allows.
    fn poll(&mut self, room: Room, now: Instant);

    /// What there is to tell.
    fn told(&mut self) -> &mut Told;

    /// When `poll` wants to be called again though nothing is ready.
    fn wake(&self) -> Option<Instant>;

    /// The call that has been under way for longest.
    fn under_way(&self) -> Option<Call>;

    /// How it stands with a partition; `None` if it was not added.
    fn state(&self, partition: &TopicPartition) -> Option<PartState>;
}
