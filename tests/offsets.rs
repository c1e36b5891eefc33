//! `worker offsets`: what it shows, what it moves, what it refuses; and where the daemon goes on afterwards.

use std::fs;

use broker::fault::{Fault, Order, code};
use broker::server::Member;
use broker::{Api, Codec};

use crate::state::seven_are_read;
use crate::support::bed::Bed;
use crate::support::worker::{Config, Ended, PATIENCE, Worker};

mod migrate;

/// Runs `worker offsets COMMAND -c FILE …` with this configuration.
fn run(bed: &Bed, config: &Config, command: &str, arguments: &[&str]) -> Ended {
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let mut all = vec!["offsets", command, "-c", &file];
    all.extend_from_slice(arguments);
    Worker::run(&all)
}

/// The same for the topic `t` alone, which has to end with this code.
#[track_caller]
fn reset(bed: &Bed, arguments: &[&str], code: i32) -> Ended {
    let ended = run(bed, &bed.config(&["t"]), "reset", &[&["--topic", "t"], arguments].concat());
    assert_eq!(ended.code(), Some(code), "{}\n{}", ended.stdout.join("\n"), ended.log.join("\n"));
    ended
}

/// The words of the line of a table that begins with these.
#[track_caller]
fn cells(ended: &Ended, lead: &[&str]) -> Vec<String> {
    let words = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let found =
        ended.stdout.iter().map(words).find(|line| line.iter().zip(lead).filter(|(a, b)| a == b).count() == lead.len());
    found.unwrap_or_else(|| panic!("no line {lead:?} in\n{}\n{}", ended.stdout.join("\n"), ended.log.join("\n")))
}

/// Runs the daemon until the log's end is committed, and says what arrived beyond the first `before` records.
#[track_caller]
fn delivered_next(bed: &Bed, config: &Config, before: usize) -> Vec<i64> {
    let worker = bed.started(config);
    let end = bed.server.bounds("t", 0).unwrap().1;
    bed.await_committed("t", 0, end);
    bed.stop(worker);
    bed.arrived_offsets("t", 0).split_off(before)
}

