//! Why something does not move: what a client of this kind would meet, and who else is there.

use super::Control;
use crate::client::kafka::fault::{no_down_conversion, unreadable};
use crate::client::{Ahead, Fault, Inspect, Member};
use crate::record::{Offset, TopicPartition};
use crate::wire::{Batch, Codec, Header, Wire};

/// Transaction markers in a row that are passed over in search of records.
const MARKERS: usize = 16;
/// A larger batch is not fetched only to learn whether the broker would convert it.
const WORTH_CONVERTING: usize = 1 << 20;

impl Inspect for Control {
    fn members(&mut self, group: &str) -> Result<Vec<Member>, Fault> {
        self.ask_coordinator(group, |wire| wire.members(group))
    }

    fn ahead(&mut self, partition: &TopicPartition, at: Offset, old: bool) -> Result<Option<Ahead>, Fault> {
        let leader = self.leader(partition).cloned().ok_or(Fault::NoLeader)?;
        let mut wire = self.connect(&leader)?;
        if old {
            wire.require_old_fetch()?;
        }
        let mut offset = at;
        for _ in 0..MARKERS {
            let Some(batch) = header(&mut wire, partition, offset)? else { return Ok(None) };
            if !wire.is_open() {
                wire = self.connect(&leader)?;
            }
            if let Some(marker) = batch.details.filter(|details| details.control) {
                offset = marker.last.next();
                continue;
            }
            let codec = batch.details.map_or(Codec::None, |details| details.codec);
            let unreadable = unreadable(codec, offset, batch.details.map(|details| details.last));
            if let Some(fault) = unreadable.filter(|_| old) {
                return Err(fault);
            }
            let (topic, number) = (&partition.topic, partition.partition);
            if old && batch.size <= WORTH_CONVERTING && !wire.serves_old_fetch(topic, number, offset, batch.size)? {
                return Err(no_down_conversion(offset));
            }
            let (records, transactional) =
                (batch.details.map(|d| d.count), batch.details.is_some_and(|d| d.transactional));
            return Ok(Some(Ahead { offset, size: batch.size, records, transactional }));
        }
        Ok(None)
    }
}

fn header(wire: &mut Wire, partition: &TopicPartition, at: Offset) -> Result<Option<Batch>, Fault> {
    match wire.batch_header(&partition.topic, partition.partition, at)? {
        Header::Batch(batch) => Ok(Some(batch)),
        Header::Nothing { .. } => Ok(None),
        Header::OutOfRange => Err(Fault::Refused { call: "Fetch", code: format!("offset {at} is outside the log") }),
        Header::Refused(fault) => Err(fault),
        Header::Inconclusive { throttle_ms } => Err(Fault::Unanswered { for_ms: u64::from(throttle_ms) }),
    }
}
