//! `worker`: consumes many Kafka topics at once and delivers their records to sinks.

pub mod client;
pub mod record;
pub mod sink;
pub mod wire;
