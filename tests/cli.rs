//! What the program says to whoever calls it, and the exit code.

use crate::support::bed::Bed;
use crate::support::worker::{Site, Worker};

#[test]
fn without_arguments_it_says_how_it_is_called() {
    let ended = Worker::run(&[]);
    assert_eq!(ended.code(), Some(2));
    assert_eq!(ended.lines_with(&["Usage:"]).len(), 1, "{}", ended.log.join("\n"));
    assert!(ended.stdout.is_empty());
}

#[test]
fn what_it_does_not_know_is_a_usage_error() {
    for arguments in [&["--no-such-option"][..], &["no-such-command"], &["-c"], &["check"], &["-c", "a", "-c", "b"]] {
        let ended = Worker::run(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}");
        assert!(ended.log[0].starts_with("error: "), "{arguments:?}: {}", ended.log.join("\n"));
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let ended = Worker::run(&["--version"]);
    assert_eq!(
        (ended.code(), ended.stdout.as_slice()),
        (Some(0), &[format!("worker {}", env!("CARGO_PKG_VERSION"))][..])
    );
    let ended = Worker::run(&["--help"]);
    assert_eq!(ended.code(), Some(0));
    assert!(ended.stdout.iter().any(|line| line.contains("--config")));
    assert!(ended.log.is_empty());
}

#[test]
fn a_missing_file_is_named() {
    for arguments in [&["-c", "/no/such/file.toml"][..], &["check", "-c", "/no/such/file.toml"]] {
        let ended = Worker::run(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}");
        assert_eq!(ended.lines_with(&["/no/such/file.toml"]).len(), 1, "{}", ended.log.join("\n"));
    }
}

#[test]
fn check_prints_what_holds_or_everything_that_is_wrong() {
    let bed = Bed::new(&["t"]);
    let good = bed.site.write_config(&bed.config(&["t"]).to_string()).display().to_string();
    let ended = Worker::run(&["check", "-c", &good]);
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    assert!(ended.stdout.last().unwrap().contains("correct; topics=1"), "{:?}", ended.stdout);
    assert!(ended.stdout.iter().any(|line| line.contains("\"g-t\"")), "{:?}", ended.stdout);
    assert!(ended.log.is_empty());

    let config = bed.config(&["t"]).set("consumer", "max_poll_recrods", 5).set("commit", "interval_ms", "'soon'");
    let bad = bed.site.write_config(&config.to_string()).display().to_string();
    for arguments in [&["check", "-c", &bad][..], &["-c", &bad]] {
        let ended = Worker::run(arguments);
        assert_eq!(ended.code(), Some(2));
        assert!(ended.stdout.is_empty());
        let text = ended.log.join("\n");
        for words in ["max_poll_recrods", "max_poll_records", "interval_ms", &bad] {
            assert!(text.contains(words), "{words} in:\n{text}");
        }
    }
    assert_eq!(bed.server.connections(), 0);
}

#[test]
fn the_level_on_the_command_line_goes_before_the_file() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let worker = bed.site.start_with(&bed.config(&["t"]).to_string(), &["--log-level", "error"]);
    bed.await_all("t", 0);
    let ended = bed.stop(worker);
    assert_eq!(ended.log, [""; 0]);
}

#[test]
fn a_configuration_from_the_environment() {
    let site = Site::new();
    let file = site.write_config(
        "[kafka]\nbootstrap_servers = '${NO_SUCH_VARIABLE}'\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\n",
    );
    let ended = Worker::run(&["check", "-c", &file.display().to_string()]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.log.join("\n").contains("NO_SUCH_VARIABLE"), "{}", ended.log.join("\n"));
}

#[test]
fn a_level_on_the_command_line_that_is_none_is_a_usage_error() {
    let bed = Bed::new(&["t"]);
    let config = bed.site.write_config(&bed.config(&["t"]).to_string());
    let ended = Worker::run(&["-c", &config.display().to_string(), "--log-level", "inf"]);
    assert_eq!(ended.code(), Some(2));
    let text = ended.log.join("\n");
    assert!(text.contains("--log-level") && text.contains("did you mean info"), "{text}");
    // What is wrong with the file is told at the same time.
    let ended = Worker::run(&["-c", "/nonexistent/consumer.toml", "--log-level", "inf"]);
    let text = ended.log.join("\n");
    assert!(text.contains("did you mean info") && text.contains("there is no such file"), "{text}");
}

/// librdkafka takes each of these alone, and with both makes no consumer at all: the start would fail for ever.
#[cfg(feature = "librdkafka")]
#[test]
fn what_the_new_protocol_of_groups_refuses_is_a_wrong_configuration() {
    let site = Site::new();
    let file = site.write_config(
        "[kafka]\nbootstrap_servers = 'localhost:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\nmembership = 'group'\n\
         [kafka.librdkafka]\n'group.protocol' = 'consumer'\n'session.timeout.ms' = 6000\n'heartbeat.interval.ms' = 500\n\
         'partition.assignment.strategy' = 'range'\n",
    );
    let path = file.to_str().unwrap();
    for arguments in [&["check", "-c", path][..], &["-c", path]] {
        let ended = Worker::run(arguments);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        let said = [ended.log, ended.stdout].concat().join("\n");
        for (line, key, to_do) in [
            (9, "session.timeout.ms", "set group.consumer.session.timeout.ms in the brokers' configuration"),
            (10, "heartbeat.interval.ms", "set group.consumer.heartbeat.interval.ms in the brokers' configuration"),
            (11, "partition.assignment.strategy", "see group.remote.assignor"),
        ] {
            let lead = format!("{path}:{line}:1: kafka.librdkafka.{key}: ");
            let told = said.lines().find(|said| said.starts_with(&lead)).unwrap_or_else(|| panic!("{lead} in {said}"));
            assert!(told.contains(to_do), "{told}");
        }
    }
}
