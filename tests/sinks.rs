//! Given such a sink, what arrives in it, and what happens while it fails.

use std::fs;
use std::process::Command;

use broker::{Codec, NewRecord};

use crate::support::bed::{Bed, noise, numbered};
use crate::support::worker::{PATIENCE, Worker, sink};

fn raw(key: Option<&[u8]>, value: Option<&[u8]>) -> NewRecord {
    NewRecord { timestamp_ms: 0, key: key.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec) }
}

/// Null, empty, large, not UTF-8, and what JSON has to escape.
#[test]
fn every_value_arrives_as_it_is() {
    let bed = Bed::new(&["none", "gzip", "snappy"]);
    let large = noise(1 << 20, 3);
    let text = "x".repeat(1 << 20);
    for (topic, codec) in [("none", Codec::None), ("gzip", Codec::Gzip), ("snappy", Codec::Snappy)] {
        let records = [
            raw(None, None),
            raw(Some(b""), Some(b"")),
            raw(Some(b"key"), None),
            raw(None, Some(b"value")),
            raw(Some(b"\xff\x00\xfe"), Some(b"\xc3\x28 no UTF-8")),
            raw(Some("Schlüssel 钥匙".as_bytes()), Some(b"\"quotes\" \\ \n \r \t \x01 \x7f")),
            raw(Some(b"large"), Some(&large)),
            raw(Some(&large), Some(b"large key")),
            raw(None, Some(text.as_bytes())),
        ];
        bed.server.with_log(topic, 0, |log| log.append(records.clone(), codec)).unwrap();
        for record in records {
            bed.server.with_log(topic, 0, |log| log.append([record], codec)).unwrap();
        }
    }
    let worker = bed.started(&bed.config(&["none", "gzip", "snappy"]));
    for topic in ["none", "gzip", "snappy"] {
        bed.await_all(topic, 0);
        assert_eq!(bed.arrived(topic, 0).len(), 18);
    }
    bed.stop(worker);
}

#[test]
fn a_raw_file_has_the_values_as_lines() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 3);
    let worker = bed.started(&bed.config(&["t"]).set("sink.out", "format", "'raw'"));
    bed.await_committed("t", 0, 3);
    bed.stop(worker);
    assert_eq!(fs::read_to_string(bed.site.out()).unwrap(), "value 0\nvalue 1\nvalue 2\n");
}

#[test]
fn standard_output_has_json_and_nothing_else() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 3);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "sink", "'stdout'"));
    bed.await_committed("t", 0, 3);
    let ended = bed.stop(worker);
    let records: Vec<_> = ended.stdout.iter().map(|line| sink::Rec::parse(line)).collect();
    assert_eq!(sink::offsets(&records, "t", 0), [0, 1, 2]);
    assert_eq!(records[1].text(), "value 1");
}

/// Whoever reads standard output goes away: the topic waits, and nothing of it is committed.
#[test]
fn standard_output_whose_reader_has_gone() {
    let bed = Bed::new(&["t", "other"]);
    let config = bed
        .config(&["t", "other"])
        .set("shutdown", "drain_timeout_ms", 500)
        .more("[[topic]]\nname = 't'\nsink = 'stdout'");
    let file = bed.site.write_config(&config.to_string());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let worker = {
        let mut command = Worker::command();
        command.arg("-c").arg(file).stdout(writer);
        Worker::spawn_as_it_is(command)
    };
    worker.wait_started();
    bed.fill("t", 5);
    bed.fill("other", 5);
    let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=stdout"]);
    assert!(line.contains("its reader has gone") && line.contains("topic=t partition=0 offset=0"), "{line}");
    bed.await_all("other", 0);
    let ended = bed.stop(worker);
    assert_eq!(bed.committed("t"), Some(0));
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=5 expired=0 reset=0");
}

