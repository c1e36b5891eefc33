//! The sink against a server that answers as it is told to.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::record::{Arena, Offset, Record};

#[allow(missing_docs, dead_code, unreachable_pub)]
#[path = "../../../tests/support/web.rs"]
mod web;

use web::{Reply, Request, Web, answer, ok};

mod kept;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

struct Values(Vec<Vec<u8>>);

impl Arena for Values {
    fn record(&self, index: usize) -> Record<'_> {
        Record { offset: Offset::new(index as i64).unwrap(), value: Some(&self.0[index]), ..Record::default() }
    }
}

/// Records with these values; the offset is the index.
fn records(values: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Records {
    let values: Vec<Vec<u8>> = values.into_iter().map(Into::into).collect();
    let count = values.len();
    Records::new(Arc::new(Values(values)), 0..count)
}

fn numbered(count: usize) -> Records {
    records((0..count).map(|n| format!("v{n}")))
}

fn part() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn settings(url: &str, body: Body) -> Settings {
    Settings {
        endpoint: Endpoint::parse(url).unwrap(),
        method: Method::Post,
        body,
        max_batch_records: 500,
        max_batch_bytes: 1 << 20,
        content_type: body.content_type().to_owned(),
        timeout: LONG,
        retry_status: BTreeSet::new(),
        retry_after_max: Duration::from_secs(3600),
        headers: Vec::new(),
        auth: None,
        tls: Tls { ca: None, identity: None, verify_hostname: true },
    }
}

fn sink(url: &str, body: Body) -> HttpSink {
    HttpSink::open("h", settings(url, body)).unwrap()
}

fn impatient(url: &str) -> HttpSink {
    HttpSink::open("h", Settings { timeout: SHORT, ..settings(url, Body::Record) }).unwrap()
}

/// The text of a write that asks for another try.
#[track_caller]
fn again(result: Result<(), Stopped>) -> String {
    match result {
        Err(Stopped { done: 0, why: Why::Retry(why) }) => why,
        other => panic!("{other:?}"),
    }
}

/// The offsets of what is in a request of the form ndjson.
fn offsets(request: &Request) -> Vec<i64> {
    let offset = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["offset"].as_i64().unwrap();
    request.text().lines().map(offset).collect()
}

#[test]
fn a_connection_is_kept_from_request_to_request() {
    let web = Web::start(|_| ok());
    let mut sink = sink(&web.url(), Body::Record);
    sink.write(&part(), &numbered(100)).unwrap();
    let requests = web.requests();
    assert_eq!(
        requests.iter().map(Request::text).collect::<Vec<_>>(),
        (0..100).map(|n| format!("v{n}")).collect::<Vec<_>>()
    );
    assert_eq!(web.connections(), 1);
    assert_eq!(requests[7].line, "POST /orders HTTP/1.1");
    assert_eq!(requests[7].header("kafka-offset"), Some("7"));
    sink.reopen().unwrap();
    sink.write(&part(), &numbered(1)).unwrap();
    assert_eq!(web.connections(), 2);
}

/// The server closes after each answer without saying so: the next request finds a dead connection.
#[test]
fn a_connection_that_was_closed_between_two_requests_is_no_failure() {
    let web = Web::start(|_| Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let mut sink = sink(&web.url(), Body::Record);
    sink.write(&part(), &numbered(200)).unwrap();
    assert_eq!((web.requests().len(), web.connections()), (200, 200));
}

/// It takes the second request of each connection and closes without an answer.
#[test]
fn a_request_that_a_kept_connection_took_without_an_answer_is_sent_again_at_once() {
    let web = Web::start(move |request: &Request| {
        static LAST: AtomicUsize = AtomicUsize::new(usize::MAX);
        if LAST.swap(request.connection, Ordering::Relaxed) == request.connection { Reply::Close(vec![]) } else { ok() }
    });
    let mut sink = sink(&web.url(), Body::Record);
    sink.write(&part(), &numbered(20)).unwrap();
    // Each but the first was sent twice.
    assert_eq!((web.requests().len(), web.connections()), (39, 20));
}

#[test]
fn the_one_record_that_is_refused_is_found_and_the_others_are_delivered() {
    for status in [400, 413] {
        let bad = |request: &Request| request.text().contains("\"bad\"");
        let web = Web::start(move |request| if bad(request) { answer(status, "", "no \"bad\" here") } else { ok() });
        let mut sink = sink(&web.url(), Body::Ndjson);
        let all = records((0..40).map(|n| if n == 13 || n == 14 { "bad".to_owned() } else { format!("v{n}") }));
        let mut taken = Vec::new();
        let mut from = 0;
        for bad in [13, 14] {
            let Err(Stopped { done, why: Why::Reject(why) }) = sink.write(&part(), &all.skip(from)) else { panic!() };
            assert_eq!(from + done, bad);
            let words = format!("POST {} with offset {bad}: {status}", web.url());
            assert!(why.starts_with(&words) && why.ends_with(": 'no \"bad' here'"), "{why}");
            from = bad + 1;
        }
        sink.write(&part(), &all.skip(from)).unwrap();
        let requests = web.requests();
        for request in requests.iter().filter(|request| !bad(request)) {
            taken.extend(offsets(request));
        }
        assert_eq!(taken, (0..40).filter(|n| *n != 13 && *n != 14).collect::<Vec<_>>());
        assert!(requests.len() < 30, "{} requests for 40 records", requests.len());
    }
}

#[test]
fn what_was_taken_before_a_failure_stays_taken() {
    let web =
        Web::start(|request| if request.number("kafka-first-offset") < 20 { ok() } else { answer(503, "", "busy") });
    let mut sink = HttpSink::open("h", Settings { max_batch_records: 10, ..settings(&web.url(), Body::Json) }).unwrap();
    let Err(Stopped { done: 20, why: Why::Retry(why) }) = sink.write(&part(), &numbered(35)) else { panic!() };
    assert_eq!(why, format!("POST {} with offsets 20 to 29 (10 records): 503 Service Unavailable: 'busy'", web.url()));
}

#[test]
fn the_time_that_the_server_asks_for_is_passed_on_within_its_bound() {
    for (value, seconds) in [("7", Some(7)), ("86400", Some(3600)), ("nonsense", None)] {
        let web = Web::start(move |_| answer(429, &format!("Retry-After: {value}\r\n"), ""));
        let stopped = sink(&web.url(), Body::Record).write(&part(), &numbered(1)).unwrap_err();
        match (stopped.why, seconds) {
            (Why::RetryAfter(why, after), Some(seconds)) => {
                assert_eq!(after, Duration::from_secs(seconds));
                assert!(why.ends_with(&format!("429 Too Many Requests, Retry-After '{value}'")), "{why}");
            }
            (Why::Retry(_), None) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_redirect_is_not_followed_and_loses_nothing() {
    let other = Web::start(|_| ok());
    let to = format!("Location: {}\r\n", other.url());
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let web = Web::start(move |_| answer(status, &to, ""));
        let why = again(sink(&web.url(), Body::Record).write(&part(), &numbered(1)));
        assert!(why.contains(&format!("Location '{}'; a redirect is not followed; correct url", other.url())), "{why}");
    }
    assert_eq!(other.requests().len(), 0);
}

/// What a server may do, and how the text goes on. All of it has to end soon, and none of it is an acknowledgement.
#[test]
fn servers_that_lie_get_no_acknowledgement() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let pause = Duration::from_millis(20);
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (reply, words) in [
        (Reply::Silence, "no answer within timeout_ms=300"),
        (Reply::Close(vec![]), "it closed the connection without an answer"),
        (Reply::Close(bytes("HTTP/1.1 200 OK\r\nContent-Le")), "it closed the connection before its answer was whole"),
        (
            Reply::Close(bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")),
            "before its answer was whole (41 bytes came)",
        ),
        (
            Reply::Keep(bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")),
            "its answer was not whole within timeout_ms=300",
        ),
        (Reply::Close(bytes(&format!("{chunked}5\r\nab"))), "before its answer was whole"),
        (Reply::Keep(bytes(&format!("{chunked}xyz\r\nab\r\n"))), "its answer is none in HTTP/1.1"),
        (Reply::Keep(bytes("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")), "its answer"),
        (Reply::Keep(bytes("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n")), "its answer"),
        (
            Reply::Drip(bytes(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000))), pause),
            "its answer was not whole within",
        ),
        (
            Reply::Drip(bytes(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1_000))), pause),
            "its answer was not whole within",
        ),
        (Reply::Endless(bytes("HTTP/1.1 200 OK\r\nX: "), vec![b'x'; 1 << 16]), "its answer"),
        (Reply::Endless(bytes("HTTP/1.1 200 OK\r\n"), bytes("X: y\r\n")), "its answer"),
        (Reply::Endless(vec![], bytes("HTTP/1.1 100 Continue\r\n\r\n")), "more than 100 interim answers"),
        (Reply::Endless(vec![], bytes("HTTP/1.1 102 Processing\r\nX: y\r\n\r\n")), "more than 100 interim answers"),
        (Reply::Keep(bytes("HTTP/1.1 101 Switching Protocols\r\n\r\n")), "within timeout_ms=300"),
        (Reply::Close(bytes("<html>HTTP/0.9 has no head</html>")), "it begins with '<html>HTTP/0.9"),
        (Reply::Close(bytes("SSH-2.0-OpenSSH_9\r\n")), "it begins with 'SSH-2.0-OpenSSH_9"),
        (Reply::Close(bytes("HTTP/1.1 2000 OK\r\n\r\n")), "its answer is none in HTTP/1.1"),
        (Reply::Close(bytes("HTTP/2 200\r\n\r\n")), "its answer is none in HTTP/1.1"),
        (Reply::Keep(bytes(&format!("\0\0\0\0{whole}"))), "its answer is none in HTTP/1.1"),
    ] {
        let told = format!("{reply:?}").chars().take(120).collect::<String>();
        let web = Web::start(move |_| reply.clone());
        let mut sink = impatient(&web.url());
        let begun = Instant::now();
        let why = again(sink.write(&part(), &numbered(3)));
        assert!(why.contains(words), "{told}: {why}");
        assert!(why.starts_with(&format!("POST {} with offset 0: ", web.url())) && why.len() < 500, "{told}: {why}");
        assert!(begun.elapsed() < SHORT * 10, "{told}: {:?}", begun.elapsed());
        assert_eq!(web.requests().len(), 1, "{told}");
    }
}

/// And what may look odd, and is an acknowledgement all the same.
#[test]
fn whole_answers_of_any_form_acknowledge() {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (reply, connections) in [
        (Reply::Keep(bytes("HTTP/1.1 204 No Content\r\n\r\n")), 1),
        (Reply::Keep(bytes(&format!("{chunked}3\r\nabc\r\n0\r\n\r\n"))), 1),
        (
            Reply::Keep(bytes(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: y\r\n\r\nHTTP/1.1 202 X\r\nContent-Length: 1\r\n\r\na",
            )),
            1,
        ),
        (
            Reply::Drip(
                bytes("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"),
                Duration::from_millis(1),
            ),
            1,
        ),
        // No compression was asked for; what is in it does not matter.
        (Reply::Keep(bytes("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")), 1),
        (Reply::Close(bytes("HTTP/1.0 200 OK\r\n\r\nuntil the end")), 5),
        (Reply::Keep(bytes("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")), 5),
        // Longer than anybody reads: not heard out, and the connection is not used again.
        (Reply::Endless(bytes("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"), vec![b'x'; 1 << 16]), 5),
        (Reply::Endless(bytes(chunked), bytes("3\r\nabc\r\n")), 5),
        // A second answer to one request is none to the next one.
        (
            Reply::Keep(bytes(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )),
            5,
        ),
    ] {
        let told = format!("{reply:?}").chars().take(120).collect::<String>();
        let web = Web::start(move |_| reply.clone());
        let mut sink = sink(&web.url(), Body::Record);
        sink.write(&part(), &numbered(5)).unwrap_or_else(|stopped| panic!("{told}: {stopped:?}"));
        assert_eq!((web.requests().len(), web.connections()), (5, connections), "{told}");
    }
}

#[test]
fn an_answer_that_comes_before_the_question_is_none() {
    let greeting = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let web = Web::open(address, greeting, |stream| Some(Box::new(stream)), |_| Reply::Silence);
    // Whether it comes before or behind our first byte is a matter of luck; of many connections some see it before.
    let (begun, mut seen) = (Instant::now(), false);
    while !seen && begun.elapsed() < LONG {
        if let Err(Stopped { why: Why::Retry(why), .. }) = impatient(&web.url()).write(&part(), &numbered(1)) {
            seen = why.contains("it sent something before it was asked");
        }
    }
    assert!(seen);
}

/// A server that refuses a large body may answer and close without reading it.
#[test]
fn a_refusal_that_comes_before_the_body_was_sent_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).unwrap();
        io::Write::write_all(&mut stream, b"HTTP/1.1 413 X\r\nContent-Length: 4\r\n\r\nmuch").unwrap();
        // What is left unread would make it a reset, which may overtake the answer.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        while stream.read(&mut [0; 1 << 16]).is_ok_and(|count| count > 0) {}
    });
    let mut sink = sink(&url, Body::Record);
    let stopped = sink.write(&part(), &records([vec![b'x'; 30 << 20]])).unwrap_err();
    let Why::Reject(why) = stopped.why else { panic!("{stopped:?}") };
    assert!(why.ends_with("413 Payload Too Large: 'much'"), "{why}");
    drop(sink);
    server.join().unwrap();
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a?token=s3cret", listener.local_addr().unwrap());
    drop(listener);
    let why = again(impatient(&url).write(&part(), &numbered(1)));
    assert!(why.contains("/a?*** with offset 0: no connection: Connection refused"), "{why}");
    let why = again(impatient("http://no-such-host.invalid/").write(&part(), &numbered(1)));
    assert!(why.contains("no connection: "), "{why}");
}

