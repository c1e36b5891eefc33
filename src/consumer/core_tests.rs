//! Single decisions of the core. Its life as a whole is simulated in `core_simulation.rs`.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::client::{Fault, Loss};
use crate::record::{Arena, Record};

/// A consumer of one partition that continues at offset 7, with nothing to read.
fn idle(now: Instant) -> Core {
    let policy = Policy {
        reset: AutoOffsetReset::Latest,
        on_out_of_range: OnOutOfRange::AutoOffsetReset,
        max_poll_records: 10,
        takeover_timeout: Duration::from_secs(60),
        on_takeover_timeout: OnTakeoverTimeout::Wait,
        came_later: false,
    };
    let mut core = Core::new(Settings {
        group: "g".to_owned(),
        topics: vec![("t".into(), policy)],
        pace: Pace {
            interval: Duration::from_secs(5),
            batch_size: 100,
            min_interval: Duration::from_millis(100),
            max_retries: 3,
            max_uncommitted: 0,
            retry_delay: Duration::from_secs(1),
        },
        drain_timeout: Duration::from_secs(10),
        batches: 4,
        bytes: 1000,
    });
    let seven = Offset::new(7).unwrap();
    let round = vec![Assignment {
        partition: TopicPartition::new("t", 0),
        committed: Some(seven),
        bounds: Bounds { log_start: Offset::ZERO, log_end: seven },
        remembered: None,
        is_new: false,
    }];
    core.apply(Input::Event(Event::Assigned(round)), now);
    core
}

fn committed_now(core: &Core, now: Instant) -> Option<Vec<i64>> {
    match core.next(now) {
        Action::Commit(offsets) => Some(offsets.iter().map(|(_, offset)| offset.get()).collect()),
        Action::Poll { .. } | Action::Release(_) | Action::Done => None,
    }
}

#[test]
fn what_does_not_change_is_committed_again_once_an_hour() {
    let now = Instant::now();
    let mut core = idle(now);
    assert_eq!(committed_now(&core, now), None);
    let Action::Poll { until, .. } = core.next(now) else { panic!("there is nothing to do") };
    assert_eq!(until, Some(now + REFRESH), "it asks to be woken for it");
    let later = now + REFRESH;
    assert_eq!(committed_now(&core, later), Some(vec![7]));
    core.apply(Input::CommitSent, later);
    let answer = vec![(TopicPartition::new("t", 0), Offset::new(7).unwrap())];
    core.apply(Input::Event(Event::Committed(Ok(answer))), later);
    assert_eq!(committed_now(&core, later + Duration::from_secs(60)), None);
}

#[test]
fn what_does_not_change_is_committed_at_the_end_and_is_not_insisted_on() {
    let now = Instant::now();
    let mut core = idle(now);
    core.apply(Input::Stop, now);
    assert_eq!(committed_now(&core, now), Some(vec![7]));
    core.apply(Input::CommitSent, now);
    let refused = Fault::Deadline { call: "OffsetCommit", after_ms: 1 };
    core.apply(Input::Event(Event::Committed(Err(refused))), now);
    assert!(matches!(core.next(now), Action::Done), "nothing is lost, so nothing is waited for");
}

fn read_back(core: &mut Core, found: Option<i64>, now: Instant) {
    let found = vec![(TopicPartition::new("t", 0), found.and_then(Offset::new))];
    core.apply(Input::Event(Event::ReadBack(found)), now);
}

#[test]
fn an_offset_that_the_group_has_forgotten_is_committed_again_at_once() {
    let now = Instant::now();
    let mut core = idle(now);
    read_back(&mut core, Some(7), now);
    assert_eq!(committed_now(&core, now), None, "it is as it was left");
    read_back(&mut core, None, now);
    assert_eq!(committed_now(&core, now), Some(vec![7]));
}

