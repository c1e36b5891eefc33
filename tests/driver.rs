//! The consumer's thread, driven by a scripted client over a log: what it hands over, what it commits,
//! and how it ends. The test stands where dispatcher and sink would.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use broker::scripted::{Mishap, Scripted, Stage};
use broker::{Codec, Log, NewRecord};
use crossbeam_channel::{Receiver, Sender, bounded};
use worker::client::Fault;
use worker::consumer::core::{Policy, Settings};
use worker::consumer::resolve::{AutoOffsetReset, OnOutOfRange, OnTakeoverTimeout};
use worker::consumer::schedule::Pace;
use worker::consumer::{Batch, Ends, Flight, Never, Notice, Report, run};
use worker::progress::{Phase, Progress, State};
use worker::record::TopicPartition;

use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
const MS: Duration = Duration::from_millis(1);

struct Consumer {
    groups: Receiver<Vec<Batch>>,
    /// The rest of the last group.
    batches: VecDeque<Batch>,
    notices: Receiver<Notice>,
    stop: Sender<Never>,
    retire: Sender<Never>,
    flight: Flight,
    thread: JoinHandle<Vec<Report>>,
}

impl Consumer {
    fn start(mut client: Scripted) -> Self {
        let policy = Policy {
            reset: AutoOffsetReset::Earliest,
            on_out_of_range: OnOutOfRange::Earliest,
            max_poll_records: 10,
            takeover_timeout: PATIENCE,
            on_takeover_timeout: OnTakeoverTimeout::Wait,
            came_later: false,
        };
        let settings = Settings {
            group: "g".to_owned(),
            topics: vec![("t".into(), policy)],
            pace: Pace {
                interval: MS,
                batch_size: 1,
                min_interval: MS,
                max_retries: 0,
                retry_delay: MS,
                max_uncommitted: 0,
            },
            drain_timeout: PATIENCE,
            batches: 8,
            bytes: 1 << 20,
        };
        let (deliveries, groups) = bounded(64);
        let (notices_tx, notices) = bounded(64);
        let (stop, stop_rx) = bounded(0);
        let (retire, retired) = bounded(0);
        let acks = worker::ticket::channel(settings.batches);
        let progress = Arc::new(Progress::new(0, Instant::now(), Arc::default()));
        let flight = Flight { acks: acks.1.acks.clone(), progress: Arc::clone(&progress) };
        let ends =
            Ends { deliveries, stop: stop_rx, retired, notices: notices_tx, ledger: Arc::default(), acks, progress };
        let thread = std::thread::spawn(move || run(settings, &mut client, &ends));
        Self { groups, batches: VecDeque::new(), notices, stop, retire, flight, thread }
    }

    fn batch(&mut self) -> (Vec<i64>, Batch) {
        if self.batches.is_empty() {
            self.batches.extend(self.groups.recv_timeout(PATIENCE).expect("a batch comes"));
        }
        let batch = self.batches.pop_front().expect("a group is never empty");
        (batch.records.iter().map(|record| record.offset.get()).collect(), batch)
    }

