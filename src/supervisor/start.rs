//! From a plan to running threads.
//!
//! Owns the order of a start: everything is opened first (see [`open`](super::open)), then threads are spawned. What always
//! holds: what can't be opened ends the start before any thread runs, and each thread is known to the supervisor by its role.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Sender, bounded};

use super::consumers::{Common, Consumers};
use super::lanes::Lanes;
use super::notify::Notify;
use super::open::{StartError, open_admin, open_letters, open_sinks, open_state};
use super::startup::Startup;
use super::threads::{End, Exit, Role, spawn};
use super::{CLEAN, Library, MakeCluster, RESTARTS_COUNT_FOR, Source, Supervisor};
use crate::admin::{self, Life};
use crate::config::discovery::Listing;
use crate::config::{Config, Mode};
use crate::dispatch::{self, gate::Gate};
use crate::failure::Policy;
use crate::observe::sight::Sights;
use crate::observe::{self, Demand};
use crate::plan::Plan;
use crate::progress::{Board, Pulse};

/// Batches that wait for the dispatcher, which never waits itself.
const DELIVERIES: usize = 256;
/// Events of one kind that wait for the supervisor. Who has another one waits, or goes without.
const EVENTS: usize = 256;
/// Below this share of the memory a consumer can't hold one record of Kafka's default maximum beside others.
const SMALL_SHARE: usize = 2 << 20;

/// The policy of each topic.
pub(super) fn policies(config: &Config) -> impl Iterator<Item = (Arc<str>, Policy)> {
    config.topics.iter().map(|topic| (Arc::clone(&topic.name), topic.failure))
}

pub(super) fn log_start(config: &Config, plan: &Plan) {
    let mode = match config.mode {
        Mode::Multi => "multi",
        Mode::Single => "single",
    };
    log::info!(
        "worker starting version={} topics={} mode={mode} bootstrap_servers={} memory_limit={}",
        env!("CARGO_PKG_VERSION"),
        config.topics.len() - plan.paused.len(),
        config.kafka.bootstrap_servers.join(","),
        config.memory_limit
    );
    if !plan.paused.is_empty() {
        let names: Vec<&str> = plan.paused.iter().map(|paused| &*paused.topic).collect();
        log::info!("topics paused topics={} meaning=\"not read; their groups keep their offsets\"", names.join(","));
    }
    if let Some(share) = plan.consumers.first().map(|c| c.settings.bytes).filter(|share| *share < SMALL_SHARE) {
        log::warn!(
            "little memory a consumer share={share} consumers={} meaning=\"larger batches are fetched one at a time, with the reserve; raise memory.limit\"",
            plan.consumers.len()
        );
    }
}

/// What the observer's runs have in common.
pub(super) struct Observers {
    demands: Sender<Demand>,
    board: Arc<Board>,
    cluster: Arc<MakeCluster>,
    exits: Sender<Exit>,
    runs: u32,
    /// What all of them have seen.
    sights: Arc<Sights>,
}

impl Observers {
    /// Makes what is asked about the cluster.
    pub(super) fn cluster(&self) -> Arc<MakeCluster> {
        Arc::clone(&self.cluster)
    }

    /// Where threads tell their end.
    pub(super) fn exits(&self) -> Sender<Exit> {
        self.exits.clone()
    }
}

