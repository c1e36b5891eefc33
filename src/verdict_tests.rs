#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::client::Call;
use crate::consumer::Report;
use crate::progress::Since;
use crate::record::TopicPartition;

const S: Duration = Duration::from_secs(1);
/// How long lies between the samples of these tests.
const STILL: Duration = Duration::from_secs(300);

fn offset(number: i64) -> Offset {
    Offset::new(number).unwrap()
}

fn seen(log_start: i64, log_end: i64, committed: Option<i64>) -> Seen {
    let bounds = Bounds { log_start: offset(log_start), log_end: offset(log_end) };
    Seen { bounds, committed: committed.map(offset), last_stable: None }
}

#[test]
fn what_waits_for_an_open_transaction_counts_as_lag_and_is_not_readable() {
    let open = |stable| Seen { last_stable: Some(offset(stable)), ..seen(2, 20, Some(10)) };
    let told = [5, 10, 15, 20, 25].map(|stable| (open(stable).lag(), open(stable).readable()));
    assert_eq!(told, [0, 0, 5, 10, 10].map(|readable| (Some(10), readable)));
}

/// Two samples, the second one now, and a consumer that waits with nothing to tell.
struct Case {
    earlier: Sample,
    now: Sample,
    consumer: Snapshot,
    part: PartProgress,
    lane: LaneState,
}

impl Case {
    fn new(earlier: Seen, now: Seen) -> Self {
        // An instant from which all others can be subtracted.
        let at = Instant::now() + STILL * 2;
        let partition = TopicPartition::new("t", 0);
        let report = Report { partition, delivered: 0, in_flight: 0, expired: 0, reset: 0, committed: None };
        Self {
            earlier: Sample { at: at - STILL, seen: Ok(earlier) },
            now: Sample { at, seen: Ok(now) },
            consumer: Snapshot {
                shared: None,
                phase: Since { what: Phase::Waiting, since: at - S },
                trouble: None,
                commit: None,
                full: None,
                call: None,
                parts: Vec::new(),
                faults: Vec::new(),
            },
            part: PartProgress {
                report,
                state: State::Reading,
                position: Some(offset(5)),
                acknowledged: Some(offset(5)),
                moved: None,
                unacknowledged: None,
                fault: None,
            },
            lane: LaneState::default(),
        }
    }

    /// Nothing has moved in a log from 0 to 10, of which 5 are committed.
    fn still() -> Self {
        Self::new(seen(0, 10, Some(5)), seen(0, 10, Some(5)))
    }

