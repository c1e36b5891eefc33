//! `worker`: arguments, command, exit code.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use worker::cmd;
use worker::cmd::diagnose;
use worker::cmd::lag::{self, Output};

/// Consumes many Kafka topics at once, one thread and one consumer group a topic, and delivers the
/// records to sinks. Offsets are committed only after delivery.
#[derive(Parser)]
#[command(name = "worker", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Run>,
}

#[derive(Args)]
struct Run {
    /// The configuration file, for instance etc/consumer.toml
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A level (error, warn, info, debug, trace) or a filter, before the configuration's log.level
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Subcommand)]
enum Command {
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match (arguments.command, arguments.run) {
        (Some(Command::Check { config }), _) => cmd::check::check(&config, &mut io::stdout(), &mut io::stderr()),
        (Some(Command::Lag { config, topics, json, watch, interval }), _) => {
            let output = if io::stdout().is_terminal() { Output::Terminal } else { Output::Lines };
            let options = lag::Options { config, topics, json, watch, interval };
            lag::lag(&options, output, &mut io::stdout(), &mut io::stderr())
        }
        (Some(Command::Diagnose { config, topics, look_for, json }), _) => {
            let options = diagnose::Options { config, topics, look_for, json };
            diagnose::diagnose(&options, &mut io::stdout(), &mut io::stderr())
        }
        (None, Some(run)) => cmd::run::run(&run.config, run.log_level.as_deref(), &mut io::stderr()),
        (None, None) => cmd::USAGE,
    };
    ExitCode::from(code)
}
