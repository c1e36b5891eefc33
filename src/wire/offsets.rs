//! Where a partition's log begins and ends, and where it was at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, ListOffsetsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::shape::Shape;
use super::{Wire, refused};
use crate::client::{Bounds, Fault, Resource};
use crate::record::Offset;

/// Kafka 0.10.1 to 4.x serve one of these; later versions are of the flexible form. From 2 on there is an isolation level.
const VERSIONS: (i16, i16) = (1, 5);
/// The same, of those with an isolation level: Kafka 0.11 and later.
const ISOLATED: (i16, i16) = (2, 5);
/// The end is the high watermark.
const READ_UNCOMMITTED: i8 = 0;
/// The end is the last stable offset.
const READ_COMMITTED: i8 = 1;
/// Instead of a time: the log start offset.
const EARLIEST: i64 = -2;
/// Instead of a time: the end.
const LATEST: i64 = -1;

impl Wire {
    /// Log start and log end of partitions that this broker leads, in the order of the question,
    /// by two requests: records that are written or expire between them widen the range by nothing
    /// that was not true at one of both moments.
    ///
    /// # Errors
    /// Outside: the broker did not answer. Inside, for one partition: [`Fault::Refused`] with
    /// Kafka's reason, for instance `NotLeaderOrFollower`.
    pub fn bounds(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<Result<Bounds, Fault>>, Fault> {
        let starts = self.list_offsets(partitions, EARLIEST, READ_UNCOMMITTED)?;
        let ends = self.list_offsets(partitions, LATEST, READ_UNCOMMITTED)?;
        let bounds = starts.into_iter().zip(ends).map(|(start, end)| match (start?, end?) {
            (Some(log_start), Some(log_end)) => Ok(Bounds { log_start, log_end }),
            _ => Err(Fault::Broken { call: "ListOffsets", why: "a log without start or end".to_owned() }),
        });
        Ok(bounds.collect())
    }

    /// The last stable offset of partitions that this broker leads, in the order of the question.
    ///
    /// # Errors
    /// As for [`Wire::bounds`]; [`Fault::TooOld`] from a broker before 0.11.
    pub fn last_stable(&mut self, partitions: &[(Arc<str>, i32)]) -> Result<Vec<Result<Option<Offset>, Fault>>, Fault> {
        self.list_offsets(partitions, LATEST, READ_COMMITTED)
    }

    /// For each partition the offset of the first record whose timestamp is `time_ms` (milliseconds
    /// since 1970, UTC) or later; `None` if there is none.
    ///
    /// # Errors
    /// As for [`Wire::bounds`].
    pub fn at_time(
        &mut self,
        partitions: &[(Arc<str>, i32)],
        time_ms: u64,
    ) -> Result<Vec<Result<Option<Offset>, Fault>>, Fault> {
        self.list_offsets(partitions, i64::try_from(time_ms).unwrap_or(i64::MAX), READ_UNCOMMITTED)
    }

    fn list_offsets(
        &mut self,
        partitions: &[(Arc<str>, i32)],
        time: i64,
        isolation: i8,
    ) -> Result<Vec<Result<Option<Offset>, Fault>>, Fault> {
        let version = match isolation {
            READ_UNCOMMITTED => self.choose(ApiKey::ListOffsets, VERSIONS, "ListOffsets 1")?,
            _ => self.choose(ApiKey::ListOffsets, ISOLATED, "ListOffsets 2")?,
        };
        // A partition that is asked twice in one request is refused by the broker.
        let mut asked: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            asked.entry(topic).or_default().insert(*partition);
        }
        let topics = asked.into_iter().map(|(topic, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|partition| ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(time));
            ListOffsetsTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions.collect())
        });
        // A consumer has the replica id -1.
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(topics.collect());
        // throttle time (from 2 on); topics: name; partitions: index, error, timestamp, offset, leader epoch (from 4 on)
        let from = |first: i16, size: usize| Shape::Fixed(if version >= first { size } else { 0 });
        let partition = vec![Shape::Fixed(22), from(4, 4)];
        let shape = [from(2, 4), Shape::Array(vec![Shape::Text, Shape::Array(partition)])];
        let answer: ListOffsetsResponse = self.call("ListOffsets", ApiKey::ListOffsets, version, &request, &shape)?;

        let mut found = HashMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let result = match partition.error_code {
                    0 => Ok(Offset::new(partition.offset)),
                    code => Err(refused(&self.who, "ListOffsets", Resource::topic(topic.name.0.as_str()), code)),
                };
                found.insert((topic.name.0.as_str(), partition.partition_index), result);
            }
        }
        let why = format!("the answer of broker {} lacks the partition", self.broker());
        let lacking = || Fault::Broken { call: "ListOffsets", why: why.clone() };
        Ok(partitions
            .iter()
            .map(|(topic, partition)| found.get(&(&**topic, *partition)).cloned().unwrap_or_else(|| Err(lacking())))
            .collect())
    }
}
