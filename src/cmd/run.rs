//! `worker -c FILE`: the daemon.

use std::io::Write;

use super::{FAILURE, USAGE};
use crate::cli::Run;
use crate::logging::Logger;
use crate::{config, supervisor};

/// Reads the configuration, sets up the log, and runs until a signal. Returns the exit code. What the
/// command line says of the log goes before the configuration's.
pub fn run(arguments: &Run, err: &mut dyn Write) -> u8 {
    let (path, log_level) = (&arguments.config, arguments.log_level.as_deref());
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
    let logger =
        Logger::start(log_level.unwrap_or(&config.log_level), arguments.log_format.unwrap_or(config.log_format));
    let (file, given) = (path.clone(), log_level.is_some());
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
