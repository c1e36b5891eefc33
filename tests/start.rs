//! Given such a committed offset, a worker starts there: first starts, restarts, other clients.

use std::process::Command;

use broker::fault::code;
use broker::{Api, Fault, Order};
use worker::client::reading::Library;

use crate::for_clients;
use crate::support::bed::Bed;
use crate::support::worker::{PATIENCE, Worker};

for_clients!(
    a_restart_goes_on_exactly_where_the_last_run_ended,
    after_kill_9_nothing_is_missing_and_what_was_not_committed_comes_again,
    what_another_client_committed_is_continued,
);

#[test]
fn a_first_start_at_latest_commits_the_end_and_reads_what_comes_later() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'"));
    assert_eq!(bed.committed("t"), Some(10));
    let line = worker.wait_words(&["starting topic=t partition=0"]);
    assert!(line.contains("offset=10 log_start=0 log_end=10") && line.contains("not_read=10"), "{line}");
    bed.fill("t", 5);
    bed.await_committed("t", 0, 15);
    assert_eq!(bed.arrived_offsets("t", 0), [10, 11, 12, 13, 14]);
    assert_eq!(bed.stop(worker).sums("t"), "delivered=5 committed=15 in_flight=0 expired=0 reset=10");
}

#[test]
fn nothing_is_delivered_before_the_first_position_is_committed() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let refuse = bed.server.order(Order::new(Api::OffsetCommit, Fault::Error(code::UNKNOWN_SERVER_ERROR)).always());
    let worker = bed.start(&bed.config(&["t"]));
    // Several attempts, so that a fetch would have had its time.
    assert!(bed.server.await_requests(Api::OffsetCommit, 6, PATIENCE));
    worker.wait_words(&["WARN", "commit failed, retrying group_id=g-t"]);
    assert_eq!((bed.server.requests(Api::Fetch), bed.committed("t")), (0, None));
    assert!(bed.site.records().is_empty());
    bed.server.cancel(refuse);
    bed.await_all("t", 0);
    worker.wait_words(&["commits succeed again group_id=g-t"]);
    bed.stop(worker);
}

fn a_restart_goes_on_exactly_where_the_last_run_ended(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let config =
        bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'").set("consumer", "max_poll_records", 7);
    for round in 1..=4_i64 {
        let worker = bed.started(&config);
        bed.fill("t", 500);
        // Stopped at a different place each time: somewhere in what was just written.
        bed.site.wait_records(usize::try_from((round - 1) * 500 + 100 * round).unwrap(), PATIENCE);
        bed.stop(worker);
        assert_eq!(bed.committed("t"), bed.arrived_offsets("t", 0).last().map(|last| last + 1));
        // Written while nobody reads.
        let worker = bed.started(&config);
        bed.await_all("t", 0);
        bed.stop(worker);
    }
    bed.assert_all("t", 0);
}

fn after_kill_9_nothing_is_missing_and_what_was_not_committed_comes_again(client: Library) {
    let bed = Bed::new(&["t"]).by(client);
    let config = bed.config(&["t"]).set("consumer", "max_poll_records", 10).set("commit", "interval_ms", 300);
    for round in 1..=3 {
        bed.fill("t", 2_000);
        let worker = bed.start(&config);
        bed.site.wait_records(2_000 * (round - 1) + 300 * round, PATIENCE);
        worker.kill9();
        let committed = bed.committed("t").unwrap_or(0);
        let arrived = bed.arrived_offsets("t", 0).into_iter().max().unwrap();
        assert!(committed <= arrived + 1, "committed={committed}, but offset {arrived} is the last that arrived");
    }
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 6_000);
    bed.stop(worker);
    let mut once = bed.arrived("t", 0);
    once.sort();
    once.dedup();
    assert_eq!(once, bed.held("t", 0));
}

fn what_another_client_committed_is_continued(client: Library) {
    let bed = Bed::new(&["middle", "start", "end"]).by(client);
    for (topic, committed) in [("middle", 7), ("start", 4), ("end", 10)] {
        bed.fill(topic, 10);
        bed.server.with_log(topic, 0, |log| log.delete_records(4)).unwrap();
        bed.server.set_committed(&format!("g-{topic}"), topic, 0, Some(committed));
    }
    let config = bed.config(&["middle", "start", "end"]).set("consumer", "auto_offset_reset", "'latest'");
    let worker = bed.started(&config);
    worker.wait_words(&["continuing topic=start partition=0 offset=4 log_start=4 log_end=10"]);
    for topic in ["middle", "start", "end"] {
        bed.fill(topic, 1);
        bed.await_committed(topic, 0, 11);
    }
    assert_eq!(bed.arrived_offsets("middle", 0), [7, 8, 9, 10]);
    // A committed offset that equals the log start is in range.
    assert_eq!(bed.arrived_offsets("start", 0), (4..11).collect::<Vec<_>>());
    assert_eq!(bed.arrived_offsets("end", 0), [10]);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["out of range"]), [""; 0]);
}

