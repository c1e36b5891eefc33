//! What a reader can do beside reading when its consumer is a member of the group.
//!
//! The group's partitions are all in the consumer's assignment from the moment that it gives them, because it has to
//! take back what it gave: those that are not read are assigned at their end, and nothing is taken from their
//! queues. While the group takes some away, nothing else of the assignment is changed: librdkafka takes any
//! `incremental_unassign` for the answer it waits for.

use super::*;
use crate::record::TopicPartition;

/// Kafka's name of the request.
pub(super) const COMMIT: &str = "OffsetCommit";

/// What the group has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// These are ours.
    Assigned(Vec<TopicPartition>),
    /// These are to be let go.
    Revoked(Vec<TopicPartition>),
    /// These are gone already: the group counts us as dead.
    Lost(Vec<TopicPartition>),
}

/// With what a group is joined.
#[derive(Clone, Debug)]
pub(super) struct Joining {
    pub(super) topics: Vec<Arc<str>>,
    /// Of a static member.
    pub(super) instance_id: Option<String>,
    /// How many partitions there are, all of which it may be given.
    pub(super) partitions: usize,
}

impl LibrdkafkaReader {
    /// From the next `poll` on it is a member.
    pub(super) fn join(&mut self, joining: Joining) {
        self.joining = Some(joining);
    }

    /// What the group has decided since it was asked last, one by one.
    pub(super) fn rebalance(&mut self) -> Option<Rebalance> {
        let session = self.session.as_ref();
        let next = self.dropped.take().or_else(|| session.and_then(|session| session.notebook.rebalance()));
        match &next {
            Some(Rebalance::Revoked(_)) => self.frozen = true,
            Some(Rebalance::Lost(list)) => {
                self.frozen = false;
                // librdkafka has let them go.
                self.parts.retain(|part| !list.contains(&part.name));
            }
            Some(Rebalance::Assigned(_)) | None => {}
        }
        next
    }

    /// Takes partitions in that the group has given. They are not read before a seek.
    pub(super) fn take_over(&mut self, list: &[TopicPartition]) {
        self.told.well(trouble::GROUP);
        let Some(session) = &self.session else { return };
        for name in list {
            let mut part = Partition::new(name.clone());
            part.queue = session.queue(name);
            (part.is_assigned, part.is_parked) = (true, true);
            self.parts.retain(|part| part.name != *name);
            self.parts.push(part);
        }
        if let Err(why) = session.park(list) {
            self.remake();
            self.failed("the assignment of partitions", why, self.polled);
        }
    }

    /// Assigns what is to be fetched from another place than it is: all of it stays in the assignment.
    pub(super) fn assign_as_member(&mut self, now: Instant) {
        let Some(session) = self.session.as_ref().filter(|_| !self.frozen) else { return };
        let moves = |part: &&mut Partition| match &part.step {
            Step::Run => false,
            Step::Start => part.position.is_some(),
            step => !part.is_parked && !is_looked_at(step),
        };
        let mut moved: Vec<&mut Partition> = self.parts.iter_mut().filter(moves).collect();
        if moved.is_empty() {
            return;
        }
        let mut result = session.unassign(moved.iter().filter(|part| part.is_assigned).map(|part| &part.name));
        let (mut at, mut parked) = (Vec::new(), Vec::new());
        for part in &mut moved {
            // The old queue goes first: it would take the callback of the new one away.
            part.queue = None;
            part.queue = session.queue(&part.name);
            part.is_assigned = true;
            match part.position.filter(|_| part.step == Step::Start) {
                Some(position) => {
                    (part.step, part.is_parked) = (Step::Run, false);
                    at.push((part.name.clone(), position));
                }
                None => {
                    part.is_parked = true;
                    parked.push(part.name.clone());
                }
            }
        }
        self.more = true;
        if result.is_ok() && !at.is_empty() {
            result = session.assign(&at);
        }
        if result.is_ok() && !parked.is_empty() {
            result = session.park(&parked);
        }
        if let Err(why) = result {
            self.remake();
            self.failed("the assignment of partitions", why, now);
        }
    }

    /// Reads a partition no more until the next seek; it stays assigned.
    pub(super) fn rest(&mut self, name: &TopicPartition) {
        self.drop_spans(name);
        if let Some(part) = self.part(name) {
            part.seek(None);
        }
    }

    /// Lets go what the group has taken away.
    pub(super) fn let_go(&mut self, list: &[TopicPartition]) {
        self.frozen = false;
        self.parts.retain(|part| !list.contains(&part.name));
        if let Some(session) = &self.session
            && let Err(why) = session.unassign(list.iter())
        {
            self.remake();
            self.failed("the end of an assignment", why, self.polled);
        }
    }

    /// A commit as a member, to be made on another thread, where it waits for its answer; `None`: it is none at present.
    pub(super) fn commit(
        &self,
        offsets: &[(TopicPartition, Offset)],
    ) -> Option<impl FnOnce() -> Result<(), Fault> + Send + use<>> {
        let commit = self.session.as_ref()?.commit(offsets);
        let group = self.group.clone();
        Some(move || {
            commit().map_err(|error| match error.rdkafka_error_code() {
                Some(code @ (Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed)) => {
                    Fault::Unauthorized { call: COMMIT, what: format!("group {group}"), code: format!("{code:?}") }
                }
                // Not refused by the broker: it may have been carried out.
                Some(code @ (Code::OperationTimedOut | Code::BrokerTransportFailure | Code::RequestTimedOut)) => {
                    Fault::Broken { call: COMMIT, why: format!("{code:?}") }
                }
                Some(code) => Fault::Refused { call: COMMIT, code: format!("{code:?}") },
                None => Fault::Broken { call: COMMIT, why: error.to_string() },
            })
        })
    }

    /// The consumer is given up, and with it all that the group had given.
    pub(super) fn drop_membership(&mut self) {
        if self.joining.is_some() {
            let list: Vec<TopicPartition> = self.parts.drain(..).map(|part| part.name).collect();
            self.frozen = false;
            if !list.is_empty() {
                self.dropped = Some(Rebalance::Lost(list));
            }
        }
    }
}
