//! Given commits that fail or hang: delivery goes on, the log says what it means, and all is committed
//! when it is over.

use broker::fault::code;
use broker::{Api, Fault, Order};

use crate::support::bed::{Bed, SHORT};
use crate::support::worker::PATIENCE;

/// Delivery goes on while commits fail, and everything is committed when they succeed again.
#[test]
fn commits_fail_for_a_while() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    let order = bed.server.order(Order::new(Api::OffsetCommit, Fault::Error(code::UNKNOWN_SERVER_ERROR)).always());
    bed.fill("t", 20);
    let line = worker.wait_words(&["WARN", "commit failed, retrying group_id=g-t"]);
    assert!(line.contains("delivery goes on"), "{line}");
    bed.fill("t", 20);
    bed.site.wait_records(50, PATIENCE);
    assert_eq!(bed.committed("t"), Some(10));
    bed.server.cancel(order);
    bed.await_all("t", 0);
    worker.wait_words(&["INFO", "commits succeed again group_id=g-t"]);
    assert_eq!(worker.count(&["WARN"]), 1);
    bed.stop(worker);
}

/// A coordinator that accepts commits and says nothing holds no record up. The log says what it means.
#[test]
fn commits_hang_for_a_while_and_delivery_goes_on() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]).set("kafka", "request_timeout_ms", SHORT.as_millis()));
    bed.await_all("t", 0);
    let order = bed.server.order(Order::new(Api::OffsetCommit, Fault::Hang).always());
    bed.fill("t", 20);
    let line = worker.wait_words(&["WARN", "commit failed, retrying group_id=g-t"]);
    assert!(line.contains("did not answer OffsetCommit within"), "{line}");
    assert!(line.contains("after a restart what is not committed is delivered again"), "{line}");
    for round in 1..=3 {
        bed.fill("t", 20);
        bed.site.wait_records(30 + 20 * round, PATIENCE);
    }
    assert_eq!(bed.committed("t"), Some(10));
    bed.server.cancel(order);
    worker.wait_words(&["INFO", "commits succeed again group_id=g-t after_ms="]);
    bed.await_all("t", 0);
    bed.stop(worker);
}

/// What is delivered without a commit has a limit, so that a crash delivers no more than that again.
#[test]
fn commits_fail_and_the_uncommitted_range_is_bounded() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let config = bed.config(&["t"]).set("commit", "max_uncommitted", 50).set("commit", "retry_delay_ms", 20);
    let worker = bed.started(&config);
    bed.await_all("t", 0);
    let order = bed.server.order(Order::new(Api::OffsetCommit, Fault::Error(code::UNKNOWN_SERVER_ERROR)).always());
    bed.fill("t", 60);
    bed.site.wait_records(70, PATIENCE);
    let line = worker.wait_words(&["ERROR", "nothing more is fetched until a commit succeeds group_id=g-t"]);
    assert!(line.contains("uncommitted=60 max_uncommitted=50") && line.contains("action="), "{line}");
    // One fetch may have been under way; what comes after it waits.
    for _ in 0..5 {
        bed.fill("t", 10);
        let tried = bed.server.requests(Api::OffsetCommit);
        assert!(bed.server.await_requests(Api::OffsetCommit, tried + 2, PATIENCE), "commits are tried on");
    }
    let arrived = bed.site.records().len();
    assert!(arrived <= 80, "{arrived} records have arrived, 10 of which are committed");
    bed.server.cancel(order);
    let line = worker.wait_words(&["INFO", "commits succeed again group_id=g-t"]);
    assert!(line.contains("UnknownServerError"), "{line}");
    bed.await_all("t", 0);
    bed.stop(worker);
}
