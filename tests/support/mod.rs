//! What the tests stand on.

pub mod bed;
pub mod browser;
pub mod http;
pub mod install;
pub mod kafka;
pub mod on;
pub mod proxy;
pub mod web;
pub mod worker;

use std::time::Instant;

/// Waits until it is so, by asking again and again: for what has no event of its own.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(worker::PATIENCE, what, holds);
}

/// The same, with a time of its own.
#[track_caller]
pub fn eventually_within(time: std::time::Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come about: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
