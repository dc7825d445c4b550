//! Where a loop's time comes from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// A clock that never goes backwards, in seconds since a fixed, unnamed point.
///
/// Seconds are `f64` because that is what asyncio's `loop.time()` answers; 2^53 nanoseconds are 104 days, so a machine
/// that has been up for years still tells microseconds apart.
pub trait Clock {
    /// Seconds now.
    fn now(&self) -> f64;
}

/// The clock of the operating system that Python's `time.monotonic()` reads too (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    #[inline]
    fn now(&self) -> f64 {
        // One rounding only, as CPython does it: through whole nanoseconds, then one division.
        sys::monotonic_nanoseconds() as f64 / 1e9
    }
}

/// A clock that moves only when it is told to: for tests and simulations. Clones share one time.
#[derive(Clone, Debug, Default)]
pub struct Manual {
    /// The bits of the seconds. Set by `advance` and `set`, read by everyone.
    now: Arc<AtomicU64>,
}

impl Manual {
    /// Moves the time on by `seconds`.
    pub fn advance(&self, seconds: f64) {
        self.set(self.now() + seconds);
    }

    /// Moves the time to `now`; a time in the past is ignored, since the clock never goes back.
    pub fn set(&self, now: f64) {
        if now > self.now() {
            self.now.store(now.to_bits(), Ordering::Relaxed);
        }
    }
}

impl Clock for Manual {
    fn now(&self) -> f64 {
        f64::from_bits(self.now.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_does_not_go_back() {
        let first = Monotonic.now();
        assert!(Monotonic.now() >= first);
    }

    #[test]
    fn manual_moves_only_forward_and_is_shared() {
        let clock = Manual::default();
        let twin = clock.clone();
        clock.advance(2.5);
        clock.set(1.0);
        assert_eq!(twin.now(), 2.5);
    }
}
