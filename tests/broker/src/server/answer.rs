//! From a request to its answer: the way to the handler of each kind, and what they share.

use super::state::{Life, Partition, State};
use super::{Shared, fetch, groups, metadata, offsets, produce};
use crate::fault::{Struck, code};
use crate::request::Body;
use crate::wire::Writer;

/// A request's surroundings.
pub(super) struct Asked<'a> {
    pub(super) shared: &'a Shared,
    pub(super) life: Life,
    pub(super) version: i16,
    pub(super) struck: &'a Struck,
}

/// The broker was stopped while the request waited.
pub(super) struct Interrupted;

/// Serves a request and writes what follows the correlation id. `false`: it wants no answer.
pub(super) fn write(asked: &Asked<'_>, body: &Body, out: &mut Writer) -> Result<bool, Interrupted> {
    match body {
        Body::Produce(request) => return Ok(produce::produce(asked, request, out)),
        Body::Fetch(request) => fetch::fetch(asked, request, out)?,
        Body::ListOffsets(topics) => offsets::list(asked, topics, out),
        Body::Metadata(request) => metadata::metadata(asked, request, out),
        Body::OffsetCommit(request) => groups::commit(asked, request, out),
        Body::OffsetFetch { group, topics } => groups::fetch(asked, group, topics, out),
        Body::FindCoordinator { group } => groups::find_coordinator(asked, group, out),
        Body::DescribeGroups { groups } => groups::describe(asked, groups, out),
        Body::ApiVersions => versions(asked.shared, asked.struck.whole_error().unwrap_or(0), out),
    }
    Ok(true)
}

/// The answer to ApiVersions 0.
pub(super) fn versions(shared: &Shared, error: i16, out: &mut Writer) {
    let state = shared.lock();
    let versions = state.options.versions.iter();
    out.i16(error);
    out.array(versions.len());
    for (api, lowest, highest) in versions {
        out.i16(api as i16);
        out.i16(lowest);
        out.i16(highest);
    }
}

/// The partition, if it exists and this broker leads it; else Kafka's error code.
pub(super) fn led<'a>(state: &'a State, life: Life, topic: &str, number: i32) -> Result<&'a Partition, i16> {
    let partition = state.partition(topic, number).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
    if partition.leader == Some(life.broker) { Ok(partition) } else { Err(code::NOT_LEADER_OR_FOLLOWER) }
}
