//! The supervisor: starts every thread above the client, sees every one of them end, stops them in
//! order.
//!
//! Owns the channels' far ends and the signals, and what holds of the configuration. Invariants:
//! - a thread that panics or ends early is an event here; none is swallowed;
//! - the order at the end: consumers drain and commit, then the dispatcher and the lanes end by
//!   their channels; `stop` and `abort` are channels that are dropped, not messages;
//! - a consumer that panics or hangs is started again, with what it had in flight delivered again,
//!   while the others go on; bounded, then the process ends with code 70;
//! - it waits for nothing without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};

use crate::admin::Life;
use crate::config::Config;
use crate::config::discovery::Listing;
use crate::consumer::{Never, Notice, Report};
use crate::dispatch;
use crate::observe::Demand;
use crate::plan::Plan;
use crate::progress::Pulse;
use crate::record::TopicPartition;
use crate::trouble::chorus;

mod consumers;
mod found;
mod lanes;
mod library;
mod limits;
mod notify;
mod open;
mod reload;
mod restarts;
mod signals;
mod start;
mod startup;
mod sums;
mod threads;
mod watch;

use consumers::{Consumers, Verdict, absorb};
use lanes::Lanes;
pub use library::{Library, MakeClient, MakeCluster, Source};
use notify::Notify;
pub use open::StartError;
pub(crate) use open::open_sink;
pub use signals::{Signals, Stop, signals};
use startup::Startup;
use threads::{Exit, Role};

/// The process ended as it was asked to.
pub const CLEAN: u8 = 0;
/// It could not do its work.
pub const FAILURE: u8 = 1;
/// Something inside broke that must not: the init system should start it again.
pub const INTERNAL: u8 = 70;

/// How long threads may take to end after the drain's deadline: a last commit, a last write.
const GRACE: Duration = Duration::from_secs(4);

/// So long after a lane's sink was asked to come back it is asked with more force.
const BRAKE_AGAIN: Duration = Duration::from_secs(1);

/// A restart of a consumer counts against it for so long, and for as long as the watchdog needs to see
/// six times that one did not help.
const RESTARTS_COUNT_FOR: Duration = Duration::from_secs(600);

/// After a stop the process ends within this, whatever it is doing.
pub fn hard_deadline(config: &Config) -> Duration {
    config.drain_timeout + GRACE * 2
}

/// Runs until a signal or a failure ends it. `beside`: the state directory where none can be used that is
/// configured; `source`: what SIGHUP takes the configuration from. Returns the exit code.
pub fn run(config: Config, beside: &Path, signals: &Signals, source: Source) -> u8 {
    run_with(config, beside, signals, source, Library::real())
}

