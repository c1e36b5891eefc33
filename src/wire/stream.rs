//! The socket below a wire, in the clear or under TLS. Whatever is read or written ends by one deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[cfg(feature = "librdkafka")]
use openssl::ssl::SslStream;

use super::exchange::Trouble;

/// A socket whose every call ends by `until`: under TLS one read is any number of reads of the socket.
#[derive(Debug)]
pub(crate) struct Bounded {
    socket: TcpStream,
    until: Instant,
}

impl Bounded {
    pub(crate) fn new(socket: TcpStream, until: Instant) -> Self {
        Self { socket, until }
    }

    /// The time that is left. None left looks like what Linux says when a socket's timeout has passed.
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::WouldBlock.into()) } else { Ok(left) }
    }
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(into)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) enum Stream {
    /// In the clear.
    Plain(Bounded),
    /// Under TLS; the handshake is over.
    #[cfg(feature = "librdkafka")]
    Tls(Box<SslStream<Bounded>>),
}

impl Stream {
    /// Sets the deadline of all that follows.
    pub(crate) fn set_deadline(&mut self, until: Instant) {
        match self {
            Self::Plain(socket) => socket.until = until,
            #[cfg(feature = "librdkafka")]
            Self::Tls(stream) => stream.get_mut().until = until,
        }
    }

    fn read_once(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            #[cfg(feature = "librdkafka")]
            Self::Tls(stream) => stream.read(into),
        }
    }

    /// Some bytes, as soon as there are some; 0 at the peer's end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Trouble> {
        loop {
            match self.read_once(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map_err(trouble),
            }
        }
    }

    /// Fills `into`.
    pub(super) fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), Trouble> {
        while !into.is_empty() {
            match self.read(into)? {
                0 => return Err(Trouble::Ended),
                count => into = into.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// What has come and was not read: how many bytes of it are in `into`, which must have room. `None`: nothing, which
    /// under TLS may be all but data. Does not wait, and takes nothing away.
    pub(crate) fn peek(&mut self, into: &mut [u8]) -> Result<Option<usize>, Trouble> {
        self.socket().set_nonblocking(true)?;
        let peeked = match self {
            Self::Plain(bounded) => bounded.socket.peek(into),
            #[cfg(feature = "librdkafka")]
            Self::Tls(stream) => super::tls::peek(stream, into),
        };
        self.socket().set_nonblocking(false)?;
        match peeked {
            Ok(0) => Err(Trouble::Ended),
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(trouble(error)),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(bounded) => &bounded.socket,
            #[cfg(feature = "librdkafka")]
            Self::Tls(stream) => &stream.get_ref().socket,
        }
    }

    pub(crate) fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Plain(socket) => socket.write(bytes),
                #[cfg(feature = "librdkafka")]
                Self::Tls(stream) => stream.write(bytes),
            };
            match written {
                Ok(0) => return Err(Trouble::Ended),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(trouble(error)),
            }
        }
        Ok(())
    }
}

/// What the system says, or what TLS says inside of it.
fn trouble(error: io::Error) -> Trouble {
    #[cfg(feature = "librdkafka")]
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>()) {
        return super::tls::trouble(tls);
    }
    error.into()
}
