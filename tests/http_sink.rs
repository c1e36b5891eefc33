//! Given a service that answers so, what it gets, what is committed, and what the log says.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use broker::{Codec, NewRecord};
use serde_json::Value;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::web::{Reply, Request, Web, answer, ok};
use crate::support::worker::{Config, PATIENCE, Worker};

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
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("'not \\\"now\\\"\\n'")), "{lines:?}");
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
        ended.lines_with(&["records dead-lettered topic=t partition=0 sink=w count=1 offsets=\"120\""]).len(),
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

/// With the default policy a wrong secret stops the topic, and loses nothing; SIGHUP brings the right one.
#[test]
fn a_wrong_secret_stops_the_topic_until_sighup_brings_the_right_one() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 50);
    let token = bed.site.path("token");
    fs::write(&token, "wrong-s3cret\n").unwrap();
    let web = Web::start(|request| match request.header("authorization") {
        Some("Bearer right-s3cret") => ok(),
        _ => answer(401, "", ""),
    });
    let config = config(&bed, &["t"], &web, "json")
        .set("sink.w", "bearer_token_file", "'@DIR@/token'")
        .set("sink.w", "headers", "{ X-Api-Key = 'header-s3cret' }")
        .set("log", "level", "'trace'");
    let worker = bed.started(&config);
    let line = worker.wait_words(&["ERROR", "topic stopped, its records wait topic=t sink=w"]);
    assert!(line.contains("401 Unauthorized; see that the secret is right"), "{line}");
    fs::write(&token, "right-s3cret\n").unwrap();
    worker.signal("HUP");
    bed.await_committed("t", 0, 50);
    // One that is refused later is looked for without being asked.
    fs::write(&token, "later-s3cret\n").unwrap();
    worker.signal("HUP");
    eventually("it is read", || worker.count(&["sink reopened sink=w"]) == 2);
    fs::write(&token, "right-s3cret\n").unwrap();
    bed.fill("t", 50);
    bed.await_committed("t", 0, 100);
    let file = bed.site.write_config(&config.to_string()).display().to_string();
    let ended = bed.stop(worker);
    assert_eq!(ended.lines_with(&["INFO", "the secret in its file is a new one, taking it sink=w"]).len(), 1);
    let checked = Worker::run(&["check", "-c", &file]);
    assert!(checked.stdout.iter().any(|line| line.contains("{ \"X-Api-Key\" = \"***\" }")), "{:?}", checked.stdout);
    for line in ended.log.iter().chain(&checked.stdout).chain(&checked.log) {
        // Neither as it is nor in hexadecimal, as a library would dump it.
        assert!(!line.contains("s3cret") && !line.contains("7333") && !line.contains("ureq"), "{line}");
    }
    let requests = web.requests();
    assert!(requests.iter().all(|request| request.header("x-api-key") == Some("header-s3cret")));
}

#[test]
fn a_user_and_a_password_are_sent_and_never_logged() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 5);
    fs::write(bed.site.path("password"), "pass:wörd").unwrap();
    let web = Web::start(|_| ok());
    let config = config(&bed, &["t"], &web, "json")
        .set("sink.w", "url", format!("'{}?key=s3cret'", web.url()))
        .set("sink.w", "username", "'worker'")
        .set("sink.w", "password_file", "'@DIR@/password'")
        .set("log", "level", "'trace'");
    let worker = bed.started(&config);
    bed.await_committed("t", 0, 5);
    let ended = bed.stop(worker);
    let request = &web.requests()[0];
    assert_eq!(request.header("authorization"), Some("Basic d29ya2VyOnBhc3M6d8O2cmQ="));
    assert_eq!(request.line, "POST /orders?key=s3cret HTTP/1.1");
    for secret in ["wörd", "d29ya2Vy", "s3cret"] {
        assert_eq!(ended.lines_with(&[secret]), [""; 0]);
    }
}

