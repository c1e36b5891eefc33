//! The sink `http`: records to a service, as requests. README.md, "HTTP", is the specification.
//!
//! Owns one connection, which is kept from request to request. What always holds:
//! - `write` says Ok only for what a whole answer with a status of 2xx has acknowledged, so `flush` has nothing to do;
//! - there is one request at a time, and the records of a partition are sent in their order;
//! - a record is rejected only if a request with it alone was answered with a status of 4xx;
//! - a write blocks at most `timeout` for each of its requests (twice that where an answer of 401 or 403 brings a new
//!   secret), but for the system's resolver of names, which has limits of its own;
//! - no secret is in a text, nor what stands behind the question mark of the URL.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Brake, Progress, Sink, Stopped, Why};
use crate::client::security::{Secret, Tls};
use crate::record::{Records, TopicPartition};
#[cfg(feature = "librdkafka")]
use crate::wire::tls::Terms;

mod answer;
mod client;
mod connection;
mod endpoint;
mod progress;
mod request;

pub use endpoint::Endpoint;
pub use request::Body;

use answer::{Answer, Mask, Verdict};
use client::Client;

/// A secret is shorter.
const SECRET_MAX: u64 = 64 << 10;
/// Shorter values of headers and of a query are too common to be looked for in what a server says.
const HIDDEN_MIN: usize = 4;
/// Of a buffer for bodies that has become larger; the rest is given back.
const BODY_KEPT: usize = 2 << 20;

/// The words of TLS, for this sink.
#[cfg(feature = "librdkafka")]
pub const SERVER: Terms = Terms {
    who: "server",
    ca: "ca_file",
    certificate: "client_cert_file",
    key: "client_key_file",
    encrypted: "decrypt it: openssl pkey -in OLD -out NEW",
    other_name: "name the server in url as its certificate does, or get it a certificate for this name",
    no_tls: "write http:// in url, or name the port that does",
    wants: "",
    trusts: "that it knows",
};

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// POST
    Post,
    /// PUT
    Put,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// How the worker proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer {
        /// The file with the token.
        file: PathBuf,
    },
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The user's name; without a colon.
        username: String,
        /// The file with the password.
        file: PathBuf,
    },
}

/// What is configured of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where requests go.
    pub endpoint: Endpoint,
    /// Their method.
    pub method: Method,
    /// How records are sent.
    pub body: Body,
    /// How many records are in a request, at most; not with [`Body::Record`].
    pub max_batch_records: usize,
    /// How many bytes its body has, at most; one record may have more. Not with [`Body::Record`].
    pub max_batch_bytes: usize,
    /// What the body is called.
    pub content_type: String,
    /// From the opening of a connection to the last byte of the answer.
    pub timeout: Duration,
    /// Statuses of 4xx that say nothing against the records.
    pub retry_status: BTreeSet<u16>,
    /// The longest time for which Retry-After is respected.
    pub retry_after_max: Duration,
    /// Headers of each request, by [`check_header`].
    pub headers: Vec<(String, Secret)>,
    /// Who the worker is.
    pub auth: Option<Auth>,
    /// For `https://`.
    pub tls: Tls,
}

/// Whether a header can be sent with each request.
///
/// # Errors
/// What is wrong with it, and what to do; nothing of its value.
pub fn check_header(name: &str, value: &str) -> Result<(), String> {
    const OWN: [&str; 10] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "accept-encoding",
    ];
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        Err("is no name of a header; write one such as X-Api-Key".to_owned())
    } else if lower == "content-type" {
        Err("has a key of its own; write content_type".to_owned())
    } else if OWN.contains(&lower.as_str()) || lower.starts_with("kafka-") {
        Err("is the worker's own; leave it out".to_owned())
    } else if value.is_empty() || !is_printable(value) || value.trim() != value {
        Err("has a value that can't be sent; write 1 or more printable ASCII characters, none of them a blank at an end".to_owned())
    } else {
        Ok(())
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// Whether a text can be a Content-Type.
///
/// # Errors
/// What to write.
pub fn check_media_type(text: &str) -> Result<(), String> {
    let kind = text.split(';').next().unwrap_or_default().trim();
    let word = |word: &str| !word.is_empty() && HeaderName::from_bytes(word.as_bytes()).is_ok();
    if is_printable(text) && kind.split_once('/').is_some_and(|(one, other)| word(one) && word(other)) {
        Ok(())
    } else {
        Err(format!("is \"{}\"; write one such as \"application/json\"", text.escape_debug()))
    }
}

/// Whether a secret can be a bearer token.
///
/// # Errors
/// What is wrong with it, and what to do; nothing of it.
pub fn check_token(token: &Secret) -> Result<(), String> {
    if token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("has blanks or other characters that no token has; write the token alone".to_owned())
    }
}

