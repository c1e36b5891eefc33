//! `worker check -c FILE`: what is wrong with a configuration, or what it comes to.
//!
//! Reads the file and the environment, and nothing else: no broker is asked.

use std::io::{self, Write};
use std::path::Path;

use super::{FAILURE, OK, USAGE};
use crate::config::{self, Config, Mode};

/// Prints to `out` the configuration that holds, each value with where it comes from, or to `err`
/// everything that is wrong. Returns the exit code: 0, 2 for a wrong configuration, 1 if the output
/// could not be written.
pub fn check(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            // Without standard error there is nobody left to tell; the exit code still says it.
            let _ = writeln!(err, "{error}");
            return USAGE;
        }
    };
    match print(path, &config, out).and_then(|()| out.flush()) {
        Ok(()) => OK,
        // The reader has seen enough, as in `worker check | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            let _ = writeln!(err, "the output can't be written: {error}");
            FAILURE
        }
    }
}

fn print(path: &Path, config: &Config, out: &mut dyn Write) -> io::Result<()> {
    for scope in &config.report {
        writeln!(out, "{scope}")?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {}: {warning}", path.display())?;
    }
    let consumers = match config.mode {
        Mode::Multi => "a consumer and a group each",
        Mode::Single => "one consumer and one group for all",
    };
    let (topics, warnings) = (config.topics.len(), config.warnings.len());
    writeln!(out, "{}: correct; topics={topics} ({consumers}) warnings={warnings}", path.display())
}