/// The same over clients of another library.
pub fn run_with(config: Config, beside: &Path, signals: &Signals, source: Source, library: Library) -> u8 {
    for warning in &config.warnings {
        log::warn!("configuration: {warning}");
    }
    match Supervisor::start(config, beside, source, library) {
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
    lanes: Lanes,
    /// Dropped: the observer ends.
    observer: Option<Sender<Never>>,
    observers: start::Observers,
    /// Closed: the admin ends.
    admin: Option<UnixStream>,
    /// What the admin tells of the process.
    life: Arc<Life>,
    /// Dropped: nothing is waited for but the drain.
    stop: Option<Sender<Never>>,
    /// Dropped: lanes give up retrying.
    abort: Option<Sender<Never>>,
    /// Dropped: nothing is committed any more.
    settled: Option<Sender<Never>>,
    /// What holds.
    config: Config,
    plan: Plan,
    source: Source,
    /// Since when a reload is under way.
    reloading: Option<Instant>,
    /// It waits for a lane to end.
    reload_again: bool,
    /// So does what the newest list of topics comes to.
    find_again: bool,
    /// Dropped: the discoverer ends.
    discoverer: Option<Sender<Never>>,
    /// How many there were.
    discoverers: u32,
    listed_tx: Sender<BTreeSet<Arc<str>>>,
    /// The discoverer's.
    listed: Receiver<BTreeSet<Arc<str>>>,
    /// The cluster's topics, while there are patterns.
    listing: Listing,
    /// What has not ended yet.
    running: BTreeSet<Role>,
    startup: Startup,
    notify: Notify,
    /// The observer's.
    pulse: Arc<Pulse>,
    reports: BTreeMap<TopicPartition, Report>,
    code: u8,
    deadline: Option<Instant>,
    /// When what is still with the sinks is to come back, at the end of the drain.
    brake_at: Option<Instant>,
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
            let alarm = self.brake_at.or(self.deadline).or(due).map_or_else(never, crossbeam_channel::at);
            select! {
                recv(reopen) -> asked => match asked {
                    Ok(()) => self.hangup(),
                    Err(_) => reopen = never(),
                },
                recv(signals.stop) -> stop => match stop {
                    Ok(Stop { name, .. }) if !asked => {
                        asked = true;
                        log::info!("stopping signal={name} drain_timeout_ms={}", self.config.drain_timeout.as_millis());
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
                recv(self.listed) -> names => match names {
                    Ok(names) => self.listed(names),
                    Err(_) => self.listed = never(),
                },
                // Time alone may have made something worth a line, see below.
                recv(looks) -> _ => {}
                recv(alarm) -> _ => {
                    let Some(deadline) = self.deadline else {
                        self.start_due();
                        self.look_after_leavers();
                        continue;
                    };
                    if self.brake_at.take().is_some() {
                        self.lanes.brake();
                        self.brake_at = Some(Instant::now() + BRAKE_AGAIN).filter(|at| *at < deadline);
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
            self.life.pulse.beat(now);
            let list = self.startup.is_unlisted().then(|| Arc::from("the topics of topics_regex"));
            self.life.set_waiting(list.into_iter().chain(self.startup.starting().cloned()).collect());
            self.lanes.look(now);
            self.look_after_leavers();
            chorus::flush(now);
            if self.deadline.is_none()
                && let Some(line) = self.startup.line(now)
            {
                log::info!("{line}");
            }
            self.tell(now);
        }
        chorus::flush_all();
        let not_started = self.startup.not_started().map(|topic| (topic, "not-started"));
        let paused = self.plan.paused.iter().map(|paused| (&paused.topic, "paused"));
        sums::log(self.reports.values(), not_started.chain(paused));
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
        self.notify.stopping(hard_deadline(&self.config));
        self.stop = None;
        self.observer = None;
        self.discoverer = None;
        self.lanes.close();
        if let Some(consumers) = self.consumers.take() {
            (self.reports, self.draining) = consumers.into_drain();
        }
        self.deadline = Some(Instant::now() + self.config.drain_timeout + GRACE);
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
                if !self.left(&exit.role, reports) {
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
            Ok(threads::End::Lane) => {
                if let Role::Lane(sink, number) = &exit.role {
                    self.lanes.ended(sink, *number);
                }
                if self.reload_again {
                    self.reload();
                    self.lanes.reopen();
                }
                if self.find_again {
                    self.find();
                }
            }
            // The worker's work does not depend on it; why it ended, it has said.
            Ok(threads::End::Admin) => {}
            // It ends when it is to stop, or another one takes its place.
            Ok(threads::End::Observe | threads::End::Discover) => {}
            Ok(threads::End::Dispatch(Ok(())) | threads::End::State) => {
                if !stopping {
                    log::error!("thread ended by itself, stopping thread={}", exit.role);
                    self.fail();
                }
            }
        }
        if self.deadline.is_some() && !self.running.iter().any(|role| matches!(role, Role::Consumer { .. })) {
            // Nobody is left who would hear of a delivery.
            if self.abort.take().is_some() {
                // What was given to a sink has the drain's time all the same: an answer that comes now will come again,
                // but a handler that is killed in the middle of its work is worse than that.
                let drained = self.deadline.and_then(|deadline| deadline.checked_sub(GRACE));
                self.brake_at = drained.map(|at| at.max(Instant::now()));
            }
            self.settled = None;
            // Up to here it can be asked how the stop goes.
            self.admin = None;
        }
    }

    /// A consumer's thread has ended with these reports: whether it was to.
    fn left(&mut self, role: &Role, reports: Vec<Report>) -> bool {
        let (Some(consumers), Role::Consumer { index, .. }) = (&mut self.consumers, role) else {
            reports.into_iter().for_each(|report| absorb(&mut self.reports, report));
            return true;
        };
        consumers.absorb(reports);
        let left = consumers.is_leaving(*index);
        if left {
            consumers.left(*index);
            self.advance();
        }
        left
    }

    /// The watchdog says that a consumer does not move.
    fn give_up(&mut self, demand: &Demand) {
        let current = |role: &&Role| matches!(role, Role::Consumer { index, run, .. } if (*index, *run) == (demand.consumer, demand.run));
        let Some(role) = self.running.iter().find(current).cloned() else { return };
        if self.consumers.as_ref().is_none_or(|consumers| consumers.is_leaving(demand.consumer)) {
            return;
        }
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
        if consumers.is_leaving(*index) {
            log::error!(
                "consumer failed while it drained thread={role} reason=\"{why}\" meaning=\"what it had in flight is delivered again to whoever reads its topics next\""
            );
            return match consumers.give_up(*index) {
                Ok(role) => {
                    self.running.extend(role);
                    true
                }
                Err(_) => false,
            };
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
                Ok(role) => self.running.extend(role),
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
    }
}
