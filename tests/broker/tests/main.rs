//! The embedded broker, seen by two clients that know nothing of it: the `kafka` crate, and
//! requests encoded by `kafka-protocol`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod against_kafka;
mod faults;
mod groups;
mod lifecycle;
mod metadata;
mod records;
mod support;
mod wire;
