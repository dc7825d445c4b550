//! When a writer is told to pause and to go on.

use std::fmt;

/// The high-water mark of a new transport, in bytes (asyncio's default).
pub const DEFAULT_HIGH: usize = 64 * 1024;

/// Two marks and whether the protocol has been paused: it is when more than `high` bytes wait to be sent, until no
/// more than `low` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowControl {
    high: usize,
    low: usize,
    paused: bool,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            high: DEFAULT_HIGH,
            low: DEFAULT_HIGH / 4,
            paused: false,
        }
    }
}

impl FlowControl {
    /// Sets the marks, in bytes. Without `high` it is four times `low`, without `low` it is a quarter of `high`,
    /// without either both have their defaults.
    ///
    /// # Errors
    /// If `high` is below `low`; nothing changes then.
    pub fn set_limits(&mut self, high: Option<usize>, low: Option<usize>) -> Result<(), InvalidLimits> {
        let high = high.unwrap_or_else(|| low.map_or(DEFAULT_HIGH, |low| low.saturating_mul(4)));
        let low = low.unwrap_or(high / 4);
        if high < low {
            return Err(InvalidLimits { high, low });
        }
        (self.high, self.low) = (high, low);
        Ok(())
    }

    /// The marks: low, then high, in bytes.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Whether so many bytes are above the high-water mark.
    #[must_use]
    pub fn is_above(&self, queued: usize) -> bool {
        queued > self.high
    }

    /// Whether the protocol has been told to pause.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Says whether to call `pause_writing` now that `queued` bytes wait, and notes that it was called.
    #[must_use]
    pub fn pause_at(&mut self, queued: usize) -> bool {
        let pause = !self.paused && queued > self.high;
        self.paused |= pause;
        pause
    }

    /// Says whether to call `resume_writing` now that `queued` bytes wait, and notes that it was called.
    #[must_use]
    pub fn resume_at(&mut self, queued: usize) -> bool {
        let resume = self.paused && queued <= self.low;
        self.paused &= !resume;
        resume
    }
}

/// Marks in the wrong order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLimits {
    /// The high-water mark, in bytes.
    pub high: usize,
    /// The low-water mark, in bytes.
    pub low: usize,
}

impl fmt::Display for InvalidLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words of stock asyncio, which programs and their tests compare.
        write!(
            formatter,
            "high ({}) must be >= low ({}) must be >= 0",
            self.high, self.low
        )
    }
}

impl std::error::Error for InvalidLimits {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_mark_gives_the_other() {
        let mut flow = FlowControl::default();
        flow.set_limits(Some(100), None).expect("100 >= 25");
        assert_eq!(flow.limits(), (25, 100));
        flow.set_limits(None, Some(10)).expect("40 >= 10");
        assert_eq!(flow.limits(), (10, 40));
        flow.set_limits(None, None).expect("the defaults are in order");
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
        assert_eq!(
            flow.set_limits(Some(1), Some(2)),
            Err(InvalidLimits { high: 1, low: 2 })
        );
        assert_eq!(flow.limits(), (16 * 1024, 64 * 1024));
    }

    proptest! {
        #[test]
        fn pauses_and_resumes_alternate(queued in prop::collection::vec(0usize..200, 0..100)) {
            let mut flow = FlowControl::default();
            flow.set_limits(Some(100), Some(50)).expect("100 >= 50");
            let mut paused = false;
            for queued in queued {
                prop_assert_eq!(flow.pause_at(queued), !paused && queued > 100);
                paused |= queued > 100;
                prop_assert_eq!(flow.resume_at(queued), paused && queued <= 50);
                paused &= queued > 50;
                prop_assert_eq!(flow.is_paused(), paused);
            }
        }

        #[test]
        fn marks_that_change_under_way_agree_with_a_naive_writer(
            steps in prop::collection::vec(
                (
                    prop::option::weighted(0.3, (prop::option::of(0usize..200), prop::option::of(0usize..200))),
                    0usize..200,
                ),
                0..100,
            ),
        ) {
            let mut flow = FlowControl::default();
            // The low mark and the high one.
            let mut marks = (16 * 1024, 64 * 1024);
            let mut paused = false;
            for (changed, queued) in steps {
                if let Some((high, low)) = changed {
                    let wanted = match (low, high) {
                        (None, None) => (16 * 1024, 64 * 1024),
                        (Some(low), None) => (low, low * 4),
                        (None, Some(high)) => (high / 4, high),
                        (Some(low), Some(high)) => (low, high),
                    };
                    let is_in_order = wanted.0 <= wanted.1;
                    prop_assert_eq!(flow.set_limits(high, low).is_ok(), is_in_order);
                    if is_in_order {
                        marks = wanted;
                    }
                }
                prop_assert_eq!(flow.limits(), marks);
                prop_assert_eq!(flow.is_above(queued), queued > marks.1);
                // Told once each way, and only where it says something new.
                let (was, full, drained) = (paused, queued > marks.1, queued <= marks.0);
                prop_assert_eq!(flow.pause_at(queued), full && !was);
                prop_assert_eq!(flow.resume_at(queued), drained && (was || full));
                paused = (was || full) && !drained;
                prop_assert_eq!(flow.is_paused(), paused);
            }
        }
    }
}
