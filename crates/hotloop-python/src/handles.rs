//! `asyncio.Handle` and `asyncio.TimerHandle`, made natively.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::ffi::{self, Flag, Object, Slot};

/// The handle classes and where their instances keep what.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The native class below `asyncio.Handle`.
    handle: Object,
    /// The native class below `asyncio.TimerHandle`.
    timer: Object,
    /// Whether a handle's context is a snapshot, of which the callback gets a copy of its own.
    handle_deferred: Flag,
    /// The same of a timer handle.
    timer_deferred: Flag,
    callback: Slot,
    arguments: Slot,
    cancelled: Slot,
    event_loop: Slot,
    traceback: Slot,
    repr: Slot,
    context: Slot,
    when: Slot,
    scheduled: Slot,
    /// `Handle._run` as asyncio defines it. Where a tool has replaced it, the replacement is called.
    run: Object,
    /// The class of handles that other threads may cancel, where this Python has one (3.14).
    threadsafe: Option<Object>,
    none: Object,
    false_: Object,
    true_: Object,
}

/// Made with the module; classes live as long as the process.
static HANDLES: OnceLock<Handles> = OnceLock::new();

/// What a handle's callback runs in.
pub(crate) enum Context {
    /// This very context.
    Given(Object),
    /// A copy of this one, which others may hold too and nobody ever enters. Taken when the callback runs: most
    /// callbacks scheduled together see the same variables, and a copy for each that waits is what costs.
    Snapshot(Object),
}

/// A callback and how to run it.
pub(crate) struct Callback {
    /// What is called.
    pub(crate) function: Object,
    /// A tuple.
    pub(crate) arguments: Object,
    /// The context that it runs in.
    pub(crate) context: Object,
}

/// Makes the handle classes and adds them to the module.
///
/// # Errors
/// `TypeError` if this Python's `asyncio.Handle` is laid out otherwise than any known.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let events = py.import("asyncio.events")?;
    let base = events.getattr("Handle")?.cast_into::<PyType>()?;
    let timer_base = events.getattr("TimerHandle")?.cast_into::<PyType>()?;
    let (handle, handle_deferred) = ffi::plain_class(
        &base,
        c"hotloop._hotloop.Handle",
        c"_context",
        own_context,
        set_context,
    )?;
    let (timer, timer_deferred) = ffi::plain_class(
        &timer_base,
        c"hotloop._hotloop.TimerHandle",
        c"_context",
        own_context,
        set_context,
    )?;
    module.add("Handle", &handle)?;
    module.add("TimerHandle", &timer)?;
    let slot = |name| Slot::find(&base, name);
    let handles = Handles {
        handle: handle.into_any().into(),
        timer: timer.into_any().into(),
        handle_deferred,
        timer_deferred,
        callback: slot("_callback")?,
        arguments: slot("_args")?,
        cancelled: slot("_cancelled")?,
        event_loop: slot("_loop")?,
        traceback: slot("_source_traceback")?,
        repr: slot("_repr")?,
        context: slot("_context")?,
        when: Slot::find(&timer_base, "_when")?,
        scheduled: Slot::find(&timer_base, "_scheduled")?,
        run: base.getattr("_run")?.into(),
        threadsafe: events.getattr("_ThreadSafeHandle").ok().map(Object::from),
        none: py.None().into_bound(py).into(),
        false_: false.into_pyobject(py)?.to_owned().into_any().into(),
        true_: true.into_pyobject(py)?.to_owned().into_any().into(),
    };
    if HANDLES.set(handles).is_err() {
        return Err(pyo3::exceptions::PyImportError::new_err(
            "hotloop can be imported once in a process",
        ));
    }
    Ok(())
}

/// The classes. The module is made before anything else can run.
#[inline]
#[expect(
    clippy::expect_used,
    reason = "every caller is a method of a class that the module made after these"
)]
fn handles() -> &'static Handles {
    HANDLES.get().expect("the module is imported")
}

