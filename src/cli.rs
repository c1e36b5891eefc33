//! The command line: what can be said to the program, and the words that explain it.
//!
//! Only the definition. `main` goes from it to [`crate::cmd`], and the manual pages and the shells'
//! completions in etc/ are made from it: every command and option has a text here, and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::cmd::offsets;
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
        /// How long to look, in seconds; on from there where something stands still, until that is certain
        #[arg(long = "for", value_name = "SECONDS", value_parser = seconds, default_value = "10s")]
        look_for: Duration,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show or move the committed offsets of the worker's groups
    #[command(subcommand)]
    Offsets(Offsets),
    /// Look at dead letters, or give them to their sinks again
    #[command(subcommand)]
    Dlq(Dlq),
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

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// Print a line for each dead letter
    List {
        /// Which ones.
        #[command(flatten)]
        which: Letters,
        /// As they stand in the file
        #[arg(long)]
        json: bool,
    },
    /// Print dead letters in full
    Show(Letters),
    /// Give dead letters to their sinks again, in the order of the file; without --execute it only says how many
    Replay {
        /// Which ones.
        #[command(flatten)]
        which: Letters,
        /// Give them to this sink of the configuration, instead of the one that did not take them
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// How often a sink is tried that fails for now
        #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..))]
        attempts: u32,
        /// Also those that an earlier replay has delivered
        #[arg(long)]
        again: bool,
        /// Do it
        #[arg(long)]
        execute: bool,
    },
}

/// Which dead letters are meant.
#[derive(Clone, Debug, Args)]
pub struct Letters {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// The file of dead letters, instead of the configuration's: one that was put aside, for instance
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Only those of this topic; may be given several times
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only those of this partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Only those from this offset on
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub from_offset: Option<i64>,
    /// Only those up to this offset, which is the last one
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// Only those whose reason has these words
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// What can be done with committed offsets.
#[derive(Debug, Subcommand)]
pub enum Offsets {
    /// Print what each group has committed, where the logs begin and end, and what the state directory remembers
    Show(Show),
    /// Move committed offsets; without --execute it only shows what would be done
    Reset(Reset),
    /// Take over committed offsets from the shared group into a group a topic, or back; without --execute it only shows
    /// what would be done
    Migrate(Migrate),
}

/// `worker offsets show`
#[derive(Debug, Args)]
pub struct Show {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only these topics
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// `worker offsets reset`
#[derive(Debug, Args)]
pub struct Reset {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// A topic of the configuration; may be given several times
    #[arg(long = "topic", value_name = "TOPIC", required_unless_present = "all_topics")]
    pub topics: Vec<String>,
    /// All topics of the configuration
    #[arg(long, conflicts_with = "topics")]
    pub all_topics: bool,
    /// Only these partitions of the one topic
    #[arg(long, value_name = "N[,M]", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "all_topics")]
    pub partition: Vec<i32>,
    /// Where to.
    #[command(flatten)]
    pub to: To,
    /// Do it
    #[arg(long)]
    pub execute: bool,
    /// Do it even if this worker runs, its state file can't be kept in line, or a group has members (which the broker
    /// may refuse itself)
    #[arg(long)]
    pub force: bool,
}

/// Where offsets are reset to: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct To {
    /// To the log start
    #[arg(long)]
    pub to_earliest: bool,
    /// To the log end
    #[arg(long)]
    pub to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// To the first record of this time or later: RFC 3339 with a zone, or milliseconds since 1970 (UTC)
    #[arg(long, value_name = "TIME", value_parser = offsets::time::parse)]
    pub to_time: Option<u64>,
    /// By so many offsets from what is committed, forward or (with -) back
    #[arg(long, value_name = "+-N", allow_hyphen_values = true)]
    pub shift_by: Option<i64>,
}

/// `worker offsets migrate`
#[derive(Debug, Args)]
pub struct Migrate {
    /// The configuration file; its multi_consumer_mode does not matter
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Which way.
    #[command(flatten)]
    pub way: Way,
    /// Where the target group has a lower offset of its own, take the source's, and pass over what lies between
    #[arg(long)]
    pub source_wins: bool,
    /// Do it
    #[arg(long)]
    pub execute: bool,
    /// Do it even if this worker runs, its state file can't be kept in line, or a group has members (which the broker
    /// may refuse itself)
    #[arg(long)]
    pub force: bool,
}

/// Which way offsets are taken over: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Way {
    /// From the shared group consumer.group_id into the topics' own groups (before multi_consumer_mode = true)
    #[arg(long)]
    pub to_per_topic: bool,
    /// From the topics' own groups into the shared group consumer.group_id (before multi_consumer_mode = false)
    #[arg(long)]
    pub to_shared: bool,
}
