//! The supervisor: starts every thread above the client, sees every one of them end, stops them in
//! order.
//!
//! Owns the channels' far ends and the signals. Invariants:
//! - a thread that panics or ends early is an event here; none is swallowed;
//! - the order at the end: consumers drain and commit, then the dispatcher and the lanes end by
//!   their channels; `stop` and `abort` are channels that are dropped, not messages;
//! - a consumer that panics or hangs is started again, with what it had in flight delivered again,
//!   while the others go on; bounded, then the process ends with code 70;
//! - it waits for nothing without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::admin::{Life, Sources};
use crate::client::{Client, Cluster, Connection, Remembered, kafka};
use crate::config::Config;
use crate::consumer::{Never, Notice, Report};
use crate::dispatch;
use crate::observe::sight::Sights;
use crate::observe::{self, Demand};
use crate::plan::{ConsumerPlan, Plan};
use crate::progress::{Beat, Board, Pulse};
use crate::record::TopicPartition;
use crate::sink::Sink;
use crate::state::{Ledger, State};
use crate::trouble::chorus;

mod consumers;
mod notify;
mod restarts;
mod signals;
mod start;
mod startup;
mod sums;
mod threads;
mod watch;

use consumers::{Common, Consumers, Verdict, absorb};
use notify::Notify;
pub use signals::{Signals, Stop, signals};
pub use start::StartError;
use startup::Startup;
use threads::{Exit, Role};
use watch::Watch;

/// The process ended as it was asked to.
pub const CLEAN: u8 = 0;
/// It could not do its work.
pub const FAILURE: u8 = 1;
/// Something inside broke that must not: the init system should start it again.
pub const INTERNAL: u8 = 70;

/// How long threads may take to end after the drain's deadline: a last commit, a last write.
const GRACE: Duration = Duration::from_secs(4);

/// A restart of a consumer counts against it for so long, and for as long as the watchdog needs to see
/// six times that one did not help.
const RESTARTS_COUNT_FOR: Duration = Duration::from_secs(600);

/// After a stop the process ends within this, whatever it is doing.
pub fn hard_deadline(config: &Config) -> Duration {
    config.drain_timeout + GRACE * 2
}

/// Makes the client of a consumer, given what earlier runs have read.
pub type MakeClient = dyn Fn(&ConsumerPlan, &[Remembered]) -> Box<dyn Client> + Send + Sync;

/// Where clients come from: one a consumer, made on its thread, and one that asks about the cluster.
#[derive(Clone)]
pub struct Library {
    /// Makes the client of a consumer, given what earlier runs have read.
    pub client: Arc<MakeClient>,
    /// Makes what the observer asks.
    pub cluster: Arc<dyn Fn() -> Box<dyn Cluster> + Send + Sync>,
}

impl Library {
    /// The clients over the crate `kafka`.
    pub fn kafka(connection: Connection) -> Self {
        let connection = Arc::new(connection);
        let own = Arc::clone(&connection);
        let client = move |plan: &ConsumerPlan, remembered: &[Remembered]| -> Box<dyn Client> {
            let topics = plan.settings.topics.iter().map(|(topic, _)| Arc::clone(topic)).collect();
            let (connection, fetch) = (Arc::clone(&own), Arc::new(plan.fetch.clone()));
            Box::new(kafka::KafkaClient::new(&plan.name, &plan.settings.group, topics, connection, fetch, remembered))
        };
        Self { client: Arc::new(client), cluster: Arc::new(move || kafka::cluster(Arc::clone(&connection))) }
    }
}

/// Runs until a signal or a failure ends it. `beside`: the state directory where none can be used that is
/// configured. Returns the exit code.
pub fn run(config: &Config, beside: &Path, signals: &Signals) -> u8 {
    run_with(config, beside, signals, Library::kafka(config.kafka.connection()))
}

/// The same over clients of another library.
pub fn run_with(config: &Config, beside: &Path, signals: &Signals, library: Library) -> u8 {
    for warning in &config.warnings {
        log::warn!("configuration: {warning}");
    }
    let plan = Plan::new(config);
    let state = match start::open_state(config, beside) {
        Ok(state) => state,
        Err(error) => {
            log::error!("cannot start error=\"{error}\"");
            return FAILURE;
        }
    };
    let sinks = match start::open_sinks(config, &plan) {
        Ok(sinks) => sinks,
        Err(error) => {
            log::error!("cannot start error=\"{error}\"");
            return FAILURE;
        }
    };
    let admin = match start::open_admin(config) {
        Ok(admin) => admin,
        Err(error) => {
            log::error!("cannot start error=\"{error}\"");
            return FAILURE;
        }
    };
    match Supervisor::start(config, &plan, state, sinks, admin, library) {
        Ok(supervisor) => supervisor.run(signals),
        Err(error) => {
            log::error!("cannot start error=\"{error}\"");
            FAILURE
        }
    }
}