/// The first requests of the daemon are answered so; then the service is good.
#[test]
fn services_that_lie_lose_nothing_and_a_line_says_how() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    for (reply, words) in [
        (Reply::Silence, "no answer within timeout_ms=400"),
        (Reply::Close(bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")), "before its answer was whole"),
        (Reply::Close(bytes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")), "its answer"),
        (Reply::Endless(bytes("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 1 << 20]), "its answer"),
        (Reply::Endless(vec![], bytes("HTTP/1.1 100 Continue\r\n\r\n")), "interim answers"),
        (
            Reply::Endless(bytes("HTTP/1.1 500 X\r\nContent-Length: 999999999999\r\n\r\n"), vec![b'x'; 1 << 20]),
            "500 Internal Server Error: 'xxx",
        ),
        (Reply::Drip(vec![b'x'; 1 << 16], Duration::from_millis(10)), "its answer"),
        (
            Reply::Drip(
                bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{}", "x".repeat(9999))),
                Duration::from_millis(10),
            ),
            "its answer was not whole within timeout_ms=400",
        ),
        (Reply::Close(bytes("<html>")), "it begins with '<html>'"),
        (
            answer(307, "Location: http://127.0.0.1:9/elsewhere\r\n", ""),
            "Location 'http://127.0.0.1:9/elsewhere'; a redirect is not followed",
        ),
    ] {
        let told = format!("{reply:?}").chars().take(100).collect::<String>();
        let bed = Bed::new(&["t"]);
        bed.fill("t", 200);
        let count = AtomicUsize::new(0);
        let web = Web::start(move |_| if count.fetch_add(1, Ordering::Relaxed) < 2 { reply.clone() } else { ok() });
        let worker = bed.started(&config(&bed, &["t"], &web, "json").set("sink.w", "timeout_ms", 400));
        let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=w"]);
        assert!(line.contains(words) && line.len() < 900, "{told}: {line}");
        bed.await_committed("t", 0, 200);
        assert!(worker.peak_rss() < 100 << 20, "{told}: {} bytes", worker.peak_rss());
        bed.stop(worker);
        let requests = web.requests();
        assert_eq!(offsets(&requests[2..]), (0..200).collect::<Vec<_>>(), "{told}");
    }
}

/// Its answers are whole and far too long: they acknowledge, and are not kept.
#[test]
fn an_endless_body_takes_no_memory() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 300);
    let reply = Reply::Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]);
    let web = Web::start(move |_| reply.clone());
    let worker = bed.started(&config(&bed, &["t"], &web, "record"));
    bed.await_committed("t", 0, 300);
    assert!(worker.peak_rss() < 100 << 20, "{} bytes", worker.peak_rss());
    let ended = bed.stop(worker);
    assert_eq!(offsets(&web.requests()), (0..300).collect::<Vec<_>>());
    assert_eq!(loud(&ended.log), [""; 0]);
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

/// Numbers that are always the same (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % below
    }
}

/// What all services together have taken, by topic, in order.
type Taken = Arc<Mutex<Vec<(String, i64)>>>;

/// Takes records, and answers one of eight requests wrongly, after it has taken its records or before.
fn moody(taken: &Taken, seed: u64) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let (taken, dice) = (Arc::clone(taken), Mutex::new(Dice(seed)));
    move |request| {
        let (mood, mut all) = (dice.lock().unwrap().roll(40), taken.lock().unwrap());
        if mood > 2 {
            all.extend(coordinates(request));
        }
        match mood {
            0 => answer(503, "", ""),
            1 | 3 => Reply::Close(vec![]),
            2 | 4 => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".to_vec()),
            _ => ok(),
        }
    }
}

