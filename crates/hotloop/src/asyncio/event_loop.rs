//! The loop: scheduling, and one turn after another.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::error::{Error, Panic};
use super::executor::Executor;
use super::handle::{Handle, Stopper, ThreadsafeHandle, Timer, TimerHandle};
use super::host::{Callback, CallbackKey, Engine, Hosted, Named};
use super::task::{Task, TaskCell};
use crate::Event;
use crate::clock::{Clock, Monotonic};
use crate::driver::sim::Threads;
use crate::driver::{AnyDriver, Batch, Direction, Driver};

/// How far apart two times must be to be told apart, in seconds: what is due within it runs in the same turn.
pub(crate) const RESOLUTION: f64 = 1e-9;

/// How much is received at once, at most.
const SCRATCH: usize = 256 * 1024;

/// asyncio's event loop. Clones are the same loop, and none of them leaves its thread.
///
/// It is made as a [`SelectorEventLoop`] or a [`ProactorEventLoop`]; both are this one over different drivers.
#[derive(Clone)]
pub struct BaseEventLoop(pub(crate) Rc<LoopState>);

/// The loop over readiness: epoll on Linux.
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
/// event_loop.close()?;
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SelectorEventLoop(BaseEventLoop);

/// The loop over completion: io_uring on Linux.
#[derive(Clone, Debug)]
pub struct ProactorEventLoop(BaseEventLoop);

/// What a loop has of its own.
pub(crate) struct LoopState {
    /// None once the loop is closed. Never borrowed while code of the program can run.
    pub(crate) engine: RefCell<Option<Engine>>,
    /// The closures that are scheduled or watch.
    pub(crate) callbacks: RefCell<Named<Local>>,
    /// The tasks that are not done.
    pub(crate) tasks: RefCell<Named<Rc<TaskCell>>>,
    /// The way in for other threads; says that the loop is closed.
    pub(crate) threadsafe: ThreadsafeHandle,
    /// Raised by `stop`, taken down when a run ends.
    stopping: Arc<AtomicBool>,
    running: Cell<bool>,
    clock: RefCell<Rc<dyn Clock>>,
    debug: Cell<bool>,
    /// In seconds: a callback that takes longer is reported in debug mode.
    slow_callback_duration: Cell<f64>,
    exception_handler: RefCell<Option<Rc<ExceptionHandler>>>,
    /// Received into. Out while a protocol looks at it.
    pub(crate) scratch: RefCell<Vec<u8>>,
    /// Datagrams are received into it. Made when it is first needed, out while a protocol looks at it.
    pub(crate) batch: RefCell<Option<Box<Batch>>>,
    /// Made when it is first needed.
    pub(crate) executor: RefCell<Option<Executor>>,
    /// Counts what threads do for the loop, where its time waits for that.
    pub(crate) threads: Option<Threads>,
}

/// Told of errors that nobody else can be told of.
pub type ExceptionHandler = dyn Fn(&BaseEventLoop, &Report);

/// A closure of the loop's thread.
pub(crate) enum Local {
    /// Runs once, and is gone then.
    Once(Box<dyn FnOnce()>),
    /// Runs each time.
    Each(Rc<dyn Fn()>),
}

/// What an exception handler is told.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What went wrong.
    pub message: String,
    /// The panic, if there was one.
    pub panic: Option<Panic>,
    /// The error, if there was one.
    pub error: Option<io::Error>,
}

thread_local! {
    static RUNNING: RefCell<Option<BaseEventLoop>> = const { RefCell::new(None) };
}

/// The loop that runs in this thread.
///
/// # Errors
/// [`Error::NotRunning`] outside of callbacks and tasks.
pub fn get_running_loop() -> Result<BaseEventLoop, Error> {
    RUNNING.with_borrow(Clone::clone).ok_or(Error::NotRunning)
}

impl SelectorEventLoop {
    /// A new loop over the best selector of the platform.
    ///
    /// # Errors
    /// The system's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        Ok(Self(BaseEventLoop::over(AnyDriver::selector()?)))
    }
}

impl ProactorEventLoop {
    /// A new loop over the platform's completion facility.
    ///
    /// # Errors
    /// Why the kernel refuses io_uring.
    pub fn new() -> io::Result<Self> {
        Ok(Self(BaseEventLoop::over(AnyDriver::proactor()?)))
    }
}

