//! Signals as messages.
//!
//! SIGINT comes through `ctrlc`, SIGTERM and SIGHUP through `signal-hook`: the former's
//! `termination` feature would take SIGHUP for a stop too.

use std::io;
use std::process;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End: finish what is in flight; at once, if it is the second one.
    Stop {
        /// `SIGTERM` or `SIGINT`
        name: &'static str,
        /// Its number, for the exit code.
        number: u8,
    },
    /// Open files anew.
    Reopen,
}

/// Receives SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
/// The system refuses to install a handler.
pub fn signals() -> io::Result<Receiver<Signal>> {
    let (tx, rx) = bounded(2);
    let ctrl_c = tx.clone();
    ctrlc::set_handler(move || tell(&ctrl_c, stop("SIGINT", SIGINT))).map_err(io::Error::other)?;
    let mut others = Signals::new([SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for number in &mut others {
            tell(&tx, if number == SIGTERM { stop("SIGTERM", SIGTERM) } else { Signal::Reopen });
        }
    })?;
    Ok(rx)
}

fn stop(name: &'static str, number: i32) -> Signal {
    Signal::Stop { name, number: u8::try_from(number).unwrap_or(0) }
}

fn tell(to: &Sender<Signal>, signal: Signal) {
    if let (Err(TrySendError::Full(_)), Signal::Stop { number, .. }) = (to.try_send(signal), signal) {
        // Nobody takes signals any more, for instance while a file is being opened on a dead network
        // disk; whoever sends more of them wants out.
        process::exit(128 + i32::from(number));
    }
}
