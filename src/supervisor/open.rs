//! What a start opens before any thread runs, and why it can't: sinks, the place of dead letters, the state directory, the
//! admin's port.
//!
//! Owns nothing; what is opened is the caller's. What always holds: nothing is opened that is not configured, and an error
//! names its table.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use crate::admin;
use crate::config::{Config, DeadLetter, SinkSettings, Spread};
#[cfg(feature = "librdkafka")]
use crate::dead_letter::LetterTopic;
use crate::dead_letter::{Destination, LetterFile};
use crate::dispatch::Order;
use crate::sink::Sink;
use crate::sink::drop::DropSink;
use crate::sink::exec::{self, ExecSink};
use crate::sink::file::{FileSink, OpenError, Rotation};
use crate::sink::http::HttpSink;
use crate::sink::kafka;
use crate::sink::log::LogSink;
use crate::sink::stdout::StdoutSink;
use crate::state::{self, Ledger, State};

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
pub(super) fn open_admin(config: &Config) -> Result<Option<TcpListener>, StartError> {
    config.admin.map(|address| admin::bind(address).map_err(|error| StartError::Admin { error })).transpose()
}