/// Sends records to a service.
#[derive(Debug)]
pub struct HttpSink {
    name: String,
    settings: Settings,
    client: Client,
    /// The headers of each request.
    fixed: HeaderMap,
    proof: Option<Proof>,
    mask: Mask,
    body: Vec<u8>,
}

/// What proves who the worker is.
#[derive(Debug, PartialEq, Eq)]
struct Proof {
    /// The value of Authorization.
    value: HeaderValue,
    /// What it is made of.
    secrets: Vec<Secret>,
}

/// What came of a request.
enum Outcome {
    Taken,
    Again(String, Option<Duration>),
    Refused(String),
}

impl HttpSink {
    /// A sink `name` (for the log). Its connection is opened when there is something to send.
    ///
    /// # Errors
    /// A secret can't be read; the text has the key, and says what to do.
    pub fn open(name: &str, settings: Settings) -> Result<Self, String> {
        let mut fixed = HeaderMap::new();
        let mut add = |name: &str, value: &str, is_secret| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "headers: a name is none".to_owned())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| format!("headers: {name} can't be sent"))?;
            value.set_sensitive(is_secret);
            fixed.append(name, value);
            Ok::<_, String>(())
        };
        for (name, value) in &settings.headers {
            add(name, value.reveal(), true)?;
        }
        add(CONTENT_TYPE.as_str(), &settings.content_type, false)?;
        let proof = read_proof(settings.auth.as_ref())?;
        let (mask, client) = (mask(&settings, proof.as_ref()), Client::new(name, &settings));
        Ok(Self { name: name.to_owned(), client, settings, fixed, proof, mask, body: Vec::new() })
    }

    /// Sends the next records, at most `most`; says how many they were and what came of it.
    fn request(&mut self, partition: &TopicPartition, records: &Records) -> (usize, Outcome) {
        let Settings { body: form, max_batch_records, max_batch_bytes, .. } = self.settings;
        let mut body = std::mem::take(&mut self.body);
        let count = request::fill(form, (max_batch_records, max_batch_bytes), partition, records, &mut body);
        let part = records.slice(0..count);
        let mut headers = self.fixed.clone();
        for (name, value) in request::headers(form, partition, &part) {
            // Every one of them is printable ASCII.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
                headers.append(name, value);
            }
        }
        let mut result = self.send(&mut headers, &body);
        if let Ok(Answer { status: 401 | 403 | 407, .. }) = result
            && self.has_new_secret()
        {
            log::info!("the secret in its file is a new one, taking it sink={}", self.name);
            result = self.send(&mut headers, &body);
        }
        body.shrink_to(BODY_KEPT);
        self.body = body;
        (count, self.outcome(result, &part))
    }

    fn send(&mut self, headers: &mut HeaderMap, body: &[u8]) -> Result<Answer, String> {
        if let Some(proof) = &self.proof {
            headers.insert(AUTHORIZATION, proof.value.clone());
        }
        self.client.send(self.settings.method.word(), headers, body, &self.mask)
    }

    fn outcome(&self, result: Result<Answer, String>, records: &Records) -> Outcome {
        let Settings { endpoint, method, .. } = &self.settings;
        let offset = |index| records.get(index).map_or(-1, |record| record.offset.get());
        let of = match records.len() {
            0 | 1 => format!("offset {}", offset(0)),
            count => format!("offsets {} to {} ({count} records)", offset(0), offset(count - 1)),
        };
        let text = |what: &dyn std::fmt::Display| format!("{} {} with {of}: {what}", method.word(), endpoint.shown());
        let answer = match result {
            Ok(answer) => answer,
            Err(why) => return Outcome::Again(text(&why), None),
        };
        match answer::verdict(answer.status, &self.settings.retry_status) {
            Verdict::Taken => Outcome::Taken,
            Verdict::Refused => Outcome::Refused(text(&answer)),
            Verdict::Again => {
                let after = answer.retry_after.as_deref().and_then(|text| answer::retry_after(text, SystemTime::now()));
                Outcome::Again(text(&answer), after.map(|after| after.min(self.settings.retry_after_max)))
            }
        }
    }

    fn take(&mut self, proof: Option<Proof>) {
        self.mask = mask(&self.settings, proof.as_ref());
        self.proof = proof;
    }

    /// Reads the secret again, as it was refused. Whether it is another one.
    fn has_new_secret(&mut self) -> bool {
        match read_proof(self.settings.auth.as_ref()) {
            Ok(new) if new != self.proof => {
                self.take(new);
                true
            }
            // What is wrong with the file is told at the next SIGHUP or start; the refusal is told now.
            _ => false,
        }
    }
}

