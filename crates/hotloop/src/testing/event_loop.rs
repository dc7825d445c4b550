//! The loop on virtual time.

use std::io;
use std::ops::{Deref, Range};
use std::rc::Rc;

use super::{Faults, Outside};
use crate::asyncio::BaseEventLoop;
use crate::clock::Manual;
use crate::driver::AnyDriver;
use crate::driver::sim::{Chance, Network, Sim, Threads};

/// A loop whose time stands still while anything is ready, and else jumps to what comes next. Clones are the same loop.
///
/// Where nothing is ready and nothing will come, a run ends with an error of the kind `TimedOut`: it would wait for ever.
///
/// ```
/// use std::future::pending;
/// use hotloop::testing::EventLoop;
/// let event_loop = EventLoop::new(7)?;
/// let waited = event_loop.run_until_complete(pending::<()>());
/// assert!(waited.is_err_and(|error| error.to_string().contains("nothing will ever happen")));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EventLoop {
    base: BaseEventLoop,
    network: Network,
    threads: Threads,
    seed: u64,
}

impl EventLoop {
    /// A loop on a perfect network.
    ///
    /// # Errors
    /// The system's: no descriptor left.
    pub fn new(seed: u64) -> io::Result<Self> {
        Self::with_faults(seed, Faults::default())
    }

    /// A loop on a network with faults.
    ///
    /// # Errors
    /// `InvalidInput` for faults that make no sense; the system's.
    ///
    /// ```
    /// use hotloop::testing::{EventLoop, Faults};
    /// assert!(EventLoop::with_faults(7, Faults { loss: 2.0, ..Faults::default() }).is_err());
    /// ```
    pub fn with_faults(seed: u64, faults: Faults) -> io::Result<Self> {
        faults.check()?;
        let clock = Manual::default();
        let network = Network::wired(Chance::new(seed, faults))?;
        let (sim, threads) = Sim::with_threads(network.clone(), clock.clone())?;
        let driver = AnyDriver::Sim(Box::new(sim));
        Ok(Self {
            base: BaseEventLoop::with_clock(driver, Rc::new(clock), Some(threads.clone())),
            network,
            threads,
            seed,
        })
    }

    /// What chance depends on.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Draws a number of a range, each as likely as the others, from the seed. Of an empty range it is the start.
    ///
    /// ```
    /// use hotloop::testing::EventLoop;
    /// let (one, other) = (EventLoop::new(7)?, EventLoop::new(7)?);
    /// assert_eq!(one.draw(0..1_000_000), other.draw(0..1_000_000));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn draw(&self, range: Range<u64>) -> u64 {
        let start = range.start;
        let drawn = self.network.with_chance(|chance| chance.draw(range));
        drawn.unwrap_or(start)
    }

    /// Sets what the network does from now on.
    ///
    /// # Errors
    /// `InvalidInput` for faults that make no sense; nothing changes then.
    pub fn set_faults(&self, faults: Faults) -> io::Result<()> {
        faults.check()?;
        self.network.with_chance(|chance| chance.faults = faults);
        Ok(())
    }

    /// Breaks every connection: both ends hear of a reset.
    pub fn reset_all(&self) {
        self.network.reset_all();
    }

    /// How many ends of connections are open, those included that nobody has accepted yet.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.network.open_ends()
    }

    /// Has the time stand still until what this answers is dropped: for a thread that calls the loop when it is done.
    ///
    /// ```
    /// use hotloop::testing::EventLoop;
    /// let event_loop = EventLoop::new(7)?;
    /// let (outside, stopper) = (event_loop.outside(), event_loop.stopper());
    /// let thread = std::thread::spawn(move || {
    ///     stopper.stop();
    ///     drop(outside);
    /// });
    /// event_loop.run_forever()?;
    /// thread.join().expect("it does not panic");
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn outside(&self) -> Outside {
        self.threads.hold()
    }
}

impl Deref for EventLoop {
    type Target = BaseEventLoop;
    fn deref(&self) -> &BaseEventLoop {
        &self.base
    }
}

impl From<EventLoop> for BaseEventLoop {
    fn from(event_loop: EventLoop) -> Self {
        event_loop.base
    }
}
