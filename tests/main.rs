//! The integration tests: one binary, its modules by what they prove.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config;
mod delivery;
mod real_kafka;
mod support;
