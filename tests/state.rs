//! Keeping the place: what the daemon does when the group has forgotten it, when a topic is not the one
//! that it was, and when somebody else commits in its group.

use broker::{Api, Fault, Order};

use crate::support::bed::Bed;
use crate::support::worker::{PATIENCE, Worker};
use std::fs;

const FORGOTTEN: &[&str] =
    &["WARN", "group has forgotten its offset", "topic=t partition=0", "group_id=g-t", "offset=7"];

/// Ten records in the topic `t`, of which a run has read seven; it has ended since.
pub fn seven_are_read() -> Bed {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 7);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 7);
    bed.stop(worker);
    bed.fill("t", 3);
    bed
}

#[test]
fn a_group_that_has_forgotten_its_offset_goes_on_from_the_state_directory() {
    let bed = seven_are_read();
    bed.server.set_committed("g-t", "t", 0, None);
    // It must not matter for anything.
    let config = bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'");
    let worker = bed.started(&config);
    worker.wait_words(FORGOTTEN);
    bed.await_all("t", 0);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0), (0..10).collect::<Vec<_>>(), "nothing twice, nothing skipped");
}

/// Half of what was forgotten is gone from the log, too: that is told, and counted.
#[test]
fn a_forgotten_offset_below_the_log_start_is_out_of_range() {
    let bed = seven_are_read();
    bed.server.set_committed("g-t", "t", 0, None);
    bed.server.with_log("t", 0, |log| log.delete_records(9)).unwrap();
    let worker = bed.started(&bed.config(&["t"]));
    worker.wait_words(FORGOTTEN);
    worker.wait_words(&["WARN", "position out of range", "lost_offset=7", "new_offset=9", "expired=2"]);
    bed.await_committed("t", 0, 10);
    let ended = bed.stop(worker);
    assert!(ended.sums("t").contains("expired=2"), "{}", ended.sums("t"));
    assert_eq!(bed.arrived_offsets("t", 0), [0, 1, 2, 3, 4, 5, 6, 9]);
}

/// What the group has goes before what the file has: somebody may have set it on purpose.
#[test]
fn the_group_goes_before_the_state_directory() {
    let bed = seven_are_read();
    bed.server.set_committed("g-t", "t", 0, Some(4));
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 10);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0), [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]);
}

/// The group still has offset 7 of a topic that was deleted, and made anew with more records than that.
#[test]
fn a_topic_that_was_made_anew_while_it_was_down_is_read_from_its_start() {
    let bed = seven_are_read();
    bed.server.delete_topic("t");
    bed.server.create_topic("t", 1).unwrap();
    bed.fill("t", 12);
    bed.server.set_committed("g-t", "t", 0, Some(7));
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'"));
    worker.wait_words(&["WARN", "topic was deleted and made anew", "topic=t"]);
    bed.await_committed("t", 0, 12);
    bed.stop(worker);
    // Again, to see that the new one is known now.
    let worker = bed.started(&bed.config(&["t"]));
    worker.wait_words(&["continuing", "topic=t", "offset=12"]);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["made anew"]), [""; 0]);
    assert_eq!(bed.arrived_offsets("t", 0), (0..7).chain(0..12).collect::<Vec<_>>());
}

#[test]
fn a_second_worker_is_refused_and_the_first_goes_on() {
    let bed = Bed::new(&["t"]);
    let first = bed.started(&bed.config(&["t"]));
    let second = bed.start(&bed.config(&["t"])).exit(PATIENCE);
    assert_eq!(second.code(), Some(1));
    let owner = format!("process {}", first.pid());
    let line = second.lines_with(&["ERROR", "cannot start", "another worker", &owner, "state.dir"]);
    assert_eq!(line.len(), 1, "{:?}", second.lines_with(&[]));
    bed.fill("t", 5);
    bed.await_all("t", 0);
    bed.stop(first);
}

/// After a kill -9 the lock is free, and the file is whole.
#[test]
fn after_a_kill_it_is_free_and_sound() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let config = bed.config(&["t"]);
    for round in 1..4 {
        let worker = bed.started(&config);
        bed.await_committed("t", 0, 5 * round);
        worker.kill9();
        bed.fill("t", 5);
    }
    let worker = bed.started(&config);
    bed.await_all("t", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["state file makes no sense"]), [""; 0]);
}

#[test]
fn a_directory_that_can_not_be_used_is_told_and_another_taken() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let file = bed.site.path("file");
    fs::write(&file, "in the way").unwrap();
    let dir = format!("'{}/state'", file.display());
    let worker = bed.started(&bed.config(&["t"]).set("state", "dir", &dir));
    worker.wait_words(&[
        "WARN",
        "state directory can't be used, using another",
        "consumer.state",
        "file/state can't be made",
    ]);
    bed.await_committed("t", 0, 5);
    bed.stop(worker);
    let offsets = fs::read_to_string(bed.site.path("consumer.state").join("offsets")).unwrap();
    assert!(offsets.contains("5 0 ") && offsets.contains(" t g-t\n"), "{offsets}");

    fs::remove_dir_all(bed.site.path("consumer.state")).unwrap();
    fs::write(bed.site.path("consumer.state"), "in the way, too").unwrap();
    let ended = bed.start(&bed.config(&["t"]).set("state", "dir", &dir)).exit(PATIENCE);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.lines_with(&["ERROR", "cannot start", "consumer.state can't be made", "[state] dir"]).len(), 1);
}

