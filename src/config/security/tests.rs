#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::super::read::{Files, NamedFile};
use super::super::{Config, Errors, resolve};
use crate::client::security::Mechanism;

const SECRET: &str = "tr0ub4dor";

/// Reads `more` below a minimal configuration; the files are given, and those named `open…` may be read by all.
fn read(more: &str, files: &[(&str, &[u8])], open_to_all: bool) -> Result<Config, Errors> {
    let files: BTreeMap<&Path, &[u8]> = files.iter().map(|(name, bytes)| (Path::new(*name), *bytes)).collect();
    let file = |path: &Path| {
        let bytes = files.get(path).ok_or(io::ErrorKind::NotFound)?.to_vec();
        Ok(NamedFile { bytes, open_to_all: path.display().to_string().contains("open") })
    };
    let env = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    let text = format!("[kafka]\nbootstrap_servers = 'a:1'\n{more}\n[consumer]\ngroup_id = 'g'\ntopics = ['t']\n");
    resolve::resolve(&text, &env, Some(Files(&file)), open_to_all, &Default::default())
}

fn sasl(password: &str) -> String {
    format!("[kafka.sasl]\nmechanism = 'SCRAM-SHA-256'\nusername = 'u'\n{password}")
}

#[cfg(feature = "librdkafka")]
#[test]
fn a_secret_comes_from_the_text_the_environment_or_a_file_and_is_never_shown() {
    let files: [(&str, &[u8]); 3] = [("/lf", b"tr0ub4dor\n"), ("/crlf", b"tr0ub4dor\r\n"), ("/open", b"tr0ub4dor")];
    for (password, warnings) in [
        ("password = 'tr0ub4dor'", 1),
        ("password = '${SECRET}'", 0),
        ("password_file = '/lf'", 0),
        ("password_file = '/crlf'", 0),
        ("password_file = '/open'", 1),
    ] {
        let config = read(&sasl(password), &files, true).unwrap();
        let found = config.kafka.security.sasl.clone().unwrap();
        assert_eq!((found.password.reveal(), found.mechanism), (SECRET, Mechanism::ScramSha256), "{password}");
        assert_eq!(config.warnings.len(), warnings, "{password}: {:?}", config.warnings);
        let report: String = config.report.iter().map(ToString::to_string).collect();
        assert!(!report.contains(SECRET) && !format!("{config:?}").contains(SECRET), "{password}: {report}");
        assert!(!config.warnings.concat().contains(SECRET));
    }
    assert_eq!(read(&sasl("password = 'tr0ub4dor'"), &files, false).unwrap().warnings, Vec::<String>::new());
}

#[cfg(feature = "librdkafka")]
#[test]
fn what_is_wrong_with_a_secret_is_told_without_it() {
    let files: [(&str, &[u8]); 4] =
        [("/two", b"tr0ub4dor\nmore"), ("/empty", b"\n"), ("/binary", b"\xff\xfe"), ("/zero", b"a\0b")];
    for (lines, words) in [
        (sasl(""), "kafka.sasl.password_file: is missing"),
        (sasl("password = ''"), "kafka.sasl.password: is empty"),
        (sasl("password = 12345678"), "kafka.sasl.password: is no text"),
        (sasl("password = ['tr0ub4dor']"), "kafka.sasl.password: is no text"),
        (sasl("password = 'a${tr0ub4dor x}'"), "kafka.sasl.password: has a \"${\""),
        (sasl("password = '${NONE}'"), "environment variable NONE"),
        (sasl("password = 'tr0ub4dor'\npassword_file = '/two'"), "kafka.sasl.password_file: stands beside password"),
        (sasl("password_file = '/gone'"), "kafka.sasl.password_file: is \"/gone\", which does not exist"),
        (sasl("password_file = '/two'"), "has a line end"),
        (sasl("password_file = '/empty'"), "is empty"),
        (sasl("password_file = '/binary'"), "no UTF-8"),
        (sasl("password_file = '/zero'"), "zero byte"),
        ("[kafka.sasl]\nmechanism = 'GSSAPI'\nusername = 'u'\npassword = 'tr0ub4dor'".to_owned(), "SCRAM-SHA-512"),
        ("[kafka.sasl]\nmechanism = 'scram-sha-256'\nusername = 'u'\npassword = 'x'".to_owned(), "did you mean"),
        ("[kafka.sasl]\nmechanism = 'PLAIN'\npassword = 'tr0ub4dor'".to_owned(), "kafka.sasl.username: is missing"),
        ("[kafka.tls]\ncertificate = '/c'".to_owned(), "kafka.tls.certificate: stands without key"),
        ("[kafka.tls]\nkey = '/c'".to_owned(), "kafka.tls.key: stands without certificate"),
        ("[kafka.tls]\nkey_password = 'tr0ub4dor'".to_owned(), "kafka.tls.key_password: stands without key"),
        ("[kafka.tls]\nca = '/gone'".to_owned(), "kafka.tls.ca: is \"/gone\", which does not exist"),
        ("tls = true".to_owned(), "kafka.tls: is true; write its keys under [kafka.tls]"),
        ("[kafka.tls]\ncafile = '/c'".to_owned(), "kafka.tls.cafile: is no key of [kafka.tls]; here it is ca"),
        ("[kafka.sasl]\npasswrd = 'tr0ub4dor'".to_owned(), "kafka.sasl.passwrd: is no key of [kafka.sasl]"),
    ] {
        let told = read(&lines, &files, true).expect_err(&lines).to_string();
        assert!(told.contains(words), "{lines}\n{told}");
        assert!(!told.replace("/tr0ub4dor", "").contains(SECRET) && !told.contains("12345678"), "{told}");
    }
}

