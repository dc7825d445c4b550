//! Waiting for time to pass.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::Error;
use super::handle::{Due, TimerHandle};
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
    let timed = Timed::begin(duration)?;
    std::future::poll_fn(|context| timed.poll(context)).await;
    Ok(())
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
    let mut future = pin!(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(result) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(result));
        }
        timed.poll(context).map(|()| Err(Error::TimedOut))
    })
    .await
}

/// A timer that wakes. Dropping this cancels it.
struct Timed(TimerHandle);

impl Timed {
    fn begin(duration: Duration) -> Result<Self, Error> {
        let event_loop = get_running_loop()?;
        let when = event_loop.time() + duration.as_secs_f64();
        event_loop.set_timer(when, None).map(Self)
    }

    /// Ready when the time is over; until then whoever polled last is woken by that.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let timer = &self.0.0;
        if !timer.scheduled.get() {
            return Poll::Ready(());
        }
        let due = Some(Due::Wake(context.waker().clone()));
        let old = timer.callback.replace(due);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
