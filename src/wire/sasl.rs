//! SASL on a connection: who we are, proved before anything else is asked, and again before the session ends.
//!
//! Kafka's `SaslHandshake` 1 and `SaslAuthenticate` (KIP-43, KIP-152, KIP-368; Kafka 1.0 and newer).

use std::time::{Duration, Instant};

use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use openssl::hash::MessageDigest;

use super::exchange::Trouble;
use super::scram::{self, Scram};
use super::shape::Shape;
use super::{Wire, code_name};
use crate::client::Fault;
use crate::client::security::{Mechanism, Sasl};

const HANDSHAKE: &str = "SaslHandshake";
const AUTHENTICATE: &str = "SaslAuthenticate";
/// From here on the messages of the mechanism travel in requests of their own.
const HANDSHAKE_VERSION: i16 = 1;
/// The newest version whose shape is known here; 1 tells the session's lifetime.
const AUTHENTICATE_MAX: i16 = 1;
/// UNSUPPORTED_SASL_MECHANISM
const UNSUPPORTED_MECHANISM: i16 = 33;
/// ILLEGAL_SASL_STATE: also the answer of a listener without SASL.
const ILLEGAL_STATE: i16 = 34;
/// SASL_AUTHENTICATION_FAILED
const FAILED: i16 = 58;

impl Wire {
    /// Proves who we are: at the beginning, and again on the same connection when most of the session's lifetime
    /// is over (`connections.max.reauth.ms`). A broker closes a connection whose session has ended.
    ///
    /// # Errors
    /// [`Fault::Unauthenticated`] with the setting to look at; [`Fault::TooOld`]; the broker did not answer.
    pub(super) fn authenticate(&mut self, sasl: &Sasl) -> Result<(), Fault> {
        // The broker counts from its answer, which comes later than this.
        let began = Instant::now();
        self.session_ends = None;
        self.agree(sasl)?;
        let lifetime_ms = match sasl.mechanism {
            Mechanism::Plain => {
                let message = format!("\0{}\0{}", sasl.username, sasl.password.reveal());
                self.exchange_messages(sasl, message.into_bytes())?.1
            }
            Mechanism::ScramSha256 => self.scram(sasl, MessageDigest::sha256())?,
            Mechanism::ScramSha512 => self.scram(sasl, MessageDigest::sha512())?,
        };
        // Nine tenths of it: the rest is for the way.
        self.session_ends =
            u64::try_from(lifetime_ms).ok().filter(|ms| *ms > 0).map(|ms| began + Duration::from_millis(ms - ms / 10));
        Ok(())
    }

    /// Names the mechanism.
    fn agree(&mut self, sasl: &Sasl) -> Result<(), Fault> {
        self.require_version(ApiKey::SaslHandshake, HANDSHAKE_VERSION, "SaslHandshake 1, which Kafka 1.0 brought")?;
        let mechanism = sasl.mechanism.to_string();
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_string(mechanism.clone()));
        // error; mechanisms
        let shape = [Shape::Fixed(2), Shape::Array(vec![Shape::Text])];
        let answer: SaslHandshakeResponse =
            self.call(HANDSHAKE, ApiKey::SaslHandshake, HANDSHAKE_VERSION, &request, &shape)?;
        match answer.error_code {
            0 => Ok(()),
            UNSUPPORTED_MECHANISM => {
                let has: Vec<String> = answer.mechanisms.iter().map(|m| m.escape_debug().to_string()).collect();
                let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
                self.unauthenticated(format!(
                    "it does not offer {mechanism}, it has {has}; change kafka.sasl.mechanism, or the broker's sasl.enabled.mechanisms"
                ))
            }
            ILLEGAL_STATE => self.unauthenticated(
                "its listener knows no users: name the port of its SASL_PLAINTEXT or SASL_SSL listener in kafka.bootstrap_servers, or leave out [kafka.sasl]"
                    .to_owned(),
            ),
            code => self.unauthenticated(format!("it answers {HANDSHAKE} with {}", code_name(code))),
        }
    }

    fn scram(&mut self, sasl: &Sasl, digest: MessageDigest) -> Result<i64, Fault> {
        let nonce = match scram::nonce() {
            Ok(nonce) => nonce,
            Err(error) => return self.unauthenticated(format!("OpenSSL gives no random numbers: {error}")),
        };
        let mut scram = Scram::new(digest, &sasl.username, &sasl.password, nonce);
        let (server_first, _) = self.exchange_messages(sasl, scram.first())?;
        let last = match scram.last(&server_first) {
            Ok(last) => last,
            Err(why) => return self.unauthenticated(why),
        };
        let (server_final, lifetime_ms) = self.exchange_messages(sasl, last)?;
        match scram.verify(&server_final) {
            Ok(()) => Ok(lifetime_ms),
            Err(why) => self.unauthenticated(why),
        }
    }

    /// One message of the mechanism, the broker's answer to it, and the lifetime of the session in milliseconds if
    /// it tells one.
    fn exchange_messages(&mut self, sasl: &Sasl, message: Vec<u8>) -> Result<(Vec<u8>, i64), Fault> {
        let version = self.versions_of(ApiKey::SaslAuthenticate).map_or(0, |(_, max)| max.min(AUTHENTICATE_MAX));
        let request = SaslAuthenticateRequest::default().with_auth_bytes(message.into());
        // error; message; bytes; lifetime
        let bytes = Shape::Array(vec![Shape::Fixed(1)]);
        let shape = [Shape::Fixed(2), Shape::Text, bytes, Shape::Fixed(if version > 0 { 8 } else { 0 })];
        let answer: SaslAuthenticateResponse =
            self.call(AUTHENTICATE, ApiKey::SaslAuthenticate, version, &request, &shape)?;
        match answer.error_code {
            0 => Ok((answer.auth_bytes.to_vec(), answer.session_lifetime_ms)),
            code => {
                let said = answer.error_message.map(|text| text.escape_debug().to_string());
                let said = said.filter(|text| !text.is_empty()).unwrap_or_else(|| code_name(code));
                let advice = match code {
                    FAILED => {
                        "check kafka.sasl.username, kafka.sasl.password (or password_file) and kafka.sasl.mechanism: the user needs credentials for that mechanism"
                    }
                    _ => "look at the broker's log",
                };
                let (user, mechanism) = (sasl.username.escape_debug(), sasl.mechanism);
                self.unauthenticated(format!("{said} (user \"{user}\", {mechanism}); {advice}"))
            }
        }
    }

    /// Nothing more can be asked over this connection.
    fn unauthenticated<T>(&mut self, why: String) -> Result<T, Fault> {
        self.conclude(AUTHENTICATE, Instant::now(), Err(Trouble::Unauthenticated(why)))
    }
}
