//! How long to wait before the next try. Pure but for the jitter's seed.
//!
//! The wait doubles from `first` to `longest`, less a random part of up to a half, so that six
//! hundred consumers whose broker went away do not all come back in the same millisecond.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A growing, bounded, jittered wait.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// Starts at `first`, never exceeds `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        // The standard library's hasher keys are the process's own source of randomness.
        Self { first, longest, tries: 0, random: RandomState::new().hash_one(0u8) | 1 }
    }

    /// The wait before the next try: between half and all of the doubled one.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        // xorshift64: even enough for jitter, and nothing here needs more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(0.5 + (self.random % 1000) as f64 / 2000.0)
    }

    /// It worked: the next trouble starts with a short wait again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_longest_and_stays_within_the_half_below_it() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for full in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let wait = backoff.next_wait();
            assert!(full / 2 <= wait && wait <= full, "{wait:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }
}
