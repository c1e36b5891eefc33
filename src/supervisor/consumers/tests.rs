#![allow(clippy::unwrap_used)]

use super::*;
use crate::plan::Plan;

/// Consumers whose clients are never ready to be made: their threads wait until the `Sender` is dropped.
fn consumers(memory: usize) -> (Consumers, Sender<Never>, Receiver<Exit>) {
    let (release, until) = bounded::<Never>(0);
    let client = move |_: &ConsumerPlan, _: &[crate::client::Remembered]| -> Box<dyn crate::client::Client> {
        let _ = until.recv();
        panic!("released by the test")
    };
    let library = Library { client: Arc::new(client), cluster: Arc::new(|_| unreachable!("nobody observes")) };
    let (exits, ended) = bounded(16);
    let common = Common {
        library,
        deliveries: bounded(1).0,
        stop: crossbeam_channel::never(),
        notices: bounded(1).0,
        ledger: Arc::default(),
        exits,
        board: Arc::default(),
        window: Duration::from_secs(600),
        memory,
    };
    (Consumers::new(common), release, ended)
}

/// A consumer of this topic that goes to this sink and holds so many bytes and batches.
fn plan(topic: &str, sink: &str, bytes: usize, batches: usize) -> ConsumerPlan {
    let text = format!(
        "[kafka]\nbootstrap_servers = ['b:1']\n[consumer]\ngroup_id = 'g'\ntopics = ['{topic}']\nsink = '{sink}'\n"
    );
    let mut plan = Plan::new(&crate::config::parse(&text, &|_| None).unwrap()).consumers.remove(0);
    (plan.settings.bytes, plan.settings.batches) = (bytes, batches);
    plan
}

#[test]
fn who_comes_waits_until_there_is_memory_beside_those_that_hold_some() {
    let (mut consumers, release, ended) = consumers(100);
    consumers.add(&plan("a", "log", 80, 8));
    assert_eq!(consumers.ready(), [0]);
    consumers.start(0).unwrap().unwrap();
    for (topic, bytes) in [("b", 50), ("c", 20), ("d", 20)] {
        consumers.add(&plan(topic, "log", bytes, 8));
    }
    assert_eq!(consumers.ready(), [2], "what fits beside it may start, one after the other");
    consumers.start(2).unwrap().unwrap();
    assert!(consumers.leave("a", Instant::now()).unwrap().is_none());
    assert_eq!(consumers.ready(), [0; 0], "it holds its share until it is gone");
    assert!(consumers.is_leaving(0) && consumers.in_transition());
    drop(release);
    ended.recv_timeout(Duration::from_secs(30)).unwrap();
    consumers.left(0);
    assert_eq!(consumers.ready(), [1, 3]);
}

#[test]
fn who_takes_the_place_of_another_waits_until_it_is_gone_and_its_route_holds_so_long() {
    let (mut consumers, release, ended) = consumers(100);
    consumers.add(&plan("a", "log", 10, 8));
    consumers.start(0).unwrap().unwrap();
    assert!(consumers.leave("a", Instant::now()).unwrap().is_none());
    consumers.add(&plan("a", "drop", 10, 16));
    consumers.add(&plan("b", "drop", 10, 32));
    assert_eq!(consumers.ready(), [2], "the other topic need not wait");
    let routing = consumers.routing(Duration::ZERO);
    assert_eq!(routing.routes[&Arc::from("a")], ["log"], "what is under way goes where it was to go");
    assert_eq!(routing.routes[&Arc::from("b")], ["drop"]);
    assert_eq!(routing.needs, BTreeMap::from([("log".to_owned(), 8), ("drop".to_owned(), 48)]));
    // It did not drain: something waits in its place, and the other one goes on waiting for that.
    let late = Instant::now() + Duration::from_secs(3600);
    let overdue = consumers.overdue(late);
    assert!(matches!(&overdue[..], [(0, Role::Consumer { index: 0, run: 0, .. }, true)]), "{overdue:?}");
    assert!(consumers.overdue(late).is_empty(), "once");
    let in_its_place = consumers.give_up(0).unwrap();
    assert!(matches!(in_its_place, Some(Role::Consumer { index: 0, run: 1, .. })), "{in_its_place:?}");
    assert_eq!((consumers.ready(), consumers.waiting().count()), (vec![2], 2));
    drop(release);
    for _ in 0..2 {
        ended.recv_timeout(Duration::from_secs(30)).unwrap();
    }
    consumers.left(0);
    assert_eq!(consumers.ready(), [1, 2]);
    let routing = consumers.routing(Duration::ZERO);
    assert_eq!((routing.routes[&Arc::from("a")][0].as_str(), routing.needs.len()), ("drop", 1));
}

#[test]
fn one_that_was_not_started_yet_just_goes() {
    let (mut consumers, _release, _ended) = consumers(5);
    consumers.add(&plan("a", "log", 10, 8));
    assert_eq!((consumers.ready(), consumers.common.board.entries().len()), (vec![], 1));
    assert!(consumers.leave("a", Instant::now()).unwrap().is_none());
    assert!(consumers.are_settled() && consumers.common.board.entries().is_empty());
    assert!(consumers.is_leaving(0), "it is gone");
}
