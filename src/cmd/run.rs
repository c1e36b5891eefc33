//! `worker -c FILE`: the daemon.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::{FAILURE, USAGE};
use crate::{config, supervisor};

/// Reads the configuration, sets up the log, and runs until a signal. Returns the exit code.
/// `log_level`, from the command line, goes before the configuration's.
pub fn run(path: &Path, log_level: Option<&str>, err: &mut dyn Write) -> u8 {
    let level = log_level.map_or(Ok(()), config::check_log_level);
    let config = config::load(path);
    // All that is wrong, at once. Without standard error there is nobody left to tell; the exit code
    // still says it.
    if let Err(wrong) = &level {
        let _ = writeln!(err, "--log-level: {wrong}");
    }
    if let Err(error) = &config {
        let _ = writeln!(err, "{error}");
    }
    let (Ok(()), Ok(config)) = (level, config) else { return USAGE };
    let logger = Logger::start(log_level.unwrap_or(&config.log_level));
    let (file, given) = (path.to_owned(), log_level.is_some());
    let source = supervisor::Source {
        load: Box::new(move || config::load(&file)),
        set_log_level: Box::new(move |filter| {
            if !given {
                logger.set_level(filter);
            }
        }),
    };
    match supervisor::signals(supervisor::hard_deadline(&config)) {
        Ok(signals) => supervisor::run(config, &path.with_extension("state"), &signals, source),
        Err(error) => {
            log::error!("cannot start error=\"signals can't be received: {error}\"");
            FAILURE
        }
    }
}

/// The log, whose level can change.
#[derive(Clone)]
struct Logger(Arc<RwLock<env_logger::Logger>>);

impl Logger {
    /// The log of this process from now on.
    fn start(filter: &str) -> Self {
        let logger = Self(Arc::new(RwLock::new(build(filter))));
        // It fails only where there is a log already, which nobody else makes.
        let _ = log::set_boxed_logger(Box::new(logger.clone()));
        log::set_max_level(logger.inner().filter());
        logger
    }

    fn set_level(&self, filter: &str) {
        let new = build(filter);
        let most = new.filter();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        log::set_max_level(most);
    }

    fn inner(&self) -> RwLockReadGuard<'_, env_logger::Logger> {
        // It is replaced as a whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.inner().enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        self.inner().log(record);
    }

    fn flush(&self) {
        self.inner().flush();
    }
}

/// One line an event on standard error: time, level, words, `key=value` details.
fn build(filter: &str) -> env_logger::Logger {
    env_logger::Builder::new()
        .parse_filters(filter)
        .format(|out, record| {
            let style = out.default_level_style(record.level());
            writeln!(out, "{} {style}{:5}{style:#} {}", out.timestamp_millis(), record.level(), record.args())
        })
        .build()
}