#[test]
fn a_secret_is_read_anew_when_it_is_refused_and_at_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "old\n").unwrap();
    let web = Web::start(|request| match request.header("authorization") {
        Some("Bearer new") => ok(),
        _ => answer(401, "", ""),
    });
    let auth = Some(Auth::Bearer { file: file.clone() });
    let mut sink = HttpSink::open("h", Settings { auth, ..settings(&web.url(), Body::Record) }).unwrap();
    let Err(Stopped { done: 0, why: Why::Reject(why) }) = sink.write(&part(), &numbered(1)) else { panic!() };
    assert!(
        why.ends_with("401 Unauthorized; see that the secret is right and may do this; SIGHUP reads it again"),
        "{why}"
    );
    assert_eq!(web.requests().len(), 1, "the file has the same secret");
    std::fs::write(&file, "new\r\n").unwrap();
    sink.write(&part(), &numbered(2)).unwrap();
    assert_eq!(web.requests().len(), 4, "the first one once more");
    std::fs::write(&file, "").unwrap();
    let why = sink.reopen().unwrap_err();
    assert!(why.contains("bearer_token_file: the content of") && why.ends_with("is empty; write the token"), "{why}");
    sink.write(&part(), &numbered(1)).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(sink.reopen().unwrap_err().contains("can't be read: No such file"));
}

