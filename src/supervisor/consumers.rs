//! Starts consumers, starts them again, and lets them leave.
//!
//! Owns what a consumer needs to run, and what is left of its earlier run. Invariants:
//! - a consumer has a number and each of its runs has one, which are never used again; whatever comes late
//!   from an earlier run is known by them, and means nothing;
//! - a consumer that is to leave keeps its share of the memory, its places in the queues and its topics until
//!   nothing of it is under way; one that needs any of these waits, see [`Consumers::ready`];
//! - the threads of one consumer that still live are bounded, because its restarts are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::lanes::Routing;
use super::restarts::{MOST, Restarts};
use super::threads::{End, Exit, Role, spawn};
use super::{GRACE, Library, StartError};
use crate::consumer::{self, Batch, Ends, Flight, Never, Notice, Report};
use crate::plan::{ConsumerPlan, Paused};
use crate::progress::counts::{Counts, Limits};
use crate::progress::{Board, Phase};
use crate::record::TopicPartition;
use crate::sample::Watched;
use crate::state::Ledger;

/// What all consumers have in common.
pub(super) struct Common {
    pub(super) library: Library,
    pub(super) deliveries: Sender<Vec<Batch>>,
    /// Dropped at the other end when the process is to end.
    pub(super) stop: Receiver<Never>,
    pub(super) notices: Sender<Notice>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) exits: Sender<Exit>,
    pub(super) board: Arc<Board>,
    /// For how long a restart counts.
    pub(super) window: Duration,
    /// All shares of those that hold one never exceed this.
    pub(super) memory: usize,
}

/// Where a consumer is between being added and being gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was never started.
    Waiting,
    Running,
    /// It drains. If it has not ended by then, it is given up.
    Leaving(Instant),
    /// It was given up; what it had handed over is still under way. `hangs`: its thread may still hold more.
    GivenUp {
        hangs: bool,
    },
}

struct One {
    plan: Arc<ConsumerPlan>,
    stage: Stage,
    run: u32,
    /// Dropped: the run drains.
    stop: Option<Sender<Never>>,
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

impl One {
    fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving(_) | Stage::GivenUp { .. })
    }

    /// How much memory it holds, or may take at any moment.
    fn holds(&self) -> usize {
        let share = self.plan.settings.bytes;
        match self.stage {
            Stage::Waiting => 0,
            Stage::Running | Stage::Leaving(_) | Stage::GivenUp { hangs: true } => share,
            // Its client is gone, so it can only become less.
            Stage::GivenUp { hangs: false } => {
                let held = self.flights.iter().map(|flight| flight.progress.held());
                held.sum::<Option<usize>>().map_or(share, |held| held.min(share))
            }
        }
    }
}

