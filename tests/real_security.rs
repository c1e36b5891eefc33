//! TLS, SASL and ACLs against a real broker.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use worker::client::security::{Identity, Mechanism, Sasl, Secret, Security, Tls};
use worker::client::{Connection, Inspect, KnownHosts, Retry};
use worker::record::TopicPartition;
use worker::wire::Wire;

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::secure::{ALICE, KEY_PASSWORD, SESSION_MS, Secure};
use crate::support::kafka::tool::Produce;
use crate::support::worker::{Config, Ended, Site, Worker};

const LONG: Duration = Duration::from_secs(30);
const TOPIC: &str = "allowed";
const FORBIDDEN: &str = "forbidden";
const GROUP: &str = "secure";

/// One node for all tests here.
fn secure() -> &'static Secure {
    static SHARED: std::sync::OnceLock<Secure> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| {
        let secure = Secure::start();
        for topic in [TOPIC, FORBIDDEN] {
            secure.kafka.tool().create(topic, "1", "");
            secure.kafka.tool().produce(&Produce::new(topic, 10));
            // Of the group of the topic he may know what it has, and commit.
            secure.allow(ALICE.0, &["--operation", "Read", "--group", &format!("{GROUP}-{topic}")]);
        }
        secure.allow(ALICE.0, &["--operation", "Read", "--topic", TOPIC]);
        // Who shows a certificate is its subject. Over SSL without one everybody is ANONYMOUS.
        secure.allow("CN=client", &["--operation", "Read", "--topic", TOPIC]);
        secure.kafka.tool().commit(&format!("{GROUP}-{TOPIC}"), TOPIC, 0, 4).unwrap();
        secure
    })
}

fn connection(address: &str, security: Security) -> Connection {
    Connection {
        bootstrap_servers: vec![address.to_owned()],
        client_id: "security-tests".to_owned(),
        connect_timeout: LONG,
        request_timeout: LONG,
        metadata_max_age: LONG,
        security,
        properties: Vec::new(),
        known: KnownHosts::default(),
    }
}

fn tls(secure: &Secure) -> Tls {
    Tls { ca: Some(secure.file("ca.pem")), identity: None, verify_hostname: true }
}

fn with_identity(secure: &Secure, certificate: &str, key: &str, password: Option<&str>) -> Tls {
    let (certificate, key) = (secure.file(certificate), secure.file(key));
    let identity = Identity { certificate, key, key_password: password.map(Secret::new) };
    Tls { identity: Some(identity), ..tls(secure) }
}

fn alice(mechanism: Mechanism) -> Sasl {
    Sasl { mechanism, username: ALICE.0.to_owned(), password: Secret::new(ALICE.1) }
}

#[test]
fn every_way_in() {
    let secure = kafka_or_skip!(secure());
    let scram = Mechanism::ScramSha256;
    let any_name = Tls { verify_hostname: false, ..tls(secure) };
    let ways: [(&str, Option<Tls>, Option<Mechanism>); 8] = [
        ("SSL", Some(tls(secure)), None),
        ("OTHER", Some(any_name), None),
        ("MTLS", Some(with_identity(secure, "client.pem", "client.key", None)), None),
        ("MTLS", Some(with_identity(secure, "client.pem", "encrypted.key", Some(KEY_PASSWORD))), None),
        ("SASL_SSL", Some(tls(secure)), Some(Mechanism::Plain)),
        ("SASL_SSL", Some(tls(secure)), Some(scram)),
        ("SASL_SSL", Some(tls(secure)), Some(Mechanism::ScramSha512)),
        ("SASL_PLAINTEXT", None, Some(scram)),
    ];
    for (listener, tls, mechanism) in ways {
        let address = secure.address(listener);
        let security = Security { tls, sasl: mechanism.map(alice) };
        let told = format!("{listener} {security:?}");
        assert!(!told.contains(ALICE.1) && !told.contains(KEY_PASSWORD), "{told}");
        let mut wire =
            Wire::connect_as(&connection(&address, security), &address).unwrap_or_else(|f| panic!("{told}: {f}"));
        let view = wire.metadata(&[Arc::from(TOPIC)]).unwrap();
        let leader = view.topics[0].partitions.as_ref().unwrap_or_else(|f| panic!("{told}: {f}"))[0].leader.clone();
        assert_eq!(leader.as_deref(), Some(address.as_str()), "{told}: the leader's address at the same listener");
        assert_eq!(wire.bounds(&[(Arc::from(TOPIC), 0)]).unwrap()[0].as_ref().unwrap().log_end.get(), 10);
    }
}

