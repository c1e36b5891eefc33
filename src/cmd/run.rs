//! `worker -c FILE`: the daemon.

use std::io::Write;
use std::path::Path;

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
