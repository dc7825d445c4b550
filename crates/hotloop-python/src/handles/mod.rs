//! `asyncio.Handle` and `asyncio.TimerHandle`, made natively.

mod cancelling;
mod running;
mod scheduled;

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use self::cancelling::{CANCEL, cancel, cancel_timer, lock, set_lock};
pub(crate) use self::running::{callback, report, run_is_original, take};
pub(crate) use self::scheduled::{Bare, Blanks, Scheduled, part};
use crate::ffi::{self, Flag, Object, PlainClass, Slot};
use crate::modules::own_method;

/// The handle classes and where their instances keep what.
#[derive(Debug)]
pub(crate) struct Handles {
    /// Below `asyncio.Handle`.
    handle: Kind,
    /// Below `asyncio.TimerHandle`.
    timer: Kind,
    /// Below the class of handles that other threads may cancel, where this Python has one (3.14).
    threadsafe: Option<Kind>,
    callback: Slot,
    arguments: Slot,
    cancelled: Slot,
    event_loop: Slot,
    traceback: Slot,
    repr: Slot,
    context: Slot,
    when: Slot,
    scheduled: Slot,
    /// `_lock` of a handle that other threads may cancel.
    lock: Option<Slot>,
    none: Object,
    false_: Object,
    true_: Object,
}

/// A native class of handles.
#[derive(Debug)]
struct Kind {
    class: Object,
    /// asyncio's class, of which it is one.
    base: Object,
    /// Whether an instance's context is a snapshot, of which the callback gets a copy of its own.
    deferred: Flag,
    /// `_run` as asyncio defines it, or `None` if somebody was there before. Where a tool has replaced it, the replacement is called.
    run: Object,
    /// `cancel` as asyncio defines it, likewise: of the base, and of the class above that, whose it calls.
    cancels: Vec<(Object, Object)>,
    /// The version of the class at which these two were last found in their places; 0 for none.
    checked: AtomicU32,
}

impl Kind {
    /// Makes the class `name` below `base`.
    fn new(
        module: &Bound<'_, PyModule>,
        base: &Bound<'_, PyType>,
        name: &'static std::ffi::CStr,
        class: PlainClass,
    ) -> PyResult<Self> {
        let class = class.property(c"_context", own_context, set_context);
        let (class, deferred) = class.build(base, name)?;
        module.add(class.name()?, &class)?;
        Ok(Self {
            class: class.into_any().into(),
            run: own_method(base, "_run")?,
            cancels: base
                .mro()
                .iter()
                .filter(|above| above.hasattr("cancel").unwrap_or(false))
                .map(|above| Ok((Object::from(&above), own_method(&above, "cancel")?)))
                .collect::<PyResult<_>>()?,
            base: base.as_any().into(),
            deferred,
            checked: AtomicU32::new(0),
        })
    }

    #[inline]
    fn is_of(&self, handle: &Object) -> bool {
        ffi::same_type(handle, &self.class)
    }

    /// Whether `_run` and `cancel` are what asyncio defines, so that native code may do what they do.
    #[inline]
    fn is_original(&self, py: Python<'_>) -> bool {
        let version = ffi::version_of(&self.class).map_or(0, NonZeroU32::get);
        (version != 0 && version == self.checked.load(Ordering::Relaxed)) || self.check(py)
    }

    #[cold]
    fn check(&self, py: Python<'_>) -> bool {
        let finds = |class: &Object, name: &Bound<'_, PyString>, original: &Object| {
            class
                .bind(py)
                .getattr(name)
                .is_ok_and(|found| original.is(&found))
        };
        // `cancel` is looked for where asyncio has it: the native class has one of its own.
        let name = pyo3::intern!(py, "cancel");
        let original = finds(&self.class, pyo3::intern!(py, "_run"), &self.run)
            && self
                .cancels
                .iter()
                .all(|(class, original)| finds(class, name, original));
        let version = ffi::version_of(&self.class).filter(|_| original);
        self.checked
            .store(version.map_or(0, NonZeroU32::get), Ordering::Relaxed);
        original
    }
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

