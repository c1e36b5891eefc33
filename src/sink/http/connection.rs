//! Below the crate `ureq`: the connection that its requests go over.
//!
//! Owns the socket, in the clear or under TLS, and its buffers. It is ours, and not the crate's, so that what holds of
//! the sockets to brokers holds here: one deadline for all of a request, whatever the server does; one library for TLS.
//! What always holds:
//! - nothing is read or written behind the deadline of the request, and no name is looked up but for a new connection;
//! - of an answer's head at most [`INPUT`] bytes are kept, and no interim answer (1xx) is given to the crate;
//! - a request is not sent over a connection that has brought something nobody asked for. On one that was kept that is
//!   whatever comes before the last byte of the request has gone: it belongs to an earlier one, or so it may be, and
//!   taken for the answer to this one it would acknowledge records that may be refused;
//! - an answer that came before the server closed the connection on us is read, though our request was not sent whole.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::Endpoint;
use super::progress::{FIRST, Fault, Shared};
use crate::client::security::Tls;
use crate::wire::{Bounded, Stream, Trouble};

/// What is read and not yet understood; more than [`HEAD_MAX`](super::client::HEAD_MAX).
pub(super) const INPUT: usize = 64 << 10;
/// What is gathered before it is sent.
const OUTPUT: usize = 64 << 10;
/// What many servers say, unasked, before they close a connection that was idle for too long.
const TIMED_OUT: &[u8; 12] = b"HTTP/1.1 408";
/// So many interim answers may come before the answer.
pub(super) const INTERIM_MAX: usize = 100;

/// Opens connections.
#[derive(Debug)]
pub(super) struct Opener {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Tls,
    pub(super) timeout: Duration,
    pub(super) shared: Shared,
}

impl Opener {
    fn open(&self) -> Result<Stream, Fault> {
        let until = self.shared.get().until;
        let socket = crate::wire::open(&self.endpoint.address(), self.timeout, until).map_err(Fault::Unreachable)?;
        self.shared.brake().enter(&socket)?;
        let bounded = Bounded::new(socket, until);
        if self.endpoint.is_tls() { self.secure(bounded) } else { Ok(Stream::Plain(bounded)) }
    }

    #[cfg(feature = "librdkafka")]
    fn secure(&self, bounded: Bounded) -> Result<Stream, Fault> {
        crate::wire::tls::connect(&self.tls, &super::SERVER, self.endpoint.host(), bounded)
            .map_err(|trouble| fault(trouble, &self.tls))
    }

    /// The configuration refuses `https://` where the program was built without TLS.
    #[cfg(not(feature = "librdkafka"))]
    fn secure(&self, _: Bounded) -> Result<Stream, Fault> {
        Err(Fault::Tls("this program was built without the feature librdkafka, which brings TLS".to_owned()))
    }
}

fn fault(trouble: Trouble, tls: &Tls) -> Fault {
    match trouble {
        Trouble::Late => Fault::Late,
        Trouble::Ended | Trouble::Closed => Fault::Ended,
        #[cfg(feature = "librdkafka")]
        Trouble::Tls(why) => Fault::Tls(why),
        #[cfg(feature = "librdkafka")]
        Trouble::Alert(reason) => Fault::Tls(crate::wire::tls::explain(&reason, tls, &super::SERVER)),
        Trouble::Io(error) => Fault::Io(error),
        // Said by none of the calls that are made here.
        other => {
            let _ = tls;
            Fault::Io(io::Error::other(format!("{other:?}")))
        }
    }
}

impl Connector for Opener {
    type Out = Pipe;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Pipe>, Error> {
        self.shared.get().opened = true;
        let stream = self.open().map_err(|fault| self.shared.fail(fault))?;
        self.shared.get().connected = true;
        let (tls, shared) = (self.tls.clone(), self.shared.clone());
        let buffers = LazyBuffers::new(INPUT, OUTPUT);
        Ok(Some(Pipe {
            stream,
            buffers,
            out: Vec::new(),
            broken: None,
            phase: Phase::New,
            kept: false,
            interim: 0,
            tls,
            shared,
        }))
    }
}

/// Names are looked up where connections are opened.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut addresses = self.empty();
        addresses.push(nowhere);
        Ok(addresses)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent yet.
    New,
    /// The answer has not begun, but for interim ones.
    Head,
    /// It has.
    Rest,
}

/// A connection.
pub(super) struct Pipe {
    stream: Stream,
    buffers: LazyBuffers,
    /// What is to be sent: head and body of a small request are one packet.
    out: Vec<u8>,
    /// Sending has failed for this reason; an answer may have come all the same.
    broken: Option<Fault>,
    phase: Phase,
    /// It has had an answer before.
    kept: bool,
    interim: usize,
    tls: Tls,
    shared: Shared,
}

