//! When to look for events for a moment before going to sleep.
//!
//! To fall asleep and to be woken takes a processor some microseconds, and whoever waits for it several times that where
//! another processor has to be interrupted, as on a virtual machine. A peer that answers sooner is better waited for
//! awake. Whether one does can only be found out by looking, so that is tried now and then, and goes on for as long as
//! something comes; where that is less often than not, attempts grow rare. What is there at the first look does not
//! count: it would have ended a sleep at once. The trade is that of Karlin, Li, Manasse and Owicki, "Empirical Studies of
//! Competitive Spinning for a Shared-Memory Multiprocessor" (1991). A loop that has little to do sleeps for longer than
//! [`SHORT`] and is not tempted.

use std::io;
use std::time::{Duration, Instant};

/// How long to look: about what falling asleep and being woken costs the processor, 6 µs on the virtual machines of the
/// benchmarks. Whoever looks for as long as that, and then sleeps, has spent about twice what was needed. Many an answer over
/// the loopback interface takes longer than 3 µs there.
const LOOK: Duration = Duration::from_micros(8);

/// A sleep no longer than that may have been one in which something came within [`LOOK`]: the rest is the waking.
const SHORT: Duration = Duration::from_micros(100);

/// Short sleeps between attempts: at first, and at most. Spread over so many, an attempt that fails costs each 8 ns.
const FIRST_REST: u16 = 2;
const LONGEST_REST: u16 = 1024;

/// Whether the next wait looks before it sleeps.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// Short sleeps to come until the next attempt.
    rest: u16,
    /// How many there are to be when an attempt fails.
    next_rest: u16,
}

impl BusyPoll {
    pub(super) fn new() -> Self {
        Self {
            rest: FIRST_REST,
            next_rest: FIRST_REST,
        }
    }

    /// One that looks in the next wait.
    #[cfg(test)]
    pub(super) fn due() -> Self {
        Self {
            rest: 0,
            ..Self::new()
        }
    }

    /// Whether to look now. The last wait found `events`: where more than one comes at a time, sleeping gathers more of them.
    #[inline]
    pub(super) fn is_due(&self, events: usize, timeout: Option<Duration>) -> bool {
        self.rest == 0 && events <= 1 && timeout.is_none_or(|timeout| timeout > LOOK)
    }

    /// Asks again and again, until there is an answer or it is [`LOOK`] since looking has `begun`.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(super) fn look<T>(
        &mut self,
        begun: Instant,
        mut ask: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let first = ask()?;
        if first.is_some() {
            // That was there already: neither for nor against looking.
            return Ok(first);
        }
        loop {
            let answer = ask()?;
            if answer.is_some() {
                self.next_rest = (self.next_rest / 2).max(FIRST_REST);
                return Ok(answer);
            }
            if begun.elapsed() >= LOOK {
                self.rest = self.next_rest;
                self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
                return Ok(None);
            }
        }
    }

    /// A wait slept for so long until something came.
    pub(super) fn slept(&mut self, time: Duration) {
        if time <= SHORT {
            self.rest = self.rest.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short sleeps until it looks again.
    fn rest(busy_poll: &mut BusyPoll) -> u16 {
        let mut sleeps = 0;
        while !busy_poll.is_due(1, None) {
            busy_poll.slept(SHORT);
            sleeps += 1;
        }
        sleeps
    }

    /// Looks twice, at the end of the time for that.
    fn attempt(busy_poll: &mut BusyPoll, succeeds: bool) {
        let mut answers = [None, succeeds.then_some("an answer")].into_iter();
        let answer = busy_poll.look(Instant::now() - LOOK, || Ok(answers.next().flatten()));
        assert_eq!(answer.expect("nothing fails"), succeeds.then_some("an answer"));
        assert_eq!(answers.len(), 0);
    }

    #[test]
    fn it_asks_until_there_is_an_answer() {
        // An hour from now the time is not over.
        let begun = Instant::now() + Duration::from_secs(3600);
        let mut answers = [None, None, Some("an answer"), None].into_iter();
        let answer = BusyPoll::due().look(begun, || Ok(answers.next().flatten()));
        assert_eq!(answer.expect("nothing fails"), Some("an answer"));
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn what_was_there_before_is_no_success() {
        let mut busy_poll = BusyPoll::new();
        for expected in [2, 2, 4, 8, 16] {
            assert_eq!(rest(&mut busy_poll), expected);
            for _ in 0..100 {
                let answer = busy_poll.look(Instant::now(), || Ok(Some("an answer")));
                assert_eq!(answer.expect("nothing fails"), Some("an answer"));
                assert!(busy_poll.is_due(1, None));
            }
            attempt(&mut busy_poll, false);
        }
    }

    #[test]
    fn it_looks_on_for_as_long_as_something_comes() {
        let mut busy_poll = BusyPoll::new();
        assert_eq!(rest(&mut busy_poll), FIRST_REST);
        for _ in 0..1000 {
            attempt(&mut busy_poll, true);
            assert!(busy_poll.is_due(1, None));
        }
    }

    #[test]
    fn attempts_grow_rare_where_more_fail_than_succeed() {
        let mut busy_poll = BusyPoll::new();
        let rests = |busy_poll: &mut BusyPoll, outcomes: &str| -> Vec<u16> {
            let sleeps = |outcome| {
                let sleeps = rest(busy_poll);
                attempt(busy_poll, outcome == '+');
                sleeps
            };
            outcomes.chars().map(sleeps).collect()
        };
        let failed = rests(&mut busy_poll, "------------");
        assert_eq!(failed, [2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024]);
        assert_eq!(rests(&mut busy_poll, "+-+-+-"), [1024, 0, 512, 0, 512, 0]);
        assert_eq!(
            rests(&mut busy_poll, "++++++++++-"),
            [512, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(rests(&mut busy_poll, "-+"), [2, 4]);
    }

    #[test]
    fn a_loop_whose_sleeps_are_long_never_looks() {
        let mut busy_poll = BusyPoll::new();
        for _ in 0..100_000 {
            busy_poll.slept(SHORT + Duration::from_nanos(1));
            assert!(!busy_poll.is_due(1, None));
        }
    }

    #[test]
    fn it_looks_neither_past_the_next_timer_nor_where_many_events_come_at_once() {
        let mut busy_poll = BusyPoll::new();
        rest(&mut busy_poll);
        assert!(busy_poll.is_due(0, Some(Duration::from_secs(1))));
        assert!(!busy_poll.is_due(2, None));
        assert!(!busy_poll.is_due(1, Some(LOOK)));
        assert!(!busy_poll.is_due(1, Some(Duration::ZERO)));
    }
}
