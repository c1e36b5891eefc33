//! From a plan to running threads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Sender, bounded};

use super::consumers::{Common, Consumers};
use super::lanes::Lanes;
use super::notify::Notify;
use super::startup::Startup;
use super::threads::{End, Exit, Role, spawn};
use super::{CLEAN, Library, MakeCluster, RESTARTS_COUNT_FOR, Source, Supervisor};
use crate::admin::{self, Life};
use crate::config::discovery::Listing;
use crate::config::{Config, DeadLetter, Mode, SinkSettings, Spread};
#[cfg(feature = "librdkafka")]
use crate::dead_letter::LetterTopic;
use crate::dead_letter::{Destination, LetterFile};
use crate::dispatch::{self, Order, gate::Gate};
use crate::failure::Policy;
use crate::observe::sight::Sights;
use crate::observe::{self, Demand};
use crate::plan::Plan;
use crate::progress::{Board, Pulse};
use crate::sink::Sink;
use crate::sink::drop::DropSink;
use crate::sink::exec::{self, ExecSink};
use crate::sink::file::{FileSink, OpenError, Rotation};
use crate::sink::http::HttpSink;
use crate::sink::kafka;
use crate::sink::log::LogSink;
use crate::sink::stdout::StdoutSink;
use crate::state::{self, Ledger, State};

/// Batches that wait for the dispatcher, which never waits itself.
const DELIVERIES: usize = 256;
/// Events of one kind that wait for the supervisor. Who has another one waits, or goes without.
const EVENTS: usize = 256;
/// Below this share of the memory a consumer can't hold one record of Kafka's default maximum beside others.
const SMALL_SHARE: usize = 2 << 20;

