//! A bare blocking connection to one broker, for the questions that a client library answers badly
//! or not at all: what is at this port, which topics exist (without creating them), where a log
//! begins and ends, what the batch at an offset is. Never carries records.
//!
//! Owns one socket. This folder alone names the crate `kafka-protocol`. What always holds:
//! - every wait has an end: connecting with the handshake of TLS, and each request as a whole;
//! - nothing is allocated because a peer says so: a frame is read in pieces up to a bound, and its
//!   lengths are checked against the bytes that are there before it is decoded, as the
//!   decoder believes them;
//! - where the settings say so, nothing but the question for the versions is asked before the peer is proved to be
//!   the broker (TLS) and we are proved to be the user (SASL);
//! - after a fault of the connection it is closed, and every later call says so. A refusal by the
//!   broker (an error code) leaves it open.

use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use crate::client::{Connection, Fault, KnownHosts, Principal, Resource, Security};
use exchange::Exchange;
use shape::Shape;

mod committed;
mod exchange;
mod groups;
mod header;
mod metadata;
mod offsets;
mod old_fetch;
#[cfg(feature = "librdkafka")]
mod sasl;
#[cfg(feature = "librdkafka")]
mod scram;
#[cfg(all(test, feature = "librdkafka"))]
mod secure_tests;
mod shape;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "librdkafka")]
pub mod tls;

pub use header::{Batch, Codec, Details, Header};
pub use metadata::{ClusterView, PartitionView, TopicView};
// For the sink `http`, which has sockets of its own.
pub(crate) use exchange::{Trouble, open};
pub(crate) use stream::{Bounded, Stream};

/// The largest answer that is read. Metadata of 20,000 partitions are about 1 MiB.
const MAX_ANSWER: usize = 16 << 20;

/// How long a host may take to say what it serves: it does so at once, or is no Kafka, or hangs.
const GREETING: Duration = Duration::from_secs(10);

/// In place of a request's name.
const TLS_HANDSHAKE: &str = "the TLS handshake";

/// An open connection to one broker, which has said which requests it serves.
#[derive(Debug)]
pub struct Wire {
    broker: String,
    client_id: String,
    request_timeout: Duration,
    stream: Option<Stream>,
    security: Security,
    /// Who the broker takes us for.
    who: Principal,
    /// When we have to prove anew who we are, at the latest.
    #[cfg(feature = "librdkafka")]
    session_ends: Option<Instant>,
    correlation_id: i32,
    /// Key of a request, lowest and highest version.
    versions: Vec<(i16, i16, i16)>,
    /// Whether a request other than ApiVersions was answered: then it is surely a plain listener.
    proved: bool,
    known: KnownHosts,
}

impl Wire {
    /// Connects to `host:port` and asks which requests are served there (ApiVersions 0, which every
    /// broker from 0.10 on answers, 4.x too). All addresses of the host are tried, within
    /// `connect_timeout`; only the system's resolver has a time limit of its own.
    ///
    /// # Errors
    /// [`Fault::Unreachable`], [`Fault::NotKafka`] with what the port looks like, [`Fault::Silent`],
    /// [`Fault::Broken`].
    pub fn connect(
        addr: &str,
        client_id: &str,
        connect_timeout: Duration,
        request_timeout: Duration,
    ) -> Result<Self, Fault> {
        let known = KnownHosts::default();
        Self::open(addr, client_id, connect_timeout, request_timeout, known, Security::default(), false)
    }

    /// Connects to a broker as the client's settings say: over TLS, as a user.
    ///
    /// # Errors
    /// As for [`Wire::connect`], but a host that has spoken Kafka before is no stranger; [`Fault::Tls`],
    /// [`Fault::Unauthenticated`].
    pub fn connect_as(connection: &Connection, addr: &str) -> Result<Self, Fault> {
        let Connection { bootstrap_servers, client_id, connect_timeout, request_timeout, known, security, .. } =
            connection;
        let advertised = !bootstrap_servers.iter().any(|server| server == addr);
        let (known, security) = (known.clone(), security.clone());
        Self::open(addr, client_id, *connect_timeout, *request_timeout, known, security, advertised)
    }

