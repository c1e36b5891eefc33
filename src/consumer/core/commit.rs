//! What is to be committed, and what the answers mean.

use super::*;
use crate::client::Fault;
use crate::consumer::schedule::Failure;
use crate::trouble::{Phrases, Word};

const FAIL: Phrases = Phrases {
    begins: "commit failed, retrying",
    goes_on: "commits still fail, retrying",
    ends: "commits succeed again",
    flaps: "commits fail again and again",
};

const FOREIGN: Phrases = Phrases {
    begins: "committed offset was moved by someone else",
    goes_on: "committed offset is still moved by someone else",
    ends: "committed offset is no longer moved by someone else",
    flaps: "committed offset is moved by someone else again and again",
};

/// Somebody else in the group is gone when so many looks in a row, each after a commit of ours, have not found a
/// trace. Of two workers the one that has committed last finds its own mark, and that proves nothing.
const PROVEN: u32 = 3;
/// Or so many looks in any case: a topic without records is not committed.
const QUIET: u32 = 10;

/// What to do about a second worker.
const SHARE: &str = "if it is a worker, all is delivered twice: stop one, or give each its share by partitions, \
                     instance or membership (see consumer.toml)";

impl Core {
    /// Every partition that has something to commit, or all, with the slot it belongs to.
    pub(super) fn committable_parts(&self, now: Instant) -> Vec<(usize, Slot, Offset)> {
        // What has not changed is tried once when it is due; it is not worth insisting.
        let everything = self.is_refresh_due(now);
        let of = |(index, part): (usize, &Part)| match &part.place {
            // Somebody else is further on in the group.
            Place::Reading(tracker) if part.foreign.is_some_and(|foreign| tracker.acknowledged() < foreign) => None,
            Place::Reading(tracker) if everything => Some((index, tracker.slot(), tracker.acknowledged())),
            Place::Reading(tracker) => Some((index, tracker.slot(), tracker.committable()?)),
            // A start that nothing was delivered from is chosen anew after a restart.
            Place::Held(start) => self.drain.is_none().then_some((index, HELD, *start)),
            Place::Stopped(_) | Place::Gone => None,
        };
        self.parts.iter().enumerate().filter_map(of).collect()
    }

    pub(super) fn committable(&self, now: Instant) -> Vec<(TopicPartition, Offset)> {
        let named = |(index, _, at): (usize, Slot, Offset)| (self.parts[index].partition.clone(), at);
        self.committable_parts(now).into_iter().map(named).collect()
    }

    pub(super) fn commit_answered(
        &mut self,
        answer: Result<Vec<(TopicPartition, Offset)>, Fault>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let sent = std::mem::take(&mut self.sent);
        match answer {
            Ok(_) => {
                self.schedule.succeeded(now);
                self.foreign.committed = true;
                if let Some(word) = self.commits.0.succeeded(now) {
                    self.tell_commits(word, &self.commits.1);
                }
                (self.members_since, self.told_takeover, self.told_full) = (None, false, false);
                for (index, slot, at) in sent {
                    self.committed(index, slot, at, out);
                }
                self.dirty = !self.committable_parts(now).is_empty();
            }
            Err(fault) => {
                if !matches!(fault, Fault::Refused { .. } | Fault::GroupHasMembers { .. }) {
                    sent.iter().for_each(|&(index, _, at)| self.parts[index].not_answered(at));
                }
                self.commit_failed(&sent, &fault, now);
                if matches!(fault, Fault::GroupHasMembers { .. }) {
                    let since = *self.members_since.get_or_insert(now);
                    self.taken_over_late(now.saturating_duration_since(since), out);
                }
            }
        }
    }

    /// Says what an attempt that failed means, and that nothing more is fetched if it comes to that.
    fn commit_failed(&mut self, sent: &[(usize, Slot, Offset)], fault: &Fault, now: Instant) {
        let group = &self.settings.group;
        let word = match self.schedule.failed(now) {
            Failure::Trouble(since) => self.commits.0.failed(since, now),
            Failure::Attempt => None,
        };
        let held = sent.iter().any(|(_, slot, _)| *slot == HELD);
        let meaning = if held {
            "a partition is not read before its first position is committed; others go on"
        } else {
            "delivery goes on; after a restart what is not committed is delivered again"
        };
        self.commits.1 = fault.to_string();
        match word {
            Some(word) => self.tell_commits(word, &format!("{fault}\" meaning=\"{meaning}")),
            None => log::debug!("commit failed, retrying group_id={group} error=\"{fault}\""),
        }
        if self.is_held_up() && !self.told_full {
            self.told_full = true;
            log::error!(
                "nothing more is fetched until a commit succeeds group_id={} uncommitted={} max_uncommitted={} \
                 error=\"{fault}\" action=\"see to the group's coordinator, or raise commit.max_uncommitted\"",
                self.settings.group,
                self.uncommitted(),
                self.settings.pace.max_uncommitted
            );
        }
    }

    fn tell_commits(&self, word: Word, why: &str) {
        let mut who = format!("group_id={}", self.settings.group);
        if self.schedule.fails() {
            who = format!("{who} uncommitted={}", self.uncommitted());
        }
        FAIL.log(word, log::Level::Warn, &who, &why);
    }

    /// Offsets that are done, and that the group does not have.
    pub(super) fn uncommitted(&self) -> u64 {
        let of = |part: &Part| match &part.place {
            // Somebody else is further on in the group, and we shall not commit below that.
            Place::Reading(tracker) if part.foreign.is_none() => tracker.uncommitted(),
            Place::Reading(_) | Place::Held(_) | Place::Stopped(_) | Place::Gone => 0,
        };
        self.parts.iter().map(of).sum()
    }