impl Deref for SelectorEventLoop {
    type Target = BaseEventLoop;
    fn deref(&self) -> &BaseEventLoop {
        &self.0
    }
}

impl Deref for ProactorEventLoop {
    type Target = BaseEventLoop;
    fn deref(&self) -> &BaseEventLoop {
        &self.0
    }
}

impl From<SelectorEventLoop> for BaseEventLoop {
    fn from(event_loop: SelectorEventLoop) -> Self {
        event_loop.0
    }
}

impl From<ProactorEventLoop> for BaseEventLoop {
    fn from(event_loop: ProactorEventLoop) -> Self {
        event_loop.0
    }
}

impl BaseEventLoop {
    fn over(driver: AnyDriver) -> Self {
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
            threads,
        }))
    }

    /// Runs until [`stop`](Self::stop) is called.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Running`] and [`Error::OtherRunning`] inside of a loop; the driver's.
    pub fn run_forever(&self) -> Result<(), Error> {
        self.check_closed()?;
        if self.is_running() {
            return Err(Error::Running);
        }
        if get_running_loop().is_ok() {
            return Err(Error::OtherRunning);
        }
        let run = Run::begin(self);
        loop {
            self.turn()?;
            if self.is_stopping() {
                drop(run);
                return Ok(());
            }
        }
    }

    /// Runs until a future is done, and answers its result.
    ///
    /// # Errors
    /// As of [`run_forever`](Self::run_forever); [`Error::Stopped`] if somebody stopped the loop before.
    ///
    /// # Panics
    /// If the future does.
    pub fn run_until_complete<F>(&self, future: F) -> Result<F::Output, Error>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.check_closed()?;
        if self.is_running() {
            return Err(Error::Running);
        }
        let task = self.create_task(future)?;
        let stopping = Rc::downgrade(&self.0);
        task.on_done(move || {
            if let Some(state) = stopping.upgrade() {
                Self(state).stop();
            }
        });
        let ran = self.run_forever();
        if let Err(error) = ran {
            task.cancel();
            return Err(error);
        }
        match task.take_result() {
            None => Err(Error::Stopped),
            Some(Ok(result)) => Ok(result),
            Some(Err(Error::Panicked(panic))) => std::panic::resume_unwind(panic.into_payload()),
            Some(Err(error)) => Err(error),
        }
    }

    /// Ends the run after the turn under way; called before a run, that run is one turn.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// What stops this loop from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopping: Arc::clone(&self.0.stopping),
            threadsafe: self.threadsafe(),
        }
    }

    /// Closes the loop: what is scheduled does not run any more, and further calls are refused. Closing again does
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Running`] while it runs.
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

    /// Whether it runs just now.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.running.get()
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.threadsafe.closed.load(Ordering::Acquire)
    }

    /// The time of its clock, in seconds since a fixed, unnamed point.
    #[must_use]
    pub fn time(&self) -> f64 {
        let clock = Rc::clone(&self.0.clock.borrow());
        clock.now()
    }

    /// Schedules a callback for the next turn. Callbacks run in the order in which they were scheduled.
    ///
    /// # Errors
    /// [`Error::Closed`].
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
    pub fn call_at(&self, when: f64, callback: impl FnOnce() + 'static) -> Result<TimerHandle, Error> {
        self.check_closed()?;
        let timer = TimerHandle(Rc::new(Timer {
            when,
            callback: RefCell::new(Some(Box::new(callback))),
            cancelled: Cell::new(false),
            scheduled: Cell::new(true),
            event_loop: Rc::downgrade(&self.0),
        }));
        self.with_engine(|engine| engine.call_at(when, timer.clone()))?;
        Ok(timer)
    }

    /// The way in for other threads.
    #[must_use]
    pub fn threadsafe(&self) -> ThreadsafeHandle {
        self.0.threadsafe.clone()
    }

    /// Runs a future as a task of its own, from the next turn on.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn create_task<F>(&self, future: F) -> Result<Task<F::Output>, Error>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        Task::spawn(self, future)
    }

    /// Calls `callback` on each turn in which a descriptor is readable, until
    /// [`remove_reader`](Self::remove_reader). It replaces the one that was there.
    ///
    /// # Errors
    /// [`Error::Closed`]; the kernel's, if it refuses the descriptor.
    pub fn add_reader(&self, fd: RawFd, callback: impl Fn() + 'static) -> Result<(), Error> {
        self.watch(fd, Direction::Read, Rc::new(callback)).map(drop)
    }

    /// As [`add_reader`](Self::add_reader), for writing.
    ///
    /// # Errors
    /// As of `add_reader`.
    pub fn add_writer(&self, fd: RawFd, callback: impl Fn() + 'static) -> Result<(), Error> {
        self.watch(fd, Direction::Write, Rc::new(callback)).map(drop)
    }

    /// Ends [`add_reader`](Self::add_reader). Answers whether there was one.
    pub fn remove_reader(&self, fd: RawFd) -> bool {
        self.unwatch(fd, Direction::Read)
    }

    /// Ends [`add_writer`](Self::add_writer). Answers whether there was one.
    pub fn remove_writer(&self, fd: RawFd) -> bool {
        self.unwatch(fd, Direction::Write)
    }

    /// Calls `callback` after a signal came in, by its number. It replaces the one that was there.
    ///
    /// # Errors
    /// [`Error::Closed`]; `InvalidInput` for a signal that cannot be caught; the system's.
    pub fn add_signal_handler(&self, signal: i32, callback: impl Fn() + 'static) -> Result<(), Error> {
        let key = self.keep(Rc::new(callback));
        let added = self.with_engine(|engine| engine.add_signal_handler(signal, Callback::Local(key)));
        match added {
            Ok(Ok(old)) => self.forget(old),
            Ok(Err(error)) => {
                self.forget(Some(Callback::Local(key)));
                return Err(error.into());
            }
            Err(error) => {
                self.forget(Some(Callback::Local(key)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives a signal its default action back. Answers whether it was handled.
    pub fn remove_signal_handler(&self, signal: i32) -> bool {
        let old = self.with_engine(|engine| engine.remove_signal_handler(signal));
        let old = old.ok().flatten();
        let was = old.is_some();
        self.forget(old);
        was
    }

    /// Sets what is told of errors that nobody else can be told of; `None` is the default, which prints them.
    pub fn set_exception_handler(&self, handler: Option<Rc<ExceptionHandler>>) {
        let old = self.0.exception_handler.replace(handler);
        drop(old);
    }

    /// Tells the exception handler. One that panics itself is printed.
    pub fn call_exception_handler(&self, report: &Report) {
        let handler = self.0.exception_handler.borrow().clone();
        let told = handler.map(|handler| catch_unwind(AssertUnwindSafe(|| handler(self, report))));
        match told {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                eprintln!("Unhandled error in exception handler");
                Self::default_exception_handler(report);
            }
            None => Self::default_exception_handler(report),
        }
    }

    /// Prints a report on the standard error stream.
    pub fn default_exception_handler(report: &Report) {
        eprint!("{}", report.message);
        if let Some(panic) = &report.panic {
            eprint!(": {panic}");
        }
        if let Some(error) = &report.error {
            eprint!(": {error}");
        }
        eprintln!();
    }

    /// Whether it is in debug mode: callbacks that take long are reported to the exception handler.
    #[must_use]
    pub fn get_debug(&self) -> bool {
        self.0.debug.get()
    }

    /// Turns debug mode on or off.
    pub fn set_debug(&self, enabled: bool) {
        self.0.debug.set(enabled);
    }

    /// Sets how long a callback may take before debug mode reports it. 100 ms unless told.
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.0.slow_callback_duration.set(duration.as_secs_f64());
    }

    /// Sets the clock that [`time`](Self::time) and timers go by. The kernel's waits go by its own.
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

    /// Runs code of the program; a panic goes to the exception handler.
    pub(crate) fn guard(&self, what: &str, run: impl FnOnce()) {
        let ran = self.timed(what, || catch_unwind(AssertUnwindSafe(run)));
        if let Err(payload) = ran {
            self.call_exception_handler(&Report {
                message: format!("Exception in {what}"),
                panic: Some(Panic::new(payload)),
                error: None,
            });
        }
    }

    /// Runs code of the program, and in debug mode looks at the clock.
    pub(crate) fn timed<R>(&self, what: &str, run: impl FnOnce() -> R) -> R {
        if !self.get_debug() {
            return run();
        }
        let start = self.time();
        let result = run();
        let seconds = self.time() - start;
        if seconds >= self.0.slow_callback_duration.get() {
            self.call_exception_handler(&Report {
                message: format!("Executing {what} took {seconds:.3} seconds"),
                panic: None,
                error: None,
            });
        }
        result
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// One turn.
    fn turn(&self) -> Result<(), Error> {
        let mut swept = Vec::new();
        let clock = Rc::clone(&self.0.clock.borrow());
        let stopping = self.is_stopping();
        let (timeout, discarded) = self.with_engine(|engine| {
            let timeout = engine.prepare_wait(|| clock.now(), stopping, &mut swept);
            (timeout, engine.take_discarded())
        })?;
        for timer in &swept {
            timer.0.scheduled.set(false);
        }
        drop(swept);
        drop(discarded);
        self.with_engine(|engine| {
            let woken = engine.wait(timeout);
            engine.begin_turn(|| end_of_turn(clock.now()));
            woken
        })??;
        loop {
            let event = self.with_engine(Engine::next_event)?;
            match event {
                None => return Ok(()),
                Some(Event::Callback(callback) | Event::Accept(callback)) => self.run(callback),
                Some(Event::Timer(timer)) => {
                    timer.0.scheduled.set(false);
                    let callback = timer.0.callback.borrow_mut().take();
                    if let Some(callback) = callback {
                        self.guard("timer callback", callback);
                    }
                }
                Some(Event::Stream(_, Hosted::Stream(stream), news)) => stream.on_event(news),
                Some(Event::Datagram(_, Hosted::Datagram(transport), news)) => transport.on_event(news),
                // News of the one kind are never of the other.
                Some(Event::Stream(..) | Event::Datagram(..)) => {}
                Some(Event::Replaced(callback)) => self.forget(Some(callback)),
            }
        }
    }

    fn run(&self, callback: Callback) {
        match callback {
            Callback::Local(key) => {
                let each = match self.0.callbacks.borrow().get(key) {
                    None => return,
                    Some(Local::Each(callback)) => Some(Rc::clone(callback)),
                    Some(Local::Once(_)) => None,
                };
                match each {
                    Some(callback) => self.guard("callback", || callback()),
                    None => {
                        let callback = self.0.callbacks.borrow_mut().remove(key);
                        if let Some(Local::Once(callback)) = callback {
                            self.guard("callback", callback);
                        }
                    }
                }
            }
            Callback::Sent(sent) => {
                if let Some(callback) = sent.take() {
                    self.guard("callback", callback);
                }
            }
            Callback::Task(waker) => {
                let task = self.0.tasks.borrow().get(waker.key).cloned();
                if let Some(task) = task {
                    task.step(self);
                }
            }
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

/// What is due before this belongs to a turn that begins now, in seconds. Far from 0 neighbouring times are further
/// apart than the resolution; what is due now is due all the same.
fn end_of_turn(now: f64) -> f64 {
    (now + RESOLUTION).max(now.next_up())
}

/// A run under way: the loop is this thread's running one until it is dropped.
struct Run<'a>(&'a BaseEventLoop);

impl<'a> Run<'a> {
    fn begin(event_loop: &'a BaseEventLoop) -> Self {
        event_loop.0.running.set(true);
        RUNNING.set(Some(event_loop.clone()));
        Self(event_loop)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let state = &self.0.0;
        state.running.set(false);
        state.stopping.store(false, Ordering::Release);
        drop(RUNNING.take());
        // Writes of a stopped loop must not wait for its next run.
        let discarded = self.0.with_engine(|engine| {
            engine.end_turn();
            engine.take_discarded()
        });
        drop(discarded);
    }
}

/// Whether the loop of this inbox runs in this thread; if so `act` is done with its engine.
pub(crate) fn on_own_thread(threadsafe: &ThreadsafeHandle, act: impl FnOnce(&mut Engine)) -> bool {
    RUNNING
        .try_with(|running| {
            let running = running.try_borrow().ok()?;
            let state = &running.as_ref()?.0;
            if !Arc::ptr_eq(&state.threadsafe.inbox, &threadsafe.inbox) {
                return None;
            }
            let mut engine = state.engine.try_borrow_mut().ok()?;
            engine.as_mut().map(act)
        })
        .ok()
        .flatten()
        .is_some()
}

/// A loop that a thing of it does not keep alive.
pub(crate) type WeakLoop = Weak<LoopState>;