/// What is wrong, where it is met, and words that have to be told.
#[test]
fn what_is_wrong_is_named_with_the_setting() {
    let secure = kafka_or_skip!(secure());
    let plain = secure.kafka.address(0).to_owned();
    let at = |listener: &str| secure.address(listener);
    let security = |tls: Option<Tls>, sasl: Option<Sasl>| Security { tls, sasl };
    let own = || Some(tls(secure));
    let foreign = Some(Tls { ca: Some(secure.file("foreign-ca.pem")), ..tls(secure) });
    let system = Some(Tls { ca: None, ..tls(secure) });
    let scram = || alice(Mechanism::ScramSha512);
    let wrong = Sasl { password: Secret::new("not-hers"), ..scram() };
    let nobody = Sasl { username: "nobody".to_owned(), ..scram() };
    let wrong_plain = Sasl { password: Secret::new("not-hers"), ..alice(Mechanism::Plain) };
    let missing = Some(Tls { ca: Some(secure.file("gone.pem")), ..tls(secure) });
    let stranger = Some(with_identity(secure, "stranger.pem", "stranger.key", None));
    let cases: Vec<(&str, String, Security, &[&str])> = vec![
        (
            "wrong password",
            at("SASL_SSL"),
            security(own(), Some(wrong)),
            &["kafka.sasl.password", "alice", "SCRAM-SHA-512"],
        ),
        ("wrong password", at("SASL_SSL"), security(own(), Some(wrong_plain)), &["kafka.sasl.password", "PLAIN"]),
        ("unknown user", at("SASL_SSL"), security(own(), Some(nobody)), &["kafka.sasl.username", "nobody"]),
        (
            "mechanism",
            at("SASL_PLAINTEXT"),
            security(None, Some(scram())),
            &["does not offer SCRAM-SHA-512", "it has SCRAM-SHA-256", "kafka.sasl.mechanism"],
        ),
        ("no SASL there", plain.clone(), security(None, Some(scram())), &["knows no users", "[kafka.sasl]"]),
        ("no SASL there", at("SSL"), security(own(), Some(scram())), &["knows no users", "[kafka.sasl]"]),
        ("SASL wanted", at("SASL_PLAINTEXT"), security(None, None), &["write [kafka.sasl]"]),
        ("SASL wanted", at("SASL_SSL"), security(own(), None), &["write [kafka.sasl]"]),
        ("expired", at("EXPIRED"), security(own(), None), &["has expired", "CN=broker", "valid until"]),
        ("foreign", at("SSL"), security(foreign, None), &["not trusted here", "kafka.tls.ca", "foreign-ca.pem"]),
        ("foreign", at("SSL"), security(system, None), &["not trusted here", "as kafka.tls.ca"]),
        ("host name", at("OTHER"), security(own(), None), &["other.example", "not for 127.0.0.1", "verify_hostname"]),
        ("no certificate", at("MTLS"), security(own(), None), &["client certificate", "kafka.tls.certificate"]),
        ("stranger", at("MTLS"), security(stranger, None), &["kafka.tls.certificate", "trust"]),
        ("TLS to plain", plain, security(own(), None), &["kafka.bootstrap_servers", "leave out [kafka.tls]"]),
        ("TLS to plain", at("SASL_PLAINTEXT"), security(own(), None), &["leave out [kafka.tls]"]),
        ("plain to TLS", at("SSL"), security(None, None), &["[kafka.tls]"]),
        ("plain to TLS", at("SASL_SSL"), security(None, Some(scram())), &["[kafka.tls]"]),
        ("CA gone", at("SSL"), security(missing, None), &["kafka.tls.ca", "gone.pem", "does not exist"]),
    ];
    for (what, address, security, words) in cases {
        let asked = Wire::connect_as(&connection(&address, security), &address)
            .and_then(|mut wire| wire.metadata(&[Arc::from(TOPIC)]));
        let fault = asked.expect_err(what);
        let text = fault.to_string();
        println!("{what}: {text}");
        assert_eq!(fault.retry(), Retry::Slowly, "{what}: {text}");
        for word in [&[address.as_str()][..], words].concat() {
            assert!(text.contains(word), "{what}: {word:?} is not in: {text}");
        }
        assert!(!text.contains("not-hers") && !text.contains(ALICE.1), "{what}: {text}");
    }
}

