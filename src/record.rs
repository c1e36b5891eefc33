//! The values that travel through the worker: offsets, partitions, records.
//!
//! Owns no I/O and no policy. What always holds here:
//! - an [`Offset`] is never negative: Kafka's sentinels (-1, -2) end in the client's folder;
//! - `+ 1` on an offset is written in one place, [`Offset::next`];
//! - records are never copied one by one: [`Records`] is a window on the answer of one fetch,
//!   which stays in memory until its last window is dropped.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The number of a record in its partition. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    /// The first offset that a partition can have.
    pub const ZERO: Self = Self(0);

    /// `None` for a negative number, which is a sentinel of the protocol and no offset.
    pub const fn new(offset: i64) -> Option<Self> {
        if offset < 0 { None } else { Some(Self(offset)) }
    }

    /// The number as Kafka writes it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset behind this one: the position after this record, and the offset to commit once
    /// it is done.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// How many offsets lie from `earlier` up to here; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        if self.0 > earlier.0 { self.0.abs_diff(earlier.0) } else { 0 }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// `topic=orders partition=3`, as it stands in log lines.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic={} partition={}", self.topic, self.partition)
    }
}

/// A topic's id, which a topic that is deleted and made anew does not keep. Written as Kafka writes it,
/// in 22 characters of base64 (RFC 4648, 5: `-` and `_`, no padding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId([u8; 16]);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl TopicId {
    /// `None` for the all-zero id, which stands for none.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Reads what its `Display` wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bits: u128 = 0;
        for (place, digit) in text.bytes().enumerate() {
            let value = BASE64.iter().position(|&known| known == digit)? as u128;
            bits |= match place {
                0..=20 => value << (122 - 6 * place),
                21 if value & 15 == 0 => value >> 4,
                _ => return None,
            };
        }
        if text.len() == 22 { Self::new(bits.to_be_bytes()) } else { None }
    }
}

/// As `kafka-topics --describe` prints it.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        (0..22).try_for_each(|place| {
            // 22 digits are 132 bits: the last digit has four zero bits behind the 128.
            let digit = if place < 21 { bits >> (122 - 6 * place) } else { bits << 4 };
            BASE64.get((digit & 63) as usize).map_or(Ok(()), |&digit| write!(f, "{}", char::from(digit)))
        })
    }
}

/// One record, borrowed from the answer it came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its offset in its partition.
    pub offset: Offset,
    /// Milliseconds since 1970 (UTC), where the client's protocol carries it.
    pub timestamp_ms: Option<i64>,
    /// `None` for a null key. The `kafka` crate cannot tell null from empty: both are `None` there.
    pub key: Option<&'a [u8]>,
    /// `None` for a null value (a tombstone). The `kafka` crate cannot tell null from empty.
    pub value: Option<&'a [u8]>,
    /// Its headers; none where the client's protocol carries none.
    pub headers: Headers<'a>,
}

/// Name and value of a header; a null value is none.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// The headers of a record, in the order in which they were written. A name may be there more than once.
///
/// They are read when they are asked for: most records have none, and most sinks want none.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a> {
    arena: Option<&'a dyn Arena>,
    record: usize,
    next: usize,
}

impl<'a> Headers<'a> {
    /// Those that `arena` has for its record `record`.
    pub fn of(arena: &'a dyn Arena, record: usize) -> Self {
        Self { arena: Some(arena), record, next: 0 }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.arena?.header(self.record, self.next)?;
        self.next += 1;
        Some(header)
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// What owns the bytes of one fetch. A client implements it over its own answer type, so that no
/// record is copied and no client type is seen above the client.
pub trait Arena: Send + Sync {
    /// The record at `index`; called only with an index below the count given to [`Records::new`].
    fn record(&self, index: usize) -> Record<'_>;

    /// Header number `number` of the record at `index`, counted from 0; `None` behind the last one.
    fn header(&self, index: usize, number: usize) -> Option<Header<'_>> {
        let _ = (index, number);
        None
    }
}

/// A run of records of one partition, in ascending order of their offsets.
///
/// Cheap to clone and to cut: it holds a reference on the fetch, and a range in it.
#[derive(Clone)]
pub struct Records {
    arena: Option<Arc<dyn Arena>>,
    range: Range<usize>,
}

impl Records {
    /// The records `range` of `arena`.
    pub fn new(arena: Arc<dyn Arena>, range: Range<usize>) -> Self {
        Self { arena: Some(arena), range }
    }

