//! The embedded broker: what a consumer sees of an Apache Kafka 3.9, faults included, inside the
//! process of a test or of the demo.
//!
//! In reading order:
//! - [`log`]: a partition's log as Kafka keeps it, and what a fetch reads from it. Pure;
//! - [`api`]: the requests that are served, in which versions, and what ApiVersions says of them;
//! - [`fault`]: what a test may order to go wrong;
//! - [`server`]: the brokers: TCP listeners over topics, logs and groups, and the handle to them;
//! - [`scripted`]: a client of the worker over the same logs, without a network.
//!
//! What it answers to Fetch has been compared with an Apache Kafka 3.9.1, byte by byte
//! (`tests/against_kafka.rs`, which can be repeated at any time). What it does not do: Fetch 1 to 3,
//! joining a group, replication, and the internal topics; the first FindCoordinator of a new cluster,
//! which Kafka refuses with error 15, is answered here at once, unless that fault is ordered. A
//! log is one segment, and an append wakes every waiting fetch of the cluster, not only its own.
//!
//! What always holds: a bad request closes its connection and never panics; nothing waits without
//! being woken by a change or by its deadline; all threads and sockets end with their [`Server`].

pub mod api;
pub mod fault;
pub mod log;
pub mod scripted;
pub mod server;

mod request;
mod wire;

pub use api::{Api, Versions};
pub use fault::{Fault, Order, OrderId};
pub use log::{Codec, Log, NewRecord};
pub use server::{Error, Options, Server};
