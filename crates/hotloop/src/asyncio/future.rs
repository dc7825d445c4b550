//! asyncio's future: a result that somebody sets later.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::error::Error;
use super::event_loop::{BaseEventLoop, WeakLoop};
use super::wakers::Wakers;

/// A result that is set once. Clones are the same future; each that awaits it gets a clone of the result.
///
/// ```
/// use hotloop::asyncio::{SelectorEventLoop, get_running_loop};
/// let event_loop = SelectorEventLoop::new()?;
/// let answer = event_loop.run_until_complete(async {
///     let event_loop = get_running_loop()?;
///     let future = event_loop.create_future();
///     let setter = future.clone();
///     event_loop.call_soon(move || setter.set_result(42).expect("nobody else sets it"))?;
///     future.await
/// })??;
/// assert_eq!(answer, 42);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub struct Future<T>(Rc<State<T>>);

struct State<T> {
    /// What became of it. Set once.
    outcome: RefCell<Option<Result<T, Gone>>>,
    /// Who awaits it.
    wakers: RefCell<Wakers>,
    /// Scheduled when it is done.
    callbacks: RefCell<Vec<Box<dyn FnOnce()>>>,
    event_loop: WeakLoop,
}

/// It was cancelled.
struct Gone;

impl BaseEventLoop {
    /// A future whose callbacks run on this loop.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// future.set_result(42)?;
    /// assert_eq!(event_loop.run_until_complete(future)??, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn create_future<T>(&self) -> Future<T> {
        Future(Rc::new(State {
            outcome: RefCell::new(None),
            wakers: RefCell::default(),
            callbacks: RefCell::default(),
            event_loop: Rc::downgrade(&self.0),
        }))
    }
}

impl BaseEventLoop {
    /// Waits until a transport that was opened just now has told its protocol so. If nobody waits for that any more,
    /// because the task was cancelled, `close` is called.
    pub(crate) async fn wait_begun(&self, close: impl FnOnce()) -> Result<(), Error> {
        let mut unless = Unless(Some(close));
        let called = self.create_future();
        let caller = called.clone();
        self.call_soon(move || drop(caller.set_result(())))?;
        called.await?;
        unless.0 = None;
        Ok(())
    }
}

/// Calls a closure when it is dropped, unless that was taken out before.
pub(crate) struct Unless<F: FnOnce()>(pub(crate) Option<F>);

impl<F: FnOnce()> Drop for Unless<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Future<T> {
    /// Sets the result.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if it is done already.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// future.set_result(1)?;
    /// assert!(future.set_result(2).is_err());
    /// assert_eq!(future.result()?, 1);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_result(&self, result: T) -> Result<(), Error> {
        self.settle(Ok(result)).map_err(|_| Error::InvalidState)
    }

    /// Cancels it. Answers false if it was done already.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future::<i32>();
    /// assert!(future.cancel() && future.is_cancelled());
    /// assert!(!future.cancel());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn cancel(&self) -> bool {
        self.settle(Err(Gone)).is_ok()
    }

    /// Whether it has a result or was cancelled.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// assert!(!future.is_done());
    /// future.set_result(42)?;
    /// assert!(future.is_done());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.outcome.borrow().is_some()
    }

    /// Whether it was cancelled.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// future.set_result(42)?;
    /// assert!(!future.is_cancelled());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0.outcome.borrow(), Some(Err(Gone)))
    }

    /// Schedules a callback for when it is done, on the next turn if it is already.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// let stopping = event_loop.clone();
    /// future.add_done_callback(move || stopping.stop());
    /// future.set_result(42)?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn add_done_callback(&self, callback: impl FnOnce() + 'static) {
        if self.is_done() {
            self.schedule(Box::new(callback));
        } else {
            self.0.callbacks.borrow_mut().push(Box::new(callback));
        }
    }

    /// Gives it its outcome; gives it back if there is one.
    fn settle(&self, outcome: Result<T, Gone>) -> Result<(), Result<T, Gone>> {
        if self.is_done() {
            return Err(outcome);
        }
        *self.0.outcome.borrow_mut() = Some(outcome);
        let callbacks = self.0.callbacks.take();
        for callback in callbacks {
            self.schedule(callback);
        }
        self.0.wakers.take().wake();
        Ok(())
    }

    fn schedule(&self, callback: Box<dyn FnOnce()>) {
        if let Some(event_loop) = self.0.event_loop.upgrade().map(BaseEventLoop) {
            // On a closed loop nothing runs any more.
            drop(event_loop.call_soon(callback));
        }
    }
}

impl<T: Clone> Future<T> {
    /// The result.
    ///
    /// # Errors
    /// [`Error::InvalidState`] if there is none yet, [`Error::Cancelled`].
    ///
    /// ```
    /// use hotloop::asyncio::Error;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let future = event_loop.create_future();
    /// assert!(matches!(future.result(), Err(Error::InvalidState)));
    /// future.set_result(42)?;
    /// assert_eq!(future.result()?, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn result(&self) -> Result<T, Error> {
        match &*self.0.outcome.borrow() {
            None => Err(Error::InvalidState),
            Some(Ok(result)) => Ok(result.clone()),
            Some(Err(Gone)) => Err(Error::Cancelled),
        }
    }
}

impl<T: Clone> std::future::Future for Future<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_done() {
            return Poll::Ready(self.result());
        }
        self.0.wakers.borrow_mut().add(context.waker());
        Poll::Pending
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Future")
            .field("done", &self.is_done())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