#[cfg(feature = "librdkafka")]
#[test]
fn what_is_weak_is_a_warning() {
    let plain = "[kafka.sasl]\nmechanism = 'PLAIN'\nusername = 'u'\npassword = 'x'";
    assert!(read(plain, &[], false).unwrap().warnings.concat().contains("as it is"));
    assert_eq!(read(&format!("{plain}\n[kafka.tls]\n"), &[], false).unwrap().warnings, Vec::<String>::new());
    let any = read("[kafka.tls]\nverify_hostname = false", &[], false).unwrap();
    assert!(any.warnings.concat().contains("verify_hostname is false"));
    assert!(!any.kafka.security.tls.unwrap().verify_hostname);
}

#[cfg(feature = "librdkafka")]
#[test]
fn properties_are_passed_through_but_for_the_workers_own() {
    let config = read(
        "[kafka.librdkafka]\nsocket.keepalive.enable = true\n\"retry.backoff.ms\" = 50\nclient.rack = '${SECRET}'",
        &[],
        false,
    )
    .unwrap();
    let classic =
        "[kafka.librdkafka]\ngroup.protocol = 'classic'\nsession.timeout.ms = 6000\nheartbeat.interval.ms = 600";
    assert_eq!(read(classic, &[], false).unwrap().kafka.properties.len(), 3);
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        config.kafka.properties,
        [own("socket.keepalive.enable", "true"), own("retry.backoff.ms", "50"), own("client.rack", SECRET)]
    );
    let scope = config.report.iter().find(|scope| scope.title == "[kafka.librdkafka]").unwrap().to_string();
    assert!(scope.contains("retry.backoff.ms") && scope.contains("[kafka.librdkafka] line 5"), "{scope}");
    for (property, words) in [
        ("bootstrap.servers = 'a:1'", "use kafka.bootstrap_servers"),
        ("Group.ID = 'g'", "group_id"),
        ("sasl.password = 'tr0ub4dor'", "[kafka.sasl]"),
        ("SASL.password = 'tr0ub4dor'", "[kafka.sasl]"),
        ("ssl.key.password = 'tr0ub4dor'", "[kafka.tls]"),
        ("ssl.cipher.suites = 'tr0ub4dor'", "[kafka.tls]"),
        ("security.protocol = 'ssl'", "[kafka.tls]"),
        ("enable.auto.commit = true", "see [commit]"),
        ("queued.max.messages.kbytes = 5", "memory.limit"),
        ("rebalance_cb = 'f'", "function"),
        ("linger.ms = 1.5", "a whole number"),
        ("retry.backoff.ms = 1\n'retry.backoff.ms' = 2", "twice"),
        ("partition.assignment.strategy = 'range'", "see group.remote.assignor"),
        ("group.protocol.type = 'x'\ngroup.protocol = 'consumer'", "the worker's own"),
        (
            "session.timeout.ms = 6000\ngroup.protocol = 'consumer'",
            "4:17: kafka.librdkafka.session.timeout.ms: can't stand beside group.protocol = \"consumer\"",
        ),
        (
            "group.protocol = 'Consumer'\nheartbeat.interval.ms = 600",
            "set group.consumer.heartbeat.interval.ms in the brokers' configuration",
        ),
        (
            "reconnect.backoff.ms = 2000",
            "reconnect.backoff.ms: can't be: reconnect.backoff.ms would be 2000, and reconnect.backoff.max.ms 500; write both",
        ),
        ("soket.keepalive.enable = true", "kafka.librdkafka.soket.keepalive.enable: is refused by librdkafka"),
        ("socket.keepalive.enable = 'tr0ub4dor'", "is refused by librdkafka"),
    ] {
        let told = read(&format!("[kafka.librdkafka]\n{property}"), &[], false).expect_err(property).to_string();
        assert!(told.contains(words) && !told.contains(SECRET), "{property}: {told}");
    }
}

#[cfg(not(feature = "librdkafka"))]
#[test]
fn without_the_feature_the_tables_are_errors_that_say_what_is_missing() {
    for table in ["[kafka.tls]\n", &sasl("password = 'x'"), "[kafka.librdkafka]\ndebug = 'all'"] {
        let told = read(table, &[], false).expect_err(table).to_string();
        assert!(told.contains("built without the feature librdkafka") && told.starts_with("3:"), "{told}");
    }
    assert_eq!(sasl("").lines().count(), 3);
    assert_eq!(Mechanism::Plain.to_string(), "PLAIN");
}
