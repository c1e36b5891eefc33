//! The dispatcher: which record goes to which lane.
//!
//! Owns the routes, the gate, and the statistics of the poll rounds. Touches no sink and no client.
//! Invariant: it blocks on nothing but its own input. A lane's queue holds the budgets of all
//! topics that are routed to it, so a send to a lane finds room.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::consumer::Batch;

pub mod gate;
mod rounds;

use gate::{Gate, OnTimeout, State};
use rounds::Rounds;

/// Where each topic's records go.
pub type Routes = HashMap<Arc<str>, Sender<Vec<Batch>>>;

/// Why the dispatcher ended before its input did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The gate's time is over, and its setting is to exit.
    GateClosed {
        /// The required topics that had no record.
        missing: Vec<Arc<str>>,
        /// How long was waited.
        waited: Duration,
    },
    /// A lane's queue is closed: its thread is gone.
    LaneGone {
        /// A topic that is routed to it.
        topic: Arc<str>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GateClosed { missing, waited } => write!(
                f,
                "no record of {} within {} ms; see [gate] required_topics, max_attempts, \
                 timeout_ms, or set on_timeout to proceed",
                missing.join(", "),
                waited.as_millis()
            ),
            Self::LaneGone { topic } => write!(f, "the lane that takes topic {topic} is gone"),
        }
    }
}

impl std::error::Error for Failure {}

/// The dispatcher's end of the deliveries, and what it held back. Dropping it gives those batches up,
/// and whoever waits for them hears of it: so it is kept until the consumers know that they are to end.
#[derive(Debug)]
pub struct Rest {
    /// What the consumers have handed over.
    pub deliveries: Receiver<Vec<Batch>>,
    /// The gate, while it holds.
    pub gate: Option<Gate>,
}

/// Hands batches over, in groups of one topic, until every sender of the deliveries is gone. `round` is the
/// length of a poll round, for the statistics at DEBUG.
///
/// # Errors
/// See [`Failure`].
pub fn run(Rest { deliveries, gate }: &mut Rest, routes: &Routes, round: Duration) -> Result<(), Failure> {
    let mut rounds = Rounds::new(routes.keys(), round, Instant::now());
    loop {
        let counting = log::log_enabled!(log::Level::Debug);
        let alarms = [gate.as_ref().map(Gate::wake), counting.then(|| rounds.end())];
        let received = match alarms.into_iter().flatten().min() {
            Some(at) => deliveries.recv_deadline(at),
            None => deliveries.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let now = Instant::now();
        match received {
            Ok(batches) => {
                if counting {
                    batches.iter().for_each(|batch| rounds.count(&batch.partition.topic, batch.records.len()));
                }
                match gate {
                    Some(gate) => gate.hold(batches),
                    None => send(routes, batches)?,
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if let Some(closed) = gate {
            let state = closed.state(now);
            if let State::Expired { missing, waited } = &state
                && closed.on_timeout() == OnTimeout::Exit
            {
                return Err(Failure::GateClosed { missing: missing.clone(), waited: *waited });
            }
            if state != State::Closed
                && let Some(open) = gate.take()
            {
                open.into_held().into_iter().try_for_each(|batches| send(routes, batches))?;
            }
        }
        if counting && let Some(line) = rounds.line(now) {
            log::debug!("{line}");
        }
    }
}

fn send(routes: &Routes, batches: Vec<Batch>) -> Result<(), Failure> {
    let Some(topic) = batches.first().map(|first| Arc::clone(&first.partition.topic)) else { return Ok(()) };
    match routes.get(&topic).map(|lane| lane.send(batches)) {
        Some(Ok(())) => Ok(()),
        // A topic without a route can't be: the plan makes a route for each topic it consumes.
        Some(Err(_)) | None => Err(Failure::LaneGone { topic }),
    }
}
