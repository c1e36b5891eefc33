//! From what is known of a topic to one finding. Pure.
//!
//! The finding is the worst of what holds for one of its partitions, or for its group: what explains most, and what
//! has to be mended first.

use std::path::Path;
use std::time::Duration;

use super::{evidence, remedy};
use crate::admin::status::{SinkStatus, TopicStatus};
use crate::client::{Ahead, Fault, Member, Membership};
use crate::config::{Config, SinkSettings, TopicSettings};
use crate::record::Offset;
use crate::state::Running;
use crate::trend::Rates;
use crate::verdict::{Seen, Verdict};

/// A sink that has been at one write or flush for so long stands still.
const STANDS_STILL: Duration = Duration::from_secs(10);
/// The worker writes its state file at most so late, and needs a moment for it.
const STATE_IS_LATE: Duration = Duration::from_secs(7);

/// All that was found out about one topic.
pub(super) struct Facts<'a> {
    /// The configuration file.
    pub(super) file: &'a Path,
    pub(super) config: &'a Config,
    pub(super) settings: &'a TopicSettings,
    /// The sink that its records go to; of several the one that it waits for, if that is known.
    pub(super) sink_name: &'a str,
    pub(super) sink: &'a SinkSettings,
    /// Why that can't be written by whoever asks, if so.
    pub(super) sink_fails: Option<String>,
    pub(super) group: Group,
    /// Why its partitions are not known, if so.
    pub(super) whole: Option<Fault>,
    pub(super) parts: Vec<Part>,
    /// Whether the worker runs.
    pub(super) running: &'a Running,
    /// It was the same when the look began.
    pub(super) steady: bool,
    pub(super) limits: Limits,
    /// How long was looked.
    pub(super) looked: Duration,
    /// What the running worker says of the topic.
    pub(super) status: Option<&'a TopicStatus>,
    /// The running worker was asked, and has no such topic.
    pub(super) unknown_to_worker: bool,
    /// What the running worker says of its sink.
    pub(super) sink_status: Option<&'a SinkStatus>,
}

/// What is known of the topic's group.
pub(super) struct Group {
    pub(super) name: String,
    /// Its members, none of which can be this worker unless its membership is that of the group.
    pub(super) members: Result<Vec<Member>, Fault>,
    /// Where the group has no offset: the group that all topics shared before, and what that one has.
    pub(super) base: Option<(String, Vec<(i32, Offset)>)>,
}

/// How large a batch may be, in bytes, each limit with the key that sets it.
pub(super) type Limits = Vec<(usize, &'static str)>;

/// What was found out about one partition.
pub(super) struct Part {
    pub(super) number: i32,
    /// What the cluster said at first.
    pub(super) first: Option<Seen>,
    /// What the cluster said at last.
    pub(super) seen: Result<Seen, Fault>,
    /// The judgement of both.
    pub(super) verdict: Verdict,
    pub(super) rates: Option<Rates>,
    /// The batch that is read next, if there is something to read.
    pub(super) ahead: Option<Result<Option<Ahead>, Fault>>,
    /// The batch that was written last, if something is written.
    pub(super) newest: Option<Ahead>,
    /// What the worker's state file had as committed before it was looked.
    pub(super) told_before: Option<Offset>,
    /// What the worker's state file had as committed at the end.
    pub(super) told: Option<Offset>,
}

/// How a topic is doing, from what is best to what has to be mended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// All its partitions are other workers'.
    Elsewhere,
    Paused,
    Empty,
    Idle,
    /// There is something to read, and it was looked for too short a time to say more.
    Behind,
    CatchingUp,
    NotStarted,
    FallingBack,
    OutOfRange,
    /// There is nothing to read, or it is read, and the running worker says that its client is in trouble.
    InTrouble,
    Stalled,
    SinkFailing,
    Shared,
    Unreadable,
    Missing,
    Unknown,
    /// The brokers do not let us in, or not to this.
    Failing,
}

