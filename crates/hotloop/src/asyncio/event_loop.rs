//! The loop: what it has, how it is closed, and scheduling.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::Error;
use super::executor::Executor;
use super::handle::{Due, Handle, ThreadsafeHandle, Timer, TimerHandle};
use super::host::{Callback, CallbackKey, Engine, Named};
use super::reports::ExceptionHandler;
use super::task::{Polled, Task};
use crate::clock::{Clock, Monotonic};
use crate::driver::sim::Threads;
use crate::driver::{AnyDriver, Batch, Driver};

/// How much is received at once, at most.
const SCRATCH: usize = 256 * 1024;

/// asyncio's event loop. Clones are the same loop, and none of them leaves its thread.
///
/// It is made as a [`SelectorEventLoop`](super::SelectorEventLoop) or a
/// [`ProactorEventLoop`](super::ProactorEventLoop); both are this one over different drivers.
///
/// ```
/// use hotloop::asyncio::{BaseEventLoop, Error, new_event_loop};
/// fn answer(event_loop: &BaseEventLoop) -> Result<i32, Error> {
///     event_loop.run_until_complete(async { 6 * 7 })
/// }
/// let event_loop = new_event_loop()?;
/// assert!(event_loop == event_loop.clone());
/// assert_eq!(answer(&event_loop)?, 42);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct BaseEventLoop(pub(crate) Rc<LoopState>);

/// What a loop has of its own.
pub(crate) struct LoopState {
    /// None once the loop is closed. Never borrowed while code of the program can run.
    pub(crate) engine: RefCell<Option<Engine>>,
    /// The closures that are scheduled or watch.
    pub(crate) callbacks: RefCell<Named<Local>>,
    /// The tasks that are not done.
    pub(crate) tasks: RefCell<Named<Rc<dyn Polled>>>,
    /// The way in for other threads; says that the loop is closed.
    pub(crate) threadsafe: ThreadsafeHandle,
    /// Raised by `stop`, taken down when a run ends.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Whether a run is under way.
    pub(crate) running: Cell<bool>,
    /// What `time` and timers go by.
    pub(crate) clock: RefCell<Rc<dyn Clock>>,
    /// Whether callbacks that take long are reported.
    pub(crate) debug: Cell<bool>,
    /// In seconds: a callback that takes longer is reported in debug mode.
    pub(crate) slow_callback_duration: Cell<f64>,
    /// Told of errors that nobody awaits; the default one if none was set.
    pub(crate) exception_handler: RefCell<Option<Rc<ExceptionHandler>>>,
    /// Received into. Out while a protocol looks at it.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Datagrams are received into it. Made when it is first needed, out while a protocol looks at it.
    pub(crate) batch: RefCell<Option<Box<Batch>>>,
    /// Made when it is first needed.
    pub(crate) executor: RefCell<Option<Executor>>,
    /// It was shut down and is not made again.
    pub(crate) executor_shut_down: Cell<bool>,
    /// Counts what threads do for the loop, where its time waits for that.
    pub(crate) threads: Option<Threads>,
}

/// A closure of the loop's thread.
pub(crate) enum Local {
    /// Runs once, and is gone then.
    Once(Box<dyn FnOnce()>),
    /// Runs each time.
    Each(Rc<dyn Fn()>),
}

impl BaseEventLoop {
    /// A loop over a driver, by the system's clock.
    pub(crate) fn over(driver: AnyDriver) -> Self {
        Self::with_clock(driver, Rc::new(Monotonic), None)
    }

    /// A loop that goes by a clock. `threads` counts what other threads do for it, where the clock waits for that.
    pub(crate) fn with_clock(driver: AnyDriver, clock: Rc<dyn Clock>, threads: Option<Threads>) -> Self {
        let engine = Engine::new(driver);
        Self(Rc::new(LoopState {
            threadsafe: ThreadsafeHandle::new(&engine),
            engine: RefCell::new(Some(engine)),
            callbacks: RefCell::default(),
            tasks: RefCell::default(),
            stopping: Arc::default(),
            running: Cell::new(false),
            clock: RefCell::new(clock),
            debug: Cell::new(false),
            slow_callback_duration: Cell::new(0.1),
            exception_handler: RefCell::new(None),
            scratch: RefCell::new(vec![0; SCRATCH]),
            batch: RefCell::new(None),
            executor: RefCell::new(None),
            executor_shut_down: Cell::new(false),
            threads,
        }))
    }

