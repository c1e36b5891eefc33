//! TLS and SASL against peers that follow a script. Certificates, users and sessions are tested on a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use super::tests::{Reply, i16s, i32s, peer, text, versions};
use super::*;
use crate::client::security::{Mechanism, Sasl, Secret, Tls};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn connect(address: &str, security: Security, connect_timeout: Duration) -> Result<Wire, Fault> {
    Wire::open(address, "test", connect_timeout, LONG, KnownHosts::default(), security, false)
}

fn tls() -> Security {
    Security { tls: Some(Tls { ca: None, identity: None, verify_hostname: true }), sasl: None }
}

fn plain() -> Security {
    let sasl = Sasl { mechanism: Mechanism::Plain, username: "u".to_owned(), password: Secret::new("tr0ub4dor") };
    Security { tls: None, sasl: Some(sasl) }
}

/// Versions of Metadata, SaslHandshake and SaslAuthenticate.
fn with_sasl() -> Reply {
    versions(&[[3, 0, 4], [17, 0, 1], [18, 0, 1], [36, 0, 1]])
}

#[test]
fn a_handshake_ends_by_the_deadline_however_slowly_it_drips() {
    for drip in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            if drip {
                // The header of a record of the handshake, 16 KiB long, and then a byte every now and then.
                socket.write_all(b"\x16\x03\x03\x40\x00").unwrap();
                while socket.write_all(b"\0").is_ok() {
                    thread::sleep(Duration::from_millis(40));
                }
            }
            let _ = socket.read_to_end(&mut Vec::new());
        });
        let started = Instant::now();
        match connect(&address, tls(), SHORT) {
            Err(Fault::Silent { call: TLS_HANDSHAKE, after_ms, .. }) => assert!(after_ms >= 300),
            other => panic!("drip={drip}: {other:?}"),
        }
        assert!(started.elapsed() < LONG / 2, "drip={drip}: {:?}", started.elapsed());
    }
}

#[test]
fn what_answers_without_tls_is_named() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\x08\0\0\0\x01abcd", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(bytes);
        });
        let fault = connect(&address, tls(), LONG).unwrap_err();
        assert!(matches!(fault, Fault::Tls { .. }), "{bytes:?}: {fault:?}");
        let text = fault.to_string();
        assert!(text.contains("leave out [kafka.tls]") && text.contains(&address), "{bytes:?}: {text}");
    }
}

#[test]
fn a_refusal_says_what_the_broker_says_and_never_the_password() {
    // error; mechanisms
    let unsupported = [i16s(&[33]), i32s(&[2]), text("GSSAPI"), text("SCRAM-SHA-256")].concat();
    let agreed = || Reply::Body([i16s(&[0]), i32s(&[1]), text("PLAIN")].concat());
    // error; message; bytes; lifetime
    let failed = [i16s(&[58]), text("Authentication failed: \u{1b}[31mbad"), i32s(&[0, 0, 0])].concat();
    for (script, words) in [
        (vec![with_sasl(), Reply::Body(unsupported)], "it has GSSAPI, SCRAM-SHA-256"),
        (vec![with_sasl(), Reply::Body([i16s(&[34]), i32s(&[0])].concat())], "knows no users"),
        (vec![with_sasl(), agreed(), Reply::Body(failed)], "Authentication failed: \\u{1b}[31mbad (user \"u\", PLAIN)"),
    ] {
        let fault = connect(&peer(script), plain(), LONG).unwrap_err();
        assert!(matches!(fault, Fault::Unauthenticated { .. }), "{fault:?}");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
        assert!(!format!("{fault:?}").contains("tr0ub4dor"), "{fault:?}");
    }
    let fault = connect(&peer(vec![versions(&[[3, 0, 4], [17, 0, 0]])]), plain(), LONG).unwrap_err();
    assert!(matches!(fault, Fault::TooOld { lacks, .. } if lacks.contains("SaslHandshake 1")), "{fault:?}");
}

/// A session of 1 ms is renewed before the next request, on the same connection.
#[test]
fn a_session_is_renewed_before_it_ends() {
    let agreed = || Reply::Body([i16s(&[0]), i32s(&[1]), text("PLAIN")].concat());
    let welcome = |lifetime_ms: i32| Reply::Body([i16s(&[0, -1]), i32s(&[0, 0, lifetime_ms])].concat());
    // FindCoordinator: error, node, host, port
    let coordinator = || Reply::Body([i16s(&[0]), i32s(&[1]), text("h"), i32s(&[1])].concat());
    let apis = versions(&[[10, 0, 0], [17, 0, 1], [18, 0, 1], [36, 0, 1]]);
    let script = vec![apis, agreed(), welcome(1), agreed(), welcome(0), coordinator(), coordinator()];
    let mut wire = connect(&peer(script), plain(), LONG).unwrap();
    let ends = wire.session_ends.expect("the broker told a lifetime");
    while Instant::now() < ends {
        thread::yield_now();
    }
    assert_eq!(wire.coordinator("g").unwrap(), "h:1");
    assert_eq!(wire.session_ends, None, "the second session has no end");
    assert_eq!(wire.coordinator("g").unwrap(), "h:1");
}