    fn open(
        addr: &str,
        client_id: &str,
        connect_timeout: Duration,
        request_timeout: Duration,
        known: KnownHosts,
        security: Security,
        advertised: bool,
    ) -> Result<Self, Fault> {
        let started = Instant::now();
        let until = started + connect_timeout;
        let socket = exchange::open(addr, connect_timeout, until).map_err(|why| Fault::Unreachable {
            broker: addr.to_owned(),
            why: why.to_string(),
            advertised,
        })?;
        let mut wire = Self {
            broker: addr.to_owned(),
            client_id: client_id.to_owned(),
            request_timeout: request_timeout.min(GREETING),
            stream: None,
            who: security.principal(),
            security,
            #[cfg(feature = "librdkafka")]
            session_ends: None,
            correlation_id: 0,
            versions: Vec::new(),
            proved: known.contain(addr),
            known,
        };
        let secured = wire.secure(Bounded::new(socket, until));
        wire.stream = Some(secured.map_err(|trouble| wire.fault(TLS_HANDSHAKE, started, trouble))?);
        let shape = [Shape::Fixed(2), Shape::Array(vec![Shape::Fixed(6)])];
        let answer: ApiVersionsResponse =
            wire.call("ApiVersions", ApiKey::ApiVersions, 0, &ApiVersionsRequest::default(), &shape)?;
        wire.request_timeout = request_timeout;
        if answer.error_code != 0 {
            let why = Trouble::Nonsense(code_name(answer.error_code));
            return Err(wire.fault("ApiVersions", Instant::now(), why));
        }
        wire.versions = answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        #[cfg(feature = "librdkafka")]
        if let Some(sasl) = wire.security.sasl.clone() {
            wire.authenticate(&sasl)?;
        }
        Ok(wire)
    }

