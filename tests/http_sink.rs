//! Given a service that answers so, what it gets, what is committed, and what the log says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use broker::{Codec, NewRecord};
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::web::{Reply, Request, Web, answer, ok};
use crate::support::worker::{Config, PATIENCE, Worker};

mod lies;
mod secrets;

/// A configuration whose sink `w` is this service, with short waits.
fn config(bed: &Bed, topics: &[&str], web: &Web, body: &str) -> Config {
    bed.config(topics)
        .set("sink.w", "type", "'http'")
        .set("sink.w", "url", format!("'{}'", web.url()))
        .set("sink.w", "body", format!("'{body}'"))
        .set("consumer", "sink", "'w'")
        .set("consumer", "retry_initial_ms", 20)
        .set("consumer", "retry_max_ms", 100)
}

/// Topic and offset of each record in a request of any form.
fn coordinates(request: &Request) -> Vec<(String, i64)> {
    let own = |value: &Value| (value["topic"].as_str().unwrap().to_owned(), value["offset"].as_i64().unwrap());
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    match request.header("content-type").unwrap() {
        "application/json" => parse(&request.text()).as_array().unwrap().iter().map(own).collect(),
        "application/x-ndjson" => request.text().lines().map(|line| own(&parse(line))).collect(),
        "application/octet-stream" => {
            vec![(request.header("kafka-topic").unwrap().to_owned(), request.number("kafka-offset"))]
        }
        other => panic!("{other}"),
    }
}

fn offsets(requests: &[Request]) -> Vec<i64> {
    requests.iter().flat_map(coordinates).map(|(_, offset)| offset).collect()
}

/// The lines of the log that are no INFO, but for that of the sink that every configuration of tests has.
fn loud(log: &[String]) -> Vec<&String> {
    let loud = |line: &&String| line.contains(" WARN ") || line.contains(" ERROR ");
    log.iter().filter(loud).filter(|line| !line.contains("[sink.out] is used by no topic")).collect()
}

#[test]
fn all_records_arrive_in_order_as_one_request_each() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 700);
    let odd = NewRecord { timestamp_ms: 0, key: Some(vec![0, 255, 13, 10]), value: Some(vec![0, 1, 254]) };
    let null = NewRecord { timestamp_ms: 0, key: None, value: None };
    bed.server.with_log("t", 0, |log| log.append([odd, null], Codec::None)).unwrap();
    let web = Web::start(|_| ok());
    let worker = bed.started(&config(&bed, &["t"], &web, "record"));
    bed.await_committed("t", 0, 702);
    let ended = bed.stop(worker);
    let requests = web.requests();
    assert_eq!(offsets(&requests), (0..702).collect::<Vec<_>>());
    for (n, request) in requests[..700].iter().enumerate() {
        assert_eq!(request.text(), format!("value {n}"));
        assert_eq!(request.header("kafka-key"), Some(&*format!("k{}", n % 7)));
        assert_eq!((request.header("kafka-topic"), request.header("kafka-partition")), (Some("t"), Some("0")));
        assert_eq!((request.header("kafka-key-base64"), request.header("kafka-null-value")), (None, None));
    }
    assert_eq!(
        (&requests[700].body[..], requests[700].header("kafka-key-base64")),
        (&[0, 1, 254][..], Some("AP8NCg=="))
    );
    assert_eq!((requests[700].header("kafka-key"), requests[700].header("kafka-null-value")), (None, None));
    assert_eq!((requests[701].text().as_str(), requests[701].header("kafka-null-value")), ("", Some("true")));
    assert_eq!((requests[701].header("kafka-key"), requests[701].header("kafka-key-base64")), (None, None));
    assert_eq!(web.connections(), 1);
    assert_eq!(loud(&ended.log), [""; 0]);
    assert_eq!(ended.sums("t"), "delivered=702 committed=702 in_flight=0 expired=0 reset=0");
}