/// The service and the worker are killed at changing moments, under load.
#[test]
fn kills_of_service_and_worker_lose_nothing_and_keep_the_order() {
    let topics = ["a", "b"];
    let bed = Bed::new(&topics);
    for _ in 0..30 {
        topics.iter().for_each(|topic| bed.fill(topic, 500));
    }
    let taken = Taken::default();
    let mut web = Web::start(moody(&taken, 7));
    let address = web.address();
    let config = config(&bed, &topics, &web, "ndjson").set("sink.w", "max_batch_records", 50);
    let (mut dice, mut kills) = (Dice(99), (0, 0));
    let mut worker = bed.started(&config);
    let done = || topics.iter().all(|topic| bed.committed(topic) == Some(15_000));
    let until = Instant::now() + PATIENCE * 3;
    while !done() {
        assert!(Instant::now() < until, "{kills:?}");
        let goal = taken.lock().unwrap().len() + 200 + dice.roll(2_000);
        while taken.lock().unwrap().len() < goal && !done() {
            assert!(Instant::now() < until, "{kills:?}");
            thread::yield_now();
        }
        if done() {
            break;
        }
        if dice.roll(3) == 0 {
            worker.kill9();
            worker = bed.started(&config);
            kills.1 += 1;
        } else {
            drop(web);
            web = Web::start_at(address, moody(&taken, 1 + kills.0));
            kills.0 += 1;
        }
    }
    bed.stop(worker);
    let taken = taken.lock().unwrap();
    let mut duplicates = 0;
    for topic in topics {
        let mut next = 0;
        for (_, offset) in taken.iter().filter(|(own, _)| own == topic) {
            assert!(*offset <= next, "{topic}: {offset} came before {next}");
            duplicates += usize::from(*offset < next);
            next = next.max(offset + 1);
        }
        assert_eq!(next, 15_000, "{topic}");
    }
    println!(
        "kills of the service {}, of the worker {}; missing 0, duplicates {duplicates} of 30000",
        kills.0, kills.1
    );
    assert!(kills.0 >= 3 && kills.1 >= 1, "{kills:?}");
}

/// A service that is silent holds a write up to timeout_ms, and a stop no longer than it may take.
#[test]
fn a_stop_does_not_wait_for_a_silent_service() {
    let bed = Bed::new(&["t"]);
    bed.fill("t", 10);
    let web = Web::start(|_| Reply::Silence);
    let worker = bed.started(&config(&bed, &["t"], &web, "json").set("shutdown", "drain_timeout_ms", 300));
    web.wait_requests(1, PATIENCE);
    let begun = Instant::now();
    let ended = worker.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ended.sums("t"), "delivered=0 committed=0 in_flight=10 expired=0 reset=0");
    assert_eq!(bed.committed("t"), Some(0));
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
fn what_is_wrong_with_its_files_is_said_before_anything_starts() {
    let bed = Bed::new(&["t"]);
    fs::write(bed.site.path("token"), "two words\n").unwrap();
    fs::write(bed.site.path("empty"), "\n").unwrap();
    let web = Web::start(|_| ok());
    for (key, file, words) in [
        ("bearer_token_file", "none", "which does not exist; correct the path, or put the file there"),
        ("bearer_token_file", "token", "whose content has blanks or other characters that no token has"),
        ("bearer_token_file", "empty", "whose content is empty; write the token"),
    ] {
        let config = config(&bed, &["t"], &web, "json").set("sink.w", key, format!("'@DIR@/{file}'"));
        let file = bed.site.write_config(&config.to_string()).display().to_string();
        for arguments in [&["check", "-c", &file][..], &["-c", &file]] {
            let ended = Worker::run(arguments);
            assert_eq!(ended.code(), Some(2), "{:?}", ended.log);
            assert_eq!(ended.lines_with(&[&format!("sink.w.{key}: "), words]).len(), 1, "{:?}", ended.log);
        }
    }
    assert_eq!(bed.server.connections(), 0);
}

#[cfg(feature = "librdkafka")]
mod tls {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use openssl::ssl::{SslAcceptor, SslMethod, SslVerifyMode};

    use super::*;
    use crate::support::kafka::secure::{Pair, authority, issue};

    /// A service with this certificate; `clients`: it wants one of theirs, signed so.
    fn serve(pair: &Pair, clients: Option<&Pair>) -> Web {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        builder.set_private_key(&pair.key).unwrap();
        builder.set_certificate(&pair.certificate).unwrap();
        if let Some(clients) = clients {
            builder.cert_store_mut().add_cert(clients.certificate.clone()).unwrap();
            builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        }
        let acceptor = builder.build();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Web::open(address, b"", move |stream| Some(Box::new(acceptor.accept(stream).ok()?)), |_| ok())
    }

