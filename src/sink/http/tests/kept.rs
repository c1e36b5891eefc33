//! A connection that is kept, and a server that sends more than it was asked for: no answer is taken for another one.

use std::collections::BTreeSet;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n";

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A server in the clear, or under TLS; and the sink that knows it.
struct Pair {
    web: Web,
    sink: HttpSink,
    /// With the certificate.
    _dir: tempfile::TempDir,
}

impl Pair {
    fn plain(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let web = Web::start(handler);
        Self { sink: sink(&web.url(), Body::Record), web, _dir: tempfile::tempdir().unwrap() }
    }

    #[cfg(feature = "librdkafka")]
    fn secure(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        use openssl::asn1::Asn1Time;
        use openssl::hash::MessageDigest;
        use openssl::pkey::PKey;
        use openssl::ssl::{SslAcceptor, SslMethod};
        use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
        use openssl::x509::{X509, X509NameBuilder};

        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_text("CN", "127.0.0.1").unwrap();
        let name = name.build();
        let mut own = X509::builder().unwrap();
        own.set_version(2).unwrap();
        own.set_subject_name(&name).unwrap();
        own.set_issuer_name(&name).unwrap();
        own.set_pubkey(&key).unwrap();
        own.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        own.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        own.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        let names = SubjectAlternativeName::new().ip("127.0.0.1").build(&own.x509v3_context(None, None)).unwrap();
        own.append_extension(names).unwrap();
        own.sign(&key, MessageDigest::sha256()).unwrap();
        let own = own.build();

        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, own.to_pem().unwrap()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_modern_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&own).unwrap();
        let acceptor = acceptor.build();
        let wrap = move |stream| Some(Box::new(acceptor.accept(stream).ok()?) as Box<dyn web::Link>);
        let web = Web::open(SocketAddr::from(([127, 0, 0, 1], 0)), b"", wrap, handler);
        let url = web.url().replace("http://", "https://");
        let tls = Tls { ca: Some(ca), identity: None, verify_hostname: true };
        let sink = HttpSink::open("h", Settings { tls, ..settings(&url, Body::Record) }).unwrap();
        Self { web, sink, _dir: dir }
    }

    /// Both kinds of a server that answers so.
    fn both(handler: impl Fn(&Request) -> Reply + Clone + Send + Sync + 'static) -> Vec<Self> {
        vec![
            Self::plain(handler.clone()),
            #[cfg(feature = "librdkafka")]
            Self::secure(handler),
        ]
    }
}

/// With TLS 1.3 a server sends tickets behind the handshake, which are nothing that was not asked for.
#[test]
fn tickets_of_tls_do_not_cost_the_connection() {
    for Pair { web, mut sink, .. } in Pair::both(|_| ok()) {
        for n in 0..50 {
            sink.write(&part(), &numbered(n + 1).skip(n)).unwrap();
        }
        assert_eq!((web.requests().len(), web.connections()), (50, 1));
    }
}

/// What follows an answer that must have no body may be the body, and come as late as with the next request.
#[test]
fn behind_an_answer_that_announces_a_body_that_it_must_not_have_there_is_no_other() {
    let length = format!("HTTP/1.1 204 X\r\nContent-Length: {}\r\n\r\n", OK.len());
    let not_modified = length.replace("204", "304");
    for first in [length.as_str(), "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", &not_modified] {
        let head = bytes(first);
        let handler = move |request: &Request| match (request.connection, request.number("kafka-offset")) {
            (0, 0) => Reply::Keep(head.clone()),
            (0, _) => Reply::Keep(bytes(&format!("{OK}{BUSY}"))),
            _ => answer(503, "", ""),
        };
        for Pair { web, mut sink, .. } in Pair::both(handler) {
            let all = numbered(2);
            match sink.write(&part(), &all.slice(0..1)) {
                Ok(()) => assert!(first.contains("204")),
                Err(stopped) => assert!(first.contains("304"), "{stopped:?}"),
            }
            let why = again(sink.write(&part(), &all.slice(1..2)));
            assert!(why.contains("503"), "{first}: {why}");
            assert_eq!(web.requests().iter().map(|request| request.connection).collect::<Vec<_>>(), [0, 1], "{first}");
        }
    }
}

