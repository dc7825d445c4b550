//! Runs: one turn after another.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::Error;
use super::event_loop::{BaseEventLoop, Local};
use super::handle::{Due, Stopper, ThreadsafeHandle};
use super::host::{Callback, Engine, Hosted};
use crate::Event;

/// How far apart two times must be to be told apart, in seconds: what is due within it runs in the same turn.
pub(crate) const RESOLUTION: f64 = 1e-9;

thread_local! {
    /// The loop that runs in this thread.
    static RUNNING: RefCell<Option<BaseEventLoop>> = const { RefCell::new(None) };
}

/// The loop that runs in this thread.
///
/// # Errors
/// [`Error::NotRunning`] outside of callbacks and tasks.
///
/// ```
/// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
/// assert!(matches!(get_running_loop(), Err(Error::NotRunning)));
/// let event_loop = SelectorEventLoop::new()?;
/// let running = event_loop.run_until_complete(async { get_running_loop() })??;
/// assert!(running == *event_loop);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub fn get_running_loop() -> Result<BaseEventLoop, Error> {
    RUNNING.with_borrow(Clone::clone).ok_or(Error::NotRunning)
}

impl BaseEventLoop {
    /// Runs until [`stop`](Self::stop) is called.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Running`] and [`Error::OtherRunning`] inside of a loop; the driver's.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let stopping = event_loop.clone();
    /// event_loop.call_soon(move || stopping.stop())?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
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
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
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
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.stop();
    /// event_loop.run_forever()?;
    /// assert!(!event_loop.is_running());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// What stops this loop from another thread.
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
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper {
            stopping: Arc::clone(&self.0.stopping),
            threadsafe: self.threadsafe(),
        }
    }

    /// Whether it runs just now.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let running = event_loop.clone();
    /// assert!(event_loop.run_until_complete(async move { running.is_running() })?);
    /// assert!(!event_loop.is_running());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.running.get()
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
                    match callback {
                        Some(Due::Call(callback)) => self.guard("timer callback", callback),
                        Some(Due::Wake(waker)) => self.guard("timer callback", || waker.wake()),
                        None => {}
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
            Callback::Task(key) => {
                let task = self.0.tasks.borrow().get(key).cloned();
                if let Some(task) = task {
                    task.step(self);
                }
            }
        }
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
