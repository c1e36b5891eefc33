//! `worker`: arguments, command, exit code.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use worker::cli::{Arguments, Command};
use worker::cmd;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let code = match (arguments.command, arguments.run) {
        (Some(Command::Check { config }), _) => cmd::check::check(&config, &mut io::stdout(), &mut io::stderr()),
        (Some(Command::Offsets(command)), _) => cmd::offsets::offsets(&command, &mut io::stdout(), &mut io::stderr()),
        (None, Some(run)) => cmd::run::run(&run, &mut io::stderr()),
        (None, None) => cmd::USAGE,
    };
    ExitCode::from(code)
}
