#![allow(clippy::unwrap_used)]

use super::*;
use crate::consumer::part::Past;
use crate::consumer::tracker::Tracker;
use crate::ticket::Slot;

fn offset(number: i64) -> Offset {
    Offset::new(number).unwrap()
}

fn part(place: Place) -> Part {
    Part {
        partition: TopicPartition::new("t", 0),
        place,
        leaving: None,
        past: Past::default(),
        foreign: None,
        unanswered: Default::default(),
        revoked: None,
    }
}

#[test]
fn what_went_on_and_what_waits_is_known_with_its_time() {
    let progress = Progress::new(0, Instant::now(), Arc::default());
    let at = |s| progress.born() + Duration::from_secs(s);
    let publish = |part: &Part, s| {
        progress.publish(std::slice::from_ref(part), false, None, at(s));
        progress.snapshot().parts[0].clone()
    };
    let mut part = part(Place::Held(offset(5)));
    assert_eq!((publish(&part, 1).state, publish(&part, 1).moved), (State::Held, None));

    part.place = Place::Reading(Tracker::start(Slot(1), offset(5), Some(offset(5))));
    assert_eq!(publish(&part, 2).moved, None, "where a run begins is no progress");

    let Place::Reading(tracker) = &mut part.place else { unreachable!() };
    let (one, two) = (tracker.deliver(&(offset(5)..offset(8)), 3), tracker.deliver(&(offset(8)..offset(9)), 1));
    let told = publish(&part, 3);
    assert_eq!((told.moved, told.unacknowledged), (Some(at(3)), Some(at(3))));
    let told = publish(&part, 4);
    assert_eq!((told.moved, told.unacknowledged), (Some(at(3)), Some(at(3))), "nothing came back since");

    let Place::Reading(tracker) = &mut part.place else { unreachable!() };
    tracker.ack(one);
    let told = publish(&part, 5);
    assert_eq!((told.moved, told.unacknowledged), (Some(at(5)), Some(at(5))), "some came back, some wait");

    let Place::Reading(tracker) = &mut part.place else { unreachable!() };
    tracker.ack(two);
    let told = publish(&part, 6);
    assert_eq!((told.moved, told.unacknowledged, told.report.delivered), (Some(at(6)), None, 4));
    assert_eq!(progress.reports(), [told.report]);
}

#[test]
fn a_full_budget_is_known_since_it_became_full() {
    let progress = Progress::new(0, Instant::now(), Arc::default());
    let at = |s| progress.born() + Duration::from_secs(s);
    let publish = |full, s| {
        progress.publish(&[], full, None, at(s));
        progress.snapshot().full
    };
    assert_eq!([publish(true, 1), publish(true, 2)], [Some(at(1)); 2]);
    assert_eq!([publish(false, 3), publish(true, 4)], [None, Some(at(4))]);
}

#[test]
fn the_phase_carries_the_time_it_was_entered() {
    let progress = Progress::new(0, Instant::now(), Arc::default());
    for phase in PHASES {
        let before = Instant::now();
        progress.enter(phase);
        let told = progress.snapshot().phase;
        assert_eq!(told.what, phase);
        assert!(told.since <= Instant::now() && told.since + Duration::from_millis(1) >= before);
    }
}

#[test]
fn a_fault_of_a_partition_is_told_until_it_is_over_also_if_it_came_first() {
    let (progress, part) = (Progress::new(0, Instant::now(), Arc::default()), part(Place::Gone));
    progress.set_fault(&part.partition, Some(&Fault::NoLeader));
    progress.publish(std::slice::from_ref(&part), false, None, Instant::now());
    let fault = |progress: &Progress| progress.snapshot().parts[0].fault.clone().map(|fault| fault.what);
    assert_eq!(fault(&progress), Some(Fault::NoLeader));
    let since = progress.snapshot().faults[0].1.since;
    progress.set_fault(&part.partition, Some(&Fault::Unanswered { for_ms: 1 }));
    assert_eq!(
        progress.snapshot().faults,
        [(part.partition.clone(), Since { what: Fault::Unanswered { for_ms: 1 }, since })]
    );
    progress.set_fault(&part.partition, None);
    assert_eq!(fault(&progress), None);
}

#[test]
fn a_partition_that_never_started_fails_no_more_when_its_topic_is_gone() {
    let progress = Progress::new(0, Instant::now(), Arc::default());
    let name = |topic: &str| TopicPartition::new(topic, 0);
    for topic in ["t", "u"] {
        progress.event(&Event::Failing(name(topic), Fault::NoLeader));
    }
    progress.event(&Event::Missing("t".into()));
    assert_eq!(progress.snapshot().faults.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [name("u")]);
}

#[test]
fn failing_commits_are_known_since_the_first_one() {
    let progress = Progress::new(0, Instant::now(), Arc::default());
    progress.set_commit(Some(&Fault::NoLeader));
    let first = progress.snapshot().commit.unwrap();
    let other = Fault::Refused { call: "OffsetCommit", code: "NotCoordinator".to_owned() };
    progress.set_commit(Some(&other));
    assert_eq!(progress.snapshot().commit, Some(Since { what: other, since: first.since }));
    progress.set_commit(None);
    assert_eq!(progress.snapshot().commit, None);
}
