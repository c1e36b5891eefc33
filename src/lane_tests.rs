//! A lane against a sink that fails as it is told to.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::dead_letter::{Destination, LetterFile};
use crate::failure::{OnFailure, Policy};
use crate::record::{Arena, Offset, Record, Records, TopicPartition};
use crate::sink::{Progress, Stopped, Why};
use crate::ticket::{self, Ack, AckSender, Mark, Slot, Ticket};
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
    /// A write that takes none, and wants to be left alone for so long.
    Later(Duration),
    /// A write that takes so many, and never will take the next one.
    Reject(usize),
    /// A write that says that so many are safe, until it is heard, and has no more by then.
    Long(usize, Receiver<Mark>),
}

#[derive(Default)]
struct Script {
    fates: VecDeque<Fate>,
    /// What was taken since the last good flush, and what a good flush has made durable.
    taken: Vec<i64>,
    durable: Vec<i64>,
    reopened: usize,
    /// Nothing fails any more from a reopening on.
    mended_by_reopening: bool,
    /// Offsets that are always rejected.
    never: Vec<i64>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Sink for Scripted {
    fn write_with_progress(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        let mut script = self.0.lock().unwrap();
        let Some(Fate::Long(done, heard)) = script.fates.pop_front_if(|fate| matches!(fate, Fate::Long(..))) else {
            drop(script);
            return self.write(partition, records);
        };
        let until = Instant::now() + Duration::from_secs(30);
        while heard.is_empty() {
            assert!(Instant::now() < until, "nobody hears of it");
            progress.safe(done);
            thread::yield_now();
        }
        script.taken.extend(records.slice(0..done).iter().map(|record| record.offset.get()));
        Err(Stopped { done, why: Why::Retry("the script says so".to_owned()) })
    }
    fn write(&mut self, _: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let mut script = self.0.lock().unwrap();
        let all: Vec<i64> = records.iter().map(|r| r.offset.get()).collect();
        if let Some(Fate::Take(done)) = script.fates.front() {
            let done = *done;
            script.fates.pop_front();
            script.taken.extend(&all[..done]);
            return Err(Stopped { done, why: Why::Retry("the script says so".to_owned()) });
        }
        if let Some(Fate::Later(after)) = script.fates.front() {
            let after = *after;
            script.fates.pop_front();
            return Err(Stopped { done: 0, why: Why::RetryAfter("the script says so".to_owned(), after) });
        }
        if let Some(Fate::Reject(done)) = script.fates.front() {
            let done = *done;
            script.fates.pop_front();
            script.taken.extend(&all[..done]);
            return Err(Stopped { done, why: Why::Reject("no number".to_owned()) });
        }
        if let Some(at) = all.iter().position(|offset| script.never.contains(offset)) {
            script.taken.extend(&all[..at]);
            return Err(Stopped { done: at, why: Why::Reject("never".to_owned()) });
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
        let mut script = self.0.lock().unwrap();
        assert!(script.taken.is_empty(), "it is asked for between a flush and a write");
        script.reopened += 1;
        if script.mended_by_reopening {
            script.fates.clear();
        }
        Ok(())
    }
}

struct Fixture {
    sink: Scripted,
    queues: Sender<Receiver<Vec<Batch>>>,
    queue: Sender<Vec<Batch>>,
    abort: Sender<Never>,
    reopen: Sender<()>,
    acks_tx: AckSender,
    acks: Receiver<Vec<Ack>>,
    marks: Receiver<Mark>,
    stop: Sender<Never>,
    failures: Arc<Failures>,
    progress: Arc<LaneProgress>,
    thread: thread::JoinHandle<()>,
}

impl Fixture {
    fn new(fates: impl IntoIterator<Item = Fate>) -> Self {
        Self::with(fates, [], Policy::default())
    }

    fn with(fates: impl IntoIterator<Item = Fate>, never: impl IntoIterator<Item = i64>, policy: Policy) -> Self {
        Self::within(LONGEST_DELIVERY, fates, never, policy)
    }

    fn within(
        longest: Duration,
        fates: impl IntoIterator<Item = Fate>,
        never: impl IntoIterator<Item = i64>,
        policy: Policy,
    ) -> Self {
        let failures = Arc::new(Failures::default());
        failures.set_policies([(Arc::from("t"), policy)]);
        let sink = Scripted::default();
        sink.0.lock().unwrap().fates.extend(fates);
        sink.0.lock().unwrap().never.extend(never);
        let (queue, queue_rx) = bounded(10);
        let (queues, queues_rx) = bounded(2);
        queues.send(queue_rx).unwrap();
        let (abort, abort_rx) = bounded(0);
        let (reopen, reopen_rx) = bounded(1);
        let (acks_tx, ticket::AckReceiver { acks, marks }) = ticket::channel(10);
        let mut own = sink.clone();
        let busy = Arc::new(Busy::new(Instant::now()));
        let (stop, stop_rx) = bounded(0);
        let progress = Arc::new(LaneProgress::default());
        let ends = Ends {
            sink: "test".into(),
            queues: queues_rx,
            stop: stop_rx,
            abort: abort_rx,
            reopen: reopen_rx,
            busy,
            longest,
            failures: Arc::clone(&failures),
            progress: Arc::clone(&progress),
        };
        let thread = thread::spawn(move || run("test", &mut own, &ends));
        Self { sink, queues, queue, abort, reopen, acks_tx, acks, marks, stop, failures, progress, thread }
    }

    fn send(&self, seq: u64, offsets: std::ops::Range<usize>) {
        self.send_of("t", seq, offsets);
    }

    fn send_of(&self, topic: &str, seq: u64, offsets: std::ops::Range<usize>) {
        let records = Records::new(Arc::new(Numbers), offsets);
        let ticket = Ticket::new(Slot(1), seq, 0, records.clone(), self.acks_tx.clone());
        self.queue.send(vec![Batch { partition: TopicPartition::new(topic, 0), records, ticket }]).unwrap();
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
fn the_time_that_a_sink_asks_for_is_waited_unless_the_policy_allows_less() {
    let begun = Instant::now();
    let fixture = Fixture::new([Fate::Later(Duration::from_millis(400))]);
    fixture.send(0, 0..1);
    assert_eq!(fixture.ack(), (0, true));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    // Less than the lane waits anyway changes nothing.
    let begun = Instant::now();
    let policy = Policy { first: Duration::from_secs(1), ..Policy::default() };
    let fixture = Fixture::with([Fate::Later(Duration::from_millis(1))], [], policy);
    fixture.send(0, 0..1);
    assert_eq!(fixture.ack(), (0, true));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    let policy = Policy { total: Duration::from_millis(50), on_failure: OnFailure::Drop, ..Policy::default() };
    let hour = || Fate::Later(Duration::from_secs(3600));
    let fixture = Fixture::with([hour(), hour()], [], policy);
    fixture.send(0, 0..2);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [1], "the first was given up when its time was over");
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

/// At the end of a stop a sink is made to come back, by whatever means: that is no verdict on a record.
#[test]
fn what_a_sink_says_after_an_abort_gives_no_record_up() {
    let policy = Policy { attempts: 1, on_failure: OnFailure::Drop, ..Policy::default() };
    for fate in [Fate::Reject(0), Fate::Take(0)] {
        let fixture = Fixture::with([fate], [], policy);
        let script = fixture.sink.0.lock().unwrap();
        fixture.send(0, 0..2);
        while fixture.progress.get().busy.is_none() {
            thread::yield_now();
        }
        // The write waits for the script.
        drop(fixture.abort);
        drop(script);
        fixture.thread.join().unwrap();
        assert!(fixture.progress.get().given_up.is_empty());
        assert!(fixture.acks.try_iter().flatten().all(|ack| !ack.ok));
    }
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

/// A failing sink is never between a flush and a write by itself.
#[test]
fn a_sink_that_fails_is_reopened_as_well() {
    // The first write takes some, the others none; each flush that the reopening asks for fails at first.
    let fails: [fn(usize) -> Fate; 2] = [|n| Fate::Take(usize::from(n == 0)), |_| Fate::FlushFails];
    for fate in fails {
        let fixture = Fixture::new((0..100_000).map(fate));
        fixture.sink.0.lock().unwrap().mended_by_reopening = true;
        fixture.send(0, 0..4);
        while fixture.progress.get().trouble.is_none() {
            thread::yield_now();
        }
        fixture.reopen.send(()).unwrap();
        assert_eq!(fixture.ack(), (0, true));
        assert_eq!((fixture.durable(), fixture.sink.0.lock().unwrap().reopened), (vec![0, 1, 2, 3], 1));
    }
}

/// Behind a delivery in which it was reopened, what is stopped is tried again.
#[test]
fn reopening_in_the_middle_of_a_delivery_tries_again_what_is_stopped() {
    let fixture = Fixture::with([], [3], Policy::default());
    fixture.send(0, 2..5);
    while fixture.progress.get().stopped.is_empty() {
        thread::yield_now();
    }
    {
        let mut script = fixture.sink.0.lock().unwrap();
        script.never.clear();
        script.fates.extend((0..100_000).map(|_| Fate::Take(0)));
        script.mended_by_reopening = true;
    }
    fixture.send_of("u", 1, 10..12);
    while fixture.progress.get().trouble.is_none() {
        thread::yield_now();
    }
    fixture.reopen.send(()).unwrap();
    assert_eq!(fixture.ack(), (1, true));
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [2, 10, 11, 3, 4]);
}

/// What is done of a batch that takes long is told, and all that was written before it.
#[test]
fn what_a_long_write_has_done_is_marked() {
    let fixture = Fixture::new([]);
    let fates = [Fate::Take(1), Fate::Long(2, fixture.marks.clone())];
    fixture.sink.0.lock().unwrap().fates.extend(fates);
    fixture.send(0, 10..15);
    // The first write took 10, though it said nothing of it; the second one 11 and 12.
    assert_eq!(fixture.ack(), (0, true));
    let mark = fixture.marks.try_recv().unwrap();
    assert_eq!((mark.below.get(), mark.records), (13, 3));
    assert_eq!(fixture.durable(), [10, 11, 12, 13, 14]);
}

/// What was flushed before the record that stops a topic is done.
#[test]
fn what_is_before_the_record_that_stops_its_topic_is_marked() {
    let fixture = Fixture::with([], [12], Policy::default());
    fixture.send(0, 10..15);
    let mark = fixture.marks.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!((mark.below.get(), mark.records), (12, 2));
    assert_eq!(fixture.durable(), [10, 11]);
}

/// A batch is cut behind a record that was given up, so that what is before the next one can be committed; and it is not
/// gone on with before the dead letter is safe.
#[test]
fn a_batch_is_cut_where_records_are_given_up() {
    let policy = Policy { on_failure: OnFailure::Drop, ..Policy::default() };
    let fixture = Fixture::within(Duration::ZERO, [], [11, 13], policy);
    fixture.send(0, 10..15);
    assert_eq!(fixture.ack(), (0, true));
    let marks: Vec<_> = fixture.marks.try_iter().map(|mark| (mark.below.get(), mark.records)).collect();
    assert_eq!(marks, [(12, 2), (14, 4)]);
    assert_eq!(fixture.durable(), [10, 12, 14]);
}

/// Who is slow is acknowledged in between, in its order.
#[test]
fn a_long_delivery_is_cut() {
    let fixture = Fixture::within(Duration::ZERO, [Fate::Take(0)], [], Policy::default());
    let (queue, queue_rx) = bounded(1);
    // What is of one partition may be given together.
    let of = |seq, offsets| {
        let records = Records::new(Arc::new(Numbers), offsets);
        let ticket = Ticket::new(Slot(1), seq, 0, records.clone(), fixture.acks_tx.clone());
        Batch { partition: TopicPartition::new("t", i32::try_from(seq).unwrap()), records, ticket }
    };
    queue.send(vec![of(0, 0..2), of(1, 2..3), of(2, 3..5)]).unwrap();
    fixture.queues.send(queue_rx).unwrap();
    let (acks, sink) = (fixture.acks.clone(), fixture.sink.clone());
    drop((fixture.queue, fixture.queues, queue));
    fixture.thread.join().unwrap();
    let acks: Vec<Vec<u64>> = acks.try_iter().map(|acks| acks.iter().map(|ack| ack.seq).collect()).collect();
    assert_eq!(acks, [[0], [1], [2]]);
    assert_eq!(sink.0.lock().unwrap().durable, [0, 1, 2, 3, 4]);
}

/// Offsets of the dead letters in a file.
fn letters(path: &std::path::Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap();
    let offset = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_i64().unwrap();
    text.lines().map(offset).collect()
}

#[test]
fn a_record_out_of_tries_is_a_dead_letter_and_the_others_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead");
    let policy =
        Policy { attempts: 3, first: Duration::from_millis(1), on_failure: OnFailure::DeadLetter, ..Policy::default() };
    // 2 fails three times; behind it the sink gets few records at a time: 3 is taken, 4 fails twice, 5 is rejected.
    let fates = [2, 0, 0, 1, 0, 0].map(Fate::Take);
    let fixture = Fixture::with(fates, [5], policy);
    fixture.failures.set_letters(Some(Destination::File(LetterFile::open(&path).unwrap())));
    fixture.send(0, 0..8);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 1, 3, 4, 6, 7]);
    assert_eq!(letters(&path), [2, 5]);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(r#""sink":"test","reason":"the script says so","attempts":3,"#), "{text}");
    assert!(text.contains(r#""reason":"never","attempts":1,"#), "{text}");
    assert_eq!(fixture.progress.get().given_up[&Arc::from("t")], (2, 0));
}

#[test]
fn what_was_given_up_stays_so_when_the_flush_behind_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead");
    let policy = Policy { on_failure: OnFailure::DeadLetter, ..Policy::default() };
    let fixture = Fixture::with([Fate::Reject(1), Fate::FlushFails], [], policy);
    fixture.failures.set_letters(Some(Destination::File(LetterFile::open(&path).unwrap())));
    fixture.send(0, 0..3);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 2]);
    assert_eq!(letters(&path), [1]);
}

#[test]
fn no_ticket_is_done_before_its_dead_letters_are_safe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead");
    let policy = Policy { on_failure: OnFailure::DeadLetter, ..Policy::default() };
    let fixture = Fixture::with([Fate::Reject(0)], [], policy);
    // There is no place for them yet.
    fixture.send(0, 0..2);
    let failing = || fixture.progress.get().trouble.is_some_and(|why| why.what.contains("no [dead_letter]"));
    while !failing() {
        thread::yield_now();
    }
    assert!(fixture.acks.is_empty());
    fixture.failures.set_letters(Some(Destination::File(LetterFile::open(&path).unwrap())));
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!((letters(&path), fixture.durable()), (vec![0], vec![1]));
}