    fn ago(&self, seconds: u32) -> Instant {
        self.now.at - S * seconds
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn verdict(&self) -> Verdict {
        let Self { consumer, part, lane, .. } = self;
        verdict(&self.earlier, &self.now, Some(&View { consumer, part: Some(part), sink: "out", lane, stopped: None }))
    }

    #[track_caller]
    fn reason(&self) -> Reason {
        match self.verdict() {
            Verdict::Stalled { readable: 5, still: STILL, reason } => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn pace(readable: u64, before: u64, consumed: u64) -> Pace {
    Pace { readable, before, consumed, within: STILL }
}

#[test]
fn lag_readable_and_expired_in_the_words_of_kafka() {
    // log start, log end, committed: LAG, READABLE, EXPIRED
    let table = [
        ((0, 10, Some(4)), (Some(6), 6, 0)),
        ((0, 10, Some(10)), (Some(0), 0, 0)),
        ((0, 10, None), (None, 10, 0)),
        ((7, 10, Some(4)), (Some(6), 3, 3)),
        ((7, 10, None), (None, 3, 0)),
        ((10, 10, Some(4)), (Some(6), 0, 6)),
        ((0, 10, Some(12)), (Some(-2), 0, 0)),
        ((0, 0, None), (None, 0, 0)),
    ];
    for ((start, end, committed), expected) in table {
        let seen = seen(start, end, committed);
        assert_eq!((seen.lag(), seen.readable(), seen.expired()), expected, "{seen:?}");
    }
}

#[test]
fn what_two_samples_mean_without_a_consumer() {
    let stalled = Verdict::Stalled { readable: 5, still: STILL, reason: Reason::Unexplained };
    let bounds = Bounds { log_start: offset(7), log_end: offset(10) };
    let table = [
        (seen(0, 10, Some(10)), seen(0, 10, Some(10)), Verdict::Idle),
        (seen(0, 8, Some(8)), seen(0, 12, Some(12)), Verdict::Idle),
        (seen(0, 0, None), seen(0, 0, None), Verdict::Empty),
        (seen(0, 9, Some(9)), seen(9, 9, Some(9)), Verdict::Empty),
        (seen(0, 10, Some(5)), seen(0, 10, Some(5)), stalled.clone()),
        (seen(0, 8, Some(5)), seen(0, 10, Some(5)), stalled),
        (seen(0, 10, Some(2)), seen(0, 10, Some(5)), Verdict::CatchingUp(pace(5, 8, 3))),
        (seen(0, 10, Some(2)), seen(0, 13, Some(5)), Verdict::CatchingUp(pace(8, 8, 3))),
        (seen(0, 10, Some(2)), seen(0, 20, Some(5)), Verdict::FallingBack(pace(15, 8, 3))),
        // All of it was written since: nobody can be blamed yet.
        (seen(0, 5, Some(5)), seen(0, 10, Some(5)), Verdict::FallingBack(pace(5, 0, 0))),
        // Set back by an operator: it has moved.
        (seen(0, 10, Some(8)), seen(0, 10, Some(5)), Verdict::FallingBack(pace(5, 2, 0))),
        (seen(7, 10, Some(4)), seen(7, 10, Some(4)), Verdict::OutOfRange { committed: offset(4), bounds }),
        (seen(7, 10, Some(12)), seen(7, 10, Some(12)), Verdict::OutOfRange { committed: offset(12), bounds }),
    ];
    for (earlier, now, expected) in table {
        let case = Case::new(earlier, now);
        assert_eq!(verdict(&case.earlier, &case.now, None), expected, "{earlier:?} {now:?}");
    }
}

#[test]
fn a_cluster_that_does_not_say_is_no_stall() {
    let missing = Fault::TopicMissing { topic: "t".to_owned() };
    assert_eq!(Case::still().with(|c| c.now.seen = Err(missing)).verdict(), Verdict::Missing);
    let unknown = Case::still().with(|c| c.now.seen = Err(Fault::NoLeader));
    assert_eq!(unknown.verdict(), Verdict::Unknown(Fault::NoLeader));
}

#[test]
fn what_the_consumer_delivers_is_progress_also_before_it_is_committed() {
    let moved = Case::still().with(|c| c.part.moved = Some(c.ago(100)));
    assert_eq!(moved.verdict(), Verdict::CatchingUp(pace(5, 5, 0)));
    let long_ago = Case::still().with(|c| c.part.moved = Some(c.ago(301)));
    assert_eq!(long_ago.reason(), Reason::Unexplained);
}

#[test]
fn all_delivered_and_not_committed_is_no_stall() {
    let done = Case::still().with(|c| c.part.acknowledged = Some(offset(10)));
    assert_eq!(done.verdict(), Verdict::Uncommitted { readable: 5, fault: None });
    let fault =
        Fault::GroupHasMembers { group: "g".to_owned(), code: "UnknownMemberId".to_owned(), members: Vec::new() };
    let failing = done.with(|c| c.consumer.commit = Some(Since { what: fault.clone(), since: c.ago(9) }));
    assert_eq!(failing.verdict(), Verdict::Uncommitted { readable: 5, fault: Some(fault) });
}

#[test]
fn the_reason_that_explains_most_comes_first_and_only_the_consumers_own_ask_for_a_new_run() {
    let since = |case: &Case, what: Fault, ago| Some(Since { what, since: case.ago(ago) });
    let phase = |case: &Case, what, ago| Since { what, since: case.ago(ago) };
    let late = || Fault::Deadline { call: "Fetch", after_ms: 1 };
    // From what explains least to what explains most, each on top of those before it.
    let mut case = Case::still();
    let mut check = |change: &dyn Fn(&mut Case), expected: Reason, own: bool| {
        change(&mut case);
        assert_eq!(case.reason(), expected);
        assert_eq!(expected.is_consumers_own(), own, "{expected}");
    };
    check(&|_| {}, Reason::Unexplained, true);
    check(&|c| c.consumer.call = Some(Call { what: "Fetch", since: c.ago(1) }), Reason::Unexplained, true);
    check(&|c| c.consumer.call = Some(Call { what: "Fetch", since: c.ago(200) }), Reason::Call("Fetch", S * 200), true);
    check(&|c| c.consumer.trouble = since(c, late(), 90), Reason::Trouble(late(), S * 90), true);
    let refused = || Fault::Unreachable { broker: "b:1".to_owned(), why: "refused".to_owned(), advertised: false };
    check(&|c| c.consumer.trouble = since(c, refused(), 80), Reason::Trouble(refused(), S * 80), false);
    let sink = |waiting, by_others, error: Option<&str>| Reason::Sink {
        sink: "out".to_owned(),
        waiting,
        by_others,
        error: error.map(str::to_owned),
    };
    check(&|c| c.consumer.full = Some(c.ago(250)), sink(S * 250, true, None), false);
    check(&|c| c.part.fault = since(c, Fault::NoLeader, 60), Reason::Failing(Fault::NoLeader, S * 60), false);
    check(&|c| c.part.unacknowledged = Some(c.ago(299)), Reason::Dispatcher(S * 299), false);
    check(&|c| c.lane.busy = Some(c.ago(1)), sink(S * 299, false, None), false);
    check(
        &|c| c.lane.trouble = Some(Since { what: "disk full".to_owned(), since: c.ago(200) }),
        sink(S * 299, false, Some("disk full")),
        false,
    );
    check(&|c| c.part.state = State::Stopped(offset(3)), Reason::Stopped(offset(3)), false);
    check(&|c| c.part.state = State::Held, Reason::Held(None), false);
    check(&|c| c.consumer.commit = since(c, Fault::NoLeader, 1), Reason::Held(Some(Fault::NoLeader)), false);
    check(&|c| c.consumer.phase = phase(c, Phase::Settling, 100), Reason::Settling(S * 100), false);
    let thread = |phase, lasts| Reason::Thread(phase, lasts);
    check(&|c| c.consumer.phase = phase(c, Phase::HandingOver, 200), thread(Phase::HandingOver, S * 200), true);
    check(&|c| c.consumer.phase = phase(c, Phase::Working, 160), thread(Phase::Working, S * 160), true);
}

#[test]
fn a_partition_that_the_consumer_does_not_know_yet_waits_for_its_survey() {
    let case = Case::still();
    let Case { consumer, lane, .. } = &case;
    let view = View { consumer, part: None, sink: "out", lane, stopped: None };
    match verdict(&case.earlier, &case.now, Some(&view)) {
        Verdict::Stalled { reason: reason @ Reason::NotAssigned, .. } => assert!(!reason.is_consumers_own()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_operator_reads_what_it_rests_on() {
    let fails = Case::still()
        .with(|c| c.part.unacknowledged = Some(c.ago(299)))
        .with(|c| c.lane.trouble = Some(Since { what: "disk full".to_owned(), since: c.ago(200) }));
    assert_eq!(
        fails.verdict().to_string(),
        "stalled: readable=5 no_progress_ms=300000 \
         reason=\"its records have waited 299000 ms for sink out, which fails: disk full\""
    );
    let falls = Case::new(seen(0, 10, Some(2)), seen(0, 20, Some(5))).with(|c| c.part.moved = Some(c.ago(1)));
    assert_eq!(
        falls.verdict().to_string(),
        "behind and falling back: readable=15 before=8 consumed=3 within_ms=300000"
    );
}

#[test]
fn delivered_and_not_committed_is_not_read_too_slowly() {
    let fault = Fault::GroupHasMembers { group: "g".to_owned(), code: "c".to_owned(), members: Vec::new() };
    let case = Case::new(seen(0, 10, Some(2)), seen(0, 20, Some(2)))
        .with(|c| c.part.moved = Some(c.ago(1)))
        .with(|c| c.part.acknowledged = Some(offset(19)));
    assert_eq!(case.verdict(), Verdict::FallingBack(pace(18, 8, 0)), "a commit is due");
    let failing = case.with(|c| c.consumer.commit = Some(Since { what: fault.clone(), since: c.ago(9) }));
    assert_eq!(failing.verdict(), Verdict::Uncommitted { readable: 18, fault: Some(fault) });
    let stands = failing.with(|c| c.part.moved = None);
    assert!(matches!(stands.verdict(), Verdict::Stalled { readable: 1, .. }), "one is not delivered");
}

#[test]
fn a_steady_topic_is_not_falling_back() {
    let steady = |consumed: i64| Case::new(seen(0, 1_000, Some(999)), seen(0, 1_050 + consumed, Some(999 + consumed)));
    let judged = |consumed: i64| {
        let case = steady(consumed);
        verdict(&case.earlier, &case.now, None)
    };
    assert!(matches!(judged(300_000), Verdict::CatchingUp(_)), "51 of 1000 a second");
    assert!(matches!(judged(300), Verdict::FallingBack(_)), "51 of 1 a second");
}

#[test]
fn how_far_behind_is_said_in_time() {
    assert_eq!(pace(600, 0, 300).behind(), Some(STILL * 2));
    assert_eq!(pace(600, 0, 0).behind(), None);
}

proptest! {
    #[test]
    fn a_stall_is_what_could_have_moved_and_did_not(
        start in 0i64..50, length in 0i64..50, committed in proptest::option::of(0i64..120),
        start_2 in 0i64..50, length_2 in 0i64..50, committed_2 in proptest::option::of(0i64..120),
        moved in proptest::option::of(0u32..600), acknowledged in proptest::option::of(0i64..120),
    ) {
        let (earlier, now) = (seen(start, start + length, committed), seen(start_2, start_2 + length_2, committed_2));
        let case = Case::new(earlier, now).with(|c| {
            c.part.moved = moved.map(|ago| c.ago(ago));
            c.part.acknowledged = acknowledged.map(offset);
        });
        // READABLE, counted one by one.
        let from = committed_2.unwrap_or(0);
        let left = |from: i64| (start_2..start_2 + length_2).filter(|at| *at >= from).count() as u64;
        prop_assert_eq!(now.readable(), left(from));
        prop_assert_eq!(now.expired(), (from..start_2).filter(|_| committed_2.is_some()).count() as u64);
        // Commits alone are no progress of a consumer that is known: they trail what it delivers.
        let has_moved = moved.is_some_and(|ago| ago < 300);
        let delivered = acknowledged.is_some_and(|done| left(done) == 0);
        match case.verdict() {
            Verdict::Idle => prop_assert!(left(from) == 0 && length_2 > 0),
            Verdict::Empty => prop_assert!(left(from) == 0 && length_2 == 0),
            Verdict::Uncommitted { readable, .. } => prop_assert!(readable == left(from) && readable > 0 && delivered),
            Verdict::Stalled { readable, still, .. } => {
                prop_assert!(!has_moved && !delivered && earlier.readable() > 0);
                let not_delivered = acknowledged.map_or(left(from), |done| left(done).min(left(from)));
                prop_assert_eq!((readable, still), (not_delivered, STILL));
            }
            Verdict::CatchingUp(pace) => {
                let little = pace.behind().is_some_and(|behind| behind < NOTICEABLE);
                prop_assert!(has_moved && pace.readable > 0 && (little || pace.readable <= earlier.readable()));
            }
            Verdict::FallingBack(pace) => {
                prop_assert!((has_moved || earlier.readable() == 0) && pace.readable > earlier.readable());
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_paused_topic_is_no_stall_and_says_what_waits_for_it() {
    let paused = |case: &mut Case| case.consumer.phase.what = Phase::Paused;
    let verdict = Case::still().with(paused).verdict();
    assert_eq!(verdict, Verdict::Paused { readable: 5, expired: 0 });
    assert_eq!((verdict.word(), verdict.to_string().as_str()), ("paused", "paused: readable=5 expired=0"));
    let expired = Case::new(seen(7, 10, Some(5)), seen(7, 10, Some(5))).with(paused).verdict();
    assert_eq!(expired, Verdict::Paused { readable: 3, expired: 2 });
}
