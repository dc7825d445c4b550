//! Running programs in virtual time, with one seed or many.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{EventLoop, Faults};
use crate::asyncio::{Error, Panic};

/// The environment variable that has a simulation run one seed.
const VARIABLE: &str = "HOTLOOP_SEED";

/// Runs a future in virtual time, on a new loop with a perfect network, and closes that.
///
/// # Errors
/// As of [`run_until_complete`](crate::asyncio::BaseEventLoop::run_until_complete).
///
/// # Panics
/// If the future does.
///
/// ```
/// use std::{future::pending, time::Duration};
/// use hotloop::asyncio::{Error, timeout};
/// let hour = Duration::from_secs(3600);
/// let waited = hotloop::testing::run(1, timeout(hour, pending::<()>()))?;
/// assert!(matches!(waited, Err(Error::TimedOut)));
/// # Ok::<(), Error>(())
/// ```
pub fn run<F>(seed: u64, future: F) -> Result<F::Output, Error>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let event_loop = EventLoop::new(seed)?;
    let result = event_loop.run_until_complete(future);
    event_loop.close()?;
    result
}

/// Runs a program once for each seed, on a new loop each time. The first that fails, by an error or a panic, ends that.
///
/// The environment variable `HOTLOOP_SEED` has one seed in the place of all.
///
/// # Errors
/// What has failed, and with which seed. Its text says how to run that again.
///
/// ```
/// use hotloop::asyncio::Error;
/// use hotloop::testing::{self, Faults};
/// let failed = testing::simulate(0..100, &Faults::default(), |event_loop| async move {
///     assert!(event_loop.draw(0..10) != 3, "three came up");
///     Ok::<(), Error>(())
/// });
/// let failed = failed.expect_err("one of a hundred draws a three");
/// assert!(failed.to_string().contains("three came up"));
/// assert!(failed.to_string().contains(&format!("HOTLOOP_SEED={}", failed.seed)));
/// ```
pub fn simulate<Program, Run, Problem>(
    seeds: impl IntoIterator<Item = u64>,
    faults: &Faults,
    program: Program,
) -> Result<(), Failed>
where
    Program: Fn(EventLoop) -> Run,
    Run: Future<Output = Result<(), Problem>> + 'static,
    Problem: Into<Box<dyn std::error::Error>> + 'static,
{
    let given = std::env::var(VARIABLE).ok();
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        let refused = |error| Failed {
            seed: 0,
            error: io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{VARIABLE}={given}: {error}"),
            )
            .into(),
        };
        let seed = given.parse().map_err(refused)?;
        return run_one(seed, faults, &program);
    }
    seeds
        .into_iter()
        .try_for_each(|seed| run_one(seed, faults, &program))
}

fn run_one<Program, Run, Problem>(seed: u64, faults: &Faults, program: &Program) -> Result<(), Failed>
where
    Program: Fn(EventLoop) -> Run,
    Run: Future<Output = Result<(), Problem>> + 'static,
    Problem: Into<Box<dyn std::error::Error>> + 'static,
{
    let fail = |error: Box<dyn std::error::Error>| Failed { seed, error };
    let event_loop = EventLoop::with_faults(seed, faults.clone()).map_err(|error| fail(error.into()))?;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        event_loop.run_until_complete(program(event_loop.clone()))
    }));
    let closed = event_loop.close();
    match ran {
        Err(payload) => Err(fail(Error::Panicked(Panic::new(payload)).into())),
        Ok(Err(error)) => Err(fail(error.into())),
        Ok(Ok(Err(problem))) => Err(fail(problem.into())),
        Ok(Ok(Ok(()))) => closed.map_err(|error| fail(error.into())),
    }
}

/// A simulation that failed.
pub struct Failed {
    /// The seed it failed with.
    pub seed: u64,
    /// What has failed.
    pub error: Box<dyn std::error::Error>,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, error } = self;
        write!(formatter, "{error} ({VARIABLE}={seed} runs it again as it was)")
    }
}

/// As the text for people, since that is what a test that answers an error prints.
impl fmt::Debug for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}
