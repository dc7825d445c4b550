//! `ReadPipeTransport` and `WritePipeTransport`: the ends of pipes, and of what is used like one.

mod read;
mod write;

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::StreamKey;
use hotloop::driver::{self, PipeKind};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

pub(super) use self::read::ReadPipeTransport;
pub(crate) use self::read::open_read_pipe;
pub(super) use self::write::WritePipeTransport;
pub(crate) use self::write::open_write_pipe;
use super::link::{Link, Linked};
use crate::answers::{argument, object_or_none};
use crate::errors::os_error;
use crate::event_loop::Loop;
use crate::ffi::{Call, Instance, Object, This};
use crate::modules::REPORTS;

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What CPython raises if a class cannot be.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    read::add_to(module)?;
    write::add_to(module)
}

/// A transport over a file object, which owns the descriptor.
pub(crate) trait Piped: Linked<Key = StreamKey> {
    /// The file object; `None` once it is closed.
    fn pipe(&self) -> &RefCell<Option<Object>>;
}

/// A transport of `class` over the first argument, which becomes non-blocking, for the protocol, the waiter and the
/// dictionary that follow. `connection_made` and then `_begin_reading`, if `is_reading` of what the pipe is, run on the
/// next turn.
///
/// # Errors
/// The kernel's; a `ValueError` with `refusal` for what cannot be waited for.
fn open<'py, T: Piped>(
    event_loop: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    class: &OnceLock<Object>,
    value: impl FnOnce(Link, RefCell<Option<Object>>) -> T,
    refusal: &'static str,
    is_reading: impl FnOnce(PipeKind) -> bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    let [pipe, protocol, waiter, extra] = [0, 1, 2, 3].map(|index| argument(call, index, "_open_pipe"));
    let (pipe, protocol, waiter, extra) = (pipe?, protocol?, waiter?, extra?);
    let fd: RawFd = pipe.call_method0(pyo3::intern!(py, "fileno"))?.extract()?;
    let kind = driver::prepare_pipe(fd)
        .map_err(os_error)?
        .ok_or_else(|| PyValueError::new_err(refusal))?;
    let class = class
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module is not imported"))?;
    let link = Link::new(event_loop, fd, None);
    let value = value(link, RefCell::new(Some((&*pipe).into())));
    let transport = Instance::new(&class.bind(py).cast::<PyType>()?.to_owned(), value)?;
    let object = transport.object().clone().into_bound(py);
    let extra = match extra.is_none() {
        true => PyDict::new(py).into_any(),
        false => extra.to_owned(),
    };
    extra.set_item(pyo3::intern!(py, "pipe"), &*pipe)?;
    object.setattr(pyo3::intern!(py, "_extra"), extra)?;
    transport.with(py, |transport| {
        transport.set_protocol(&protocol)?;
        let key = event_loop.engine()?.open_pipe(fd, kind);
        transport.start(event_loop, key, is_reading(kind))?;
        transport.wake(event_loop, &waiter)
    })?;
    Ok(object)
}

/// Closes the file object.
fn close_pipe<T: Piped>(this: This<'_, '_, T>) -> PyResult<()> {
    let py = this.py();
    let pipe = this.pipe().take();
    match pipe {
        None => Ok(()),
        Some(pipe) => pipe.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop),
    }
}

/// Runs before a transport goes.
fn finalize<T: Piped>(this: This<'_, '_, T>) {
    if this.pipe().borrow().is_some() {
        this.warn_unclosed();
    }
}

/// `_pipe`.
fn get_pipe<'py, T: Piped>(this: This<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    let pipe = this.pipe().borrow().clone();
    Ok(object_or_none(this.py(), pipe))
}

/// Assigning to `_pipe`, as programs do that close the pipe by themselves.
fn set_pipe<'py, T: Piped>(this: This<'_, 'py, T>, value: &Bound<'py, PyAny>) -> PyResult<()> {
    let old = this.pipe().replace((!value.is_none()).then(|| value.into()));
    drop(old);
    Ok(())
}

impl<'py, T: Piped> This<'_, 'py, T> {
    /// Logs what happens to a pipe, as asyncio does in debug mode.
    fn log(self, event: &str) -> PyResult<()> {
        let debug = self.with_loop(|event_loop| Ok(event_loop.is_debug()))?;
        if debug == Some(true) {
            REPORTS.module(self.py())?.call_method1(event, (self.object(),))?;
        }
        Ok(())
    }
}