#[test]
fn a_group_with_live_members_is_waited_for() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let member = broker::server::Member { id: "m-1".into(), client_id: "python".into(), host: "/127.0.0.1".into() };
    bed.server.set_members("g-t", vec![member]);
    let worker = bed.start(&bed.config(&["t"]));
    let line = worker.wait_words(&["WARN", "commit failed"]);
    assert!(line.contains("group g-t has live members (UnknownMemberId): python at 127.0.0.1; stop them"), "{line}");
    assert!(bed.site.records().is_empty());
    bed.server.set_members("g-t", Vec::new());
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// One topic is read, one is missing, one is held by its group: after a while the log says which.
#[test]
fn a_start_that_takes_long_says_what_waits_and_why() {
    let bed = Bed::new(&["t", "held"]);
    let member = broker::server::Member { id: "m-1".into(), client_id: "python".into(), host: "/127.0.0.1".into() };
    bed.server.set_members("g-held", vec![member]);
    let worker = bed.start(&bed.config(&["t", "held", "none"]));
    let line = worker.wait_words(&["INFO", "consumers still starting topics=1 missing=1 waiting=1"]);
    assert!(line.contains("waits_for=\"held: group g-held has live members (UnknownMemberId)"), "{line}");
    bed.server.set_members("g-held", Vec::new());
    worker.wait_words(&["INFO", "consumers started topics=2 missing=1"]);
    bed.server.create_topic("none", 1).unwrap();
    worker.wait_words(&["INFO", "topic exists now topic=none group_id=g-none after_ms="]);
    worker.wait_words(&["INFO", "all consumers started topics=3 missing=0"]);
    bed.stop(worker);
}

#[test]
fn a_topic_that_never_started_has_its_sums_too() {
    let bed = Bed::new(&["t"]);
    let ended = bed.stop(bed.started(&bed.config(&["t", "none"])));
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=0 expired=0 reset=0");
    assert_eq!(ended.sums("none"), "delivered=0 committed=- in_flight=0 expired=0 reset=0 state=not-started");
}

/// The usual soft limit of open files is too low for hundreds of topics.
#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    let bed = Bed::new(&["t"]);
    let config = bed.site.write_config(&bed.config(&["t"]).to_string());
    let mut shell = Command::new("sh");
    let program = Worker::command().get_program().to_owned();
    shell.args(["-c", "ulimit -Sn 50; exec \"$0\" -c \"$1\""]).arg(program).arg(config);
    let worker = Worker::spawn(shell);
    worker.wait_started();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    bed.fill("t", 5);
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// The first group that asks a new cluster makes it create the topic in which offsets are kept.
#[test]
fn a_cluster_that_was_just_made_has_no_coordinator_yet() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let missing = Fault::Error(code::COORDINATOR_NOT_AVAILABLE);
    bed.server.order(Order::new(Api::FindCoordinator, missing).times(5));
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    assert_eq!(worker.count(&["WARN"]), 0, "{}", worker.log().join("\n"));
    bed.stop(worker);
}

#[test]
fn a_coordinator_that_is_on_its_way_is_no_trouble_and_one_that_stays_away_is() {
    for coming in [code::COORDINATOR_LOAD_IN_PROGRESS, code::COORDINATOR_NOT_AVAILABLE, code::NOT_COORDINATOR] {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 10);
        let order = bed.server.order(Order::new(Api::OffsetFetch, Fault::Error(coming)).times(5));
        let worker = bed.started(&bed.config(&["t"]));
        bed.await_all("t", 0);
        assert!(!bed.server.is_pending(order), "code {coming} was met");
        let ended = bed.stop(worker);
        assert_eq!(ended.lines_with(&["WARN"]), [""; 0], "code {coming}");
    }
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let away = bed.server.order(Order::new(Api::OffsetFetch, Fault::Error(code::NOT_COORDINATOR)).always());
    let worker = bed.start(&bed.config(&["t"]));
    worker.wait_words(&["WARN", "consumer in trouble, retrying topic=t group_id=g-t", "OffsetFetch: NotCoordinator"]);
    // It was patient: with a second at most between two tries, five seconds are more than five of them.
    assert!(bed.server.requests(Api::OffsetFetch) > 5, "{}", bed.server.requests(Api::OffsetFetch));
    bed.server.cancel(away);
    bed.await_all("t", 0);
    worker.wait_words(&["consumer works again topic=t group_id=g-t"]);
    bed.stop(worker);
}
