//! `worker`: consumes many Kafka topics at once and delivers their records to sinks.

pub mod client;
pub mod cmd;
pub mod config;
pub mod record;
pub mod sink;
