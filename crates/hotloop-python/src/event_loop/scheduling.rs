//! Callbacks and timers: scheduling them, and showing them to who looks at asyncio's queues.

use std::collections::VecDeque;

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyList};

use super::{EngineGuard, Loop, by_hand};
use crate::answers::{argument, none};
use crate::ffi::{self, Call, Object, This};
use crate::handles::{self, Context, Scheduled};

impl Loop {
    /// The context of a callback that is scheduled now.
    #[inline(always)]
    fn context(&self, py: Python<'_>, given: Option<Object>) -> PyResult<Context> {
        if let Some(context) = given {
            return Ok(Context::Given(context));
        }
        if let Some(held) = &*self.snapshot.borrow()
            && ffi::has_current_variables(py, held)
        {
            return Ok(Context::Snapshot(held.clone()));
        }
        self.new_snapshot(py)
    }

    /// As [`Self::context`], where the variables are not known to be those of the snapshot.
    #[inline(never)]
    fn new_snapshot(&self, py: Python<'_>) -> PyResult<Context> {
        let spare = self.spare.take();
        let copy = match spare {
            Some(spare) if ffi::has_current_variables(py, &spare) => spare,
            _ => ffi::copy_context(py)?,
        };
        let mut snapshot = self.snapshot.borrow_mut();
        match &*snapshot {
            Some(held) if ffi::same_variables(py, held, &copy) => Ok(Context::Snapshot(held.clone())),
            _ => {
                let old = snapshot.replace(copy.clone());
                drop(snapshot);
                drop(old);
                Ok(Context::Snapshot(copy))
            }
        }
    }

    /// A copy of a context, for the one run of a callback.
    #[inline]
    pub(crate) fn copy_of(&self, py: Python<'_>, context: &Object) -> PyResult<Object> {
        match self.spare.take() {
            Some(spare) if ffi::same_variables(py, &spare, context) => Ok(spare),
            _ => ffi::copy_of(py, context),
        }
    }

    /// Keeps the context that a callback has run in for the next one, if nobody could tell it from a new copy: nobody has
    /// it, and its variables are as they were. They must be those of a callback that still waits, so that nothing stays alive
    /// for being kept here: the one in whose snapshot others run too, or one that was scheduled just now.
    #[inline(always)]
    pub(crate) fn keep_spare(&self, py: Python<'_>, context: Object, snapshot: Option<Object>) {
        let waits = match &snapshot {
            Some(snapshot) => snapshot.refcount() > 1 && ffi::same_variables(py, snapshot, &context),
            None => false,
        };
        let waits = waits
            || self
                .snapshot
                .borrow()
                .as_ref()
                .is_some_and(|snapshot| ffi::same_variables(py, snapshot, &context));
        if waits && ffi::is_unshared(&context) {
            let old = self.spare.replace(Some(context));
            drop(old);
        } else {
            self.drop_spare();
        }
        drop(snapshot);
    }

    /// Lets go of the context that was kept for the next callback.
    #[inline]
    pub(crate) fn drop_spare(&self) {
        if self.spare.borrow().is_some() {
            let old = self.spare.take();
            drop(old);
        }
    }
}