/// Makes the handle classes and adds them to the module.
///
/// # Errors
/// `TypeError` if this Python's `asyncio.Handle` is laid out otherwise than any known.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let events = py.import("asyncio.events")?;
    let base = events.getattr("Handle")?.cast_into::<PyType>()?;
    let timer_base = events.getattr("TimerHandle")?.cast_into::<PyType>()?;
    let threadsafe_base = match events.getattr_opt("_ThreadSafeHandle")? {
        Some(class) => Some(class.cast_into::<PyType>()?),
        None => None,
    };
    let handle = PlainClass::default().no_args(c"cancel", CANCEL, cancel);
    let handle = Kind::new(module, &base, c"hotloop._hotloop.Handle", handle)?;
    let timer = PlainClass::default().no_args(c"cancel", CANCEL, cancel_timer);
    let timer = Kind::new(module, &timer_base, c"hotloop._hotloop.TimerHandle", timer)?;
    let threadsafe = match &threadsafe_base {
        Some(base) => {
            let class = PlainClass::default().property(c"_lock", lock, set_lock);
            Some(Kind::new(
                module,
                base,
                c"hotloop._hotloop._ThreadSafeHandle",
                class,
            )?)
        }
        None => None,
    };
    let slot = |name| Slot::find(&base, name);
    let handles = Handles {
        handle,
        timer,
        lock: match &threadsafe_base {
            Some(base) => Some(Slot::find(base, "_lock")?),
            None => None,
        },
        threadsafe,
        callback: slot("_callback")?,
        arguments: slot("_args")?,
        cancelled: slot("_cancelled")?,
        event_loop: slot("_loop")?,
        traceback: slot("_source_traceback")?,
        repr: slot("_repr")?,
        context: slot("_context")?,
        when: Slot::find(&timer_base, "_when")?,
        scheduled: Slot::find(&timer_base, "_scheduled")?,
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

/// A new handle, out of the collector's sight.
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
    let place = blank(py, false)?;
    new_in(py, place, event_loop, function, arguments, context, debug)
}

/// A handle with nothing in it, for calls from any thread or from the loop's own.
#[inline(always)]
fn blank(py: Python<'_>, threadsafe: bool) -> PyResult<Object> {
    let handles = handles();
    let handle = ffi::alloc_plain(py, &handles.of(threadsafe).class)?;
    handles.init(&handle);
    Ok(handle)
}

/// As [`new`], in the place of a handle that was [emptied](empty).
///
/// # Errors
/// In debug mode, whatever taking the traceback raises.
#[inline(always)]
pub(crate) fn new_in(
    py: Python<'_>,
    place: Object,
    event_loop: &Bound<'_, PyAny>,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<Object> {
    let handles = handles();
    let deferred = handles.handle.deferred;
    handles.fill(
        py, deferred, &place, event_loop, function, arguments, context, debug,
    )?;
    Ok(place)
}

/// Empties a handle whose callback was run, for [`new_in`]. None if it is not of the usual class, or somebody else can
/// get at it; it is dropped then.
#[inline]
pub(crate) fn empty(handle: Object) -> Option<Object> {
    let handles = handles();
    if !handles.handle.is_of(&handle) || !ffi::is_unshared(&handle) {
        return None;
    }
    handles.handle.deferred.set(&handle, false);
    // Dropping these may run Python code, which cannot get at the handle.
    for slot in [handles.callback, handles.arguments, handles.context] {
        drop(slot.take(&handle));
    }
    handles.cancelled.ensure(&handle, &handles.false_);
    running::emptied(handle)
}

/// A new handle for a call from any thread.
///
/// Since Python 3.14 cancelling such a handle waits for its callback, by a lock: then it is of asyncio's class for these,
/// and gets the lock when somebody asks for it. One that nobody else can get at is run without.
///
/// `place` is a handle of that kind that was [parted](part) from its callback, if there is one.
///
/// # Errors
/// As for [`new`].
pub(crate) fn new_threadsafe(
    py: Python<'_>,
    place: Option<Object>,
    event_loop: &Bound<'_, PyAny>,
    function: Object,
    arguments: Object,
    context: Context,
    debug: bool,
) -> PyResult<Object> {
    let handles = handles();
    let kind = handles.of(true);
    let handle = match place {
        Some(place) => place,
        None => blank(py, true)?,
    };
    handles.fill(
        py,
        kind.deferred,
        &handle,
        event_loop,
        function,
        arguments,
        context,
        debug,
    )?;
    Ok(handle)
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
    let timer = ffi::alloc_plain(py, &handles.timer.class)?;
    handles.init(&timer);
    handles.when.init(&timer, when);
    handles.scheduled.init(&timer, handles.true_.clone());
    let deferred = handles.timer.deferred;
    handles.fill(
        py, deferred, &timer, event_loop, function, arguments, context, debug,
    )?;
    Ok(timer)
}

