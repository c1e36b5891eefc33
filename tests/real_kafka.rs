//! What only a real Apache Kafka can say.

use std::time::Duration;

mod fixture;
mod wire;

/// Asks until it is so; fails loudly when it does not become so in a minute.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    crate::support::eventually_within(Duration::from_secs(60), what, holds);
}
