//! The group's link: commits, and looking back at what the group has.
//!
//! One call at a time, so that no commit of ours is under way while the group is read. A commit of a
//! link that was given up may still land later: the consumer recognizes it by its offset.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

/// What the marks of all workers begin with.
const WORKER: &str = "worker ";

/// What this process writes beside each offset that it commits (the *metadata* of a commit). Two workers that read
/// the same partitions commit the same offsets, more often than not: only this tells them apart.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{WORKER}host={} pid={} started={}", host.trim(), std::process::id(), since.as_millis())
});

/// Who else has committed a partition that this process has committed before, by the mark beside the offset.
fn other_worker<'m>(mark: &'m str, own: &str) -> Option<&'m str> {
    mark.strip_prefix(WORKER).filter(|_| mark != own)
}

/// What is under way on the group's link.
pub(super) enum GroupCall {
    None,
    Commit(Vec<(TopicPartition, Offset)>),
    ReadBack,
}

impl AssignedClient {
    pub(super) fn collect_group(&mut self, now: Instant) {
        let Some(reply) = self.group_link.reply(now) else { return };
        match (std::mem::replace(&mut self.group_call, GroupCall::None), reply) {
            (GroupCall::Commit(offsets), Ok(ControlReply::Committed(answer))) => self.commit_answered(offsets, answer),
            (GroupCall::Commit(offsets), Err(fault)) => self.commit_answered(offsets, Err(fault)),
            (GroupCall::ReadBack, Ok(ControlReply::ReadBack(Ok(found)))) => {
                (self.last_look_answered, self.read_back_due) = (true, now + self.connection.metadata_max_age);
                let other =
                    found.iter().filter(|(name, _)| self.marked.contains(name)).find_map(|(name, committed)| {
                        Some((name.clone(), other_worker(&committed.as_ref()?.metadata, &MARK)?.to_owned()))
                    });
                if let Some((partition, who)) = other {
                    self.events.push_back(Event::OtherWorker(partition, who));
                }
                let offset = |committed: Option<Committed>| committed.map(|committed| committed.offset);
                let found = found.into_iter().map(|(name, committed)| (name, offset(committed)));
                self.events.push_back(Event::ReadBack(found.collect()));
            }
            // Commits tell when the group can't be reached; here it is asked again at the next turn.
            (GroupCall::ReadBack, Ok(ControlReply::ReadBack(Err(fault))) | Err(fault)) => {
                self.last_look_answered = false;
                log::debug!("committed offsets not read back group_id={} error=\"{fault}\"", self.group);
            }
            (GroupCall::None | GroupCall::Commit(_) | GroupCall::ReadBack, Ok(_) | Err(_)) => {}
        }
    }

    fn commit_answered(&mut self, mut offsets: Vec<(TopicPartition, Offset)>, answer: Result<Vec<Assignment>, Fault>) {
        match &answer {
            Ok(moved) => {
                self.taken = false;
                // Of these it is what the group had that was committed, not what was asked.
                for (name, at) in &mut offsets {
                    let had = moved.iter().find(|assignment| assignment.partition == *name);
                    *at = had.and_then(|assignment| assignment.committed).unwrap_or(*at);
                }
                self.marked.extend(offsets.iter().map(|(name, _)| name.clone()));
                self.in_group.extend(offsets.iter().cloned());
                if !moved.is_empty() {
                    self.events.push_back(Event::Assigned(moved.clone()));
                }
            }
            Err(fault) => self.taken |= matches!(fault, Fault::GroupHasMembers { .. }),
        }
        self.events.push_back(Event::Committed(answer.map(|_| offsets)));
    }

    /// Looks at what the group has, if that is due; then starts the commit that is wanted.
    pub(super) fn start_group(&mut self, now: Instant) {
        if self.group_link.is_busy() {
            return;
        }
        if self.looks_first(now) {
            self.start_read_back(now);
        }
        if self.group_link.is_busy() {
            return;
        }
        if let Some(offsets) = self.commit_wanted.take() {
            self.start_commit(offsets, now);
        } else if now >= self.read_back_due {
            self.start_read_back(now);
        }
    }

    /// Whether what the group has is looked at before the commit that is wanted. Of two workers that commit the same,
    /// each then finds what the other has committed since; at another time it may always be the same one that finds
    /// its own. No commit waits for a second look, or where the last one was not answered.
    fn looks_first(&self, now: Instant) -> bool {
        self.commit_wanted.is_some()
            && !self.marked.is_empty()
            && self.last_look_answered
            && now >= self.read_back_due - self.connection.metadata_max_age / 2
    }

    fn start_commit(&mut self, offsets: Vec<(TopicPartition, Offset)>, now: Instant) {
        let (group, asked) = (self.group.clone(), offsets.clone());
        // Of a partition that was never read it is the first position that is committed. A
        // member that was there meanwhile may have committed one of its own.
        let unread = |name: &TopicPartition| self.state_of(name).is_some_and(|state| !state.was_read);
        let first: Vec<TopicPartition> =
            offsets.iter().map(|(name, _)| name.clone()).filter(|name| self.taken && unread(name)).collect();
        // What has not changed is committed again so that the group does not forget it; not over what
        // somebody else has committed meanwhile, who may have set the group back or forth on purpose.
        let same = |(name, at): &&(TopicPartition, Offset)| self.in_group.get(name) == Some(at);
        let unchanged: Vec<(TopicPartition, Offset)> = offsets.iter().filter(same).cloned().collect();
        let call = move |control: &mut Control| {
            ControlReply::Committed(control.commit_after(&group, asked, &first, &unchanged, &MARK))
        };
        match self.group_link.start("OffsetCommit", self.connection.request_timeout + SLACK, now, call) {
            Ok(()) => self.group_call = GroupCall::Commit(offsets),
            Err(fault) => self.events.push_back(Event::Committed(Err(fault))),
        }
    }

    fn start_read_back(&mut self, now: Instant) {
        self.read_back_due = now + self.connection.metadata_max_age;
        // A topic that fails may be about to be gone, with all that its group had of it.
        let is_read = |name: &&TopicPartition| {
            self.state_of(name).is_some_and(|state| state.position.is_some() && !state.is_failing)
        };
        let of: Vec<TopicPartition> = self.parts.iter().filter(is_read).cloned().collect();
        if of.is_empty() {
            return;
        }
        let group = self.group.clone();
        let call = move |control: &mut Control| {
            let found = control.read_back(&group, &of);
            ControlReply::ReadBack(found.map(|found| of.into_iter().zip(found).collect()))
        };
        match self.group_link.start("OffsetFetch", self.connection.request_timeout + SLACK, now, call) {
            Ok(()) => self.group_call = GroupCall::ReadBack,
            Err(fault) => log::debug!("committed offsets not read back group_id={} error=\"{fault}\"", self.group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_another_process_is_another_worker() {
        assert_eq!(other_worker(&MARK, &MARK), None);
        assert!(MARK.contains(&format!(" pid={} started=", std::process::id())), "{}", *MARK);
        assert_eq!(other_worker("worker host=a pid=1 started=2", &MARK), Some("host=a pid=1 started=2"));
        // Programs of others write what they like, most of them nothing.
        assert_eq!(other_worker("", &MARK), None);
        assert_eq!(other_worker("{\"by\":\"x\"}", &MARK), None);
    }
}
