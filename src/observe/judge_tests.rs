#![allow(clippy::unwrap_used)]

use super::*;
use crate::client::{Bounds, Fault};
use crate::consumer::part::{Part, Past, Place};
use crate::consumer::tracker::Tracker;
use crate::progress::{Phase, Progress};
use crate::record::Offset;
use crate::sample::Watched;
use crate::ticket::Slot;
use crate::verdict::Seen;

const S: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(300);

fn offset(number: i64) -> Offset {
    Offset::new(number).unwrap()
}

/// One consumer of topic `t` in group `g`, looked at every thirty seconds.
struct Scene {
    judge: Judge,
    entry: Entry,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let membership = crate::client::Membership::None(crate::client::Portion::All);
        let watched = Watched {
            group: "g".to_owned(),
            topics: vec![("t".into(), vec!["out".to_owned()])],
            membership,
            committed_only: false,
        };
        let progress = Arc::new(Progress::new(0, Instant::now(), Arc::default()));
        progress.enter(Phase::Waiting);
        let entry = Entry { consumer: 7, watched: Arc::new(watched), progress };
        Self { judge: Judge::new(TIMEOUT), now: entry.progress.born(), entry }
    }

    /// What follows from the next look at these partitions: log end, committed.
    fn look(&mut self, partitions: &[Result<(i64, i64), Fault>]) -> (Vec<News>, Vec<Demand>) {
        self.now += S * 30;
        let seen = |answer: &Result<(i64, i64), Fault>| {
            let (end, committed) = answer.clone()?;
            let bounds = Bounds { log_start: offset(0), log_end: offset(end) };
            Ok(Seen { bounds, committed: Some(offset(committed)), last_stable: None })
        };
        let named = |(number, answer)| (TopicPartition::new("t", number), seen(answer));
        let partitions = Ok((0..).zip(partitions).map(named).collect());
        let seen = vec![TopicRound { topic: "t".into(), partitions }];
        let round = vec![Asked { consumer: 7, seen }];
        self.judge.round(round, std::slice::from_ref(&self.entry), &HashMap::new(), self.now, self.now)
    }

    /// The same, without demands.
    #[track_caller]
    fn news(&mut self, partitions: &[Result<(i64, i64), Fault>]) -> Vec<News> {
        let (news, demands) = self.look(partitions);
        assert_eq!(demands, []);
        news
    }
}

#[test]
fn idle_and_busy_topics_are_silent() {
    let mut scene = Scene::new();
    for round in 0..100 {
        assert_eq!(scene.news(&[Ok((7, 7)), Ok((round * 10 + 5, round * 10))]), []);
    }
}

#[test]
fn a_stall_is_told_once_when_it_is_long_and_once_when_it_is_over() {
    let mut scene = Scene::new();
    scene.entry.progress.set_trouble(Some(&Fault::NoLeader));
    for _ in 0..10 {
        assert_eq!(scene.news(&[Ok((9, 9)), Ok((9, 4))]), [], "less than the watchdog's time");
    }
    match &scene.news(&[Ok((9, 9)), Ok((9, 4))])[..] {
        [News::Stalled { partitions, readable: 5, still: TIMEOUT, reason: Reason::Trouble(..), .. }] => {
            assert_eq!(*partitions, [1]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.news(&[Ok((9, 9)), Ok((30, 4))]), [], "told once");
    assert_eq!(scene.news(&[Ok((9, 9)), Err(Fault::NoLeader)]), [], "an answer that is missing ends nothing");
    match &scene.news(&[Ok((9, 9)), Ok((30, 5))])[..] {
        [News::Moves { after, .. }] => assert_eq!(*after, S * 390),
        other => panic!("{other:?}"),
    }
    assert_eq!(scene.news(&[Ok((9, 9)), Ok((30, 30))]), []);
}

#[test]
fn a_consumer_is_given_up_only_when_its_present_run_had_the_time() {
    let mut scene = Scene::new();
    let part = Part {
        partition: TopicPartition::new("t", 0),
        place: Place::Reading(Tracker::start(Slot(1), offset(4), Some(offset(4)))),
        leaving: None,
        past: Past::default(),
        foreign: None,
        unanswered: Default::default(),
        revoked: None,
    };
    let publish = |progress: &Progress| progress.publish(std::slice::from_ref(&part), false, None, Instant::now());
    publish(&scene.entry.progress);
    let (mut told, mut wanted) = (0, Vec::new());
    for _ in 0..12 {
        let (news, demands) = scene.look(&[Ok((9, 4))]);
        told += news.len();
        wanted.extend(demands);
    }
    assert_eq!((told, wanted.len()), (1, 2), "asked again until it is done: {wanted:?}");
    assert_eq!((wanted[0].consumer, wanted[0].run), (7, 0));
    assert!(wanted.iter().all(|demand| demand.run == 0));
    scene.entry.progress = Arc::new(Progress::new(1, scene.now, Arc::default()));
    scene.entry.progress.enter(Phase::Waiting);
    publish(&scene.entry.progress);
    for _ in 0..9 {
        assert_eq!(scene.news(&[Ok((9, 4))]), [], "the new run is given its time");
    }
    assert_eq!(scene.look(&[Ok((9, 4))]).1.iter().map(|demand| demand.run).collect::<Vec<_>>(), [1]);
    assert!(wanted[0].why.contains("topic=t partition=0 no_progress_ms=300000"), "{}", wanted[0].why);
}

#[test]
fn a_cluster_that_does_not_answer_is_silent() {
    let mut scene = Scene::new();
    assert_eq!(scene.news(&[Ok((9, 4))]), []);
    for _ in 0..50 {
        assert_eq!(scene.news(&[Err(Fault::NoLeader)]), []);
        assert_eq!(scene.news(&[]), []);
    }
}

#[test]
fn falling_back_is_told_when_it_lasts_and_is_far() {
    let mut scene = Scene::new();
    let mut news = Vec::new();
    // A hundred are written a round and one is read.
    for round in 1..=13 {
        news.extend(scene.news(&[Ok((round * 100, round))]));
    }
    assert!(matches!(&news[..], [News::FallsBack { since, .. }] if *since >= TIMEOUT), "{news:?}");
    match &scene.news(&[Ok((1400, 1300))])[..] {
        [News::CatchesUp { readable: 100, .. }] => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn topics_that_wait_for_one_sink_share_a_line_and_others_do_not() {
    let stalled = |topic: &str, reason: Reason| News::Stalled {
        topic: topic.into(),
        group: "g".to_owned(),
        partitions: vec![0],
        readable: 1,
        still: TIMEOUT,
        reason,
    };
    let sink = |name: &str, waiting| Reason::Sink { sink: name.to_owned(), waiting, by_others: false, error: None };
    let one = stalled("a", sink("out", S));
    assert!(one.is_like(&stalled("b", sink("out", S * 2))));
    assert!(!one.is_like(&stalled("b", sink("other", S))));
    assert!(!stalled("a", Reason::Unexplained).is_like(&stalled("b", Reason::Unexplained)));
}
