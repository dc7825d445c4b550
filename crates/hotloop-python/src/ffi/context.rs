//! Context variables and the interpreter lock.

use std::sync::OnceLock;

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

/// A copy of a context. O(1).
///
/// # Errors
/// Out of memory; `TypeError` if it is no context.
#[inline]
pub(crate) fn copy_of(py: Python<'_>, context: &Object) -> PyResult<Object> {
    // SAFETY: the object is alive; the call checks its type.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.pointer()))?.into()) }
}

/// Where a context keeps its map of variables, in every CPython from 3.7 to 3.15 (`ctx_vars`): behind the object's head
/// and the previous context. The map is immutable, so two contexts with one map have the same variables.
const VARIABLES: isize = size_of::<ffi::PyObject>().cast_signed() + size_of::<usize>().cast_signed();

/// Whether two contexts have one and the same map of variables. False where this Python lays contexts out otherwise.
#[inline]
pub(crate) fn same_variables(py: Python<'_>, one: &Object, other: &Object) -> bool {
    static KNOWN_LAYOUT: OnceLock<bool> = OnceLock::new();
    *KNOWN_LAYOUT.get_or_init(|| layout_is_known(py).unwrap_or(false)) && variables(one) == variables(other)
}

fn variables(context: &Object) -> *const ffi::PyObject {
    // SAFETY: every caller passes a context that the interpreter has just made, which is longer than this offset.
    unsafe { *context.pointer().byte_offset(VARIABLES).cast() }
}

/// Tries whether the field at [`VARIABLES`] behaves as the map does: shared by a copy, replaced by setting a variable.
fn layout_is_known(py: Python<'_>) -> PyResult<bool> {
    let original = copy_context(py)?;
    let copy = copy_of(py, &original)?;
    let shared = variables(&original) == variables(&copy) && !variables(&copy).is_null();
    let variable = py
        .import("contextvars")?
        .getattr("ContextVar")?
        .call1(("hotloop",))?;
    copy.bind(py).call_method1("run", (variable.getattr("set")?, 1))?;
    let replaced = variables(&original) != variables(&copy);
    let again = copy_of(py, &copy)?;
    Ok(shared && replaced && variables(&again) == variables(&copy))
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
