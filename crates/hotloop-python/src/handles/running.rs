//! Running the callbacks of handles without a Python frame of the handle's.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Bare, Context, Handles, handles, kind};
use crate::ffi::{self, Object};
use crate::modules::REPORTS;

/// A callback and how to run it.
pub(crate) struct Callback {
    /// What is called.
    pub(crate) function: Object,
    /// A tuple.
    pub(crate) arguments: Object,
    /// The context that it runs in.
    pub(crate) context: Object,
}

/// Takes the callback out of a native handle that nobody else can get at, to be run and then [put back](Taken::into_handle) or
/// [parted from it](Taken::into_parts). `None` for any other handle, for one that was cancelled, and where somebody has replaced
/// methods that asyncio would call. `copy` makes a copy of a context.
#[inline]
pub(crate) fn take(
    py: Python<'_>,
    handle: &Object,
    copy: impl FnOnce(&Object) -> PyResult<Object>,
) -> Option<Taken> {
    let handles = handles();
    let kind = if handles.handle.is_of(handle) {
        &handles.handle
    } else {
        handles.threadsafe.as_ref().filter(|kind| kind.is_of(handle))?
    };
    if !ffi::is_unshared(handle)
        || handles.cancelled.is_true(handle)
        || !kind.is_original(py)
        // Whose methods those of the others call.
        || !handles.handle.is_original(py)
        || !handles.is_whole(handle)
    {
        return None;
    }
    let function = handles.callback.take(handle)?;
    let arguments = handles.arguments.take(handle)?;
    let context = handles.context.take(handle)?;
    let deferred = kind.deferred.get(handle);
    kind.deferred.set(handle, false);
    Some(Taken::new(function, arguments, context, deferred, copy))
}

impl Bare {
    /// What is called, to be run. `copy` makes a copy of a context.
    #[inline]
    pub(crate) fn take(self, copy: impl FnOnce(&Object) -> PyResult<Object>) -> Taken {
        Taken::new(self.function, self.arguments, self.context, self.deferred, copy)
    }
}

/// What was [taken](take) out of a handle, or had none.
pub(crate) struct Taken {
    /// What is called.
    pub(crate) function: Object,
    /// A tuple.
    pub(crate) arguments: Object,
    /// The context that it runs in.
    pub(crate) context: Object,
    /// What that is a copy of, if it is one.
    snapshot: Option<Object>,
}

impl Taken {
    #[inline(always)]
    fn new(
        function: Object,
        arguments: Object,
        held: Object,
        deferred: bool,
        copy: impl FnOnce(&Object) -> PyResult<Object>,
    ) -> Self {
        let (context, snapshot) = if deferred && held.refcount() > 1 {
            match copy(&held) {
                Ok(copy) => (copy, Some(held)),
                // No memory: it runs in what others would have had a copy of.
                Err(_) => (held, None),
            }
        } else {
            (held, None)
        };
        Self {
            function,
            arguments,
            context,
            snapshot,
        }
    }

    /// Puts all of it back into the handle, or into a new one if it had none.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn into_handle(
        self,
        py: Python<'_>,
        handle: Option<Object>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Object> {
        let Some(handle) = handle else {
            let context = Context::Given(self.context);
            return super::new(py, event_loop, self.function, self.arguments, context, false);
        };
        let handles = handles();
        handles.callback.set(&handle, self.function);
        handles.arguments.set(&handle, self.arguments);
        handles.context.set(&handle, self.context);
        Ok(handle)
    }

    /// Drops what was called, and answers the handle, emptied for [`new_in`](super::new_in) as by [`empty`](super::empty), the
    /// context in which that ran, and what it is a copy of.
    #[inline]
    pub(crate) fn into_parts(self, handle: Option<Object>) -> (Option<Object>, Object, Option<Object>) {
        // Dropping these may run Python code, which cannot get at the handle.
        drop((self.function, self.arguments));
        (handle.and_then(emptied), self.context, self.snapshot)
    }
}

/// A handle whose callback, arguments and context were taken out, for [`new_in`](super::new_in). None as by [`empty`](super::empty).
#[inline]
pub(super) fn emptied(handle: Object) -> Option<Object> {
    let handles = handles();
    if !handles.handle.is_of(&handle) || !ffi::is_unshared(&handle) {
        return None;
    }
    drop(handles.event_loop.take(&handle));
    handles.repr.ensure(&handle, &handles.none);
    handles.traceback.ensure(&handle, &handles.none);
    Some(handle)
}

/// The callback of a native handle; `None` if the handle is of another class, was cancelled meanwhile, or is one whose
/// lock another thread may want: its own `_run` takes that.
#[inline]
pub(crate) fn callback(py: Python<'_>, handle: &Object) -> Option<Callback> {
    let handles = handles();
    let kind = kind(handles, handle)?;
    if handles
        .threadsafe
        .as_ref()
        .is_some_and(|threadsafe| std::ptr::eq(threadsafe, kind))
        && !ffi::is_unshared(handle)
    {
        return None;
    }
    Some(Callback {
        function: handles.callback.get(handle)?,
        arguments: handles.arguments.get(handle)?,
        context: run_context(py, handles, handle)?,
    })
}

/// Whether the methods of handles are what asyncio defines, so that native handles may be run without them.
#[inline]
pub(crate) fn run_is_original(py: Python<'_>) -> bool {
    let handles = handles();
    handles.handle.is_original(py)
        && handles.timer.is_original(py)
        && handles
            .threadsafe
            .as_ref()
            .is_none_or(|kind| kind.is_original(py))
}

/// Reports an exception of a handle's callback, as `Handle._run` does.
///
/// # Errors
/// What the loop's exception handler raises: `SystemExit` and `KeyboardInterrupt` pass through it.
pub(crate) fn report(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    handle: &Object,
    error: PyErr,
) -> PyResult<()> {
    let arguments = PyDict::new(py);
    arguments.set_item("exception", error.into_value(py))?;
    REPORTS
        .module(py)?
        .call_method("callback_failed", (event_loop, handle.bind(py)), Some(&arguments))?;
    Ok(())
}

/// The context for the one run of a handle: of a snapshot that others hold too, a copy.
#[inline]
fn run_context(py: Python<'_>, handles: &Handles, handle: &Object) -> Option<Object> {
    let context = handles.context.get(handle)?;
    // Two references: the slot's and this one.
    if kind(handles, handle)?.deferred.get(handle) && context.refcount() > 2 {
        return ffi::copy_of(py, &context).ok();
    }
    Some(context)
}
