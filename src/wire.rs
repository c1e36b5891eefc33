//! A bare blocking connection to one broker, for the questions that a client library answers badly
//! or not at all: what is at this port, which topics exist (without creating them), where a log
//! begins and ends, what the batch at an offset is. Never carries records.
//!
//! Owns one socket. This folder alone names the crate `kafka-protocol`. What always holds:
//! - every wait has an end: connecting, and each request as a whole;
//! - nothing is allocated because a peer says so: a frame is read in pieces up to a bound, and its
//!   lengths are checked against the bytes that are there before it is decoded, as the
//!   decoder believes them;
//! - after a fault of the connection it is closed, and every later call says so. A refusal by the
//!   broker (an error code) leaves it open.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, encode_request_header_into_buffer};

use crate::client::Fault;
use shape::Shape;

mod header;
mod metadata;
mod offsets;
mod shape;
#[cfg(test)]
mod tests;

pub use header::{Batch, Codec, Details, Header};
pub use metadata::{ClusterView, PartitionView, TopicId, TopicView};

/// The largest answer that is read. Metadata of 20,000 partitions are about 1 MiB.
const MAX_ANSWER: usize = 16 << 20;
/// How much is allocated ahead of what has come in.
const PIECE: usize = 64 << 10;

/// An open connection to one broker, which has said which requests it serves.
#[derive(Debug)]
pub struct Wire {
    broker: String,
    client_id: String,
    request_timeout: Duration,
    stream: Option<TcpStream>,
    correlation_id: i32,
    /// Key of a request, lowest and highest version.
    versions: Vec<(i16, i16, i16)>,
    /// Whether a request other than ApiVersions was answered: then it is surely a plain listener.
    proved: bool,
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
        let stream = open(addr, connect_timeout)
            .map_err(|why| Fault::Unreachable { broker: addr.to_owned(), why: why.to_string() })?;
        let mut wire = Self {
            broker: addr.to_owned(),
            client_id: client_id.to_owned(),
            request_timeout,
            stream: Some(stream),
            correlation_id: 0,
            versions: Vec::new(),
            proved: false,
        };
        let shape = [Shape::Fixed(2), Shape::Array(vec![Shape::Fixed(6)])];
        let answer: ApiVersionsResponse =
            wire.call("ApiVersions", ApiKey::ApiVersions, 0, &ApiVersionsRequest::default(), &shape)?;
        if answer.error_code != 0 {
            return Err(Fault::Refused { call: "ApiVersions", code: code_name(answer.error_code) });
        }
        wire.versions = answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
        Ok(wire)
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

    /// Whether this broker can be read by the client `kafka`, which speaks Fetch 0, and by this
    /// module, which needs Fetch 4 and Metadata 4.
    ///
    /// # Errors
    /// [`Fault::TooNew`] (Kafka 4 dropped Fetch 0), [`Fault::TooOld`] (before 0.11).
    pub fn require_old_fetch(&self) -> Result<(), Fault> {
        self.require_version(ApiKey::Metadata, 4, "Metadata 4")?;
        self.require_version(ApiKey::Fetch, 4, "Fetch 4")?;
        match self.versions_of(ApiKey::Fetch) {
            Some((fetch_min, _)) if fetch_min > 0 => Err(Fault::TooNew { broker: self.broker.clone(), fetch_min }),
            _ => Ok(()),
        }
    }

