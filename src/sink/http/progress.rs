//! What is known of the request under way, and why there is no answer to it, in words.
//!
//! The sink and the connection share it. What always holds: it is whole at any moment, and no more than [`FIRST`] bytes
//! of an answer are in it.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::{Mask, shown};
use super::connection::INTERIM_MAX;

/// Of an answer's beginning, for the log; and what is kept of it, as what is to be hidden in it has to be whole.
const FIRST_SHOWN: usize = 60;
pub(super) const FIRST: usize = 4 << 10;

/// What is known of the request under way; the sink and the connection share it.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) until: Instant,
    /// A connection was opened for it.
    pub(super) opened: bool,
    /// There is one, and TLS is agreed upon.
    pub(super) connected: bool,
    /// It was sent as a whole.
    pub(super) sent: bool,
    /// The connection has brought something that no request had asked for.
    pub(super) unasked: bool,
    /// It was closed with something that had come and was not understood.
    pub(super) left: bool,
    /// How many bytes of an answer have come, and how they begin.
    pub(super) received: u64,
    pub(super) first: Vec<u8>,
    /// What went wrong with the connection.
    pub(super) trouble: Option<Fault>,
}

/// What went wrong with a connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is none.
    Unreachable(io::Error),
    /// The time is up.
    Late,
    /// The server has closed it.
    Ended,
    /// No TLS, or its session ended with an alert; in words.
    Tls(String),
    /// The server has sent something before it was asked.
    Unasked,
    /// The server sends interim answers without end.
    Interim,
    /// The server has announced a body of an interim answer: where the answer begins, nobody can say.
    InterimBody,
    /// The head of the answer is too large.
    Head,
    /// The worker stops, and waits no longer.
    Stopping,
    /// Anything else that the system reports.
    Io(io::Error),
}

#[derive(Clone, Debug)]
pub(super) struct Shared {
    progress: Arc<Mutex<Progress>>,
    brake: Brake,
}

/// Ends the request under way from another thread, when nobody waits for its answer any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Brake(Arc<Mutex<Braked>>);

#[derive(Debug, Default)]
struct Braked {
    is_pressed: bool,
    /// The newest connection.
    socket: Option<TcpStream>,
}

impl Brake {
    fn get(&self) -> MutexGuard<'_, Braked> {
        // It is whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is sent, and what waits for an answer gets none.
    pub(super) fn press(&self) {
        let mut braked = self.get();
        braked.is_pressed = true;
        if let Some(socket) = braked.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.get().is_pressed
    }

    /// A connection was opened.
    ///
    /// # Errors
    /// It is not wanted any more.
    pub(super) fn enter(&self, socket: &TcpStream) -> Result<(), Fault> {
        let mut braked = self.get();
        if braked.is_pressed {
            return Err(Fault::Stopping);
        }
        braked.socket = socket.try_clone().ok();
        Ok(())
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { progress: Arc::new(Mutex::new(Progress::until(Instant::now()))), brake: Brake::default() }
    }

    pub(super) fn brake(&self) -> &Brake {
        &self.brake
    }

    /// A request begins.
    pub(super) fn begin(&self, until: Instant) {
        *self.get() = Progress::until(until);
    }

    pub(super) fn get(&self) -> MutexGuard<'_, Progress> {
        // It is whole at any moment.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the crate is told; what it was, stays here.
    pub(super) fn fail(&self, fault: Fault) -> ureq::Error {
        self.get().trouble = Some(fault);
        ureq::Error::ConnectionFailed
    }
}

impl Progress {
    fn until(until: Instant) -> Self {
        Self {
            until,
            opened: false,
            connected: false,
            sent: false,
            unasked: false,
            left: false,
            received: 0,
            first: Vec::new(),
            trouble: None,
        }
    }

    /// What went wrong, in words. `crate_says`: in those of the crate, where the connection knows of nothing.
    pub(super) fn explain(&self, timeout: Duration, crate_says: &str, mask: &Mask) -> String {
        let ms = timeout.as_millis();
        match &self.trouble {
            Some(Fault::Unreachable(error)) => format!("no connection: {error}"),
            Some(Fault::Late) if self.received > 0 => {
                format!("its answer was not whole within timeout_ms={ms} ({} bytes came)", self.received)
            }
            Some(Fault::Late) if self.sent => format!("no answer within timeout_ms={ms}"),
            Some(Fault::Late) if self.opened && !self.connected => {
                format!("no TLS handshake within timeout_ms={ms}")
            }
            Some(Fault::Late) => format!("it did not take the request within timeout_ms={ms}"),
            Some(Fault::Ended) if self.received > 0 => {
                format!("it closed the connection before its answer was whole ({} bytes came)", self.received)
            }
            Some(Fault::Ended) => "it closed the connection without an answer".to_owned(),
            Some(Fault::Tls(why)) => format!("no TLS connection: {why}"),
            Some(Fault::Unasked) => "it sent something before it was asked, and was not asked any more".to_owned(),
            Some(Fault::Interim) => format!("it sent more than {INTERIM_MAX} interim answers (1xx) and no answer"),
            Some(Fault::InterimBody) => "it sent an interim answer (1xx) with a body, which must have none".to_owned(),
            Some(Fault::Stopping) => "the worker stops".to_owned(),
            Some(Fault::Head) => "the head of its answer is too large".to_owned(),
            Some(Fault::Io(error)) => format!("the connection broke: {error}"),
            None if self.first.is_empty() => crate_says.to_owned(),
            None => {
                let first = shown(&mask.hide(&self.first), FIRST_SHOWN);
                format!("its answer is none in HTTP/1.1: {crate_says}; it begins with {first}")
            }
        }
    }
}