/// The running threads and the channels that end them.
struct Supervisor {
    exits: Receiver<Exit>,
    notices: Receiver<Notice>,
    /// The watchdog's.
    demands: Receiver<Demand>,
    /// `None` while draining: nothing is started any more.
    consumers: Option<Consumers>,
    /// Held while runs drain: dropped, they would end without a last commit.
    draining: Vec<Sender<Never>>,
    /// Dropped: consumers drain.
    stop: Option<Sender<Never>>,
    /// Dropped: lanes give up retrying.
    abort: Option<Sender<Never>>,
    /// Dropped: nothing is committed any more.
    settled: Option<Sender<Never>>,
    reopen: Vec<Sender<()>>,
    /// Closed: the admin ends.
    admin: Option<UnixStream>,
    /// What the admin tells of the process.
    life: Arc<Life>,
    drain_timeout: Duration,
    /// What has not ended yet.
    running: BTreeSet<Role>,
    startup: Startup,
    watch: Watch,
    notify: Notify,
    /// The observer's.
    pulse: Arc<Pulse>,
    reports: BTreeMap<TopicPartition, Report>,
    code: u8,
    deadline: Option<Instant>,
}

impl Supervisor {
    fn run(mut self, signals: &Signals) -> u8 {
        let mut reopen = signals.reopen.clone();
        let mut asked = false;
        let looks = crossbeam_channel::tick(self.notify.interval().unwrap_or(watch::LOOK).min(watch::LOOK));
        // Whether brokers answer and topics exist is no part of the start: the worker waits for them.
        self.notify.ready();
        while !self.running.is_empty() {
            let due = self.consumers.as_ref().and_then(Consumers::due);
            let alarm = self.deadline.or(due).map_or_else(never, crossbeam_channel::at);
            select! {
                recv(reopen) -> asked => match asked {
                    Ok(()) => self.reopen(),
                    Err(_) => reopen = never(),
                },
                recv(signals.stop) -> stop => match stop {
                    Ok(Stop { name, .. }) if !asked => {
                        asked = true;
                        log::info!("stopping signal={name} drain_timeout_ms={}", self.drain_timeout.as_millis());
                        if self.deadline.is_none() {
                            self.drain();
                        }
                    }
                    Ok(Stop { name, number }) => {
                        log::warn!("stopping at once signal={name} meaning=\"what was not committed is delivered again\"");
                        return 128_u8.saturating_add(number);
                    }
                    // The signals' threads live as long as the process; without them only a failure ends it.
                    Err(_) => {
                        log::error!("signals are no longer received; stopping");
                        self.fail();
                    }
                },
                recv(self.exits) -> exit => match exit {
                    Ok(exit) => self.ended(exit),
                    Err(_) => return INTERNAL,
                },
                recv(self.notices) -> notice => match notice {
                    Ok(notice) => self.notice(notice),
                    Err(_) => self.notices = never(),
                },
                recv(self.demands) -> demand => match demand {
                    Ok(demand) => self.give_up(&demand),
                    Err(_) => self.demands = never(),
                },
                // Time alone may have made something worth a line, see below.
                recv(looks) -> _ => {}
                recv(alarm) -> _ => {
                    if self.deadline.is_none() {
                        self.start_due();
                        continue;
                    }
                    let names: Vec<String> = self.running.iter().map(ToString::to_string).collect();
                    log::warn!(
                        "threads did not end in time threads=\"{}\" meaning=\"what they hold is not committed, and delivered again\"",
                        names.join(", ")
                    );
                    break;
                }
            }
            let now = Instant::now();
            self.life.beat.now();
            self.watch.look(now);
            chorus::flush(now);
            if self.deadline.is_none()
                && let Some(line) = self.startup.line(now)
            {
                log::info!("{line}");
            }
            self.tell(now);
        }
        chorus::flush_all();
        sums::log(self.reports.values(), self.startup.not_started());
        log::info!("stopped exit_code={}", self.code);
        self.code
    }

