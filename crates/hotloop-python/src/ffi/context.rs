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

/// Words of a thread's state in which its current context is looked for: fewer than any CPython's has, from 3.11 on.
const THREAD_STATE: usize = 40;

/// What is known of how this Python lays things out, by trying.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    /// Whether a context has its map at [`VARIABLES`].
    variables: bool,
    /// Which word of a thread's state is its current context.
    current: Option<usize>,
}

impl Layout {
    #[inline]
    fn get(py: Python<'_>) -> Self {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        *LAYOUT.get_or_init(|| Self {
            variables: variables_are_known(py).unwrap_or(false),
            current: find_current(py).unwrap_or(None),
        })
    }
}

/// Whether two contexts have one and the same map of variables. False where this Python lays contexts out otherwise.
#[inline]
pub(crate) fn same_variables(py: Python<'_>, one: &Object, other: &Object) -> bool {
    Layout::get(py).variables && variables(one.pointer()) == variables(other.pointer())
}

/// Whether a context has the variables of the current one. False also where that cannot be told without making a copy.
#[inline]
pub(crate) fn has_current_variables(py: Python<'_>, context: &Object) -> bool {
    let layout = Layout::get(py);
    let Some(word) = layout.current.filter(|_| layout.variables) else {
        return false;
    };
    let current = current(word);
    !current.is_null() && variables(current) == variables(context.pointer())
}

/// What a word of this thread's state holds.
#[inline]
fn current(word: usize) -> *mut ffi::PyObject {
    // SAFETY: this thread holds the interpreter lock, so it has a state, which is longer than any word that is asked for.
    unsafe { *ffi::PyThreadState_Get().cast::<*mut ffi::PyObject>().add(word) }
}

#[inline]
fn variables(context: *mut ffi::PyObject) -> *const ffi::PyObject {
    // SAFETY: every caller passes a context of the interpreter's, which is longer than this offset.
    unsafe { *context.byte_offset(VARIABLES).cast() }
}

/// Tries whether the field at [`VARIABLES`] behaves as the map does: shared by a copy, replaced by setting a variable.
fn variables_are_known(py: Python<'_>) -> PyResult<bool> {
    let original = copy_context(py)?;
    let copy = copy_of(py, &original)?;
    let map = |context: &Object| variables(context.pointer());
    let shared = map(&original) == map(&copy) && !map(&copy).is_null();
    let variable = py
        .import("contextvars")?
        .getattr("ContextVar")?
        .call1(("hotloop",))?;
    copy.bind(py).call_method1("run", (variable.getattr("set")?, 1))?;
    let replaced = map(&original) != map(&copy);
    let again = copy_of(py, &copy)?;
    Ok(shared && replaced && map(&again) == map(&copy))
}

/// Finds the one word of this thread's state that is whichever context is entered.
fn find_current(py: Python<'_>) -> PyResult<Option<usize>> {
    let mut found: Vec<usize> = (0..THREAD_STATE).collect();
    for _ in 0..3 {
        let context = copy_context(py)?;
        let is_it = |word: &usize| current(*word) == context.pointer();
        enter(py, &context)?;
        found.retain(is_it);
        exit(py, &context)?;
        found.retain(|word| !is_it(word));
    }
    Ok(<[usize; 1]>::try_from(found).ok().map(|[word]| word))
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