#[test]
fn all_records_arrive_in_order_as_arrays_and_as_lines() {
    for (body, lead, between, tail) in [("json", "[", ",", "]"), ("ndjson", "", "\n", "\n")] {
        let bed = Bed::new(&["t"]);
        for _ in 0..3 {
            bed.fill("t", 700);
        }
        let web = Web::start(|_| ok());
        let config = config(&bed, &["t"], &web, body).set("sink.w", "max_batch_records", 100);
        let worker = bed.started(&config);
        bed.await_committed("t", 0, 2100);
        let ended = bed.stop(worker);
        let requests = web.requests();
        let mut next = 0;
        for request in &requests {
            let count = request.number("kafka-record-count");
            assert!((1..=100).contains(&count));
            let one = |n: i64| {
                format!(r#"{{"topic":"t","partition":0,"offset":{n},"key":"k{}","value":"value {n}"}}"#, n % 7)
            };
            let list: Vec<String> = (next..next + count).map(one).collect();
            assert_eq!(request.text(), format!("{lead}{}{tail}", list.join(between)));
            assert_eq!(request.number("kafka-first-offset"), next);
            next += count;
            assert_eq!(request.number("kafka-last-offset"), next - 1);
            assert_eq!((request.header("kafka-offset"), request.header("kafka-key")), (None, None));
        }
        assert_eq!((next, web.connections()), (2100, 1));
        assert!(requests.len() < 60, "{}", requests.len());
        assert_eq!(loud(&ended.log), [""; 0]);
    }
}

/// librdkafka knows timestamps.
#[cfg(feature = "librdkafka")]
#[test]
fn the_time_of_a_record_is_told() {
    let bed = Bed::new(&["t"]).by(worker::client::reading::Library::Librdkafka);
    bed.fill("t", 3);
    let web = Web::start(|_| ok());
    let worker = bed.started(&config(&bed, &["t"], &web, "record").set("sink.w", "method", "'PUT'"));
    bed.await_committed("t", 0, 3);
    bed.stop(worker);
    let requests = web.requests();
    assert_eq!(requests[2].header("kafka-timestamp"), Some("1700000000002"));
    assert_eq!(requests[2].line, "PUT /orders HTTP/1.1");
}

#[test]
fn a_service_that_fails_for_a_while_gets_all_of_it_when_it_works() {
    for status in [408, 425, 429, 500, 503, 302] {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 300);
        let count = AtomicUsize::new(0);
        let web = Web::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 | 2..=4 => answer(status, "", "not \"now\"\n"),
            _ => ok(),
        });
        let worker = bed.started(&config(&bed, &["t"], &web, "ndjson").set("sink.w", "max_batch_records", 100));
        bed.await_committed("t", 0, 300);
        let ended = bed.stop(worker);
        let requests = web.requests();
        let refused = [0, 2, 3, 4];
        let taken = requests.iter().enumerate().filter(|(n, _)| !refused.contains(n));
        assert_eq!(
            offsets(&taken.map(|(_, request)| request.clone()).collect::<Vec<_>>()),
            (0..300).collect::<Vec<_>>()
        );
        let lines = ended.lines_with(&["WARN", "sink fails, its topics wait sink=w"]);
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("'not \"now\"\\n'")), "{lines:?}");
        assert!(
            lines[0].contains(&format!("POST {} with offsets 0 to 99 (100 records): {status} ", web.url())),
            "{lines:?}"
        );
        assert!(!ended.lines_with(&["sink works again sink=w"]).is_empty());
    }
}

#[test]
fn retry_after_is_waited_for() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let times = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&times);
    let web = Web::start(move |_| {
        let mut times = own.lock().unwrap();
        times.push(Instant::now());
        if times.len() == 1 { answer(429, "Retry-After: 1\r\n", "") } else { ok() }
    });
    let worker = bed.started(&config(&bed, &["t"], &web, "json"));
    bed.await_committed("t", 0, 10);
    bed.stop(worker);
    let times = times.lock().unwrap();
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
}