    /// Tells systemd that this loop turns, and how things are.
    fn tell(&mut self, now: Instant) {
        let stopping = self.deadline.is_some();
        self.notify.alive(now, (!stopping).then(|| self.pulse.still(now)));
        if self.notify.is_wanted() && !stopping {
            self.notify.status(self.startup.status());
        }
    }

    fn drain(&mut self) {
        self.life.stop();
        self.notify.stopping(self.drain_timeout + GRACE * 2);
        self.stop = None;
        if let Some(consumers) = self.consumers.take() {
            (self.reports, self.draining) = consumers.into_drain();
        }
        self.deadline = Some(Instant::now() + self.drain_timeout + GRACE);
    }

    fn fail(&mut self) {
        self.code = self.code.max(INTERNAL);
        if self.deadline.is_none() {
            self.drain();
        }
    }

    fn ended(&mut self, exit: Exit) {
        let was_running = self.running.remove(&exit.role);
        let stopping = self.deadline.is_some();
        match exit.result {
            // The end of a run that was given up. Another one has its place.
            _ if !was_running => log::info!("an earlier run ended at last thread={}", exit.role),
            Err(panic) if self.restart(&exit.role, &format!("it panicked: {panic}")) => {}
            Err(panic) if exit.role == Role::Admin => {
                log::error!("thread panicked, the rest goes on thread=admin panic=\"{panic}\"");
            }
            Err(panic) => {
                log::error!("thread panicked, stopping thread={} panic=\"{panic}\"", exit.role);
                self.fail();
            }
            Ok(threads::End::Consumer(reports)) => {
                reports.into_iter().for_each(|report| absorb(&mut self.reports, report));
                if !stopping {
                    log::error!("consumer ended by itself, stopping thread={}", exit.role);
                    self.fail();
                }
            }
            Ok(threads::End::Dispatch(Err((failure, rest)))) => {
                let what = match failure {
                    dispatch::Failure::GateClosed { .. } => "gate stays closed",
                    dispatch::Failure::LaneGone { .. } => "dispatcher ended",
                };
                log::error!("{what}, stopping error=\"{failure}\"");
                self.code = self.code.max(FAILURE);
                if !stopping {
                    self.drain();
                }
                // Only now: the consumers count it as in flight, and do not read it again.
                drop(rest);
            }
            // Its queue was let go by the dispatcher, whose own end says why, and may be told a moment later.
            Ok(threads::End::Lane) => {}
            // The worker's work does not depend on it; why it ended, it has said.
            Ok(threads::End::Admin) => {}
            // It ends when it is to stop, which its end may tell before anything else does.
            Ok(threads::End::Observe) => {}
            Ok(threads::End::Dispatch(Ok(())) | threads::End::State) => {
                if !stopping {
                    log::error!("thread ended by itself, stopping thread={}", exit.role);
                    self.fail();
                }
            }
        }
        if self.deadline.is_some() && !self.running.iter().any(|role| matches!(role, Role::Consumer { .. })) {
            // Nobody is left who would hear of a delivery.
            self.abort = None;
            self.settled = None;
            // Up to here it can be asked how the stop goes.
            self.admin = None;
        }
    }

    /// The watchdog says that a consumer does not move.
    fn give_up(&mut self, demand: &Demand) {
        let current = |role: &&Role| matches!(role, Role::Consumer { index, run, .. } if (*index, *run) == (demand.consumer, demand.run));
        let Some(role) = self.running.iter().find(current).cloned() else { return };
        self.running.remove(&role);
        if !self.restart(&role, &demand.why) {
            log::error!("consumer stalled, stopping thread={role} reason=\"{}\"", demand.why);
            self.fail();
        }
    }

    /// Starts the consumer of `role` again, if it is one, and that has not been tried too often.
    fn restart(&mut self, role: &Role, why: &str) -> bool {
        let (Role::Consumer { index, run, .. }, Some(consumers)) = (role, &mut self.consumers) else { return false };
        if !consumers.is_current(*index, *run) {
            return false;
        }
        match consumers.failed(*index, Instant::now()) {
            Verdict::Again(wait) => {
                log::error!(
                    "consumer restarts thread={role} in_ms={} reason=\"{why}\" meaning=\"what it had in flight is delivered again; other topics go on\"",
                    wait.as_millis()
                );
                true
            }
            Verdict::TooOften(restarts, within) => {
                log::error!(
                    "restarts did not help thread={role} restarts={restarts} within_ms={} exit_code={INTERNAL} meaning=\"the process ends, for the init system to start it again\"",
                    within.as_millis()
                );
                false
            }
        }
    }