impl Pipe {
    /// Sends what was gathered.
    fn send(&mut self) -> Result<(), Error> {
        if self.broken.is_none() && !self.out.is_empty() {
            let until = self.shared.get().until;
            self.stream.set_deadline(until);
            if self.kept || self.phase == Phase::New {
                match self.unread() {
                    Ok(None) => {}
                    // Behind a part of the request it may be a refusal as well; a new connection will tell.
                    Ok(Some(_)) => return Err(self.shared.fail(Fault::Unasked)),
                    Err(fault) => return Err(self.shared.fail(fault)),
                }
            }
            if self.phase == Phase::New {
                self.phase = Phase::Head;
            }
            match self.stream.write_all(&self.out).map_err(|trouble| fault(trouble, &self.tls)) {
                Ok(()) => {}
                Err(Fault::Late) => return Err(self.shared.fail(Fault::Late)),
                // A server that has seen enough answers and closes.
                Err(fault) => self.broken = Some(fault),
            }
        }
        self.out.clear();
        self.out.shrink_to(2 * OUTPUT);
        Ok(())
    }

    /// What has come and was not read, if anything has: how it begins. Does not wait. Under TLS the server may send
    /// tickets for sessions at any time (RFC 8446, 4.6.1); they are taken, and are nothing that has come.
    fn unread(&mut self) -> Result<Option<[u8; TIMED_OUT.len()]>, Fault> {
        let mut first = [0; TIMED_OUT.len()];
        let count = self.stream.peek(&mut first).map_err(|trouble| fault(trouble, &self.tls))?;
        Ok(count.map(|_| first))
    }

    /// Some more of the answer; `false` at its end.
    fn receive(&mut self) -> Result<bool, Error> {
        let into = self.buffers.input_append_buf();
        if into.is_empty() {
            return Err(self.shared.fail(Fault::Head));
        }
        match self.stream.read(into).map_err(|trouble| fault(trouble, &self.tls)) {
            Ok(0) => {
                let fault = self.broken.take().unwrap_or(Fault::Ended);
                let nothing = self.phase != Phase::Rest;
                let error = self.shared.fail(fault);
                if nothing { Err(error) } else { Ok(false) }
            }
            Ok(count) => {
                let mut progress = self.shared.get();
                progress.received += count as u64;
                let new = into.get(..count).unwrap_or_default();
                let room = FIRST.saturating_sub(progress.first.len());
                progress.first.extend_from_slice(new.get(..room).unwrap_or(new));
                drop(progress);
                self.buffers.input_appended(count);
                Ok(true)
            }
            Err(fault) => {
                let fault = self.broken.take().filter(|_| self.phase != Phase::Rest).unwrap_or(fault);
                Err(self.shared.fail(fault))
            }
        }
    }

    /// Takes interim answers off the input. Whether what is left may be the answer.
    fn skip_interim(&mut self) -> Result<bool, Error> {
        const BEGINS: [&[u8]; 2] = [b"HTTP/1.1 1", b"HTTP/1.0 1"];
        loop {
            let input = self.buffers.input();
            let begun = |lead: &&[u8]| input.len() < lead.len() && lead.starts_with(input);
            if BEGINS.iter().any(begun) {
                return Ok(false);
            }
            if !BEGINS.iter().any(|lead| input.starts_with(lead)) {
                return Ok(true);
            }
            let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
            if announces_body(&input[..end]) {
                return Err(self.shared.fail(Fault::InterimBody));
            }
            self.buffers.input_consume(end + 4);
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(self.shared.fail(Fault::Interim));
            }
        }
    }
}

/// Whether the head of an answer says that a body follows.
fn announces_body(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((line.get(..colon)?.trim_ascii(), line.get(colon + 1..)?.trim_ascii()))
        })
        .any(|(name, value)| {
            name.eq_ignore_ascii_case(b"transfer-encoding")
                || (name.eq_ignore_ascii_case(b"content-length") && value != b"0")
        })
}

impl Transport for Pipe {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output();
        self.out.extend_from_slice(output.get(..amount).unwrap_or(output));
        if self.out.len() >= OUTPUT { self.send() } else { Ok(()) }
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.send()?;
        let mut progress = self.shared.get();
        progress.sent = self.broken.is_none();
        let until = progress.until;
        drop(progress);
        self.stream.set_deadline(until);
        loop {
            let more = self.receive()?;
            if self.phase == Phase::Rest || !more {
                return Ok(more);
            }
            if self.skip_interim()? {
                self.phase = Phase::Rest;
                return Ok(true);
            }
        }
    }

    /// Asked behind an answer, and when the crate takes it for another request.
    fn is_open(&mut self) -> bool {
        let until = self.shared.get().until;
        self.stream.set_deadline(until);
        let open = self.broken.is_none()
            && self.buffers.input().is_empty()
            && match self.unread() {
                Ok(None) => true,
                Ok(Some(first)) => {
                    self.shared.get().unasked |= first != *TIMED_OUT;
                    false
                }
                Err(_) => false,
            };
        (self.phase, self.interim, self.kept) = (Phase::Head, 0, true);
        open
    }

    fn is_tls(&self) -> bool {
        self.tls_is_on()
    }
}

impl Pipe {
    fn tls_is_on(&self) -> bool {
        !matches!(self.stream, Stream::Plain(_))
    }
}

/// The crate drops a connection whose answer is whole and has something behind it.
impl Drop for Pipe {
    fn drop(&mut self) {
        let left = self.buffers.input();
        self.shared.get().left = !left.is_empty() && !left.starts_with(TIMED_OUT);
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}