#[test]
fn show_prints_what_group_log_and_state_file_have() {
    let bed = seven_are_read();
    let both = bed.config(&["t", "quiet", "gone"]).set("state", "dir", "'@DIR@/consumer.state'");
    bed.server.create_topic("quiet", 1).unwrap();
    let ended = run(&bed, &both, "show", &["t", "quiet"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert_eq!(cells(&ended, &["g-t"]), ["g-t", "t", "0", "7", "0", "10", "7"]);
    assert_eq!(cells(&ended, &["g-quiet"])[..7], ["g-quiet", "quiet", "0", "-", "0", "0", "-"]);
    assert!(ended.stdout.iter().any(|line| line.contains("consumer.state: not running")), "{:?}", ended.stdout);

    // A topic that is not there is one without an answer.
    let ended = run(&bed, &both, "show", &[]);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stdout.iter().any(|line| line.starts_with("g-gone") && line.contains("does not exist")));
    assert_eq!(bed.server.auto_created(), [""; 0]);

    bed.server.set_committed("g-t", "t", 0, None);
    let ended = run(&bed, &bed.config(&["t"]), "show", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout.join("\n")).unwrap();
    let line = &report["partitions"][0];
    assert_eq!(line["committed_offset"], serde_json::Value::Null);
    assert_eq!((&line["remembered_offset"], &line["next_start"]), (&7.into(), &7.into()));
    assert!(line["note"].as_str().unwrap().contains("forgotten"), "{line}");
    assert_eq!(report["state"][0]["running"], false);
}

#[test]
fn without_execute_nothing_is_changed() {
    let bed = seven_are_read();
    let before = fs::read_to_string(bed.site.path("consumer.state/offsets")).unwrap();
    let commits = bed.server.requests(Api::OffsetCommit);
    let ended = reset(&bed, &["--to-earliest"], 0);
    assert_eq!(cells(&ended, &["g-t"]), ["g-t", "t", "0", "0", "10", "7", "0", "0", "7"]);
    assert!(ended.stdout.contains(&"sum: partitions=1 skipped=0 replayed=7".to_owned()), "{:?}", ended.stdout);
    assert!(ended.stdout.last().unwrap().contains("dry run") && ended.stdout.last().unwrap().contains("--execute"));
    assert_eq!(bed.committed("t"), Some(7));
    assert_eq!(fs::read_to_string(bed.site.path("consumer.state/offsets")).unwrap(), before);
    assert_eq!(bed.server.requests(Api::OffsetCommit), commits);
}

#[test]
fn the_worker_goes_on_exactly_where_it_was_reset_to() {
    for (arguments, after, from) in [
        (&["--to-earliest"][..], "0", 0),
        (&["--to-offset", "4"], "4", 4),
        (&["--shift-by", "-2"], "5", 5),
        (&["--shift-by", "+2"], "9", 9),
        // The records' times are 1,700,000,000,000 and their offset.
        (&["--to-time", "1700000000008"], "8", 8),
        (&["--to-time", "2023-11-14T22:13:20.003Z"], "3", 3),
        (&["--to-latest"], "10", 10),
    ] {
        let bed = seven_are_read();
        let ended = reset(&bed, &[arguments, &["--execute"]].concat(), 0);
        assert_eq!(cells(&ended, &["g-t"])[5..7], ["7", after], "{arguments:?}");
        let moved = (i64::max(0, from - 7), i64::max(0, 7 - from));
        assert_eq!(cells(&ended, &["g-t"])[7..9], [moved.0.to_string(), moved.1.to_string()], "{arguments:?}");
        assert!(ended.stdout.last().unwrap().contains("offsets has them too"), "{:?}", ended.stdout);
        assert_eq!(bed.committed("t"), Some(from));
        assert_eq!(delivered_next(&bed, &bed.config(&["t"]), 7), (from..10).collect::<Vec<_>>(), "{arguments:?}");
    }
}

/// The state file would be used if the group had nothing: it must not lead back.
#[test]
fn the_state_file_is_kept_in_line() {
    let bed = seven_are_read();
    reset(&bed, &["--to-offset", "4", "--execute"], 0);
    bed.server.set_committed("g-t", "t", 0, None);
    let latest = bed.config(&["t"]).set("consumer", "auto_offset_reset", "'latest'");
    assert_eq!(delivered_next(&bed, &latest, 7), (4..10).collect::<Vec<_>>());
}

/// What the group has forgotten and the state file has is where the worker stands: a shift counts from there.
#[test]
fn a_shift_counts_from_where_the_worker_would_go_on() {
    let bed = seven_are_read();
    bed.server.set_committed("g-t", "t", 0, None);
    let ended = reset(&bed, &["--shift-by", "-1", "--execute"], 0);
    assert!(ended.stdout.iter().any(|line| line.contains("the state file has it")), "{:?}", ended.stdout);
    assert_eq!(bed.committed("t"), Some(6));
}

/// Without this the worker would take the offset for one of the topic that was, and read from the start.
#[test]
fn a_topic_that_was_made_anew_is_reset_as_the_one_that_it_is() {
    let bed = seven_are_read();
    bed.server.delete_topic("t");
    bed.server.create_topic("t", 2).unwrap();
    bed.fill("t", 12);
    let ended = reset(&bed, &["--partition", "0", "--to-latest", "--execute"], 2);
    assert_eq!(ended.lines_with(&["made anew", "leave --partition out"]).len(), 1);
    let ended = reset(&bed, &["--to-offset", "9", "--execute"], 0);
    assert!(cells(&ended, &["g-t", "t", "0"]).join(" ").contains("0 12 0 9 9 0 the topic was made anew"));
    assert_eq!(delivered_next(&bed, &bed.config(&["t"]), 7), [9, 10, 11]);
}

/// The state file knows the topic's id after a reset as before it.
#[test]
fn a_topic_that_is_made_anew_after_a_reset_is_known_as_another() {
    let bed = seven_are_read();
    reset(&bed, &["--to-offset", "4", "--execute"], 0);
    bed.server.delete_topic("t");
    bed.server.create_topic("t", 1).unwrap();
    bed.fill("t", 12);
    bed.server.set_committed("g-t", "t", 0, Some(4));
    let ended = run(&bed, &bed.config(&["t"]), "show", &[]);
    assert!(cells(&ended, &["g-t", "t", "0"]).join(" ").contains("4 0 12 4 the topic was made anew"));
    assert_eq!(delivered_next(&bed, &bed.config(&["t"]), 7), (0..12).collect::<Vec<_>>());
}

#[test]
fn a_target_outside_of_the_log_is_brought_to_its_end() {
    let bed = seven_are_read();
    bed.server.with_log("t", 0, |log| log.delete_records(5)).unwrap();
    for (arguments, after, words) in [
        (&["--to-offset", "2"][..], "5", "2 is below the log start"),
        (&["--to-offset", "99"], "10", "99 is beyond the log end"),
        (&["--shift-by", "-100"], "5", "-93 is below the log start"),
        (&["--to-time", "2030-01-01T00:00:00Z"], "10", "no record is of that time or later"),
    ] {
        let ended = reset(&bed, arguments, 0);
        let line = cells(&ended, &["g-t"]);
        assert_eq!(line[6], after, "{arguments:?}");
        assert!(line.join(" ").contains(words), "{line:?}");
    }
}

#[test]
fn one_partition_or_all_topics() {
    let bed = Bed::new(&["u"]);
    bed.server.create_topic("t", 3).unwrap();
    for partition in 0..3 {
        bed.fill_as("t", partition, 10, Codec::None);
        bed.server.set_committed("g-t", "t", partition, Some(5));
    }
    bed.fill("u", 4);
    bed.server.set_committed("g-u", "u", 0, Some(9));
    let ended = reset(&bed, &["--partition", "0,2", "--to-latest", "--execute"], 0);
    assert!(ended.stdout.contains(&"sum: partitions=2 skipped=10 replayed=0".to_owned()), "{:?}", ended.stdout);
    let of_t = || [0, 1, 2].map(|partition| bed.server.committed("g-t", "t", partition));
    assert_eq!(of_t(), [Some(10), Some(5), Some(10)]);

    let all = bed.config(&["t", "u", "gone"]);
    let ended = run(&bed, &all, "reset", &["--all-topics", "--to-earliest", "--execute"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert_eq!(ended.lines_with(&["there is no topic gone"]).len(), 1);
    // What lay beyond the log's end was nothing that could be read.
    assert!(ended.stdout.contains(&"sum: partitions=4 skipped=0 replayed=29".to_owned()), "{:?}", ended.stdout);
    assert_eq!((of_t(), bed.committed("u")), ([Some(0); 3], Some(0)));
    assert!(!bed.site.path("consumer.state").exists(), "no worker has run here, and nothing is made for none");
}

#[test]
fn while_the_worker_runs_it_is_refused() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 7);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_committed("t", 0, 7);
    let process = format!("process {}", worker.pid());
    let ended = reset(&bed, &["--to-earliest"], 0);
    assert_eq!(ended.lines_with(&["would be refused", &process, "stop it first"]).len(), 1, "{:?}", ended.log);
    let ended = reset(&bed, &["--to-earliest", "--execute"], 1);
    assert_eq!(ended.lines_with(&["refused: the worker runs", &process, "stop it first"]).len(), 1, "{:?}", ended.log);
    assert_eq!(bed.committed("t"), Some(7));
    let ended = reset(&bed, &["--to-offset", "9999", "--execute", "--force"], 0);
    assert_eq!(ended.lines_with(&["forced", &process]).len(), 1);
    bed.stop(worker);

    // One that was killed has left its lock's file, and no lock.
    let worker = bed.started(&bed.config(&["t"]));
    worker.kill9();
    let ended = reset(&bed, &["--to-earliest", "--execute"], 0);
    assert!(ended.log.is_empty(), "{:?}", ended.log);
    assert_eq!(bed.committed("t"), Some(0));
}

#[test]
fn while_a_group_has_members_it_is_refused() {
    let bed = Bed::new(&["t", "u"]);
    for (topic, group) in [("t", "g-t"), ("u", "g-u")] {
        bed.fill(topic, 5);
        bed.server.set_committed(group, topic, 0, Some(3));
    }
    let member = Member { id: "m-1".into(), client_id: "python".into(), host: "/10.0.0.7".into() };
    bed.server.set_members("g-u", vec![member]);
    let config = bed.config(&["t", "u"]);
    let all = |more: &[&str]| run(&bed, &config, "reset", &[&["--all-topics", "--to-earliest"], more].concat());
    assert_eq!(all(&[]).lines_with(&["would be refused", "group g-u", "python at 10.0.0.7"]).len(), 1);
    let ended = all(&["--execute"]);
    assert_eq!(
        (ended.code(), ended.lines_with(&["refused: group g-u", "python at 10.0.0.7", "stop them"]).len()),
        (Some(1), 1)
    );
    // Forced, it is the broker that refuses; and it is asked before anything else is committed.
    let ended = all(&["--execute", "--force"]);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.lines_with(&["the commit to group g-u failed", "UnknownMemberId"]).len(), 1, "{:?}", ended.log);
    assert_eq!((bed.committed("t"), bed.committed("u")), (Some(3), Some(3)));
}

