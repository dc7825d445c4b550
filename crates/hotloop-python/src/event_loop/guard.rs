//! The engine, borrowed: by the loop's own thread, or by another one, which has to wait until the loop does not.

use std::cell::{Cell, RefMut};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::Loop;
use crate::host::Engine;

/// How long a thread looks away that waits for another one to get on.
const GLANCE: Duration = Duration::from_micros(20);

/// Who is where while the loop waits in the kernel, which it does with its engine borrowed.
#[derive(Debug)]
pub(super) struct Door {
    /// The process that the loop was made in: the thread that waits is not there in a child.
    process: u32,
    /// The thread that waits without the interpreter lock; 0 while none does.
    waiting: Cell<usize>,
    /// How many other threads want the engine. Changed with the interpreter lock held, as all of this is.
    guests: Cell<usize>,
}

impl Door {
    pub(super) fn new() -> Self {
        Self {
            process: std::process::id(),
            waiting: Cell::new(0),
            guests: Cell::new(0),
        }
    }
}

/// The engine, borrowed for one call into it.
///
/// What the engine has no use for any more is dropped after the borrow ends: a transport's finalizer runs Python code,
/// which may call the loop.
pub(crate) struct EngineGuard<'a>(pub(super) Option<RefMut<'a, Engine>>);

impl std::ops::Deref for EngineGuard<'_> {
    type Target = Engine;

    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("borrowed until dropped")
    }
}

impl std::ops::DerefMut for EngineGuard<'_> {
    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref_mut(&mut self) -> &mut Engine {
        self.0.as_mut().expect("borrowed until dropped")
    }
}

impl Drop for EngineGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|engine| engine.has_discarded()) {
            self.discard();
        }
    }
}

impl EngineGuard<'_> {
    #[cold]
    fn discard(&mut self) {
        if let Some(mut engine) = self.0.take() {
            let discarded = engine.take_discarded();
            drop(engine);
            drop(discarded);
        }
    }
}

impl Loop {
    /// The engine, for one call into it: nothing in Python may run while it is borrowed.
    ///
    /// Where the loop waits, and this is another thread, it wakes the loop and waits until it can have the engine.
    ///
    /// # Errors
    /// `RuntimeError` if the loop is closed, or waits in the process of which this one is a child.
    #[inline]
    pub(crate) fn engine(&self) -> PyResult<EngineGuard<'_>> {
        match self.engine.try_borrow_mut() {
            Ok(engine) => opened(engine),
            Err(_) => self.engine_as_guest(),
        }
    }

    /// The engine, if the loop does not wait.
    ///
    /// # Errors
    /// `RuntimeError` if it does, or is closed.
    #[inline]
    pub(crate) fn engine_now(&self) -> PyResult<EngineGuard<'_>> {
        self.engine
            .try_borrow_mut()
            .map_or_else(|_| Err(wrong_thread()), opened)
    }

    /// Runs what may block, without the interpreter lock. Other threads that want the engine have their turn behind it,
    /// before anything else happens in this one.
    pub(crate) fn block<T: Send>(&self, py: Python<'_>, wait: impl Send + FnOnce() -> T) -> T {
        self.door.waiting.set(here());
        let outcome = py.detach(wait);
        self.door.waiting.set(0);
        outcome
    }

    /// Lets other threads have the engine that have asked for it.
    #[inline]
    pub(crate) fn let_guests_in(&self, py: Python<'_>) {
        while self.door.guests.get() > 0 {
            py.detach(|| thread::sleep(GLANCE));
        }
    }

    #[cold]
    fn engine_as_guest(&self) -> PyResult<EngineGuard<'_>> {
        let door = &self.door;
        if door.waiting.get() == here() || door.process != std::process::id() {
            return Err(wrong_thread());
        }
        door.guests.set(door.guests.get() + 1);
        let engine = loop {
            // Again and again: the loop may have been on its way into the wait.
            self.wake();
            Python::attach(|py| py.detach(|| thread::sleep(GLANCE)));
            if let Ok(engine) = self.engine.try_borrow_mut() {
                break engine;
            }
        };
        door.guests.set(door.guests.get() - 1);
        opened(engine)
    }
}

#[inline]
fn opened(engine: RefMut<'_, Option<Engine>>) -> PyResult<EngineGuard<'_>> {
    match RefMut::filter_map(engine, Option::as_mut) {
        Ok(engine) => Ok(EngineGuard(Some(engine))),
        Err(_) => Err(PyRuntimeError::new_err("Event loop is closed")),
    }
}

#[cold]
fn wrong_thread() -> PyErr {
    PyRuntimeError::new_err(
        "Non-thread-safe operation invoked on an event loop other than the current one; \
         use call_soon_threadsafe() from other threads",
    )
}

/// A number that no other thread of this moment has, and that is not 0.
fn here() -> usize {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}