#[test]
fn what_is_dropped_is_counted() {
    let policy = Policy { on_failure: OnFailure::Drop, ..Policy::default() };
    let fixture = Fixture::with([], [1, 4], policy);
    fixture.send(0, 0..3);
    fixture.send(1, 3..6);
    drop((fixture.queue, fixture.queues));
    fixture.thread.join().unwrap();
    assert_eq!(fixture.sink.0.lock().unwrap().durable, [0, 2, 3, 5]);
    assert_eq!(fixture.progress.get().given_up[&Arc::from("t")], (0, 2));
    assert_eq!(fixture.acks.try_iter().flatten().filter(|ack| ack.ok).count(), 2);
}

#[test]
fn a_topic_that_stops_waits_for_a_new_try_and_others_go_on() {
    let fixture = Fixture::with([], [3], Policy::default());
    fixture.send(0, 0..2);
    assert_eq!(fixture.ack(), (0, true));
    fixture.send(1, 2..5);
    fixture.send(2, 5..6);
    fixture.send_of("u", 3, 10..12);
    assert_eq!(fixture.ack(), (3, true), "the other topic");
    assert_eq!(fixture.durable(), [0, 1, 2, 10, 11]);
    let why = fixture.progress.get().stopped[&Arc::from("t")].what.clone();
    assert_eq!(why, "partition=0 offset=3 attempts=1: never");
    // Nothing has changed: it stops at the same record, and writes none twice.
    fixture.reopen.send(()).unwrap();
    fixture.send_of("u", 4, 12..13);
    assert_eq!(fixture.ack(), (4, true));
    assert!(fixture.progress.get().stopped.contains_key("t"));
    fixture.sink.0.lock().unwrap().never.clear();
    fixture.reopen.send(()).unwrap();
    let acks: Vec<(u64, bool)> = fixture.acks.recv().unwrap().iter().map(|ack| (ack.seq, ack.ok)).collect();
    assert_eq!(acks, [(1, true), (2, true)]);
    assert_eq!(fixture.durable(), [0, 1, 2, 10, 11, 12, 3, 4, 5]);
    assert!(fixture.progress.get().stopped.is_empty());
}