#[test]
fn one_record_that_is_refused_becomes_a_dead_letter_and_the_others_are_delivered() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 200);
    let bad = |request: &Request| request.text().contains("\"value 120\"");
    let web = Web::start(move |request| if bad(request) { answer(400, "", "no such order") } else { ok() });
    let config = config(&bed, &["t"], &web, "json").set("consumer", "on_failure", "'dead_letter'").set(
        "dead_letter",
        "path",
        "'@DIR@/dead.jsonl'",
    );
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 200);
    let ended = bed.stop(worker);
    let taken: Vec<Request> = web.requests().into_iter().filter(|request| !bad(request)).collect();
    assert_eq!(offsets(&taken), (0..200).filter(|offset| *offset != 120).collect::<Vec<_>>());
    assert_eq!(
        ended.lines_with(&["records become dead letters topic=t partition=0 sink=w count=1 offsets=\"120\""]).len(),
        1
    );
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let listed = Worker::run(&["dlq", "list", "--json", "-c", &file]);
    assert_eq!(listed.stdout.len(), 1, "{:?}", listed.stdout);
    let letter: Value = serde_json::from_str(&listed.stdout[0]).unwrap();
    assert_eq!(
        (&letter["offset"], &letter["attempts"], &letter["value"]),
        (&120.into(), &1.into(), &"value 120".into())
    );
    assert_eq!(letter["reason"], format!("POST {} with offset 120: 400 Bad Request: 'no such order'", web.url()));
}

#[test]
fn each_lane_has_a_connection_of_its_own_and_keys_keep_their_order() {
    let bed = Bed::new(&["t"]);
    for _ in 0..3 {
        bed.fill("t", 700);
    }
    // As long as not all of them are there, nobody is answered.
    let arrived = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
    let web = Web::start(move |request| {
        let until = Instant::now() + PATIENCE;
        arrived.lock().unwrap().insert(request.connection);
        while arrived.lock().unwrap().len() < 3 && Instant::now() < until {
            thread::yield_now();
        }
        ok()
    });
    let config = config(&bed, &["t"], &web, "record").set("sink.w", "lanes", 3).set("sink.w", "order", "'key'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 2100);
    bed.stop(worker);
    let requests = web.requests();
    assert_eq!((requests.len(), web.connections()), (2100, 3));
    for key in 0..7 {
        let own = requests.iter().filter(|request| request.header("kafka-key") == Some(&format!("k{key}")));
        let offsets: Vec<i64> = own.map(|request| request.number("kafka-offset")).collect();
        assert_eq!(offsets, (0..2100).filter(|offset| offset % 7 == key).collect::<Vec<_>>());
    }
}

#[test]
fn the_status_has_what_the_service_answered() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let failing = Arc::new(AtomicBool::new(true));
    let own = Arc::clone(&failing);
    let web = Web::start(move |_| if own.load(Ordering::Relaxed) { answer(503, "", "") } else { ok() });
    let config = config(&bed, &["t"], &web, "json").set("admin", "listen", "'127.0.0.1:0'");
    let worker = bed.started(&config);
    worker.wait_words(&["WARN", "sink fails, its topics wait sink=w"]);
    let address = crate::support::http::address(&worker);
    let status = crate::support::http::get(address, "/status").body;
    assert!(status.contains("503 Service Unavailable"), "{status}");
    failing.store(false, Ordering::Relaxed);
    bed.await_committed("t", 0, 10);
    bed.stop(worker);
}

/// A connection that is closed while nothing is sent is no event.
#[test]
fn connections_that_a_service_closes_between_requests_are_not_told() {
    let bed = Bed::new(&["t"]);
    let web = Web::start(|_| ok());
    let worker = bed.started(&config(&bed, &["t"], &web, "json"));
    for round in 1..=5 {
        bed.fill("t", 10);
        bed.await_committed("t", 0, round * 10);
        web.close_connections();
    }
    let ended = bed.stop(worker);
    assert_eq!((offsets(&web.requests()), web.connections()), ((0..50).collect::<Vec<_>>(), 5));
    assert_eq!(loud(&ended.log), [""; 0]);
}
