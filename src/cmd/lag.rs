//! `worker lag -c FILE`: how far each topic is read, as the cluster has it.
//!
//! Asks brokers only; it needs no running worker, joins no group and commits nothing. The numbers are those of
//! `kafka-consumer-groups --describe`, the verdict is the running worker's function on two looks.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ask::{self, written};
use super::{FAILURE, OK};
use crate::client::{Fault, Inspect};
use crate::config::Config;
use crate::sample::Watched;
use crate::trend::{Row, Trends};
use crate::verdict::Verdict;

mod table;

use table::{Line, Table};

/// Between the two looks without `--watch`, by default: long enough for a busy topic to show that it moves.
const BRIEFLY: Duration = Duration::from_millis(500);
/// Between two looks with `--watch`, by default.
const WATCH: Duration = Duration::from_secs(2);
/// Rates are counted over so many looks, or over two commits if these take longer.
const LOOKS: u32 = 5;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Only these topics; all if empty.
    pub topics: Vec<String>,
    /// JSON instead of a table.
    pub json: bool,
    /// Go on until somebody ends it.
    pub watch: bool,
    /// The time between two looks.
    pub interval: Option<Duration>,
}

/// Where it is printed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// To whatever takes lines.
    Lines,
    /// To a terminal, which can be redrawn.
    Terminal,
}

/// Prints to `out`; what is wrong to `err`. Returns the exit code: 0, 1 if the cluster said nothing of any topic or
/// the output could not be written, 2 for a wrong configuration or a topic that it does not have.
pub fn lag(options: &Options, output: Output, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (config, watched) = match ask::load(&options.config, &options.topics) {
        Ok(loaded) => loaded,
        Err(wrong) => {
            let _ = writeln!(err, "{wrong}");
            return wrong.code();
        }
    };
    let mut cluster = ask::cluster(&config);
    let interval = options.interval.unwrap_or(if options.watch { WATCH } else { BRIEFLY });
    let window = (interval * LOOKS).max(config.commit.interval * 2);
    let mut looks = Looks { cluster: &mut *cluster, config: &config, watched: &watched, trends: Trends::new(window) };
    let result =
        if options.watch { looks.watch(options, interval, output, out) } else { looks.twice(options, interval, out) };
    let code = match &result {
        Ok(Some(fault)) => {
            let _ = writeln!(err, "{fault}");
            FAILURE
        }
        Ok(None) | Err(_) => OK,
    };
    // Who has seen enough still wants to know how it is.
    match written(result.map(|_| code), err) {
        OK => code,
        failed => failed,
    }
}

struct Looks<'a> {
    cluster: &'a mut dyn Inspect,
    config: &'a Config,
    watched: &'a [Watched],
    trends: Trends,
}

impl Looks<'_> {
    fn look(&mut self) -> Result<Vec<Row>, Fault> {
        ask::look(self.cluster, self.config, self.watched, &mut self.trends)
    }

    /// Returns why the cluster said nothing of any topic, if so.
    ///
    /// # Errors
    /// The output can't be written.
    fn twice(&mut self, options: &Options, interval: Duration, out: &mut dyn Write) -> io::Result<Option<Fault>> {
        let first = self.look();
        let looked = first.and_then(|_| {
            thread::sleep(interval);
            self.look()
        });
        let rows = looked.unwrap_or_else(|fault| ask::unasked(self.watched, &fault));
        once(&rows, options, out)?;
        Ok(nothing_learnt(&rows))
    }

    /// Goes on until the output can't be written, or somebody ends the process. The first look has to succeed, else it
    /// is all there is.
    fn watch(
        &mut self,
        options: &Options,
        interval: Duration,
        output: Output,
        out: &mut dyn Write,
    ) -> io::Result<Option<Fault>> {
        let mut seen = self.look();
        if let Err(fault) = seen {
            once(&ask::unasked(self.watched, &fault), options, out)?;
            return Ok(Some(fault));
        }
        let mut first = true;
        loop {
            let print = match (&seen, options.json, output) {
                (Ok(rows), true, _) => json(rows, out),
                (Ok(rows), false, Output::Lines) => plain(rows, first, out),
                (_, false, Output::Terminal) => table::redraw(&seen, first, interval, table::size(), out),
                // A program that reads gets whole rounds only; what is missing, it sees by the time.
                (Err(_), true, _) => Ok(()),
                (Err(fault), false, Output::Lines) => writeln!(out, "{} {fault}", clock()),
            };
            print.and_then(|()| out.flush())?;
            first = false;
            thread::sleep(interval);
            seen = self.look();
        }
    }
}

/// One look, without rates.
fn once(rows: &[Row], options: &Options, out: &mut dyn Write) -> io::Result<()> {
    match options.json {
        true => json(rows, out)?,
        false => Table::new(rows, false).lines().iter().try_for_each(|line| writeln!(out, "{line}"))?,
    }
    out.flush()
}

/// Whether the cluster said nothing at all of any topic, and why.
fn nothing_learnt(rows: &[Row]) -> Option<Fault> {
    let unknown = |row: &Row| match &row.verdict {
        Verdict::Unknown(fault) => Some(fault.clone()),
        _ => None,
    };
    let faults: Option<Vec<Fault>> = rows.iter().map(unknown).collect();
    faults.and_then(|faults| faults.into_iter().next())
}

/// One line a partition, each with its time, so that they can be kept and searched.
fn plain(rows: &[Row], first: bool, out: &mut dyn Write) -> io::Result<()> {
    let clock = clock();
    for (index, line) in Table::new(rows, true).lines().iter().enumerate() {
        match index {
            0 if first => writeln!(out, "TIME      {line}")?,
            0 => {}
            _ => writeln!(out, "{clock} {line}")?,
        }
    }
    Ok(())
}

/// One round as one JSON object, on one line.
fn json(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Round<'a> {
        at_unix_ms: u64,
        partitions: Vec<Line<'a>>,
    }
    let at_unix_ms = u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX);
    let round = Round { at_unix_ms, partitions: rows.iter().map(Line::new).collect() };
    serde_json::to_writer(&mut *out, &round)?;
    writeln!(out)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time of day, UTC: `17:04:59Z`.
fn clock() -> String {
    let second = since_1970().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}
