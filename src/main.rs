//! `worker`: arguments, command, exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use worker::cmd;

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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match (arguments.command, arguments.run) {
        (Some(Command::Check { config }), _) => cmd::check::check(&config, &mut io::stdout(), &mut io::stderr()),
        (None, Some(run)) => cmd::run::run(&run.config, run.log_level.as_deref(), &mut io::stderr()),
        (None, None) => cmd::USAGE,
    };
    ExitCode::from(code)
}
