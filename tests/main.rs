//! The integration tests: one binary, its modules by what they prove.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod admin_page;
mod chaos;
mod cli;
mod commits;
mod config;
mod delivery;
mod diagnose;
mod dlq;
mod driver;
mod embed;
mod exec;
mod exec_ends;
mod faults;
mod hangs;
mod http_sink;
mod install;
#[cfg(feature = "librdkafka")]
mod kafka_sink;
mod lag;
mod lengths;
mod log_lines;
mod manual;
mod memory;
mod network;
mod notify;
mod offsets;
mod out_of_range;
mod policies;
mod portions;
mod ports;
#[cfg(feature = "librdkafka")]
mod real_auto;
#[cfg(feature = "librdkafka")]
mod real_dead_letters;
mod real_delivery;
mod real_diagnose;
mod real_faults;
mod real_groups;
mod real_handlers;
mod real_kafka;
#[cfg(feature = "librdkafka")]
mod real_kafka_sink;
mod real_lag;
#[cfg(feature = "librdkafka")]
mod real_librdkafka;
mod real_limits;
mod real_measure;
#[cfg(feature = "librdkafka")]
mod real_membership;
mod real_memory;
mod real_offsets;
mod real_portions;
mod real_reload;
#[cfg(feature = "librdkafka")]
mod real_security;
#[cfg(feature = "librdkafka")]
mod real_shapes;
#[cfg(feature = "librdkafka")]
mod real_starts;
mod real_state;
mod reload;
mod rounds;
mod services;
mod shutdown;

mod sinks;
mod slow_sinks;
mod start;
mod state;
mod support;
mod topics;
mod topics_regex;
mod watchdog;
