//! What only a real Apache Kafka can say.

use std::time::{Duration, Instant};

mod fixture;
mod wire;

/// Asks until it is so; fails loudly when it does not become so in a minute.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
