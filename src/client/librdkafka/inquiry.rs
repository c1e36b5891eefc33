//! Questions that librdkafka does not answer well, asked over our own wire socket on a link: where a log begins and
//! ends, and what the batch at a position is.

use std::sync::Arc;

use crate::client::{Bounds, Connection, Fault};
use crate::record::{Offset, TopicPartition};
use crate::wire::{Header, Wire};

/// What to ask of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Where the log begins and ends: the broker says that the position is outside.
    Bounds,
    /// What the batch at the position is. `fault`: what is wrong with the partition if it is of a size that can be
    /// read; `None` if then nothing is.
    Batch {
        /// See above.
        fault: Option<Fault>,
    },
}

/// What came of it.
pub(super) enum Answer {
    Bounds(Result<Bounds, Fault>),
    Batch(Result<Header, Fault>),
}

/// The link's session: nothing is kept open between questions, which are rare.
pub(super) struct Inquiry {
    connection: Arc<Connection>,
}

impl Inquiry {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Asks `leader` (`host:port`) about a partition that is read at `position`.
    pub(super) fn ask(&mut self, question: &Question, leader: &str, part: &TopicPartition, position: Offset) -> Answer {
        let wire = Wire::connect_as(&self.connection, leader);
        match question {
            Question::Bounds => Answer::Bounds(wire.and_then(|mut wire| {
                let mut answers = wire.bounds(&[(Arc::clone(&part.topic), part.partition)])?;
                answers.pop().unwrap_or(Err(Fault::NoLeader))
            })),
            Question::Batch { .. } => {
                Answer::Batch(wire.and_then(|mut wire| wire.batch_header(&part.topic, part.partition, position)))
            }
        }
    }
}
