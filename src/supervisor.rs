//! The supervisor: starts every thread above the client, sees every one of them end, stops them in
//! order.
//!
//! Owns the channels' far ends and the signals. Invariants:
//! - a thread that panics or ends early is an event here; none is swallowed;
//! - the order at the end: consumers drain and commit, then the dispatcher and the lanes end by
//!   their channels; `stop` and `abort` are channels that are dropped, not messages;
//! - it waits for nothing without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::config::Config;
use crate::consumer::{self, Never, Notice, Report};
use crate::dispatch;
use crate::plan::Plan;
use crate::sink::Sink;
use crate::state::{Ledger, State};

mod signals;
mod start;
mod startup;
mod sums;
mod threads;
mod watch;

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

/// After a stop the process ends within this, whatever it is doing.
pub fn hard_deadline(config: &Config) -> Duration {
    config.drain_timeout + GRACE * 2
}

/// Runs until a signal or a failure ends it. `beside`: the state directory where none can be used that is
/// configured. Returns the exit code.
pub fn run(config: &Config, beside: &Path, signals: &Signals) -> u8 {
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
    match Supervisor::start(config, &plan, state, sinks) {
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
    /// Dropped: consumers drain.
    stop: Option<Sender<Never>>,
    /// Dropped: lanes give up retrying.
    abort: Option<Sender<Never>>,
    /// Dropped: nothing is committed any more.
    settled: Option<Sender<Never>>,
    reopen: Vec<Sender<()>>,
    drain_timeout: Duration,
    /// What has not ended yet.
    running: BTreeSet<Role>,
    startup: Startup,
    watch: Watch,
    reports: Vec<Report>,
    code: u8,
    deadline: Option<Instant>,
}

impl Supervisor {
    fn run(mut self, signals: &Signals) -> u8 {
        let mut reopen = signals.reopen.clone();
        let mut asked = false;
        let looks = crossbeam_channel::tick(watch::LOOK);
        while !self.running.is_empty() {
            let alarm = self.deadline.map_or_else(never, crossbeam_channel::at);
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
                // Time alone may have made something worth a line, see below.
                recv(looks) -> _ => {}
                recv(alarm) -> _ => {
                    let names: Vec<String> = self.running.iter().map(ToString::to_string).collect();
                    log::warn!(
                        "threads did not end in time threads=\"{}\" meaning=\"what they hold is not committed, and delivered again\"",
                        names.join(", ")
                    );
                    break;
                }
            }
            let now = Instant::now();
            self.watch.look(now);
            if self.deadline.is_none()
                && let Some(line) = self.startup.line(now)
            {
                log::info!("{line}");
            }
        }
        sums::log(&self.reports, self.startup.not_started());
        log::info!("stopped exit_code={}", self.code);
        self.code
    }

    fn drain(&mut self) {
        self.stop = None;
        self.deadline = Some(Instant::now() + self.drain_timeout + GRACE);
    }

    fn fail(&mut self) {
        self.code = self.code.max(INTERNAL);
        if self.deadline.is_none() {
            self.drain();
        }
    }

    fn ended(&mut self, exit: Exit) {
        self.running.remove(&exit.role);
        let stopping = self.deadline.is_some();
        match exit.result {
            Err(panic) => {
                log::error!("thread panicked, stopping thread={} panic=\"{panic}\"", exit.role);
                self.fail();
            }
            Ok(threads::End::Consumer(reports)) => {
                self.reports.extend(reports);
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
            Ok(threads::End::Dispatch(Ok(())) | threads::End::State) => {
                if !stopping {
                    log::error!("thread ended by itself, stopping thread={}", exit.role);
                    self.fail();
                }
            }
        }
        if !self.running.iter().any(|role| matches!(role, Role::Consumer(_))) {
            // Nobody is left who would hear of a delivery.
            self.abort = None;
            self.settled = None;
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
    }

    fn reopen(&self) {
        log::info!("reopening files signal=SIGHUP");
        for lane in &self.reopen {
            // Full: a request is already waiting, and serves for this one too.
            let _ = lane.try_send(());
        }
    }

    /// Starts every thread of `plan`.
    fn start(
        config: &Config,
        plan: &Plan,
        (state, ledger): (State, Ledger),
        sinks: BTreeMap<String, Box<dyn Sink>>,
    ) -> Result<Self, StartError> {
        let threads = 2 + sinks.len() + plan.consumers.len();
        let (exits_tx, exits) = bounded(threads);
        let (notices_tx, notices) = bounded(256);
        let (stop, stop_rx) = bounded(0);
        let (abort, abort_rx) = bounded(0);
        let (settled, settled_rx) = bounded(0);
        let ledger = Arc::new(ledger);
        let mut supervisor = Self {
            exits,
            notices,
            stop: Some(stop),
            abort: Some(abort),
            settled: Some(settled),
            reopen: Vec::new(),
            drain_timeout: config.drain_timeout,
            running: BTreeSet::new(),
            startup: Startup::new(plan.routes.keys().cloned(), Instant::now()),
            watch: Watch::default(),
            reports: Vec::new(),
            code: CLEAN,
            deadline: None,
        };
        start::log_start(config, plan);
        let lanes = start::lanes(&mut supervisor, plan, sinks, &abort_rx, &exits_tx)?;
        let deliveries = start::dispatcher(&mut supervisor, config, plan, &lanes, &exits_tx)?;
        start::state(&mut supervisor, state, &ledger, settled_rx, &exits_tx)?;
        let ends = consumer::Ends { deliveries, stop: stop_rx, notices: notices_tx, ledger };
        start::consumers(&mut supervisor, config, plan, &ends, &exits_tx)?;
        Ok(supervisor)
    }
}