#[test]
fn an_offset_that_somebody_else_has_committed_is_not_set_back() {
    let now = Instant::now();
    let mut core = idle(now);
    read_back(&mut core, Some(20), now);
    assert_eq!(committed_now(&core, now + REFRESH), None, "not even by the hourly commit");
    let acknowledge = |core: &mut Core, from: i64, to: i64| {
        let (from, to) = (Offset::new(from).unwrap(), Offset::new(to).unwrap());
        let partition = TopicPartition::new("t", 0);
        let span = Span { partition, offsets: from..to, records: Records::none(), bytes: 0, log_end: None };
        core.apply(Input::Event(Event::Span(span)), now);
    };
    acknowledge(&mut core, 7, 15);
    assert_eq!(committed_now(&core, now + REFRESH), None);
    acknowledge(&mut core, 15, 21);
    assert_eq!(committed_now(&core, now + REFRESH), Some(vec![21]), "beyond it all is as ever");
}

/// Two workers on one partition commit the same offsets: the mark tells. Who has committed last finds its own mark,
/// and is not alone for that.
#[test]
fn another_worker_is_told_of_though_the_offset_is_ours() {
    let now = Instant::now();
    let mut core = idle(now);
    assert_eq!(core.shared(), None);
    let other = Event::OtherWorker(TopicPartition::new("t", 0), "host=b pid=7".to_owned());
    core.apply(Input::Event(other), now);
    read_back(&mut core, Some(7), now);
    let words = core.shared().unwrap();
    assert!(words.contains("host=b pid=7") && words.contains("topic=t partition=0"), "{words}");
    let look_after_a_commit = |core: &mut Core| {
        core.apply(Input::CommitSent, now);
        core.apply(Input::Event(Event::Committed(Ok(Vec::new()))), now);
        read_back(core, Some(7), now);
    };
    let found = |core: &mut Core| {
        let other = Event::OtherWorker(TopicPartition::new("t", 0), "host=b pid=8".to_owned());
        core.apply(Input::Event(other), now);
        read_back(core, Some(7), now);
        assert!(core.shared().unwrap().contains("pid=8"), "{:?}", core.shared());
    };
    for _ in 0..3 {
        found(&mut core);
        look_after_a_commit(&mut core);
        look_after_a_commit(&mut core);
        (0..5).for_each(|_| read_back(&mut core, Some(7), now));
        assert!(core.shared().is_some(), "between two looks it was we who committed last");
    }
    look_after_a_commit(&mut core);
    assert_eq!(core.shared(), None, "three commits of ours were left as they were");
    found(&mut core);
    (0..9).for_each(|_| read_back(&mut core, Some(7), now));
    assert!(core.shared().is_some(), "nothing is committed by anybody");
    read_back(&mut core, Some(7), now);
    assert_eq!(core.shared(), None, "not for ever");
}

#[test]
fn a_commit_of_our_own_that_lands_late_is_repaired() {
    let now = Instant::now();
    let mut core = idle(now);
    let later = now + REFRESH;
    assert_eq!(committed_now(&core, later), Some(vec![7]));
    core.apply(Input::CommitSent, later);
    let silent = Fault::Deadline { call: "OffsetCommit", after_ms: 1 };
    core.apply(Input::Event(Event::Committed(Err(silent))), later);
    let to = Offset::new(9).unwrap();
    let partition = TopicPartition::new("t", 0);
    let offsets = Offset::new(7).unwrap()..to;
    let span = Span { partition: partition.clone(), offsets, records: Records::none(), bytes: 0, log_end: None };
    core.apply(Input::Event(Event::Span(span)), later);
    let much_later = later + Duration::from_secs(60);
    assert_eq!(committed_now(&core, much_later), Some(vec![9]));
    core.apply(Input::CommitSent, much_later);
    let silent = Fault::Deadline { call: "OffsetCommit", after_ms: 1 };
    core.apply(Input::Event(Event::Committed(Err(silent))), much_later);
    read_back(&mut core, Some(9), much_later);
    assert_eq!(committed_now(&core, much_later + REFRESH / 2), None, "only its answer was missing");
    let eleven = Offset::new(11).unwrap();
    let offsets = to..eleven;
    let (to, much_later) = (eleven, much_later + Duration::from_secs(60));
    let span = Span { partition: partition.clone(), offsets, records: Records::none(), bytes: 0, log_end: None };
    core.apply(Input::Event(Event::Span(span)), much_later);
    assert_eq!(committed_now(&core, much_later), Some(vec![11]));
    core.apply(Input::CommitSent, much_later);
    core.apply(Input::Event(Event::Committed(Ok(vec![(partition, to)]))), much_later);
    read_back(&mut core, Some(7), much_later);
    assert_eq!(committed_now(&core, much_later), Some(vec![11]), "the old commit is recognized and covered");
}

