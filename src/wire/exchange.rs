//! The bytes of one request and its answer on a stream, each under one deadline; and what the peer
//! looks like if it speaks something else. Knows no request by name.

use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Encodable, encode_request_header_into_buffer};
use rustix::io::Errno;

use super::stream::Stream;

/// How much is allocated ahead of what has come in.
const PIECE: usize = 64 << 10;

/// What can go wrong in an exchange; `Wire::fault` says it in words.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The time is up.
    Late,
    /// The peer closed or reset the connection.
    Ended,
    /// Whoever answers does not speak this protocol.
    Stranger(String),
    /// The answer contradicts itself.
    Nonsense(String),
    /// No TLS connection comes about, for this reason.
    #[cfg(feature = "librdkafka")]
    Tls(String),
    /// A session under TLS ended with this error, in OpenSSL's words.
    #[cfg(feature = "librdkafka")]
    Alert(String),
    /// The broker does not believe who we are, for this reason.
    #[cfg(feature = "librdkafka")]
    Unauthenticated(String),
    /// We closed the connection before.
    Closed,
    /// Anything else that the system reports.
    Io(io::Error),
}

impl Trouble {
    /// The same, but in answer to our first bytes: then it says something about who is there.
    pub(super) fn at_first(self) -> Self {
        match self {
            Self::Ended => Self::Stranger(
                "it closed the connection on our first bytes; a TLS listener does so (then switch TLS on with [kafka.tls], or use its PLAINTEXT listener), a broker older than 0.10, one that is shutting down, or a program that is no Kafka"
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

/// The answer to one request, of which `left` bytes are to come. Ends by the stream's deadline.
pub(super) struct Exchange<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) left: usize,
    pub(super) started: Instant,
}

impl Exchange<'_> {
    /// Fills `into`, which must not be longer than what is left of the frame.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        self.left =
            self.left.checked_sub(into.len()).ok_or_else(|| Trouble::Nonsense("it ends too early".to_owned()))?;
        self.stream.read_exact(into)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Trouble> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// What is left of the frame, allocated as it comes in.
    pub(super) fn read_to_end(&mut self, frame: &mut Vec<u8>) -> Result<(), Trouble> {
        while self.left > 0 {
            let start = frame.len();
            frame.resize(start + self.left.min(PIECE), 0);
            self.read(frame.get_mut(start..).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// A request as it goes over the wire: its length, its header, itself.
pub(super) fn frame<Q: Encodable>(header: &RequestHeader, ask: &Q, version: i16) -> Result<Vec<u8>, Trouble> {
    let mut frame = vec![0; 4];
    let encoded = encode_request_header_into_buffer(&mut frame, header).and_then(|()| ask.encode(&mut frame, version));
    // The encoder refuses for instance a topic name of more than 32,767 bytes.
    encoded.map_err(|error| Trouble::Io(io::Error::new(ErrorKind::InvalidInput, error.to_string())))?;
    with_length(frame)
}

/// The same of a request that was encoded elsewhere.
pub(super) fn frame_of(header: &RequestHeader, body: &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut frame = vec![0; 4];
    encode_request_header_into_buffer(&mut frame, header)
        .map_err(|error| Trouble::Io(io::Error::new(ErrorKind::InvalidInput, error.to_string())))?;
    frame.extend_from_slice(body);
    with_length(frame)
}

fn with_length(mut frame: Vec<u8>) -> Result<Vec<u8>, Trouble> {
    let size = i32::try_from(frame.len() - 4)
        .map_err(|_| Trouble::Io(io::Error::new(ErrorKind::InvalidInput, "the request is larger than 2 GiB")))?;
    frame.splice(..4, size.to_be_bytes());
    Ok(frame)
}

/// Connects to the first address that accepts. Each has its part of the time that is left.
pub(crate) fn open(addr: &str, timeout: Duration, until: Instant) -> io::Result<TcpStream> {
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
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
                let why = "too many open files in this process: raise the limit (ulimit -n, LimitNOFILE)";
                return Err(io::Error::new(error.kind(), why));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What begins with these four bytes, if it is not the length of a frame.
pub(super) fn stranger(first: [u8; 4]) -> String {
    match &first {
        // RFC 8446, 5.1: content type alert (21), then the legacy version 3.x.
        [0x15, 0x03, ..] => {
            "it answers with a TLS alert: a TLS listener; switch TLS on with [kafka.tls], or use its PLAINTEXT listener"
                .to_owned()
        }
        b"HTTP" => "it speaks HTTP".to_owned(),
        b"SSH-" => "it speaks SSH".to_owned(),
        [a, b, c, d] => format!("its answer begins with the bytes {a:02x} {b:02x} {c:02x} {d:02x}"),
    }
}
