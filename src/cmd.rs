//! The commands of the program, one a file. Each takes what was given on the command line and its
//! output, and returns the exit code.

mod ask;
pub mod check;
pub mod diagnose;
pub mod dlq;
pub mod lag;
pub mod offsets;
pub mod run;
mod table;

/// Exit code: the command did what it was asked.
pub const OK: u8 = 0;
/// Exit code: it failed.
pub const FAILURE: u8 = 1;
/// Exit code: the command line or the configuration is wrong.
pub const USAGE: u8 = 2;