    /// No records.
    pub const fn none() -> Self {
        Self { arena: None, range: 0..0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The record at `index`, counted from this run's first.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let arena = self.arena.as_deref()?;
        (index < self.len()).then(|| arena.record(self.range.start + index))
    }

    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let range = self.range.clone();
        self.arena.as_deref().into_iter().flat_map(move |arena| range.clone().map(|index| arena.record(index)))
    }

    /// The same fetch, without its first `count` records.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        self.slice(count..self.len())
    }

    /// How many of them, which are in the order of their offsets, are below `offset`.
    pub fn count_below(&self, offset: Offset) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|record| record.offset < offset) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The same fetch, but only the records `range` of this run. What lies beyond its end is left out.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let cut = |index: usize| self.range.start.saturating_add(index).min(self.range.end);
        let (start, end) = (cut(range.start), cut(range.end).max(cut(range.start)));
        Self { arena: self.arena.clone(), range: start..end }
    }
}

impl Records {
    /// The same fetch, but only the records at `indexes` of this run, in that order. Indexes beyond its end are
    /// records without anything.
    #[must_use]
    pub fn pick(&self, indexes: Box<[u32]>) -> Self {
        let range = 0..indexes.len();
        Self::new(Arc::new(Picked { of: self.clone(), indexes }), range)
    }
}

impl Records {
    /// One run of several, in their order: all of one partition, each behind the one before.
    pub fn join(runs: &[Self]) -> Self {
        let [first, rest @ ..] = runs else { return Self::none() };
        let mut whole = first.clone();
        for next in rest {
            let same = matches!((&whole.arena, &next.arena), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            if !same || whole.range.end != next.range.start {
                let mut end = 0;
                let ends: Box<[usize]> = runs
                    .iter()
                    .map(|run| {
                        end += run.len();
                        end
                    })
                    .collect();
                return Self::new(Arc::new(Joined { runs: runs.into(), ends }), 0..end);
            }
            whole.range.end = next.range.end;
        }
        whole
    }
}

/// Several runs, one behind the other.
struct Joined {
    runs: Box<[Records]>,
    /// How many records there are up to the end of each.
    ends: Box<[usize]>,
}

/// Headers are asked for where the records are.
impl Arena for Joined {
    fn record(&self, index: usize) -> Record<'_> {
        let run = self.ends.partition_point(|end| *end <= index);
        let before = run.checked_sub(1).and_then(|run| self.ends.get(run)).copied().unwrap_or(0);
        self.runs.get(run).and_then(|run| run.get(index - before)).unwrap_or_default()
    }
}

/// Some records of a run.
struct Picked {
    of: Records,
    indexes: Box<[u32]>,
}

/// Headers are asked for where the records are.
impl Arena for Picked {
    fn record(&self, index: usize) -> Record<'_> {
        self.indexes.get(index).and_then(|index| self.of.get(*index as usize)).unwrap_or_default()
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({})", self.len())
    }
}

/// Every offset in `offsets` is in `records` or does not exist: the client has proved it.
#[derive(Clone, Debug)]
pub struct Span {
    /// Where the records come from.
    pub partition: TopicPartition,
    /// From the position that was asked to the next one. Never empty.
    pub offsets: Range<Offset>,
    /// What there is to deliver; may be none (a control batch, a compacted stretch).
    pub records: Records,
    /// Bytes of memory that `records` holds, but for what was borrowed for them.
    pub bytes: usize,
    /// The high watermark that came with the answer.
    pub log_end: Option<Offset>,
}

