//! Which transport has which descriptor: asyncio's `loop._transports`.

use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::Loop;
use crate::answers::{argument, bool_object, object_or_none};
use crate::ffi::{Call, Object, This};
use crate::transports;

impl<'py> This<'_, 'py, Loop> {
    /// Raises if a descriptor belongs to a transport that is not closing.
    ///
    /// # Errors
    /// `RuntimeError` in that case, in asyncio's words.
    #[inline]
    pub(crate) fn ensure_no_transport(self, fd: RawFd) -> PyResult<()> {
        let native = u32::try_from(fd).ok().and_then(|fd| self.transports.get(fd));
        if native.is_none() && self.foreign.borrow().is_none() {
            return Ok(());
        }
        let name = pyo3::intern!(self.py(), "_ensure_fd_no_transport");
        self.object().call_method1(name, (fd,)).map(drop)
    }
}

pub(super) fn transport<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let fd: u32 = argument(&call, 0, "_transport")?.extract()?;
    Ok(object_or_none(this.py(), this.transports.get(fd)))
}

pub(super) fn live_transports<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let all = this.transports.all();
    let pairs = all
        .into_iter()
        .map(|(fd, transport)| (fd, transport.into_bound(py)));
    Ok(PyList::new(py, pairs.collect::<Vec<_>>())?.into_any())
}

pub(super) fn keep_transport<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: u32 = argument(&call, 0, "_keep_transport")?.extract()?;
    let transport: Object = argument(&call, 1, "_keep_transport")?.into();
    bool_object(this.py(), transports::register(this, fd, &transport))
}

pub(super) fn forget_transport<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: u32 = argument(&call, 0, "_forget_transport")?.extract()?;
    bool_object(this.py(), this.transports.remove(fd))
}