/// What is shown nowhere.
fn mask(settings: &Settings, proof: Option<&Proof>) -> Mask {
    let own = proof.into_iter().flat_map(|proof| &proof.secrets).map(Secret::reveal);
    let others = settings.headers.iter().map(|(_, value)| value.reveal()).chain(settings.endpoint.secrets());
    let all = own.chain(others.filter(|secret| secret.len() >= HIDDEN_MIN));
    Mask::new(all.map(|secret| secret.as_bytes().to_vec()))
}

/// Reads what proves who the worker is.
fn read_proof(auth: Option<&Auth>) -> Result<Option<Proof>, String> {
    let (key, text, secrets) = match auth {
        None => return Ok(None),
        Some(Auth::Bearer { file }) => {
            let token = secret_in(file, "bearer_token_file", "token")?;
            check_token(&token).map_err(|why| format!("bearer_token_file: the content of {} {why}", file.display()))?;
            ("bearer_token_file", format!("Bearer {}", token.reveal()), vec![token])
        }
        Some(Auth::Basic { username, file }) => {
            let password = secret_in(file, "password_file", "password")?;
            let both = STANDARD.encode(format!("{username}:{}", password.reveal()));
            ("password_file", format!("Basic {both}"), vec![password, Secret::new(both)])
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| format!("{key}: the secret can't be sent"))?;
    value.set_sensitive(true);
    Ok(Some(Proof { value, secrets }))
}

fn secret_in(file: &Path, key: &str, what: &str) -> Result<Secret, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(file)?.take(SECRET_MAX).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    let bytes = read().map_err(|error| {
        format!("{key}: {} can't be read: {error}; put the {what} there, for the worker's user to read", file.display())
    })?;
    Secret::of_file(&bytes, what).map_err(|why| format!("{key}: the content of {} {why}", file.display()))
}

impl Sink for HttpSink {
    fn write(&mut self, partition: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        self.write_with_progress(partition, records, &mut Progress::new(&mut |_| {}, Instant::now()))
    }

    fn write_with_progress(
        &mut self,
        partition: &TopicPartition,
        records: &Records,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stopped> {
        let mut done = 0;
        // Among the records before this one is one for which a request was refused.
        let mut suspects: Option<usize> = None;
        while done < records.len() {
            let end = suspects.map_or(records.len(), |end| done + (end - done).div_ceil(2));
            match self.request(partition, &records.slice(done..end)) {
                (count, Outcome::Taken) => {
                    done += count;
                    suspects = suspects.filter(|end| done < *end);
                    progress.safe(done);
                }
                (_, Outcome::Again(why, None)) => return Err(Stopped { done, why: Why::Retry(why) }),
                (_, Outcome::Again(why, Some(after))) => {
                    return Err(Stopped { done, why: Why::RetryAfter(why, after) });
                }
                (0 | 1, Outcome::Refused(why)) => return Err(Stopped { done, why: Why::Reject(why) }),
                (count, Outcome::Refused(why)) => {
                    log::debug!(
                        "request refused, looking for the record sink={} {partition} error=\"{why}\"",
                        self.name
                    );
                    suspects = Some(done + count);
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Ends the request under way; the service may have taken it all the same.
    fn brake(&self) -> Option<Brake> {
        let brake = self.client.brake();
        Some(Box::new(move || brake.press()))
    }

    /// Reads the secret and the files of TLS anew, and begins a new connection.
    fn reopen(&mut self) -> Result<(), String> {
        let proof = read_proof(self.settings.auth.as_ref())?;
        self.take(proof);
        self.client.renew();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