    /// Stops it; what is still handed over is not delivered.
    fn end(self) -> Report {
        drop(self.stop);
        drop((self.groups, self.batches));
        let mut reports = self.thread.join().unwrap();
        assert_eq!(reports.len(), 1);
        reports.pop().unwrap()
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn append(log: &mut Log, count: usize) {
    let record = |n: usize| NewRecord { key: None, value: Some(vec![n as u8]), timestamp_ms: 0 };
    log.append((0..count).map(record), Codec::None);
}

fn stage(records: usize) -> (Stage, Scripted) {
    let mut log = Log::starting_at(0);
    append(&mut log, records);
    Stage::new([(partition(), log)])
}

/// Waits until the last commit is `offset`.
fn await_commit(stage: &Stage, offset: i64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while stage.commits().last() != Some(&(partition(), offset)) {
        assert!(std::time::Instant::now() < deadline, "{offset} is not committed: {:?}", stage.commits());
        std::thread::yield_now();
    }
}

#[test]
fn the_first_position_is_committed_before_the_first_record_is_handed_over() {
    let (stage, client) = stage(5);
    let mut consumer = Consumer::start(client);
    let (offsets, batch) = consumer.batch();
    assert_eq!(stage.commits(), [(partition(), 0)]);
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert!(matches!(consumer.notices.recv_timeout(PATIENCE), Ok(Notice::Started { .. })));
    batch.ticket.done();
    await_commit(&stage, 5);
    let report = consumer.end();
    assert_eq!((report.delivered, report.in_flight, report.committed), (5, 0, Some(5)));
}

#[test]
fn what_is_done_out_of_order_is_committed_up_to_the_first_that_is_not() {
    let (stage, client) = stage(30);
    let mut consumer = Consumer::start(client);
    let ((_, first), (_, second), (offsets, third)) = (consumer.batch(), consumer.batch(), consumer.batch());
    assert_eq!(offsets, (20..30).collect::<Vec<_>>());
    third.ticket.done();
    first.ticket.done();
    await_commit(&stage, 10);
    second.ticket.done();
    await_commit(&stage, 30);
    assert_eq!(consumer.end().committed, Some(30));
}

#[test]
fn a_batch_that_is_given_up_comes_again_with_all_that_follows_it() {
    let (stage, client) = stage(30);
    let mut consumer = Consumer::start(client);
    let ((_, first), (_, second), (_, third)) = (consumer.batch(), consumer.batch(), consumer.batch());
    first.ticket.done();
    drop(second);
    // The third belongs to a place that was left: its success means nothing any more.
    third.ticket.done();
    let (again, batch) = consumer.batch();
    assert_eq!(again, (10..20).collect::<Vec<_>>());
    batch.ticket.done();
    let (again, batch) = consumer.batch();
    assert_eq!(again, (20..30).collect::<Vec<_>>());
    batch.ticket.done();
    await_commit(&stage, 30);
    assert_eq!(consumer.end().delivered, 30);
}

#[test]
fn neither_a_client_in_trouble_nor_a_refused_commit_stops_the_delivery() {
    let (stage, client) = stage(5);
    let mut consumer = Consumer::start(client);
    let (_, batch) = consumer.batch();
    stage.order(Mishap::Commit(Fault::Refused { call: "OffsetCommit", code: "NotCoordinator".to_owned() }));
    stage.order(Mishap::Poll(Fault::NoLeader));
    batch.ticket.done();
    stage.with_log(&partition(), |log| append(log, 3));
    let (offsets, batch) = consumer.batch();
    assert_eq!(offsets, [5, 6, 7]);
    batch.ticket.done();
    await_commit(&stage, 8);
    assert_eq!(stage.outstanding(), 0, "both have happened");
    assert_eq!(consumer.end().committed, Some(8));
}

#[test]
fn a_stop_waits_for_what_was_handed_over_and_commits_it() {
    let (stage, client) = stage(5);
    let mut consumer = Consumer::start(client);
    let (_, batch) = consumer.batch();
    drop(consumer.stop);
    assert!(!consumer.thread.is_finished());
    batch.ticket.done();
    let report = consumer.thread.join().unwrap().pop().unwrap();
    assert_eq!((report.delivered, report.committed), (5, Some(5)));
    assert_eq!(stage.commits().last(), Some(&(partition(), 5)));
}

#[test]
fn without_anybody_to_deliver_to_it_ends_and_commits_nothing_more() {
    let (stage, client) = stage(0);
    let consumer = Consumer::start(client);
    assert!(matches!(consumer.notices.recv_timeout(PATIENCE), Ok(Notice::Started { .. })));
    drop(consumer.groups);
    stage.with_log(&partition(), |log| append(log, 5));
    let report = consumer.thread.join().unwrap().pop().unwrap();
    assert_eq!((report.delivered, report.committed), (0, Some(0)));
    assert!(stage.commits().iter().all(|(_, offset)| *offset == 0));
    drop(consumer.stop);
}

#[test]
fn a_position_below_the_log_start_goes_on_at_the_log_start() {
    let (stage, client) = stage(20);
    stage.set_committed(&partition(), 3);
    stage.with_log(&partition(), |log| log.delete_records(8));
    let mut consumer = Consumer::start(client);
    let (offsets, batch) = consumer.batch();
    assert_eq!(offsets.first(), Some(&8));
    batch.ticket.done();
    consumer.batch().1.ticket.done();
    await_commit(&stage, 20);
    assert_eq!(consumer.end().expired, 5);
}

#[test]
fn how_far_it_is_is_told_while_it_works() {
    let (_stage, client) = stage(30);
    let mut consumer = Consumer::start(client);
    let (_, first) = consumer.batch();
    let part = || consumer.flight.progress.snapshot().part(&partition()).cloned();
    eventually("what is in flight is told", || part().is_some_and(|part| part.report.in_flight == 30));
    assert_eq!((part().unwrap().state, consumer.flight.progress.batches()), (State::Reading, 3));
    first.ticket.done();
    eventually("what is done is told", || part().is_some_and(|part| part.report.delivered == 10));
    assert_eq!(part().unwrap().acknowledged.map(|at| at.get()), Some(10));
    eventually("it waits", || consumer.flight.progress.snapshot().phase.what == Phase::Waiting);
    consumer.end();
}

#[test]
fn the_next_run_begins_when_what_the_panicked_one_handed_over_is_done() {
    let (stage, client) = stage(5);
    let mut consumer = Consumer::start(client);
    let (_, batch) = consumer.batch();
    stage.order(Mishap::Panic("ordered by a test"));
    assert!(consumer.thread.join().is_err());
    let earlier = consumer.flight;
    assert_eq!(earlier.progress.reports()[0].in_flight, 5);

    let (deliveries, _groups) = bounded(64);
    let ((_stop, stop), (_retire, retired), (notices, _)) = (bounded(0), bounded(0), bounded(64));
    let progress = Arc::new(Progress::new(1, Instant::now(), Arc::default()));
    let ends = Ends {
        deliveries,
        stop,
        retired,
        notices,
        ledger: Arc::default(),
        acks: worker::ticket::channel(8),
        progress: Arc::clone(&progress),
    };
    let settling = std::thread::spawn(move || earlier.settle(&ends.progress, &ends.stop, &ends.retired));
    eventually("it waits", || progress.snapshot().phase.what == Phase::Settling);
    assert!(!settling.is_finished());
    batch.ticket.done();
    assert!(settling.join().unwrap());
}

#[test]
fn a_run_that_is_given_up_delivers_and_commits_nothing_more() {
    let (stage, client) = stage(5);
    let mut consumer = Consumer::start(client);
    let (_, batch) = consumer.batch();
    let (release, until) = bounded(0);
    stage.order(Mishap::Hang(until));
    eventually("it hangs", || stage.outstanding() == 0);
    batch.ticket.done();
    stage.with_log(&partition(), |log| append(log, 3));
    drop(consumer.retire);
    drop(release);
    consumer.thread.join().unwrap();
    assert!(consumer.groups.is_empty());
    assert_eq!(stage.commits(), [(partition(), 0)]);
    drop(consumer.stop);
}
