//! A loop whose waiting is done by a selector object, in Python.

use std::os::fd::RawFd;
use std::time::Duration;

use hotloop::Timeout;
use hotloop::driver::{AnyDriver, Driver, Interest, Woken};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyList};

use super::Loop;
use crate::answers::{argument, bool_object, none};
use crate::errors::os_error;
use crate::ffi::{self, Call, This};
use crate::host::Engine;

/// `selectors.EVENT_READ`.
const EVENT_READ: u8 = 1;

/// `selectors.EVENT_WRITE`.
const EVENT_WRITE: u8 = 2;

/// Puts the loop on another driver, before it has anything to do.
pub(super) fn use_driver<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let name: String = argument(&call, 0, "_use_driver")?.extract()?;
    let Some(driver) = AnyDriver::by_name(&name).map_err(os_error)? else {
        return Err(PyValueError::new_err(format!("there is no driver {name:?}")));
    };
    this.facility.set(driver.name());
    this.delegates.set(matches!(driver, AnyDriver::Delegated(_)));
    let engine = Engine::new(driver);
    let inbox = this.inbox.replace(Some(engine.inbox()));
    let old = this.engine.replace(Some(engine));
    drop((old, inbox));
    none(this.py())
}

/// The descriptor that the selector object waits for on behalf of other threads.
pub(super) fn waker_fd<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let mut engine = this.engine()?;
    let number = engine
        .driver_mut()
        .delegated()
        .map_or(-1, |notes| notes.waker_fd());
    drop(engine);
    Ok(number.into_pyobject(this.py())?.into_any())
}

/// What the selector object is to be told: of each descriptor the events that it knows and those that are wanted.
pub(super) fn take_changes<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let mut engine = this.engine()?;
    let changes = engine.driver_mut().delegated().map(|notes| notes.take_changes());
    drop(engine);
    let changes = changes.unwrap_or_default().into_iter();
    let changes = changes.map(|change| (change.fd, events(change.before), events(change.after)));
    Ok(PyList::new(this.py(), changes.collect::<Vec<_>>())?.into_any())
}

/// Notes that the selector object has refused a descriptor.
pub(super) fn refused<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(&call, 0, "_refused")?.extract()?;
    if let Some(notes) = this.engine()?.driver_mut().delegated() {
        notes.refused(fd);
    }
    none(this.py())
}

/// Notes what the selector object has found. Answers whether it is a descriptor that the loop asks for.
pub(super) fn found<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(&call, 0, "_found")?.extract()?;
    let mask: u8 = argument(&call, 1, "_found")?.extract()?;
    let ready = Interest {
        read: mask & EVENT_READ != 0,
        write: mask & EVENT_WRITE != 0,
        exclusive: false,
    };
    // Closed meanwhile, by what the selector object has called.
    let engine = this.open_engine()?;
    let is_known = engine.is_none_or(|mut engine| {
        engine
            .driver_mut()
            .delegated()
            .is_some_and(|notes| notes.found(fd, ready))
    });
    bool_object(this.py(), is_known)
}

/// Waits by the selector object. It holds the interpreter lock, or lets it go, as it likes.
///
/// # Errors
/// What the selector object raises.
pub(crate) fn wait(this: This<'_, '_, Loop>, timeout: Timeout) -> PyResult<Woken> {
    let py = this.py();
    let sleeps = timeout != Some(Duration::ZERO) && this.engine()?.fall_asleep();
    let seconds = match timeout {
        _ if !sleeps => PyInt::new(py, 0).into_any(),
        None => py.None().into_bound(py),
        Some(timeout) => PyFloat::new(py, timeout.as_secs_f64()).into_any(),
    };
    let waited = ffi::call_method(this.object(), pyo3::intern!(py, "_select"), [&seconds]);
    let mut engine = this.engine()?;
    engine.wake_up();
    waited?;
    engine.driver_mut().wait(Some(Duration::ZERO)).map_err(os_error)
}

fn events(interest: Interest) -> u8 {
    u8::from(interest.read) * EVENT_READ + u8::from(interest.write) * EVENT_WRITE
}
