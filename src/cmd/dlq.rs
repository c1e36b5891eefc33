//! `worker dlq list | show | replay`: dead letters, to look at and to give to their sinks again.
//!
//! Reads the file that the worker appends to, or the topic that it writes to; it may run. Changes nothing there. A replay writes through sinks of its
//! own, and notes what was delivered, so that the next one goes on behind it: at least once, as everything here.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use super::table::{Table, or_dash};
use super::{FAILURE, OK, USAGE, ask, offsets};
use crate::cli::{Dlq, Letters};
use crate::config::{self, Config, DeadLetter};
use crate::supervisor::{self, StartError};

mod letter;
mod replay;
mod store;
#[cfg(feature = "librdkafka")]
mod topics;

use replay::{Ear, Options, Sum};
use store::{Replayed, Store};

/// Characters of a reason in a list.
const REASON: usize = 60;
/// Bytes of a key or value that is no text.
const SHOWN: usize = 64;

/// Why a command can't be carried out.
enum Wrong {
    Asked(ask::Wrong),
    /// There is no file for dead letters.
    NoFile,
    File(PathBuf, io::Error),
    /// The letters can't be read.
    Store(String, io::Error),
    /// There is no such sink, but these.
    NoSink(String, Vec<String>),
    Sink(StartError),
    /// Signals can't be received.
    Signals(io::Error),
    Output(io::Error),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(wrong) => wrong.fmt(f),
            Self::NoFile => f.write_str("the configuration has no [dead_letter]; name a file with --file"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Store(name, error) => write!(f, "{name}: {error}"),
            Self::NoSink(name, there) if there.is_empty() => {
                write!(f, "there is no [sink.{name}] in the configuration, and no other; add one")
            }
            Self::NoSink(name, there) => {
                let there = there.join(", ");
                write!(f, "there is no [sink.{name}] in the configuration; name another one with --sink: {there}")
            }
            Self::Signals(error) => write!(f, "signals can't be received: {error}"),
            Self::Sink(error) => write!(
                f,
                "{error}; a file that the running worker writes to is not free: stop it, or name another sink with --sink"
            ),
            Self::Output(error) => write!(f, "the output can't be written: {error}"),
        }
    }
}

impl Wrong {
    fn no_sink(name: &str, config: &Config) -> Self {
        Self::NoSink(name.to_owned(), config.sinks.keys().cloned().collect())
    }

    const fn code(&self) -> u8 {
        match self {
            Self::Asked(_) | Self::NoFile | Self::NoSink(..) => USAGE,
            Self::File(..) | Self::Store(..) | Self::Sink(_) | Self::Signals(_) | Self::Output(_) => FAILURE,
        }
    }
}

/// Carries `command` out. Returns the exit code: 0; 1 if a file or a sink can't be used, a line can't be read, or a letter
/// was not delivered; 2 for a wrong command line or configuration; 128 and the number of the signal that ended a replay.
pub fn dlq(command: &Dlq, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = match command {
        Dlq::List { which, json } => list(which, *json, out, err),
        Dlq::Show(which) => show(which, out, err),
        Dlq::Replay { which, sink, attempts, again, execute } => {
            let options = Options { which, sink: sink.as_deref(), attempts: *attempts, again: *again };
            replay_all(&options, *execute, out, err)
        }
    };
    match done {
        Ok(code) => code,
        // The reader has seen enough, as in `worker dlq list | head`.
        Err(Wrong::Output(error))
            if error.kind() == io::ErrorKind::BrokenPipe && !matches!(command, Dlq::Replay { .. }) =>
        {
            OK
        }
        Err(wrong) => {
            // Without standard error there is nobody left to tell; the exit code still says it.
            let _ = writeln!(err, "{wrong}");
            wrong.code()
        }
    }
}

fn open(which: &Letters) -> Result<(Config, Store), Wrong> {
    let config = config::load(&which.config).map_err(|error| Wrong::Asked(ask::Wrong::Config(error)))?;
    let store = match (&which.file, &config.dead_letter) {
        (Some(path), _) | (None, Some(DeadLetter::File(path))) => Store::File(path.clone()),
        #[cfg(feature = "librdkafka")]
        (None, Some(DeadLetter::Topic(settings))) => {
            Store::Topics(Box::new(topics::Topics::new(&config, settings, which)))
        }
        _ => return Err(Wrong::NoFile),
    };
    Ok((config, store))
}

fn time(ms: Option<i64>) -> Option<String> {
    ms.and_then(|ms| u64::try_from(ms).ok()).map(offsets::time::show)
}

/// Reads the letters, and tells lines that are none. What may be in the way is the file or the output.
fn each(
    store: &Store,
    which: &Letters,
    err: &mut dyn Write,
    mut see: impl FnMut(store::Found) -> io::Result<()>,
) -> Result<u8, Wrong> {
    let (mut code, mut failed) = (OK, false);
    let read = store.read(which, &mut |found| see(found).inspect_err(|_| failed = true), &mut |wrong| {
        code = FAILURE;
        let _ = writeln!(err, "{wrong}");
        Ok(())
    });
    match read {
        Ok(()) => Ok(code),
        Err(error) if failed => Err(Wrong::Output(error)),
        // The worker makes the file when it starts.
        Err(error) if error.kind() == io::ErrorKind::NotFound && which.file.is_none() => Ok(code),
        Err(error) => Err(Wrong::Store(store.to_string(), error)),
    }
}