impl Kind {
    /// For programs: one of this list, which does not change.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Paused => "paused",
            Self::Idle => "idle",
            Self::Empty => "empty",
            Self::Behind => "behind",
            Self::CatchingUp => "catching-up",
            Self::NotStarted => "not-started",
            Self::FallingBack => "falling-back",
            Self::OutOfRange => "out-of-range",
            Self::InTrouble => "in-trouble",
            Self::Stalled => "stalled",
            Self::SinkFailing => "sink-failing",
            Self::Shared => "shared-group",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Failing => "failing",
        }
    }

    /// For an operator.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Elsewhere => "read by other workers",
            Self::Paused => "paused",
            Self::Idle => "idle",
            Self::Empty => "empty topic",
            Self::Behind => "behind, looked at for too short a time to say more",
            Self::CatchingUp => "behind and catching up",
            Self::NotStarted => "not started: the group has no committed offset for a partition",
            Self::FallingBack => "behind and falling back",
            Self::OutOfRange => "out of range at next start",
            Self::InTrouble => "the running worker's client is in trouble",
            Self::Stalled => "stalled",
            Self::SinkFailing => "sink failing",
            Self::Shared => "group also used by someone else",
            Self::Unreadable => "this client can't read it",
            Self::Missing => "missing",
            Self::Unknown => "unknown: the cluster did not say",
            Self::Failing => "failing: the brokers do not let this user in, or not to this topic or group",
        }
    }

    pub(super) fn needs_attention(self) -> bool {
        self > Self::CatchingUp
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) kind: Kind,
    /// What it rests on, a sentence each.
    pub(super) evidence: Vec<String>,
    /// What to do: lines of the configuration, and commands.
    pub(super) remedy: Vec<String>,
}

/// What holds of a topic.
pub(super) fn finding(facts: &Facts<'_>) -> Finding {
    let worst = facts.parts.iter().map(|part| (of_part(facts, part), part)).max_by_key(|(kind, _)| *kind);
    let foreign = facts.foreign();
    let (kind, part) = match (&facts.whole, worst) {
        (Some(Fault::TopicMissing { .. }), _) => (Kind::Missing, None),
        (Some(fault), _) if fault.is_refusal() => (Kind::Failing, None),
        (Some(_), _) => (Kind::Unknown, None),
        (None, worst) => {
            let (kind, part) = worst.map_or((Kind::Unknown, None), |(kind, part)| (kind, Some(part)));
            let kind = if facts.is_in_trouble() && !kind.needs_attention() { Kind::InTrouble } else { kind };
            (if foreign.is_empty() { kind } else { kind.max(Kind::Shared) }, part)
        }
    };
    let evidence = evidence::evidence(facts, kind, foreign);
    Finding { kind, evidence, remedy: remedy::remedy(facts, kind, part) }
}

fn of_part(facts: &Facts<'_>, part: &Part) -> Kind {
    if part.is_elsewhere() {
        return Kind::Elsewhere;
    }
    if facts.unreadable(part).is_some() {
        return Kind::Unreadable;
    }
    let kind = match &part.verdict {
        Verdict::Elsewhere { .. } => Kind::Elsewhere,
        Verdict::Paused { .. } => Kind::Paused,
        Verdict::Idle | Verdict::Uncommitted { fault: None, .. } => Kind::Idle,
        Verdict::Empty => Kind::Empty,
        Verdict::Behind { .. } => Kind::Behind,
        Verdict::CatchingUp(_) => Kind::CatchingUp,
        Verdict::NotStarted { .. } => Kind::NotStarted,
        Verdict::FallingBack(_) => Kind::FallingBack,
        Verdict::OutOfRange { .. } => Kind::OutOfRange,
        Verdict::Stalled { .. } | Verdict::Uncommitted { .. } => Kind::Stalled,
        Verdict::Missing => Kind::Missing,
        Verdict::Unknown(fault) if fault.is_refusal() => Kind::Failing,
        Verdict::Unknown(_) => Kind::Unknown,
    };
    let readable = part.seen.as_ref().is_ok_and(|seen| seen.readable() > 0);
    let held_up = readable && facts.waits_for_sink(kind) && facts.sink_trouble().is_some();
    if held_up { kind.max(Kind::SinkFailing) } else { kind }
}

impl Part {
    /// Whether another worker reads it.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self.verdict, Verdict::Elsewhere { .. })
    }
}