/// The consumers, by their numbers.
pub(super) struct Consumers {
    common: Common,
    all: BTreeMap<usize, One>,
    /// The numbers of the paused topics on the board.
    paused: Vec<(usize, Paused)>,
    next: usize,
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
    pub(super) fn new(common: Common) -> Self {
        Self { common, all: BTreeMap::new(), paused: Vec::new(), next: 0, past: BTreeMap::new() }
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    /// Another consumer, to be started when it can be.
    pub(super) fn add(&mut self, plan: &ConsumerPlan) {
        let index = self.number();
        let watched = Watched::new(plan);
        let limits = Limits { batches: plan.settings.batches, bytes: plan.settings.bytes };
        let counts = Arc::new(Counts::new(plan.sinks.keys().cloned(), Arc::clone(&plan.fetch.times), limits));
        self.common.board.add(index, watched, Phase::Settling, &counts);
        let one = One {
            plan: Arc::new(plan.clone()),
            stage: Stage::Waiting,
            run: 0,
            stop: None,
            retire: None,
            flights: VecDeque::new(),
            restarts: Restarts::new(self.common.window),
            counts,
            due: None,
        };
        self.all.insert(index, one);
    }

    /// These topics, and no others, are shown as paused.
    pub(super) fn show_paused(&mut self, paused: &[Paused]) {
        let board = Arc::clone(&self.common.board);
        self.paused.retain(|(index, shown)| {
            let stays = paused.contains(shown);
            if !stays {
                board.remove(*index);
            }
            stays
        });
        for new in paused {
            if !self.paused.iter().any(|(_, shown)| shown == new) {
                let index = self.number();
                board.add(index, Watched::paused(new), Phase::Paused, &Arc::default());
                self.paused.push((index, new.clone()));
            }
        }
    }

    /// The consumer of this name drains, alone. It is gone with the end of its thread.
    pub(super) fn leave(&mut self, name: &str, now: Instant) -> Result<Option<Role>, StartError> {
        let of_name = |(_, one): &(&usize, &mut One)| one.plan.name == name && !one.is_leaving();
        let Some((&index, one)) = self.all.iter_mut().find(of_name) else { return Ok(None) };
        self.common.board.remove(index);
        if one.stage == Stage::Waiting {
            self.all.remove(&index);
            return Ok(None);
        }
        one.stop = None;
        one.stage = Stage::Leaving(now + one.plan.settings.drain_timeout + GRACE);
        // Between two runs: there is nobody to drain, and something may be under way.
        if one.due.take().is_some() { self.settle(index) } else { Ok(None) }
    }

    /// The consumers that can be started now: nothing of a consumer with one of their topics is under way, so
    /// that no record comes twice or out of order; and there is memory for them beside those that hold some.
    pub(super) fn ready(&self) -> Vec<usize> {
        let mut held: usize = self.all.values().map(One::holds).sum();
        let mut ready = Vec::new();
        for (index, one) in self.all.iter().filter(|(_, one)| one.stage == Stage::Waiting) {
            let busy = |other: &One| other.is_leaving() && other.plan.shares_topic(&one.plan);
            let bytes = one.plan.settings.bytes;
            if held + bytes <= self.common.memory && !self.all.values().any(busy) {
                held += bytes;
                ready.push(*index);
            }
        }
        ready
    }

    /// Where batches may come from and go to.
    pub(super) fn routing(&self, round: Duration) -> Routing {
        let mut routing = Routing { round, ..Routing::default() };
        // Those that have something under way come last, and hold.
        let (holding, waiting): (Vec<&One>, _) = self.all.values().partition(|one| one.stage != Stage::Waiting);
        for one in waiting.into_iter().chain(holding) {
            for (topic, sinks) in &one.plan.sinks {
                routing.routes.insert(Arc::clone(topic), sinks.clone());
            }
            let mut sinks: Vec<&String> = one.plan.sinks.values().flatten().collect();
            sinks.sort_unstable();
            sinks.dedup();
            for sink in sinks {
                *routing.needs.entry(sink.clone()).or_default() += one.plan.settings.batches;
            }
        }
        routing
    }

    /// Starts the next run of a consumer; its thread's role.
    pub(super) fn start(&mut self, index: usize) -> Result<Option<Role>, StartError> {
        let Some(one) = self.all.get_mut(&index) else { return Ok(None) };
        let (stop_tx, stop) = bounded(0);
        let (retire, retired) = bounded(0);
        let acks = crate::ticket::channel(one.plan.settings.batches);
        let progress = self.common.board.begin(index, one.run, &one.counts);
        let earlier: Vec<Flight> = one.flights.iter().cloned().collect();
        let flight = Flight { acks: acks.1.acks.clone(), progress: Arc::clone(&progress) };
        // An older one would have kept the later ones from beginning.
        one.flights.truncate(MOST + 1);
        one.flights.push_front(flight.clone());
        let ends = Ends {
            deliveries: self.common.deliveries.clone(),
            stop,
            retired,
            notices: self.common.notices.clone(),
            ledger: Arc::clone(&self.common.ledger),
            acks,
            progress,
        };
        (one.stop, one.retire, one.due, one.stage) = (Some(stop_tx), Some(retire), None, Stage::Running);
        let role = Role::Consumer { name: one.plan.name.clone(), index, run: one.run };
        let (plan, make) = (Arc::clone(&one.plan), Arc::clone(&self.common.library.client));
        let process = self.common.stop.clone();
        let body = move || {
            let mut reports = Vec::new();
            if earlier.iter().all(|earlier| earlier.settle(&ends.progress, &ends.stop, &ends.retired)) {
                let mut client = make(&plan, &ends.ledger.of_group(&plan.settings.group));
                client.held().into_iter().for_each(|held| ends.progress.set_held(held));
                reports = consumer::run(plan.settings.clone(), &mut *client, &ends);
            }
            // Whoever takes its place begins only when nothing of it is under way. The end of the process
            // waits for nothing but the drain.
            let mut flights = earlier.iter().chain([&flight]);
            flights.all(|flight| flight.settle(&ends.progress, &process, &ends.retired));
            End::Consumer(reports)
        };
        spawn_as(&role, &self.common.exits, body)?;
        Ok(Some(role))
    }

    /// A thread that waits in the place of a run that can't until what the consumer left is done.
    fn settle(&mut self, index: usize) -> Result<Option<Role>, StartError> {
        let Some(one) = self.all.get_mut(&index) else { return Ok(None) };
        one.run += 1;
        one.stage = Stage::GivenUp { hangs: true };
        let role = Role::Consumer { name: one.plan.name.clone(), index, run: one.run };
        let (retire, retired) = bounded(0);
        one.retire = Some(retire);
        let (flights, process) = (one.flights.clone(), self.common.stop.clone());
        let progress = self.common.board.begin(index, one.run, &one.counts);
        let body = move || {
            flights.iter().all(|flight| flight.settle(&progress, &process, &retired));
            End::Consumer(Vec::new())
        };
        spawn_as(&role, &self.common.exits, body)?;
        Ok(Some(role))
    }

    /// Whether this is the run that counts.
    pub(super) fn is_current(&self, index: usize, run: u32) -> bool {
        self.all.get(&index).is_some_and(|one| one.run == run && one.due.is_none())
    }

    /// Whether it is to leave, or gone.
    pub(super) fn is_leaving(&self, index: usize) -> bool {
        self.all.get(&index).is_none_or(One::is_leaving)
    }

    /// The thread of a consumer that was to leave has ended, and nothing of it is under way.
    pub(super) fn left(&mut self, index: usize) {
        self.all.remove(&index);
    }

    /// The current run has failed, or is given up: it delivers and commits nothing from now on.
    pub(super) fn failed(&mut self, index: usize, now: Instant) -> Verdict {
        self.give_up_run(index);
        let Some(one) = self.all.get_mut(&index) else { return Verdict::TooOften(0, self.common.window) };
        match one.restarts.next(now) {
            Some(wait) => {
                one.run += 1;
                one.due = Some(now + wait);
                Verdict::Again(wait)
            }
            None => Verdict::TooOften(one.restarts.count(), one.restarts.window()),
        }
    }

    fn give_up_run(&mut self, index: usize) {
        let Some(one) = self.all.get_mut(&index) else { return };
        one.retire = None;
        let reports = one.flights.front().map(|flight| flight.progress.reports()).unwrap_or_default();
        reports.into_iter().for_each(|report| absorb(&mut self.past, report));
    }

    /// The current run of a consumer that was to leave has failed, or does not come back. Returns what waits
    /// in its place.
    pub(super) fn give_up(&mut self, index: usize) -> Result<Option<Role>, StartError> {
        self.give_up_run(index);
        self.settle(index)
    }

    /// Those whose drain has come to its end and that still have something under way, each with its role and
    /// whether its thread hangs: else it only waits for what it handed over.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(usize, Role, bool)> {
        let mut overdue = Vec::new();
        for (&index, one) in &mut self.all {
            let Stage::Leaving(deadline) = one.stage else { continue };
            let progress = one.flights.front().map(|flight| &flight.progress);
            let waits = progress.is_some_and(|progress| progress.phase().what == Phase::Settling);
            let drained = waits && one.flights.iter().any(|flight| flight.progress.batches() > 0);
            if drained || deadline <= now {
                one.stage = Stage::GivenUp { hangs: !waits };
                let role = Role::Consumer { name: one.plan.name.clone(), index, run: one.run };
                overdue.push((index, role, !waits));
            }
        }
        overdue
    }

