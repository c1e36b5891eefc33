//! `worker`: arguments, command, exit code.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Parser;
use worker::cli::{Arguments, Command};
use worker::cmd;
use worker::cmd::diagnose;
use worker::cmd::lag::{self, Output};

fn main() {
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
        (Some(Command::Dlq(command)), _) => cmd::dlq::dlq(&command, &mut io::stdout(), &mut io::stderr()),
        (None, Some(run)) => cmd::run::run(&run, &mut io::stderr()),
        (None, None) => cmd::USAGE,
    };
    leave(code)
}

/// Ends the process without the exit handlers of C libraries: they take apart what a thread of librdkafka or OpenSSL
/// that could not be waited for (a broker or a name server does not answer) still uses, and that is a crash in place
/// of an exit code.
fn leave(code: u8) -> ! {
    worker::sink::exec::kill_left();
    // Nobody is there to be told that it can't be written.
    let _ = (io::stdout().flush(), io::stderr().flush());
    signal_hook::low_level::exit(code.into())
}