#[test]
fn what_stands_before_the_record_that_stops_a_topic_is_delivered_also_if_the_flush_fails() {
    let fixture = Fixture::with([Fate::Take(1), Fate::FlushFails], [6], Policy::default());
    fixture.send(0, 0..5);
    fixture.send(1, 5..8);
    assert_eq!(fixture.ack(), (0, true));
    assert_eq!(fixture.durable(), [0, 1, 2, 3, 4, 5]);
    fixture.sink.0.lock().unwrap().never.clear();
    while fixture.progress.get().stopped.is_empty() {
        thread::yield_now();
    }
    fixture.reopen.send(()).unwrap();
    assert_eq!(fixture.ack(), (1, true));
    assert_eq!(fixture.durable(), (0..8).collect::<Vec<_>>());
}

#[test]
fn at_the_end_nothing_waits_for_an_operator() {
    let fixture = Fixture::with([], [0], Policy::default());
    fixture.send(0, 0..2);
    while fixture.progress.get().stopped.is_empty() {
        thread::yield_now();
    }
    assert!(fixture.acks.is_empty());
    drop(fixture.stop);
    let acks = fixture.acks.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!((acks[0].seq, acks[0].ok), (0, false));
}

/// Batches of two topics, records that are never taken, tries that fail and flushes that fail, in any order: what
/// arrives, what is given up and what is acknowledged is what a naive look at the policies says.
#[test]
fn any_delivery_ends_as_its_policies_say() {
    for seed in 1..=40_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as usize
        };
        let ends = [OnFailure::Stop, OnFailure::DeadLetter, OnFailure::Drop];
        let policy = |on_failure| Policy { first: Duration::from_micros(10), on_failure, ..Policy::default() };
        let on = [ends[random(3)], ends[random(3)]];
        let never: Vec<i64> = (0..40).filter(|_| random(8) == 0).collect();
        let fates: Vec<Fate> = (0..random(6)).map(|_| Fate::Take(0)).collect();
        let flushes = random(2);
        // In one delivery, or each batch in one of its own.
        let longest = [LONGEST_DELIVERY, Duration::ZERO][random(2)];
        let fixture = Fixture::within(longest, fates, never.clone(), policy(on[0]));
        fixture.sink.0.lock().unwrap().fates.extend((0..flushes).map(|_| Fate::FlushFails));
        fixture.failures.set_policies([(Arc::from("t"), policy(on[0])), (Arc::from("u"), policy(on[1]))]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead");
        fixture.failures.set_letters(Some(Destination::File(LetterFile::open(&path).unwrap())));
        // Offsets 0 to 19 are those of t, 20 to 39 those of u.
        let (mut next, mut batches) = ([0, 20], Vec::new());
        while batches.len() < 8 && (next[0] < 20 || next[1] < 40) {
            let topic = if next[0] == 20 {
                1
            } else if next[1] == 40 {
                0
            } else {
                random(2)
            };
            let end = (next[topic] + 1 + random(8)).min(20 * (topic + 1));
            fixture.send_of(["t", "u"][topic], batches.len() as u64, next[topic]..end);
            batches.push((topic, next[topic]..end));
            next[topic] = end;
        }
        let (sink, acks) = (fixture.sink.clone(), fixture.acks.clone());
        let progress = Arc::clone(&fixture.progress);
        drop((fixture.queue, fixture.queues));
        fixture.thread.join().unwrap();
        let durable = sink.0.lock().unwrap().durable.clone();
        let done: Vec<u64> = acks.try_iter().flatten().filter(|ack| ack.ok).map(|ack| ack.seq).collect();
        let mut buried = letters(&path);
        buried.sort_unstable();
        let mut expected_letters = Vec::new();
        for (topic, name) in ["t", "u"].into_iter().enumerate() {
            let all = || (20 * topic as i64)..next[topic] as i64;
            let bad: Vec<i64> = all().filter(|offset| never.contains(offset)).collect();
            let stop = bad.first().copied().filter(|_| on[topic] == OnFailure::Stop).unwrap_or(next[topic] as i64);
            let arrive: Vec<i64> = all().filter(|offset| *offset < stop && !bad.contains(offset)).collect();
            let range = 20 * topic as i64..20 * (topic as i64 + 1);
            let arrived: Vec<i64> = durable.iter().copied().filter(|offset| range.contains(offset)).collect();
            assert_eq!(arrived, arrive, "seed {seed}: {name} {:?}", on[topic]);
            let given_up = progress.get().given_up.get(name).copied().unwrap_or_default();
            let count = bad.iter().filter(|offset| **offset < stop).count() as u64;
            match on[topic] {
                OnFailure::DeadLetter => expected_letters.extend(bad),
                OnFailure::Drop => assert_eq!(given_up, (0, count), "seed {seed}"),
                OnFailure::Stop => assert_eq!(given_up, (0, 0), "seed {seed}"),
            }
            for (seq, (of, offsets)) in batches.iter().enumerate().filter(|(_, (of, _))| *of == topic) {
                let whole = offsets.end as i64 <= stop;
                assert_eq!(done.contains(&(seq as u64)), whole, "seed {seed}: batch {seq} of topic {of}");
            }
        }
        assert_eq!(buried, expected_letters, "seed {seed}");
    }
}