impl<'py> This<'_, 'py, Loop> {
    /// Schedules a callback for the next turn.
    ///
    /// # Errors
    /// Out of memory.
    #[inline]
    pub(crate) fn schedule(
        self,
        function: &Bound<'_, PyAny>,
        arguments: Object,
        context: Option<Object>,
    ) -> PyResult<Object> {
        let context = self.context(self.py(), context)?;
        self.schedule_in(function, arguments, context)
    }

    /// Schedules a callback for the next turn, in a context.
    ///
    /// # Errors
    /// Out of memory.
    #[inline(always)]
    pub(crate) fn schedule_in(
        self,
        function: &Bound<'_, PyAny>,
        arguments: Object,
        context: Context,
    ) -> PyResult<Object> {
        let py = self.py();
        let (function, debug) = (function.into(), self.debug.get());
        if !debug && let Ok(mut engine) = self.engine_now() {
            let place = self.part_last(&mut engine, false).or_else(|| self.take_emptied());
            if let Some(place) = place {
                // Nothing in Python runs meanwhile.
                let handle = handles::new_in(py, place, self.object(), function, arguments, context, false)?;
                engine.call_soon(handle.clone().into());
                drop(engine);
                self.wake_selector();
                return Ok(handle);
            }
        }
        let handle = handles::new(py, self.object(), function, arguments, context, debug)?;
        self.enqueue(&handle);
        Ok(handle)
    }

    /// The handle that was scheduled last, parted from its callback, if whoever scheduled it has dropped it, as most do: so
    /// one handle serves for many callbacks, and what waits takes a quarter of the room.
    #[inline(always)]
    fn part_last(self, engine: &mut EngineGuard<'_>, threadsafe: bool) -> Option<Object> {
        handles::part(engine.last_ready()?, self.object(), threadsafe)
    }

    /// Puts a handle into the queue of ready callbacks.
    #[inline(always)]
    fn enqueue(self, handle: &Object) {
        match self.engine_now() {
            Ok(mut engine) => {
                engine.call_soon(handle.clone().into());
                drop(engine);
                self.wake_selector();
            }
            // The loop waits in the kernel and this is another thread. Stock asyncio's `call_soon` appends to its queue
            // too, where the callback runs once something else wakes the loop; here it wakes it.
            Err(_) => self.enqueue_from_outside(handle),
        }
    }

    /// Wakes a selector object that waits: the engine is not borrowed meanwhile.
    #[inline(always)]
    fn wake_selector(self) {
        if self.delegates() {
            self.wake();
        }
    }

    #[cold]
    fn enqueue_from_outside(self, handle: &Object) {
        // Nobody shows it to the collector there.
        ffi::track(handle);
        self.push(handle.clone());
    }

    /// Schedules a callback for a time of the loop's clock, and answers its handle.
    fn schedule_at(
        self,
        when: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        arguments: Object,
        context: Option<Object>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        self.check_closed()?;
        // Stock asyncio's `call_later` goes through `call_at`, which is the name that its check reports.
        check_in_debug(self, callback, "call_at", true)?;
        let due = match ffi::plain_number(when) {
            Some(due) => due,
            None => seconds(when)?,
        };
        let context = self.context(py, context)?;
        let timer = handles::new_timer(
            py,
            self.object(),
            when.into(),
            callback.into(),
            arguments,
            context,
            self.debug.get(),
        )?;
        self.engine()?.call_at(due, timer.clone());
        Ok(timer.into_bound(py))
    }

    /// Counts a timer that was cancelled while it was scheduled. Answers it if the loop has let go of it with that.
    #[inline]
    pub(crate) fn note_cancelled(self, timer: &Bound<'_, PyAny>) -> Option<Object> {
        // A closed loop has no timers to count, and one that waits finds out by itself.
        let mut engine = self.engine_now().ok()?;
        engine.timers().note_cancelled();
        engine.timers().take_last(|last| last.is(timer))
    }
}

pub(super) fn call_soon<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let Some(callback) = call.named(0, "callback") else {
        return Err(missing("BaseEventLoop.call_soon", &["callback"], 0));
    };
    let context = context(&call, "BaseEventLoop.call_soon", &["callback"])?;
    this.check_closed()?;
    check_in_debug(this, &callback, "call_soon", true)?;
    Ok(this
        .schedule(&callback, call.rest(1), context)?
        .into_bound(this.py()))
}

pub(super) fn call_soon_threadsafe<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let Some(callback) = call.named(0, "callback") else {
        return Err(missing("BaseEventLoop.call_soon_threadsafe", &["callback"], 0));
    };
    let context = context(&call, "BaseEventLoop.call_soon_threadsafe", &["callback"])?;
    this.check_closed()?;
    check_in_debug(this, &callback, "call_soon_threadsafe", false)?;
    let context = this.context(py, context)?;
    let place = this
        .engine_now()
        .ok()
        .and_then(|mut engine| this.part_last(&mut engine, true));
    let handle = handles::new_threadsafe(
        py,
        place,
        this.object(),
        (&*callback).into(),
        call.rest(1),
        context,
        this.debug.get(),
    )?;
    this.enqueue(&handle);
    Ok(handle.into_bound(py))
}

pub(super) fn call_later<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    const PARAMETERS: [&str; 2] = ["delay", "callback"];
    let (Some(delay), Some(callback)) = (call.named(0, PARAMETERS[0]), call.named(1, PARAMETERS[1])) else {
        return Err(missing("BaseEventLoop.call_later", &PARAMETERS, call.len()));
    };
    let context = context(&call, "BaseEventLoop.call_later", &PARAMETERS)?;
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let now = this.now()?;
    let when = match ffi::plain_number(&delay) {
        Some(delay) => PyFloat::new(this.py(), now + delay).into_any(),
        None => PyFloat::new(this.py(), now).add(delay)?,
    };
    this.schedule_at(&when, &callback, call.rest(2), context)
}

pub(super) fn call_at<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    const PARAMETERS: [&str; 2] = ["when", "callback"];
    let (Some(when), Some(callback)) = (call.named(0, PARAMETERS[0]), call.named(1, PARAMETERS[1])) else {
        return Err(missing("BaseEventLoop.call_at", &PARAMETERS, call.len()));
    };
    let context = context(&call, "BaseEventLoop.call_at", &PARAMETERS)?;
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    this.schedule_at(&when, &callback, call.rest(2), context)
}

