//! `worker check -c FILE`: what is wrong with a configuration, or what it comes to.
//!
//! Reads the file and the environment, and looks at the places of file sinks and dead letters, the programs of exec sinks and what
//! librdkafka says of who writes to topics; no broker is asked.

use std::io::{self, Write};
use std::path::Path;

use super::{FAILURE, OK, USAGE};
use crate::config::{self, Config, DeadLetter, Mode, SinkSettings, Source};
use crate::sink::{exec, file, kafka};

/// Prints to `out` the configuration that holds, each value with where it comes from, or to `err`
/// everything that is wrong. Returns the exit code: 0, 2 for a wrong configuration or a file that can't be written, 1 if the output
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
    let places = unwritable(path, &config);
    if !places.is_empty() {
        let _ = writeln!(err, "{}", places.join("\n"));
        return USAGE;
    }
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

/// What the start would fail for: a line a sink that is used and could not be opened, and one for the dead letters.
fn unwritable(path: &Path, config: &Config) -> Vec<String> {
    let used = |name: &str| config.possible_topics().any(|topic| topic.sinks.iter().any(|sink| sink == name));
    let mut lines = Vec::new();
    let mut add = |table: String, key: &str, error: String| {
        let line = line_of(config, &format!("[{table}]"), key);
        lines.push(format!("{}:{line}: {table}.{key}: {error}", path.display()));
    };
    for (name, sink) in config.sinks.iter().filter(|(name, _)| used(name)) {
        let (key, error) = match sink {
            SinkSettings::File { path, .. } => ("path", file::probe(path).err().map(|error| error.to_string())),
            SinkSettings::Exec(settings) => {
                ("command", exec::probe(settings.program()).err().map(|error| error.to_string()))
            }
            SinkSettings::Kafka(settings) => ("type", kafka::probe(settings).err().map(|error| error.to_string())),
            // The files of an http sink were looked into with the configuration.
            SinkSettings::Drop
            | SinkSettings::Log { .. }
            | SinkSettings::Stdout { .. }
            | SinkSettings::Http(_)
            | SinkSettings::Own(_) => {
                continue;
            }
        };
        if let Some(error) = error {
            add(format!("sink.{name}"), key, error);
        }
    }
    // The start opens them whether a topic sends any there or not.
    let dead = match &config.dead_letter {
        None => None,
        Some(DeadLetter::File(path)) => file::probe(path).err().map(|error| ("path", error.to_string())),
        Some(DeadLetter::Topic(settings)) => kafka::probe(settings).err().map(|error| ("topic", error.to_string())),
    };
    if let Some((key, error)) = dead {
        add("dead_letter".to_owned(), key, error);
    }
    lines
}

/// The line of `key` in the table `title`; the first one if it is not in the file.
fn line_of(config: &Config, title: &str, key: &str) -> usize {
    let scope = config.report.iter().find(|scope| scope.title == title);
    match scope.and_then(|scope| scope.settings.iter().find(|setting| setting.key == key)).map(|s| &s.source) {
        Some(Source::File { line, .. }) => *line,
        _ => 1,
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
    let paused = match config.topics.iter().filter(|topic| topic.paused).count() {
        0 => String::new(),
        count => format!(" paused={count}"),
    };
    let found = if config.discovery.is_some() { " and those that fit topics_regex" } else { "" };
    writeln!(out, "{}: correct; topics={topics}{found}{paused} ({consumers}) warnings={warnings}", path.display())
}
