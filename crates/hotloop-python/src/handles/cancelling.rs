//! `cancel`, and the lock of handles that other threads may cancel.

use pyo3::prelude::*;

use super::{Handles, Kind, handles};
use crate::event_loop::Loop;
use crate::ffi::{self, Object};

pub(super) const CANCEL: &std::ffi::CStr =
    c"cancel($self, /)\n--\n\nCancel the callback. Nothing happens where that was done before.";

/// `Handle.cancel`.
pub(super) fn cancel(py: Python<'_>, handle: &Object) -> PyResult<Object> {
    let handles = handles();
    cancel_of(py, handles, &handles.handle, handle)
}

/// `TimerHandle.cancel`.
pub(super) fn cancel_timer(py: Python<'_>, timer: &Object) -> PyResult<Object> {
    let handles = handles();
    cancel_of(py, handles, &handles.timer, timer)
}

/// What asyncio's `cancel` does.
fn cancel_of(py: Python<'_>, handles: &Handles, kind: &Kind, handle: &Object) -> PyResult<Object> {
    let event_loop = handles
        .event_loop
        .get(handle)
        .filter(|_| kind.is_of(handle) && kind.is_original(py));
    let Some(event_loop) = event_loop else {
        // Of a class below, or somebody has put another method in its place.
        let method = kind.base.bind(py).getattr(pyo3::intern!(py, "cancel"))?;
        return Ok(ffi::call_one(&method, &handle.bind(py))?.into());
    };
    if handles.cancelled.is_true(handle) {
        return Ok(handles.none.clone());
    }
    let is_timer = std::ptr::eq(kind, &raw const handles.timer);
    let native = match Loop::of(&event_loop) {
        Some(native) if native.with(py, |native| native.cancels_natively())? => Some(native),
        _ => None,
    };
    let event_loop = event_loop.bind(py);
    match &native {
        Some(native) if is_timer && handles.scheduled.is_true(handle) => {
            // The caller has it: nothing is dropped here.
            let let_go = native.with(py, |native| native.note_cancelled(&handle.bind(py)));
            if let Some(timer) = let_go {
                handles.scheduled.set(&timer, handles.false_.clone());
                ffi::track_if_shared(&timer);
            }
        }
        None if is_timer => {
            let name = pyo3::intern!(py, "_timer_handle_cancelled");
            ffi::call_method(&event_loop, name, [&handle.bind(py)]).map(drop)?;
        }
        _ => {}
    }
    handles.cancelled.set(handle, handles.true_.clone());
    let debug = match &native {
        Some(native) => native.get(py).is_debug(),
        None => ffi::call_method(&event_loop, pyo3::intern!(py, "get_debug"), [])?.is_truthy()?,
    };
    if debug {
        handles
            .repr
            .set(handle, handle.bind(py).repr()?.into_any().into());
    }
    handles.callback.set(handle, handles.none.clone());
    handles.arguments.set(handle, handles.none.clone());
    Ok(handles.none.clone())
}

/// `_lock` of a handle that other threads may cancel: made when somebody asks for it.
pub(super) fn lock(py: Python<'_>, handle: &Object) -> PyResult<Object> {
    let missing = || pyo3::exceptions::PyAttributeError::new_err("_lock");
    let slot = handles().lock.ok_or_else(missing)?;
    if let Some(lock) = slot.get(handle) {
        return Ok(lock);
    }
    let made = py.import("threading")?.getattr("RLock")?.call0()?;
    // Making it may have let another thread in, which has made one.
    if slot.get(handle).is_none() {
        slot.set(handle, made.into());
    }
    slot.get(handle).ok_or_else(missing)
}

pub(super) fn set_lock(_py: Python<'_>, handle: &Object, lock: Object) {
    if let Some(slot) = handles().lock {
        slot.set(handle, lock);
    }
}