    fn write(bed: &Bed, name: &str, pair: &Pair) -> PathBuf {
        let (certificate, key) = (bed.site.path(&format!("{name}.pem")), bed.site.path(&format!("{name}.key")));
        fs::write(&certificate, pair.certificate.to_pem().unwrap()).unwrap();
        fs::write(key, pair.key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        certificate
    }

    fn secure(bed: &Bed, web: &Web, host: &str) -> Config {
        let url = format!("'https://{host}:{}/orders'", web.address().port());
        config(bed, &["t"], web, "record").set("sink.w", "url", url).set("sink.w", "timeout_ms", 3000)
    }

    #[test]
    fn records_go_to_a_service_that_has_proved_itself_and_to_no_other() {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 30);
        let (ours, foreign) = (authority("our authority"), authority("somebody else"));
        write(&bed, "ca", &ours);
        write(&bed, "foreign", &foreign);
        let named = issue(&ours, "service", &["127.0.0.1", "localhost"], 1);
        let web = serve(&named, None);
        let other = serve(&issue(&ours, "service", &["other.example"], 1), None);
        let expired = serve(&issue(&ours, "service", &["127.0.0.1"], -1), None);
        let greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let plain = Web::open(any, greeting, |stream| Some(Box::new(stream)), |_| ok());
        for (web, ca, words) in [
            (&other, Some("ca"), "its certificate is for other.example, not for 127.0.0.1; name the server in url"),
            (&expired, Some("ca"), "has expired"),
            (&web, Some("foreign"), "foreign.pem) has to hold that authority's certificate"),
            (&web, None, "this system does not trust it: write the PEM file of the servers' authority as ca_file"),
            (&plain, Some("ca"), "what answers there does not speak TLS: write http:// in url"),
        ] {
            let mut config = secure(&bed, web, "127.0.0.1");
            if let Some(ca) = ca {
                config = config.set("sink.w", "ca_file", format!("'@DIR@/{ca}.pem'"));
            }
            let worker = bed.started(&config);
            let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=w", "no TLS connection: "]);
            assert!(line.contains(words), "{line}");
            bed.stop(worker);
            assert_eq!(web.requests().len(), 0, "{words}");
        }
        assert_eq!(bed.committed("t"), Some(0));
        let worker = bed.started(&secure(&bed, &web, "localhost").set("sink.w", "ca_file", "'@DIR@/ca.pem'"));
        bed.await_committed("t", 0, 30);
        let ended = bed.stop(worker);
        assert_eq!(offsets(&web.requests()), (0..30).collect::<Vec<_>>());
        assert_eq!(loud(&ended.log), [""; 0]);
    }

    #[test]
    fn a_service_that_wants_a_certificate_of_ours_gets_it() {
        let bed = Bed::new(&["t"]);
        bed.fill("t", 5);
        let ours = authority("our authority");
        write(&bed, "ca", &ours);
        write(&bed, "client", &issue(&ours, "worker", &[], 1));
        let web = serve(&issue(&ours, "service", &["127.0.0.1"], 1), Some(&ours));
        let without = secure(&bed, &web, "127.0.0.1").set("sink.w", "ca_file", "'@DIR@/ca.pem'");
        let worker = bed.started(&without);
        let line = worker.wait_words(&["WARN", "sink fails, its topics wait sink=w"]);
        assert!(line.contains("wants a client certificate: write client_cert_file and client_key_file"), "{line}");
        bed.stop(worker);
        let with = without.set("sink.w", "client_cert_file", "'@DIR@/client.pem'").set(
            "sink.w",
            "client_key_file",
            "'@DIR@/client.key'",
        );
        let worker = bed.started(&with);
        bed.await_committed("t", 0, 5);
        bed.stop(worker);
        // Files that can't be used are errors of the configuration.
        let wrong = with.set("sink.w", "client_key_file", "'@DIR@/ca.pem'").to_string();
        let file = bed.site.write_config(&wrong).display().to_string();
        let checked = Worker::run(&["check", "-c", &file]);
        assert_eq!(checked.code(), Some(2));
        assert_eq!(
            checked.lines_with(&["sink.w.client_key_file: ", "it holds a certificate"]).len(),
            1,
            "{:?}",
            checked.log
        );
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