#[test]
fn a_state_file_without_sense_is_an_obstacle() {
    let bed = seven_are_read();
    fs::write(bed.site.path("consumer.state/offsets"), "worker-offsets 1\n0 5 ").unwrap();
    let ended = reset(&bed, &["--to-earliest", "--execute"], 1);
    assert_eq!(
        ended.lines_with(&["refused: the state directory", "consumer.state", "line 2"]).len(),
        1,
        "{:?}",
        ended.log
    );
    assert_eq!(bed.committed("t"), Some(7));
    reset(&bed, &["--to-earliest", "--execute", "--force"], 0);
    assert_eq!(bed.committed("t"), Some(0));
}

#[test]
fn bad_input_is_told_and_nothing_is_changed() {
    let bed = seven_are_read();
    let dear = "2026-11-21T18:00:00+08:00";
    for (arguments, code, words) in [
        (&["--topic", "t", "--partition", "0,3", "--to-latest"][..], 2, &["topic t has no partition 3", "0 to 0"][..]),
        (&["--topic", "tt", "--to-latest"], 2, &["\"tt\"", "consumer.topics", "did you mean t?"]),
        (&["--topic", "gone", "--to-latest"], 2, &["there is no topic gone"]),
        (&["--all-topics", "--partition", "1", "--to-latest"], 2, &["--partition", "--all-topics"]),
        (&["--topic", "t", "--topic", "gone", "--partition", "0", "--to-latest"], 2, &["exactly one --topic"]),
        (&["--to-latest"], 2, &["--topic"]),
        (&["--topic", "t"], 2, &["--to-earliest"]),
        (&["--topic", "t", "--to-latest", "--to-earliest"], 2, &["cannot be used with"]),
        (&["--topic", "t", "--to-offset", "-1"], 2, &["-1"]),
        (&["--topic", "t", "--to-time", "yesterday"], 2, &["is no time", dear]),
        (&["--topic", "t", "--to-time", "2026-11-21T18:00:00"], 2, &["has no zone", dear]),
        (&["--topic", "t", "--to-time", "1763748000"], 2, &["as seconds 2025-11-21T18:00:00Z", dear]),
    ] {
        let config = bed.config(&["t", "gone"]);
        let ended = run(&bed, &config, "reset", &[arguments, &["--execute"]].concat());
        let text = ended.log.join("\n");
        assert_eq!(ended.code(), Some(code), "{arguments:?}: {text}");
        assert!(words.iter().all(|word| text.contains(word)), "{arguments:?}: {text}");
    }
    bed.server.create_topic("fresh", 1).unwrap();
    let ended = run(&bed, &bed.config(&["fresh"]), "reset", &["--topic", "fresh", "--shift-by", "5", "--execute"]);
    assert_eq!((ended.code(), ended.lines_with(&["topic=fresh partition=0", "nothing committed"]).len()), (Some(2), 1));
    assert_eq!((bed.committed("t"), bed.committed("fresh")), (Some(7), None));
}

