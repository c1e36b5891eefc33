//! Given a sink that takes long for a record, the group's offset follows what it has done, not only whole batches.

use std::fs;
use std::time::Duration;

use crossbeam_channel::bounded;
use worker::consumer::Never;

use crate::exec::{GOOD, handled};
use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::web::{Reply, Web, ok};
use crate::support::worker::Config;

/// Acknowledges each record when its line stands in `out.jsonl`, and hangs at those whose line has `here`.
fn hangs_at(here: &str) -> String {
    let hang = format!("case $line in {here}) while :; do sleep 0.1; done;; esac");
    GOOD.replacen("do seq", &format!("do {hang}; seq"), 1)
}

/// Each record once, though the worker was killed, or stopped, in the middle of the one batch that there is.
#[test]
fn what_a_handler_has_done_of_a_batch_is_committed_and_not_given_again() {
    for kill in [true, false] {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 300);
        let config = |script: &str| handled(&bed, &["t"], script).set("shutdown", "drain_timeout_ms", 300);
        let worker = bed.started(&config(&hangs_at("*'\"value 217\"'*")));
        bed.await_committed("t", 0, 217);
        if kill {
            worker.kill9();
        } else {
            let ended = worker.stop();
            assert_eq!(ended.sums("t"), "delivered=217 committed=217 in_flight=83 expired=0 reset=0");
        }
        let worker = bed.started(&config(GOOD));
        bed.await_committed("t", 0, 300);
        bed.stop(worker);
        assert_eq!(bed.arrived_offsets("t", 0), (0..300).collect::<Vec<_>>(), "kill={kill}");
    }
}

/// Only what all lanes have done counts.
#[test]
fn with_lanes_by_key_the_offset_follows_the_slowest() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 300);
    let config = |script: &str| {
        handled(&bed, &["t"], script).set("sink.h", "lanes", 4).set("sink.h", "order", "'key'").set(
            "shutdown",
            "drain_timeout_ms",
            300,
        )
    };
    let worker = bed.started(&config(&hangs_at("*'\"value 217\"'*|*'\"value 90\"'*|*'\"value 91\"'*")));
    bed.await_committed("t", 0, 90);
    worker.kill9();
    let before = bed.arrived_offsets("t", 0);
    assert!((0..90).all(|offset| before.contains(&offset)) && !before.contains(&90));
    let worker = bed.started(&config(GOOD));
    bed.await_committed("t", 0, 300);
    bed.stop(worker);
    let mut all = bed.arrived_offsets("t", 0);
    assert!(all[before.len()..].iter().all(|offset| *offset >= 90), "{all:?}");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
}

/// What is before a record that is tried again for ever is committed, whatever the sink.
#[test]
fn what_is_before_a_record_that_is_tried_again_is_committed() {
    let fail = |script: &str| {
        let fail = "case $line in *'\"value 41\"'*) echo \"{\\\"fail\\\":$seq}\"; continue;; esac;";
        script.replacen("printf", &format!("{fail} printf"), 1)
    };
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let worker = bed.started(&handled(&bed, &["t"], &fail(GOOD)).set("shutdown", "drain_timeout_ms", 300));
    worker.wait_words(&["WARN", "sink fails, its topics wait sink=h", "offset=41"]);
    bed.await_committed("t", 0, 41);
    assert_eq!(worker.count(&["sink works again"]), 0, "a batch that is cut is no success");
    worker.stop();
}

/// Nor does a record that is given up keep back what is behind it until the batch is through.
#[test]
fn what_is_behind_a_record_that_is_given_up_is_committed_in_the_batch_too() {
    let script = hangs_at("*'\"value 217\"'*").replacen(
        "printf",
        "sleep 0.01; case $line in *'\"value 5\"'*) echo \"{\\\"fail\\\":$seq,\\\"retry\\\":false}\"; continue;; esac; printf",
        1,
    );
    let bed = Bed::new(&["t"]);
    bed.fill("t", 300);
    let config = handled(&bed, &["t"], &script)
        .set("sink.h", "max_batch_records", 10)
        .set("shutdown", "drain_timeout_ms", 300)
        .set("consumer", "on_failure", "'dead_letter'")
        .set("dead_letter", "path", "'@DIR@/dead.jsonl'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 217);
    let letters = fs::read_to_string(bed.site.path("dead.jsonl")).unwrap();
    assert_eq!((letters.lines().count(), letters.contains("\"offset\":5,")), (1, true), "{letters}");
    worker.kill9();
}

/// A run, or a request, is for good, too.
#[test]
fn what_runs_and_requests_have_done_of_a_batch_is_committed() {
    let part_of_it = |bed: &Bed| {
        eventually("a part of the batch is committed", || bed.committed("t").is_some_and(|at| 0 < at && at < 60));
    };
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let config = handled(&bed, &["t"], "cat >>$dir/out.jsonl; echo >>$dir/runs; sleep 0.3")
        .set("sink.h", "mode", "'batch'")
        .set("sink.h", "max_batch_records", 10);
    let worker = bed.started(&config);
    part_of_it(&bed);
    worker.kill9();
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 60);
    bed.stop(worker);
    let runs = fs::read_to_string(bed.site.path("runs")).unwrap().lines().count();
    assert!((6..=8).contains(&runs), "{runs} runs for 60 records");

    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let (slow, wait) = bounded::<Never>(0);
    let web = Web::start(move |_| {
        let _ = wait.recv_timeout(Duration::from_millis(100));
        ok()
    });
    let config: Config = bed
        .config(&["t"])
        .set("sink.w", "type", "'http'")
        .set("sink.w", "url", format!("'{}'", web.url()))
        .set("sink.w", "body", "'record'")
        .set("consumer", "sink", "'w'");
    let worker = bed.started(&config);
    part_of_it(&bed);
    drop(slow);
    bed.await_committed("t", 0, 60);
    worker.stop();
}

/// Who has not answered by the end of the drain is not waited for, and gets the record again.
#[test]
fn a_stop_does_not_wait_for_a_service_that_is_silent() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 60);
    let web = Web::start(|request| if request.number("kafka-offset") == 41 { Reply::Silence } else { ok() });
    let config: Config = bed
        .config(&["t"])
        .set("sink.w", "type", "'http'")
        .set("sink.w", "url", format!("'{}'", web.url()))
        .set("sink.w", "body", "'record'")
        .set("sink.w", "timeout_ms", 600_000)
        .set("consumer", "sink", "'w'")
        .set("shutdown", "drain_timeout_ms", 300);
    let worker = bed.started(&config);
    eventually("the service has the record", || web.requests().iter().any(|r| r.number("kafka-offset") == 41));
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.lines_with(&["threads did not end in time"]), [""; 0]);
    assert_eq!(ended.lines_with(&["sink given up at the end", "sink=w", "offset=41"]).len(), 1, "{:?}", ended.log);
    let sent = web.requests().iter().filter(|request| request.number("kafka-offset") == 41).count();
    assert_eq!(sent, 1, "nothing is sent behind the end of the drain");
}
