//! What happens on the way, and by which chance.

use std::io;
use std::ops::Range;
use std::time::Duration;

/// What a lost piece waits before it is sent again the first time, in seconds: TCP's least.
const RETRANSMISSION: f64 = 0.2;

/// What a simulated network does to connections. Chances are between 0 and 1.
///
/// Streams stay streams: bytes arrive once and in order, or the connection breaks.
///
/// ```
/// use std::time::Duration;
/// use hotloop::testing::Faults;
/// let slow_and_unreliable = Faults {
///     delay: (Duration::ZERO, Duration::from_millis(50)),
///     reset: 0.01,
///     ..Faults::default()
/// };
/// # assert!(slow_and_unreliable.refuse == 0.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// How long a piece of a stream is under way: drawn between the two for each.
    pub delay: (Duration, Duration),
    /// The chance that a piece is lost. It is sent again, which takes time: 0.2 s, and twice as long each time.
    pub loss: f64,
    /// The chance that a piece breaks the connection: both ends hear of a reset.
    pub reset: f64,
    /// The chance that a connection is refused although somebody listens.
    pub refuse: f64,
    /// The largest piece, in bytes: a stream is cut at places drawn from 1 to here. 0: it is not cut.
    pub split: usize,
}

impl Faults {
    /// Looks whether all of it makes sense.
    ///
    /// # Errors
    /// `InvalidInput`, and what does not.
    pub fn check(&self) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.delay.0 > self.delay.1 {
            return refuse("the delay must be two times in order");
        }
        let chances = [self.loss, self.reset, self.refuse];
        if !chances.iter().all(|chance| (0.0..=1.0).contains(chance)) {
            return refuse("a chance must be between 0 and 1");
        }
        if self.loss == 1.0 {
            return refuse("the loss must be less than 1, or nothing would ever arrive");
        }
        Ok(())
    }
}

/// A seed, what was drawn from it so far, and the faults that are drawn.
#[derive(Debug)]
pub struct Chance {
    generator: fastrand::Rng,
    /// What happens from now on.
    pub faults: Faults,
}

impl Chance {
    /// The chance of a seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            generator: fastrand::Rng::with_seed(seed),
            faults,
        }
    }

    /// A number of a range, each as likely as the others. Of an empty range it is the start.
    pub fn draw(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return range.start;
        }
        self.generator.u64(range)
    }

    /// Whether something of that chance happens.
    pub fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.generator.f64() < chance
    }

    /// Puts things in an order of chance.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.generator.shuffle(items);
    }

    /// How long a piece is under way, in seconds: with its losses.
    pub(super) fn delay(&mut self) -> f64 {
        let (low, high) = self.faults.delay;
        let mut delay = low.as_secs_f64();
        if high > low {
            delay += self.generator.f64() * (high - low).as_secs_f64();
        }
        let mut again = RETRANSMISSION;
        while self.happens(self.faults.loss) {
            delay += again;
            again *= 2.0;
        }
        delay
    }

    /// How many of so many bytes travel as one piece: at least one.
    pub(super) fn piece(&mut self, length: usize) -> usize {
        match self.faults.split {
            0 => length,
            split => length.min(self.generator.usize(1..=split)),
        }
    }
}