#[test]
fn a_broker_that_can_not_be_reached_is_told() {
    let bed = seven_are_read();
    bed.server.stop(0).unwrap();
    for (command, arguments) in [
        ("show", &[][..]),
        ("reset", &["--all-topics", "--to-latest", "--execute"]),
        ("migrate", &["--to-shared", "--execute"]),
    ] {
        let ended = run(&bed, &bed.config(&["t"]), command, arguments);
        assert_eq!(ended.code(), Some(1), "{command}: {:?}", ended.log);
        assert_eq!(
            ended.lines_with(&["no connection to broker", &bed.server.bootstrap()[0]]).len(),
            1,
            "{:?}",
            ended.log
        );
    }
}

/// A question that is not answered, whichever it is: nothing is committed, for no group.
#[test]
fn without_every_answer_nothing_is_committed() {
    let bed = Bed::new(&["t", "u"]);
    for (topic, group) in [("t", "g-t"), ("u", "g-u")] {
        bed.fill(topic, 5);
        bed.server.set_committed(group, topic, 0, Some(3));
    }
    let refused = Fault::Error(code::TOPIC_AUTHORIZATION_FAILED);
    let orders = [
        Order::new(Api::Metadata, refused.clone()).topic("u").always(),
        Order::new(Api::ListOffsets, refused.clone()).topic("u").always(),
        Order::new(Api::OffsetFetch, refused.clone()).group("g-u").always(),
        Order::new(Api::DescribeGroups, Fault::Error(code::GROUP_AUTHORIZATION_FAILED)).group("g-u").always(),
    ];
    for order in orders {
        let id = bed.server.order(order.clone());
        let ended =
            run(&bed, &bed.config(&["t", "u"]), "reset", &["--all-topics", "--to-time", "1700000000000", "--execute"]);
        assert_eq!(ended.code(), Some(1), "{order:?}: {:?}", ended.log);
        assert_eq!(
            ended.lines_with(&["no answer about", "nothing was changed", "Authorization"]).len(),
            1,
            "{order:?}: {:?}",
            ended.log
        );
        bed.server.cancel(id);
    }
    assert_eq!(bed.server.requests(Api::OffsetCommit), 0);
}

