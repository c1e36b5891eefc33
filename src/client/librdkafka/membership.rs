//! What a reader can do beside reading when its consumer is a member of the group.
//!
//! A partition that the group has given is assigned when it is known where it is read, as without a group; librdkafka
//! waits for no more than an answer to what it gave. While the group takes some away, nothing of the assignment is
//! changed: librdkafka takes any `incremental_unassign` for the answer it waits for.
//! What is not read yet is not assigned at its end either, which would look like the simplest: when its position was set
//! right after that, records between the two were passed over.

use super::*;
use crate::client::Resource;
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

    /// Takes partitions in that the group has given. They are not assigned before a seek.
    pub(super) fn take_over(&mut self, list: &[TopicPartition]) {
        self.told.well(trouble::GROUP);
        let Some(session) = &self.session else { return };
        self.parts.retain(|part| !list.contains(&part.name));
        self.parts.extend(list.iter().cloned().map(Partition::new));
        // librdkafka waits for an answer to what the group has given, be it that nothing is fetched yet.
        if let Err(why) = session.assign(&[]) {
            self.remake();
            self.failed("the assignment of partitions", why, self.polled);
        }
    }

    /// Reads a partition no more until the next seek.
    pub(super) fn rest(&mut self, name: &TopicPartition) {
        self.drop_spans(name);
        if let Some(part) = self.part(name) {
            part.seek(None);
        }
    }

    /// Lets go what the group has taken away.
    pub(super) fn let_go(&mut self, list: &[TopicPartition]) {
        self.frozen = false;
        let is_assigned =
            |name: &&TopicPartition| self.parts.iter().any(|part| part.name == **name && part.is_assigned);
        let unassigned = list.iter().filter(|name| !is_assigned(name));
        let unassigned: Vec<(TopicPartition, Offset)> = unassigned.map(|name| (name.clone(), Offset::ZERO)).collect();
        self.parts.retain(|part| !list.contains(&part.name));
        let Some(session) = &self.session else { return };
        // librdkafka takes nothing back that it does not have: so it has it for a moment, and gives out nothing of it.
        let added = if unassigned.is_empty() { Ok(()) } else { session.assign(&unassigned) };
        if let Err(why) = added.and_then(|()| session.unassign(list.iter())) {
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
        let (group, who) = (self.group.clone(), self.connection.security.principal());
        let mut topics: Vec<String> = offsets.iter().map(|(name, _)| name.topic.to_string()).collect();
        topics.sort();
        topics.dedup();
        Some(move || {
            commit().map_err(|error| match error.rdkafka_error_code() {
                Some(code @ Code::GroupAuthorizationFailed) => {
                    Fault::unauthorized(COMMIT, Resource::Group(group), format!("{code:?}"), who)
                }
                Some(code @ Code::TopicAuthorizationFailed) => {
                    Fault::unauthorized(COMMIT, Resource::Topics(topics), format!("{code:?}"), who)
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