/// A broker ends a session after its lifetime: a connection that is kept proves itself anew, busy or idle.
#[test]
fn a_session_that_ends_is_renewed() {
    let secure = kafka_or_skip!(secure());
    let address = secure.address("REAUTH");
    let security = Security { tls: None, sasl: Some(alice(Mechanism::ScramSha256)) };
    let connection = Arc::new(connection(&address, security));
    let began = Instant::now();
    let mut idle = Wire::connect_as(&connection, &address).unwrap();
    let mut busy = Wire::connect_as(&connection, &address).unwrap();
    let mut kept: Box<dyn Inspect> = worker::client::control::inspect(Arc::clone(&connection));
    let group = format!("{GROUP}-{TOPIC}");
    let partition = [TopicPartition::new(Arc::from(TOPIC), 0)];
    while began.elapsed() < Duration::from_millis(SESSION_MS * 5 / 2) {
        busy.metadata(&[Arc::from(TOPIC)]).unwrap();
        assert_eq!(kept.committed(&group, &partition).unwrap()[0].unwrap().get(), 4);
        thread::sleep(Duration::from_millis(20));
    }
    idle.metadata(&[Arc::from(TOPIC)]).unwrap();
    assert!(busy.is_open() && idle.is_open());
}

/// A configuration for alice over TLS.
fn config(secure: &Secure, topics: &[&str]) -> Config {
    let quoted = |file: PathBuf| format!("'{}'", file.display());
    Config::new(&[secure.address("SASL_SSL")], topics)
        .set("kafka", "client", "'auto'")
        .set("consumer", "group_id", format!("'{GROUP}'"))
        .set("kafka.tls", "ca", quoted(secure.file("ca.pem")))
        .set("kafka.sasl", "mechanism", "'SCRAM-SHA-512'")
        .set("kafka.sasl", "username", format!("'{}'", ALICE.0))
        .set("kafka.sasl", "password_file", "'@DIR@/password'")
}

fn site() -> Site {
    let site = Site::new();
    fs::write(site.path("password"), format!("{}\n", ALICE.1)).unwrap();
    site
}

#[track_caller]
fn run(site: &Site, config: &Config, command: &[&str]) -> Ended {
    let file = site.write_config(&config.to_string()).display().to_string();
    let ended = Worker::run(&[command, &["-c", &file]].concat());
    let told = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
    assert!(!told.contains(ALICE.1), "a secret is told: {told}");
    ended
}

