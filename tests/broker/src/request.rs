//! Requests as values, and their decoding. Field by field as in
//! <https://kafka.apache.org/protocol.html#protocol_messages>.

use crate::api::Api;
use crate::wire::{Malformed, Reader};

/// Topics, each with its partitions.
pub(crate) type Topics<P> = Vec<(String, Vec<P>)>;

/// What stands before every request.
pub(crate) struct Header {
    /// The number of the request's kind, known or not.
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

pub(crate) struct Produce {
    pub(crate) acks: i16,
    pub(crate) topics: Topics<(i32, Vec<u8>)>,
}

pub(crate) struct FetchPartition {
    pub(crate) partition: i32,
    pub(crate) position: i64,
    pub(crate) max_bytes: i32,
}

pub(crate) struct Fetch {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    /// `None` before version 3.
    pub(crate) max_bytes: Option<i32>,
    /// Of transactions, only what was committed (the isolation level 1, from version 4 on).
    pub(crate) committed_only: bool,
    pub(crate) topics: Topics<FetchPartition>,
}

pub(crate) struct ListPartition {
    pub(crate) partition: i32,
    pub(crate) timestamp: i64,
}

/// A topic that Metadata asks for, by name or (version 12) by id.
pub(crate) struct MetadataTopic {
    pub(crate) id: [u8; 16],
    pub(crate) name: Option<String>,
}

pub(crate) struct Metadata {
    /// `None`: all.
    pub(crate) topics: Option<Vec<MetadataTopic>>,
    pub(crate) may_create: bool,
}

pub(crate) struct CommitPartition {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) metadata: String,
}

pub(crate) struct OffsetCommit {
    pub(crate) group: String,
    /// Negative: from outside the group.
    pub(crate) generation: i32,
    pub(crate) member: String,
    pub(crate) topics: Topics<CommitPartition>,
}

pub(crate) enum Body {
    Produce(Produce),
    Fetch(Fetch),
    ListOffsets(Topics<ListPartition>),
    Metadata(Metadata),
    OffsetCommit(OffsetCommit),
    OffsetFetch { group: String, topics: Topics<i32> },
    FindCoordinator { group: String },
    DescribeGroups { groups: Vec<String> },
    ApiVersions,
}

impl Header {
    /// The part that all headers have in common. Its rest is read by [`Body::decode`].
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { key: reader.i16()?, version: reader.i16()?, correlation_id: reader.i32()? })
    }
}

impl Body {
    pub(crate) fn decode(api: Api, version: i16, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let _client_id = reader.nullable_string()?;
        if api.is_flexible(version) {
            reader.set_flexible();
            reader.tags()?;
        }
        Ok(match api {
            Api::Produce => Self::Produce(produce(reader)?),
            Api::Fetch => Self::Fetch(fetch(version, reader)?),
            Api::ListOffsets => {
                reader.i32()?; // replica
                Self::ListOffsets(topics(reader, |reader| list_partition(version, reader))?)
            }
            Api::Metadata => Self::Metadata(metadata(version, reader)?),
            Api::OffsetCommit => Self::OffsetCommit(offset_commit(version, reader)?),
            Api::OffsetFetch => {
                Self::OffsetFetch { group: reader.string()?, topics: topics(reader, |reader| reader.i32())? }
            }
            Api::FindCoordinator => Self::FindCoordinator { group: reader.string()? },
            Api::DescribeGroups => Self::DescribeGroups { groups: reader.array(|reader| reader.string())? },
            Api::ApiVersions => Self::ApiVersions,
        })
    }

    /// Whether the request has to do with this group.
    pub(crate) fn mentions_group(&self, name: &str) -> bool {
        match self {
            Self::OffsetCommit(request) => request.group == name,
            Self::OffsetFetch { group, .. } | Self::FindCoordinator { group } => group == name,
            Self::DescribeGroups { groups } => groups.iter().any(|group| group == name),
            _ => false,
        }
    }

