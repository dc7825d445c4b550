//! Watched descriptors, for `add_reader` and `add_writer`.

use std::os::fd::RawFd;

use hotloop::driver::Direction;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::Loop;
use crate::answers::{argument, none, object_or_none};
use crate::errors::os_error;
use crate::ffi::{Call, Object, This};
use crate::handles::Scheduled;

pub(super) fn watch_read<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    watch(this, &call, Direction::Read)
}

pub(super) fn watch_write<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    watch(this, &call, Direction::Write)
}

pub(super) fn unwatch_read<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    unwatch(this, &call, Direction::Read)
}

pub(super) fn unwatch_write<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    unwatch(this, &call, Direction::Write)
}

pub(super) fn wakes_only<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let fd: Option<RawFd> = argument(&call, 0, "_wakes_only")?.extract()?;
    this.engine()?.wakes_only(fd);
    none(this.py())
}

pub(super) fn watchers<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let fd: RawFd = argument(&call, 0, "_watchers")?.extract()?;
    let (reader, writer) = {
        let mut engine = this.engine()?;
        (
            engine.watcher(fd, Direction::Read).cloned(),
            engine.watcher(fd, Direction::Write).cloned(),
        )
    };
    let [reader, writer] = [reader, writer].map(|watcher| watcher.and_then(Scheduled::into_handle));
    Ok((object_or_none(py, reader), object_or_none(py, writer))
        .into_pyobject(py)?
        .into_any())
}

pub(super) fn watched<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let watched: Vec<RawFd> = this
        .engine()
        .map(|engine| engine.watched().collect())
        .unwrap_or_default();
    Ok(PyList::new(this.py(), watched)?.into_any())
}

fn watch<'py>(
    this: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    direction: Direction,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(call, 0, "_watch")?.extract()?;
    let handle: Object = argument(call, 1, "_watch")?.into();
    let old = this
        .engine()?
        .watch(fd, direction, handle.into())
        .map_err(os_error)?;
    Ok(object_or_none(this.py(), old.and_then(Scheduled::into_handle)))
}

fn unwatch<'py>(
    this: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    direction: Direction,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(call, 0, "_unwatch")?.extract()?;
    let old = this.engine()?.unwatch(fd, direction);
    Ok(object_or_none(this.py(), old.and_then(Scheduled::into_handle)))
}