fn name() -> TopicPartition {
    TopicPartition::new("t", 0)
}

struct Seven;

impl Arena for Seven {
    fn record(&self, _: usize) -> Record<'_> {
        Record { offset: Offset::new(7).unwrap(), ..Record::default() }
    }
}

/// A partition of which one batch was delivered, and is with its sink.
fn busy(now: Instant) -> (Core, Delivery) {
    let mut core = idle(now);
    let offsets = Offset::new(7).unwrap()..Offset::new(8).unwrap();
    let records = Records::new(Arc::new(Seven), 0..1);
    let span = Span { partition: name(), offsets, records, bytes: 1, log_end: None };
    let mut out = core.apply(Input::Event(Event::Span(span)), now);
    let Some(Output::Deliver(delivery)) = out.pop() else { panic!("it is delivered") };
    (core, delivery)
}

#[test]
fn what_is_taken_away_is_let_go_when_it_is_done_and_committed() {
    let now = Instant::now();
    let (mut core, delivery) = busy(now);
    core.apply(Input::Event(Event::Revoking(vec![name()])), now);
    let Action::Poll { until, .. } = core.next(now) else { panic!("it is not done") };
    assert_eq!(until, Some(now + core.settings.drain_timeout));
    let ack = Ack { slot: delivery.slot, seq: delivery.seq, bytes: delivery.bytes, ok: true };
    core.apply(Input::Ack(ack), now);
    let soon = now + core.settings.pace.min_interval;
    assert_eq!(committed_now(&core, soon), Some(vec![8]));
    core.apply(Input::CommitSent, soon);
    assert!(matches!(core.next(soon), Action::Poll { .. }), "the commit is under way");
    let answer = Ok(vec![(name(), Offset::new(8).unwrap())]);
    core.apply(Input::Event(Event::Committed(answer)), soon);
    let Action::Release(names) = core.next(soon) else { panic!("it is done") };
    core.apply(Input::Released(names), soon);
    assert!(matches!(core.next(soon), Action::Poll { .. }), "once");
}

#[test]
fn what_is_taken_away_and_not_done_in_time_is_let_go_and_not_committed_any_more() {
    let now = Instant::now();
    let (mut core, delivery) = busy(now);
    core.apply(Input::Event(Event::Revoking(vec![name()])), now);
    let late = now + core.settings.drain_timeout;
    let Action::Release(names) = core.next(late) else { panic!("its time is up") };
    core.apply(Input::Released(names), late);
    let ack = Ack { slot: delivery.slot, seq: delivery.seq, bytes: delivery.bytes, ok: true };
    core.apply(Input::Ack(ack), late);
    assert_eq!(core.batches_in_flight(), 0);
    assert_eq!(committed_now(&core, late + REFRESH), None, "it is another member's");
}

#[test]
fn what_another_member_has_is_not_committed_even_at_the_end() {
    let now = Instant::now();
    let (mut core, delivery) = busy(now);
    core.apply(Input::Stop, now);
    core.apply(Input::Event(Event::Lost(vec![name()], Loss::LeftGroup)), now);
    let ack = Ack { slot: delivery.slot, seq: delivery.seq, bytes: delivery.bytes, ok: true };
    core.apply(Input::Ack(ack), now);
    assert!(matches!(core.next(now), Action::Done));
}
