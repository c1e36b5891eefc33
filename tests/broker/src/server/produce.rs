//! Produce 0.

use super::answer::{Asked, led};
use super::now_ms;
use crate::fault::code;
use crate::log::read_message_set;
use crate::request::Produce;
use crate::wire::Writer;

/// Appends what was sent, as one batch a partition. `false`: the producer wants no answer.
pub(super) fn produce(asked: &Asked<'_>, request: &Produce, out: &mut Writer) -> bool {
    out.array(request.topics.len());
    for (topic, partitions) in &request.topics {
        out.string(topic);
        out.array(partitions.len());
        for (number, set) in partitions {
            let appended = match asked.struck.error(topic, *number) {
                Some(error) => Err(error),
                None => append(asked, topic, *number, set),
            };
            out.i32(*number);
            out.i16(appended.err().unwrap_or(0));
            out.i64(appended.unwrap_or(-1));
        }
    }
    request.acks != 0
}

fn append(asked: &Asked<'_>, topic: &str, number: i32, set: &[u8]) -> Result<i64, i16> {
    let (records, codec) = read_message_set(set, now_ms()).map_err(|_| code::CORRUPT_MESSAGE)?;
    asked.shared.change(|state| {
        led(state, asked.life, topic, number)?;
        let partition = state.partition_mut(topic, number).ok_or(code::UNKNOWN_TOPIC_OR_PARTITION)?;
        Ok(partition.log.append(records, codec).start)
    })
}
