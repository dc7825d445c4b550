//! Tasks: futures that the loop polls.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::error::{Error, Panic};
use super::event_loop::{BaseEventLoop, WeakLoop};
use super::handle::ThreadsafeHandle;
use super::host::{Callback, CallbackKey};
use super::reports::Report;
use super::running::on_own_thread;

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
pub struct Task<T>(Rc<TaskState<T>>);

struct TaskState<T> {
    /// Set when it is done, taken by whoever awaits it.
    outcome: RefCell<Option<Result<T, Error>>>,
    shared: Rc<Ended>,
    /// Gone with its end or that of the loop, which owns it: its own `end` owns this.
    cell: RefCell<Weak<TaskCell>>,
    event_loop: WeakLoop,
}

/// The end of a task, without its result.
#[derive(Default)]
struct Ended {
    done: Cell<bool>,
    cancelled: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
    callbacks: RefCell<Vec<Box<dyn FnOnce()>>>,
}

/// A task as the loop has it: what to poll, without the type of its result.
pub(crate) struct TaskCell {
    /// Taken while it is polled, and gone when it is done.
    future: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    waker: Arc<TaskWaker>,
    /// Called once, with why it ended if it did not end by itself.
    end: Box<End>,
    cancel_requested: Cell<bool>,
}

/// Ends a task: by an error, or as it has ended itself.
type End = dyn Fn(&BaseEventLoop, Option<Error>);

/// Wakes a task: from the loop's own thread by its queue, from others by its inbox.
pub(crate) struct TaskWaker {
    pub(crate) key: CallbackKey,
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
        let callback = || Callback::Task(Arc::clone(self));
        if !on_own_thread(&self.threadsafe, |engine| engine.call_soon(callback())) {
            self.threadsafe.inbox.push(callback());
        }
    }
}

impl<T: 'static> Task<T> {
    pub(crate) fn spawn<F>(event_loop: &BaseEventLoop, future: F) -> Result<Self, Error>
    where
        F: Future<Output = T> + 'static,
    {
        event_loop.check_closed()?;
        let state = Rc::new(TaskState {
            outcome: RefCell::new(None),
            shared: Rc::default(),
            cell: RefCell::default(),
            event_loop: Rc::downgrade(&event_loop.0),
        });
        let result = Rc::clone(&state);
        let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            let outcome = future.await;
            *result.outcome.borrow_mut() = Some(Ok(outcome));
        });
        let ended = Rc::clone(&state);
        let end = Box::new(move |event_loop: &BaseEventLoop, error: Option<Error>| {
            if let Some(error) = error {
                ended.shared.cancelled.set(matches!(error, Error::Cancelled));
                let old = ended.outcome.replace(Some(Err(error)));
                drop(old);
            }
            drop(ended.cell.take());
            ended.shared.end(event_loop);
        });
        let mut tasks = event_loop.0.tasks.borrow_mut();
        let key = tasks.insert_with(|key| {
            Rc::new(TaskCell {
                future: RefCell::new(Some(future)),
                waker: Arc::new(TaskWaker {
                    key,
                    scheduled: AtomicBool::new(false),
                    threadsafe: event_loop.threadsafe(),
                }),
                end,
                cancel_requested: Cell::new(false),
            })
        });
        let cell = tasks.get(key).cloned();
        drop(tasks);
        if let Some(cell) = &cell {
            cell.schedule(event_loop);
        }
        *state.cell.borrow_mut() = cell.as_ref().map_or_else(Weak::new, Rc::downgrade);
        Ok(Self(state))
    }

    pub(crate) fn take_result(&self) -> Option<Result<T, Error>> {
        self.0.outcome.borrow_mut().take()
    }
}

impl<T> Task<T> {
    /// Cancels it: its future is dropped on the next turn, and [`Error::Cancelled`] is its result. Answers false if it
    /// is done already.
    ///
    /// Rust has no exception to raise inside of a future, so unlike asyncio's a task cannot refuse to be cancelled: what
    /// it has to clean up belongs into `Drop`.
    pub fn cancel(&self) -> bool {
        if self.is_done() {
            return false;
        }
        let cell = self.0.cell.borrow().upgrade();
        if let Some(cell) = cell {
            cell.cancel_requested.set(true);
            cell.waker.wake_by_ref();
        }
        true
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.shared.done.get()
    }

    /// Whether it ended by [`cancel`](Self::cancel).
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.shared.cancelled.get()
    }

    /// Schedules a callback for when it is done, on the next turn if it is already.
    pub fn add_done_callback(&self, callback: impl FnOnce() + 'static) {
        self.on_done(callback);
    }

    pub(crate) fn on_done(&self, callback: impl FnOnce() + 'static) {
        if !self.is_done() {
            self.0.shared.callbacks.borrow_mut().push(Box::new(callback));
        } else if let Some(event_loop) = self.0.event_loop.upgrade().map(BaseEventLoop) {
            drop(event_loop.call_soon(callback));
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_done() {
            let outcome = self.0.outcome.borrow_mut().take();
            // Awaited once more: the result has been given.
            return Poll::Ready(outcome.unwrap_or(Err(Error::InvalidState)));
        }
        let mut wakers = self.0.shared.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
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

impl Ended {
    fn end(&self, event_loop: &BaseEventLoop) {
        self.done.set(true);
        for callback in self.callbacks.take() {
            drop(event_loop.call_soon(callback));
        }
        self.wakers.take().into_iter().for_each(Waker::wake);
    }
}

impl TaskCell {
    /// Polls it once.
    pub(crate) fn step(self: &Rc<Self>, event_loop: &BaseEventLoop) {
        self.waker.scheduled.store(false, Ordering::Release);
        let Some(mut future) = self.future.borrow_mut().take() else {
            return;
        };
        if self.cancel_requested.get() {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
            self.done(
                event_loop,
                Some(dropped.map_or_else(panicked, |()| Error::Cancelled)),
            );
            return;
        }
        let waker = Waker::from(Arc::clone(&self.waker));
        let mut context = Context::from_waker(&waker);
        let polled = event_loop.timed("task", || {
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)))
        });
        match polled {
            Ok(Poll::Pending) => *self.future.borrow_mut() = Some(future),
            Ok(Poll::Ready(())) => {
                event_loop.guard("the end of a task", || drop(future));
                self.done(event_loop, None);
            }
            Err(payload) => {
                event_loop.guard("the end of a task", || drop(future));
                self.done(event_loop, Some(panicked(payload)));
            }
        }
    }

    /// Drops the future of a loop that is closed.
    pub(crate) fn discard(&self) {
        let future = self.future.borrow_mut().take();
        drop(future);
    }

    fn schedule(&self, event_loop: &BaseEventLoop) {
        self.waker.scheduled.store(true, Ordering::Release);
        let callback = Callback::Task(Arc::clone(&self.waker));
        drop(event_loop.with_engine(|engine| engine.call_soon(callback)));
    }

    fn done(&self, event_loop: &BaseEventLoop, error: Option<Error>) {
        let own = event_loop.0.tasks.borrow_mut().remove(self.waker.key);
        (self.end)(event_loop, error);
        drop(own);
    }
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> Error {
    Error::Panicked(Panic::new(payload))
}