fn with_quick_looks(bed: &Bed) -> Worker {
    bed.started(&bed.config(&["t"]).set("kafka", "metadata_max_age_ms", "100"))
}

#[test]
fn an_offset_that_is_forgotten_while_it_runs_is_committed_again() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let worker = with_quick_looks(&bed);
    bed.await_committed("t", 0, 5);
    bed.server.set_committed("g-t", "t", 0, None);
    worker.wait_words(&["WARN", "committed offset is gone, committing again", "topic=t partition=0", "offset=5"]);
    bed.await_committed("t", 0, 5);
    bed.stop(worker);
}

#[test]
fn an_offset_that_someone_else_has_moved_on_is_not_set_back() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let worker = with_quick_looks(&bed);
    bed.await_committed("t", 0, 5);
    bed.server.set_committed("g-t", "t", 0, Some(8));
    worker.wait_words(&["WARN", "moved by someone else", "topic=t partition=0 found=8 ours=5"]);
    bed.fill("t", 2);
    bed.site.wait_records(7, PATIENCE);
    // A stop commits everything, but for this.
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.lines_with(&["moved by someone else"]).len(), 1, "told once");
    assert_eq!(bed.committed("t"), Some(8));
}

#[test]
fn beyond_what_someone_else_has_committed_all_is_as_ever() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let worker = with_quick_looks(&bed);
    bed.await_committed("t", 0, 5);
    bed.server.set_committed("g-t", "t", 0, Some(8));
    worker.wait_words(&["WARN", "moved by someone else"]);
    bed.fill("t", 5);
    bed.await_committed("t", 0, 10);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_takeover_that_takes_too_long_goes_on_or_waits_as_it_is_set() {
    for (setting, words) in [("wait", "group still has members, waiting on"), ("proceed", "reading without a commit")] {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 5);
        let member = broker::server::Member { id: "m-1".into(), client_id: "python".into(), host: "/127.0.0.1".into() };
        bed.server.set_members("g-t", vec![member]);
        let config = bed.config(&["t"]).set("consumer", "takeover_timeout_ms", "50");
        let config = config.set("consumer", "on_takeover_timeout", format!("'{setting}'"));
        let worker = bed.start(&config.set("commit", "max_retries", "0").set("commit", "retry_delay_ms", "20"));
        worker.wait_words(&[words, "group_id=g-t"]);
        if setting == "proceed" {
            bed.site.wait_records(5, PATIENCE);
            assert_eq!(bed.committed("t"), None);
        } else {
            assert!(bed.arrived("t", 0).is_empty());
        }
        bed.server.set_members("g-t", Vec::new());
        bed.await_committed("t", 0, 5);
        let ended = bed.stop(worker);
        assert_eq!(ended.lines_with(&[words]).len(), 1, "told once");
        assert_eq!(bed.arrived_offsets("t", 0), [0, 1, 2, 3, 4]);
    }
}

/// A partition that came while the worker was down, and that somebody has set an offset for.
#[test]
fn what_the_group_has_of_a_partition_goes_before_what_the_file_lacks() {
    let bed = seven_are_read();
    bed.server.add_partitions("t", 2).unwrap();
    bed.fill_as("t", 1, 20, broker::Codec::None);
    bed.server.set_committed("g-t", "t", 1, Some(15));
    let worker = bed.started(&bed.config(&["t"]));
    worker.wait_words(&["continuing", "topic=t partition=1", "offset=15"]);
    bed.await_committed("t", 1, 20);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 1), (15..20).collect::<Vec<_>>());
}

/// A broker that does not know a topic for a while: it is the same when it is back.
#[test]
fn a_topic_that_only_seemed_to_be_gone_is_continued() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]).set("kafka", "metadata_max_age_ms", 100));
    bed.await_all("t", 0);
    let unknown = Fault::Error(broker::fault::code::UNKNOWN_TOPIC_OR_PARTITION);
    let order = bed.server.order(Order::new(Api::Metadata, unknown).topic("t").always());
    worker.wait_words(&["WARN", "topic missing topic=t"]);
    bed.fill("t", 10);
    bed.server.cancel(order);
    worker.wait_words(&["INFO", "topic exists now topic=t"]);
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// A stop commits what has not changed, too, but not over what somebody has set on purpose.
#[test]
fn a_stop_leaves_an_offset_that_someone_else_has_set() {
    let bed = Bed::new(&["t", "u"]);
    for set in [3, 15] {
        bed.fill("t", 10);
        let worker = bed.started(&bed.config(&["t", "u"]));
        bed.await_committed("t", 0, bed.server.bounds("t", 0).unwrap().1);
        bed.server.set_committed("g-t", "t", 0, Some(set));
        let ended = bed.stop(worker);
        assert_eq!(bed.committed("t"), Some(set));
        let line = format!("found={set}");
        assert_eq!(ended.lines_with(&["WARN", "was moved by someone else, left as it is", "topic=t", &line]).len(), 1);
    }
}
