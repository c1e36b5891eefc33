//! The threads: one that accepts, and one a connection that reads a request, answers it, and reads
//! the next. A fault that was ordered strikes here, or is handed on to the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::state::Life;
use super::{Shared, answer};
use crate::api::Api;
use crate::fault::{Fault, Struck, code};
use crate::request::{Body, Header};
use crate::wire::{Malformed, Reader, Writer};

/// The longest request that is read, in bytes (`socket.request.max.bytes`).
const REQUEST_MAX: usize = 100 << 20;
/// How long a hanging request waits for its broker's stop, which wakes it, before it waits again.
/// Every wait has an end; this one is beyond that of any test.
const HANG: Duration = Duration::from_secs(3600);

/// Counts a thread of a broker's life in and out.
struct Running {
    shared: Arc<Shared>,
    life: Life,
}

impl Running {
    fn begin(shared: Arc<Shared>, life: Life) -> Self {
        shared.note(|state| state.thread_begins(life));
        Self { shared, life }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.note(|state| state.thread_ends(self.life));
    }
}

/// Starts the thread that takes connections.
pub(super) fn accept(shared: Arc<Shared>, life: Life, listener: TcpListener) -> io::Result<()> {
    let running = Running::begin(shared, life);
    let name = format!("broker-{}-accept", life.broker);
    thread::Builder::new().name(name).spawn(move || {
        // Taken first, so dropped last: the port is free again before the thread counts as ended.
        let running = running;
        let listener = listener;
        for socket in listener.incoming() {
            if !running.shared.lock().lives(life) {
                break;
            }
            let Ok(socket) = socket else { continue };
            // Without a thread for it the connection is closed, which its client sees.
            drop(serve(&running.shared, life, socket));
        }
    })?;
    Ok(())
}

fn serve(shared: &Arc<Shared>, life: Life, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let handle = socket.try_clone()?;
    let Some(number) = shared.note(|state| state.connect(life, handle)) else { return Ok(()) };
    let running = Running::begin(Arc::clone(shared), life);
    let name = format!("broker-{}-{number}", life.broker);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        let mut connection = Connection { shared: &running.shared, life, socket };
        // However it ended, there is nobody to tell: the client sees a closed connection.
        while let Ok(()) = connection.next() {}
        drop(connection.socket.shutdown(Shutdown::Both));
        running.shared.note(|state| state.disconnect(life, number));
    });
    if spawned.is_err() {
        shared.note(|state| state.disconnect(life, number));
    }
    spawned.map(drop)
}

/// The connection ends: closed by the client, by the broker's stop, by a bad request, by a fault.
struct Closed;

impl From<io::Error> for Closed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<Malformed> for Closed {
    fn from(_: Malformed) -> Self {
        Self
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    life: Life,
    socket: TcpStream,
}

impl Connection<'_> {
    /// Reads one request and answers it.
    fn next(&mut self) -> Result<(), Closed> {
        let frame = self.read_frame()?;
        let mut reader = Reader::new(&frame);
        let header = Header::decode(&mut reader)?;
        let api = Api::from_key(header.key).ok_or(Closed)?;
        self.shared.note(|state| state.count(api));
        if !self.shared.lock().options.versions.serve(api, header.version) {
            return self.refuse(api, &header);
        }
        let body = Body::decode(api, header.version, &mut reader)?;
        let struck = self.shared.note(|state| state.orders.strike(self.life.broker, api, &body));
        self.before(&struck)?;

        let mut out = Writer::new(api.is_flexible(header.version));
        out.tags(); // those of the header
        let asked = answer::Asked { shared: self.shared, life: self.life, version: header.version, struck: &struck };
        let wants_answer = answer::write(&asked, &body, &mut out).map_err(|answer::Interrupted| Closed)?;
        if struck.has(&Fault::CloseServed) {
            return Err(Closed);
        }
        if wants_answer { self.answer(&header, out, &struck) } else { Ok(()) }
    }

    fn read_frame(&mut self) -> Result<Vec<u8>, Closed> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| Closed)?;
        if length > REQUEST_MAX {
            return Err(Closed);
        }
        // Memory is taken as bytes come in, not as they are claimed.
        let mut frame = Vec::new();
        (&mut self.socket).take(length as u64).read_to_end(&mut frame)?;
        if frame.len() == length { Ok(frame) } else { Err(Closed) }
    }

    /// An unsupported version closes the connection; only ApiVersions is answered, in version 0.
    fn refuse(&mut self, api: Api, header: &Header) -> Result<(), Closed> {
        if api != Api::ApiVersions {
            return Err(Closed);
        }
        let mut out = Writer::new(false);
        answer::versions(self.shared, code::UNSUPPORTED_VERSION, &mut out);
        self.answer(header, out, &Struck::default())
    }

    /// The faults that strike before the request is served.
    fn before(&mut self, struck: &Struck) -> Result<(), Closed> {
        for fault in struck.faults() {
            match fault {
                Fault::CloseUnserved => return Err(Closed),
                Fault::Raw(bytes) => {
                    self.socket.write_all(bytes)?;
                    return Err(Closed);
                }
                Fault::Delay(time) => self.wait(*time)?,
                Fault::Hang => {
                    while self.wait(HANG).is_ok() {}
                    return Err(Closed);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets time pass, unless the broker is stopped.
    fn wait(&self, time: Duration) -> Result<(), Closed> {
        let stopped =
            self.shared.wait_until(&self.shared.changed, Instant::now() + time, |state| !state.lives(self.life));
        if stopped { Err(Closed) } else { Ok(()) }
    }

    /// Sends an answer, with the faults that strike at its bytes.
    fn answer(&mut self, header: &Header, mut out: Writer, struck: &Struck) -> Result<(), Closed> {
        let (mut correlation_id, mut length, mut sent) = (header.correlation_id, None, usize::MAX);
        for fault in struck.faults() {
            match fault {
                Fault::CorrelationId(shift) => correlation_id = correlation_id.wrapping_add(*shift),
                Fault::Length(claimed) => length = Some(*claimed),
                Fault::Truncate(bytes) => sent = *bytes,
                Fault::Count(count) => out.falsify_first_count(*count),
                Fault::Oversized(bytes) => out.pad(*bytes),
                _ => {}
            }
        }
        let body = out.into_bytes();
        let length = length.map_or_else(|| i32::try_from(body.len() + 4).map_err(|_| Closed), Ok)?;
        let mut frame = Vec::with_capacity(8 + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&correlation_id.to_be_bytes());
        frame.extend_from_slice(&body);
        let cut = frame.len() > sent;
        frame.truncate(sent);
        self.socket.write_all(&frame)?;
        if cut { Err(Closed) } else { Ok(()) }
    }
}
