//! `worker`: consumes many Kafka topics at once and delivers their records to sinks.

pub mod config;
pub mod plan;
pub mod record;
pub mod ticket;
pub mod client;
pub mod wire;
pub mod consumer;
pub mod dispatch;
pub mod lane;
pub mod sink;
pub mod supervisor;
pub mod backoff;
pub mod cmd;
