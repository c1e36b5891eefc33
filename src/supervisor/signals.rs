//! Signals as messages.
//!
//! SIGINT comes through `ctrlc`, SIGTERM and SIGHUP through `signal-hook`: the former's
//! `termination` feature would take SIGHUP for a stop too. Stops and requests to reopen have a channel
//! each, so that a storm of the one does not hide the other. What always holds: a second stop ends
//! the process, and a first one ends it after a hard deadline, even if nobody takes messages, for
//! instance because the log goes to a pipe that nobody reads.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals as Iterator;

use super::INTERNAL;

/// A stop that follows another within this is the same one: `timeout` and some shells send it to
/// the process and then to its group. Nobody presses Ctrl-C twice so fast.
const SAME_STOP: Duration = Duration::from_millis(200);
/// How long the supervisor has to end by itself after a second stop.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A request to end: finish what is in flight; at once, if it is the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// `SIGTERM` or `SIGINT`
    pub name: &'static str,
    /// Its number, for the exit code.
    pub number: u8,
}

/// What signals ask for.
pub struct Signals {
    /// At most two of them: the first and the second.
    pub stop: Receiver<Stop>,
    /// SIGHUP: open files anew, and read the configuration again.
    pub reopen: Receiver<()>,
}

/// Receives SIGINT, SIGTERM and SIGHUP from now on. `hard_deadline`: when the process ends after a
/// first stop, whatever it is doing.
///
/// # Errors
/// The system refuses to install a handler.
pub fn signals(hard_deadline: Duration) -> io::Result<Signals> {
    let (stop_tx, stop) = bounded(2);
    let (reopen_tx, reopen) = bounded(1);
    let first: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (ctrl_c_tx, ctrl_c_first) = (stop_tx.clone(), Arc::clone(&first));
    let ctrl_c = move || tell(&ctrl_c_tx, &ctrl_c_first, Stop { name: "SIGINT", number: 2 }, hard_deadline);
    debug_assert_eq!((SIGINT, SIGTERM), (2, 15));
    ctrlc::set_handler(ctrl_c).map_err(io::Error::other)?;
    // Its default action ends the process without a word; caught, the write that exceeds the limit of
    // file sizes fails, and the sink says so and tries again.
    flag::register(SIGXFSZ, Arc::default())?;
    let mut others = Iterator::new([SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for number in &mut others {
            if number == SIGTERM {
                tell(&stop_tx, &first, Stop { name: "SIGTERM", number: 15 }, hard_deadline);
            } else {
                // Full: a request is already waiting, and serves for this one too.
                let _ = reopen_tx.try_send(());
            }
        }
    })?;
    Ok(Signals { stop, reopen })
}

fn tell(to: &Sender<Stop>, first: &Mutex<Option<Instant>>, stop: Stop, hard_deadline: Duration) {
    let earlier = {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = *first;
        first.get_or_insert_with(Instant::now);
        earlier
    };
    match earlier {
        None => {
            let _ = to.try_send(stop);
            // Without this thread the stop is as good as the supervisor is.
            let _ =
                thread::Builder::new().name("deadline".to_owned()).spawn(move || exit_after(hard_deadline, INTERNAL));
        }
        Some(at) if at.elapsed() < SAME_STOP => {}
        Some(_) => {
            let _ = to.try_send(stop);
            exit_after(LAST_WORDS, 128 + stop.number);
        }
    }
}

/// Ends the process, unless it has ended by itself before; without exit handlers, as `main` does: all threads run.
fn exit_after(time: Duration, code: u8) {
    let _ = never::<()>().recv_timeout(time);
    crate::sink::exec::kill_left();
    signal_hook::low_level::exit(code.into());
}
