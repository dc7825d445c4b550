//! Waiting for time to pass.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::Error;
use super::future::Future as Outcome;
use super::handle::TimerHandle;
use super::running::get_running_loop;

/// Waits for some time on the running loop.
///
/// # Errors
/// [`Error::NotRunning`] outside of a loop.
///
/// ```
/// use std::time::Duration;
/// use hotloop::asyncio::{SelectorEventLoop, sleep};
/// let event_loop = SelectorEventLoop::new()?;
/// event_loop.run_until_complete(sleep(Duration::from_millis(1)))??;
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub async fn sleep(duration: Duration) -> Result<(), Error> {
    Timed::begin(duration)?.future.clone().await
}

/// Gives a future so much time, and drops it then.
///
/// # Errors
/// [`Error::TimedOut`]; [`Error::NotRunning`] outside of a loop.
///
/// ```
/// use std::{future, time::Duration};
/// use hotloop::asyncio::{Error, SelectorEventLoop, timeout};
/// let event_loop = SelectorEventLoop::new()?;
/// let waited = event_loop.run_until_complete(timeout(Duration::from_millis(1), future::pending::<()>()))?;
/// assert!(matches!(waited, Err(Error::TimedOut)));
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Error> {
    let timed = Timed::begin(duration)?;
    let mut over = timed.future.clone();
    let mut future = pin!(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(result) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(result));
        }
        Pin::new(&mut over).poll(context).map(|_| Err(Error::TimedOut))
    })
    .await
}

/// A future that a timer resolves. Dropping this cancels the timer.
struct Timed {
    future: Outcome<()>,
    timer: TimerHandle,
}

impl Timed {
    fn begin(duration: Duration) -> Result<Self, Error> {
        let event_loop = get_running_loop()?;
        let future = event_loop.create_future();
        let setter = future.clone();
        let timer = event_loop.call_later(duration, move || drop(setter.set_result(())))?;
        Ok(Self { future, timer })
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.timer.cancel();
    }
}
