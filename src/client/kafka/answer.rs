//! What one partition's part of a fetch holds, without copying a record.

use std::sync::Arc;

use kafka::client::fetch::{Message, Response};

use crate::memory::{Answer, Loan};
use crate::record::{Arena, Headers, Offset, Record, Records};

/// What the crate needs in memory for each record beside its bytes: an offset and two slices.
const MESSAGE: usize = size_of::<Message<'static>>();
/// What the old message format puts around each record's key and value, in bytes (message format 0:
/// offset 8, size 4, checksum 4, magic 1, attributes 1, two lengths of 4).
const OVERHEAD: usize = 26;

/// Records from `first` on, in ascending order. All that exists from `first` to `last` is here: an
/// answer has gaps at its beginning only, never inside.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) first: Offset,
    pub(super) last: Offset,
    pub(super) records: Records,
    /// Bytes of memory it holds.
    pub(super) bytes: usize,
    /// How many of them the reserve has lent.
    pub(super) lent: usize,
    /// Bytes it had in the old message format, uncompressed.
    pub(super) used: usize,
}

/// The messages `kept` of one partition of a response.
struct Messages {
    response: Arc<Response>,
    topic: usize,
    partition: usize,
    kept: Kept,
    /// Given back when nobody has a record of it any more.
    _payment: Payment,
}

/// What pays for the memory of an answer.
pub(super) struct Payment {
    /// The consumer's share, for all that came with the same answer.
    pub(super) held: Arc<Answer>,
    /// The reserve.
    pub(super) loan: Option<Loan>,
}

/// Which messages of the crate's list count.
enum Kept {
    /// All from this one on.
    From(usize),
    /// These: the list was not ascending.
    These(Vec<usize>),
}

fn messages(response: &Response, topic: usize, partition: usize) -> &[Message<'_>] {
    let part = response.topics().get(topic).and_then(|t| t.partitions().get(partition));
    part.and_then(|p| p.data().ok()).map_or(&[], |data| data.messages())
}

/// The crate cannot tell null from empty, and null is what is meant nearly always.
fn some(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}

impl Arena for Messages {
    fn record(&self, index: usize) -> Record<'_> {
        let index = match &self.kept {
            Kept::From(first) => first + index,
            Kept::These(list) => list[index],
        };
        let message = &messages(&self.response, self.topic, self.partition)[index];
        Record {
            // Negative ones were left out when the run was made.
            offset: Offset::new(message.offset).unwrap_or_default(),
            timestamp_ms: None,
            key: some(message.key),
            value: some(message.value),
            // Message format 1 and older, which this client asks for, has none.
            headers: Headers::default(),
        }
    }
}

/// The run that begins at or behind `position` in one partition of `response`; `None` if there is
/// no such record. `asked` is how many bytes were asked for.
///
/// A fetch may answer records below the position (it starts at a batch's beginning), and one that
/// begins at a control batch carries the first data batch twice: what is not above the one before
/// it is left out.
pub(super) fn run(
    response: &Arc<Response>,
    topic: usize,
    partition: usize,
    position: Offset,
    asked: usize,
    payment: Payment,
) -> Option<Run> {
    let all = messages(response, topic, partition);
    let begin = all.iter().position(|m| m.offset >= position.get())?;
    let mut expected = position.get();
    let mut payload = 0;
    let mut ascending = true;
    for message in &all[begin..] {
        if message.offset < expected {
            ascending = false;
            break;
        }
        expected = message.offset.saturating_add(1);
        payload += message.key.len() + message.value.len();
    }
    let (kept, count) = if ascending {
        (Kept::From(begin), all.len() - begin)
    } else {
        let list = ascending_indexes(all, position);
        payload = list.iter().map(|&i| all[i].key.len() + all[i].value.len()).sum();
        let count = list.len();
        (Kept::These(list), count)
    };
    let used = payload + count * OVERHEAD;
    let bounds = |kept: &Kept| match kept {
        Kept::From(first) => Some((all.get(*first)?.offset, all.last()?.offset)),
        Kept::These(list) => Some((all.get(*list.first()?)?.offset, all.get(*list.last()?)?.offset)),
    };
    let (first, last) = bounds(&kept)?;
    // The crate's list grows by doubling, so its capacity is the next power of two.
    let lists = all.len().next_power_of_two().max(4) * MESSAGE;
    // The answer as it came stays in memory beside what was unpacked from it.
    let raw = if used > asked { asked.saturating_add(used) } else { used };
    let bytes = raw + lists;
    let lent = payment.loan.as_ref().map_or(0, Loan::bytes).min(bytes);
    payment.held.add(bytes - lent);
    let arena = Messages { response: Arc::clone(response), topic, partition, kept, _payment: payment };
    Some(Run {
        first: Offset::new(first)?,
        last: Offset::new(last)?,
        records: Records::new(Arc::new(arena), 0..count),
        bytes,
        lent,
        used,
    })
}

fn ascending_indexes(all: &[Message<'_>], position: Offset) -> Vec<usize> {
    let mut expected = position.get();
    let mut list = Vec::with_capacity(all.len());
    for (index, message) in all.iter().enumerate() {
        if message.offset >= expected {
            expected = message.offset.saturating_add(1);
            list.push(index);
        }
    }
    list
}