/// A pipe that nobody reads: its lane stands still and can say nothing, so the supervisor says it.
#[test]
fn standard_output_that_nobody_reads() {
    let bed = Bed::new(&["t", "other"]);
    bed.fill("t", 5_000);
    let config = bed.config(&["t", "other"]).more("[[topic]]\nname = 't'\nsink = 'stdout'");
    let file = bed.site.write_config(&config.to_string());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let worker = {
        let mut command = Worker::command();
        command.arg("-c").arg(file).stdout(writer);
        Worker::spawn_as_it_is(command)
    };
    let line = worker.wait_words(&["WARN", "sink is slow, its topics wait sink=stdout since_ms=1"]);
    assert!(line.contains("a reader that does not read"), "{line}");
    bed.fill("other", 5);
    bed.await_all("other", 0);
    let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    worker.wait_words(&["INFO", "sink goes on sink=stdout after_ms=1"]);
    bed.await_committed("t", 0, 5_000);
    let ended = bed.stop(worker);
    assert!(reading.join().unwrap().unwrap() > 5_000);
    assert_eq!(ended.lines_with(&["sink=stdout"]).len(), 2, "{}", ended.log.join("\n"));
}

#[test]
fn the_log_has_a_line_a_record() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 2);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "sink", "'log'"));
    bed.await_committed("t", 0, 2);
    let ended = bed.stop(worker);
    let words = ["record topic=t partition=0 offset=1 key=\"k1\" value=\"value 1\""];
    assert_eq!(ended.lines_with(&words).len(), 1, "{}", ended.log.join("\n"));
}

#[test]
fn what_is_dropped_counts_as_delivered() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 20_000);
    let worker = bed.started(&bed.config(&["t"]).set("consumer", "sink", "'drop'"));
    bed.await_committed("t", 0, 20_000);
    assert_eq!(bed.stop(worker).sums("t"), "delivered=20000 committed=20000 in_flight=0 expired=0 reset=0");
}

#[test]
fn hup_goes_on_in_a_new_file_after_a_rename() {
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&bed.config(&["t"]));
    let mut line = 0;
    for round in 1..=3 {
        bed.fill("t", 100);
        bed.await_committed("t", 0, round * 100);
        fs::rename(bed.site.out(), bed.site.path(&format!("old.{round}"))).unwrap();
        worker.signal("HUP");
        line = worker.wait_words_after(line, &["sink reopened sink=out"]).0;
    }
    bed.fill("t", 100);
    bed.await_committed("t", 0, 400);
    bed.stop(worker);
    let mut all = Vec::new();
    for file in ["old.1", "old.2", "old.3", "out.jsonl"] {
        let records = sink::read(&bed.site.path(file));
        assert_eq!(records.len(), 100, "{file}");
        all.extend(records);
    }
    assert_eq!(sink::offsets(&all, "t", 0), (0..400).collect::<Vec<_>>());
}

