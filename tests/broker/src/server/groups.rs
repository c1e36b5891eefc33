//! What a group's coordinator answers: FindCoordinator 0, OffsetCommit 1 and 2, OffsetFetch 1,
//! DescribeGroups 0. Nobody can join a group here; members are set by the test.

use super::answer::Asked;
use super::state::{Member, State};
use crate::fault::code;
use crate::request::{OffsetCommit, Topics};
use crate::wire::Writer;

pub(super) fn find_coordinator(asked: &Asked<'_>, group: &str, out: &mut Writer) {
    let found = match asked.struck.whole_error() {
        Some(error) => Err(error),
        None => asked.shared.lock().coordinator(group).ok_or(code::COORDINATOR_NOT_AVAILABLE),
    };
    match found {
        Ok((id, address)) => {
            out.i16(0);
            out.i32(id);
            out.string(&address.ip().to_string());
            out.i32(i32::from(address.port()));
        }
        Err(error) => {
            out.i16(error);
            out.i32(-1);
            out.string("");
            out.i32(-1);
        }
    }
}

/// The error that a request to the coordinator gets as a whole.
fn refusal(asked: &Asked<'_>, state: &State, group: &str) -> Option<i16> {
    // Version 0 means offsets in ZooKeeper, which a KRaft broker does not have.
    if asked.version == 0 {
        return Some(code::UNSUPPORTED_VERSION);
    }
    let in_charge = state.coordinator(group).is_some_and(|(id, _)| id == asked.life.broker);
    (!in_charge).then_some(code::NOT_COORDINATOR)
}

pub(super) fn commit(asked: &Asked<'_>, request: &OffsetCommit, out: &mut Writer) {
    let group = &request.group;
    asked.shared.note(|state| {
        let is_member = |member: &Member| member.id == request.member;
        let strange = state.group(group).is_some_and(|group| {
            let empty = group.members.is_empty();
            if empty { request.generation >= 0 } else { !group.members.iter().any(is_member) }
        });
        let refusal = refusal(asked, state, group).or(strange.then_some(code::UNKNOWN_MEMBER_ID));
        out.array(request.topics.len());
        for (topic, partitions) in &request.topics {
            out.string(topic);
            out.array(partitions.len());
            for wanted in partitions {
                let missing = state.partition(topic, wanted.partition).is_none();
                let error = asked
                    .struck
                    .error(topic, wanted.partition)
                    .or(refusal)
                    .or(missing.then_some(code::UNKNOWN_TOPIC_OR_PARTITION));
                if error.is_none() {
                    state.set_committed(group, topic, wanted.partition, Some(wanted.offset), &wanted.metadata);
                }
                out.i32(wanted.partition);
                out.i16(error.unwrap_or(0));
            }
        }
    });
}

pub(super) fn fetch(asked: &Asked<'_>, group: &str, topics: &Topics<i32>, out: &mut Writer) {
    let state = asked.shared.lock();
    let refusal = refusal(asked, &state, group);
    out.array(topics.len());
    for (topic, partitions) in topics {
        out.string(topic);
        out.array(partitions.len());
        for partition in partitions {
            let error = asked.struck.error(topic, *partition).or(refusal);
            let committed = state.committed(group, topic, *partition).filter(|_| error.is_none());
            out.i32(*partition);
            out.i64(committed.map_or(-1, |committed| committed.offset));
            out.string(committed.map_or("", |committed| &committed.metadata));
            out.i16(error.unwrap_or(0));
        }
    }
}

pub(super) fn describe(asked: &Asked<'_>, groups: &[String], out: &mut Writer) {
    let state = asked.shared.lock();
    out.array(groups.len());
    for name in groups {
        let in_charge = state.coordinator(name).is_some_and(|(id, _)| id == asked.life.broker);
        let error = asked.struck.whole_error().or((!in_charge).then_some(code::NOT_COORDINATOR));
        let group = state.group(name).filter(|_| error.is_none());
        let members = group.map_or(&[][..], |group| &group.members);
        let (stage, kind) = match (error, group) {
            (Some(_), _) => ("", ""),
            (None, None) => ("Dead", ""),
            (None, Some(_)) if members.is_empty() => ("Empty", ""),
            (None, Some(_)) => ("Stable", "consumer"),
        };
        out.i16(error.unwrap_or(0));
        out.string(name);
        out.string(stage);
        out.string(kind);
        out.string(if kind.is_empty() { "" } else { "range" });
        out.array(members.len());
        for member in members {
            out.string(&member.id);
            out.string(&member.client_id);
            out.string(&member.host);
            out.nullable_bytes(Some(&[])); // subscription
            out.nullable_bytes(Some(&[])); // assignment
        }
    }
}
