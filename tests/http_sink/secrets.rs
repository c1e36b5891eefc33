//! Who the worker is to a service, and who that is: secrets, and TLS.

use std::fs;

use super::*;
use crate::support::eventually;

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
