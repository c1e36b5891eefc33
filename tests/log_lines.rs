//! The form of the daemon's log: text, JSON, and what the journal of systemd gets.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::worker::{Ended, Worker};

/// A whole life of a daemon on one topic with a record that tries to forge details.
fn life(bed: &Bed, config: &str, arguments: &[&str]) -> Ended {
    let worker = bed.site.start_with(config, arguments);
    eventually("the records are in the log", || worker.count(&["offset=4"]) + worker.count(&["\"offset\":\"4\""]) == 1);
    bed.stop(worker)
}

fn filled() -> Bed {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    bed
}

#[test]
fn as_json_every_line_is_one_object() {
    let bed = filled();
    let config = bed.config(&["t"]).set("consumer", "sink", "'log'").set("log", "format", "'json'").to_string();
    let ended = life(&bed, &config, &[]);
    assert_eq!(ended.code(), Some(0));
    let lines: Vec<serde_json::Value> = ended
        .log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 24 && timestamp.ends_with('Z') && &timestamp[19..20] == ".", "{timestamp}");
        assert!(line["target"].as_str().unwrap().starts_with("worker"), "{line}");
        assert!(["INFO", "WARN"].contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let with = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert_eq!(with("consumer started")[0]["fields"]["group_id"], "g-t");
    let records = with("record");
    assert_eq!(records.len(), 5);
    assert_eq!((&records[4]["fields"]["offset"], &records[4]["fields"]["topic"]), (&"4".into(), &"t".into()));
    assert_eq!(with("stopped")[0]["fields"]["exit_code"], "0");

    // The command line goes before the file.
    let site = filled();
    let config = site.config(&["t"]).set("consumer", "sink", "'log'").set("log", "format", "'json'").to_string();
    let ended = life(&site, &config, &["--log-format", "text"]);
    assert_eq!(ended.lines_with(&["INFO  consumer started topic=t group_id=g-t"]).len(), 1, "{}", ended.log.join("\n"));
}

#[test]
fn a_format_that_is_none_is_a_usage_error() {
    let bed = Bed::new(&["t"]);
    let file = bed.site.write_config(&bed.config(&["t"]).set("log", "format", "'jsno'").to_string());
    let file = file.display().to_string();
    let ended = Worker::run(&["check", "-c", &file]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.log.join("\n").contains("log.format"), "{}", ended.log.join("\n"));
    let ended = Worker::run(&["-c", &file, "--log-format", "xml"]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.log.join("\n").contains("[possible values: text, json]"), "{}", ended.log.join("\n"));
}

/// A file stands for the journal's socket: what counts is that `JOURNAL_STREAM` names it.
#[test]
fn the_journal_gets_priorities_instead_of_times() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let config = bed.config(&["t"]).set("log", "level", "'debug'").to_string();
    let config = bed.site.write_config(&config);
    let run = |format: &str, own: bool| {
        let path = bed.site.path("journal");
        let journal = File::create(&path).unwrap();
        let found = journal.metadata().unwrap();
        let other = u64::from(!own);
        let mut command = Worker::command();
        command
            .arg("-c")
            .arg(&config)
            .args(["--log-format", format])
            .env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino() + other))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(journal);
        let mut child = command.spawn().unwrap();
        let text = || std::fs::read_to_string(&path).unwrap();
        eventually("it has started", || text().contains("consumers started"));
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(child.wait().unwrap().success());
        text()
    };
    let text = run("text", true);
    for line in text.lines() {
        let (priority, words) = line.split_at(3);
        assert!(["<3>", "<4>", "<6>", "<7>"].contains(&priority), "{line}");
        assert!(words.starts_with(|first: char| first.is_ascii_lowercase()), "no time, no level, no colour: {line}");
    }
    assert!(text.contains("\n<6>stopped exit_code=0\n"), "{text}");
    assert!(run("json", true).lines().all(|line| line[..4] == *"<6>{" || line[..4] == *"<7>{" || line[..4] == *"<4>{"));
    let text = run("text", false);
    assert!(text.lines().all(|line| line.starts_with("20") && line.contains('Z')), "{text}");
}
