//! `worker lag`: the numbers of each partition, in a table, as JSON, again and again.

use std::fs::File;
use std::io::Read as _;

use broker::{Api, Fault, Options, Order};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::bed::Bed;
use crate::support::worker::{Ended, PATIENCE, Worker};

/// Runs `worker lag` on the topics of a configuration.
#[track_caller]
fn lag(bed: &Bed, config: &str, arguments: &[&str]) -> Ended {
    let file = bed.site.write_config(config).display().to_string();
    Worker::run(&[&["lag", "-c", &file], arguments].concat())
}

/// The words of the line of a partition.
fn words<'a>(ended: &'a Ended, topic: &str, partition: &str) -> Vec<&'a str> {
    let lines = ended.stdout.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = lines.filter(|words| words.get(1) == Some(&topic) && words.get(2) == Some(&partition));
    let line = found.next().unwrap_or_else(|| panic!("{topic} {partition} in {:#?} {:#?}", ended.stdout, ended.log));
    assert_eq!(found.next(), None);
    line
}

/// Topics in every place that a group can have.
fn scene() -> (Bed, Vec<&'static str>) {
    let topics = ["normal", "idle", "expired", "beyond", "none", "empty"];
    let bed = Bed::new(&topics);
    for topic in &topics[..5] {
        bed.fill(topic, 10);
    }
    bed.server.with_log("expired", 0, |log| log.delete_records(6)).unwrap();
    for (topic, committed) in [("normal", 4), ("idle", 10), ("expired", 4), ("beyond", 12)] {
        bed.server.set_committed(&format!("g-{topic}"), topic, 0, Some(committed));
    }
    (bed, [&topics[..], &["gone"]].concat())
}

#[test]
fn every_place_that_a_group_can_have() {
    let (bed, topics) = scene();
    let ended = lag(&bed, &bed.config(&topics).to_string(), &[]);
    assert_eq!((ended.code(), ended.log.as_slice()), (Some(0), &[][..]));
    assert_eq!(ended.stdout.len(), 1 + 7, "{:#?}", ended.stdout);
    let table = [
        ("normal", "0", "4 0 10 6 6 0 behind"),
        ("idle", "0", "10 0 10 0 0 0 idle"),
        ("expired", "0", "4 6 10 6 4 2 out-of-range"),
        ("beyond", "0", "12 0 10 -2 0 0 out-of-range"),
        ("none", "0", "- 0 10 - 10 0 not-started"),
        ("empty", "0", "- 0 0 - 0 0 empty"),
        ("gone", "-", "- - - - - - missing"),
    ];
    for (topic, partition, rest) in table {
        let words = words(&ended, topic, partition);
        assert_eq!(words[0], format!("g-{topic}"));
        assert_eq!(words[3..].join(" "), rest, "{topic}");
    }
    // Nothing was made or moved by asking.
    assert_eq!(bed.server.auto_created(), [""; 0]);
    assert_eq!((bed.committed("normal"), bed.committed("none")), (Some(4), None));
    assert_eq!(bed.server.requests(Api::OffsetCommit), 0);
}

