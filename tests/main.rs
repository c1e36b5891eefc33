//! The integration tests: one binary, its modules by what they prove.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config;
mod delivery;
mod real_delivery;
mod real_faults;
mod real_groups;
mod real_kafka;
mod real_measure;
mod support;