    /// Whether the request has to do with this topic, and this partition of it where it names any.
    pub(crate) fn mentions(&self, topic: &str, partition: Option<i32>) -> bool {
        fn any<P>(topics: &Topics<P>, name: &str, partition: Option<i32>, number: impl Fn(&P) -> i32) -> bool {
            let matches = |part: &P| partition.is_none_or(|wanted| wanted == number(part));
            topics.iter().any(|(topic, partitions)| topic == name && partitions.iter().any(matches))
        }
        match self {
            Self::Produce(request) => any(&request.topics, topic, partition, |part| part.0),
            Self::Fetch(request) => any(&request.topics, topic, partition, |part| part.partition),
            Self::ListOffsets(topics) => any(topics, topic, partition, |part| part.partition),
            Self::OffsetCommit(request) => any(&request.topics, topic, partition, |part| part.partition),
            Self::OffsetFetch { topics, .. } => any(topics, topic, partition, |part| *part),
            Self::Metadata(request) => {
                let named = |wanted: &MetadataTopic| wanted.name.as_deref() == Some(topic);
                request.topics.as_ref().is_none_or(|topics| topics.iter().any(named))
            }
            Self::FindCoordinator { .. } | Self::DescribeGroups { .. } | Self::ApiVersions => false,
        }
    }
}

fn topics<P>(
    reader: &mut Reader<'_>,
    mut partition: impl FnMut(&mut Reader<'_>) -> Result<P, Malformed>,
) -> Result<Topics<P>, Malformed> {
    reader.array(|reader| Ok((reader.string()?, reader.array(&mut partition)?)))
}

fn produce(reader: &mut Reader<'_>) -> Result<Produce, Malformed> {
    let acks = reader.i16()?;
    reader.i32()?; // timeout
    let set = |reader: &mut Reader<'_>| Ok((reader.i32()?, reader.nullable_bytes()?.unwrap_or_default().to_vec()));
    Ok(Produce { acks, topics: topics(reader, set)? })
}

fn fetch(version: i16, reader: &mut Reader<'_>) -> Result<Fetch, Malformed> {
    reader.i32()?; // replica
    let (max_wait_ms, min_bytes) = (reader.i32()?, reader.i32()?);
    let max_bytes = if version >= 3 { Some(reader.i32()?) } else { None };
    let committed_only = match if version >= 4 { reader.i8()? } else { 0 } {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    let topics = topics(reader, |reader| {
        Ok(FetchPartition { partition: reader.i32()?, position: reader.i64()?, max_bytes: reader.i32()? })
    })?;
    Ok(Fetch { max_wait_ms, min_bytes, max_bytes, committed_only, topics })
}

fn list_partition(version: i16, reader: &mut Reader<'_>) -> Result<ListPartition, Malformed> {
    let found = ListPartition { partition: reader.i32()?, timestamp: reader.i64()? };
    if version == 0 {
        reader.i32()?; // how many offsets at most
    }
    Ok(found)
}

fn metadata(version: i16, reader: &mut Reader<'_>) -> Result<Metadata, Malformed> {
    let topics = reader.nullable_array(|reader| {
        let id = if version >= 10 { reader.uuid()? } else { [0; 16] };
        let name = if version >= 10 { reader.nullable_string()? } else { Some(reader.string()?) };
        reader.tags()?;
        Ok(MetadataTopic { id, name })
    })?;
    let may_create = if version >= 4 { reader.bool()? } else { true };
    if (8..=10).contains(&version) {
        reader.bool()?; // with the operations that the client may do on the cluster
    }
    if version >= 8 {
        reader.bool()?; // and on the topics
    }
    reader.tags()?;
    // In version 0 none means all.
    let topics = if version == 0 { topics.filter(|topics| !topics.is_empty()) } else { topics };
    Ok(Metadata { topics, may_create })
}

fn offset_commit(version: i16, reader: &mut Reader<'_>) -> Result<OffsetCommit, Malformed> {
    let group = reader.string()?;
    let (generation, member) = if version >= 1 { (reader.i32()?, reader.string()?) } else { (-1, String::new()) };
    if version >= 2 {
        reader.i64()?; // how long to keep it
    }
    let topics = topics(reader, |reader| {
        let (partition, offset) = (reader.i32()?, reader.i64()?);
        if version == 1 {
            reader.i64()?; // commit time
        }
        Ok(CommitPartition { partition, offset, metadata: reader.nullable_string()?.unwrap_or_default() })
    })?;
    Ok(OffsetCommit { group, generation, member, topics })
}
