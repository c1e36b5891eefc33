//! What the tests stand on.

pub mod kafka;
pub mod worker;
