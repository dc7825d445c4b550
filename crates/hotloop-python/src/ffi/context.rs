//! Context variables and the interpreter lock.

use pyo3::ffi;
use pyo3::prelude::*;

use super::Object;

/// A copy of the current context. O(1).
///
/// # Errors
/// Out of memory.
#[inline]
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Object> {
    // SAFETY: the call has no arguments; its result is a new reference or an error.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent())?.into()) }
}

/// Makes `context` the current one until [`exit`].
///
/// # Errors
/// `RuntimeError` if it is entered already, `TypeError` if it is no context.
#[inline]
pub(crate) fn enter(py: Python<'_>, context: &Object) -> PyResult<()> {
    // SAFETY: the object is alive, and of the type that the call demands.
    unsafe {
        if ffi::PyContext_CheckExact(context.pointer()) == 0 {
            return Err(pyo3::exceptions::PyTypeError::new_err(
                "an instance of Context was expected",
            ));
        }
        if ffi::PyContext_Enter(context.pointer()) < 0 {
            Err(PyErr::fetch(py))
        } else {
            Ok(())
        }
    }
}

/// Leaves `context`, which [`enter`] entered. An exception that is set stays set.
///
/// # Errors
/// `RuntimeError` if it is not the current one.
#[inline]
pub(crate) fn exit(py: Python<'_>, context: &Object) -> PyResult<()> {
    // SAFETY: the object is alive; `enter` has checked its type.
    unsafe {
        if ffi::PyContext_Exit(context.pointer()) < 0 {
            Err(PyErr::fetch(py))
        } else {
            Ok(())
        }
    }
}

/// Whether this thread holds the interpreter lock.
pub(crate) fn gil_is_held() -> bool {
    // SAFETY: the call may be made at any time.
    unsafe { ffi::PyGILState_Check() == 1 }
}
