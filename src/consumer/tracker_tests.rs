//! The tracker against a model that keeps every span for ever and works everything out anew.
#![allow(clippy::expect_used)]

use proptest::prelude::*;

use super::*;

fn at(offset: i64) -> Offset {
    Offset::new(offset).expect("tests use offsets from 0")
}

struct Segment {
    end: i64,
    records: u64,
    absent: u64,
    /// The batch that carries it, and whether it was acknowledged; none where there was nothing.
    batch: Option<(u64, bool)>,
    /// So many of its records, which are its first offsets, were marked.
    marked: u64,
}

impl Segment {
    fn is_done(&self) -> bool {
        self.batch.is_none_or(|(_, acked)| acked || self.marked == self.records)
    }
}

#[derive(Default)]
struct Model {
    segments: Vec<Segment>,
}

impl Model {
    fn position(&self) -> i64 {
        self.segments.last().map_or(0, |s| s.end)
    }
    fn done(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().take_while(|s| s.is_done())
    }
    /// The first that is not done, as far as it is.
    fn marked(&self) -> u64 {
        self.segments.iter().find(|s| !s.is_done()).map_or(0, |s| s.marked)
    }
    fn acknowledged(&self) -> i64 {
        self.done().last().map_or(0, |s| s.end) + self.marked() as i64
    }
    fn delivered(&self) -> u64 {
        self.done().map(|s| s.records).sum::<u64>() + self.marked()
    }
    fn open(&self) -> Vec<u64> {
        self.segments.iter().filter_map(|s| s.batch).filter(|b| !b.1).map(|b| b.0).collect()
    }
}

/// 0, 1: a batch; 2: an empty span; 3: an ack of any open batch; 4: a commit of what is due; 5: a mark.
fn run(steps: &[(u8, u8, u8)]) -> Result<(), TestCaseError> {
    let mut tracker = Tracker::start(Slot(1), Offset::ZERO, None);
    let mut model = Model::default();
    let mut committed = None;
    let mut batches = 0;
    for &(what, size, pick) in steps {
        let (records, absent) = (u64::from(size % 7), u64::from(pick % 3));
        let start = model.position();
        let end = start + (records + absent) as i64;
        match what {
            0 | 1 if records > 0 => {
                let seq = tracker.deliver(&(at(start)..at(end)), records);
                prop_assert_eq!(seq, batches);
                batches += 1;
                model.segments.push(Segment { end, records, absent, batch: Some((seq, false)), marked: 0 });
            }
            2 if absent > 0 => {
                let end = start + absent as i64;
                tracker.pass(&(at(start)..at(end)));
                model.segments.push(Segment { end, records: 0, absent, batch: None, marked: 0 });
            }
            3 => {
                let open = model.open();
                if let Some(&seq) = open.get(usize::from(pick) % open.len().max(1)) {
                    let before = model.delivered();
                    for s in &mut model.segments {
                        if let Some((n, acked)) = &mut s.batch {
                            *acked |= *n == seq;
                        }
                    }
                    prop_assert_eq!(tracker.ack(seq), model.delivered() - before);
                }
            }
            5 => {
                // Also one that comes after the ack, or says less than the one before.
                let before = model.delivered();
                let (mut start, mut mark) = (0, None);
                for s in &mut model.segments {
                    if let Some((seq, acked)) = s.batch
                        && seq == u64::from(pick) % batches.max(1)
                    {
                        let records = u64::from(size) % (s.records + 1);
                        if !acked {
                            s.marked = s.marked.max(records);
                        }
                        mark = Some((seq, at(start + records as i64), records));
                    }
                    start = s.end;
                }
                if let Some((seq, offset, records)) = mark {
                    prop_assert_eq!(tracker.mark(seq, offset, records), model.delivered() - before);
                }
            }
            4 => {
                let expected = (committed != Some(model.acknowledged())).then(|| at(model.acknowledged()));
                prop_assert_eq!(tracker.committable(), expected);
                if let Some(offset) = expected {
                    tracker.set_committed(offset);
                    committed = Some(offset.get());
                }
            }
            _ => {}
        }
        prop_assert_eq!(tracker.position(), at(model.position()));
        prop_assert_eq!(tracker.acknowledged(), at(model.acknowledged()));
        let delivered = model.delivered();
        let all: u64 = model.segments.iter().map(|s| s.records).sum();
        let absent = model.segments.iter().map(|s| s.absent).sum();
        prop_assert_eq!(tracker.sums(), Sums { delivered, in_flight: all - delivered, absent });
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_remembers_everything(
        steps in prop::collection::vec((0u8..6, any::<u8>(), any::<u8>()), 1..120),
    ) {
        run(&steps)?;
    }
}

#[test]
fn holes_behind_a_batch_are_done_with_it() {
    let mut tracker = Tracker::start(Slot(1), at(10), Some(at(10)));
    assert_eq!(tracker.committable(), None);
    let seq = tracker.deliver(&(at(10)..at(15)), 3);
    tracker.pass(&(at(15)..at(16)));
    assert_eq!(tracker.committable(), None);
    assert_eq!(tracker.ack(seq), 3);
    assert_eq!(tracker.committable(), Some(at(16)));
    assert_eq!(tracker.sums(), Sums { delivered: 3, in_flight: 0, absent: 3 });
}

#[test]
fn an_answer_to_an_older_commit_leaves_the_rest_to_be_committed() {
    let mut tracker = Tracker::start(Slot(1), at(0), None);
    let (a, b) = (tracker.deliver(&(at(0)..at(5)), 5), tracker.deliver(&(at(5)..at(9)), 4));
    tracker.ack(a);
    let asked = tracker.committable().expect("5 is acknowledged");
    tracker.ack(b);
    tracker.set_committed(asked);
    assert_eq!(tracker.committable(), Some(at(9)));
}

#[test]
#[should_panic(expected = "acknowledged twice")]
fn a_second_ack_of_a_batch_is_a_bug() {
    let mut tracker = Tracker::start(Slot(1), at(0), None);
    let seq = tracker.deliver(&(at(0)..at(5)), 5);
    tracker.ack(seq);
    tracker.ack(seq);
}

#[test]
#[should_panic(expected = "are adjacent")]
fn a_jump_is_a_bug() {
    Tracker::start(Slot(1), at(0), None).deliver(&(at(1)..at(5)), 4);
}