impl Handles {
    /// The kind of handles of calls from any thread, or of those from the loop's own. Before Python 3.14 that is one.
    #[inline]
    fn of(&self, threadsafe: bool) -> &Kind {
        match &self.threadsafe {
            Some(kind) if threadsafe => kind,
            _ => &self.handle,
        }
    }

    /// Whether a handle has what running it takes: somebody may have deleted it.
    #[inline]
    fn is_whole(&self, handle: &Object) -> bool {
        [self.callback, self.arguments, self.context]
            .iter()
            .all(|slot| slot.is_filled(handle))
    }

    /// What a handle has from the start.
    #[inline]
    fn init(&self, handle: &Object) {
        self.cancelled.init(handle, self.false_.clone());
        self.repr.init(handle, self.none.clone());
        self.traceback.init(handle, self.none.clone());
    }

    #[cold]
    fn note_traceback(&self, py: Python<'_>, handle: &Object) -> PyResult<()> {
        self.traceback.set(handle, source_traceback(py)?);
        Ok(())
    }

    /// Fills the fields of a handle that are empty. `deferred` is that of its kind.
    #[expect(clippy::too_many_arguments, reason = "these are the fields of a handle")]
    #[inline(always)]
    fn fill(
        &self,
        py: Python<'_>,
        deferred: Flag,
        handle: &Object,
        event_loop: &Bound<'_, PyAny>,
        function: Object,
        arguments: Object,
        context: Context,
        debug: bool,
    ) -> PyResult<()> {
        self.callback.init(handle, function);
        self.arguments.init(handle, arguments);
        self.event_loop.init(handle, event_loop.into());
        let context = match context {
            Context::Given(context) => context,
            Context::Snapshot(context) => {
                deferred.set(handle, true);
                context
            }
        };
        self.context.init(handle, context);
        if debug {
            self.note_traceback(py, handle)?;
        }
        Ok(())
    }
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
    if handles.timer.is_of(handle) || kind(handles, handle).is_some() {
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

/// Whether a handle is a native timer handle.
#[inline]
pub(crate) fn is_timer(handle: &Object) -> bool {
    handles().timer.is_of(handle)
}

/// Lets go of timers that were cancelled and have left the heap.
///
/// # Errors
/// What a class of handles of somebody's own raises.
pub(crate) fn drop_cancelled(py: Python<'_>, timers: Vec<Object>) -> PyResult<()> {
    for timer in timers {
        // Where nobody else has it, nobody will look at it.
        if !is_timer(&timer) || !ffi::is_unshared(&timer) {
            unschedule(py, &timer)?;
            done(&timer);
        }
    }
    Ok(())
}

/// Marks a timer handle as no longer scheduled.
#[inline]
pub(crate) fn unschedule(py: Python<'_>, timer: &Object) -> PyResult<()> {
    let handles = handles();
    if handles.timer.is_of(timer) {
        handles.scheduled.set(timer, handles.false_.clone());
        return Ok(());
    }
    timer.bind(py).setattr(pyo3::intern!(py, "_scheduled"), false)
}

/// The kind of a native handle.
#[inline]
fn kind<'a>(handles: &'a Handles, handle: &Object) -> Option<&'a Kind> {
    if handles.handle.is_of(handle) {
        Some(&handles.handle)
    } else if handles.timer.is_of(handle) {
        Some(&handles.timer)
    } else {
        handles.threadsafe.as_ref().filter(|kind| kind.is_of(handle))
    }
}

/// `handle._context`: whoever asks gets the handle's own context.
fn own_context(py: Python<'_>, handle: &Object) -> PyResult<Object> {
    let handles = handles();
    let missing = || pyo3::exceptions::PyAttributeError::new_err("_context");
    let context = handles.context.get(handle).ok_or_else(missing)?;
    if !kind(handles, handle).is_some_and(|kind| kind.deferred.get(handle)) {
        return Ok(context);
    }
    let own = ffi::copy_of(py, &context)?;
    set_context(py, handle, own.clone());
    Ok(own)
}

fn set_context(_py: Python<'_>, handle: &Object, context: Object) {
    let handles = handles();
    if let Some(kind) = kind(handles, handle) {
        kind.deferred.set(handle, false);
    }
    handles.context.set(handle, context);
}

/// Lets the collector see a handle that the loop has done with, if somebody else keeps it.
#[inline]
pub(crate) fn done(handle: &Object) {
    ffi::track_if_shared(handle);
}
