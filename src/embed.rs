//! The worker inside a program of your own, with sinks written in Rust.
//!
//! ```no_run
//! use worker::record::{Records, TopicPartition};
//! use worker::sink::{Sink, Stopped};
//!
//! struct Count(usize);
//!
//! impl Sink for Count {
//!     fn write(&mut self, _: &TopicPartition, records: &Records) -> Result<(), Stopped> {
//!         self.0 += records.len();
//!         Ok(())
//!     }
//!
//!     fn flush(&mut self) -> Result<(), String> {
//!         Ok(())
//!     }
//! }
//!
//! let worker = worker::Worker::builder()
//!     .config_file("/etc/worker/consumer.toml")
//!     // A topic goes there with sink = "count".
//!     .sink("count", |_lane| Ok(Count(0)))
//!     .build()?;
//! worker.run_until_signal()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/latest.rs` is a whole program. Owns nothing but what it hands to the supervisor. What it promises beside
//! what [`Sink`] does: nothing is connected or started before `run`; a run that ends has ended its threads, but those
//! that the log names.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::{self, Config, LoadError};
use crate::sink::Sink;
use crate::sink::own::OwnSink;
use crate::supervisor::{self, Signals, Source, Stop};

/// A worker that is configured, and does not run yet.
pub struct Worker {
    config: Config,
    text: Text,
    sinks: BTreeMap<String, OwnSink>,
    stopper: Stopper,
    signals: Signals,
}

/// Where the configuration comes from.
#[derive(Clone)]
enum Text {
    File(PathBuf),
    Given(String),
}

impl Text {
    fn load(&self, sinks: &BTreeMap<String, OwnSink>) -> Result<Config, LoadError> {
        match self {
            Self::File(path) => config::load_with(path, sinks),
            Self::Given(text) => config::load_text(text, sinks),
        }
    }

    /// The state directory where none is configured, or the configured one can't be used.
    fn state(&self) -> PathBuf {
        match self {
            Self::File(path) => path.with_extension("state"),
            Self::Given(_) => PathBuf::from("worker.state"),
        }
    }
}

/// Gathers what a worker needs.
#[derive(Default)]
pub struct Builder {
    text: Option<Text>,
    sinks: BTreeMap<String, OwnSink>,
    /// A name that was given twice.
    twice: Option<String>,
}

/// Why there is no worker.
#[derive(Debug)]
pub enum BuildError {
    /// Neither a file nor a text was given.
    NoConfig,
    /// No sink can have this name, in words.
    Name {
        /// What is wrong with it.
        why: String,
    },
    /// Two sinks have this name.
    Twice {
        /// It.
        name: String,
    },
    /// The configuration.
    Config(LoadError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConfig => f.write_str("the worker has no configuration; call config_file or config_text"),
            Self::Name { why } => write!(f, "a sink's name {why}"),
            Self::Twice { name } => write!(f, "two sinks have the name \"{name}\"; give each its own"),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BuildError {}

/// The worker could not do its work; its log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    code: u8,
}

impl Failed {
    /// What the program `worker` would end with: 1, or 70 if something inside broke that must not.
    pub fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker could not do its work, see its log (exit code {})", self.code)
    }
}

impl std::error::Error for Failed {}

/// Why a run that signals end did not end well.
#[derive(Debug)]
pub enum RunError {
    /// Signals can't be received: somebody else in this process does so already.
    Signals(io::Error),
    /// See there.
    Failed(Failed),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(error) => write!(f, "signals can't be received: {error}; call run, and stop it yourself"),
            Self::Failed(failed) => failed.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

/// Stops a worker, or lets it read its configuration again, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    stop: Sender<Stop>,
    reload: Sender<()>,
}

impl Stopper {
    /// What SIGTERM does: what is under way is delivered and committed, then `run` ends. A second time: at once, and what
    /// was not committed is delivered again after the next start.
    pub fn stop(&self) {
        // Full: it was asked for twice already.
        let _ = self.stop.try_send(Stop { name: "stop", number: 15 });
    }

    /// What SIGHUP does: sinks reopen their files, and the configuration is read again.
    pub fn reload(&self) {
        // Full: a request waits already, and serves for this one too.
        let _ = self.reload.try_send(());
    }
}

impl Builder {
    /// The configuration is this file, as `worker -c FILE` reads it.
    #[must_use]
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.text = Some(Text::File(path.as_ref().to_owned()));
        self
    }

    /// The configuration is this text. Without `[state] dir` the state directory is `worker.state` in the working
    /// directory.
    #[must_use]
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(Text::Given(text.into()));
        self
    }

    /// Topics with `sink = "NAME"` go to sinks that `make` makes: one a lane, called with its number from 0 on. The
    /// configuration may have a table `[sink.NAME]` with `lanes` and `order`, and no other key.
    #[must_use]
    pub fn sink<S: Sink + 'static>(
        mut self,
        name: &str,
        make: impl Fn(usize) -> Result<S, String> + Send + Sync + 'static,
    ) -> Self {
        // Told when it is built.
        self.twice = self.twice.or(self.sinks.contains_key(name).then(|| name.to_owned()));
        self.sinks.insert(name.to_owned(), OwnSink::new(make));
        self
    }

    /// Reads the configuration. Nothing is connected or started.
    ///
    /// # Errors
    /// Everything that is wrong with it, or a name that no sink can have.
    pub fn build(self) -> Result<Worker, BuildError> {
        let text = self.text.ok_or(BuildError::NoConfig)?;
        if let Some(name) = self.twice {
            return Err(BuildError::Twice { name });
        }
        for name in self.sinks.keys() {
            config::check_own_sink_name(name).map_err(|why| BuildError::Name { why })?;
        }
        let config = text.load(&self.sinks).map_err(BuildError::Config)?;
        let ((stop_tx, stop), (reload, reopen)): ((_, Receiver<Stop>), (_, Receiver<()>)) = (bounded(2), bounded(1));
        let stopper = Stopper { stop: stop_tx, reload };
        Ok(Worker { config, text, sinks: self.sinks, stopper, signals: Signals { stop, reopen } })
    }
}

impl Worker {
    /// What a worker is made from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What it is configured to do.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// To be called before `run`, which does not come back while it runs.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Runs on this thread until [`Stopper::stop`]. It logs by the crate `log`; without a logger nobody hears it. No
    /// signal is received, and the process is not ended.
    ///
    /// # Errors
    /// It could not do its work.
    pub fn run(self) -> Result<(), Failed> {
        let Self { config, text, sinks, stopper: _stopper, signals } = self;
        run(config, &text, sinks, &signals)
    }

    /// The same until SIGTERM or SIGINT, as the program does it; SIGHUP reloads. A second one of them ends the process, as
    /// does a stop that takes longer than `shutdown.drain_timeout_ms` and 8 s.
    ///
    /// # Errors
    /// Signals can't be received, or it could not do its work.
    pub fn run_until_signal(self) -> Result<(), RunError> {
        let signals = supervisor::signals(supervisor::hard_deadline(&self.config)).map_err(RunError::Signals)?;
        run(self.config, &self.text, self.sinks, &signals).map_err(RunError::Failed)
    }
}

fn run(config: Config, text: &Text, sinks: BTreeMap<String, OwnSink>, signals: &Signals) -> Result<(), Failed> {
    let again = text.clone();
    let source = Source {
        load: Box::new(move || again.load(&sinks)),
        // The log is the program's.
        set_log_level: Box::new(|_| {}),
    };
    match supervisor::run(config, &text.state(), signals, source) {
        supervisor::CLEAN => Ok(()),
        code => Err(Failed { code }),
    }
}