    /// Closes the loop: what is scheduled does not run any more, and further calls are refused. Closing again does
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Running`] while it runs.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.close()?;
    /// event_loop.close()?;
    /// assert!(event_loop.run_forever().is_err());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn close(&self) -> Result<(), Error> {
        if self.is_running() {
            return Err(Error::Running);
        }
        self.0.threadsafe.closed.store(true, Ordering::Release);
        let executor = self.0.executor.borrow_mut().take();
        drop(executor);
        let engine = self.0.engine.borrow_mut().take();
        let Some(mut engine) = engine else { return Ok(()) };
        // Dropped one by one while nothing is borrowed: what is dropped is the program's.
        let tasks = self.0.tasks.borrow_mut().take();
        for task in &tasks {
            task.discard();
        }
        let callbacks = self.0.callbacks.borrow_mut().take();
        drop(callbacks);
        drop(engine.take_scheduled());
        let (handles, hosted) = engine.take_io();
        for hosted in &hosted {
            hosted.let_go();
        }
        drop((handles, hosted));
        drop(engine);
        Ok(())
    }

    /// Whether [`close`](Self::close) was called.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert!(!event_loop.is_closed());
    /// event_loop.close()?;
    /// assert!(event_loop.is_closed());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.threadsafe.closed.load(Ordering::Acquire)
    }

    /// The time of its clock, in seconds since a fixed, unnamed point.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let before = event_loop.time();
    /// assert!(event_loop.time() >= before);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn time(&self) -> f64 {
        let clock = Rc::clone(&self.0.clock.borrow());
        clock.now()
    }

    /// Schedules a callback for the next turn. Callbacks run in the order in which they were scheduled.
    ///
    /// # Errors
    /// [`Error::Closed`].
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let stopping = event_loop.clone();
    /// let handle = event_loop.call_soon(|| println!("never"))?;
    /// event_loop.call_soon(move || stopping.stop())?;
    /// handle.cancel();
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn call_soon(&self, callback: impl FnOnce() + 'static) -> Result<Handle, Error> {
        let mut engine = self.0.engine.borrow_mut();
        let Some(engine) = engine.as_mut() else {
            return Err(Error::Closed);
        };
        let key = self
            .0
            .callbacks
            .borrow_mut()
            .insert(Local::Once(Box::new(callback)));
        engine.call_soon(Callback::Local(key));
        Ok(Handle {
            key,
            event_loop: Rc::downgrade(&self.0),
            cancelled: Cell::new(false),
        })
    }

    /// Schedules a callback for later.
    ///
    /// # Errors
    /// [`Error::Closed`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let stopping = event_loop.clone();
    /// event_loop.call_later(Duration::from_millis(1), move || stopping.stop())?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn call_later(
        &self,
        delay: Duration,
        callback: impl FnOnce() + 'static,
    ) -> Result<TimerHandle, Error> {
        self.call_at(self.time() + delay.as_secs_f64(), callback)
    }

    /// Schedules a callback for a time of the loop's clock, in seconds.
    ///
    /// # Errors
    /// [`Error::Closed`].
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let stopping = event_loop.clone();
    /// let due = event_loop.time() + 0.001;
    /// let timer = event_loop.call_at(due, move || stopping.stop())?;
    /// assert_eq!(timer.when(), due);
    /// event_loop.run_forever()?;
    /// assert!(event_loop.time() >= due);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn call_at(&self, when: f64, callback: impl FnOnce() + 'static) -> Result<TimerHandle, Error> {
        self.set_timer(when, Some(Due::Call(Box::new(callback))))
    }

    /// Schedules a timer that may be told later what it does.
    pub(crate) fn set_timer(&self, when: f64, callback: Option<Due>) -> Result<TimerHandle, Error> {
        self.check_closed()?;
        let timer = TimerHandle(Rc::new(Timer {
            when,
            callback: RefCell::new(callback),
            cancelled: Cell::new(false),
            scheduled: Cell::new(true),
            event_loop: Rc::downgrade(&self.0),
        }));
        self.with_engine(|engine| engine.call_at(when, timer.clone()))?;
        Ok(timer)
    }

    /// The way in for other threads.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (threadsafe, stopper) = (event_loop.threadsafe(), event_loop.stopper());
    /// let thread = std::thread::spawn(move || threadsafe.call_soon_threadsafe(move || stopper.stop()));
    /// event_loop.run_forever()?;
    /// thread.join().expect("it does not panic")?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn threadsafe(&self) -> ThreadsafeHandle {
        self.0.threadsafe.clone()
    }

    /// Runs a future as a task of its own, from the next turn on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async { 6 * 7 })?;
    /// assert_eq!(event_loop.run_until_complete(task)??, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn create_task<F>(&self, future: F) -> Result<Task<F::Output>, Error>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Task::spawn(self, future)
    }

    /// Sets the clock that [`time`](Self::time) and timers go by. The kernel's waits go by its own.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::clock::Manual;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.set_clock(Rc::new(Manual::default()));
    /// assert_eq!(event_loop.time(), 0.0);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_clock(&self, clock: Rc<dyn Clock>) {
        let old = self.0.clock.replace(clock);
        drop(old);
    }

    /// Does something with the engine, which runs no code of the program.
    pub(crate) fn with_engine<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> Result<R, Error> {
        self.0.engine.borrow_mut().as_mut().map(act).ok_or(Error::Closed)
    }

    /// Closes a socket that nothing waits for any more, and tells the driver first.
    pub(crate) fn let_go(&self, socket: OwnedFd) {
        // Of a loop that is closed the driver is gone.
        drop(self.with_engine(|engine| engine.driver_mut().release(socket.as_raw_fd())));
        drop(socket);
    }

    pub(crate) fn check_closed(&self) -> Result<(), Error> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Keeps a closure that runs each time, and answers its name.
    pub(crate) fn keep(&self, callback: Rc<dyn Fn()>) -> CallbackKey {
        self.0.callbacks.borrow_mut().insert(Local::Each(callback))
    }

    /// Drops what a callback of the engine names.
    pub(crate) fn forget(&self, callback: Option<Callback>) {
        if let Some(Callback::Local(key)) = callback {
            let callback = self.0.callbacks.borrow_mut().remove(key);
            drop(callback);
        }
    }
}

impl fmt::Debug for BaseEventLoop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventLoop")
            .field("running", &self.is_running())
            .field("closed", &self.is_closed())
            .field("debug", &self.get_debug())
            .finish()
    }
}

impl PartialEq for BaseEventLoop {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Drop for LoopState {
    fn drop(&mut self) {
        self.threadsafe.closed.store(true, Ordering::Release);
    }
}

/// A loop that a thing of it does not keep alive.
pub(crate) type WeakLoop = Weak<LoopState>;