#[test]
fn each_of_the_fixed_headers_is_sent_and_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "s3cret:ü").unwrap();
    // It repeats what it was sent.
    let web = Web::start(|request| match request.number("kafka-offset") {
        0 => answer(400, "", &format!("Cannot {} {:?}", request.line, request.headers)),
        _ => Reply::Close(format!("{} {:?}", request.line, request.headers).into_bytes()),
    });
    let settings = Settings {
        auth: Some(Auth::Basic { username: "wörker".to_owned(), file }),
        headers: vec![("X-Api-Key".to_owned(), Secret::new("s3cret"))],
        method: Method::Put,
        content_type: "text/plain; charset=utf-8".to_owned(),
        ..settings(&format!("{}?key=s3cret", web.url()), Body::Record)
    };
    let mut sink = HttpSink::open("h", settings).unwrap();
    let refused = format!("{:?}", sink.write(&part(), &numbered(1)).unwrap_err());
    assert!(refused.contains("Cannot PUT /orders?*** HTTP/1.1"), "{refused}");
    let nonsense = format!("{:?}", sink.write(&part(), &numbered(2).skip(1)).unwrap_err());
    assert!(nonsense.contains("it begins with 'PUT /orders?*** HTTP/1.1"), "{nonsense}");
    for text in [refused, nonsense, format!("{sink:?}")] {
        assert!(!text.contains("s3cret") && !text.contains("zM2NyZXQ"), "{text}");
    }
    let request = &web.requests()[0];
    assert_eq!(request.line, "PUT /orders?key=s3cret HTTP/1.1");
    assert_eq!(request.header("authorization"), Some("Basic d8O2cmtlcjpzM2NyZXQ6w7w="));
    assert_eq!(request.header("x-api-key"), Some("s3cret"));
    assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(request.header("user-agent"), Some(concat!("worker/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(request.header("accept-encoding"), None);
}

struct Two;

impl Arena for Two {
    fn record(&self, index: usize) -> Record<'_> {
        let offset = Offset::new(12_850 + index as i64).unwrap();
        let key = (index == 0).then_some(&b"7"[..]);
        Record { offset, key, value: key.map(|_| &b"a"[..]), ..Record::default() }
    }
}

/// README.md shows a request in full: what is sent is that, byte for byte.
#[test]
fn a_request_is_as_the_readme_has_it() {
    let readme = include_str!("../../../README.md");
    let from = readme.find("POST /orders HTTP/1.1\n").unwrap();
    let shown = &readme[from..from + readme[from..].find("\n```\n").unwrap()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (head, body) = shown.split_once("\n\n").unwrap();
    let head = head.replace("host: example.com", &format!("host: {address}")).replace("Bearer …", "Bearer x");
    let expected = format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"));
    let length = expected.len();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        String::from_utf8(bytes).unwrap()
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "x").unwrap();
    let settings =
        Settings { auth: Some(Auth::Bearer { file }), ..settings(&format!("http://{address}/orders"), Body::Json) };
    let mut sink = HttpSink::open("h", settings).unwrap();
    sink.write(&TopicPartition::new("SCHEDULE-CAR-ORDER", 0), &Records::new(Arc::new(Two), 0..2)).unwrap();
    assert_eq!(server.join().unwrap(), expected);
}

#[test]
fn what_can_be_a_header_a_media_type_a_token() {
    for (name, value) in [("X-Api-Key", "a b"), ("authorization", "ApiKey x"), ("x", "1")] {
        assert_eq!(check_header(name, value), Ok(()));
    }
    for (name, value, words) in [
        ("a b", "x", "no name of a header"),
        ("", "x", "no name of a header"),
        ("X\r\nY", "x", "no name of a header"),
        ("Content-Length", "1", "the worker's own"),
        ("Kafka-Topic", "x", "the worker's own"),
        ("content-TYPE", "a/b", "write content_type"),
        ("X", "s3cret\r\nY: z", "can't be sent"),
        ("X", "s3crét", "can't be sent"),
        ("X", " s3cret", "can't be sent"),
        ("X", "", "can't be sent"),
    ] {
        let why = check_header(name, value).unwrap_err();
        assert!(why.contains(words) && !why.contains("s3cr"), "{name}: {why}");
    }
    assert!(check_media_type("application/vnd.kafka+json; charset=utf-8").is_ok());
    for text in ["", "json", "a/", "/b", "a/b\r\nX: y", "a b/c", "a/b; ü"] {
        assert!(check_media_type(text).is_err(), "{text}");
    }
    assert!(check_token(&Secret::new("aZ09-._~+/=")).is_ok());
    assert!(check_token(&Secret::new("a b")).is_err() && check_token(&Secret::new("ü")).is_err());
}
