//! What a group has committed, and committing to it from outside.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    ApiKey, GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::shape::Shape;
use super::{Wire, code_name, refused};
use crate::client::{Committed, Fault, Resource};
use crate::record::{Offset, TopicPartition};

/// Offsets that Kafka itself keeps; 0.8.2 to 4.x serve one of these, and later versions are of the flexible form.
const OFFSET_FETCH: (i16, i16) = (1, 5);
/// 0.9 to 4.x serve one of these, and later versions are of the flexible form. Up to 4 a retention of one's own may be
/// asked for (it is not: -1); from Kafka 2.1 on a group without members keeps an offset for
/// `offsets.retention.minutes` from its last commit, whatever the version (KIP-211).
const OFFSET_COMMIT: (i16, i16) = (2, 7);
/// In place of a generation: from outside of the group's membership.
const NO_MEMBER: i32 = -1;

impl Wire {
    /// What `group` has committed of each partition, in the order of the question. To be asked of its
    /// [`Wire::coordinator`].
    ///
    /// # Errors
    /// The broker did not answer, or refused, be it for one partition: for instance because it is no
    /// longer the coordinator, which it says for each.
    pub fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Fault> {
        let version = self.choose(ApiKey::OffsetFetch, OFFSET_FETCH, "OffsetFetch 1")?;
        let mut asked: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in of {
            asked.entry(&partition.topic).or_default().push(partition.partition);
        }
        let topics = asked.into_iter().map(|(topic, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partition_indexes(partitions)
        });
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_topics(Some(topics.collect()));
        // throttle time (from 3 on); topics: name; partitions: index, offset, leader epoch (from 5 on), metadata, error;
        // error of the whole (from 2 on)
        let from = |first: i16, size: usize| Shape::Fixed(if version >= first { size } else { 0 });
        let partition = vec![Shape::Fixed(12), from(5, 4), Shape::Text, Shape::Fixed(2)];
        let shape = [from(3, 4), Shape::Array(vec![Shape::Text, Shape::Array(partition)]), from(2, 2)];
        let answer: OffsetFetchResponse = self.call("OffsetFetch", ApiKey::OffsetFetch, version, &request, &shape)?;
        if answer.error_code != 0 {
            return Err(refused(&self.who, "OffsetFetch", Resource::Group(group.to_owned()), answer.error_code));
        }
        let mut found = HashMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                match partition.error_code {
                    // A group without an offset of it has -1, which is no offset.
                    0 => found.insert(
                        (topic.name.0.as_str(), partition.partition_index),
                        Offset::new(partition.committed_offset).map(|offset| Committed {
                            offset,
                            metadata: partition.metadata.as_deref().unwrap_or_default().to_owned(),
                        }),
                    ),
                    code => {
                        return Err(refused(
                            &self.who,
                            "OffsetFetch",
                            subject(group, topic.name.0.as_str(), code),
                            code,
                        ));
                    }
                };
            }
        }
        let of_one = |p: &TopicPartition| {
            found.get(&(&*p.topic, p.partition)).cloned().ok_or_else(|| Fault::Broken {
                call: "OffsetFetch",
                why: format!("the answer of broker {} lacks {p}", self.broker()),
            })
        };
        of.iter().map(of_one).collect()
    }

    /// Commits offsets to `group`, each with `metadata`, without being a member of it. To be asked of its
    /// [`Wire::coordinator`].
    ///
    /// # Errors
    /// The broker did not answer; [`Fault::GroupHasMembers`]; [`Fault::TopicMissing`]; or it refused, for
    /// instance because it is no longer the coordinator. Partitions that it did not refuse are committed.
    pub fn commit(&mut self, group: &str, at: &[(TopicPartition, Offset)], metadata: &str) -> Result<(), Fault> {
        const CALL: &str = "OffsetCommit";
        let version = self.choose(ApiKey::OffsetCommit, OFFSET_COMMIT, "OffsetCommit 2")?;
        let mut asked: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, offset) in at {
            let one = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(offset.get())
                .with_committed_metadata(Some(StrBytes::from_string(metadata.to_owned())));
            asked.entry(&partition.topic).or_default().push(one);
        }
        let topics = asked.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(NO_MEMBER)
            .with_topics(topics.collect());
        // throttle time (from 3 on); topics: name; partitions: index, error
        let throttle = Shape::Fixed(if version >= 3 { 4 } else { 0 });
        let shape = [throttle, Shape::Array(vec![Shape::Text, Shape::Array(vec![Shape::Fixed(6)])])];
        let answer: OffsetCommitResponse = self.call(CALL, ApiKey::OffsetCommit, version, &request, &shape)?;
        let mut answered = HashMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                answered.insert((topic.name.0.as_str(), partition.partition_index), partition.error_code);
            }
        }
        for (partition, _) in at {
            let Some(&code) = answered.get(&(&*partition.topic, partition.partition)) else {
                let why = format!("the answer of broker {} lacks {partition}", self.broker());
                return Err(Fault::Broken { call: CALL, why });
            };
            match ResponseError::try_from_code(code) {
                None => {}
                Some(ResponseError::UnknownTopicOrPartition) => {
                    return Err(Fault::TopicMissing { topic: partition.topic.to_string() });
                }
                Some(
                    ResponseError::UnknownMemberId
                    | ResponseError::IllegalGeneration
                    | ResponseError::RebalanceInProgress
                    // Of a group of the new protocol (KIP-848).
                    | ResponseError::StaleMemberEpoch
                    | ResponseError::FencedMemberEpoch,
                ) => {
                    let (group, code) = (group.to_owned(), code_name(code));
                    return Err(Fault::GroupHasMembers { group, code, members: Vec::new() });
                }
                Some(_) => return Err(refused(&self.who, CALL, subject(group, &partition.topic, code), code)),
            }
        }
        Ok(())
    }
}

/// What an error code of a commit or its reading is about.
fn subject(group: &str, topic: &str, code: i16) -> Resource {
    match ResponseError::try_from_code(code) {
        Some(ResponseError::GroupAuthorizationFailed) => Resource::Group(group.to_owned()),
        _ => Resource::topic(topic),
    }
}
