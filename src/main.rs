//! `worker`: arguments, command, exit code.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser;
use worker::cli::{Arguments, Command};
use worker::cmd;
use worker::cmd::diagnose;
use worker::cmd::lag::{self, Output};

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
        (Some(Command::Offsets(command)), _) => cmd::offsets::offsets(&command, &mut io::stdout(), &mut io::stderr()),
        (None, Some(run)) => cmd::run::run(&run, &mut io::stderr()),
        (None, None) => cmd::USAGE,
    };
    ExitCode::from(code)
}
