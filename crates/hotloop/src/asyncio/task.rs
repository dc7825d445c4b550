//! Tasks: futures that the loop polls.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::error::{Error, Panic};
use super::event_loop::{BaseEventLoop, WeakLoop};
use super::handle::ThreadsafeHandle;
use super::host::{Callback, CallbackKey};
use super::reports::Report;
use super::running::on_own_thread;
use super::wakers::Wakers;

/// A future that runs on the loop by itself. Dropping this does not end it.
///
/// Awaiting it gives its result. Cancelling it drops its future on the next turn, wherever that waits.
///
/// ```
/// use std::future::pending;
/// use hotloop::asyncio::{Error, SelectorEventLoop};
/// let event_loop = SelectorEventLoop::new()?;
/// let task = event_loop.create_task(pending::<()>())?;
/// assert!(task.cancel());
/// assert!(matches!(event_loop.run_until_complete(task)?, Err(Error::Cancelled)));
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub struct Task<T>(Rc<dyn Awaited<T>>);

/// A task as whoever awaits it has it, without the type of its future.
trait Awaited<T> {
    fn state(&self) -> &TaskState<T>;
}

/// A task as the loop has it, without the types of its future and of its result.
pub(crate) trait Polled {
    /// Polls it once.
    fn step(&self, event_loop: &BaseEventLoop);

    /// Drops the future of a loop that is closed.
    fn discard(&self);
}

/// A task. The loop has it until it is done, and so has whoever awaits it.
struct TaskCell<T, F> {
    state: TaskState<T>,
    /// Taken while it is polled, and gone when it is done.
    future: RefCell<Option<Pin<Box<F>>>>,
}

struct TaskState<T> {
    /// Set when it is done, taken by whoever awaits it.
    outcome: RefCell<Option<Result<T, Error>>>,
    done: Cell<bool>,
    cancelled: Cell<bool>,
    cancel_requested: Cell<bool>,
    /// Who awaits it.
    wakers: RefCell<Wakers>,
    /// Scheduled when it is done.
    callbacks: RefCell<Vec<Box<dyn FnOnce()>>>,
    own: Arc<TaskWaker>,
    /// `own`, as futures are polled with it.
    waker: Waker,
    event_loop: WeakLoop,
}

/// Wakes a task: from the loop's own thread by its queue, from others by its inbox.
struct TaskWaker {
    key: CallbackKey,
    /// Raised when a poll is scheduled, taken down when it begins.
    scheduled: AtomicBool,
    threadsafe: ThreadsafeHandle,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let callback = Callback::Task(self.key);
        if !on_own_thread(&self.threadsafe, |engine| engine.call_soon(callback.clone())) {
            self.threadsafe.inbox.push(callback);
        }
    }
}

impl<T: 'static> Task<T> {
    pub(crate) fn spawn<F>(event_loop: &BaseEventLoop, future: F) -> Result<Self, Error>
    where
        F: Future<Output = T> + 'static,
    {
        event_loop.check_closed()?;
        let mut made = None;
        let key = event_loop.0.tasks.borrow_mut().insert_with(|key| {
            let own = Arc::new(TaskWaker {
                key,
                scheduled: AtomicBool::new(true),
                threadsafe: event_loop.threadsafe(),
            });
            let state = TaskState {
                outcome: RefCell::new(None),
                done: Cell::new(false),
                cancelled: Cell::new(false),
                cancel_requested: Cell::new(false),
                wakers: RefCell::default(),
                callbacks: RefCell::default(),
                waker: Waker::from(Arc::clone(&own)),
                own,
                event_loop: Rc::downgrade(&event_loop.0),
            };
            let future = RefCell::new(Some(Box::pin(future)));
            let cell = Rc::new(TaskCell { state, future });
            made = Some(Self(cell.clone()));
            cell
        });
        event_loop.with_engine(|engine| engine.call_soon(Callback::Task(key)))?;
        made.ok_or(Error::InvalidState)
    }

    pub(crate) fn take_result(&self) -> Option<Result<T, Error>> {
        self.0.state().outcome.borrow_mut().take()
    }
}