    /// Commits fail, and as much is delivered without one as may be.
    pub(super) fn is_held_up(&self) -> bool {
        let limit = self.settings.pace.max_uncommitted;
        limit > 0 && self.schedule.fails() && self.uncommitted() >= limit
    }

    /// The group's members have not left for `waited`: partitions that wait for it go on without a
    /// commit, or wait on, as their topics' settings say.
    fn taken_over_late(&mut self, waited: Duration, out: &mut Vec<Output>) {
        if self.drain.is_some() {
            return;
        }
        let group = self.settings.group.clone();
        for index in 0..self.parts.len() {
            let part = &self.parts[index];
            let (Place::Held(start), Some(topic)) = (&part.place, self.topics.get(&part.partition.topic)) else {
                continue;
            };
            let (start, policy) = (*start, &topic.policy);
            if waited < policy.takeover_timeout {
                continue;
            }
            let (name, waited_ms) = (part.partition.clone(), waited.as_millis());
            match policy.on_takeover_timeout {
                OnTakeoverTimeout::Proceed => {
                    log::warn!(
                        "group still has members, reading without a commit {name} group_id={group} offset={start} \
                         waited_ms={waited_ms} meaning=\"what they deliver is delivered here too; nothing is \
                         committed until they have left\""
                    );
                    self.begin_slot(index, start, None, out);
                    self.tell_started(&name.topic, out);
                }
                OnTakeoverTimeout::Wait if !self.told_takeover => {
                    log::error!(
                        "group still has members, waiting on {name} group_id={group} offset={start} \
                         waited_ms={waited_ms} action=\"stop the other consumers of this group, or set \
                         on_takeover_timeout to proceed\""
                    );
                    self.told_takeover = true;
                }
                OnTakeoverTimeout::Wait => {}
            }
        }
    }

    fn committed(&mut self, index: usize, slot: Slot, at: Offset, out: &mut Vec<Output>) {
        match &mut self.parts[index].place {
            Place::Held(start) if slot == HELD && *start == at && self.drain.is_none() => {
                self.begin_slot(index, at, Some(at), out);
                let name = Arc::clone(&self.parts[index].partition.topic);
                self.tell_started(&name, out);
            }
            // The answer to a commit of a slot that has ended says nothing about the new one.
            Place::Reading(tracker) if tracker.slot() == slot => {
                tracker.set_committed(at);
                self.parts[index].foreign = None;
            }
            _ => {}
        }
    }

    /// Compares what the group has with what was committed: Kafka may have forgotten it
    /// (`offsets.retention.minutes`), an old link's commit may have landed late, or somebody else
    /// commits in our group.
    pub(super) fn read_back(&mut self, found: Vec<(TopicPartition, Option<Offset>)>, now: Instant) {
        let group = &self.settings.group;
        let mut moved: Option<(usize, String)> = None;
        for (name, found) in found {
            let Some(part) = self.index.get(&name).map(|&index| &mut self.parts[index]) else { continue };
            let Place::Reading(tracker) = &mut part.place else { continue };
            let (Some(ours), acknowledged) = (tracker.committed(), tracker.acknowledged()) else { continue };
            match found {
                Some(found) if found == ours => continue,
                None => log::warn!(
                    "committed offset is gone, committing again {name} group_id={group} offset={acknowledged} \
                     meaning=\"the group forgot it (offsets.retention.minutes), or somebody deleted it\""
                ),
                // It was carried out, and only its answer is missing.
                Some(found) if part.unanswered.contains(&found) && ours < found && found <= acknowledged => {
                    tracker.set_committed(found);
                    continue;
                }
                Some(found) if part.unanswered.contains(&found) => log::info!(
                    "an old commit landed late, committing again {name} group_id={group} found={found} \
                     offset={acknowledged}"
                ),
                Some(found) => {
                    if part.foreign.replace(found) != Some(found) {
                        let first = || format!("{name} found={found} ours={ours} delivered={acknowledged}");
                        moved.get_or_insert_with(|| (0, first())).0 += 1;
                    }
                    continue;
                }
            }
            tracker.uncommit();
            self.dirty = true;
            self.schedule.hurry();
        }
        self.tell_foreign(moved, now);
    }

    /// Somebody else has committed for so many partitions since the last look; the first of them in words.
    fn tell_foreign(&mut self, moved: Option<(usize, String)>, now: Instant) {
        let found = match (self.other.take(), moved) {
            // Whatever offsets it commits, ours or others.
            (Some((partition, who)), _) => Some(format!(
                "another worker commits in this group, too: {who}; it reads the same partitions, first: {partition}"
            )),
            (None, Some((partitions, first))) => Some(format!(
                "another program commits in this group, for instance a second worker with a state directory of its \
                 own; it is not set back; partitions={partitions} first: {first}"
            )),
            (None, None) => None,
        };
        let foreign = &mut self.foreign;
        let committed = std::mem::take(&mut foreign.committed);
        let gone = found.is_none() && {
            (foreign.quiet, foreign.proven) = (foreign.quiet + 1, foreign.proven + u32::from(committed));
            foreign.proven >= PROVEN || foreign.quiet >= QUIET
        };
        if let Some(found) = found {
            (foreign.who, foreign.quiet, foreign.proven) = (found, 0, 0);
        }
        let word = match (foreign.who.is_empty(), gone) {
            (false, false) => foreign.trouble.failed(now, now),
            (true, _) | (_, true) => foreign.trouble.succeeded(now),
        };
        if let Some(word) = word {
            let why = format!("{}\" action=\"{SHARE}", foreign.who);
            FOREIGN.log(word, log::Level::Warn, &format_args!("group_id={}", self.settings.group), &why);
        }
        if gone {
            foreign.who.clear();
        }
    }
}

/// Stands for the slot of a partition that has none yet, because its start is held.
const HELD: Slot = Slot(0);
