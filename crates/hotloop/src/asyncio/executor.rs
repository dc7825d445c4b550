//! Threads for calls that block.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::error::{Error, Panic};
use super::event_loop::BaseEventLoop;
use crate::driver::sim::Threads;

/// A pool of at most so many threads, which are started when there is work for them.
///
/// Dropping the last clone lets the threads finish what is queued, and end.
///
/// ```
/// use hotloop::asyncio::{Error, Executor, SelectorEventLoop};
/// let executor = Executor::new(2);
/// let sum = SelectorEventLoop::new()?.run_until_complete(async move {
///     let (one, other) = (executor.submit(|| 1), executor.submit(|| 2));
///     Ok::<i32, Error>(one.await? + other.await?)
/// })??;
/// assert_eq!(sum, 3);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct Executor(Arc<Owner>);

/// What the clones of an executor share. The threads have the queue without it.
struct Owner {
    pool: Arc<Pool>,
    limit: usize,
}

struct Pool {
    state: Mutex<State>,
    /// Told of jobs and of the end.
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<dyn FnOnce() + Send>>,
    threads: usize,
    idle: usize,
    ended: bool,
    /// Called by the last thread when it ends.
    after: Vec<Box<dyn FnOnce() + Send>>,
}

impl Executor {
    /// A pool of at most `limit` threads, and at least one.
    ///
    /// ```
    /// use hotloop::asyncio::{Executor, SelectorEventLoop};
    /// // One at least: it would do nothing else.
    /// let executor = Executor::new(0);
    /// let answer = SelectorEventLoop::new()?.run_until_complete(async move { executor.submit(|| 42).await })??;
    /// assert_eq!(answer, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Owner {
            pool: Arc::new(Pool {
                state: Mutex::default(),
                news: Condvar::new(),
            }),
            limit: limit.max(1),
        }))
    }

    /// Runs `call` in a thread. Awaiting the answer gives its result; nobody has to.
    ///
    /// ```
    /// use hotloop::asyncio::{Executor, SelectorEventLoop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let executor = Executor::new(1);
    /// let sum = event_loop.run_until_complete(async move { executor.submit(|| 1 + 1).await })??;
    /// assert_eq!(sum, 2);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn submit<T, F>(&self, call: F) -> Job<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.submit_holding(call, ())
    }

    /// Takes no more calls: [`submit`](Self::submit) answers [`Error::ExecutorShutDown`] from now on, of every clone. What
    /// is queued is done. Awaiting the answer waits for that.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Executor, SelectorEventLoop};
    /// let executor = Executor::new(1);
    /// let last = executor.submit(|| 42);
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     executor.shutdown().await?;
    ///     assert_eq!(last.await?, 42);
    ///     assert!(matches!(executor.submit(|| 43).await, Err(Error::ExecutorShutDown)));
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shutdown(&self) -> Job<()> {
        self.shutdown_holding(())
    }

    /// As [`shutdown`](Self::shutdown), and drops `held` when its end is told.
    fn shutdown_holding(&self, held: impl Send + 'static) -> Job<()> {
        let (job, fill) = Job::new();
        let fill = move || {
            fill(Ok(()));
            drop(held);
        };
        let mut state = lock(&self.0.pool.state);
        state.ended = true;
        if state.threads == 0 {
            drop(state);
            fill();
        } else {
            state.after.push(Box::new(fill));
            drop(state);
            self.0.pool.news.notify_all();
        }
        job
    }

    /// As [`submit`](Self::submit), and drops `held` when the result is told.
    fn submit_holding<T, F>(&self, call: F, held: impl Send + 'static) -> Job<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (job, fill) = Job::new();
        let mut state = lock(&self.0.pool.state);
        if state.ended {
            drop(state);
            fill(Err(Error::ExecutorShutDown));
            return job;
        }
        state.jobs.push_back(Box::new(move || {
            fill(
                catch_unwind(AssertUnwindSafe(call)).map_err(|payload| Error::Panicked(Panic::new(payload))),
            );
            drop(held);
        }));
        if state.idle >= state.jobs.len() || state.threads >= self.0.limit {
            drop(state);
            self.0.pool.news.notify_one();
        } else {
            state.threads += 1;
            drop(state);
            self.start();
        }
        job
    }

    fn start(&self) {
        let pool = Arc::clone(&self.0.pool);
        let started = thread::Builder::new()
            .name("asyncio".to_owned())
            .spawn(move || pool.work());
        if started.is_err() {
            let mut state = lock(&self.0.pool.state);
            // With no thread at all nobody would ever do it.
            let jobs = if state.threads == 1 {
                std::mem::take(&mut state.jobs)
            } else {
                VecDeque::new()
            };
            let after = state.leave();
            drop(state);
            jobs.into_iter().chain(after).for_each(|job| job());
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Executor")
            .field("limit", &self.0.limit)
            .finish()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        lock(&self.pool.state).ended = true;
        self.pool.news.notify_all();
    }
}

