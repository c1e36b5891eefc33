//! From a plan to running threads.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Supervisor;
use super::consumers::{Common, Consumers};
use super::threads::{End, Exit, Role, spawn};
use crate::admin;
use crate::config::{Config, Mode, SinkSettings};
use crate::consumer::{Batch, Never};
use crate::dispatch::{self, gate::Gate};
use crate::lane;
use crate::observe;
use crate::plan::Plan;
use crate::progress::LaneProgress;
use crate::sink::Sink;
use crate::sink::drop::DropSink;
use crate::sink::file::{FileSink, OpenError, Rotation};
use crate::sink::log::LogSink;
use crate::sink::stdout::StdoutSink;
use crate::state::{self, Ledger, State};

/// Batches that wait for the dispatcher, which never waits itself.
const DELIVERIES: usize = 256;
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
    /// A stdout sink.
    Stdout {
        /// Its name in the configuration.
        sink: String,
        /// The system's reason.
        error: io::Error,
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
            Self::Stdout { sink, error } => write!(f, "[sink.{sink}]: standard output can't be used: {error}"),
            Self::State { error } => {
                write!(f, "{error}; the state directory holds what was committed, see [state] dir")
            }
            Self::Admin { error } => write!(f, "{error}"),
            Self::Thread { name, error } => write!(
                f,
                "thread {name} can't be started: {error}; raise the limit of processes (ulimit -u, TasksMax), \
                 every topic needs some four threads"
            ),
        }
    }
}

impl std::error::Error for StartError {}