/// A new handle. Without a context it runs in a copy of the current one.
///
/// # Errors
/// Out of memory; in debug mode, whatever taking the traceback raises.
#[inline]
pub(crate) fn new(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<Object> {
    let handles = handles();
    let handle = ffi::alloc_plain(py, &handles.handle)?;
    fill(
        py, handles, &handle, event_loop, function, arguments, context, debug,
    )?;
    Ok(handle)
}

/// A new handle for a call from any thread.
///
/// Since Python 3.14 cancelling such a handle waits for its callback, with a lock that asyncio's own class holds: then
/// it is one of those.
///
/// # Errors
/// As for [`new`].
pub(crate) fn new_threadsafe(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<Object> {
    let Some(class) = &handles().threadsafe else {
        return new(py, event_loop, function, arguments, context, debug);
    };
    let context = match context {
        Context::Given(context) => context,
        Context::Snapshot(context) => ffi::copy_of(py, &context)?,
    };
    let context = context.into_bound(py);
    let arguments = (
        function.into_bound(py),
        arguments.into_bound(py),
        event_loop,
        context,
    );
    let handle = class.bind(py).call1(arguments)?;
    if debug {
        // Its constructor is a frame of its own, which is no part of where the caller stands.
        handle.getattr("_source_traceback")?.call_method0("pop")?;
    }
    Ok(handle.into())
}

/// A new timer handle, marked as scheduled, due at `when`.
///
/// # Errors
/// As for [`new`].
#[inline]
pub(crate) fn new_timer(
    py: Python<'_>,
    event_loop: &Bound<'_, PyAny>,
    when: Object,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<Object> {
    let handles = handles();
    let timer = ffi::alloc_plain(py, &handles.timer)?;
    handles.when.set(&timer, when);
    handles.scheduled.set(&timer, handles.true_.clone());
    fill(
        py, handles, &timer, event_loop, function, arguments, context, debug,
    )?;
    Ok(timer)
}

#[expect(clippy::too_many_arguments, reason = "these are the fields of a handle")]
#[inline]
fn fill(
    py: Python<'_>,
    handles: &Handles,
    handle: &Object,
    event_loop: &Bound<'_, PyAny>,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<()> {
    handles.callback.set(handle, function);
    handles.arguments.set(handle, arguments);
    handles.cancelled.set(handle, handles.false_.clone());
    handles.event_loop.set(handle, event_loop.into());
    handles.repr.set(handle, handles.none.clone());
    let context = match context {
        Context::Given(context) => context,
        Context::Snapshot(context) => {
            deferred(handles, handle).set(handle, true);
            context
        }
    };
    handles.context.set(handle, context);
    let traceback = if debug {
        source_traceback(py)?
    } else {
        handles.none.clone()
    };
    handles.traceback.set(handle, traceback);
    Ok(())
}

/// Where the caller of a native method stands, as asyncio's debug mode keeps it.
fn source_traceback(py: Python<'_>) -> PyResult<Object> {
    let frame = py.import("sys")?.call_method1("_getframe", (0,))?;
    Ok(py
        .import("asyncio.format_helpers")?
        .call_method1("extract_stack", (frame,))?
        .into())
}

/// Whether a handle of any class was cancelled. A handle that cannot say counts as live, and running it tells why.
#[inline]
pub(crate) fn is_cancelled(handle: &Object) -> bool {
    let handles = handles();
    if is_native(handles, handle) {
        return handles.cancelled.is_true(handle);
    }
    Python::attach(|py| {
        handle
            .bind(py)
            .getattr(pyo3::intern!(py, "_cancelled"))
            .and_then(|flag| flag.is_truthy())
            .unwrap_or(false)
    })
}

/// Whether a timer handle is in a loop's heap.
///
/// # Errors
/// What a handle of another class raises.
pub(crate) fn is_scheduled(timer: &Bound<'_, PyAny>) -> PyResult<bool> {
    timer
        .getattr(pyo3::intern!(timer.py(), "_scheduled"))?
        .is_truthy()
}

/// Marks a timer handle as no longer scheduled.
#[inline]
pub(crate) fn unschedule(py: Python<'_>, timer: &Object) -> PyResult<()> {
    let handles = handles();
    if ffi::same_type(timer, &handles.timer) {
        handles.scheduled.set(timer, handles.false_.clone());
        return Ok(());
    }
    timer.bind(py).setattr(pyo3::intern!(py, "_scheduled"), false)
}

/// The callback of a native handle; `None` if the handle is of another class, or was cancelled meanwhile.
#[inline]
pub(crate) fn callback(py: Python<'_>, handle: &Object) -> Option<Callback> {
    let handles = handles();
    if !is_native(handles, handle) {
        return None;
    }
    Some(Callback {
        function: handles.callback.get(handle)?,
        arguments: handles.arguments.get(handle)?,
        context: run_context(py, handles, handle)?,
    })
}

/// Whether `Handle._run` is what asyncio defines, so that native handles may be run without it.
pub(crate) fn run_is_original(py: Python<'_>) -> bool {
    let handles = handles();
    let run = |class: &Object| {
        class
            .bind(py)
            .getattr(pyo3::intern!(py, "_run"))
            .is_ok_and(|run| handles.run.is(&run))
    };
    run(&handles.handle) && run(&handles.timer)
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
    py.import("hotloop._reports")?.call_method(
        "callback_failed",
        (event_loop, handle.bind(py)),
        Some(&arguments),
    )?;
    Ok(())
}

#[inline]
fn is_native(handles: &Handles, handle: &Object) -> bool {
    ffi::same_type(handle, &handles.handle) || ffi::same_type(handle, &handles.timer)
}

/// The flag of a native handle that says whether its context is a snapshot.
#[inline]
fn deferred(handles: &Handles, handle: &Object) -> Flag {
    if ffi::same_type(handle, &handles.timer) {
        handles.timer_deferred
    } else {
        handles.handle_deferred
    }
}

/// The context for the one run of a handle: of a snapshot that others hold too, a copy.
#[inline]
fn run_context(py: Python<'_>, handles: &Handles, handle: &Object) -> Option<Object> {
    let context = handles.context.get(handle)?;
    // Two references: the slot's and this one.
    if deferred(handles, handle).get(handle) && context.refcount() > 2 {
        return ffi::copy_of(py, &context).ok();
    }
    Some(context)
}

/// `handle._context`: whoever asks gets the handle's own context.
fn own_context(py: Python<'_>, handle: &Object) -> PyResult<Object> {
    let handles = handles();
    let missing = || pyo3::exceptions::PyAttributeError::new_err("_context");
    let context = handles.context.get(handle).ok_or_else(missing)?;
    if !is_native(handles, handle) || !deferred(handles, handle).get(handle) {
        return Ok(context);
    }
    let own = ffi::copy_of(py, &context)?;
    set_context(py, handle, own.clone());
    Ok(own)
}

fn set_context(_py: Python<'_>, handle: &Object, context: Object) {
    let handles = handles();
    if is_native(handles, handle) {
        deferred(handles, handle).set(handle, false);
    }
    handles.context.set(handle, context);
}

/// Lets the collector see a handle that the loop has done with, if somebody else keeps it.
#[inline]
pub(crate) fn done(handle: &Object) {
    ffi::track_if_shared(handle);
}
