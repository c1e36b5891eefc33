//! Batches on their way through a delivery, and the records of them that were given up. No sink and no lane is known
//! here.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::consumer::Batch;
use crate::dead_letter::Letter;
use crate::record::{Offset, TopicPartition};

/// A batch on its way.
pub(super) struct Item {
    pub(super) batch: Batch,
    /// So many of its records were flushed, or given up, in an earlier delivery.
    pub(super) from: usize,
    /// So many in this one.
    pub(super) until: usize,
    /// Nothing is written from this record on: its topic stops there, or has stopped before.
    pub(super) limit: Option<usize>,
    /// What is to become of records that were given up, by their index.
    pub(super) lost: BTreeMap<usize, Lost>,
}

/// A record that was given up.
pub(super) struct Lost {
    pub(super) reason: String,
    pub(super) attempts: u32,
    pub(super) first_failure: SystemTime,
    pub(super) is_letter: bool,
}

impl Item {
    pub(super) fn new(batch: Batch) -> Self {
        Self { batch, from: 0, until: 0, limit: None, lost: BTreeMap::new() }
    }

    /// How many of its records are to be written.
    pub(super) fn len(&self) -> usize {
        self.batch.records.len() - self.from
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.batch.partition
    }

    /// What is before `until` is safe: it was flushed, or the sink says so.
    pub(super) fn mark(&self, until: usize) {
        let until = self.lost.range(..until).next().map_or(until, |(index, _)| *index);
        if until > self.from {
            self.batch.ticket.mark(self.batch.records.get(until).map(|record| record.offset));
        }
    }

    pub(super) fn offset(&self, index: usize) -> Offset {
        self.batch.records.get(index).map_or(Offset::ZERO, |record| record.offset)
    }
}

/// The next `count` records of these items, which are of one partition, are safe, and all that was written before them.
pub(super) fn mark(before: &[Item], items: &[Item], mut count: usize) {
    before.iter().for_each(|item| item.mark(item.until));
    for item in items {
        let own = count.min(item.batch.records.len() - item.until);
        item.mark(item.until + own);
        count -= own;
    }
}

pub(super) fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// The dead letters of one delivery.
pub(super) fn letters<'a>(items: &'a [Item], sink: &'a str, dead_ms: i64) -> impl Iterator<Item = Letter<'a>> {
    let of = move |item: &'a Item| {
        item.lost.range(..item.until).filter(|(_, lost)| lost.is_letter).filter_map(move |(index, lost)| {
            Some(Letter {
                partition: &item.batch.partition,
                record: item.batch.records.get(*index)?,
                sink,
                reason: &lost.reason,
                attempts: lost.attempts,
                first_failure_ms: unix_ms(lost.first_failure),
                dead_ms,
            })
        })
    };
    items.iter().flat_map(of)
}