#[test]
fn commands_work_over_tls_as_a_user_and_a_missing_acl_is_told() {
    let secure = kafka_or_skip!(secure());
    let site = site();
    let both = config(secure, &[TOPIC, FORBIDDEN]);
    let ended = run(&site, &both, &["check"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    assert!(ended.stdout.iter().any(|line| line.contains("password_file")), "{:#?}", ended.stdout);

    let ended = run(&site, &both, &["lag"]);
    let text = ended.stdout.join("\n");
    let line = |topic: &str| ended.stdout.iter().find(|line| line.contains(&format!(" {topic} "))).unwrap();
    assert!(line(TOPIC).contains(" 4 ") && line(TOPIC).contains(" 10 "), "{text}");
    let acl = "kafka-acls --add --allow-principal User:alice --operation Read --topic forbidden";
    for word in
        ["failing", "TopicAuthorizationFailed", "user alice (kafka.sasl.username) has no ACL", "topic forbidden", acl]
    {
        assert!(line(FORBIDDEN).contains(word), "{word}: {text}");
    }

    let ended = run(&site, &both, &["diagnose", "--json", "--for", "1s"]);
    assert_eq!(ended.code(), Some(1), "{:?}", ended.log);
    let report: Value = serde_json::from_str(&ended.stdout[0]).unwrap();
    let found = report["topics"].as_array().unwrap().iter().find(|topic| topic["topic"] == FORBIDDEN).unwrap();
    assert_eq!(found["verdict"], "failing", "{report:#}");
    assert!(found["evidence"].to_string().contains("TopicAuthorizationFailed"), "{report:#}");

    // Of this group she may know nothing.
    let ended = run(&site, &config(secure, &[TOPIC]).set("consumer", "group_id", "'other'"), &["lag"]);
    let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
    for word in ["GroupAuthorizationFailed", "ACL", "group other-allowed", "--operation Read --group other-allowed"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn wrong_secrets_are_told_by_the_commands_and_are_no_part_of_what_they_say() {
    let secure = kafka_or_skip!(secure());
    let site = site();
    fs::write(site.path("password"), "a-wrong-one\n").unwrap();
    let ended = run(&site, &config(secure, &[TOPIC]), &["lag"]);
    let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
    assert_eq!(ended.code(), Some(1), "{text}");
    for word in ["kafka.sasl.password", "alice", &secure.address("SASL_SSL")] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("a-wrong-one"), "{text}");
}

#[test]
fn files_are_looked_into_by_check() {
    let secure = kafka_or_skip!(secure());
    let site = site();
    let path = |name: &str| format!("'{}'", secure.file(name).display());
    let base = || config(secure, &[TOPIC]);
    let client = |certificate: &str, key: &str| {
        base().set("kafka.tls", "certificate", path(certificate)).set("kafka.tls", "key", path(key))
    };
    let unreadable = site.path("empty");
    fs::write(&unreadable, "").unwrap();
    let cases = [
        (base().set("kafka.tls", "ca", path("gone.pem")), "kafka.tls.ca: ", "does not exist"),
        (base().set("kafka.tls", "ca", path("no.pem")), "kafka.tls.ca: ", "no PEM file of a certificate"),
        (base().set("kafka.tls", "ca", path("client.key")), "kafka.tls.ca: ", "private key"),
        (base().set("kafka.tls", "ca", "'@DIR@'"), "kafka.tls.ca: ", "is a directory"),
        (client("client.pem", "stranger.key"), "kafka.tls.key: ", "not the key of the certificate"),
        (client("client.pem", "client.pem"), "kafka.tls.key: ", "it holds a certificate"),
        (client("client.pem", "encrypted.key"), "kafka.tls.key: ", "is encrypted"),
        (
            client("client.pem", "encrypted.key").set("kafka.tls", "key_password", "'guessed'"),
            "kafka.tls.key_password: ",
            "does not decrypt",
        ),
        (base().set("kafka.sasl", "password_file", "'@DIR@/none'"), "kafka.sasl.password_file: ", "does not exist"),
        (base().set("kafka.sasl", "password_file", "'@DIR@/empty'"), "kafka.sasl.password_file: ", "is empty"),
    ];
    for (config, key, words) in cases {
        let ended = run(&site, &config, &["check"]);
        let text = [ended.stdout.join("\n"), ended.log.join("\n")].concat();
        assert_eq!(ended.code(), Some(2), "{key} {words}: {text}");
        assert!(text.contains(key) && text.contains(words), "{key} {words}: {text}");
        assert!(!text.contains("guessed"), "{text}");
    }
    let good = client("client.pem", "encrypted.key").set("kafka.tls", "key_password", format!("'{KEY_PASSWORD}'"));
    let ended = run(&site, &good, &["check"]);
    assert_eq!(ended.code(), Some(0), "{:?}", ended.log);
    let text = ended.stdout.join("\n");
    assert!(!text.contains(KEY_PASSWORD) && text.contains("\"***\""), "{text}");
}

/// Reads with librdkafka: over TLS nothing else can.
#[test]
fn records_are_delivered_over_tls_as_a_user() {
    let secure = kafka_or_skip!(secure());
    let topic = Kafka::name("delivered");
    let group = format!("{GROUP}-{topic}");
    secure.kafka.tool().create(&topic, "2", "");
    for partition in 0..2 {
        secure.kafka.tool().produce(&Produce { partition: Some(partition), ..Produce::new(&topic, 500) });
    }
    secure.allow(ALICE.0, &["--operation", "Read", "--group", &group]);
    let site = site();
    let config = config(secure, &[&topic]).set("kafka", "client", "'librdkafka'");
    // First the password is wrong, then the ACL is missing: each is told once. Then it comes, and so do the records.
    fs::write(site.path("password"), "a-wrong-one").unwrap();
    let worker = site.start(&config.to_string());
    worker.wait_words(&["does not let us in", "kafka.sasl.password"]);
    fs::write(site.path("password"), ALICE.1).unwrap();
    worker.signal("HUP");
    worker.wait_words(&["TopicAuthorizationFailed", &topic]);
    secure.allow(ALICE.0, &["--operation", "Read", "--topic", &topic]);
    let records = site.wait_records(1_000, LONG);
    assert_eq!(records.len(), 1_000);
    for partition in 0..2 {
        let offsets: Vec<i64> = records.iter().filter(|r| r.partition == partition).map(|r| r.offset).collect();
        assert_eq!(offsets, (0..500).collect::<Vec<_>>(), "partition {partition}");
        secure.kafka.await_committed(&group, &topic, partition, 500);
    }
    assert!(worker.log().iter().all(|line| !line.contains(ALICE.1)), "{:#?}", worker.log());
    assert_eq!(worker.stop().code(), Some(0));
}

/// That a fault of this kind is told once and comes to an end shows already without librdkafka: the worker's own
/// socket looks the topics up.
#[test]
fn a_daemon_tells_a_missing_acl_once_and_when_it_is_there() {
    let secure = kafka_or_skip!(secure());
    let topic = Kafka::name("late-acl");
    secure.kafka.tool().create(&topic, "1", "");
    let site = site();
    let worker = site.start(&config(secure, &[&topic]).set("admin", "listen", "'127.0.0.1:0'").to_string());
    worker.wait_words(&["TopicAuthorizationFailed", &topic]);
    assert!(worker.log().iter().all(|line| !line.contains(ALICE.1)), "{:#?}", worker.log());
    let ended = worker.stop();
    let told = ended.lines_with(&["TopicAuthorizationFailed"]);
    assert!(told.len() <= 2, "told when it begins, and in the last line: {told:#?}");
}

/// The target of a sink has TLS and a user of its own.
#[test]
fn records_are_forwarded_over_tls_as_a_user_of_the_sinks() {
    let secure = kafka_or_skip!(secure());
    let (topic, copy) = (Kafka::name("in-the-clear"), Kafka::name("over-tls"));
    secure.kafka.tool().create(&topic, "1", "");
    secure.kafka.tool().create(&copy, "1", "");
    secure.kafka.tool().produce(&Produce::new(&topic, 500));
    let site = site();
    let config = Config::new(std::slice::from_ref(&secure.kafka.bootstrap), &[&topic])
        .set("consumer", "group_id", "'forwards'")
        .set("consumer", "sink", "'k'")
        .set("sink.k", "type", "'kafka'")
        .set("sink.k", "topic", format!("'{copy}'"))
        .set("sink.k", "timeout_ms", 5_000)
        .set("sink.k", "bootstrap_servers", format!("'{}'", secure.address("SASL_SSL")))
        .set("sink.k.tls", "ca", format!("'{}'", secure.file("ca.pem").display()))
        .set("sink.k.sasl", "mechanism", "'SCRAM-SHA-512'")
        .set("sink.k.sasl", "username", format!("'{}'", ALICE.0))
        .set("sink.k.sasl", "password_file", "'@DIR@/password'");
    // First the password is wrong, then the ACL is missing.
    fs::write(site.path("password"), "a-wrong-one").unwrap();
    let worker = site.start(&config.to_string());
    worker.wait_words(&["sink fails, its topics wait sink=k", "does not let us in", "sink.k.sasl.password"]);
    assert_eq!(worker.stop().code(), Some(0));
    fs::write(site.path("password"), ALICE.1).unwrap();
    let worker = site.start(&config.to_string());
    let line = worker.wait_words(&["sink fails, its topics wait sink=k", "TopicAuthorizationFailed", &copy]);
    assert!(line.contains(&format!("User:alice --operation Write --topic {copy}")), "{line}");
    // Who may describe a topic still may not write to it.
    secure.allow(ALICE.0, &["--operation", "Describe", "--topic", &copy]);
    secure.allow(ALICE.0, &["--operation", "Write", "--topic", &copy]);
    secure.kafka.await_committed(&format!("forwards-{topic}"), &topic, 0, 500);
    assert!(worker.log().iter().all(|line| !line.contains(ALICE.1)), "{:#?}", worker.log());
    assert_eq!(worker.stop().code(), Some(0));
    let values = |topic: &str| {
        let read = secure.kafka.tool().read(topic, "read_committed");
        read.into_iter().map(|record| record.value).collect::<Vec<_>>()
    };
    assert_eq!(values(&copy), values(&topic));
}
