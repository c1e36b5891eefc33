//! Given a program with the worker inside: its own sinks get what the daemon's would, with the same promises.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use worker::embed::BuildError;
use worker::record::{Records, TopicPartition};
use worker::sink::{Sink, Stopped, Why};

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::worker::{Config, Worker};

/// The example as it stands in the package, built if nobody has yet.
fn example() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_worker")).parent().unwrap().join("examples/latest");
    // Whole builds have it; a single test may not. What is up to date costs nothing.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", "latest"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if cfg!(not(feature = "librdkafka")) {
        cargo.arg("--no-default-features");
    }
    if !program.exists() {
        assert!(cargo.status().unwrap().success());
    }
    program
}

fn keyed(key: Option<&str>, value: Option<&str>) -> broker::NewRecord {
    let bytes = |text: &str| text.as_bytes().to_vec();
    broker::NewRecord { key: key.map(bytes), value: value.map(bytes), ..crate::support::bed::numbered(0) }
}

fn latest(bed: &Bed) -> Config {
    // The crate `kafka` makes no difference between null and empty values.
    let config = bed.config(&["t"]).set("kafka", "client", "'librdkafka'").set("consumer", "sink", "'latest'");
    config.set("consumer", "on_failure", "'dead_letter'").set("dead_letter", "path", "'@DIR@/dead.jsonl'")
}

fn start(bed: &Bed, config: &Config) -> Worker {
    let file = bed.site.write_config(&config.to_string());
    let mut command = Command::new(example());
    command.arg(file).arg(bed.site.path("latest"));
    Worker::spawn_as_it_is(command)
}

/// What the example has written, by key.
fn files(bed: &Bed) -> BTreeMap<String, String> {
    let Ok(directory) = fs::read_dir(bed.site.path("latest/t")) else { return BTreeMap::new() };
    let entries = directory.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_none());
    let pair = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let key = name.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
        (String::from_utf8(key.collect()).unwrap(), fs::read_to_string(path).unwrap())
    };
    entries.map(pair).collect()
}

#[cfg(feature = "librdkafka")]
#[test]
fn the_example_keeps_the_newest_value_of_each_key() {
    let bed = Bed::new(&["t"]);
    let append = |records: &[(Option<&str>, Option<&str>)]| {
        let records = records.iter().map(|(key, value)| keyed(*key, *value));
        bed.server.with_log("t", 0, |log| log.append(records, broker::Codec::None)).unwrap();
    };
    append(&[(Some("a"), Some("1")), (Some("b"), Some("1")), (Some("a"), Some("2")), (Some("c/ü"), Some("3"))]);
    let worker = start(&bed, &latest(&bed));
    bed.await_committed("t", 0, 4);
    let of = |list: &[(&str, &str)]| {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(files(&bed), of(&[("a", "2"), ("b", "1"), ("c/ü", "3")]));

    append(&[(Some("b"), None), (None, Some("lost?")), (Some("a"), Some("9"))]);
    bed.await_committed("t", 0, 7);
    assert_eq!(files(&bed), of(&[("a", "9"), ("c/ü", "3")]));
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0), "{}", ended.log.join("\n"));
    let dead = fs::read_to_string(bed.site.path("dead.jsonl")).unwrap();
    assert!(dead.contains("it has no key") && dead.contains("lost?") && dead.lines().count() == 1, "{dead}");
}

/// Killed in the middle again and again, it ends with the newest value of every key.
#[cfg(feature = "librdkafka")]
#[test]
fn the_example_loses_nothing_when_it_is_killed() {
    const KEYS: usize = 50;
    const RECORDS: usize = 100_000;
    let bed = Bed::new(&["t"]);
    for first in (0..RECORDS).step_by(500) {
        let records = (first..first + 500).map(|n| keyed(Some(&format!("k{}", n % KEYS)), Some(&n.to_string())));
        bed.server.with_log("t", 0, |log| log.append(records, broker::Codec::None)).unwrap();
    }
    let config =
        latest(&bed).set("consumer", "max_poll_records", 100).more("[sink.latest]\nlanes = 3\norder = 'key'\n");
    let mut killed_at = Vec::new();
    for _ in 0..3 {
        let worker = start(&bed, &config);
        let all = i64::try_from(RECORDS).unwrap();
        let before = killed_at.last().copied().unwrap_or(0);
        eventually("it goes on", || bed.committed("t").is_some_and(|at| at > before || at == all));
        worker.kill9();
        killed_at.push(bed.committed("t").unwrap());
    }
    assert!(usize::try_from(killed_at[0]).unwrap() < RECORDS, "killed in the middle: {killed_at:?}");
    println!("killed at {killed_at:?} of {RECORDS}");
    let worker = start(&bed, &config);
    worker.wait_started();
    bed.await_committed("t", 0, i64::try_from(RECORDS).unwrap());
    assert_eq!(worker.stop().code(), Some(0));
    let newest = (RECORDS - KEYS..RECORDS).map(|n| (format!("k{}", n % KEYS), n.to_string()));
    assert_eq!(files(&bed), newest.collect());
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<i64>>>);

