//! The integration tests: one binary, its modules by what they prove.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chaos;
mod cli;
mod config;
mod delivery;
mod driver;
mod faults;
mod install;
mod lengths;
mod network;
mod out_of_range;
mod ports;
mod real_delivery;
mod real_faults;
mod real_groups;
mod real_kafka;
mod real_limits;
mod real_measure;
mod real_state;
mod rounds;
mod shutdown;
mod sinks;
mod start;
mod state;
mod support;
mod topics;