#[test]
fn json_has_the_same_and_null_where_there_is_nothing() {
    let (bed, topics) = scene();
    let ended = lag(&bed, &bed.config(&topics).to_string(), &["--json", "expired", "none", "gone"]);
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.stdout.len(), 1);
    let round: serde_json::Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let partitions = round["partitions"].as_array().unwrap();
    let topics: Vec<_> = partitions.iter().map(|line| line["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["expired", "none", "gone"]);
    let expired = &partitions[0];
    assert_eq!((&expired["group"], &expired["verdict"]), (&"g-expired".into(), &"out-of-range".into()));
    let numbers = ["partition", "current_offset", "log_start_offset", "log_end_offset", "lag", "readable", "expired"];
    assert_eq!(numbers.map(|key| expired[key].as_i64().unwrap()), [0, 4, 6, 10, 6, 4, 2]);
    assert!(partitions[1]["current_offset"].is_null() && partitions[1]["lag"].is_null());
    assert!(partitions[2]["partition"].is_null() && partitions[2]["log_end_offset"].is_null());
    assert!(round["at_unix_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[test]
fn in_single_mode_all_topics_have_the_one_group() {
    let bed = Bed::new(&["a", "b"]);
    bed.fill("b", 3);
    bed.server.set_committed("g", "b", 0, Some(1));
    let config = bed.config(&["a", "b"]).set("consumer", "multi_consumer_mode", false);
    let ended = lag(&bed, &config.to_string(), &[]);
    assert_eq!(words(&ended, "a", "0")[..1], ["g"]);
    assert_eq!(words(&ended, "b", "0")[3..].join(" "), "1 0 3 2 2 0 behind");
    assert_eq!(lag(&bed, &config.to_string(), &["b"]).stdout.len(), 2);
}

#[test]
fn a_stall_takes_longer_than_a_commit_may() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    bed.server.set_committed("g-t", "t", 0, Some(4));
    // A commit every 0.1 s, a fetch of 0.2 s, and a second.
    let ended = lag(&bed, &bed.config(&["t"]).to_string(), &["--interval", "1.4"]);
    assert_eq!(words(&ended, "t", "0")[9], "stalled");
}

#[test]
fn watching_prints_a_line_a_partition_and_look_with_rates() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 100);
    bed.server.set_committed("g-t", "t", 0, Some(10));
    let file = bed.site.write_config(&bed.config(&["t"]).to_string());
    let mut command = Worker::command();
    command.arg("lag").arg("-c").arg(file).args(["--watch", "--interval", "0.2"]);
    let worker = Worker::spawn(command);
    let first = worker.wait_stdout(|line| line.contains(" g-t "), PATIENCE);
    assert!(first.ends_with(" -  behind"), "{first}");
    bed.server.set_committed("g-t", "t", 0, Some(60));
    let moving = worker.wait_stdout(|line| line.ends_with("catching-up"), PATIENCE);
    let words: Vec<&str> = moving.split_whitespace().collect();
    assert_eq!(words[1..10].join(" "), "g-t t 0 60 0 100 40 40 0", "{moving}");
    let (consumed, produced): (f64, f64) = (words[10].parse().unwrap(), words[11].parse().unwrap());
    assert!(consumed > 1.0 && produced == 0.0 && words[12].ends_with('s'), "{moving}");
    // A broker that goes away ends nothing.
    bed.server.stop(0).unwrap();
    worker.wait_stdout(|line| line.contains("no connection to broker"), PATIENCE);
    bed.server.start_again(0).unwrap();
    bed.server.set_committed("g-t", "t", 0, Some(100));
    worker.wait_stdout(|line| line.ends_with(" idle"), PATIENCE);
    let titles = worker.stdout().iter().filter(|line| line.starts_with("TIME ")).count();
    assert_eq!(titles, 1);
}

#[test]
fn on_a_terminal_it_is_drawn_in_place() {
    let topics = ["a", "b", "c", "d", "e"];
    let bed = Bed::new(&topics);
    bed.fill("d", 7);
    let file = bed.site.write_config(&bed.config(&topics).to_string());
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = File::options().read(true).write(true).open(ptsname(&master, vec![]).unwrap().to_str().unwrap());
    let terminal = terminal.unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 6, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = Worker::command();
    command.arg("lag").arg("-c").arg(file).args(["--watch", "--interval", "0.1"]).stdout(terminal);
    let worker = Worker::spawn_as_it_is(command);
    let (mut master, mut screen) = (File::from(master), String::new());
    while screen.matches("\x1b[J").count() < 3 {
        let mut bytes = [0; 4096];
        let count = master.read(&mut bytes).unwrap();
        screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let frames: Vec<&str> = screen.split("\x1b[J").collect();
    assert!(frames[0].starts_with("\x1b[2J\x1b[Hworker lag, every 0.1 s"), "{screen:?}");
    assert!(frames[1].starts_with("\x1b[H") && !frames[1].contains("\x1b[2J"), "{screen:?}");
    let lines: Vec<&str> = frames[1].split("\x1b[K").map(|line| line.trim_matches(['\r', '\n'])).collect();
    assert_eq!(lines.len(), 6, "as many as there are on the terminal: {lines:?}");
    assert!(lines.iter().all(|line| line.trim_start_matches("\x1b[H").len() <= 60), "{lines:?}");
    assert!(lines[2].starts_with("d ") && lines[4] == "and 3 more, with less to read", "{lines:?}");
    drop(worker);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let topics: Vec<String> = (0..300).map(|n| format!("topic-{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let bed = Bed::new(&topics);
    let file = bed.site.write_config(&bed.config(&topics).to_string());
    for arguments in ["", "--json", "--watch --interval 0.1"] {
        let script = format!(
            "'{}' lag -c '{}' {arguments} | head -n 1; exit ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_worker"),
            file.display()
        );
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]);
        let ended = Worker::spawn(command).exit(PATIENCE);
        assert_eq!((ended.code(), ended.stdout.len(), ended.log.as_slice()), (Some(0), 1, &[][..]), "{arguments}");
    }
}

#[test]
fn a_cluster_that_cannot_be_asked_is_named() {
    let bed = Bed::new(&["t", "u"]);
    bed.server.stop(0).unwrap();
    for arguments in [&[][..], &["--json"], &["--watch"]] {
        let ended = lag(&bed, &bed.config(&["t", "u"]).to_string(), arguments);
        assert_eq!(ended.code(), Some(1), "{arguments:?}");
        if arguments == ["--json"] {
            let round: serde_json::Value = serde_json::from_str(&ended.stdout[0]).unwrap();
            let lines = round["partitions"].as_array().unwrap();
            let told: Vec<_> = lines.iter().map(|line| (line["topic"].as_str(), line["verdict"].as_str())).collect();
            assert_eq!(told, [(Some("t"), Some("unknown")), (Some("u"), Some("unknown"))]);
            assert!(lines[0]["verdict_text"].as_str().unwrap().contains("no connection to broker"), "{round}");
        } else {
            assert_eq!(ended.stdout.len(), 3, "{arguments:?} {:?}", ended.stdout);
            for topic in ["t", "u"] {
                let line = words(&ended, topic, "-").join(" ");
                let expected = format!("g-{topic} {topic} - - - - - - - unknown (no connection to broker 127.0.0.1:");
                assert!(line.starts_with(&expected), "{line}");
            }
        }
        assert!(ended.log[0].starts_with("no connection to broker 127.0.0.1:"), "{:?}", ended.log);
        assert!(ended.log[0].contains("check kafka.bootstrap_servers"), "{:?}", ended.log);
        assert_eq!(ended.log.len(), 1);
    }
}

#[test]
fn what_one_group_does_not_say_is_told_beside_the_others() {
    let bed = Bed::with(Options::default(), &["a", "b"]);
    bed.fill("a", 3);
    bed.server.set_committed("g-b", "b", 0, Some(0));
    bed.server.order(Order::new(Api::OffsetFetch, Fault::Error(16)).topic("a").always());
    let config = bed.config(&["a", "b"]).to_string();
    let ended = lag(&bed, &config, &[]);
    assert_eq!(ended.code(), Some(0));
    assert!(
        ended.stdout[1].ends_with("unknown (the broker refused OffsetFetch: NotCoordinator)"),
        "{:?}",
        ended.stdout
    );
    assert_eq!(words(&ended, "b", "0")[9], "empty");
    // Of all that was asked nothing is known: that is a failure.
    let ended = lag(&bed, &config, &["a"]);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(
        words(&ended, "a", "0")[3..].join(" "),
        "- - - - - - unknown (the broker refused OffsetFetch: NotCoordinator)"
    );
    assert_eq!(ended.log, ["the broker refused OffsetFetch: NotCoordinator"]);
    // So it is where each topic is refused.
    let refused = Fault::Error(broker::fault::code::TOPIC_AUTHORIZATION_FAILED);
    bed.server.order(Order::new(Api::Metadata, refused).always());
    let ended = lag(&bed, &config, &[]);
    assert_eq!(ended.code(), Some(1));
    for topic in ["a", "b"] {
        assert_eq!(words(&ended, topic, "-")[9..12], ["failing", "(the", "broker"]);
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_a_usage_error() {
    let bed = Bed::new(&["orders", "prices"]);
    let config = bed.config(&["orders", "prices"]).to_string();
    let ended = lag(&bed, &config, &["order", "prices", "x"]);
    assert_eq!((ended.code(), ended.stdout.len()), (Some(2), 0));
    assert!(ended.log[0].starts_with("topic \"order\" is not in consumer.topics of "), "{:?}", ended.log);
    assert!(ended.log[0].ends_with("did you mean orders?") && ended.log[1].contains("\"x\""), "{:?}", ended.log);
    for interval in ["0", "-1", "soon", "1e9", "nan"] {
        let ended = lag(&bed, &config, &[&format!("--interval={interval}")]);
        assert_eq!(ended.code(), Some(2), "{interval}");
        assert!(ended.log[0].contains("--interval"), "{:?}", ended.log);
    }
    assert_eq!(Worker::run(&["lag", "-c", "/no/such/file.toml"]).code(), Some(2));
    let ended = lag(&bed, "[kafka]\n", &[]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.log.iter().any(|line| line.contains("bootstrap_servers")), "{:?}", ended.log);
    assert_eq!(bed.server.connections(), 0);
}
