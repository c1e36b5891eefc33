//! Sharing batches out among the lanes of a sink. Pure.
//!
//! What always holds: each record is in exactly one part; what has to stay in its order is in the parts of one lane, in
//! that order; and a batch is done when all its parts are.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use super::Order;
use crate::consumer::Batch;

/// The parts of `lanes` lanes, in their order; some of them may be empty.
pub(super) fn spread(batches: Vec<Batch>, lanes: usize, order: Order) -> Vec<Vec<Batch>> {
    if lanes <= 1 {
        return vec![batches];
    }
    let mut parts: Vec<Vec<Batch>> = (0..lanes).map(|_| Vec::new()).collect();
    for batch in batches {
        let own = lane_of(&batch.partition, lanes);
        match order {
            Order::Partition => give(&mut parts, own, batch),
            Order::Key => by_key(batch, own, &mut parts),
        }
    }
    parts
}

fn give(parts: &mut [Vec<Batch>], lane: usize, batch: Batch) {
    if let Some(part) = parts.get_mut(lane) {
        part.push(batch);
    }
}

/// The same lane for the same thing, for as long as the process lives.
fn lane_of(what: &impl Hash, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    // Less than `lanes`, which is an usize.
    (hasher.finish() % lanes as u64) as usize
}

fn by_key(batch: Batch, own: usize, parts: &mut [Vec<Batch>]) {
    let mut picked: Vec<Vec<u32>> = parts.iter().map(|_| Vec::new()).collect();
    for (index, record) in (0..).zip(batch.records.iter()) {
        let lane = record.key.map_or(own, |key| lane_of(&key, parts.len()));
        if let Some(picked) = picked.get_mut(lane) {
            picked.push(index);
        }
    }
    for (lane, indexes) in picked.into_iter().enumerate().filter(|(_, indexes)| !indexes.is_empty()) {
        let (partition, ticket) = (batch.partition.clone(), batch.ticket.share());
        let records = batch.records.pick(indexes.into_boxed_slice());
        give(parts, lane, Batch { partition, records, ticket });
    }
    // This part of it is nothing.
    batch.ticket.done();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::record::{Arena, Header, Headers, Offset, Record, Records, TopicPartition};
    use crate::ticket::{Slot, Ticket, channel};

    /// Every fifth record has no key, the others have one of seven; each has a header.
    struct Keyed(Vec<Option<[u8; 1]>>);

    impl Arena for Keyed {
        fn record(&self, index: usize) -> Record<'_> {
            let key = self.0[index].as_ref().map(|key| &key[..]);
            Record {
                offset: Offset::new(index as i64).unwrap(),
                key,
                headers: Headers::of(self, index),
                ..Record::default()
            }
        }

        fn header(&self, index: usize, number: usize) -> Option<Header<'_>> {
            (number == 0).then(|| ("key", self.0[index].as_ref().map(|key| &key[..])))
        }
    }

    #[test]
    fn each_record_comes_once_in_the_order_of_its_key_and_a_batch_is_done_with_its_last_part() {
        let keys = (0..100_u8).map(|n| (n % 5 > 0).then_some([n % 7])).collect();
        let arena: Arc<dyn Arena> = Arc::new(Keyed(keys));
        let (acks_tx, acks) = channel(10);
        let batch = |seq: u64, from: usize, to: usize| Batch {
            partition: TopicPartition::new("t", 0),
            records: Records::new(Arc::clone(&arena), from..to),
            ticket: Ticket::new(Slot(1), seq, 0, Records::none(), acks_tx.clone()),
        };
        for order in [Order::Partition, Order::Key] {
            let parts = spread(vec![batch(0, 10, 60), batch(1, 60, 100)], 4, order);
            assert_eq!(parts.len(), 4);
            let mut lanes: HashMap<Option<Vec<u8>>, usize> = HashMap::new();
            let mut seen = Vec::new();
            for (lane, part) in parts.iter().enumerate() {
                let mut last: HashMap<Option<Vec<u8>>, i64> = HashMap::new();
                for record in part.iter().flat_map(|batch| batch.records.iter()) {
                    let key = record.key.map(<[u8]>::to_vec);
                    assert_eq!(*lanes.entry(key.clone()).or_insert(lane), lane, "{key:?}");
                    let offset = record.offset.get();
                    assert!(last.insert(key, offset).is_none_or(|last| last < offset));
                    assert_eq!(record.headers.clone().next(), Some(("key", record.key)));
                    seen.push(offset);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (10..100).collect::<Vec<_>>());
            let used = parts.iter().filter(|part| !part.is_empty()).count();
            assert!(if order == Order::Key { used > 1 } else { used == 1 }, "{order:?}: {used}");
            let mut tickets: Vec<Ticket> = parts.into_iter().flatten().map(|batch| batch.ticket).collect();
            let last = tickets.pop().unwrap();
            Ticket::all_done(tickets);
            assert!(acks.acks.try_iter().flatten().count() <= 1);
            last.done();
            assert!(acks.acks.try_iter().flatten().all(|ack| ack.ok));
        }
    }
}