fn list(which: &Letters, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Wrong> {
    let (_, store) = open(which)?;
    if json {
        return each(&store, which, err, |found| writeln!(out, "{}", found.text));
    }
    let replayed = Replayed::read(store.note()).map_err(|error| Wrong::File(store.note(), error))?;
    let mut table =
        Table::new(&["LINE", "TOPIC", "PARTITION", "OFFSET", "DEAD", "ATTEMPTS", "SINK", "REPLAYED", "REASON"]);
    let code = each(&store, which, err, |found| {
        let letter = &found.letter;
        let mut reason: String = letter.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if reason.chars().count() > REASON {
            reason = reason.chars().take(REASON - 1).chain(['…']).collect();
        }
        table.line(vec![
            found.place.strip_prefix("line ").unwrap_or(&found.place).to_owned(),
            letter.partition.topic.to_string(),
            letter.partition.partition.to_string(),
            letter.offset.to_string(),
            or_dash(time(letter.dead_ms)),
            letter.attempts.to_string(),
            letter.sink.clone(),
            if replayed.has(found.mark) { "yes" } else { "-" }.to_owned(),
            reason,
        ]);
        Ok(())
    })?;
    write!(out, "{table}").map_err(Wrong::Output)?;
    Ok(code)
}

fn show(which: &Letters, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Wrong> {
    let (_, store) = open(which)?;
    each(&store, which, err, |found| {
        let letter = &found.letter;
        writeln!(out, "{} {} offset={}", found.place, letter.partition, letter.offset)?;
        let mut line = |name: &str, value: String| writeln!(out, "  {name:<14} {value}");
        line("sink", letter.sink.clone())?;
        line("reason", letter.reason.clone())?;
        line("attempts", letter.attempts.to_string())?;
        line("first failure", or_dash(time(letter.first_failure_ms)))?;
        line("dead", or_dash(time(letter.dead_ms)))?;
        line("timestamp", or_dash(time(letter.timestamp_ms)))?;
        line("key", shown(letter.key.as_deref()))?;
        line("value", shown(letter.value.as_deref()))?;
        for (name, value) in &letter.headers {
            line("header", format!("{name}: {}", shown(value.as_deref())))?;
        }
        writeln!(out)
    })
}

/// Text as it is; of anything else the first bytes.
fn shown(bytes: Option<&[u8]>) -> String {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => "null".to_owned(),
        Some((_, Ok(text))) => text.to_owned(),
        Some((bytes, Err(_))) => {
            let hex: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            format!("{} bytes, no text: {hex}{}", bytes.len(), if bytes.len() > SHOWN { "…" } else { "" })
        }
    }
}

fn replay_all(options: &Options<'_>, execute: bool, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, Wrong> {
    let (config, store) = open(options.which)?;
    let mut replayed = Replayed::read(store.note()).map_err(|error| Wrong::File(store.note(), error))?;
    let (mut count, mut done, mut missing) = (0_u64, 0_u64, None);
    let mut need = |name: &str| {
        if !config.sinks.contains_key(name) {
            missing.get_or_insert_with(|| Wrong::no_sink(name, &config));
        }
    };
    options.sink.into_iter().for_each(&mut need);
    let code = each(&store, options.which, err, |found| {
        if replayed.has(found.mark) && !options.again {
            done += 1;
        } else {
            need(options.sink.unwrap_or(&found.letter.sink));
            count += 1;
        }
        Ok(())
    })?;
    if let Some(missing) = missing {
        return Err(missing);
    }
    if !execute {
        let say = writeln!(
            out,
            "would replay {count} dead letters of {}; {done} were replayed before; do it with --execute",
            store
        );
        say.map_err(Wrong::Output)?;
        return Ok(code);
    }
    // There is no deadline: what is under way ends by the limits of its sink, and a second signal ends the process.
    let signals = supervisor::signals(Duration::MAX).map_err(Wrong::Signals)?;
    let (mut ear, bar) = (Ear::new(&signals), io::stderr().is_terminal());
    let sum = replay::replay(&config, &store, options, &mut replayed, &mut ear, err, |sum, err| {
        if bar {
            let seen = sum.delivered + sum.failed;
            let _ = write!(err, "\r{seen} of {count} ({} failed)", sum.failed);
        }
    })?;
    if bar && count > 0 {
        let _ = writeln!(err);
    }
    let Sum { delivered, failed } = sum;
    let note = replayed.path().display();
    writeln!(out, "replayed delivered={delivered} failed={failed} before={done} noted_in={note}")
        .map_err(Wrong::Output)?;
    if let Some(stop) = ear.heard() {
        let left = count.saturating_sub(delivered + failed);
        let _ = writeln!(
            err,
            "stopped by {} with {left} dead letters left; the same command goes on with them{}",
            stop.name,
            if options.again { ", without --again" } else { "" },
        );
        return Ok(128 + stop.number);
    }
    Ok(if failed > 0 { FAILURE } else { code })
}
