//! Given something else than a Kafka of the right age at the port, a line says what it is, and the
//! worker still ends at once when it is asked to.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use broker::{Api, Fault, Order, Versions};

use crate::support::bed::{Bed, SHORT};
use crate::support::worker::{Config, Site};

/// Starts a worker there, waits for the line, and stops it.
#[track_caller]
fn says(bootstrap: &[String], level: &str, words: &[&str]) -> String {
    let site = Site::new();
    let config = Config::new(bootstrap, &["t"]).set("kafka", "request_timeout_ms", SHORT.as_millis());
    let worker = site.start(&config.to_string());
    let mut all = vec![level, "consumer in trouble, retrying topic=t group_id=g-t"];
    all.extend(words);
    let line = worker.wait_words(&all);
    assert_eq!(worker.count(&["consumer in trouble", "group_id=g-t"]), 1);
    let asked = Instant::now();
    let ended = worker.stop();
    assert_eq!(ended.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(3), "it ended after {:?}", asked.elapsed());
    line
}

#[test]
fn nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    says(
        std::slice::from_ref(&address),
        "WARN",
        &[&format!("no connection to broker {address}"), "check kafka.bootstrap_servers"],
    );
}

#[test]
fn a_name_that_does_not_exist() {
    says(&["no-such-host.invalid:9092".to_owned()], "WARN", &["no connection to broker no-such-host.invalid:9092"]);
}

#[test]
fn a_listener_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    says(
        std::slice::from_ref(&address),
        "WARN",
        &[&format!("broker {address} did not answer"), "it hangs, is overloaded, or is no Kafka"],
    );
}

#[track_caller]
fn answers(fault: Fault, words: &[&str]) {
    let bed = Bed::new(&["t"]);
    bed.server.order(Order::any(fault).always());
    says(&bed.server.bootstrap(), "ERROR", words);
}

#[test]
fn a_tls_listener() {
    answers(Fault::tls_alert(), &["is no plain Kafka listener", "TLS"]);
}

#[test]
fn a_web_server() {
    answers(Fault::http(), &["is no plain Kafka listener", "it speaks HTTP"]);
}

#[test]
fn noise() {
    answers(Fault::random(64, 42), &["is no plain Kafka listener", "begins with the bytes"]);
}

#[test]
fn a_port_that_closes() {
    answers(Fault::CloseUnserved, &["is no plain Kafka listener", "closed the connection on our first bytes"]);
}

#[test]
fn a_broker_that_is_too_new() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    bed.server.set_versions(Versions::kafka_4());
    says(&bed.server.bootstrap(), "ERROR", &["is too new for the client 'kafka'", "it serves Fetch from version 4 on"]);
}

#[test]
fn a_broker_that_is_too_old() {
    let bed = Bed::new(&["t"]);
    bed.server.set_versions(Versions::kafka_3_9().with(Api::Fetch, 0, 2));
    says(&bed.server.bootstrap(), "ERROR", &["is too old"]);
}

#[test]
fn the_listener_of_a_controller() {
    let bed = Bed::new(&["t"]);
    bed.server.set_versions(Versions::kafka_3_9().without(Api::Metadata));
    let address = bed.server.bootstrap().remove(0);
    says(
        std::slice::from_ref(&address),
        "ERROR",
        &[&format!("{address} does not serve Metadata"), "a KRaft controller"],
    );
}

/// A broker is replaced by a newer one while the worker runs: it says so, delivers nothing wrong, and
/// goes on when the old one is back.
#[test]
fn an_upgrade_that_is_taken_back() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let worker = bed.started(&bed.config(&["t"]));
    bed.await_all("t", 0);
    bed.server.set_versions(Versions::kafka_4());
    bed.server.disconnect(0);
    bed.fill("t", 10);
    worker.wait_words(&["ERROR", "is too new for the client 'kafka'"]);
    assert_eq!(bed.committed("t"), Some(10));
    bed.server.set_versions(Versions::kafka_3_9());
    bed.await_all("t", 0);
    worker.wait_words(&["INFO", "consumer works again"]);
    bed.stop(worker);
}
