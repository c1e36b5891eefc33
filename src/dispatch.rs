//! The dispatcher: which record goes to which lane.
//!
//! Owns the routes, the gate, and the statistics of the poll rounds. Touches no sink and no client.
//! Invariant: it blocks on nothing but its own input. A lane's queue holds the budgets of all
//! topics that are routed to it, so a send to a lane finds room: of each batch, or group of batches, a lane gets one part. Routes change by messages: one that
//! was sent before a batch holds for that batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};

use crate::consumer::Batch;

pub mod gate;
mod rounds;
mod spread;

use gate::{Gate, OnTimeout, State};
use rounds::Rounds;

/// What is to hold from now on.
#[derive(Debug, Default)]
pub struct Change {
    /// Where each topic goes that may still come.
    pub routes: BTreeMap<Arc<str>, Vec<Route>>,
    /// Queues of lanes that are new, or take the place of a smaller one: what is in that one stays there,
    /// and its lane takes it first.
    pub queues: Vec<(String, Sender<Vec<Batch>>)>,
    /// The lanes that are still wanted; the queues of all others are let go, which ends them.
    pub lanes: BTreeSet<String>,
    /// The length of a poll round, for the statistics at DEBUG.
    pub round: Duration,
}

/// What stays in its order when a sink has several lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The records of a partition: they go to one lane.
    #[default]
    Partition,
    /// The records with the same key: they go to one lane, whatever their partition. Those of a partition that have no
    /// key go to one lane.
    Key,
}

/// One of the sinks that a topic's records go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The lanes of its sink.
    pub lanes: Vec<String>,
    /// How they are shared out among these.
    pub order: Order,
}

/// The open ends of a route.
struct Target {
    lanes: Vec<Sender<Vec<Batch>>>,
    order: Order,
}

/// Where each topic's records go.
#[derive(Default)]
struct Routes {
    lanes: HashMap<String, Sender<Vec<Batch>>>,
    topics: HashMap<Arc<str>, Vec<Target>>,
}

impl Routes {
    fn change(&mut self, change: Change) {
        self.lanes.extend(change.queues);
        self.lanes.retain(|name, _| change.lanes.contains(name));
        let target = |Route { lanes, order }: Route| {
            let lanes: Option<Vec<_>> = lanes.iter().map(|lane| self.lanes.get(lane).cloned()).collect();
            Some(Target { lanes: lanes?, order })
        };
        // A topic has all its sinks, or no route.
        let of = |(topic, routes): (Arc<str>, Vec<Route>)| {
            Some((topic, routes.into_iter().map(target).collect::<Option<_>>()?))
        };
        self.topics = change.routes.into_iter().filter_map(of).collect();
    }
}

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

/// Hands batches over, in groups of one topic, until every sender of the deliveries is gone. The first of the
/// `changes` has to come before any batch.
///
/// # Errors
/// See [`Failure`].
pub fn run(Rest { deliveries, gate }: &mut Rest, mut changes: Receiver<Change>) -> Result<(), Failure> {
    let mut routes = Routes::default();
    let mut rounds = Rounds::new(Instant::now());
    loop {
        let counting = log::log_enabled!(log::Level::Debug);
        let alarms = [gate.as_ref().map(Gate::wake), counting.then(|| rounds.end())];
        let alarm = alarms.into_iter().flatten().min().map_or_else(never, crossbeam_channel::at);
        let mut received = None;
        select! {
            recv(deliveries) -> batches => match batches {
                Ok(batches) => received = Some(batches),
                Err(_) => return Ok(()),
            },
            recv(changes) -> change => match change {
                Ok(change) => take(change, &mut routes, &mut rounds, gate.as_mut()),
                // Nothing will change any more.
                Err(_) => changes = never(),
            },
            recv(alarm) -> _ => {}
        }
        // What was to change before these batches were sent holds for them, in whatever order the two
        // channels were looked at.
        while let Ok(change) = changes.try_recv() {
            take(change, &mut routes, &mut rounds, gate.as_mut());
        }
        if let Some(batches) = received {
            if counting {
                batches.iter().for_each(|batch| rounds.count(&batch.partition.topic, batch.records.len()));
            }
            match gate {
                Some(gate) => gate.hold(batches),
                None => send(&routes, batches)?,
            }
        }
        let now = Instant::now();
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
                open.into_held().into_iter().try_for_each(|batches| send(&routes, batches))?;
            }
        }
        if counting && let Some(line) = rounds.line(now) {
            log::debug!("{line}");
        }
    }
}

fn take(change: Change, routes: &mut Routes, rounds: &mut Rounds, gate: Option<&mut Gate>) {
    rounds.follow(change.routes.keys(), change.round);
    if let Some(gate) = gate {
        gate.wait_only_for(|topic| change.routes.contains_key(topic));
    }
    routes.change(change);
}

/// The same batches for another sink: each is done when all its sinks are.
fn share(batches: &[Batch]) -> Vec<Batch> {
    let share = |batch: &Batch| Batch {
        partition: batch.partition.clone(),
        records: batch.records.clone(),
        ticket: batch.ticket.share(),
    };
    batches.iter().map(share).collect()
}

fn send(routes: &Routes, batches: Vec<Batch>) -> Result<(), Failure> {
    let Some(topic) = batches.first().map(|first| Arc::clone(&first.partition.topic)) else { return Ok(()) };
    match routes.topics.get(&topic) {
        Some(targets) => {
            let (last, others) = targets.split_last().unzip();
            let shares = others.into_iter().flatten().map(|target| (target, share(&batches))).collect::<Vec<_>>();
            for (target, batches) in shares.into_iter().chain(last.map(|last| (last, batches))) {
                let parts = spread::spread(batches, target.lanes.len(), target.order);
                let mut parts = target.lanes.iter().zip(parts).filter(|(_, part)| !part.is_empty());
                let sent = parts.try_for_each(|(lane, part)| lane.send(part));
                sent.map_err(|_| Failure::LaneGone { topic: Arc::clone(&topic) })?;
            }
            Ok(())
        }
        // Its route is told before its consumer starts, and is kept until nothing of it is under way. Only a
        // run that hung, was given up and moves again in this moment can still bring some.
        None => {
            log::warn!(
                "records of a consumer that was given up came late, left out topic={topic} meaning=\"they are not committed, and delivered again to whoever reads the topic next\""
            );
            Ok(())
        }
    }
}
