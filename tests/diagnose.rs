//! `worker diagnose`: one topic of each verdict, the worker beside it, who else uses a group, and what is wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use broker::log::Marker;
use broker::server::Member;
use broker::{Api, Codec};
use serde_json::Value;

use crate::support::bed::{Bed, numbered};
use crate::support::eventually;
use crate::support::kafka::free_ports;
use crate::support::web::{Web, answer, ok};
use crate::support::worker::{Config, Ended, Worker};

/// Longer than a commit every 0.1 s, a fetch of 0.2 s and a second.
const LONG_ENOUGH: &str = "1.6";

#[track_caller]
fn diagnose(bed: &Bed, config: &Config, arguments: &[&str]) -> Ended {
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let time = if arguments.contains(&"--for") { &[][..] } else { &["--for", LONG_ENOUGH] };
    Worker::run(&[&["diagnose", "-c", &file], time, arguments].concat())
}

/// Exit code, and each topic's object.
#[track_caller]
fn json(bed: &Bed, config: &Config, arguments: &[&str]) -> (i32, Value, BTreeMap<String, Value>) {
    let ended = diagnose(bed, config, &[&["--json"], arguments].concat());
    assert_eq!((ended.stdout.len(), ended.log.as_slice()), (1, &[][..]));
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let topics = report["topics"].as_array().unwrap().iter();
    let topics = topics.map(|topic| (topic["topic"].as_str().unwrap().to_owned(), topic.clone())).collect();
    (ended.code().unwrap(), report, topics)
}