    /// Whether a consumer drains, or can be started.
    pub(super) fn in_transition(&self) -> bool {
        self.all.values().any(|one| matches!(one.stage, Stage::Leaving(_))) || !self.ready().is_empty()
    }

    /// Whether none drains, and none waits.
    pub(super) fn are_settled(&self) -> bool {
        self.all.values().all(|one| !matches!(one.stage, Stage::Leaving(_) | Stage::Waiting))
    }

    /// Those that wait for one that was given up.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &ConsumerPlan> {
        self.all.values().filter(|one| one.stage == Stage::Waiting).map(|one| &*one.plan)
    }

    /// What a run came to.
    pub(super) fn absorb(&mut self, reports: Vec<Report>) {
        reports.into_iter().for_each(|report| absorb(&mut self.past, report));
    }

    /// When the next restart is due, or a drain has to be over.
    pub(super) fn due(&self) -> Option<Instant> {
        let leaving = |one: &One| if let Stage::Leaving(deadline) = one.stage { Some(deadline) } else { None };
        self.all.values().filter_map(|one| one.due.into_iter().chain(leaving(one)).min()).min()
    }

    /// The consumers whose restart is due.
    pub(super) fn all_due(&self, now: Instant) -> Vec<usize> {
        let due = |one: &One| one.due.is_some_and(|at| at <= now);
        self.all.iter().filter(|(_, one)| due(one)).map(|(index, _)| *index).collect()
    }

    /// Nothing is started any more, and all drain. What the earlier runs came to, and what keeps the present
    /// ones from being given up, to be held until they have ended.
    pub(super) fn into_drain(self) -> (BTreeMap<TopicPartition, Report>, Vec<Sender<Never>>) {
        (self.past, self.all.into_values().filter_map(|one| one.retire).collect())
    }
}

fn spawn_as(role: &Role, exits: &Sender<Exit>, body: impl FnOnce() -> End + Send + 'static) -> Result<(), StartError> {
    spawn(role.clone(), exits, body).map_err(|error| StartError::Thread { name: role.to_string(), error })
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

#[cfg(test)]
mod tests;
