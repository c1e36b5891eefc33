//! Metadata 0 to 12, and the creation of topics by asking for them.

use super::answer::Asked;
use super::state::{State, Topic};
use crate::fault::{Fault, code};
use crate::request::{Metadata, MetadataTopic};
use crate::wire::Writer;

const CLUSTER_ID: &str = "embedded-broker-cluster";
/// "Not asked for", in the fields of authorized operations.
const NO_OPERATIONS: i32 = i32::MIN;
/// The longest name that a topic may have.
const NAME_MAX: usize = 249;
/// A topic without an id.
const NO_ID: [u8; 16] = [0; 16];

/// What is said of one topic.
struct Found {
    error: i16,
    name: Option<String>,
    id: [u8; 16],
}

pub(super) fn metadata(asked: &Asked<'_>, request: &Metadata, out: &mut Writer) {
    asked.shared.note(|state| {
        let found = find(state, request);
        let version = asked.version;
        if version >= 3 {
            out.i32(0); // throttle time
        }
        brokers(state, version, out);
        out.array(found.len());
        for topic in &found {
            write_topic(asked, state, topic, out);
        }
        if (8..=10).contains(&version) {
            out.i32(NO_OPERATIONS);
        }
        out.tags();
    });
}

fn brokers(state: &State, version: i16, out: &mut Writer) {
    let running = state.running();
    out.array(running.len());
    for (id, address) in &running {
        out.i32(*id);
        out.string(&address.ip().to_string());
        out.i32(i32::from(address.port()));
        if version >= 1 {
            out.nullable_string(None); // rack
        }
        out.tags();
    }
    if version >= 2 {
        out.nullable_string(Some(CLUSTER_ID));
    }
    if version >= 1 {
        out.i32(running.first().map_or(-1, |(id, _)| *id)); // controller
    }
}

/// The topics that the answer is about. Missing ones are created where that is allowed; the answer
/// that creates one still says that it does not exist, as a KRaft broker's does.
fn find(state: &mut State, request: &Metadata) -> Vec<Found> {
    let known = |name: &String, topic: &Topic| Found { error: 0, name: Some(name.clone()), id: topic.id };
    let Some(wanted) = &request.topics else {
        return state.topics().map(|(name, topic)| known(name, topic)).collect();
    };
    let may_create = request.may_create && state.options.auto_create_topics;
    let find = |wanted: &MetadataTopic| match &wanted.name {
        Some(name) => match state.topic(name) {
            Some(topic) => known(name, topic),
            None if !is_valid(name) => {
                Found { error: code::INVALID_TOPIC_EXCEPTION, name: Some(name.clone()), id: NO_ID }
            }
            None => {
                if may_create {
                    state.create_automatically(name);
                }
                Found { error: code::UNKNOWN_TOPIC_OR_PARTITION, name: Some(name.clone()), id: NO_ID }
            }
        },
        None => match state.topics().find(|(_, topic)| topic.id == wanted.id) {
            Some((name, topic)) => known(name, topic),
            None => Found { error: code::UNKNOWN_TOPIC_ID, name: None, id: wanted.id },
        },
    };
    wanted.iter().map(find).collect()
}

fn is_valid(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name != "." && name != ".." && name.len() <= NAME_MAX && name.bytes().all(legal)
}

fn write_topic(asked: &Asked<'_>, state: &State, found: &Found, out: &mut Writer) {
    let version = asked.version;
    let name = found.name.as_deref().unwrap_or_default();
    let error = asked.struck.topic_error(name).unwrap_or(found.error);
    let topic = state.topic(name).filter(|_| error == 0);
    out.i16(error);
    if version >= 12 {
        out.nullable_string(found.name.as_deref())
    } else {
        out.string(name)
    }
    if version >= 10 {
        out.uuid(found.id);
    }
    if version >= 1 {
        out.bool(false); // internal
    }
    let partitions = topic.map_or(&[][..], |topic| &topic.partitions);
    out.array(partitions.len());
    for (number, partition) in (0..).zip(partitions) {
        let leader = state.leader(partition).filter(|_| !asked.struck.has_for(&Fault::NoLeader, name, number));
        let no_leader = leader.is_none().then_some(code::LEADER_NOT_AVAILABLE);
        out.i16(asked.struck.error(name, number).or(no_leader).unwrap_or(0));
        out.i32(number);
        out.i32(leader.unwrap_or(-1));
        if version >= 7 {
            out.i32(0); // leader epoch
        }
        let replicas: Vec<i32> = partition.leader.into_iter().collect();
        let in_sync: Vec<i32> = leader.into_iter().collect();
        out.i32s(&replicas);
        out.i32s(&in_sync);
        if version >= 5 {
            let offline: Vec<i32> = replicas.iter().copied().filter(|id| !in_sync.contains(id)).collect();
            out.i32s(&offline);
        }
        out.tags();
    }
    if version >= 8 {
        out.i32(NO_OPERATIONS);
    }
    out.tags();
}
