//! How connections to brokers are protected, and how this program proves who it is: words only.
//!
//! What always holds: a secret is never part of a text; its `Debug` is `***`.

use std::fmt;
use std::path::PathBuf;

/// A password. Compared and cloned like a text, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What a file holds that has nothing but the secret in it; a line end behind it is no part of it. `what` it is
    /// called: `password`.
    ///
    /// # Errors
    /// What is wrong with the content, and what to do; nothing of the secret.
    pub fn of_file(bytes: &[u8], what: &str) -> Result<Self, String> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(format!("is no UTF-8 text; write the {what} into it, and nothing else"));
        };
        let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
        Self::check(text, what).map(|()| Self::new(text))
    }

    /// Whether a text can be a secret.
    ///
    /// # Errors
    /// What is wrong with it, and what to do; nothing of the secret.
    pub fn check(text: &str, what: &str) -> Result<(), String> {
        if text.is_empty() {
            Err(format!("is empty; write the {what}"))
        } else if text.contains(['\0', '\n', '\r']) {
            Err(format!("has a line end or a zero byte in it; write the {what} alone"))
        } else {
            Ok(())
        }
    }

    /// The secret itself, for those who send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// TLS towards the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client's own certificate and key, if the brokers want one (mutual TLS).
    pub identity: Option<Identity>,
    /// Whether the broker's certificate has to be for the host that was asked for.
    pub verify_hostname: bool,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file of the certificate, with those between it and the authority.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// What the key is encrypted with, if it is.
    pub key_password: Option<Secret>,
}

/// How a password is proved (SASL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: the password is sent.
    Plain,
    /// RFC 5802 with SHA-256: it is not.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// Kafka's name of it: `SCRAM-SHA-256`.
impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        })
    }
}

/// Who this program is to the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// How brokers are talked to: in the clear and unnamed where both are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Over TLS.
    pub tls: Option<Tls>,
    /// As a user.
    pub sasl: Option<Sasl>,
}

/// Who the brokers take this program for, as far as that is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// `kafka.sasl.username`
    User(String),
    /// The subject of this certificate, or what the brokers' `ssl.principal.mapping.rules` make of it.
    Certificate(PathBuf),
    /// Nobody has said who it is.
    Anonymous,
}

impl Principal {
    /// As `kafka-acls --allow-principal` takes it.
    pub fn for_acls(&self) -> String {
        match self {
            Self::User(name) => format!("User:{name}"),
            Self::Certificate(_) => "User:SUBJECT".to_owned(),
            Self::Anonymous => "User:ANONYMOUS".to_owned(),
        }
    }
}

/// `user alice (kafka.sasl.username)`
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name} (kafka.sasl.username)"),
            Self::Certificate(path) => write!(f, "the SUBJECT of kafka.tls.certificate ({})", path.display()),
            Self::Anonymous => f.write_str("ANONYMOUS (there is neither [kafka.sasl] nor kafka.tls.certificate)"),
        }
    }
}

impl Security {
    /// Who the brokers take this program for. SASL goes before a certificate.
    pub fn principal(&self) -> Principal {
        match (&self.sasl, self.tls.as_ref().and_then(|tls| tls.identity.as_ref())) {
            (Some(sasl), _) => Principal::User(sasl.username.clone()),
            (None, Some(identity)) => Principal::Certificate(identity.certificate.clone()),
            (None, None) => Principal::Anonymous,
        }
    }

    /// Kafka's name of the listener's protocol: `SASL_SSL`.
    pub fn protocol(&self) -> &'static str {
        match (&self.tls, &self.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }

    /// Whether a listener of the protocol `PLAINTEXT` is meant.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.sasl.is_none()
    }
}