/// It refuses everything but the first record, and repeats its first answer when the sink may look already, or behind
/// the second request, right before the answer to that.
#[test]
fn a_second_answer_to_one_request_is_none_to_the_next_one() {
    let late = |request: &Request| match (request.connection, request.number("kafka-offset")) {
        (0, 0) => ok(),
        (0, _) => Reply::Keep(bytes(&format!("{OK}{BUSY}"))),
        _ => answer(503, "", ""),
    };
    for Pair { web, mut sink, .. } in Pair::both(late) {
        let stopped = sink.write(&part(), &numbered(2)).unwrap_err();
        assert!(stopped.done == 1 && matches!(&stopped.why, Why::Retry(why) if why.contains("503")), "{stopped:?}");
        // The answer that nobody can be sure of, and the same request on a connection of its own.
        assert_eq!(web.requests().iter().map(|request| request.connection).collect::<Vec<_>>(), [0, 0, 1]);
    }
    let soon = |request: &Request| match request.number("kafka-offset") {
        0 => Reply::Twice(bytes(OK), bytes(OK)),
        _ => answer(503, "", ""),
    };
    for Pair { web, mut sink, .. } in Pair::both(soon) {
        let all = numbered(2);
        sink.write(&part(), &all.slice(0..1)).unwrap();
        web.wait_seconds(1, LONG);
        let why = again(sink.write(&part(), &all.slice(1..2)));
        assert!(why.contains("503"), "{why}");
        assert_eq!(web.connections(), 2);
    }
}

/// Whether a second answer is seen in time is a matter of luck; behind the first that was seen there is no such luck.
#[test]
fn a_server_that_was_seen_to_send_more_gets_no_second_request_on_a_connection() {
    for Pair { web, mut sink, .. } in Pair::both(|_| Reply::Twice(bytes(OK), bytes(OK))) {
        let all = numbered(21);
        sink.write(&part(), &all.slice(0..1)).unwrap();
        web.wait_seconds(1, LONG);
        sink.write(&part(), &all.slice(1..21)).unwrap();
        let connections: Vec<usize> = web.requests().iter().map(|request| request.connection).collect();
        assert_eq!(connections.iter().collect::<BTreeSet<_>>().len(), connections.len(), "{connections:?}");
        assert_eq!(connections.len(), 21);
        sink.reopen().unwrap();
        assert!(!sink.client.is_wary(), "SIGHUP: somebody may have mended it");
    }
    // Many servers say so before they close what was idle for too long.
    let idle = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let Pair { web, mut sink, .. } = Pair::plain(move |_| Reply::Twice(bytes(OK), bytes(idle)));
    sink.write(&part(), &numbered(1)).unwrap();
    web.wait_seconds(1, LONG);
    sink.write(&part(), &numbered(2).skip(1)).unwrap();
    assert_eq!((web.connections(), sink.client.is_wary()), (2, false));
}

/// While a large body is sent, the late second answer to the request before comes: the server can't have read all of it.
#[test]
fn what_comes_before_the_last_byte_of_a_request_is_no_answer_to_it_on_a_kept_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut read = 0;
        let (mut first, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        read += first.read(&mut buffer).unwrap();
        io::Write::write_all(&mut first, OK.as_bytes()).unwrap();
        // The head of the second request; its body is larger than what the system takes.
        let _ = first.read(&mut buffer[..1]).unwrap();
        io::Write::write_all(&mut first, OK.as_bytes()).unwrap();
        let drain = std::thread::spawn(move || while first.read(&mut [0; 1 << 16]).is_ok_and(|count| count > 0) {});
        let (mut second, _) = listener.accept().unwrap();
        let _ = second.read(&mut buffer).unwrap();
        io::Write::write_all(&mut second, BUSY.as_bytes()).unwrap();
        second.shutdown(std::net::Shutdown::Write).unwrap();
        while second.read(&mut buffer).is_ok_and(|count| count > 0) {}
        drain.join().unwrap();
        read
    });
    let mut sink = sink(&url, Body::Record);
    sink.write(&part(), &numbered(1)).unwrap();
    let why = again(sink.write(&part(), &records([vec![b'x'; 30 << 20]])));
    assert!(why.contains("503"), "{why}");
    drop(sink);
    assert!(server.join().unwrap() > 0);
}

/// An interim answer has no body: who announces one means that what looks like the answer is a part of it.
#[test]
fn an_interim_answer_with_a_body_is_an_error() {
    for (header, is_wrong) in [
        (format!("Content-Length: {}", OK.len()), true),
        ("Transfer-Encoding: chunked".to_owned(), true),
        ("content-length : 7".to_owned(), true),
        ("Content-Length: 0".to_owned(), false),
        ("Link: a:content-length: 7".to_owned(), false),
    ] {
        let reply = bytes(&format!("HTTP/1.1 103 X\r\n{header}\r\n\r\n{OK}{BUSY}"));
        let fine = bytes(&format!("HTTP/1.1 103 X\r\n{header}\r\n\r\n{OK}"));
        let reply = if is_wrong { reply } else { fine };
        let web = Web::start(move |_| Reply::Keep(reply.clone()));
        let result = sink(&web.url(), Body::Record).write(&part(), &numbered(1));
        assert_eq!(result.is_err(), is_wrong, "{header}: {result:?}");
        if is_wrong {
            let why = again(result);
            assert!(why.contains("it sent an interim answer (1xx) with a body"), "{why}");
        }
    }
}