/// Why the process can't start.
#[derive(Debug)]
pub enum StartError {
    /// A file sink.
    File {
        /// Its name in the configuration.
        sink: String,
        /// What is wrong.
        error: OpenError,
    },
    /// The file for dead letters.
    DeadLetter {
        /// What is wrong.
        error: OpenError,
    },
    /// The topic for dead letters.
    DeadLetterTopic {
        /// What is wrong.
        error: kafka::OpenError,
    },
    /// A stdout sink.
    Stdout {
        /// Its name in the configuration.
        sink: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The handler of an exec sink.
    Exec {
        /// Its name in the configuration.
        sink: String,
        /// What is wrong.
        error: exec::CommandError,
    },
    /// What an http sink reads from files.
    Http {
        /// Its name in the configuration.
        sink: String,
        /// What is wrong, with the key.
        why: String,
    },
    /// A kafka sink.
    Kafka {
        /// Its name in the configuration.
        sink: String,
        /// What is wrong.
        error: kafka::OpenError,
    },
    /// A sink of the program that has the worker inside.
    Own {
        /// Its name.
        sink: String,
        /// What it says.
        error: String,
    },
    /// The state directory.
    State {
        /// What is wrong.
        error: state::OpenError,
    },
    /// Where metrics and status are served.
    Admin {
        /// What is wrong.
        error: admin::BindError,
    },
    /// A thread.
    Thread {
        /// Its name.
        name: String,
        /// The system's reason.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { sink, error } => write!(f, "[sink.{sink}]: {error}"),
            Self::DeadLetter { error } => write!(f, "[dead_letter]: {error}"),
            Self::DeadLetterTopic { error } => write!(f, "[dead_letter]: {error}"),
            Self::Stdout { sink, error } => write!(f, "[sink.{sink}]: standard output can't be used: {error}"),
            Self::Exec { sink, error } => write!(f, "[sink.{sink}]: {error}"),
            Self::Http { sink, why } => write!(f, "[sink.{sink}]: {why}"),
            Self::Kafka { sink, error } => write!(f, "[sink.{sink}]: {error}"),
            Self::Own { sink, error } => write!(f, "sink {sink}: {error}"),
            Self::State { error } => {
                write!(f, "{error}; the state directory holds what was committed, see [state] dir")
            }
            Self::Admin { error } => write!(f, "{error}"),
            Self::Thread { name, error } => write!(
                f,
                "thread {name} can't be started: {error}; raise the limit of processes (ulimit -u, TasksMax; every topic \
                 needs some four threads), or of open files (ulimit -n, LimitNOFILE)"
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// A sink that is open: one for each of its lanes.
pub(super) struct SinkLanes {
    pub(super) sinks: Vec<Box<dyn Sink>>,
    pub(super) order: Order,
}

/// Sinks that are open, by name.
pub(super) type Sinks = BTreeMap<String, SinkLanes>;

/// Opens the sinks of these names.
pub(super) fn open_sinks<'a>(config: &Config, names: impl Iterator<Item = &'a String>) -> Result<Sinks, StartError> {
    let mut all = Sinks::new();
    for name in names {
        let Some(settings) = config.sinks.get(name) else { continue };
        let Spread { lanes, order } = config.spreads.get(name).copied().unwrap_or_default();
        let sinks = (0..lanes).map(|lane| open_sink(name, settings, lane)).collect::<Result<_, _>>()?;
        all.insert(name.clone(), SinkLanes { sinks, order });
    }
    Ok(all)
}

/// Opens one lane's sink.
///
/// # Errors
/// It can't be opened; the text has its name.
pub(crate) fn open_sink(name: &str, settings: &SinkSettings, lane: usize) -> Result<Box<dyn Sink>, StartError> {
    Ok(match settings {
        SinkSettings::Drop => Box::new(DropSink::new()),
        SinkSettings::Log { level, max_value_bytes } => Box::new(LogSink::new(*level, *max_value_bytes)),
        SinkSettings::Stdout { format } => {
            let wrong = |error| StartError::Stdout { sink: name.to_owned(), error };
            Box::new(StdoutSink::stdout(*format).map_err(wrong)?)
        }
        SinkSettings::File { path, format, rotate_size, rotate_keep } => {
            let keep = rotate_keep.and_then(NonZeroUsize::new);
            let rotation = rotate_size.and_then(NonZeroU64::new).map(|size| Rotation { size, keep });
            let file = FileSink::open(path, *format, rotation);
            Box::new(file.map_err(|error| StartError::File { sink: name.to_owned(), error })?)
        }
        SinkSettings::Exec(settings) => {
            let wrong = |error| StartError::Exec { sink: name.to_owned(), error };
            Box::new(ExecSink::open(name, settings.clone()).map_err(wrong)?)
        }
        SinkSettings::Http(settings) => {
            let wrong = |why| StartError::Http { sink: name.to_owned(), why };
            Box::new(HttpSink::open(name, *settings.clone()).map_err(wrong)?)
        }
        SinkSettings::Kafka(settings) => {
            kafka::open(name, settings).map_err(|error| StartError::Kafka { sink: name.to_owned(), error })?
        }
        SinkSettings::Own(own) => own.open(lane).map_err(|error| StartError::Own { sink: name.to_owned(), error })?,
    })
}

/// Opens the place for dead letters, if there is to be one.
pub(super) fn open_letters(config: &Config) -> Result<Option<Destination>, StartError> {
    Ok(match &config.dead_letter {
        None => None,
        Some(DeadLetter::File(path)) => {
            let file = LetterFile::open(path).map_err(|error| StartError::DeadLetter { error })?;
            Some(Destination::File(file))
        }
        Some(DeadLetter::Topic(settings)) => {
            kafka::probe(settings).map_err(|error| StartError::DeadLetterTopic { error })?;
            #[cfg(feature = "librdkafka")]
            let topic = Some(Destination::Topic(Box::new(LetterTopic::new(settings))));
            #[cfg(not(feature = "librdkafka"))]
            let topic = None;
            topic
        }
    })
}

/// The policy of each topic.
pub(super) fn policies(config: &Config) -> impl Iterator<Item = (Arc<str>, Policy)> {
    config.topics.iter().map(|topic| (Arc::clone(&topic.name), topic.failure))
}

/// Opens the state directory: the one that is configured, and if that can't be used the one beside the
/// configuration's file, `beside`, which is also the one where none is configured.
pub(super) fn open_state(config: &Config, beside: &Path) -> Result<(State, Ledger), StartError> {
    let wrong = |error| StartError::State { error };
    let Some(dir) = &config.state_dir else { return State::open(beside).map_err(wrong) };
    match State::open(dir) {
        Err(error @ state::OpenError::Io { .. }) => {
            log::warn!(
                "state directory can't be used, using another dir={} error=\"{error}\" meaning=\"the offsets there may be \
                 older, and its lock does not hold off a worker that uses the configured one\" action=\"make state.dir \
                 writable for this user\"",
                beside.display()
            );
            State::open(beside).map_err(wrong)
        }
        other => other.map_err(wrong),
    }
}

/// Takes the port of the admin, if there is to be one.
fn open_admin(config: &Config) -> Result<Option<TcpListener>, StartError> {
    config.admin.map(|address| admin::bind(address).map_err(|error| StartError::Admin { error })).transpose()
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