    /// The socket as the settings want it.
    #[cfg(feature = "librdkafka")]
    fn secure(&self, socket: Bounded) -> Result<Stream, Trouble> {
        match &self.security.tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => {
                let host = self.broker.rsplit_once(':').map_or(self.broker.as_str(), |(host, _)| host);
                tls::connect(tls, &tls::BROKERS, host.trim_start_matches('[').trim_end_matches(']'), socket)
            }
        }
    }

    /// The socket as it is: the configuration refuses what this program was built without.
    #[cfg(not(feature = "librdkafka"))]
    fn secure(&self, socket: Bounded) -> Result<Stream, Trouble> {
        if self.security.is_plain() {
            Ok(Stream::Plain(socket))
        } else {
            Err(Trouble::Io(std::io::Error::other("this program was built without the feature librdkafka")))
        }
    }

    /// `host:port`, as it was given.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Whether it can be asked. `false` after a fault of the connection, and after a
    /// [`Wire::batch_header`] whose batch was not worth reading.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether this broker serves what this module needs: Metadata 4 and Fetch 4. Kafka 0.11 and newer do, 4.x too.
    ///
    /// # Errors
    /// [`Fault::TooOld`] (before 0.11), [`Fault::NoMetadata`] (a KRaft controller, which has no use for
    /// Metadata; every broker serves it).
    pub fn require(&self) -> Result<(), Fault> {
        if self.versions_of(ApiKey::Metadata).is_none() {
            return Err(Fault::NoMetadata { broker: self.broker.clone() });
        }
        self.require_version(ApiKey::Metadata, 4, "Metadata 4")?;
        self.require_version(ApiKey::Fetch, 4, "Fetch 4")
    }

    /// Whether this broker can be read by the client `kafka` too, which speaks Fetch 0.
    ///
    /// # Errors
    /// [`Fault::TooNew`] (Kafka 4 dropped Fetch 0), and those of [`Wire::require`].
    pub fn require_old_fetch(&self) -> Result<(), Fault> {
        self.require()?;
        match self.versions_of(ApiKey::Fetch) {
            Some((fetch_min, _)) if fetch_min > 0 => Err(Fault::TooNew { broker: self.broker.clone(), fetch_min }),
            _ => Ok(()),
        }
    }

    /// Lowest and highest version of a request that the broker serves.
    fn versions_of(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.versions.iter().find(|api| api.0 == key as i16).map(|&(_, min, max)| (min, max))
    }

    /// The newest version of a request that both sides speak; this one knows from `ours.0` to `ours.1`. `name`: the
    /// request and its version `ours.0`.
    fn choose(&self, key: ApiKey, ours: (i16, i16), name: &'static str) -> Result<i16, Fault> {
        self.require_version(key, ours.0, name)?;
        let (min, max) = self.versions_of(key).unwrap_or(ours);
        if min > ours.1 {
            let code =
                format!("broker {} serves it from version {min} on, this program speaks up to {}", self.broker, ours.1);
            return Err(Fault::Refused { call: name, code });
        }
        Ok(max.min(ours.1))
    }

    fn require_version(&self, key: ApiKey, version: i16, name: &'static str) -> Result<(), Fault> {
        match self.versions_of(key) {
            Some((_, max)) if max >= version => Ok(()),
            _ => Err(Fault::TooOld { broker: self.broker.clone(), lacks: name }),
        }
    }

    /// One request and its whole answer.
    fn call<Q, A>(
        &mut self,
        call: &'static str,
        key: ApiKey,
        version: i16,
        ask: &Q,
        shape: &[Shape],
    ) -> Result<A, Fault>
    where
        Q: Encodable,
        A: Decodable + HeaderVersion,
    {
        let mut answer = self.send(call, key, version, ask)?;
        let mut frame = Vec::new();
        let result = answer.read_to_end(&mut frame).and_then(|()| {
            let mut body = frame.as_slice();
            // Header version 1 has tagged fields behind the correlation id.
            let header: &[Shape] = if A::header_version(version) > 0 { &[Shape::Tags] } else { &[] };
            shape::skip(header, &mut body).map_err(Trouble::Nonsense)?;
            let mut checked = body;
            shape::skip(shape, &mut checked).map_err(Trouble::Nonsense)?;
            if !checked.is_empty() {
                return Err(Trouble::Nonsense(format!("{} bytes more than expected", checked.len())));
            }
            A::decode(&mut body, version).map_err(|error| Trouble::Nonsense(error.to_string()))
        });
        let started = answer.started;
        self.conclude(call, started, result)
    }

    /// Sends a request, and reads its answer up to and with the correlation id.
    fn send<Q: Encodable>(
        &mut self,
        call: &'static str,
        key: ApiKey,
        version: i16,
        ask: &Q,
    ) -> Result<Exchange<'_>, Fault> {
        self.send_as(call, key, version, |header| exchange::frame(header, ask, version))
    }

    /// The same with what makes the whole frame from its header.
    fn send_as(
        &mut self,
        call: &'static str,
        key: ApiKey,
        version: i16,
        frame: impl FnOnce(&RequestHeader) -> Result<Vec<u8>, Trouble>,
    ) -> Result<Exchange<'_>, Fault> {
        #[cfg(feature = "librdkafka")]
        if self.session_ends.is_some_and(|ends| ends <= Instant::now())
            && let Some(sasl) = self.security.sasl.clone()
        {
            self.authenticate(&sasl)?;
        }
        let started = Instant::now();
        let timeout = self.request_timeout;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let id = self.correlation_id;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_string(self.client_id.clone())));
        let first = self.versions.is_empty();
        let result = self.stream.as_mut().ok_or(Trouble::Closed).and_then(|stream| {
            let frame = frame(&header)?;
            stream.set_deadline(started + timeout);
            stream.write_all(&frame)?;
            let mut answer = Exchange { stream, left: 4, started };
            let length = answer.array()?;
            answer.left = match usize::try_from(i32::from_be_bytes(length)) {
                Ok(size) if (4..=MAX_ANSWER).contains(&size) || (size >= 4 && key == ApiKey::Fetch) => size,
                _ if first => return Err(Trouble::Stranger(exchange::stranger(length))),
                _ => return Err(Trouble::Nonsense(format!("a length of {} bytes", i32::from_be_bytes(length)))),
            };
            let answered = i32::from_be_bytes(answer.array()?);
            if answered != id {
                let what = format!("correlation id {answered} came where {id} was expected");
                return Err(if first { Trouble::Stranger(what) } else { Trouble::Nonsense(what) });
            }
            Ok(answer.left)
        });
        let left = match result {
            Ok(left) => left,
            Err(trouble) => {
                self.stream = None;
                let plain = self.security.tls.is_none();
                let trouble = if first && plain && !self.proved { trouble.at_first() } else { trouble };
                return Err(self.fault(call, started, trouble));
            }
        };
        match self.stream {
            Some(ref mut stream) => Ok(Exchange { stream, left, started }),
            None => Err(Fault::Broken { call, why: format!("broker {}: the connection is closed", self.broker) }),
        }
    }

    /// After an answer: keeps the connection, or closes it and says why.
    fn conclude<T>(&mut self, call: &'static str, started: Instant, result: Result<T, Trouble>) -> Result<T, Fault> {
        match result {
            Ok(value) => {
                if !self.proved && !self.versions.is_empty() {
                    self.proved = true;
                    self.known.add(&self.broker);
                }
                Ok(value)
            }
            Err(trouble) => {
                self.stream = None;
                Err(self.fault(call, started, trouble))
            }
        }
    }

    /// Who ends a connection under TLS without a word, at this point.
    fn who_closes(&self, call: &'static str) -> &'static str {
        if call == TLS_HANDSHAKE {
            "during the handshake; a listener without TLS does so (name the port of the SSL or SASL_SSL listener in kafka.bootstrap_servers, or leave out [kafka.tls])"
        } else if self.security.tls.as_ref().is_some_and(|tls| tls.identity.is_none()) {
            "after the handshake; one that wants a client certificate (ssl.client.auth) does so (then write kafka.tls.certificate and kafka.tls.key)"
        } else {
            "after the handshake; one that does not trust kafka.tls.certificate does so (look at its log)"
        }
    }

    fn fault(&self, call: &'static str, started: Instant, trouble: Trouble) -> Fault {
        let broker = self.broker.clone();
        let broken = |why: String| Fault::Broken { call, why: format!("broker {broker}: {why}") };
        match trouble {
            Trouble::Late => {
                let after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                Fault::Silent { broker, call, after_ms }
            }
            Trouble::Ended if self.security.tls.is_some() && self.versions.is_empty() && !self.proved => Fault::Tls {
                broker,
                why: format!("it closes the connection {}, or a broker that is shutting down", self.who_closes(call)),
            },
            Trouble::Ended if !self.versions.is_empty() && !self.proved => Fault::NotKafka {
                broker,
                looks_like: format!(
                    "it answers ApiVersions, and closes the connection on {call} without a word; a SASL listener does so to clients that do not say who they are (then write [kafka.sasl], or use a listener without SASL), or a broker that is shutting down"
                ),
            },
            Trouble::Ended => broken("it closed the connection".to_owned()),
            Trouble::Stranger(looks_like) => Fault::NotKafka { broker, looks_like },
            Trouble::Nonsense(what) => broken(format!("its answer makes no sense: {what}")),
            Trouble::Io(error) => broken(error.to_string()),
            #[cfg(feature = "librdkafka")]
            Trouble::Tls(why) => Fault::Tls { broker, why },
            #[cfg(feature = "librdkafka")]
            Trouble::Alert(reason) => match &self.security.tls {
                // Before the first answer it is the end of the handshake: with TLS 1.3 the broker looks at our
                // certificate only then.
                Some(tls) if self.versions.is_empty() => {
                    Fault::Tls { broker, why: tls::explain(&reason, tls, &tls::BROKERS) }
                }
                _ => broken(reason),
            },
            #[cfg(feature = "librdkafka")]
            Trouble::Unauthenticated(why) => Fault::Unauthenticated { broker, why },
            Trouble::Closed => broken("the connection is closed already".to_owned()),
        }
    }
}

/// The fault that an error code stands for; `of` is what was asked about, `who` whom the broker takes us for.
fn refused(who: &Principal, call: &'static str, of: Resource, code: i16) -> Fault {
    let name = code_name(code);
    let unauthorized = |what, code| Fault::unauthorized(call, what, code, who.clone());
    match ResponseError::try_from_code(code) {
        Some(ResponseError::ClusterAuthorizationFailed) => unauthorized(Resource::Cluster, name),
        Some(ResponseError::TopicAuthorizationFailed | ResponseError::GroupAuthorizationFailed) => {
            unauthorized(of, name)
        }
        _ => Fault::Refused { call, code: name },
    }
}

/// Kafka's name of an error code: `UnknownTopicOrPartition`; the number if the name is unknown here.
pub fn code_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "no error".to_owned(),
        Some(ResponseError::Unknown(code)) => format!("error code {code}"),
        Some(known) => known.to_string(),
    }
}
