//! `worker`: arguments, logger, run, exit code.
fn main() {}