impl<T> Task<T> {
    /// Cancels it: its future is dropped on the next turn, and [`Error::Cancelled`] is its result. Answers false if it
    /// is done already.
    ///
    /// Rust has no exception to raise inside of a future, so unlike asyncio's a task cannot refuse to be cancelled: what
    /// it has to clean up belongs into `Drop`.
    ///
    /// ```
    /// use std::future::pending;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(pending::<()>())?;
    /// assert!(task.cancel());
    /// event_loop.run_until_complete(async {})?;
    /// assert!(task.is_cancelled() && !task.cancel());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn cancel(&self) -> bool {
        if self.is_done() {
            return false;
        }
        let state = self.0.state();
        state.cancel_requested.set(true);
        state.waker.wake_by_ref();
        true
    }

    /// Whether it has ended.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async {})?;
    /// assert!(!task.is_done());
    /// event_loop.run_until_complete(async {})?;
    /// assert!(task.is_done());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.state().done.get()
    }

    /// Whether it ended by [`cancel`](Self::cancel).
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async {})?;
    /// event_loop.run_until_complete(async {})?;
    /// assert!(task.is_done() && !task.is_cancelled());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.state().cancelled.get()
    }

    /// Schedules a callback for when it is done, on the next turn if it is already.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async {})?;
    /// let stopping = event_loop.clone();
    /// task.add_done_callback(move || stopping.stop());
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn add_done_callback(&self, callback: impl FnOnce() + 'static) {
        self.on_done(callback);
    }

    pub(crate) fn on_done(&self, callback: impl FnOnce() + 'static) {
        let state = self.0.state();
        if !self.is_done() {
            state.callbacks.borrow_mut().push(Box::new(callback));
        } else if let Some(event_loop) = state.event_loop.upgrade().map(BaseEventLoop) {
            drop(event_loop.call_soon(callback));
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let state = self.0.state();
        if state.done.get() {
            let outcome = state.outcome.borrow_mut().take();
            // Awaited once more: the result has been given.
            return Poll::Ready(outcome.unwrap_or(Err(Error::InvalidState)));
        }
        state.wakers.borrow_mut().add(context.waker());
        Poll::Pending
    }
}

impl<T> Drop for TaskState<T> {
    fn drop(&mut self) {
        if let Some(Err(Error::Panicked(panic))) = self.outcome.take()
            && let Some(event_loop) = self.event_loop.upgrade().map(BaseEventLoop)
        {
            event_loop.call_exception_handler(&Report {
                message: "Task exception was never retrieved".to_owned(),
                panic: Some(panic),
                error: None,
            });
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Task")
            .field("done", &self.is_done())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}

impl<T> TaskState<T> {
    /// It is done, by itself or not.
    fn end(&self, event_loop: &BaseEventLoop, outcome: Result<T, Error>) {
        let own = event_loop.0.tasks.borrow_mut().remove(self.own.key);
        self.cancelled.set(matches!(outcome, Err(Error::Cancelled)));
        let old = self.outcome.replace(Some(outcome));
        self.done.set(true);
        for callback in self.callbacks.take() {
            drop(event_loop.call_soon(callback));
        }
        self.wakers.take().wake();
        drop((old, own));
    }
}

impl<T, F> Awaited<T> for TaskCell<T, F> {
    fn state(&self) -> &TaskState<T> {
        &self.state
    }
}

impl<T, F: Future<Output = T>> Polled for TaskCell<T, F> {
    fn step(&self, event_loop: &BaseEventLoop) {
        let state = &self.state;
        state.own.scheduled.store(false, Ordering::Release);
        let Some(mut future) = self.future.borrow_mut().take() else {
            return;
        };
        if state.cancel_requested.get() {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
            state.end(
                event_loop,
                Err(dropped.map_or_else(panicked, |()| Error::Cancelled)),
            );
            return;
        }
        let mut context = Context::from_waker(&state.waker);
        let polled = event_loop.timed("task", || {
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)))
        });
        let outcome = match polled {
            Ok(Poll::Pending) => {
                *self.future.borrow_mut() = Some(future);
                return;
            }
            Ok(Poll::Ready(result)) => Ok(result),
            Err(payload) => Err(panicked(payload)),
        };
        event_loop.guard("the end of a task", || drop(future));
        state.end(event_loop, outcome);
    }

    fn discard(&self) {
        let future = self.future.borrow_mut().take();
        drop(future);
    }
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> Error {
    Error::Panicked(Panic::new(payload))
}