pub(super) fn timer_handle_cancelled<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(timer) = call.get(0)
        && handles::is_scheduled(&timer)?
        && let Some(timer) = this.note_cancelled(&timer)
    {
        handles::unschedule(this.py(), &timer)?;
        handles::done(&timer);
    }
    none(this.py())
}

pub(super) fn new_handle<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let callback = argument(&call, 0, "_new_handle")?.into();
    let arguments = argument(&call, 1, "_new_handle")?.into();
    let context = call.get(2).filter(|context| !context.is_none()).map(Object::from);
    let context = match context {
        Some(context) => context,
        // A watcher's handle runs many times, each time in the same context.
        None => ffi::copy_context(py)?,
    };
    let context = Context::Given(context);
    let handle = handles::new(py, this.object(), callback, arguments, context, this.debug.get())?;
    ffi::track(&handle);
    Ok(handle.into_bound(py))
}

pub(super) fn add_callback<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let given = argument(&call, 0, "_add_callback")?;
    let handle: Object = given.into();
    if handles::is_timer(&handle) {
        by_hand::take_timer(this, &handle)?;
    }
    if !handles::is_cancelled(&handle) {
        match this.engine_now() {
            Ok(mut engine) => engine.call_soon(handle.into()),
            Err(_) => this.push(handle),
        }
    }
    none(this.py())
}

pub(super) fn add_callback_signalsafe<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let result = add_callback(this, call)?;
    this.wake();
    Ok(result)
}

pub(super) fn scheduled_handles<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let handles: Vec<Object> = this
        .engine()
        .map(|mut engine| engine.timers().iter().cloned().collect())
        .unwrap_or_default();
    list(this.py(), handles)
}

pub(super) fn ready_appendleft<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let handle = argument(&call, 0, "_ready_appendleft")?.into();
    this.engine()?.ready().push_front(Scheduled::Handle(handle));
    none(this.py())
}

pub(super) fn clear_scheduled<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let only_timers = argument(&call, 0, "_clear_scheduled")?.is_truthy()?;
    this.drop_spare();
    let mut dropped = (Default::default(), Vec::new());
    if let Ok(mut engine) = this.engine() {
        if only_timers {
            dropped.1 = engine.timers().take();
        } else {
            dropped.0 = engine.ready().take();
        }
    }
    // Only now, when the engine is free again: a finalizer may call the loop.
    let dropped: (VecDeque<Scheduled>, Vec<Object>) = dropped;
    dropped.0.iter().for_each(Scheduled::done);
    dropped.1.iter().for_each(handles::done);
    drop(dropped);
    none(this.py())
}

/// The context keyword of a scheduling call.
#[inline(always)]
fn context(call: &Call<'_, '_>, function: &str, positional: &[&str]) -> PyResult<Option<Object>> {
    if call.has_keywords() {
        keyword_context(call, function, positional)
    } else {
        Ok(None)
    }
}

fn keyword_context(call: &Call<'_, '_>, function: &str, positional: &[&str]) -> PyResult<Option<Object>> {
    if let Some(context) = call.only_interned(pyo3::intern!(call.py(), "context")) {
        return Ok((!context.is_none()).then(|| context.into()));
    }
    Ok(call.keyword(function, positional, "context")?.map(Object::from))
}

fn missing(function: &str, names: &[&str], given: usize) -> PyErr {
    let missing: Vec<String> = names[given.min(names.len())..]
        .iter()
        .map(|name| format!("'{name}'"))
        .collect();
    let plural = if missing.len() == 1 { "" } else { "s" };
    let count = missing.len();
    let list = missing.join(" and ");
    PyTypeError::new_err(format!(
        "{function}() missing {count} required positional argument{plural}: {list}"
    ))
}

/// asyncio's checks of a scheduling call in debug mode, by its own methods.
#[inline]
fn check_in_debug(
    this: This<'_, '_, Loop>,
    callback: &Bound<'_, PyAny>,
    method: &str,
    thread: bool,
) -> PyResult<()> {
    if this.debug.get() {
        check(this, callback, method, thread)
    } else {
        Ok(())
    }
}

#[cold]
fn check(this: This<'_, '_, Loop>, callback: &Bound<'_, PyAny>, method: &str, thread: bool) -> PyResult<()> {
    if thread {
        this.object().call_method0("_check_thread")?;
    }
    this.object()
        .call_method1("_check_callback", (callback, method))?;
    Ok(())
}

/// A due time in seconds. Whole numbers beyond all floats are as far away as can be.
fn seconds(when: &Bound<'_, PyAny>) -> PyResult<f64> {
    match when.extract::<f64>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(when.py()) => Ok(if when.lt(0)? {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }),
        result => result,
    }
}

pub(super) fn list(py: Python<'_>, objects: Vec<Object>) -> PyResult<Bound<'_, PyAny>> {
    Ok(PyList::new(py, objects.into_iter().map(|object| object.into_bound(py)))?.into_any())
}