    fn start_due(&mut self) {
        let Some(consumers) = &mut self.consumers else { return };
        for index in consumers.all_due(Instant::now()) {
            match consumers.start(index) {
                Ok(role) => drop(self.running.insert(role)),
                Err(error) => {
                    log::error!("consumer can't be started again, stopping error=\"{error}\"");
                    return self.fail();
                }
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Started { topic, group } => {
                log::info!("consumer started topic={topic} group_id={group}");
                self.startup.started(topic);
            }
            Notice::Missing { topic } => self.startup.missing(topic),
            Notice::Waiting { topics, why } => self.startup.waiting(topics, why.as_deref()),
        }
        self.life.set_waiting(self.startup.starting().cloned().collect());
    }

    fn reopen(&mut self) {
        self.notify.reloading();
        log::info!("reopening files signal=SIGHUP");
        for lane in &self.reopen {
            // Full: a request is already waiting, and serves for this one too.
            let _ = lane.try_send(());
        }
        self.notify.ready();
    }

    /// Starts every thread of `plan`.
    fn start(
        config: &Config,
        plan: &Plan,
        (state, ledger): (State, Ledger),
        sinks: BTreeMap<String, Box<dyn Sink>>,
        admin: Option<TcpListener>,
        library: Library,
    ) -> Result<Self, StartError> {
        let threads = 4 + sinks.len() + plan.consumers.len();
        let (exits_tx, exits) = bounded(threads);
        let (notices_tx, notices) = bounded(256);
        let (stop, stop_rx) = bounded(0);
        let (abort, abort_rx) = bounded(0);
        let (demands_tx, demands) = bounded(plan.consumers.len());
        let (settled, settled_rx) = bounded(0);
        let ledger = Arc::new(ledger);
        let mut supervisor = Self {
            exits,
            notices,
            demands,
            consumers: None,
            draining: Vec::new(),
            stop: Some(stop),
            abort: Some(abort),
            settled: Some(settled),
            reopen: Vec::new(),
            admin: None,
            life: Arc::default(),
            drain_timeout: config.drain_timeout,
            running: BTreeSet::new(),
            startup: Startup::new(plan.routes.keys().cloned(), Instant::now()),
            watch: Watch::default(),
            notify: Notify::from_environment(),
            pulse: Arc::new(Pulse::new(Instant::now())),
            reports: BTreeMap::new(),
            code: CLEAN,
            deadline: None,
        };
        start::log_start(config, plan);
        let lanes = start::lanes(&mut supervisor, plan, sinks, &abort_rx, &exits_tx)?;
        let deliveries = start::dispatcher(&mut supervisor, config, plan, &lanes.queues, &exits_tx)?;
        start::state(&mut supervisor, state, &ledger, settled_rx, &exits_tx)?;
        let board = Arc::new(Board::new(plan.consumers.len()));
        let (sights, beat) = (Arc::<Sights>::default(), Arc::<Beat>::default());
        let sources = Sources {
            config: config.file.clone().unwrap_or_default(),
            started: (Instant::now(), SystemTime::now()),
            interval: config.observe_interval,
            plan: Arc::new(plan.clone()),
            board: Arc::clone(&board),
            lanes: lanes.progress.clone().into_iter().collect(),
            sights: Arc::clone(&sights),
            observer: Arc::clone(&beat),
            life: Arc::clone(&supervisor.life),
        };
        let observer = observe::Ends {
            stop: stop_rx.clone(),
            demands: demands_tx,
            board: Arc::clone(&board),
            pulse: Arc::clone(&supervisor.pulse),
            lanes: lanes.progress,
            sights,
            beat,
            cluster: Arc::clone(&library.cluster),
        };
        let window = RESTARTS_COUNT_FOR.max(config.watchdog.stall_timeout * 6);
        let common = Common {
            library,
            deliveries,
            stop: stop_rx,
            notices: notices_tx,
            ledger,
            exits: exits_tx.clone(),
            board,
            window,
        };
        start::consumers(&mut supervisor, plan, common)?;
        start::observer(&mut supervisor, config, plan, observer, &exits_tx)?;
        if let Some(listener) = admin {
            start::admin(&mut supervisor, listener, sources, &exits_tx)?;
        }
        Ok(supervisor)
    }
}