#[test]
fn a_commit_that_fails_half_way_says_who_has_what() {
    let bed = seven_are_read();
    bed.server.create_topic("u", 2).unwrap();
    for partition in [0, 1] {
        bed.fill_as("u", partition, 5, Codec::None);
        bed.server.set_committed("g-u", "u", partition, Some(3));
    }
    bed.server.order(Order::new(Api::OffsetCommit, Fault::Error(code::TOPIC_AUTHORIZATION_FAILED)).partition("u", 1));
    let config = bed.config(&["t", "u"]);
    let ended = run(&bed, &config, "reset", &["--all-topics", "--to-earliest", "--execute"]);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.lines_with(&["the commit to group g-u failed", "TopicAuthorizationFailed"]).len(), 1);
    let words: Vec<String> =
        ended.log.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["g-t t 0 0 0 done", "g-u u 0 0 0 done", "g-u u 1 0 3 not done"] {
        assert!(words.iter().any(|words| words == line), "{line}: {words:?}");
    }
    // The state file has what was committed, also of what came before the failure.
    bed.server.set_committed("g-t", "t", 0, None);
    assert_eq!(delivered_next(&bed, &bed.config(&["t"]), 7), (0..10).collect::<Vec<_>>());
    // Again, without the fault.
    let ended = run(&bed, &config, "reset", &["--all-topics", "--to-earliest", "--execute"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    assert_eq!(bed.server.committed("g-u", "u", 1), Some(0));
    assert!(bed.site.records().len() >= 17 && bed.server.await_committed("g-t", "t", 0, 0, PATIENCE));
}

/// The configured state directory is the one beside the file, by another name.
#[test]
fn one_state_directory_by_two_names_is_locked_once() {
    let bed = seven_are_read();
    std::os::unix::fs::symlink(bed.site.path("consumer.state"), bed.site.path("link")).unwrap();
    let config = bed.config(&["t"]).set("state", "dir", format!("'{}'", bed.site.path("link").display()));
    let ended = run(&bed, &config, "reset", &["--topic", "t", "--to-offset", "5", "--execute"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert_eq!(bed.committed("t"), Some(5));
}
