//! The cluster for an operator's commands: topics with their ids, where a time lies, offsets with their metadata.

use std::sync::Arc;

use super::{Control, TopicState};
use crate::client::{Committed, Fault, Manage, Topic};
use crate::record::{Offset, TopicPartition};

impl Manage for Control {
    fn topics(&mut self, names: &[Arc<str>]) -> Result<Vec<Result<Topic, Fault>>, Fault> {
        let topic = |(name, state): (Arc<str>, TopicState)| match state {
            TopicState::Missing => Err(Fault::TopicMissing { topic: name.to_string() }),
            TopicState::Unknown(fault) => Err(fault),
            TopicState::Present(id, list) => {
                let partitions = list.iter().map(|(n, _)| TopicPartition::new(Arc::clone(&name), *n)).collect();
                Ok(Topic { id, partitions })
            }
        };
        Ok(self.begin(names)?.into_iter().map(topic).collect())
    }

    fn at_time(&mut self, of: &[TopicPartition], time_ms: u64) -> Result<Vec<Result<Option<Offset>, Fault>>, Fault> {
        self.ask_leaders(of, |wire, asked| wire.at_time(asked, time_ms))
    }

    fn committed_with_metadata(&mut self, group: &str, of: &[TopicPartition]) -> Result<Vec<Option<Committed>>, Fault> {
        self.ask_coordinator(group, |wire| wire.committed(group, of))
    }

    fn commit_with_metadata(
        &mut self,
        group: &str,
        at: &[(TopicPartition, Offset)],
        metadata: &str,
    ) -> Result<(), Fault> {
        self.commit_as(group, at, metadata)
    }
}
