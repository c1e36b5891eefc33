//! Where partitions start, and how they leave a place that the log no longer has.

use super::*;
use crate::consumer::part::Past;
use crate::consumer::resolve::{Jump, first_start, out_of_range};
use crate::consumer::tracker::Tracker;

impl Core {
    /// A round of partitions of one topic that are new to us.
    pub(super) fn assigned(&mut self, round: &[Assignment], out: &mut Vec<Output>) {
        let Some(first) = round.first() else { return };
        let name = Arc::clone(&first.partition.topic);
        let Some(topic) = self.topics.get_mut(&name) else { return };
        // A group that has an offset of one partition has started before: the others came later. A
        // partition without a leader is told in a later round, and has to be known for new there too.
        topic.continued |= round.iter().any(|a| a.committed.is_some() || a.remembered.is_some());
        let group_started = topic.continued;
        let policy = topic.policy.clone();
        for assignment in round {
            let index = self.part(&assignment.partition);
            match assignment.committed {
                // What a group has of a topic that was gone in between means nothing any more.
                Some(_) if assignment.is_new => self.start_first(index, assignment.bounds, policy.reset, true),
                Some(committed) if assignment.bounds.contain(committed) => {
                    log::info!("continuing {} offset={committed} {}", assignment.partition, assignment.bounds);
                    self.begin_slot(index, committed, Some(committed), out);
                }
                Some(committed) => self.leave(index, committed, assignment.bounds, out),
                None => match assignment.remembered {
                    Some(at) => self.start_remembered(index, at, assignment.bounds, out),
                    None => {
                        let is_new = assignment.is_new || group_started;
                        self.start_first(index, assignment.bounds, policy.reset, is_new);
                    }
                },
            }
        }
        self.tell_started(&name, out);
    }

    fn part(&mut self, partition: &TopicPartition) -> usize {
        if let Some(&index) = self.index.get(partition) {
            self.end_slot(index);
            self.parts[index].revoked = None;
            return index;
        }
        self.parts.push(Part {
            partition: partition.clone(),
            place: Place::Gone,
            leaving: None,
            past: Past::default(),
            foreign: None,
            unanswered: VecDeque::new(),
            revoked: None,
        });
        self.index.insert(partition.clone(), self.parts.len() - 1);
        self.parts.len() - 1
    }

    /// Chooses the first position, and holds it until it is committed.
    fn start_first(&mut self, index: usize, bounds: Bounds, reset: AutoOffsetReset, is_new: bool) {
        let jump = first_start(bounds, reset, is_new);
        let part = &mut self.parts[index];
        part.past.jumped(None, jump.reset.as_ref());
        let why = if is_new { "new partition" } else { "no committed offset" };
        log::info!(
            "starting {} offset={} {bounds} reason=\"{why}\" not_read={}",
            part.partition,
            jump.to,
            jump.skipped()
        );
        part.place = Place::Held(jump.to);
        self.dirty = true;
        self.schedule.hurry();
    }

    /// The group has no offset, and an earlier run had committed `at`: that is the start, held until the
    /// group has it.
    fn start_remembered(&mut self, index: usize, at: Offset, bounds: Bounds, out: &mut Vec<Output>) {
        let part = &mut self.parts[index];
        log::warn!(
            "group has forgotten its offset, continuing from the state directory {} group_id={} offset={at} {bounds} \
             meaning=\"offsets.retention.minutes has passed without a commit, or somebody deleted it\"",
            part.partition,
            self.settings.group
        );
        if !bounds.contain(at) {
            return self.leave(index, at, bounds, out);
        }
        part.place = Place::Held(at);
        self.dirty = true;
        self.schedule.hurry();
    }

    /// The topic counts as started once all its partitions are there, and none is held any more.
    pub(super) fn tell_started(&mut self, name: &Arc<str>, out: &mut Vec<Output>) {
        let held = |part: &Part| part.partition.topic == *name && matches!(part.place, Place::Held(_));
        let Some(topic) = self.topics.get_mut(name) else { return };
        if !topic.started && topic.unstarted == 0 && !self.parts.iter().any(held) {
            topic.started = true;
            out.push(Output::Started(Arc::clone(name)));
        }
    }

    pub(super) fn begin_slot(&mut self, index: usize, at: Offset, committed: Option<Offset>, out: &mut Vec<Output>) {
        let slot = self.new_slot();
        self.slots.insert(slot, index);
        let part = &mut self.parts[index];
        part.place = Place::Reading(Tracker::start(slot, at, committed));
        out.push(Output::Seek(part.partition.clone(), at));
    }

    pub(super) fn out_of_range(
        &mut self,
        partition: &TopicPartition,
        at: Offset,
        bounds: Bounds,
        out: &mut Vec<Output>,
    ) {
        let Some(&index) = self.index.get(partition) else { return };
        if matches!(self.parts[index].place, Place::Reading(_)) {
            self.parts[index].leaving = Some((at, bounds));
            self.leave_if_due(index, out);
        }
    }

    /// Leaves the lost place once everything that was delivered from it is done: the commit of the
    /// new place would otherwise pass over records whose delivery is still open.
    pub(super) fn leave_if_due(&mut self, index: usize, out: &mut Vec<Output>) {
        let part = &self.parts[index];
        let Some((at, bounds)) = part.leaving else { return };
        if let Place::Reading(tracker) = &part.place
            && tracker.acknowledged() >= at
            && self.drain.is_none()
        {
            self.leave(index, at, bounds, out);
        }
    }

    /// The position `lost` is outside `bounds`: goes on where the policy says.
    fn leave(&mut self, index: usize, lost: Offset, bounds: Bounds, out: &mut Vec<Output>) {
        self.end_slot(index);
        let part = &mut self.parts[index];
        let Some(topic) = self.topics.get(&part.partition.topic) else { return };
        let jump = out_of_range(lost, bounds, topic.policy.on_out_of_range, topic.policy.reset);
        let Some(Jump { to, expired, reset }) = jump else {
            part.place = Place::Stopped(lost);
            out.push(Output::Stopped(part.partition.clone(), lost, bounds));
            return;
        };
        part.past.jumped(expired.as_ref(), reset.as_ref());
        let count = |range: Option<&Range<Offset>>| range.map_or(0, |r| r.end.since(r.start));
        log::warn!(
            "position out of range {} group_id={} lost_offset={lost} {bounds} new_offset={to} expired={} skipped_by_policy={}",
            part.partition,
            self.settings.group,
            count(expired.as_ref()),
            count(reset.as_ref())
        );
        self.begin_slot(index, to, None, out);
        self.dirty = true;
        self.schedule.hurry();
    }
}