fn lines(topic: &Value, key: &str) -> String {
    topic[key].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Does it again and again while `body` runs.
fn meanwhile<T>(mut again: impl FnMut(i64) + Send, body: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 1.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                again(turn);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// A configuration whose sink `w` is this service, which gets a record a request.
fn http(bed: &Bed, web: &Web) -> Config {
    let config = bed.config(&["t"]).set("sink.w", "type", "'http'").set("sink.w", "body", "'record'");
    config.set("sink.w", "url", format!("'{}'", web.url())).set("consumer", "sink", "'w'")
}

#[test]
fn a_topic_of_each_verdict() {
    let topics = [
        "idle", "empty", "catching", "falling", "still", "expired", "lz4", "zstd", "kept", "marked", "full", "shared",
        "new", "gone",
    ];
    let bed = Bed::new(&topics[..13]);
    let set = |topic: &str, at| bed.server.set_committed(&format!("g-{topic}"), topic, 0, Some(at));
    for topic in ["idle", "still", "expired", "kept", "full", "shared", "new"] {
        bed.fill(topic, 10);
    }
    bed.fill("catching", 10_000);
    bed.fill("falling", 1_000);
    bed.fill_as("lz4", 0, 5, Codec::Lz4);
    bed.fill_as("zstd", 0, 5, Codec::Zstd);
    bed.server.set_down_conversion("kept", false).unwrap();
    bed.server.with_log("expired", 0, |log| log.delete_records(6)).unwrap();
    // A transaction's marker, and behind it what can be read, of another transaction.
    let marked = |log: &mut broker::Log| {
        log.append_control(Marker::Commit, 1);
        log.append_transactional([numbered(1), numbered(2)], Codec::None);
    };
    bed.server.with_log("marked", 0, marked).unwrap();
    for (topic, at) in [("idle", 10), ("expired", 4), ("shared", 10)] {
        set(topic, at);
    }
    for topic in ["catching", "falling", "still", "lz4", "zstd", "kept", "marked", "full"] {
        set(topic, 0);
    }
    let member = Member { id: "m-1".into(), client_id: "old-service".into(), host: "/10.0.0.7".into() };
    bed.server.set_members("g-shared", vec![member]);
    let config = bed
        .config(&topics)
        .set("kafka", "client", "'kafka'")
        .set("sink.lost", "type", "'file'")
        .set("sink.lost", "path", "'@DIR@/no/such/directory/out'")
        .more("[[topic]]\nname = 'full'\nsink = 'lost'\n[[topic]]\nname = 'expired'\non_out_of_range = 'latest'\n");
    let committed_by_others = bed.server.requests(Api::OffsetCommit);
    let moves = |turn| {
        set("catching", 10 * turn);
        set("falling", turn);
        bed.fill("falling", 100);
    };
    let (code, report, found) = meanwhile(moves, || json(&bed, &config, &[]));
    let verdicts: Vec<(&str, &str)> =
        topics.iter().map(|topic| (*topic, found[*topic]["verdict"].as_str().unwrap())).collect();
    assert_eq!(
        verdicts,
        [
            ("idle", "idle"),
            ("empty", "empty"),
            ("catching", "catching-up"),
            ("falling", "falling-back"),
            ("still", "stalled"),
            ("expired", "out-of-range"),
            ("lz4", "unreadable"),
            ("zstd", "unreadable"),
            ("kept", "unreadable"),
            ("marked", "stalled"),
            ("full", "sink-failing"),
            ("shared", "shared-group"),
            ("new", "not-started"),
            ("gone", "missing"),
        ],
        "{report:#}"
    );
    assert_eq!((code, &report["needs_attention"]), (1, &Value::Bool(true)));
    let evidence = |topic: &str, words: &[&str]| {
        let text = lines(&found[topic], "evidence");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} of {topic} in:\n{text}"));
    };
    evidence("lz4", &["the batch of offsets 0 to 4 can't be read by this client (codec=lz4)"]);
    evidence("marked", &["the batch at offset 1 belongs to a transaction"]);
    for topic in ["lz4", "zstd", "kept", "marked"] {
        let (remedy, place) = (lines(&found[topic], "remedy"), format!("below [[topic]] name = \"{topic}\" in "));
        assert!(remedy.contains("client = \"auto\" (or \"librdkafka\")") && remedy.contains(&place), "{remedy}");
    }
    evidence("zstd", &["codec=zstd"]);
    evidence("kept", &["down-conversion is disabled"]);
    evidence(
        "expired",
        &["offset 4 was deleted by retention; the next start goes on at 10, and passes over 4 offsets"],
    );
    evidence("full", &["sink lost", "no/such/directory"]);
    evidence("shared", &["old-service at 10.0.0.7"]);
    evidence(
        "still",
        &[
            "CURRENT-OFFSET 0, LOG-START-OFFSET 0, LOG-END-OFFSET 10, LAG 10, READABLE 10",
            "group g-still has no members",
        ],
    );
    evidence("falling", &["CURRENT-OFFSET", "never caught up at these rates"]);
    evidence("catching", &[", caught up in "]);
    assert!(lines(&found["expired"], "remedy").contains("on_out_of_range = \"earliest\""));
    assert_eq!(found["still"]["partitions"][0]["lag"], 10);
    // Nothing was made, joined or committed by asking.
    assert_eq!(bed.server.requests(Api::OffsetCommit), committed_by_others);
    assert_eq!(bed.server.auto_created(), [""; 0]);
    assert!(!bed.site.path("consumer.state").exists());
}

#[test]
fn where_nothing_needs_attention_the_code_is_zero() {
    let bed = Bed::new(&["idle", "empty", "still"]);
    bed.fill("idle", 3);
    bed.fill("still", 3);
    bed.server.set_committed("g-idle", "idle", 0, Some(3));
    bed.server.set_committed("g-still", "still", 0, Some(1));
    let config = bed.config(&["idle", "empty", "still"]);
    let ended = diagnose(&bed, &config, &["idle", "empty"]);
    let text = ended.stdout.join("\n");
    assert_eq!((ended.code(), ended.log.as_slice()), (Some(0), &[][..]), "{text}");
    assert!(text.starts_with("worker: never ran here (state directory "), "{text}");
    assert!(
        text.contains("\nidle: idle\n  partition 0: CURRENT-OFFSET 3, ") && text.contains("\nempty: empty topic\n"),
        "{text}"
    );
    assert!(text.ends_with("s: 2 topics, none needs attention"), "{text}");
    let ended = diagnose(&bed, &config, &[]);
    let text = ended.stdout.join("\n");
    assert_eq!(ended.code(), Some(1), "{text}");
    assert!(text.contains("\nstill: stalled\n") && text.contains("  do: start the worker: worker -c "), "{text}");
    assert!(text.ends_with("s: 3 topics, 1 need attention: still"), "{text}");
    assert!(
        text.find("\nstill: ").unwrap() < text.find("\nidle: ").unwrap(),
        "what needs attention comes first: {text}"
    );
}

#[test]
fn the_lock_says_whether_the_worker_runs() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    let config = bed.config(&["t"]);
    let worker = bed.started(&config);
    bed.await_all("t", 0);
    let (code, report, topics) = json(&bed, &config, &[]);
    assert_eq!((code, &report["worker"]["running"]), (0, &Value::Bool(true)), "{report:#}");
    assert!(report["worker"]["text"].as_str().unwrap().contains(&format!("process {}", worker.pid())), "{report:#}");
    assert_eq!(topics["t"]["verdict"], "idle");
    bed.stop(worker);
    let (code, report, topics) = json(&bed, &config, &[]);
    assert_eq!((code, &report["worker"]["running"]), (1, &Value::Bool(false)), "{report:#}");
    assert_eq!((&topics["t"]["verdict"], &report["needs_attention"]), (&"idle".into(), &Value::Bool(true)));
    assert!(report["worker"]["text"].as_str().unwrap().contains("start it: worker -c "), "{report:#}");
}

