//! The methods and attributes that transports have in common, for their classes to list.

use pyo3::prelude::*;

use super::link::Linked;
use crate::answers::{bool_object, none, object_or_none};
use crate::ffi::{Call, This};

type Answer<'py> = PyResult<Bound<'py, PyAny>>;

pub(super) fn close<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    this.close()?;
    none(this.py())
}

pub(super) fn abort<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    let py = this.py();
    this.force_close(&py.None().into_bound(py))?;
    none(py)
}

pub(super) fn is_closing<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    bool_object(this.py(), this.is_closing())
}

pub(super) fn get_protocol<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    let protocol = this.protocol().map(|protocol| protocol.object);
    Ok(object_or_none(this.py(), protocol))
}

pub(super) fn get_write_buffer_size<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    // What is only gathered would have been sent already by a loop that does not gather.
    this.flush_now()?;
    let size = this.flow(|_, queued| queued)?.unwrap_or(0);
    Ok(size.into_pyobject(this.py())?.into_any())
}

pub(super) fn get_write_buffer_limits<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    Ok(this.limits()?.into_pyobject(this.py())?.into_any())
}

pub(super) fn set_write_buffer_limits<'py, T: Linked>(
    this: This<'_, 'py, T>,
    call: Call<'_, 'py>,
) -> Answer<'py> {
    this.set_limits(&call)?;
    none(this.py())
}

/// `_loop`.
pub(super) fn event_loop<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    let object = this.event_loop().map(|event_loop| event_loop.object().clone());
    Ok(object_or_none(this.py(), object))
}

/// `_sock_fd` or `_fileno`.
pub(super) fn number<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    Ok(this.link().fd.into_pyobject(this.py())?.into_any())
}

/// `_protocol_paused`.
pub(super) fn is_protocol_paused<'py, T: Linked>(this: This<'_, 'py, T>) -> Answer<'py> {
    let paused = this.flow(|flow, _| flow.is_paused())?.unwrap_or(false);
    bool_object(this.py(), paused)
}
