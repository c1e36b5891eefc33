//! A lane against a sink that fails as it is told to.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::record::{Arena, Offset, Record, Records, TopicPartition};
use crate::sink::Stopped;
use crate::ticket::{Ack, Slot, Ticket};
use crossbeam_channel::{Sender, bounded};

struct Numbers;

impl Arena for Numbers {
    fn record(&self, index: usize) -> Record<'_> {
        Record { offset: Offset::new(index as i64).unwrap(), ..Record::default() }
    }
}

/// What happens at the next calls; then all is well.
enum Fate {
    /// A write that takes so many records.
    Take(usize),
    FlushFails,
}

#[derive(Default)]
struct Script {
    fates: VecDeque<Fate>,
    /// What was taken since the last good flush, and what a good flush has made durable.
    taken: Vec<i64>,
    durable: Vec<i64>,
    reopened: usize,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Sink for Scripted {
    fn write(&mut self, _: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let mut script = self.0.lock().unwrap();
        let all: Vec<i64> = records.iter().map(|r| r.offset.get()).collect();
        if let Some(Fate::Take(done)) = script.fates.front() {
            let done = *done;
            script.fates.pop_front();
            script.taken.extend(&all[..done]);
            return Err(Stopped { done, why: Why::Retry("the script says so".to_owned()) });
        }
        script.taken.extend(all);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), String> {
        let mut script = self.0.lock().unwrap();
        let taken = std::mem::take(&mut script.taken);
        if let Some(Fate::FlushFails) = script.fates.front() {
            script.fates.pop_front();
            return Err("the script says so".to_owned());
        }
        script.durable.extend(taken);
        Ok(())
    }
    fn reopen(&mut self) -> Result<(), String> {
        self.0.lock().unwrap().reopened += 1;
        Ok(())
    }
}

struct Fixture {
    sink: Scripted,
    queues: Sender<Receiver<Vec<Batch>>>,
    queue: Sender<Vec<Batch>>,
    abort: Sender<Never>,
    reopen: Sender<()>,
    acks_tx: Sender<Vec<Ack>>,
    acks: Receiver<Vec<Ack>>,
    thread: thread::JoinHandle<()>,
}

impl Fixture {
    fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        let sink = Scripted::default();
        sink.0.lock().unwrap().fates.extend(fates);
        let (queue, queue_rx) = bounded(10);
        let (queues, queues_rx) = bounded(2);
        queues.send(queue_rx).unwrap();
        let (abort, abort_rx) = bounded(0);
        let (reopen, reopen_rx) = bounded(1);
        let (acks_tx, acks) = bounded(10);
        let mut own = sink.clone();
        let busy = Arc::new(Busy::new(Instant::now()));
        let ends = Ends { queues: queues_rx, abort: abort_rx, reopen: reopen_rx, busy, progress: Arc::default() };
        let thread = thread::spawn(move || run("test", &mut own, &ends));
        Self { sink, queues, queue, abort, reopen, acks_tx, acks, thread }
    }

    fn send(&self, seq: u64, offsets: std::ops::Range<usize>) {
        let ticket = Ticket::new(Slot(1), seq, 0, self.acks_tx.clone());
        let records = Records::new(Arc::new(Numbers), offsets);
        self.queue.send(vec![Batch { partition: TopicPartition::new("t", 0), records, ticket }]).unwrap();
    }

    fn durable(&self) -> Vec<i64> {
        self.sink.0.lock().unwrap().durable.clone()
    }

    fn ack(&self) -> (u64, bool) {
        let acks = self.acks.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(acks.len(), 1);
        (acks[0].seq, acks[0].ok)
    }
}

#[test]
fn a_write_that_stops_goes_on_with_the_next_record() {
    let fixture = Fixture::new([Fate::Take(2), Fate::Take(0), Fate::Take(1)]);
    fixture.send(0, 0..5);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 1, 2, 3, 4]);
}

#[test]
fn after_a_failed_flush_all_of_it_is_given_again_before_it_is_acknowledged() {
    let fixture = Fixture::new([Fate::FlushFails, Fate::FlushFails]);
    fixture.send(0, 0..3);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 1, 2]);
    fixture.send(1, 3..4);
    assert_eq!(fixture.ack(), (1, true));
    assert_eq!(fixture.durable(), [0, 1, 2, 3]);
}

#[test]
fn ends_with_its_queue_and_not_before_what_is_in_it() {
    let fixture = Fixture::new([]);
    fixture.send(0, 0..2);
    fixture.send(1, 2..3);
    drop((fixture.queue, fixture.queues));
    fixture.thread.join().unwrap();
    assert_eq!(fixture.sink.0.lock().unwrap().durable, [0, 1, 2]);
    assert_eq!(fixture.acks.try_iter().flatten().filter(|ack| ack.ok).count(), 2);
}

#[test]
fn what_is_in_a_queue_comes_before_what_is_in_the_next_one() {
    let mut fixture = Fixture::new([]);
    let (next, next_rx) = bounded(20);
    fixture.queues.send(next_rx).unwrap();
    let first = std::mem::replace(&mut fixture.queue, next);
    fixture.send(1, 2..4);
    // The batch in the next queue is there already, and has to wait until the first one is let go.
    let next = std::mem::replace(&mut fixture.queue, first);
    fixture.send(0, 0..2);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 1]);
    drop((fixture.queue, next, fixture.queues));
    fixture.thread.join().unwrap();
    assert_eq!(fixture.sink.0.lock().unwrap().durable, [0, 1, 2, 3]);
}

#[test]
fn an_abort_ends_a_retry_that_would_never_end_and_acknowledges_nothing() {
    let fixture = Fixture::new(std::iter::repeat_with(|| Fate::FlushFails).take(100_000));
    fixture.send(0, 0..2);
    while !fixture.queue.is_empty() {
        thread::yield_now();
    }
    drop(fixture.abort);
    assert_eq!(fixture.acks.recv_timeout(Duration::from_secs(30)).map(|acks| acks[0].ok), Ok(false));
    fixture.thread.join().unwrap();
    assert!(fixture.sink.0.lock().unwrap().durable.is_empty());
}

#[test]
fn an_abort_ends_a_lane_that_has_nothing_to_do() {
    let fixture = Fixture::new([]);
    drop(fixture.abort);
    // Its queue is still open.
    fixture.thread.join().unwrap();
}

#[test]
fn files_are_opened_anew_when_asked() {
    let fixture = Fixture::new([]);
    fixture.reopen.send(()).unwrap();
    // The queue and the request are taken in any order; the end of the thread is behind both.
    while !fixture.reopen.is_empty() {
        thread::yield_now();
    }
    drop((fixture.queue, fixture.queues));
    fixture.thread.join().unwrap();
    assert_eq!(fixture.sink.0.lock().unwrap().reopened, 1);
}