/// `/dev/full`: every write fails with "no space left on device".
#[test]
fn a_full_disk_holds_its_own_topics_only() {
    let bed = Bed::new(&["full", "other"]);
    bed.fill("full", 10);
    bed.fill("other", 10);
    let config = bed
        .config(&["full", "other"])
        .set("sink.full", "type", "'file'")
        .set("sink.full", "path", "'/dev/full'")
        .set("shutdown", "drain_timeout_ms", 500)
        .more("[[topic]]\nname = 'full'\nsink = 'full'");
    let worker = bed.started(&config);
    let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=full"]);
    assert!(line.contains("/dev/full") && line.contains("free space on that file system"), "{line}");
    bed.await_all("other", 0);
    bed.fill("other", 10);
    bed.await_all("other", 0);
    assert_eq!(worker.count(&["sink fails"]), 1);
    let ended = bed.stop(worker);
    assert_eq!(ended.sums("full"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert_eq!(bed.committed("full"), Some(0));
}

/// The limit on the size of a file stands for a disk that is full for a while.
#[test]
fn a_sink_that_recovers_has_every_record_once() {
    let bed = Bed::new(&["t", "other"]);
    let config = bed
        .config(&["t", "other"])
        .set("sink.side", "type", "'file'")
        .set("sink.side", "path", "'@DIR@/side.jsonl'")
        .set("consumer", "max_poll_records", 50)
        .more("[[topic]]\nname = 'other'\nsink = 'side'");
    let file = bed.site.write_config(&config.to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap "" XFSZ; ulimit -S -f 60; exec "$0" -c "$1""#, env!("CARGO_BIN_EXE_worker")]);
    shell.arg(file);
    let worker = Worker::spawn(shell);
    worker.wait_started();
    for _ in 0..20 {
        bed.fill("t", 100);
    }
    let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=out"]);
    assert!(line.contains("out.jsonl") && line.contains("the limit on the size of a file"), "{line}");
    bed.fill("other", 100);
    bed.await_committed("other", 0, 100);
    let committed = bed.committed("t").unwrap();
    assert!(committed < 2_000, "{committed} of 2000 are committed");
    let unlimited = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &worker.pid().to_string()]).status();
    assert!(unlimited.unwrap().success(), "prlimit (of util-linux) raises the limit again");
    bed.await_all("t", 0);
    worker.wait_words(&["INFO", "sink works again sink=out"]);
    bed.stop(worker);
    bed.assert_all("t", 0);
}

#[test]
fn a_path_that_cannot_be_written_is_said_before_anything_starts() {
    let bed = Bed::new(&["t"]);
    fs::create_dir(bed.site.path("directory")).unwrap();
    for (path, words) in [
        ("@DIR@/no/such/out.jsonl", "does not exist; create it, or correct the path"),
        ("@DIR@/directory", "is a directory, not a file that lines can be appended to"),
        ("/proc/out.jsonl", "/proc/out.jsonl: open failed"),
    ] {
        let worker = bed.start(&bed.config(&["t"]).set("sink.out", "path", format!("'{path}'")));
        let ended = worker.exit(PATIENCE);
        assert_eq!(ended.code(), Some(1), "{}", ended.log.join("\n"));
        let said = ended.lines_with(&["ERROR", "cannot start", "[sink.out]", words]);
        assert_eq!(said.len(), 1, "{path}: {}", ended.log.join("\n"));
    }
    assert_eq!(bed.server.connections(), 0);
}

#[test]
fn two_workers_do_not_write_one_file() {
    let bed = Bed::new(&["t"]);
    let first = bed.started(&bed.config(&["t"]));
    let ended = bed.start(&bed.config(&["t"]).set("state", "dir", "'@DIR@/another'")).exit(PATIENCE);
    assert_eq!(ended.code(), Some(1));
    assert_eq!(ended.lines_with(&["ERROR", "already written by another process"]).len(), 1);
    bed.stop(first);
}

/// Half a line, as a crash in the middle of a write leaves it, is cut off and its record comes again.
#[test]
fn half_a_line_is_cut_off_at_the_next_start() {
    let bed = Bed::new(&["t"]);
    bed.server.with_log("t", 0, |log| log.append((0..10).map(numbered), Codec::None)).unwrap();
    bed.stop({
        let worker = bed.started(&bed.config(&["t"]));
        bed.await_all("t", 0);
        worker
    });
    let mut text = fs::read(bed.site.out()).unwrap();
    text.extend_from_slice(b"{\"topic\":\"t\",\"parti");
    fs::write(bed.site.out(), text).unwrap();
    let worker = bed.started(&bed.config(&["t"]));
    worker.wait_words(&["WARN", "half a line at the end of a file was cut off", "cut_bytes=19"]);
    bed.fill("t", 10);
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// Each of two sinks gets every record; while one of them takes nothing, nothing is committed, and the other goes on as
/// far as the topic's budget lets it.
#[test]
fn a_topic_with_two_sinks_is_done_when_both_have_its_records() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 300);
    bed.fill("u", 3);
    let config = bed
        .config(&["t", "u"])
        .set("sink.second", "type", "'file'")
        .set("sink.second", "format", "'raw'")
        .more("[[topic]]\nname = 't'\nsink = ['out', 'second']");
    let failing = config.clone().set("sink.second", "path", "'/dev/full'").set("shutdown", "drain_timeout_ms", 300);
    let worker = bed.started(&failing);
    worker.wait_words(&["WARN", "sink fails, its topics wait", "sink=second", "/dev/full"]);
    bed.await_committed("u", 0, 3);
    bed.site.wait_records(303, PATIENCE);
    let ended = worker.stop();
    assert!(ended.sums("t").starts_with("delivered=0 committed=0 in_flight=300 "), "{}", ended.sums("t"));

    let worker = bed.started(&config.set("sink.second", "path", "'@DIR@/second'"));
    bed.await_committed("t", 0, 300);
    bed.stop(worker);
    // At least once in the one, which had them all already; once in the other.
    let again: Vec<i64> = (0..300).chain(0..300).collect();
    assert_eq!(bed.arrived_offsets("t", 0), again);
    let second = fs::read_to_string(bed.site.path("second")).unwrap();
    assert_eq!(second, (0..300).map(|offset| format!("value {offset}\n")).collect::<String>());
}
