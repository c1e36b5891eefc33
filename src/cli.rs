//! The command line: what can be said to the program, and the words that explain it.
//!
//! Only the definition. `main` goes from it to [`crate::cmd`], and the manual pages and the shells'
//! completions in etc/ are made from it: every command and option has a text here, and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::logging::LogFormat;

/// Consumes many Kafka topics at once and delivers their records to sinks
///
/// Each topic has a thread and a consumer group of its own. Offsets are committed only after delivery.
/// Without a command the program is the daemon, and runs until it is told to stop.
#[derive(Debug, Parser)]
#[command(name = "worker", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Arguments {
    /// A command; without one the program is the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What the daemon is told.
    #[command(flatten)]
    pub run: Option<Run>,
}

/// The arguments of the daemon.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file, for instance etc/consumer.toml
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// A level (error, warn, info, debug, trace) or a filter, before the configuration's log.level
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How a line of the log is written, before the configuration's log.format
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The commands beside the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the configuration that holds, each value with where it comes from, or what is wrong
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print how far each topic is read, as kafka-consumer-groups does, and how it is doing
    Lag {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// One JSON object a look
        #[arg(long)]
        json: bool,
        /// Go on looking, with rates and the time to catch up
        #[arg(long)]
        watch: bool,
        /// Time between two looks, in seconds; 0.5, with --watch 2
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        interval: Option<Duration>,
    },
    /// Look at each topic for a while, and say how it is doing, why, and what to do. Exit code 1 if something needs attention
    Diagnose {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// How long to look, in seconds; longer than commit.interval_ms
        #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, default_value = "10s")]
        look_for: Duration,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// A time on the command line: seconds, also parts of them.
fn seconds(text: &str) -> Result<Duration, String> {
    let number =
        text.strip_suffix('s').unwrap_or(text).parse::<f64>().map_err(|_| "is no number of seconds".to_owned())?;
    if (0.1..=86_400.0).contains(&number) {
        Ok(Duration::from_secs_f64(number))
    } else {
        Err("is not between 0.1 and 86400 seconds".to_owned())
    }
}