impl Sink for Kept {
    fn write(&mut self, _: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let mut kept = self.0.lock().unwrap();
        for (done, record) in records.iter().enumerate() {
            if record.offset.get() == 3 {
                return Err(Stopped { done, why: Why::Reject("three".to_owned()) });
            }
            kept.push(record.offset.get());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }
}

fn build(bed: &Bed, config: &Config, sinks: &[(&str, Kept)]) -> Result<worker::Worker, BuildError> {
    let file = bed.site.write_config(&config.to_string());
    let builder = sinks.iter().fold(worker::Worker::builder().config_file(file), |builder, (name, sink)| {
        let sink = sink.clone();
        builder.sink(name, move |_| Ok(sink.clone()))
    });
    builder.build()
}

#[test]
fn it_runs_on_a_thread_and_is_reloaded_and_stopped_from_another() {
    let bed = Bed::new(&["t", "u"]);
    bed.fill("t", 6);
    bed.fill("u", 3);
    let kept = Kept::default();
    let config =
        |topics: &[&str]| bed.config(topics).set("consumer", "sink", "'kept'").set("consumer", "on_failure", "'drop'");
    let inside = build(&bed, &config(&["t"]), &[("kept", kept.clone())]).unwrap();
    let stopper = inside.stopper();
    let runs = thread::spawn(move || inside.run());
    bed.await_committed("t", 0, 6);
    assert_eq!(*kept.0.lock().unwrap(), [0, 1, 2, 4, 5]);
    bed.site.write_config(&config(&["t", "u"]).to_string());
    stopper.reload();
    bed.await_committed("u", 0, 3);
    stopper.stop();
    assert_eq!(runs.join().unwrap(), Ok(()));
}

#[test]
fn what_can_not_be_built_is_told() {
    let bed = Bed::new(&["t"]);
    let config = bed.config(&["t"]).set("consumer", "sink", "'kept'");
    let why = |config: &Config, names: &[&str]| {
        let sinks: Vec<_> = names.iter().map(|name| (*name, Kept::default())).collect();
        build(&bed, config, &sinks).map(drop).unwrap_err().to_string()
    };
    assert!(why(&config, &[]).contains("consumer.sink: is \"kept\", and there is no such sink"));
    assert!(why(&config, &["kept", "drop"]).contains("that of a sink that there is always"));
    assert!(why(&config, &["kept", "a b"]).contains("can't be a sink's name"));
    assert!(why(&config, &["kept", "kept"]).contains("two sinks have the name \"kept\""));
    let other = config.set("sink.kept", "type", "'file'");
    let told = why(&other, &["kept"]);
    assert!(told.contains("sink.kept.type: is no key of [sink.kept]; the keys here are lanes, order"), "{told}");
    assert!(worker::Worker::builder().build().map(drop).unwrap_err().to_string().contains("no configuration"));
}

/// A sink that can't be made ends the run before anything is connected.
#[test]
fn a_sink_that_can_not_be_made_is_a_failure() {
    let text =
        "[kafka]\nbootstrap_servers = '127.0.0.1:1'\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\nsink = 'mine'\n";
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{text}[state]\ndir = '{}'\n", dir.path().display());
    let inside = worker::Worker::builder().config_text(text).sink("mine", |_| Err::<Kept, _>("no room".to_owned()));
    let failed = inside.build().unwrap().run().unwrap_err();
    assert_eq!(failed.exit_code(), 1);
}