/// A record's headers, for the tests of what reads them.
#[cfg(test)]
pub(crate) struct Written(Vec<(String, Option<Vec<u8>>)>);

#[cfg(test)]
impl Written {
    pub(crate) fn new(headers: &[Header<'_>]) -> Self {
        Self(headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect())
    }
}

#[cfg(test)]
impl Arena for Written {
    fn record(&self, index: usize) -> Record<'_> {
        Record { headers: Headers::of(self, index), ..Record::default() }
    }

    fn header(&self, _: usize, number: usize) -> Option<Header<'_>> {
        self.0.get(number).map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Numbers;
    impl Arena for Numbers {
        fn record(&self, index: usize) -> Record<'_> {
            Record { offset: Offset(index as i64), value: Some(b"v"), ..Record::default() }
        }
    }

    /// However runs are cut and joined, the records are the same.
    #[test]
    fn joined_runs_have_the_records_of_all() {
        let all = Records::new(Arc::new(Numbers), 0..10);
        let other = Records::new(Arc::new(Numbers), 10..13);
        let offsets = |records: &Records| records.iter().map(|record| record.offset.0).collect::<Vec<_>>();
        let one = Records::join(&[all.slice(0..3), all.slice(3..4), all.slice(4..10)]);
        assert_eq!((one.range.clone(), offsets(&one)), (0..10, (0..10).collect()), "it is the same window");
        let two = Records::join(&[all.slice(2..3), all.slice(5..7), other.clone()]);
        assert_eq!(offsets(&two), [2, 5, 6, 10, 11, 12]);
        assert_eq!(offsets(&two.slice(1..4)), [5, 6, 10]);
        assert_eq!(offsets(&Records::join(&[two, other.skip(2)])), [2, 5, 6, 10, 11, 12, 12]);
        assert!(Records::join(&[]).is_empty() && Records::join(&[Records::none(), Records::none()]).is_empty());
    }

    #[test]
    fn negative_numbers_are_no_offsets() {
        assert_eq!(Offset::new(-1), None);
        assert_eq!(Offset::new(0), Some(Offset::ZERO));
        assert_eq!(Offset(4).since(Offset(1)), 3);
        assert_eq!(Offset(1).since(Offset(4)), 0);
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for bytes in [[1; 16], [255; 16], *b"0123456789abcdef"] {
            let id = TopicId::new(bytes).unwrap();
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        }
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "MDEyMzQ1Njc4OWFiY2RlZgA",
            "MDEyMzQ1Njc4O+FiY2RlZg",
        ] {
            assert_eq!(TopicId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn headers_are_read_to_the_last_one_and_again() {
        let written = Written::new(&[("a", Some(b"1")), ("", None), ("a", Some(b"")), ("ü", Some(b"\xff\0"))]);
        let headers = Headers::of(&written, 0);
        let expected = [("a", Some(&b"1"[..])), ("", None), ("a", Some(b"")), ("ü", Some(b"\xff\0"))];
        assert_eq!(headers.collect::<Vec<_>>(), expected);
        assert_eq!(headers.count(), 4);
        assert!(Headers::default().next().is_none() && Headers::of(&Numbers, 0).next().is_none());
    }

    #[test]
    fn a_slice_of_a_slice_is_counted_from_its_own_start() {
        let all = Records::new(Arc::new(Numbers), 10..20);
        let part = all.slice(2..5).slice(1..9);
        assert_eq!(part.iter().map(|r| r.offset.get()).collect::<Vec<_>>(), [13, 14]);
        assert_eq!(part.get(0).map(|r| r.offset), Some(Offset(13)));
        assert!(part.get(2).is_none());
        assert!(all.slice(10..12).is_empty());
        assert_eq!(all.slice(8..usize::MAX).len(), 2);
        assert_eq!((all.skip(7).len(), all.skip(11).len()), (3, 0));
        assert_eq!(Records::none().iter().count(), 0);
    }
}
