//! Given a handler that does not take a record, what the topic's policy makes of it, from the first try to the replay.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::http;
use crate::support::worker::{Config, PATIENCE, Worker};

/// A handler that takes a record when its line stands in `out.jsonl`, and fails each whose line `bad` matches.
fn failing(bed: &Bed, bad: &str, retry: bool) -> Config {
    let file = bed.site.path("handler.sh");
    let dir = file.parent().unwrap().display().to_string();
    let script = format!(
        "#!/bin/sh\nwhile read -r line; do seq=${{line#*:}}; seq=${{seq%%,*}}\ncase $line in {bad}) printf '%s\\n' \"$line\" >>{dir}/tries.jsonl\n\
         echo \"{{\\\"fail\\\":$seq,\\\"reason\\\":\\\"not this\\\",\\\"retry\\\":{retry}}}\";;\n\
         *) printf '%s\\n' \"$line\" >>{dir}/out.jsonl; echo \"{{\\\"ack\\\":$seq}}\";; esac; done\n"
    );
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    bed.config(&["t"])
        .set("sink.h", "type", "'exec'")
        .set("sink.h", "command", "['@DIR@/handler.sh']")
        .set("sink.h", "kill_timeout_ms", 1_000)
        .set("consumer", "sink", "'h'")
        .set("consumer", "retry_initial_ms", 5)
        .set("consumer", "retry_max_ms", 20)
        .set("dead_letter", "path", "'@DIR@/dead.jsonl'")
}

fn tries(bed: &Bed) -> usize {
    fs::read_to_string(bed.site.path("tries.jsonl")).unwrap_or_default().lines().count()
}

fn without(offset: i64, count: i64) -> Vec<i64> {
    (0..count).filter(|other| *other != offset).collect()
}

fn dlq(bed: &Bed, config: &Config, arguments: &[&str]) -> String {
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let ended = Worker::run(&[&["dlq", arguments[0], "-c", &file], &arguments[1..]].concat());
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    ended.stdout.join("\n")
}

/// Three tries, the dead letter, the cause is mended, the replay.
#[test]
fn what_is_out_of_tries_is_a_dead_letter_and_comes_back_by_a_replay() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = failing(&bed, "*'\"value 17\"'*", true).set("consumer", "retry_attempts", 3).set(
        "consumer",
        "on_failure",
        "'dead_letter'",
    );
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 60);
    bed.stop(worker);
    assert_eq!((bed.arrived_offsets("t", 0), tries(&bed)), (without(17, 60), 3));
    let shown = dlq(&bed, &config, &["show"]);
    assert!(shown.contains("value 17") && shown.contains("not this"), "{shown}");
    assert!(dlq(&bed, &config, &["list"]).contains("17"));

    failing(&bed, "no-such-line", true);
    dlq(&bed, &config, &["replay"]);
    assert_eq!(bed.arrived_offsets("t", 0).len(), 59, "it only says what it would do");
    dlq(&bed, &config, &["replay", "--execute"]);
    assert_eq!(bed.arrived_offsets("t", 0), [without(17, 60), vec![17]].concat());
    dlq(&bed, &config, &["replay", "--execute"]);
    assert_eq!(bed.arrived_offsets("t", 0).len(), 60, "once is enough");
}

/// A dead letter is its sink's, whichever of the lanes had the record.
#[test]
fn dead_letters_of_many_lanes_come_back_by_a_replay() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 200);
    let config = |bad: &str| {
        let config = failing(&bed, bad, false).set("consumer", "on_failure", "'dead_letter'");
        config.set("sink.h", "lanes", 4).set("sink.h", "order", "'key'")
    };
    let worker = bed.started(&config("*7'\"}'*"));
    bed.await_committed("t", 0, 200);
    bed.stop(worker);
    assert_eq!(bed.arrived_offsets("t", 0).len(), 180);
    dlq(&bed, &config("no-such-line"), &["replay", "--execute"]);
    let mut arrived = bed.arrived_offsets("t", 0);
    arrived.sort_unstable();
    assert_eq!(arrived, (0..200).collect::<Vec<_>>());
}

