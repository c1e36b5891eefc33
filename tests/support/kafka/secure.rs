//! A node with listeners under TLS and with users, and an authorizer; the certificates are made here.
//!
//! Whoever comes over PLAINTEXT is `User:ANONYMOUS`, who may do everything: so the tool and the node itself. The
//! others may do what an ACL allows them.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::symm::Cipher;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};
use tempfile::TempDir;

use super::{Kafka, free_ports};

/// A listener: its name, which is also that of its port.
const LISTENERS: [&str; 7] = ["SSL", "MTLS", "SASL_SSL", "SASL_PLAINTEXT", "REAUTH", "EXPIRED", "OTHER"];
/// How long a session of REAUTH lasts, in milliseconds.
pub const SESSION_MS: u64 = 3_000;
/// The user with an ACL for what the test gives him, and his password.
pub const ALICE: (&str, &str) = ("alice", "alice-secret");
/// What a client's key is encrypted with, in one of its files.
pub const KEY_PASSWORD: &str = "key secret";

/// A certificate and its key.
pub struct Pair {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// The node, and the files of those who talk to it.
pub struct Secure {
    /// The node; its own address is that of PLAINTEXT.
    pub kafka: Kafka,
    ports: Vec<u16>,
    dir: TempDir,
}

impl Secure {
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let authority = authority("worker tests");
        let broker = issue(&authority, "broker", &["127.0.0.1", "localhost"], 1);
        let expired = issue(&authority, "broker", &["127.0.0.1"], -1);
        let other = issue(&authority, "broker", &["other.example"], 1);
        let client = issue(&authority, "client", &[], 1);
        let foreign = self::authority("somebody else");
        let stranger = issue(&foreign, "client", &[], 1);
        let path = |name: &str| dir.path().join(name);
        let pem = |pair: &Pair| pair.certificate.to_pem().unwrap();
        let key = |pair: &Pair| pair.key.private_key_to_pem_pkcs8().unwrap();
        let both = |pair: &Pair| [key(pair), pem(pair)].concat();
        let encrypted =
            client.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), KEY_PASSWORD.as_bytes()).unwrap();
        for (name, bytes) in [
            ("ca.pem", pem(&authority)),
            ("foreign-ca.pem", pem(&foreign)),
            ("broker.pem", both(&broker)),
            ("expired.pem", both(&expired)),
            ("other.pem", both(&other)),
            ("client.pem", pem(&client)),
            ("client.key", key(&client)),
            ("encrypted.key", encrypted),
            ("stranger.pem", pem(&stranger)),
            ("stranger.key", key(&stranger)),
            ("no.pem", b"nothing\n".to_vec()),
        ] {
            fs::write(path(name), bytes).unwrap();
        }
        let ports = free_ports(LISTENERS.len());
        let store = |name: &str| path(name).display().to_string();
        let mut listeners = "PLAINTEXT://127.0.0.1:@PORT@".to_owned();
        let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        for (name, port) in LISTENERS.iter().zip(&ports) {
            let protocol = match *name {
                "MTLS" | "EXPIRED" | "OTHER" => "SSL",
                "REAUTH" => "SASL_PLAINTEXT",
                itself => itself,
            };
            write!(listeners, ",{name}://127.0.0.1:{port}").unwrap();
            write!(protocols, ",{name}:{protocol}").unwrap();
        }
        let plain = format!(
            "org.apache.kafka.common.security.plain.PlainLoginModule required user_{}=\"{}\";",
            ALICE.0, ALICE.1
        );
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let all = format!("{listeners},CONTROLLER://127.0.0.1:@CONTROLLER_PORT@");
        let [broker, expired, other, trusted] = ["broker.pem", "expired.pem", "other.pem", "ca.pem"].map(store);
        let kafka = Kafka::node(&[
            ("listeners", &all),
            ("advertised.listeners", &listeners),
            ("listener.security.protocol.map", &protocols),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", &broker),
            ("ssl.truststore.type", "PEM"),
            ("ssl.truststore.location", &trusted),
            ("listener.name.mtls.ssl.client.auth", "required"),
            ("listener.name.expired.ssl.keystore.location", &expired),
            ("listener.name.other.ssl.keystore.location", &other),
            ("listener.name.sasl_ssl.sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"),
            ("listener.name.sasl_ssl.plain.sasl.jaas.config", &plain),
            ("listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config", scram),
            ("listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config", scram),
            ("listener.name.sasl_plaintext.sasl.enabled.mechanisms", "SCRAM-SHA-256"),
            ("listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config", scram),
            ("listener.name.reauth.sasl.enabled.mechanisms", "SCRAM-SHA-256"),
            ("listener.name.reauth.scram-sha-256.sasl.jaas.config", scram),
            ("listener.name.reauth.scram-sha-256.connections.max.reauth.ms", &SESSION_MS.to_string()),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:ANONYMOUS"),
            ("allow.everyone.if.no.acl.found", "false"),
        ]);
        let secure = Self { kafka, ports, dir };
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let credentials = format!("{mechanism}=[iterations=4096,password={}]", ALICE.1);
            secure.kafka.tool().java(
                "kafka.admin.ConfigCommand",
                &[
                    "--bootstrap-server",
                    &secure.kafka.bootstrap,
                    "--alter",
                    "--entity-type",
                    "users",
                    "--entity-name",
                    ALICE.0,
                    "--add-config",
                    &credentials,
                ],
            );
        }
        secure
    }

    /// `host:port` of a listener.
    pub fn address(&self, listener: &str) -> String {
        let place = LISTENERS.iter().position(|name| *name == listener).unwrap();
        format!("127.0.0.1:{}", self.ports[place])
    }

    /// One of the files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Lets a user do something: `["--operation", "Read", "--topic", "t"]`.
    pub fn allow(&self, user: &str, what: &[&str]) {
        let principal = format!("User:{user}");
        let to = ["--bootstrap-server", &self.kafka.bootstrap, "--add", "--allow-principal", &principal];
        self.kafka.tool().java("kafka.admin.AclCommand", &[&to[..], what].concat());
    }
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn name(common: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common).unwrap();
    name.build()
}

fn builder(subject: &str, key: &PKey<Private>, from_days: i64, to_days: i64) -> X509Builder {
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let at = |days: i64| Asn1Time::from_unix(now + days * 86_400).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(100, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).unwrap()).unwrap();
    builder.set_subject_name(&name(subject)).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&at(from_days)).unwrap();
    builder.set_not_after(&at(to_days)).unwrap();
    builder
}

/// Who signs certificates.
pub fn authority(common: &str) -> Pair {
    let key = new_key();
    let mut builder = builder(common, &key, -10, 10);
    builder.set_issuer_name(&name(common)).unwrap();
    builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    Pair { certificate: builder.build(), key }
}

/// A certificate for some names, which ends in so many days.
pub fn issue(by: &Pair, common: &str, names: &[&str], days: i64) -> Pair {
    let key = new_key();
    let mut builder = builder(common, &key, -5, days);
    builder.set_issuer_name(by.certificate.subject_name()).unwrap();
    if !names.is_empty() {
        let mut alternative = SubjectAlternativeName::new();
        for name in names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                alternative.ip(name)
            } else {
                alternative.dns(name)
            };
        }
        let extension = alternative.build(&builder.x509v3_context(Some(&by.certificate), None)).unwrap();
        builder.append_extension(extension).unwrap();
    }
    builder.sign(&by.key, MessageDigest::sha256()).unwrap();
    Pair { certificate: builder.build(), key }
}