#[test]
fn commits_that_are_not_the_workers_are_somebody_elses() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 1_000);
    let config = bed.config(&["t"]);
    let worker = bed.started(&config);
    bed.await_all("t", 0);
    let state = || std::fs::read_to_string(bed.site.path("consumer.state/offsets")).unwrap_or_default();
    eventually("the state is written", || state().contains("1000 0 "));
    let (code, ..) = json(&bed, &config, &[]);
    assert_eq!(code, 0);
    // Somebody sets the group back, while the worker runs.
    bed.server.set_committed("g-t", "t", 0, Some(600));
    let (code, report, topics) = json(&bed, &config, &[]);
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"shared-group".into()), "{report:#}");
    let evidence = lines(&topics["t"], "evidence");
    assert!(evidence.contains("committed offset is 600, and this worker has committed 1000 last"), "{evidence}");
    // And uses the group, while it does not.
    bed.stop(worker);
    let moves = |turn| bed.server.set_committed("g-t", "t", 0, Some(600 + turn));
    let (code, report, topics) = meanwhile(moves, || json(&bed, &config, &[]));
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"shared-group".into()), "{report:#}");
    assert!(lines(&topics["t"], "evidence").contains("while this worker does not run"), "{report:#}");
}

#[test]
fn the_running_worker_is_asked_for_its_own_state() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let listen = format!("'127.0.0.1:{}'", free_ports(1)[0]);
    let config = bed.config(&["t"]).set("sink.out", "path", "'/dev/full'").set("admin", "listen", listen);
    let worker = bed.started(&config);
    worker.wait_words(&["sink fails"]);
    let (code, report, topics) = json(&bed, &config, &[]);
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"sink-failing".into()), "{report:#}");
    assert!(lines(&topics["t"], "evidence").contains("/dev/full"), "{report:#}");
    assert!(report["worker"]["text"].as_str().unwrap().contains(" answers"), "{report:#}");
}

#[test]
fn an_admin_port_that_does_not_answer_is_told() {
    let bed = Bed::new(&["t"]);
    let listen = |port: u16| format!("'127.0.0.1:{port}'");
    let worker = bed.started(&bed.config(&["t"]));
    // The file was changed since the start.
    let (code, report, _) = json(&bed, &bed.config(&["t"]).set("admin", "listen", listen(free_ports(1)[0])), &[]);
    assert_eq!(code, 1, "it may hang: {report:#}");
    assert!(report["worker"]["text"].as_str().unwrap().contains(" does not answer: "), "{report:#}");
    bed.stop(worker);
}

#[test]
fn what_stands_still_is_looked_at_until_that_means_something() {
    let bed = Bed::new(&["t", "idle"]);
    bed.fill("t", 10);
    bed.server.set_committed("g-t", "t", 0, Some(4));
    let config = bed.config(&["t", "idle"]);
    let (code, report, topics) = json(&bed, &config, &["--for", "0.4s"]);
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"stalled".into()), "{report:#}");
    assert!(report["looked_ms"].as_u64().unwrap() >= 1_600, "{report:#}");
    let (code, report, _) = json(&bed, &config, &["--for", "0.4s", "idle"]);
    assert!(code == 0 && report["looked_ms"].as_u64().unwrap() < 1_600, "nothing is unclear of that: {report:#}");
}

