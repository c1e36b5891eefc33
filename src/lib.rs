//! `worker`: consumes many Kafka topics at once, one plain OS thread and one consumer group a topic,
//! and delivers their records to sinks. An offset is committed only after the records below it have
//! been delivered. There is no async runtime in it.
//!
//! ```text
//! consumer thread:  client.poll → tracker.deliver → deliveries.send
//! dispatcher:       receive → gate → route → lane.send
//! sink lane:        sink.write → sink.flush → ticket done
//! consumer thread:  acks.recv → tracker.ack → tracker.committable → client.commit
//! ```
//!
//! In reading order: [`record`] and [`ticket`] are what travels; [`client`] is the seam to a Kafka
//! library, with [`wire`] for what such a library can't ask
//! without harm; [`consumer`] decides what to fetch, deliver and commit; [`dispatch`], [`lane`] and
//! [`sink`] are the way out; [`memory`] is what all consumers share; [`config`] and [`plan`] say what is
//! to run, [`supervisor`] runs it, and [`cmd`] is what the command line calls; [`progress`] is what the
//! threads tell of themselves. [`embed`] is for programs that have the worker inside.
//!
//! The invariants stand in each module's first paragraph, and all of them in ARCHITECTURE.md.

pub mod admin;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod cmd;
pub mod config;
pub mod consumer;
pub mod dead_letter;
pub mod discover;
pub mod dispatch;
pub mod embed;
pub mod failure;
pub mod lane;
pub mod logging;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod progress;
pub mod record;
pub mod sample;
pub mod sink;
pub mod state;
pub mod supervisor;
pub mod ticket;
pub mod trend;
pub mod trouble;
pub mod verdict;
pub mod wire;

pub use embed::Worker;
