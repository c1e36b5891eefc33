//! `worker`: consumes many Kafka topics at once and delivers their records to sinks.

pub mod backoff;
pub mod client;
pub mod cmd;
pub mod config;
pub mod consumer;
pub mod dispatch;
pub mod lane;
pub mod plan;
pub mod record;
pub mod sink;
pub mod supervisor;
pub mod ticket;
pub mod wire;
