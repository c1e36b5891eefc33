//! Whether a broker would convert a batch for a client that speaks Fetch 0.
//!
//! The crate `kafka-protocol` no longer knows that version, so the request is written here: Kafka's
//! `FetchRequest.json`, version 0.

use kafka_protocol::messages::ApiKey;

use super::exchange::{self, Exchange, Trouble};
use super::{Wire, refused};
use crate::client::{Fault, Resource};
use crate::record::Offset;

/// UNSUPPORTED_VERSION: with `message.downconversion.enable = false`, on the topic or the broker.
const UNSUPPORTED_VERSION: i16 = 35;
/// So much of a frame is read to its end, which keeps the connection; more is not worth it.
const WORTH_READING: usize = 64 << 10;

impl Wire {
    /// Whether the broker converts the batch of `size` bytes at `position` for Fetch 0. It looks only at whole
    /// batches, so the answer holds that batch, and is thrown away.
    ///
    /// # Errors
    /// The broker did not answer, its answer makes no sense; [`Fault::Refused`] with Kafka's reason.
    pub fn serves_old_fetch(
        &mut self,
        topic: &str,
        partition: i32,
        position: Offset,
        size: usize,
    ) -> Result<bool, Fault> {
        const CALL: &str = "Fetch";
        let body = request(topic, partition, position, size);
        let mut exchange = self.send_as(CALL, ApiKey::Fetch, 0, |header| exchange::frame_of(header, &body))?;
        let started = exchange.started;
        let result = error_code(&mut exchange, topic).and_then(|code| {
            let worth_it = exchange.left <= WORTH_READING;
            if worth_it {
                exchange.read_to_end(&mut Vec::new())?;
            }
            Ok((code, worth_it))
        });
        let (code, worth_it) = self.conclude(CALL, started, result)?;
        if !worth_it {
            self.stream = None;
        }
        match code {
            0 => Ok(true),
            UNSUPPORTED_VERSION => Ok(false),
            code => Err(refused(&self.who, CALL, Resource::topic(topic), code)),
        }
    }
}

/// Replica id of a consumer, no wait, no minimum; one topic with one partition: number, offset, most bytes.
fn request(topic: &str, partition: i32, position: Offset, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for number in [-1_i32, 0, 0, 1] {
        body.extend(number.to_be_bytes());
    }
    // A name has 249 characters at most.
    body.extend(i16::try_from(topic.len()).unwrap_or(i16::MAX).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
    body.extend(position.get().to_be_bytes());
    body.extend(i32::try_from(size).unwrap_or(i32::MAX).to_be_bytes());
    body
}

/// Kafka's `FetchResponse.json`, version 0, behind the correlation id: topics (name, partitions (number, error, …)).
fn error_code(answer: &mut Exchange<'_>, topic: &str) -> Result<i16, Trouble> {
    let another = || Trouble::Nonsense("another topic or partition than was asked".to_owned());
    if i32::from_be_bytes(answer.array()?) != 1 {
        return Err(another());
    }
    if usize::try_from(i16::from_be_bytes(answer.array()?)) != Ok(topic.len()) {
        return Err(another());
    }
    let mut name = vec![0; topic.len()];
    answer.read(&mut name)?;
    if name != topic.as_bytes() || i32::from_be_bytes(answer.array()?) != 1 {
        return Err(another());
    }
    let _number: [u8; 4] = answer.array()?;
    Ok(i16::from_be_bytes(answer.array()?))
}
