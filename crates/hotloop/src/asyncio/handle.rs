//! What `call_soon`, `call_later` and `call_soon_threadsafe` answer.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use super::error::Error;
use super::event_loop::LoopState;
use super::host::{Callback, CallbackKey, Engine, Sent};
use crate::driver::{AnyDriver, Driver};
use crate::inbox::Inbox;

/// A callback that was scheduled by [`call_soon`](super::BaseEventLoop::call_soon).
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let handle = event_loop.call_soon(|| unreachable!("it was cancelled"))?;
/// handle.cancel();
/// assert!(handle.is_cancelled());
/// event_loop.run_until_complete(async {})?;
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub struct Handle {
    pub(crate) key: CallbackKey,
    pub(crate) event_loop: Weak<LoopState>,
    pub(crate) cancelled: Cell<bool>,
}

impl Handle {
    /// Has the callback not run. After it has run this does nothing.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let handle = event_loop.call_soon(|| unreachable!("it was cancelled"))?;
    /// handle.cancel();
    /// event_loop.run_until_complete(async {})?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(event_loop) = self.event_loop.upgrade() {
            let callback = event_loop.callbacks.borrow_mut().remove(self.key);
            drop(callback);
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let handle = event_loop.call_soon(|| {})?;
    /// assert!(!handle.is_cancelled());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = &self.cancelled.get();
        formatter
            .debug_struct("Handle")
            .field("cancelled", cancelled)
            .finish()
    }
}

/// A callback that was scheduled for a time. Clones are the same one.
///
/// ```
/// use std::time::Duration;
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let timer = event_loop.call_later(Duration::from_secs(3600), || {})?;
/// assert!(timer.when() > event_loop.time());
/// timer.cancel();
/// assert!(timer.is_cancelled());
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct TimerHandle(pub(crate) Rc<Timer>);

pub(crate) struct Timer {
    /// Seconds of the loop's clock.
    pub(crate) when: f64,
    /// Taken when it runs or is cancelled.
    pub(crate) callback: RefCell<Option<Due>>,
    pub(crate) cancelled: Cell<bool>,
    /// Whether it is in the heap. Set when it is scheduled, taken down when it comes out.
    pub(crate) scheduled: Cell<bool>,
    pub(crate) event_loop: Weak<LoopState>,
}

/// What a timer does.
pub(crate) enum Due {
    Call(Box<dyn FnOnce()>),
    /// Wakes whoever sleeps.
    Wake(Waker),
}

impl TimerHandle {
    /// Has the callback not run. After it has run this does nothing.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let timer = event_loop.call_at(0.0, || unreachable!("it was cancelled"))?;
    /// timer.cancel();
    /// event_loop.run_until_complete(async {})?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn cancel(&self) {
        if self.0.cancelled.replace(true) {
            return;
        }
        let callback = self.0.callback.borrow_mut().take();
        drop(callback);
        if self.0.scheduled.get()
            && let Some(event_loop) = self.0.event_loop.upgrade()
            && let Some(engine) = event_loop.engine.borrow_mut().as_mut()
        {
            engine.timers().note_cancelled();
            // What it called is gone: dropping the rest runs nothing.
            drop(engine.timers().take_last(|last| Rc::ptr_eq(&last.0, &self.0)));
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let timer = event_loop.call_at(0.0, || {})?;
    /// assert!(!timer.is_cancelled());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.get()
    }

    /// When it is due, in seconds of the loop's [`time`](super::BaseEventLoop::time).
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert_eq!(event_loop.call_at(7.5, || {})?.when(), 7.5);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn when(&self) -> f64 {
        self.0.when
    }
}

impl fmt::Debug for TimerHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TimerHandle")
            .field("when", &self.0.when)
            .field("cancelled", &self.0.cancelled.get())
            .finish()
    }
}

/// The way into a loop for other threads. It outlives the loop.
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let threadsafe = event_loop.threadsafe();
/// event_loop.close()?;
/// assert!(threadsafe.call_soon_threadsafe(|| {}).is_err());
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct ThreadsafeHandle {
    pub(crate) inbox: Arc<Inbox<Callback, <AnyDriver as Driver>::Waker>>,
    pub(crate) closed: Arc<AtomicBool>,
}

impl ThreadsafeHandle {
    pub(crate) fn new(engine: &Engine) -> Self {
        Self {
            inbox: engine.inbox(),
            closed: Arc::default(),
        }
    }

    /// Runs `callback` in the loop's thread, on its next turn. What one thread schedules runs in that order.
    ///
    /// # Errors
    /// [`Error::Closed`] once the loop is closed. What was scheduled just before may never run, as with asyncio.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (threadsafe, stopping) = (event_loop.threadsafe(), event_loop.stopper());
    /// let thread = std::thread::spawn(move || threadsafe.call_soon_threadsafe(move || stopping.stop()));
    /// event_loop.run_forever()?;
    /// thread.join().expect("the thread has called")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_soon_threadsafe(&self, callback: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        self.inbox
            .push(Callback::Sent(Arc::new(Sent::new(Box::new(callback)))));
        Ok(())
    }
}

impl ThreadsafeHandle {
    /// Runs a closure that the loop keeps, unless that is gone by then.
    pub(crate) fn call_local(&self, key: CallbackKey) {
        self.inbox.push(Callback::Local(key));
    }
}

impl fmt::Debug for ThreadsafeHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ThreadsafeHandle")
    }
}

/// Stops a loop, from any thread.
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let stopper = event_loop.stopper();
/// let thread = std::thread::spawn(move || stopper.stop());
/// event_loop.run_forever()?;
/// thread.join().expect("it does not panic");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stopper {
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) threadsafe: ThreadsafeHandle,
}

impl Stopper {
    /// As [`BaseEventLoop::stop`](super::BaseEventLoop::stop): the turn under way is the last one.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.stopper().stop();
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.threadsafe.inbox.wake();
    }
}