impl Supervisor {
    /// Starts every thread that `config` asks for.
    pub(super) fn start(config: Config, beside: &Path, source: Source, library: Library) -> Result<Self, StartError> {
        let plan = Plan::new(&config);
        let (state, ledger) = open_state(&config, beside)?;
        let mut sinks = open_sinks(
            &config,
            config.possible_topics().flat_map(|topic| &topic.sinks).collect::<BTreeSet<_>>().into_iter(),
        )?;
        // Those of topics that may be found later could be opened, which is all that there is to know now.
        sinks.retain(|name, _| plan.used().contains(name));
        let letters = open_letters(&config)?;
        let admin = open_admin(&config)?;
        let (exits_tx, exits) = bounded(EVENTS);
        let (notices_tx, notices) = bounded(EVENTS);
        let (demands_tx, demands) = bounded(EVENTS);
        let (stop, stop_rx) = bounded(0);
        let (abort, abort_rx) = bounded(0);
        let (settled, settled_rx) = bounded(0);
        let (deliveries_tx, deliveries) = bounded(DELIVERIES);
        let (changes_tx, changes) = bounded(1);
        let (listed_tx, listed) = bounded(1);
        let (ledger, board) = (Arc::new(ledger), Arc::new(Board::default()));
        let observers = Observers {
            demands: demands_tx,
            board: Arc::clone(&board),
            cluster: Arc::clone(&library.cluster),
            exits: exits_tx.clone(),
            runs: 0,
            sights: Arc::default(),
        };
        let mut consumers = Consumers::new(Common {
            library,
            deliveries: deliveries_tx,
            stop: stop_rx.clone(),
            notices: notices_tx,
            ledger: Arc::clone(&ledger),
            exits: exits_tx.clone(),
            board: Arc::clone(&board),
            window: RESTARTS_COUNT_FOR.max(config.watchdog.stall_timeout * 6),
            memory: plan.memory,
        });
        log_start(&config, &plan);
        super::limits::raise_open_files(plan.consumers.len());
        plan.consumers.iter().for_each(|consumer| consumers.add(consumer));
        consumers.show_paused(&plan.paused);
        let gate = config.gate.as_ref().map(|gate| {
            let required = gate.required_topics.iter().cloned();
            Gate::new(required, gate.max_attempts, gate.timeout, gate.on_timeout, Instant::now())
        });
        let mut supervisor = Self {
            exits,
            notices,
            demands,
            consumers: Some(consumers),
            draining: Vec::new(),
            lanes: Lanes::new((stop_rx, abort_rx), exits_tx.clone(), board, changes_tx),
            observer: None,
            observers,
            admin: None,
            life: Arc::new(Life::new(Instant::now())),
            notify: Notify::from_environment(),
            pulse: Arc::new(Pulse::new(Instant::now())),
            stop: Some(stop),
            abort: Some(abort),
            settled: Some(settled),
            startup: Startup::new(plan.routes().map(|(topic, _)| Arc::clone(topic)), Instant::now()),
            config,
            plan,
            source,
            reloading: None,
            reload_again: false,
            find_again: false,
            discoverer: None,
            discoverers: 0,
            listed_tx,
            listed,
            listing: Listing::default(),
            running: BTreeSet::new(),
            reports: BTreeMap::new(),
            code: CLEAN,
            deadline: None,
            brake_at: None,
        };
        supervisor.lanes.failures().set_policies(policies(&supervisor.config));
        supervisor.lanes.failures().set_letters(letters);
        for (name, sink) in sinks {
            supervisor.running.extend(supervisor.lanes.start(&name, sink)?);
        }
        let mut rest = dispatch::Rest { deliveries, gate };
        supervisor.spawn(Role::Dispatch, &exits_tx, move || {
            let result = dispatch::run(&mut rest, changes);
            End::Dispatch(result.map_err(|failure| (failure, rest)))
        })?;
        supervisor.spawn(Role::State, &exits_tx, move || {
            state.keep(&ledger, &settled_rx);
            End::State
        })?;
        supervisor.start_ready()?;
        supervisor.observe(observe::Settings::new(&supervisor.config))?;
        supervisor.discover()?;
        if let Some(listener) = admin {
            supervisor.admin(listener)?;
        }
        Ok(supervisor)
    }

    /// Starts the thread that serves metrics and status. It ends when `self.admin` is closed.
    fn admin(&mut self, listener: TcpListener) -> Result<(), StartError> {
        let failed = |error| StartError::Thread { name: Role::Admin.to_string(), error };
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        log::info!("admin listens address={address} paths=\"/ /status /metrics /healthz /readyz\"");
        self.admin = Some(stop);
        let sources = admin::Sources {
            config: self.config.file.clone().unwrap_or_default(),
            started: (Instant::now(), SystemTime::now()),
            board: Arc::clone(&self.observers.board),
            sights: Arc::clone(&self.observers.sights),
            observer: Arc::clone(&self.pulse),
            life: Arc::clone(&self.life),
        };
        let exits = self.observers.exits.clone();
        self.spawn(Role::Admin, &exits, move || {
            admin::run(&listener, &stopped, sources);
            End::Admin
        })
    }

    /// Starts the observer with these settings; one that runs ends.
    pub(super) fn observe(&mut self, settings: observe::Settings) -> Result<(), StartError> {
        let (stop, stop_rx) = bounded(0);
        self.observer = Some(stop);
        let observers = &mut self.observers;
        observers.runs += 1;
        let (make, kafka) = (Arc::clone(&observers.cluster), settings.kafka.clone());
        let ends = observe::Ends {
            stop: stop_rx,
            demands: observers.demands.clone(),
            board: Arc::clone(&observers.board),
            sights: Arc::clone(&observers.sights),
            pulse: Arc::clone(&self.pulse),
            cluster: Arc::new(move || make(&kafka)),
        };
        let (role, exits) = (Role::Observe(observers.runs), observers.exits.clone());
        self.spawn(role, &exits, move || {
            observe::run(&settings, ends);
            End::Observe
        })
    }

    pub(super) fn spawn(
        &mut self,
        role: Role,
        exits: &Sender<Exit>,
        body: impl FnOnce() -> End + Send + 'static,
    ) -> Result<(), StartError> {
        let name = role.to_string();
        spawn(role.clone(), exits, body).map_err(|error| StartError::Thread { name, error })?;
        self.running.insert(role);
        Ok(())
    }
}
