//! The embedded broker: what a consumer sees of an Apache Kafka 3.9, faults included, inside the
//! process of a test or of the demo.
//!
//! In reading order:
//! - [`log`]: a partition's log as Kafka keeps it, and what a fetch reads from it. Pure;
//! - [`api`]: the requests that are served, in which versions, and what ApiVersions says of them;
//! - [`fault`]: what a test may order to go wrong;
//! - [`server`]: the brokers: TCP listeners over topics, logs and groups, and the handle to them.
//!
//! What always holds: a bad request closes its connection and never panics; nothing waits without
//! being woken by a change or by its deadline; all threads and sockets end with their [`Server`].

pub mod api;
pub mod fault;
pub mod log;
pub mod server;

mod request;
mod wire;

pub use api::{Api, Versions};
pub use fault::{Fault, Order, OrderId};
pub use log::{Codec, Log, NewRecord};
pub use server::{Error, Options, Server};