/// While it is tried nothing passes it, and what comes of it is seen everywhere.
#[test]
fn a_record_that_is_tried_for_long_keeps_its_place() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = failing(&bed, "*'\"value 17\"'*", true).set("admin", "listen", "'127.0.0.1:0'").set(
        "sink.h",
        "max_batch_records",
        1,
    );
    let worker = bed.started(&config);
    worker.wait_words(&["WARN", "sink fails, its topics wait sink=h", "the handler asks for another try: not this"]);
    eventually("it is tried again and again", || tries(&bed) > 10);
    assert_eq!(bed.arrived_offsets("t", 0), (0..17).collect::<Vec<_>>());
    let address = http::address(&worker);
    let status = http::get(address, "/status").body;
    assert!(status.contains("not this"), "{status}");
    let metrics = http::get(address, "/metrics").body;
    assert!(
        metrics.lines().any(|line| line.starts_with("worker_sink_retries") || line.contains("sink=\"h\"")),
        "{metrics}"
    );
    failing(&bed, "no-such-line", true);
    worker.signal("HUP");
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// A time is a bound as well, and what is dropped is counted and named.
#[test]
fn what_is_dropped_is_counted_and_named() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = failing(&bed, "*'\"value 17\"'*|*'\"value 30\"'*", true)
        .set("consumer", "retry_total_ms", 100)
        .set("consumer", "on_failure", "'drop'")
        .set("admin", "listen", "'127.0.0.1:0'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 60);
    let address = http::address(&worker);
    let metrics = http::get(address, "/metrics").body;
    let given_up: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("worker_given_up_records_total{")).collect();
    assert!(given_up.iter().any(|line| line.contains("drop") && line.ends_with(" 2")), "{given_up:?}");
    let ended = bed.stop(worker);
    let told: Vec<&str> = ended.lines_with(&["records dropped topic=t", "not this"]);
    assert!(told.iter().any(|line| line.contains("17")), "{told:?}");
    let all: Vec<i64> = (0..60).filter(|offset| ![17, 30].contains(offset)).collect();
    assert_eq!(bed.arrived_offsets("t", 0), all);
    assert!(tries(&bed) > 4, "it was tried for a while");
}

/// Its topic waits for somebody to mend it, and a restart changes nothing about that.
#[test]
fn what_stops_a_topic_goes_on_when_it_is_mended() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = failing(&bed, "*'\"value 17\"'*", false).set("admin", "listen", "'127.0.0.1:0'");
    let worker = bed.started(&config);
    worker.wait_words(&["ERROR", "topic stopped, its records wait topic=t sink=h", "offset=17"]);
    let ready = http::get(http::address(&worker), "/readyz");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.contains("stopped by a record that its sink does not take: t"), "{ready:?}");
    bed.await_committed("t", 0, 17);
    bed.stop(worker);
    let worker = bed.start(&config);
    worker.wait_words(&["ERROR", "topic stopped, its records wait topic=t sink=h", "offset=17"]);
    failing(&bed, "no-such-line", true);
    worker.signal("HUP");
    bed.await_committed("t", 0, 60);
    assert_eq!(http::get(http::address(&worker), "/readyz").status, 200);
    bed.stop(worker);
    let mut arrived = bed.arrived_offsets("t", 0);
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, (0..60).collect::<Vec<_>>());
}

/// The record was tried before, which the log told of; that its sink goes on without it is no good news of it.
#[test]
fn behind_a_stop_the_log_does_not_say_that_all_is_well() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = failing(&bed, "*'\"value 17\"'*", true).set("consumer", "retry_attempts", 5);
    let worker = bed.started(&config);
    worker.wait_words(&["WARN", "sink fails, its topics wait sink=h"]);
    worker.wait_words(&["ERROR", "topic stopped, its records wait topic=t sink=h", "offset=17"]);
    worker.wait_words(&["INFO", "sink goes on without the stopped topics sink=h"]);
    assert_eq!(worker.count(&["sink works again"]), 0);
    failing(&bed, "no-such-line", true);
    worker.signal("HUP");
    bed.await_committed("t", 0, 60);
    bed.stop(worker);
}

/// Killed at any moment, a worker that gives records up loses none of them: each is with the handler or a dead letter.
#[test]
fn a_worker_that_is_killed_among_dead_letters_loses_none() {
    const ALL: i64 = 6_000;
    let bed = Bed::new(&["t"]);
    for _ in 0..ALL / 500 {
        bed.fill("t", 500);
    }
    let config = failing(&bed, "*7'\"}'*", false).set("consumer", "on_failure", "'dead_letter'");
    let dead = || {
        let text = fs::read_to_string(bed.site.path("dead.jsonl")).unwrap_or_default();
        let offset = |line: &str| {
            let line: Option<serde_json::Value> = serde_json::from_str(line).ok();
            line?.get("offset")?.as_i64()
        };
        text.lines().filter_map(offset).collect::<Vec<_>>()
    };
    for round in 1..=4 {
        let worker = bed.started(&config);
        bed.site.wait_records(round * 700, PATIENCE);
        worker.kill9();
    }
    let worker = bed.started(&config);
    bed.await_committed("t", 0, ALL);
    bed.stop(worker);
    let (arrived, dead) = (bed.arrived_offsets("t", 0), dead());
    let twice = arrived.len() + dead.len() - ALL as usize;
    for offset in 0..ALL {
        let bad = offset % 10 == 7;
        assert_eq!((arrived.contains(&offset), dead.contains(&offset)), (!bad, bad), "offset {offset}");
    }
    println!("killed four times: missing 0, delivered twice {twice}");
}
