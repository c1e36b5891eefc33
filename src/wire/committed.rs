//! What a group has committed.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{ApiKey, GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::shape::Shape;
use super::{Wire, code_name};
use crate::client::Fault;
use crate::record::{Offset, TopicPartition};

/// Offsets that Kafka itself keeps; 0.8.2 to 4.x serve it.
const OFFSET_FETCH: i16 = 1;

impl Wire {
    /// What `group` has committed of each partition, in the order of the question. To be asked of its
    /// [`Wire::coordinator`].
    ///
    /// # Errors
    /// The broker did not answer, or refused, be it for one partition: for instance because it is no
    /// longer the coordinator, which it says for each.
    pub fn committed(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Offset>>, Fault> {
        self.require_version(ApiKey::OffsetFetch, OFFSET_FETCH, "OffsetFetch 1")?;
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
        // topics: name; partitions: index, offset, metadata, error
        let partition = vec![Shape::Fixed(12), Shape::Text, Shape::Fixed(2)];
        let shape = [Shape::Array(vec![Shape::Text, Shape::Array(partition)])];
        let answer: OffsetFetchResponse =
            self.call("OffsetFetch", ApiKey::OffsetFetch, OFFSET_FETCH, &request, &shape)?;
        let mut found = HashMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                match partition.error_code {
                    // A group without an offset of it has -1, which is no offset.
                    0 => found.insert(
                        (topic.name.0.as_str(), partition.partition_index),
                        Offset::new(partition.committed_offset),
                    ),
                    code => return Err(Fault::Refused { call: "OffsetFetch", code: code_name(code) }),
                };
            }
        }
        let of_one = |p: &TopicPartition| {
            found.get(&(&*p.topic, p.partition)).copied().ok_or_else(|| Fault::Broken {
                call: "OffsetFetch",
                why: format!("the answer of broker {} lacks {p}", self.broker()),
            })
        };
        of.iter().map(of_one).collect()
    }
}