    /// Lowest and highest version of a request that the broker serves.
    fn versions_of(&self, key: ApiKey) -> Option<(i16, i16)> {
        self.versions.iter().find(|api| api.0 == key as i16).map(|&(_, min, max)| (min, max))
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
        let mut exchange = self.send(call, key, version, ask)?;
        let mut frame = Vec::new();
        let result = exchange.read_to_end(&mut frame).and_then(|()| {
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
        let deadline = exchange.started;
        self.conclude(call, deadline, result)
    }

    /// Sends a request, and reads its answer up to and with the correlation id.
    fn send<Q: Encodable>(
        &mut self,
        call: &'static str,
        key: ApiKey,
        version: i16,
        ask: &Q,
    ) -> Result<Exchange<'_>, Fault> {
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
        let result = self.stream.as_ref().ok_or(Trouble::Closed).and_then(|stream| {
            let frame = frame(&header, ask, version)?;
            let until = started + timeout;
            write_all(stream, &frame, until)?;
            let mut exchange = Exchange { stream, left: 4, started, until };
            let length = exchange.array()?;
            exchange.left = match usize::try_from(i32::from_be_bytes(length)) {
                Ok(size) if (4..=MAX_ANSWER).contains(&size) || (size >= 4 && key == ApiKey::Fetch) => size,
                _ if first => return Err(Trouble::Stranger(stranger(length))),
                _ => return Err(Trouble::Nonsense(format!("a length of {} bytes", i32::from_be_bytes(length)))),
            };
            let answered = i32::from_be_bytes(exchange.array()?);
            if answered != id {
                let what = format!("correlation id {answered} came where {id} was expected");
                return Err(if first { Trouble::Stranger(what) } else { Trouble::Nonsense(what) });
            }
            Ok(exchange.left)
        });
        match result {
            Ok(left) => match &self.stream {
                Some(stream) => Ok(Exchange { stream, left, started, until: started + timeout }),
                None => Err(self.fault(call, started, Trouble::Closed)),
            },
            Err(trouble) => {
                self.stream = None;
                Err(self.fault(call, started, if first { trouble.at_first() } else { trouble }))
            }
        }
    }

    /// After an answer: keeps the connection, or closes it and says why.
    fn conclude<T>(&mut self, call: &'static str, started: Instant, result: Result<T, Trouble>) -> Result<T, Fault> {
        match result {
            Ok(value) => {
                self.proved |= !self.versions.is_empty();
                Ok(value)
            }
            Err(trouble) => {
                self.stream = None;
                Err(self.fault(call, started, trouble))
            }
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
            Trouble::Ended if !self.versions.is_empty() && !self.proved => Fault::NotKafka {
                broker,
                looks_like: format!(
                    "it answers ApiVersions, and closes the connection on {call} without a word; a SASL listener does so to clients that do not authenticate (use its PLAINTEXT listener, or the client 'librdkafka'), or a broker that is shutting down"
                ),
            },
            Trouble::Ended => broken("it closed the connection".to_owned()),
            Trouble::Stranger(looks_like) => Fault::NotKafka { broker, looks_like },
            Trouble::Nonsense(what) => broken(format!("its answer makes no sense: {what}")),
            Trouble::Io(error) => broken(error.to_string()),
            Trouble::Closed => broken("the connection is closed already".to_owned()),
        }
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

/// What can go wrong in an exchange; [`Wire::fault`] says it in words.
#[derive(Debug)]
enum Trouble {
    /// The time is up.
    Late,
    /// The peer closed or reset the connection.
    Ended,
    /// Whoever answers does not speak this protocol.
    Stranger(String),
    /// The answer contradicts itself.
    Nonsense(String),
    /// We closed the connection before.
    Closed,
    /// Anything else that the system reports.
    Io(io::Error),
}

impl Trouble {
    /// The same, but in answer to our first bytes: then it says something about who is there.
    fn at_first(self) -> Self {
        match self {
            Self::Ended => Self::Stranger(
                "it closed the connection on our first bytes; a TLS listener does so (use its PLAINTEXT listener, or the client 'librdkafka'), a broker older than 0.10, one that is shutting down, or a program that is no Kafka"
                    .to_owned(),
            ),
            other => other,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Linux says WouldBlock when a socket's timeout has passed, others say TimedOut.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

/// The answer to one request, of which `left` bytes are to come.
struct Exchange<'a> {
    stream: &'a TcpStream,
    left: usize,
    started: Instant,
    until: Instant,
}

impl Exchange<'_> {
    /// Fills `into`, which must not be longer than what is left of the frame.
    fn read(&mut self, mut into: &mut [u8]) -> Result<(), Trouble> {
        self.left =
            self.left.checked_sub(into.len()).ok_or_else(|| Trouble::Nonsense("it ends too early".to_owned()))?;
        while !into.is_empty() {
            self.stream.set_read_timeout(Some(remaining(self.until)?))?;
            match Read::read(&mut &*self.stream, into) {
                Ok(0) => return Err(Trouble::Ended),
                Ok(count) => into = into.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Trouble> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// What is left of the frame, allocated as it comes in.
    fn read_to_end(&mut self, frame: &mut Vec<u8>) -> Result<(), Trouble> {
        while self.left > 0 {
            let start = frame.len();
            frame.resize(start + self.left.min(PIECE), 0);
            self.read(frame.get_mut(start..).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The time until then; none left is [`Trouble::Late`].
fn remaining(until: Instant) -> Result<Duration, Trouble> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Trouble::Late) } else { Ok(left) }
}

fn write_all(stream: &TcpStream, mut bytes: &[u8], until: Instant) -> Result<(), Trouble> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(remaining(until)?))?;
        match Write::write(&mut &*stream, bytes) {
            Ok(0) => return Err(Trouble::Ended),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A request as it goes over the wire: its length, its header, itself.
fn frame<Q: Encodable>(header: &RequestHeader, ask: &Q, version: i16) -> Result<Vec<u8>, Trouble> {
    let mut frame = vec![0; 4];
    let encoded = encode_request_header_into_buffer(&mut frame, header).and_then(|()| ask.encode(&mut frame, version));
    // The encoder refuses for instance a topic name of more than 32,767 bytes.
    encoded.map_err(|error| Trouble::Io(io::Error::new(ErrorKind::InvalidInput, error.to_string())))?;
    let size = i32::try_from(frame.len() - 4)
        .map_err(|_| Trouble::Io(io::Error::new(ErrorKind::InvalidInput, "the request is larger than 2 GiB")))?;
    frame.splice(..4, size.to_be_bytes());
    Ok(frame)
}

/// Connects to the first address that accepts. Each has its part of the time that is left.
fn open(addr: &str, timeout: Duration) -> io::Result<TcpStream> {
    let until = Instant::now() + timeout;
    let addresses: Vec<_> = addr.to_socket_addrs()?.collect();
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        // Zero is an invalid argument to connect_timeout.
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                last = io::Error::new(error.kind(), format!("no answer within {} ms", timeout.as_millis()));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What begins with these four bytes, if it is not the length of a frame.
fn stranger(first: [u8; 4]) -> String {
    match &first {
        // RFC 8446, 5.1: content type alert (21), then the legacy version 3.x.
        [0x15, 0x03, ..] => {
            "it answers with a TLS alert: a TLS listener; use its PLAINTEXT listener, or the client 'librdkafka'"
                .to_owned()
        }
        b"HTTP" => "it speaks HTTP".to_owned(),
        b"SSH-" => "it speaks SSH".to_owned(),
        [a, b, c, d] => format!("its answer begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}"),
    }
}