impl State {
    /// Counts a thread out. Answers what its end is to be told to.
    fn leave(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        self.threads -= 1;
        if self.threads == 0 && self.ended {
            std::mem::take(&mut self.after)
        } else {
            Vec::new()
        }
    }
}

impl Pool {
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = lock(&self.state);
            } else if state.ended {
                let after = state.leave();
                drop(state);
                return after.into_iter().for_each(|tell| tell());
            } else {
                state.idle += 1;
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// The result of a call in another thread.
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let job = event_loop.run_in_executor(|| std::fs::read_to_string("/dev/null"))?;
/// assert_eq!(event_loop.run_until_complete(job)???, "");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[must_use = "the call runs anyway; its result is here"]
pub struct Job<T>(Arc<Mutex<Slot<T>>>);

enum Slot<T> {
    Running(Option<Waker>),
    Done(Result<T, Error>),
    Taken,
}

impl<T> Job<T> {
    /// One that waits, and what gives it its result.
    fn new() -> (Self, impl FnOnce(Result<T, Error>)) {
        let slot = Arc::new(Mutex::new(Slot::Running(None)));
        let filled = Arc::clone(&slot);
        let fill = move |result| {
            let before = std::mem::replace(&mut *lock(&filled), Slot::Done(result));
            if let Slot::Running(Some(waker)) = before {
                waker.wake();
            }
        };
        (Self(slot), fill)
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Running(_) => {
                *slot = Slot::Running(Some(context.waker().clone()));
                Poll::Pending
            }
            Slot::Done(result) => Poll::Ready(result),
            Slot::Taken => Poll::Ready(Err(Error::InvalidState)),
        }
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Job")
    }
}

impl BaseEventLoop {
    /// Runs a call that blocks in a thread of the loop's executor: [`set_default_executor`](Self::set_default_executor),
    /// or one of at most 32 threads.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::ExecutorShutDown`]. What is awaited fails with [`Error::Panicked`] if the call panics.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let job = event_loop.run_in_executor(|| std::thread::current().name().map(str::to_owned))?;
    /// assert_eq!(event_loop.run_until_complete(job)??.as_deref(), Some("asyncio"));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn run_in_executor<T, F>(&self, call: F) -> Result<Job<T>, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.check_closed()?;
        if self.0.executor_shut_down.get() {
            return Err(Error::ExecutorShutDown);
        }
        let mut executor = self.0.executor.borrow_mut();
        let executor = executor.get_or_insert_with(|| {
            // asyncio's number.
            let processors = thread::available_parallelism().map_or(1, usize::from);
            Executor::new((processors + 4).min(32))
        });
        let held = self.0.threads.as_ref().map(Threads::hold);
        Ok(executor.submit_holding(call, held))
    }

    /// Sets where [`run_in_executor`](Self::run_in_executor) runs its calls.
    ///
    /// ```
    /// use hotloop::asyncio::Executor;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.set_default_executor(Executor::new(1));
    /// let job = event_loop.run_in_executor(|| 42)?;
    /// assert_eq!(event_loop.run_until_complete(job)??, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_default_executor(&self, executor: Executor) {
        let old = self.0.executor.replace(Some(executor));
        drop(old);
    }

    /// Waits until the loop's executor has done what it was given. It takes no more from now on.
    ///
    /// # Errors
    /// None but [`Error::Cancelled`], if the loop goes before.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// SelectorEventLoop::new()?.run_until_complete(async {
    ///     let event_loop = get_running_loop()?;
    ///     let answer = event_loop.run_in_executor(|| 42)?;
    ///     event_loop.shutdown_default_executor().await?;
    ///     assert_eq!(answer.await?, 42);
    ///     assert!(matches!(event_loop.run_in_executor(|| 43), Err(Error::ExecutorShutDown)));
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn shutdown_default_executor(&self) -> Result<(), Error> {
        self.0.executor_shut_down.set(true);
        let executor = self.0.executor.borrow_mut().take();
        let Some(executor) = executor else {
            return Ok(());
        };
        let held = self.0.threads.as_ref().map(Threads::hold);
        executor.shutdown_holding(held).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
