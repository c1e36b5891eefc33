//! Starts consumers, and starts them again.
//!
//! Owns what a consumer needs to run, and what is left of its earlier run. Invariants:
//! - each run has a number; whatever comes late from an earlier run is known by it, and means nothing;
//! - the threads of one consumer that still live are bounded, because its restarts are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::restarts::{MOST, Restarts};
use super::threads::{End, Exit, Role, spawn};
use super::{Library, StartError};
use crate::consumer::{self, Batch, Ends, Flight, Never, Notice, Report};
use crate::plan::ConsumerPlan;
use crate::progress::Board;
use crate::progress::counts::Counts;
use crate::record::TopicPartition;
use crate::state::Ledger;

/// What all consumers have in common.
pub(super) struct Common {
    pub(super) library: Library,
    pub(super) deliveries: Sender<Vec<Batch>>,
    pub(super) stop: Receiver<Never>,
    pub(super) notices: Sender<Notice>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) exits: Sender<Exit>,
    pub(super) board: Arc<Board>,
    /// For how long a restart counts.
    pub(super) window: Duration,
}

struct One {
    plan: Arc<ConsumerPlan>,
    run: u32,
    /// Dropped: the run is given up.
    retire: Option<Sender<Never>>,
    /// What the latest runs may have left in flight, the current one first.
    flights: VecDeque<Flight>,
    restarts: Restarts,
    /// Of all its runs.
    counts: Arc<Counts>,
    /// When the next run begins.
    due: Option<Instant>,
}

/// The consumers of the plan, in its order.
pub(super) struct Consumers {
    common: Common,
    all: Vec<One>,
    /// What earlier runs came to.
    past: BTreeMap<TopicPartition, Report>,
}

/// What follows from a consumer's failure.
pub(super) enum Verdict {
    /// It is started again after this.
    Again(Duration),
    /// It was started again too often: how often, within which time.
    TooOften(usize, Duration),
}

impl Consumers {
    pub(super) fn new(common: Common, plans: &[ConsumerPlan]) -> Self {
        let one = |plan: &ConsumerPlan| One {
            plan: Arc::new(plan.clone()),
            run: 0,
            retire: None,
            flights: VecDeque::new(),
            restarts: Restarts::new(common.window),
            counts: Arc::new(Counts::new(
                plan.settings.topics.iter().map(|(topic, _)| Arc::clone(topic)),
                Arc::clone(&plan.fetch.times),
            )),
            due: None,
        };
        let all = plans.iter().map(one).collect();
        Self { common, all, past: BTreeMap::new() }
    }

    /// Starts the next run of the consumer at this place; its thread's role.
    pub(super) fn start(&mut self, index: usize) -> Result<Role, StartError> {
        let one = &mut self.all[index];
        let (retire, retired) = bounded(0);
        let acks = bounded(one.plan.settings.batches);
        let progress = self.common.board.begin(index, one.run, &one.counts);
        let earlier: Vec<Flight> = one.flights.iter().cloned().collect();
        // An older one would have kept the later ones from beginning.
        one.flights.truncate(MOST + 1);
        one.flights.push_front(Flight { acks: acks.1.clone(), progress: Arc::clone(&progress) });
        let ends = Ends {
            deliveries: self.common.deliveries.clone(),
            stop: self.common.stop.clone(),
            retired,
            notices: self.common.notices.clone(),
            ledger: Arc::clone(&self.common.ledger),
            acks,
            progress,
        };
        one.retire = Some(retire);
        one.due = None;
        let role = Role::Consumer { name: one.plan.name.clone(), index, run: one.run };
        let (plan, make) = (Arc::clone(&one.plan), Arc::clone(&self.common.library.client));
        let body = move || {
            if !earlier.iter().all(|earlier| earlier.settle(&ends)) {
                return End::Consumer(Vec::new());
            }
            let mut client = make(&plan, &ends.ledger.of_group(&plan.settings.group));
            End::Consumer(consumer::run(plan.settings.clone(), &mut *client, &ends))
        };
        let name = role.to_string();
        spawn(role.clone(), &self.common.exits, body).map_err(|error| StartError::Thread { name, error })?;
        Ok(role)
    }

    /// Whether this is the run that counts.
    pub(super) fn is_current(&self, index: usize, run: u32) -> bool {
        self.all.get(index).is_some_and(|one| one.run == run && one.due.is_none())
    }

    /// The current run has failed, or is given up: it delivers and commits nothing from now on.
    pub(super) fn failed(&mut self, index: usize, now: Instant) -> Verdict {
        let one = &mut self.all[index];
        one.retire = None;
        if let Some(flight) = one.flights.front() {
            flight.progress.reports().into_iter().for_each(|report| absorb(&mut self.past, report));
        }
        match one.restarts.next(now) {
            Some(wait) => {
                one.run += 1;
                one.due = Some(now + wait);
                Verdict::Again(wait)
            }
            None => Verdict::TooOften(one.restarts.count(), one.restarts.window()),
        }
    }

    /// When the next restart is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.all.iter().filter_map(|one| one.due).min()
    }

    /// The consumers whose restart is due.
    pub(super) fn all_due(&self, now: Instant) -> Vec<usize> {
        let due = |one: &One| one.due.is_some_and(|at| at <= now);
        self.all.iter().enumerate().filter(|(_, one)| due(one)).map(|(index, _)| index).collect()
    }

    /// Nothing is started any more. What the earlier runs came to, and what keeps the present ones from
    /// being given up, to be held until they have ended.
    pub(super) fn into_drain(self) -> (BTreeMap<TopicPartition, Report>, Vec<Sender<Never>>) {
        (self.past, self.all.into_iter().filter_map(|one| one.retire).collect())
    }
}

/// Adds a run's report to those of the earlier runs of the same partition. What was in flight when a run
/// ended is delivered again by the next, which is the one that knows what is committed.
pub(super) fn absorb(past: &mut BTreeMap<TopicPartition, Report>, run: Report) {
    match past.get_mut(&run.partition) {
        None => drop(past.insert(run.partition.clone(), run)),
        Some(sum) => {
            sum.delivered += run.delivered;
            sum.expired += run.expired;
            sum.reset += run.reset;
            sum.in_flight = run.in_flight;
            sum.committed = run.committed.or(sum.committed);
        }
    }
}
