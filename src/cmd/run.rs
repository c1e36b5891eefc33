//! `worker -c FILE`: the daemon.

use std::io::Write;
use std::path::Path;

use super::{FAILURE, USAGE};
use crate::{config, supervisor};

/// Reads the configuration, sets up the log, and runs until a signal. Returns the exit code.
/// `log_level`, from the command line, goes before the configuration's.
pub fn run(path: &Path, log_level: Option<&str>, err: &mut dyn Write) -> u8 {
    if let Some(Err(wrong)) = log_level.map(config::check_log_level) {
        // Without standard error there is nobody left to tell; the exit code still says it.
        let _ = writeln!(err, "--log-level: {wrong}");
        return USAGE;
    }
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            // Without standard error there is nobody left to tell; the exit code still says it.
            let _ = writeln!(err, "{error}");
            return USAGE;
        }
    };
    logger(log_level.unwrap_or(&config.log_level));
    match supervisor::signals(supervisor::hard_deadline(&config)) {
        Ok(signals) => supervisor::run(&config, &path.with_extension("state"), &signals),
        Err(error) => {
            log::error!("cannot start error=\"signals can't be received: {error}\"");
            FAILURE
        }
    }
}

/// One line an event on standard error: time, level, words, `key=value` details.
fn logger(filter: &str) {
    env_logger::Builder::new()
        .parse_filters(filter)
        .format(|out, record| {
            let style = out.default_level_style(record.level());
            writeln!(out, "{} {style}{:5}{style:#} {}", out.timestamp_millis(), record.level(), record.args())
        })
        .init();
}