impl Facts<'_> {
    /// Whether the partition came after its topic had been started: then it is read from its log start.
    pub(super) fn is_new(&self, part: &Part) -> bool {
        let known =
            |other: &Part| other.told.is_some() || other.seen.as_ref().is_ok_and(|seen| seen.committed.is_some());
        !known(part) && self.parts.iter().any(known)
    }

    /// Why the batch that is read next will never be read, if so.
    pub(super) fn unreadable(&self, part: &Part) -> Option<Fault> {
        match part.ahead.as_ref()? {
            Err(fault @ (Fault::Unreadable { .. } | Fault::TooNew { .. })) => Some(fault.clone()),
            Ok(Some(ahead)) => {
                let &(limit, setting) = self.limits.iter().find(|(limit, _)| ahead.size > *limit)?;
                Some(Fault::TooLarge { offset: ahead.offset, size: ahead.size, limit, setting })
            }
            Ok(None) | Err(_) => None,
        }
    }

    /// What is read next is part of a transaction, and this client does not know which of them were aborted.
    pub(super) fn transactional(&self, part: &Part) -> Option<Ahead> {
        let old = !self.settings.reading.may_use_librdkafka();
        part.ahead.as_ref()?.as_ref().ok()?.filter(|ahead| old && ahead.transactional)
    }

    /// Whether the running worker says so, and said so before it was looked.
    fn is_in_trouble(&self) -> bool {
        let trouble = self.status.and_then(|status| status.consumer.trouble.as_ref());
        trouble.is_some_and(|trouble| u128::from(trouble.age_ms) >= self.looked.as_millis())
    }

    /// Whether the running worker says that a record has stopped the topic.
    pub(super) fn is_stopped(&self) -> bool {
        self.status.is_some_and(|status| status.stopped.is_some())
    }

    /// What is wrong with the sink, if that is known: the running worker's own word goes before a look at the file.
    pub(super) fn sink_trouble(&self) -> Option<String> {
        if let Some(stopped) = self.status.and_then(|status| status.stopped.as_ref()) {
            return Some(format!(
                "has not taken a record for {} ms, which stopped the topic: {}",
                stopped.age_ms, stopped.error
            ));
        }
        let Some(status) = self.sink_status else { return self.sink_fails.clone() };
        let still = status.busy_for_ms.filter(|ms| u128::from(*ms) >= STANDS_STILL.as_millis());
        match (&status.trouble, still) {
            (Some(trouble), _) => Some(format!("fails for {} ms: {}", trouble.age_ms, trouble.error)),
            (None, Some(ms)) => Some(format!("has been at one write or flush for {ms} ms")),
            (None, None) => None,
        }
    }

    /// Whether a topic that has something to read, and would be `kind`, can be held up by its sink.
    fn waits_for_sink(&self, kind: Kind) -> bool {
        match (self.status, self.sink_status) {
            // The worker knows what it has handed over.
            (Some(status), _) => kind == Kind::Stalled || status.partitions.iter().any(|part| part.in_flight > 0),
            (None, Some(_)) => false,
            // While records go through, it can be written by the worker, whoever it is that asks.
            (None, None) => !matches!(kind, Kind::CatchingUp | Kind::FallingBack | Kind::Behind),
        }
    }

    /// Who else uses the group: members, and commits that are not the worker's.
    pub(super) fn foreign(&self) -> Vec<String> {
        let mut found = Vec::new();
        if matches!(self.settings.reading.membership, Membership::Group { .. }) {
            // The others are members like this worker, and Kafka lets each commit for its own partitions only.
            return found;
        }
        if let Some(shared) = self.status.and_then(|status| status.consumer.shared_group.as_ref()) {
            found.push(format!("the worker says so since {} ms: {}", shared.age_ms, shared.error));
        }
        if let Ok(members) = &self.group.members
            && !members.is_empty()
        {
            let names: Vec<String> = members.iter().take(evidence::NAMED).map(ToString::to_string).collect();
            let more = if members.len() > names.len() { ", …" } else { "" };
            found.push(format!(
                "group {} has {} live members, and this worker is no member of its groups: {}{more}",
                self.group.name,
                members.len(),
                names.join(", ")
            ));
        }
        found.extend(self.parts.iter().filter_map(|part| self.foreign_commit(part)));
        found
    }

    /// A commit of somebody else in the time that was looked.
    fn foreign_commit(&self, part: &Part) -> Option<String> {
        let (first, last) = (part.first?.committed?, part.seen.as_ref().ok()?.committed?);
        if !self.steady || part.is_elsewhere() {
            // A worker that started or ended meanwhile has committed, too.
            return None;
        }
        let number = part.number;
        match self.running {
            Running::No if first != last => Some(format!(
                "partition {number}: the group's committed offset went from {first} to {last} while this worker does not run"
            )),
            Running::Yes { .. } => {
                let status = self.status.and_then(|status| status.partitions.iter().find(|p| p.partition == number));
                let own = status.and_then(|status| Offset::new(status.committed_here?)).or(part.told)?;
                // What the worker has committed, it says a little later: so what the group had at first is known to it by now.
                let ahead = first.min(last) > own && (status.is_some() || self.looked >= STATE_IS_LATE);
                let back = part.told_before.is_some_and(|before| last < before && before <= own);
                (ahead || back).then(|| {
                    format!("partition {number}: the group's committed offset is {last}, and this worker has committed {own} last")
                })
            }
            Running::No | Running::Never | Running::Unknown { .. } => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "finding_tests.rs"]
mod tests;