/// What nobody can be asked for: why it stands still.
#[test]
fn a_topic_that_a_record_has_stopped_needs_attention_also_without_an_admin_port() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let web = Web::start(|request| if request.number("kafka-offset") < 4 { ok() } else { answer(400, "", "no") });
    let config = http(&bed, &web);
    let worker = bed.started(&config);
    worker.wait_words(&["ERROR", "topic stopped, its records wait"]);
    bed.await_committed("t", 0, 4);
    let (code, report, topics) = meanwhile(|_| bed.fill("t", 1), || json(&bed, &config, &["--for", "0.4s"]));
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"stalled".into()), "{report:#}");
    let remedy = lines(&topics["t"], "remedy");
    for words in ["on_failure is stop: ", "its sink w ", "grep 'topic stopped.*topic=t' LOG", "[admin] listen = "] {
        assert!(remedy.contains(words), "{words}: {remedy}");
    }
    bed.stop(worker);
}

#[test]
fn a_service_that_fails_is_named_with_its_answer() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let web = Web::start(|_| answer(503, "", "no \"disk\""));
    let config = http(&bed, &web).set("admin", "listen", format!("'127.0.0.1:{}'", free_ports(1)[0]));
    let worker = bed.started(&config);
    worker.wait_words(&["sink fails, its topics wait sink=w"]);
    let (code, report, topics) = json(&bed, &config, &[]);
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"sink-failing".into()), "{report:#}");
    let (evidence, remedy) = (lines(&topics["t"], "evidence"), lines(&topics["t"], "remedy"));
    let error = format!("POST {} with offset 0: 503 Service Unavailable: 'no \"disk\"'", web.url());
    assert!(evidence.contains("sink w fails for ") && evidence.contains(&error), "{evidence}");
    let words = format!("look at the service behind {}, and at what it answered: grep 'sink=w' LOG", web.url());
    assert!(remedy.contains(&words), "{remedy}");
    let text = diagnose(&bed, &config, &[]).stdout.join("\n");
    assert!(text.contains("\nt: sink failing\n") && text.contains(&error), "{text}");
    worker.kill9();
}

#[test]
fn what_the_shared_group_has_is_offered_to_a_group_without_offset() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    bed.server.set_committed("g", "t", 0, Some(7));
    let (code, report, topics) = json(&bed, &bed.config(&["t"]), &[]);
    assert_eq!((code, &topics["t"]["verdict"]), (1, &"not-started".into()), "{report:#}");
    assert!(lines(&topics["t"], "evidence").contains("group g, which all topics shared before, has committed 0:7"));
    assert!(lines(&topics["t"], "remedy").contains("--to-offset 7"), "{report:#}");
}

#[test]
fn what_cannot_be_asked_is_named() {
    let bed = Bed::new(&["orders"]);
    let config = bed.config(&["orders"]);
    for (arguments, words) in
        [(&["order"][..], "did you mean orders?"), (&["--for", "soon"], "--for"), (&["--for", "0"], "--for")]
    {
        let file = bed.site.write_config(&config.to_string()).display().to_string();
        let ended = Worker::run(&[&["diagnose", "-c", &file], arguments].concat());
        assert_eq!((ended.code(), ended.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(ended.log[0].contains(words), "{:?}", ended.log);
    }
    assert_eq!(Worker::run(&["diagnose", "-c", "/no/such/file.toml"]).code(), Some(2));
    assert_eq!(bed.server.connections(), 0);
    bed.server.stop(0).unwrap();
    let ended = diagnose(&bed, &config, &[]);
    assert_eq!((ended.code(), ended.log.len()), (Some(1), 1));
    assert!(ended.log[0].starts_with("no connection to broker 127.0.0.1:"), "{:?}", ended.log);
    let text = ended.stdout.join("\n");
    let expected = format!("\norders: unknown: the cluster did not say\n  {}\n", ended.log[0]);
    assert!(text.contains(&expected) && text.contains("\n  do: look at the brokers"), "{text}");
    assert_eq!(text.matches(&ended.log[0]).count(), 1, "it is said once: {text}");
    assert!(text.ends_with("1 topics, 1 need attention: orders"), "{text}");
    let ended = diagnose(&bed, &config, &["--json"]);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    assert_eq!((ended.code(), &report["topics"][0]["verdict"]), (Some(1), &"unknown".into()), "{report:#}");
}