/// Opens every sink that a topic uses.
pub(super) fn open_sinks(config: &Config, plan: &Plan) -> Result<BTreeMap<String, Box<dyn Sink>>, StartError> {
    let used = |name: &&String| plan.routes.values().any(|sink| sink == *name);
    let mut sinks: BTreeMap<String, Box<dyn Sink>> = BTreeMap::new();
    for name in config.sinks.keys().filter(used) {
        let sink: Box<dyn Sink> = match &config.sinks[name] {
            SinkSettings::Drop => Box::new(DropSink::new()),
            SinkSettings::Log { level, max_value_bytes } => Box::new(LogSink::new(*level, *max_value_bytes)),
            SinkSettings::Stdout { format } => {
                Box::new(StdoutSink::stdout(*format).map_err(|error| StartError::Stdout { sink: name.clone(), error })?)
            }
            SinkSettings::File { path, format, rotate_size, rotate_keep } => {
                let keep = rotate_keep.and_then(NonZeroUsize::new);
                let rotation = rotate_size.and_then(NonZeroU64::new).map(|size| Rotation { size, keep });
                let file = FileSink::open(path, *format, rotation);
                Box::new(file.map_err(|error| StartError::File { sink: name.clone(), error })?)
            }
        };
        sinks.insert(name.clone(), sink);
    }
    Ok(sinks)
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

/// The thread that writes the state. It goes on until `stop` is dropped.
pub(super) fn state(
    supervisor: &mut Supervisor,
    state: State,
    ledger: &Arc<Ledger>,
    stop: Receiver<Never>,
    exits: &Sender<Exit>,
) -> Result<(), StartError> {
    let ledger = Arc::clone(ledger);
    start(supervisor, Role::State, exits, move || {
        state.keep(&ledger, &stop);
        End::State
    })
}

/// Takes the port of the admin, if there is to be one.
pub(super) fn open_admin(config: &Config) -> Result<Option<TcpListener>, StartError> {
    config.admin.map(|address| admin::bind(address).map_err(|error| StartError::Admin { error })).transpose()
}

/// The thread that serves metrics and status. It ends when the end of `supervisor.admin` is closed.
pub(super) fn admin(
    supervisor: &mut Supervisor,
    listener: TcpListener,
    sources: admin::Sources,
    exits: &Sender<Exit>,
) -> Result<(), StartError> {
    let failed = |error| StartError::Thread { name: Role::Admin.to_string(), error };
    let (stop, stopped) = UnixStream::pair().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    log::info!("admin listens address={address} paths=\"/ /status /metrics /healthz /readyz\"");
    supervisor.admin = Some(stop);
    start(supervisor, Role::Admin, exits, move || {
        admin::run(&listener, &stopped, sources);
        End::Admin
    })
}

pub(super) fn log_start(config: &Config, plan: &Plan) {
    let mode = match config.mode {
        Mode::Multi => "multi",
        Mode::Single => "single",
    };
    log::info!(
        "worker starting version={} topics={} mode={mode} bootstrap_servers={} memory_limit={}",
        env!("CARGO_PKG_VERSION"),
        config.topics.len(),
        config.kafka.bootstrap_servers.join(","),
        config.memory_limit
    );
    if let Some(share) = plan.consumers.first().map(|c| c.settings.bytes).filter(|share| *share < SMALL_SHARE) {
        log::warn!(
            "little memory a consumer share={share} consumers={} meaning=\"larger batches are fetched one at a time, with the reserve; raise memory.limit\"",
            plan.consumers.len()
        );
    }
}

/// The running lanes, by the names of their sinks.
pub(super) struct Lanes {
    pub(super) queues: HashMap<String, Sender<Vec<Batch>>>,
    pub(super) progress: HashMap<String, Arc<LaneProgress>>,
}

pub(super) fn lanes(
    supervisor: &mut Supervisor,
    plan: &Plan,
    sinks: BTreeMap<String, Box<dyn Sink>>,
    abort: &Receiver<Never>,
    exits: &Sender<Exit>,
) -> Result<Lanes, StartError> {
    let mut lanes = Lanes { queues: HashMap::new(), progress: HashMap::new() };
    for (name, mut sink) in sinks {
        let (queue_tx, queue) = bounded(plan.queue(&name));
        let (reopen_tx, reopen) = bounded(1);
        let progress = Arc::new(LaneProgress::default());
        let busy = Arc::new(lane::Busy::new(Instant::now()));
        supervisor.watch.add(&name, Arc::clone(&busy));
        let ends = lane::Ends { queue, abort: abort.clone(), reopen, busy, progress: Arc::clone(&progress) };
        let own_name = name.clone();
        start(supervisor, Role::Lane(name.clone()), exits, move || {
            lane::run(&own_name, &mut *sink, &ends);
            End::Lane
        })?;
        supervisor.reopen.push(reopen_tx);
        lanes.queues.insert(name.clone(), queue_tx);
        lanes.progress.insert(name, progress);
    }
    Ok(lanes)
}

pub(super) fn dispatcher(
    supervisor: &mut Supervisor,
    config: &Config,
    plan: &Plan,
    lanes: &HashMap<String, Sender<Vec<Batch>>>,
    exits: &Sender<Exit>,
) -> Result<Sender<Vec<Batch>>, StartError> {
    let lane_of = |(topic, sink): (&Arc<str>, &String)| Some((Arc::clone(topic), lanes.get(sink)?.clone()));
    let routes: dispatch::Routes = plan.routes.iter().filter_map(lane_of).collect();
    let gate = config.gate.as_ref().map(|gate| {
        let required = gate.required_topics.iter().cloned();
        Gate::new(required, gate.max_attempts, gate.timeout, gate.on_timeout, Instant::now())
    });
    let round = config.topics.iter().map(|topic| topic.timeout).min().unwrap_or(Duration::from_secs(1));
    let (deliveries_tx, deliveries) = bounded(DELIVERIES);
    let mut rest = dispatch::Rest { deliveries, gate };
    start(supervisor, Role::Dispatch, exits, move || {
        let result = dispatch::run(&mut rest, &routes, round);
        End::Dispatch(result.map_err(|failure| (failure, rest)))
    })?;
    Ok(deliveries_tx)
}

pub(super) fn consumers(supervisor: &mut Supervisor, plan: &Plan, common: Common) -> Result<(), StartError> {
    let consumers = supervisor.consumers.insert(Consumers::new(common, &plan.consumers));
    for index in 0..plan.consumers.len() {
        supervisor.running.insert(consumers.start(index)?);
    }
    Ok(())
}

pub(super) fn observer(
    supervisor: &mut Supervisor,
    config: &Config,
    plan: &Plan,
    ends: observe::Ends,
    exits: &Sender<Exit>,
) -> Result<(), StartError> {
    let settings = observe::Settings::new(config, plan);
    start(supervisor, Role::Observe, exits, move || {
        observe::run(&settings, ends);
        End::Observe
    })
}

fn start(
    supervisor: &mut Supervisor,
    role: Role,
    exits: &Sender<Exit>,
    body: impl FnOnce() -> End + Send + 'static,
) -> Result<(), StartError> {
    let name = role.to_string();
    spawn(role.clone(), exits, body).map_err(|error| StartError::Thread { name, error })?;
    supervisor.running.insert(role);
    Ok(())
}
