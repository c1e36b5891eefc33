//! The sink `drop`: takes every record and keeps none.
//!
//! For measuring what is above the sinks, and for topics whose group has to move on. It never fails
//! and never blocks.

use super::{Sink, Stopped};
use crate::record::{Records, TopicPartition};

/// Counts the records it is given, and does nothing else with them.
#[derive(Debug, Default)]
pub struct DropSink {
    taken: u64,
}

impl DropSink {
    /// A sink that has not taken anything yet.
    pub const fn new() -> Self {
        Self { taken: 0 }
    }

    /// How many records it has taken since it was made; those that were given again count again.
    pub const fn taken(&self) -> u64 {
        self.taken
    }
}

impl Sink for DropSink {
    fn write(&mut self, _partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        self.taken += records.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::format::testing::records;

    #[test]
    fn it_counts_what_it_is_given() {
        let mut sink = DropSink::new();
        let partition = TopicPartition::new("orders", 0);
        assert_eq!(sink.write(&partition, &records(["a", "b", "c"])), Ok(()));
        assert_eq!(sink.write(&partition, &Records::none()), Ok(()));
        assert_eq!(sink.write(&partition, &records(["d"])), Ok(()));
        assert_eq!(sink.flush(), Ok(()));
        assert_eq!(sink.taken(), 4);
    }
}
