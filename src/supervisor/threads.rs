//! Threads with a name, whose end is always told.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam_channel::Sender;

use crate::consumer::Report;
use crate::dispatch;

/// What a thread is for. Its `Display` is the thread's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A run of the consumer of this number.
    Consumer {
        name: String,
        index: usize,
        run: u32,
    },
    /// With the number of its run.
    Observe(u32),
    /// With the number of its run.
    Discover(u32),
    Dispatch,
    /// The lane of a sink, by its number.
    Lane(String, usize),
    State,
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer { name, .. } => write!(f, "consumer:{name}"),
            Self::Observe(_) => f.write_str("observe"),
            Self::Discover(_) => f.write_str("discover"),
            Self::Dispatch => f.write_str("dispatch"),
            Self::State => f.write_str("state"),
            Self::Admin => f.write_str("admin"),
            Self::Lane(name, number) => write!(f, "sink:{name}/{number}"),
        }
    }
}

/// How a thread ended that did not panic.
pub(super) enum End {
    Consumer(Vec<Report>),
    /// A failure comes with what was not handed over.
    Dispatch(Result<(), (dispatch::Failure, dispatch::Rest)>),
    Lane,
    Observe,
    Discover,
    State,
    Admin,
}

/// The end of a thread.
pub(super) struct Exit {
    pub(super) role: Role,
    /// `Err`: it panicked, with these words.
    pub(super) result: Result<End, String>,
}

/// Starts a thread; its end goes to `exits`, whatever way it ends.
pub(super) fn spawn(role: Role, exits: &Sender<Exit>, body: impl FnOnce() -> End + Send + 'static) -> io::Result<()> {
    let exits = exits.clone();
    thread::Builder::new().name(role.to_string()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(body)).map_err(|panic| crate::client::link::panic_text(&*panic));
        // A supervisor that is gone needs no word.
        let _ = exits.send(Exit { role, result });
    })?;
    Ok(())
}
