//! The lanes: which there are, and what the dispatcher is told of them.
//!
//! Owns the far ends of the lanes' channels and the dispatcher's `changes`. Invariants:
//! - a lane's queue has a place for every batch of every consumer that is, or was and still has something
//!   under way, or waits to be started, with a topic that goes to it;
//! - the dispatcher is told of a route before a consumer starts that needs it;
//! - a sink is opened only when no lane of its name is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::StartError;
use super::open::SinkLanes;
use super::threads::{End, Exit, Role, spawn};
use super::watch::Watch;
use crate::consumer::{Batch, Never};
use crate::dispatch::{Change, Order, Route};
use crate::failure::Failures;
use crate::lane;
use crate::progress::Board;
use crate::sink::{Brake, Sink};

/// So often may a queue be replaced before its lane has looked: each is twice as large as the one before, so
/// these are more than there is memory for.
const QUEUES: usize = 32;

/// Where batches may go, and how many there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    /// The sinks of each topic.
    pub(super) routes: BTreeMap<Arc<str>, Vec<String>>,
    /// The batches that may be under way to each sink.
    pub(super) needs: BTreeMap<String, usize>,
    /// The length of a poll round.
    pub(super) round: Duration,
}

struct Lane {
    /// Dropped: the lane ends when the dispatcher has let its queue go.
    queues: Option<Sender<Receiver<Vec<Batch>>>>,
    /// The places in its present queue.
    places: usize,
    reopen: Sender<()>,
    brake: Option<Brake>,
}

/// See the module's text.
pub(super) struct Lanes {
    stop: Receiver<Never>,
    abort: Receiver<Never>,
    failures: Arc<Failures>,
    exits: Sender<Exit>,
    board: Arc<Board>,
    changes: Sender<Change>,
    watch: Watch,
    /// By sink and number.
    all: BTreeMap<(String, usize), Lane>,
    /// How each sink's lanes share its records out.
    orders: BTreeMap<String, Order>,
    told: Routing,
}

/// Its name in the log and for the dispatcher.
fn lane_name(sink: &str, number: usize) -> String {
    if number == 0 { sink.to_owned() } else { format!("{sink}/{number}") }
}

impl Lanes {
    pub(super) fn new(
        (stop, abort): (Receiver<Never>, Receiver<Never>),
        exits: Sender<Exit>,
        board: Arc<Board>,
        changes: Sender<Change>,
    ) -> Self {
        let (watch, all, told) = (Watch::default(), BTreeMap::new(), Routing::default());
        let (failures, orders) = (Arc::default(), BTreeMap::new());
        Self { stop, abort, failures, exits, board, changes, watch, all, orders, told }
    }

    /// What becomes of what the sinks do not take.
    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Whether there are lanes of this sink that are not about to end.
    pub(super) fn has(&self, sink: &str) -> bool {
        self.all.iter().any(|((own, _), lane)| own == sink && lane.queues.is_some())
    }

    /// Whether a lane is about to end.
    pub(super) fn is_ending(&self) -> bool {
        self.all.values().any(|lane| lane.queues.is_none())
    }

    /// Starts the lanes of a sink. They have queues from the next [`route`](Self::route) on.
    pub(super) fn start(&mut self, sink: &str, lanes: SinkLanes) -> Result<Vec<Role>, StartError> {
        self.orders.insert(sink.to_owned(), lanes.order);
        let numbered = lanes.sinks.into_iter().enumerate();
        numbered.map(|(number, own)| self.start_one(sink, number, own)).collect()
    }

    fn start_one(&mut self, sink: &str, number: usize, mut own: Box<dyn Sink>) -> Result<Role, StartError> {
        let (queues_tx, queues) = bounded(QUEUES);
        let (reopen_tx, reopen) = bounded(1);
        let busy = Arc::new(lane::Busy::new(Instant::now()));
        let ends = lane::Ends {
            sink: Arc::from(sink),
            queues,
            stop: self.stop.clone(),
            abort: self.abort.clone(),
            longest: lane::LONGEST_DELIVERY,
            failures: Arc::clone(&self.failures),
            reopen,
            busy: Arc::clone(&busy),
            progress: self.board.add_lane(sink, number),
        };
        let brake = own.brake();
        let (role, name) = (Role::Lane(sink.to_owned(), number), lane_name(sink, number));
        let body = move || {
            lane::run(&name, &mut *own, &ends);
            End::Lane
        };
        let thread = role.to_string();
        spawn(role.clone(), &self.exits, body).map_err(|error| StartError::Thread { name: thread, error })?;
        self.watch.add(&lane_name(sink, number), busy);
        let lane = Lane { queues: Some(queues_tx), places: 0, reopen: reopen_tx, brake };
        self.all.insert((sink.to_owned(), number), lane);
        Ok(role)
    }

    /// Tells the dispatcher, if anything has changed. Lanes that are no longer needed end.
    pub(super) fn route(&mut self, routing: Routing) {
        if routing == self.told {
            return;
        }
        let (mut queues, mut lanes) = (Vec::new(), BTreeSet::new());
        for ((sink, number), lane) in &mut self.all {
            let Some(need) = routing.needs.get(sink) else {
                lane.queues = None;
                continue;
            };
            let name = lane_name(sink, *number);
            if lane.places < *need {
                lane.places = (*need).max(lane.places * 2);
                let (queue_tx, queue) = bounded(lane.places);
                // A lane that is gone is told by its end.
                let _ = lane.queues.as_ref().map(|queues| queues.try_send(queue));
                queues.push((name.clone(), queue_tx));
            }
            lanes.insert(name);
        }
        let route = |sink: &String| Route {
            lanes: self.all.keys().filter(|(own, _)| own == sink).map(|(_, number)| lane_name(sink, *number)).collect(),
            order: self.orders.get(sink).copied().unwrap_or_default(),
        };
        let routes = |(topic, sinks): (&Arc<str>, &Vec<String>)| (Arc::clone(topic), sinks.iter().map(route).collect());
        let routes = routing.routes.iter().map(routes).collect();
        // A dispatcher that is gone is told by its end. It takes what it is told at once.
        let _ = self.changes.send(Change { routes, queues, lanes, round: routing.round });
        self.told = routing;
    }

    /// A lane has ended.
    pub(super) fn ended(&mut self, sink: &str, number: usize) {
        self.all.remove(&(sink.to_owned(), number));
        self.board.remove_lane(sink, number);
        self.watch.remove(&lane_name(sink, number));
    }

    /// Asks every lane to open its files anew.
    pub(super) fn reopen(&self) {
        if let Err(why) = self.failures.reopen() {
            log::warn!("dead letters not reopened, going on with what is open error=\"{why}\"");
        }
        for lane in self.all.values() {
            // Full: a request is already waiting, and serves for this one too.
            let _ = lane.reopen.try_send(());
        }
    }

    /// Nobody waits for what is still with a sink: it is to come back.
    pub(super) fn brake(&self) {
        self.all.values().filter_map(|lane| lane.brake.as_ref()).for_each(|brake| brake());
    }

    /// Looks for lanes that stand still in their sinks.
    pub(super) fn look(&mut self, now: Instant) {
        self.watch.look(now);
    }

    /// The process ends: lanes end when the dispatcher has.
    pub(super) fn close(&mut self) {
        self.all.values_mut().for_each(|lane| lane.queues = None);
    }
}
