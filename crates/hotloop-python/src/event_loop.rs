//! `Loop`: the native base of the loop classes.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;

use hotloop::clock::{Clock, Monotonic};
use hotloop::driver::{Direction, Epoll, Selector};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyList, PyString, PyType};

use crate::errors::os_error;
use crate::ffi::{self, Call, Class, ClassBuilder, Instance, Layout, Object, This, Visit};
use crate::handles::{self, Context};
use crate::host::{Engine, Inbox};
use crate::{addresses, dispatch, sockets, transports};

/// Reads go through a buffer of this size, in bytes: asyncio's own limit for one read (`max_size`), so a protocol sees
/// pieces of the sizes it is used to. Only the pages that reads have touched cost memory.
const SCRATCH: usize = 256 * 1024;

/// The native part of a loop.
pub(crate) struct Loop {
    /// `None` once the loop is closed.
    engine: RefCell<Option<Engine>>,
    /// The way into the engine for other threads; gone with it.
    inbox: RefCell<Option<Arc<Inbox>>>,
    /// Reads land here first. Empty while one is under way.
    scratch: RefCell<Vec<MaybeUninit<u8>>>,
    /// `_thread_id`: the thread that runs the loop, or `None`.
    thread: RefCell<Option<Object>>,
    /// `_stopping`: whether the loop ends after this turn.
    stopping: Cell<bool>,
    /// `_closed`.
    closed: Cell<bool>,
    /// `_debug`.
    debug: Cell<bool>,
    /// Whether `_run_once` goes on until the loop is stopped: within `run_forever`.
    running: Cell<bool>,
    /// `time`, where a subclass or an instance has replaced it. Looked up when a run begins.
    own_time: RefCell<Option<Object>>,
    /// `_clock_resolution`, in seconds: a timer due within it is due now.
    resolution: Cell<f64>,
    /// What the callbacks scheduled in this turn without a context of their own take a copy of. Renewed when the
    /// current variables have changed, and dropped with the turn, so that it keeps no value alive.
    snapshot: RefCell<Option<Object>>,
    /// `_current_handle`: what runs now, in debug mode.
    current: RefCell<Option<Object>>,
}

impl Class for Loop {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.Loop";
    const ASYNCIO_NAME: &'static str = "BaseEventLoop";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        // While another thread's collection finds this loop waiting, it is borrowed, and alive anyway.
        if let Ok(engine) = self.engine.try_borrow()
            && let Some(engine) = &*engine
        {
            let (ready, timers) = engine.scheduled();
            ready.chain(timers).for_each(|handle| visit.owned(handle));
            visit.objects(engine.watching());
            visit.objects(engine.streaming().map(Instance::object));
        }
        if let Ok(snapshot) = self.snapshot.try_borrow() {
            visit.objects(&*snapshot);
        }
        if let (Ok(time), Ok(current)) = (self.own_time.try_borrow(), self.current.try_borrow()) {
            visit.objects(time.iter().chain(current.iter()));
        }
    }

    fn clear(&self) {
        self.release();
        self.own_time.take();
        self.current.take();
    }
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("builtins")?
        .getattr("object")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<Loop>::new()
        .constructor(construct)
        .method(c"call_soon", c"call_soon($self, /, callback, *args, context=None)\n--\n\nArrange for a callback to be called on the next turn.", call_soon)
        .method(c"call_soon_threadsafe", c"call_soon_threadsafe($self, /, callback, *args, context=None)\n--\n\nLike call_soon(), from any thread.", call_soon_threadsafe)
        .method(c"call_later", c"call_later($self, /, delay, callback, *args, context=None)\n--\n\nArrange for a callback to be called after a delay in seconds.", call_later)
        .method(c"call_at", c"call_at($self, /, when, callback, *args, context=None)\n--\n\nArrange for a callback to be called at a time of the loop's clock.", call_at)
        .no_args(c"time", c"time($self, /)\n--\n\nThe loop's time in seconds: a float, the same as time.monotonic().", time)
        .no_args(c"stop", c"stop($self, /)\n--\n\nEnd run_forever() after this turn.", stop)
        .no_args(c"is_closed", c"is_closed($self, /)\n--\n\nWhether the loop was closed.", is_closed)
        .no_args(c"get_debug", c"get_debug($self, /)\n--\n\nWhether the loop is in debug mode.", get_debug)
        .no_args(c"_run_once", c"_run_once($self, /)\n--\n\nRun one turn; inside run_forever(), all turns until stop().", run_once)
        .no_args(c"_begin_running", c"_begin_running($self, /)\n--\n\nLet the next _run_once() go on until stop().", begin_running)
        .no_args(c"_end_running", c"_end_running($self, /)\n--\n\nUndo _begin_running() and send what is still gathered.", end_running)
        .method(c"_timer_handle_cancelled", c"_timer_handle_cancelled($self, handle, /)\n--\n\nNotification that a TimerHandle was cancelled.", timer_handle_cancelled)
        .method(c"_add_callback", c"_add_callback($self, handle, /)\n--\n\nAdd a Handle to the ready callbacks.", add_callback)
        .method(c"_add_callback_signalsafe", c"_add_callback_signalsafe($self, handle, /)\n--\n\nLike _add_callback(), and wake the loop.", add_callback_signalsafe)
        .no_args(c"_write_to_self", c"_write_to_self($self, /)\n--\n\nWake the loop.", write_to_self)
        .method(c"_watch_read", c"_watch_read($self, fd, handle, /)\n--\n\nHave a handle run while a descriptor is readable; answer the one it replaces.", watch_read)
        .method(c"_watch_write", c"_watch_write($self, fd, handle, /)\n--\n\nHave a handle run while a descriptor is writable; answer the one it replaces.", watch_write)
        .method(c"_unwatch_read", c"_unwatch_read($self, fd, /)\n--\n\nEnd _watch_read(); answer its handle or None.", unwatch_read)
        .method(c"_unwatch_write", c"_unwatch_write($self, fd, /)\n--\n\nEnd _watch_write(); answer its handle or None.", unwatch_write)
        .method(c"_watchers", c"_watchers($self, fd, /)\n--\n\nThe handles that watch a descriptor: reader and writer, each a handle or None.", watchers)
        .no_args(c"_watched", c"_watched($self, /)\n--\n\nThe numbers of all watched descriptors, as a list.", watched)
        .method(c"_new_handle", c"_new_handle($self, callback, args, context=None, /)\n--\n\nA Handle of this loop for a callback and a tuple of arguments.", new_handle)
        .no_args(c"_ready_handles", c"_ready_handles($self, /)\n--\n\nThe ready callbacks, as a list.", ready_handles)
        .no_args(c"_scheduled_handles", c"_scheduled_handles($self, /)\n--\n\nThe timers, as a list in heap order.", scheduled_handles)
        .no_args(c"_ready_popleft", c"_ready_popleft($self, /)\n--\n\nTake the oldest ready callback, or None.", ready_popleft)
        .method(c"_ready_appendleft", c"_ready_appendleft($self, handle, /)\n--\n\nPut a handle before all ready callbacks.", ready_appendleft)
        .method(c"_clear_scheduled", c"_clear_scheduled($self, timers, /)\n--\n\nDrop all timers, or else all ready callbacks.", clear_scheduled)
        .method(c"_try_recv", c"_try_recv($self, sock, nbytes, /)\n--\n\nReceive, or a future for it.", sockets::try_recv)
        .method(c"_try_recv_into", c"_try_recv_into($self, sock, buffer, /)\n--\n\nReceive into a buffer, or a future for it.", sockets::try_recv_into)
        .method(c"_try_sendall", c"_try_sendall($self, sock, data, /)\n--\n\nSend all of it, or a future for that.", sockets::try_sendall)
        .method(c"_try_accept", c"_try_accept($self, sock, /)\n--\n\nA new descriptor and the address of its peer, or a future for both.", sockets::try_accept)
        .method(c"_wait_connected", c"_wait_connected($self, sock, address, /)\n--\n\nA future for the end of a connection attempt.", sockets::wait_connected)
        .method(c"_forget_operation", c"_forget_operation($self, sock, /)\n--\n\nStop waiting for what was given up on a socket.", sockets::forget)
        .method(c"_literal_addresses", c"_literal_addresses($self, host, port, family, type, proto, flags, /)\n--\n\nWhat getaddrinfo() answers for an address literal, or None.", addresses::literal_addresses)
        .no_args(c"create_future", c"create_future($self, /)\n--\n\nA future of this loop.", create_future)
        .no_args(c"_release", c"_release($self, /)\n--\n\nLet go of the kernel and of everything scheduled, for good.", release)
        .method(c"_open_stream", c"_open_stream($self, sock, protocol, waiter, extra, server, context=None, /)\n--\n\nA transport over a connected socket.", transports::open_stream)
        .property(c"_stopping", c"Whether the loop ends after this turn.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.stopping.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.stopping, value))
        .property(c"_closed", c"Whether the loop was closed.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.closed.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.closed, value))
        .property(c"_debug", c"Whether the loop is in debug mode.", |this: This<'_, '_, Loop>| bool_object(this.py(), this.debug.get()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| set_bool(&this.debug, value))
        .property(c"_thread_id", c"The thread that runs the loop, or None.", |this| Ok(optional(this.py(), &this.thread)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| {
            let old = this.thread.replace((!value.is_none()).then(|| value.into()));
            drop(old);
            Ok(())
        })
        .property(c"_clock_resolution", c"In seconds: a timer due within it is due now.", |this| Ok(PyFloat::new(this.py(), this.resolution.get()).into_any()), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| {
            this.resolution.set(value.extract()?);
            Ok(())
        })
        .property(c"_current_handle", c"What runs now, in debug mode.", |this| Ok(optional(this.py(), &this.current)), |this: This<'_, '_, Loop>, value: &Bound<'_, PyAny>| {
            let old = this.current.replace((!value.is_none()).then(|| value.into()));
            drop(old);
            Ok(())
        })
        .getter(c"driver", c"The name of the kernel facility that the loop runs on.", |this| Ok(PyString::new(this.py(), "epoll").into_any()))
        .build(&base, &[], false)?;
    module.add("Loop", class)
}

impl Loop {
    /// The engine, for one call into it: nothing in Python may run while it is borrowed.
    ///
    /// # Errors
    /// `RuntimeError` if the loop's own thread has it, waiting in the kernel: then this is another thread.
    #[inline]
    pub(crate) fn engine(&self) -> PyResult<EngineGuard<'_>> {
        let engine = self.engine.try_borrow_mut().map_err(|_| {
            PyRuntimeError::new_err(
                "Non-thread-safe operation invoked on an event loop other than the current one; \
                 use call_soon_threadsafe() from other threads",
            )
        })?;
        match RefMut::filter_map(engine, Option::as_mut) {
            Ok(engine) => Ok(EngineGuard(Some(engine))),
            Err(_) => Err(PyRuntimeError::new_err("Event loop is closed")),
        }
    }

    /// Hands a callback to the loop from wherever this is, and wakes it.
    fn push(&self, handle: Object) {
        let inbox = self.inbox.borrow().clone();
        if let Some(inbox) = inbox {
            inbox.push(handle);
        }
    }

    /// Wakes the loop if it waits.
    fn wake(&self) {
        let inbox = self.inbox.borrow().clone();
        if let Some(inbox) = inbox {
            inbox.wake();
        }
    }

    /// Lets go of the kernel and of everything scheduled. A loop that waits in another thread is left alone.
    fn release(&self) {
        let Ok(mut engine) = self.engine.try_borrow_mut().map(|mut engine| engine.take()) else {
            return;
        };
        let scheduled = engine
            .as_mut()
            .map(|engine| (engine.take_scheduled(), engine.take_io()));
        self.drop_snapshot();
        drop(self.inbox.take());
        drop(engine);
        if let Some(((ready, timers), _)) = &scheduled {
            ready.iter().chain(timers).for_each(handles::done);
        }
        drop(scheduled);
    }

    /// Whether `_run_once` goes on until the loop is stopped.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether the loop ends after this turn.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Whether the loop is in debug mode.
    #[inline]
    pub(crate) fn is_debug(&self) -> bool {
        self.debug.get()
    }

    /// How close to its time a timer is due, in seconds.
    pub(crate) fn resolution(&self) -> f64 {
        self.resolution.get()
    }

    /// Notes what runs now, for debug mode.
    pub(crate) fn set_current(&self, handle: Option<Object>) {
        let old = self.current.replace(handle);
        drop(old);
    }

    /// The context of a callback that is scheduled now.
    #[inline]
    fn context(&self, py: Python<'_>, given: Option<Object>) -> PyResult<Context> {
        if let Some(context) = given {
            return Ok(Context::Given(context));
        }
        let copy = ffi::copy_context(py)?;
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

    /// Drops what callbacks of the turn have shared.
    #[inline]
    pub(crate) fn drop_snapshot(&self) {
        let old = self.snapshot.take();
        drop(old);
    }

    /// Takes the scratch buffer for one read. Give it back with [`Self::return_scratch`].
    #[inline]
    pub(crate) fn take_scratch(&self) -> Vec<MaybeUninit<u8>> {
        let mut scratch = self.scratch.take();
        if scratch.len() < SCRATCH {
            scratch.resize(SCRATCH, MaybeUninit::uninit());
        }
        scratch
    }

    /// Gives the scratch buffer back.
    #[inline]
    pub(crate) fn return_scratch(&self, scratch: Vec<MaybeUninit<u8>>) {
        self.scratch.replace(scratch);
    }

    /// The loop's time, in seconds: a subclass's own `time()` where there is one.
    ///
    /// # Errors
    /// What that raises.
    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        let own_time = self.own_time.borrow().clone();
        match own_time {
            None => Ok(Monotonic.now()),
            Some(own_time) => ffi::call_no_args(&own_time.bind(py))?.extract(),
        }
    }

    /// Raises if the loop is closed.
    #[inline]
    pub(crate) fn check_closed(&self) -> PyResult<()> {
        if self.closed.get() {
            Err(PyRuntimeError::new_err("Event loop is closed"))
        } else {
            Ok(())
        }
    }
}

/// The engine, borrowed for one call into it.
///
/// What the engine has no use for any more is dropped after the borrow ends: a transport's finalizer runs Python code,
/// which may call the loop.
pub(crate) struct EngineGuard<'a>(Option<RefMut<'a, Engine>>);

impl std::ops::Deref for EngineGuard<'_> {
    type Target = Engine;

    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref(&self) -> &Engine {
        self.0.as_ref().expect("borrowed until dropped")
    }
}

impl std::ops::DerefMut for EngineGuard<'_> {
    #[inline]
    #[expect(clippy::expect_used, reason = "taken in `drop` only")]
    fn deref_mut(&mut self) -> &mut Engine {
        self.0.as_mut().expect("borrowed until dropped")
    }
}

impl Drop for EngineGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut engine) = self.0.take() {
            let discarded = engine.take_discarded();
            drop(engine);
            drop(discarded);
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
        let py = self.py();
        let context = self.context(py, context)?;
        let handle = handles::new(
            py,
            self.object(),
            function.into(),
            arguments,
            context,
            self.debug.get(),
        )?;
        ffi::untrack(&handle);
        match self.engine() {
            Ok(mut engine) => engine.call_soon(handle.clone()),
            // The loop waits in the kernel and this is another thread. Stock asyncio appends to its queue too, where
            // the callback runs once something else wakes the loop; here it wakes it.
            Err(_) => self.push(handle.clone()),
        }
        Ok(handle)
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
        let due = seconds(when)?;
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
        ffi::untrack(&timer);
        self.engine()?.call_at(due, timer.clone());
        Ok(timer.into_bound(py))
    }

    /// Looks whether a subclass or the instance has a `time()` of its own.
    fn find_own_time(self) -> PyResult<()> {
        let py = self.py();
        let method = self.object().getattr(pyo3::intern!(py, "time"))?;
        let native = py.get_type_loop()?.getattr(pyo3::intern!(py, "time"))?;
        let class_level = self.object().get_type().getattr(pyo3::intern!(py, "time"))?;
        let is_ours = class_level.is(&native)
            && method
                .getattr("__self__")
                .is_ok_and(|owner| owner.is(self.object()));
        let old = self.own_time.replace((!is_ours).then(|| method.into()));
        drop(old);
        Ok(())
    }
}

/// Finding the class again.
trait LoopType<'py> {
    fn get_type_loop(self) -> PyResult<Bound<'py, PyAny>>;
}

impl<'py> LoopType<'py> for Python<'py> {
    fn get_type_loop(self) -> PyResult<Bound<'py, PyAny>> {
        self.import(pyo3::intern!(self, "hotloop._hotloop"))?
            .getattr(pyo3::intern!(self, "Loop"))
    }
}

fn construct(_py: Python<'_>) -> PyResult<Loop> {
    let engine = Engine::new(Selector::new(Epoll::new().map_err(os_error)?));
    Ok(Loop {
        inbox: RefCell::new(Some(engine.inbox())),
        engine: RefCell::new(Some(engine)),
        scratch: RefCell::default(),
        thread: RefCell::default(),
        stopping: Cell::new(false),
        closed: Cell::new(false),
        debug: Cell::new(false),
        running: Cell::new(false),
        own_time: RefCell::default(),
        resolution: Cell::new(1e-9),
        snapshot: RefCell::default(),
        current: RefCell::default(),
    })
}

/// The context keyword of a scheduling call.
#[inline]
fn context(call: &Call<'_, '_>, function: &str, positional: &[&str]) -> PyResult<Option<Object>> {
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
fn check_in_debug(
    this: This<'_, '_, Loop>,
    callback: &Bound<'_, PyAny>,
    method: &str,
    thread: bool,
) -> PyResult<()> {
    if !this.debug.get() {
        return Ok(());
    }
    if thread {
        this.object().call_method0("_check_thread")?;
    }
    this.object()
        .call_method1("_check_callback", (callback, method))?;
    Ok(())
}

fn call_soon<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
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

fn call_soon_threadsafe<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let Some(callback) = call.named(0, "callback") else {
        return Err(missing("BaseEventLoop.call_soon_threadsafe", &["callback"], 0));
    };
    let context = context(&call, "BaseEventLoop.call_soon_threadsafe", &["callback"])?;
    this.check_closed()?;
    check_in_debug(this, &callback, "call_soon_threadsafe", false)?;
    let context = match context {
        Some(context) => context,
        None => ffi::copy_context(py)?,
    };
    let context = Context::Given(context);
    let handle = handles::new_threadsafe(
        py,
        this.object(),
        (&*callback).into(),
        call.rest(1),
        context,
        this.debug.get(),
    )?;
    this.push(handle.clone());
    Ok(handle.into_bound(py))
}

fn call_later<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    const PARAMETERS: [&str; 2] = ["delay", "callback"];
    let (Some(delay), Some(callback)) = (call.named(0, PARAMETERS[0]), call.named(1, PARAMETERS[1])) else {
        return Err(missing("BaseEventLoop.call_later", &PARAMETERS, call.len()));
    };
    let context = context(&call, "BaseEventLoop.call_later", &PARAMETERS)?;
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let now = PyFloat::new(this.py(), this.now(this.py())?);
    let when = match delay.cast_exact::<PyFloat>() {
        Ok(delay) => PyFloat::new(this.py(), now.value() + delay.value()).into_any(),
        Err(_) => now.add(delay)?,
    };
    this.schedule_at(&when, &callback, call.rest(2), context)
}

fn call_at<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
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

fn time<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyFloat::new(this.py(), Monotonic.now()).into_any())
}

fn stop<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.stopping.set(true);
    none(this.py())
}

fn is_closed<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.closed.get())
}

fn get_debug<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.debug.get())
}

fn create_future<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let class = py
        .import(pyo3::intern!(py, "asyncio.futures"))?
        .getattr(pyo3::intern!(py, "Future"))?;
    ffi::call_with_keyword(&class, pyo3::intern!(py, "loop"), this.object())
}

fn release<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.release();
    none(this.py())
}

fn begin_running<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.running.set(true);
    none(this.py())
}

fn end_running<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.running.set(false);
    // A callback may have closed the loop as far as asyncio lets it.
    if let Ok(mut engine) = this.engine() {
        engine.end_turn();
    }
    none(this.py())
}

fn run_once<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.find_own_time()?;
    dispatch::run(this)?;
    none(this.py())
}

fn timer_handle_cancelled<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(timer) = call.get(0)
        && handles::is_scheduled(&timer)?
    {
        // A closed loop has no timers to count.
        if let Ok(mut engine) = this.engine() {
            engine.timers().note_cancelled();
        }
    }
    none(this.py())
}

fn add_callback<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let handle: Object = argument(&call, 0, "_add_callback")?.into();
    if !handles::is_cancelled(&handle) {
        match this.engine() {
            Ok(mut engine) => engine.call_soon(handle),
            Err(_) => this.push(handle),
        }
    }
    none(this.py())
}

fn add_callback_signalsafe<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let result = add_callback(this, call)?;
    this.wake();
    Ok(result)
}

fn write_to_self<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.wake();
    none(this.py())
}

fn watch<'py>(
    this: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    direction: Direction,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(call, 0, "_watch")?.extract()?;
    let handle: Object = argument(call, 1, "_watch")?.into();
    let old = this.engine()?.watch(fd, direction, handle).map_err(os_error)?;
    Ok(object_or_none(this.py(), old))
}

fn watch_read<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    watch(this, &call, Direction::Read)
}

fn watch_write<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    watch(this, &call, Direction::Write)
}

fn unwatch<'py>(
    this: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    direction: Direction,
) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(call, 0, "_unwatch")?.extract()?;
    let old = this.engine()?.unwatch(fd, direction);
    Ok(object_or_none(this.py(), old))
}

fn unwatch_read<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    unwatch(this, &call, Direction::Read)
}

fn unwatch_write<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    unwatch(this, &call, Direction::Write)
}

fn watchers<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let fd: RawFd = argument(&call, 0, "_watchers")?.extract()?;
    let (reader, writer) = {
        let mut engine = this.engine()?;
        (
            engine.watcher(fd, Direction::Read).cloned(),
            engine.watcher(fd, Direction::Write).cloned(),
        )
    };
    Ok((object_or_none(py, reader), object_or_none(py, writer))
        .into_pyobject(py)?
        .into_any())
}

fn watched<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let watched: Vec<RawFd> = this
        .engine()
        .map(|engine| engine.watched().collect())
        .unwrap_or_default();
    Ok(PyList::new(this.py(), watched)?.into_any())
}

fn new_handle<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
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
    Ok(handles::new(py, this.object(), callback, arguments, context, this.debug.get())?.into_bound(py))
}

fn ready_handles<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let handles: Vec<Object> = this
        .engine()
        .map(|mut engine| engine.ready().iter().cloned().collect())
        .unwrap_or_default();
    list(this.py(), handles)
}

fn scheduled_handles<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let handles: Vec<Object> = this
        .engine()
        .map(|mut engine| engine.timers().iter().cloned().collect())
        .unwrap_or_default();
    list(this.py(), handles)
}

fn ready_popleft<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let handle = this.engine()?.ready().pop_front();
    let given = handle.clone();
    given.iter().for_each(handles::done);
    Ok(object_or_none(this.py(), handle))
}

fn ready_appendleft<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let handle = argument(&call, 0, "_ready_appendleft")?.into();
    this.engine()?.ready().push_front(handle);
    none(this.py())
}

fn clear_scheduled<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let only_timers = argument(&call, 0, "_clear_scheduled")?.is_truthy()?;
    let mut dropped = (Default::default(), Vec::new());
    if let Ok(mut engine) = this.engine() {
        if only_timers {
            dropped.1 = engine.timers().take();
        } else {
            dropped.0 = engine.ready().take();
        }
    }
    // Only now, when the engine is free again: a finalizer may call the loop.
    let dropped: (VecDeque<Object>, Vec<Object>) = dropped;
    dropped.0.iter().chain(&dropped.1).for_each(handles::done);
    drop(dropped);
    none(this.py())
}

/// A positional argument that asyncio's own code always passes.
pub(crate) fn argument<'a, 'py>(
    call: &Call<'a, 'py>,
    index: usize,
    function: &str,
) -> PyResult<Borrowed<'a, 'py, PyAny>> {
    call.get(index)
        .ok_or_else(|| PyTypeError::new_err(format!("{function}() takes more arguments")))
}

/// `None`.
#[inline]
pub(crate) fn none(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Ok(py.None().into_bound(py))
}

#[inline]
pub(crate) fn bool_object(py: Python<'_>, value: bool) -> PyResult<Bound<'_, PyAny>> {
    Ok(pyo3::types::PyBool::new(py, value).to_owned().into_any())
}

fn set_bool(cell: &Cell<bool>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    cell.set(value.is_truthy()?);
    Ok(())
}

fn optional<'py>(py: Python<'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(py, held)
}

/// The object, or `None`.
pub(crate) fn object_or_none(py: Python<'_>, object: Option<Object>) -> Bound<'_, PyAny> {
    object.map_or_else(|| py.None().into_bound(py), |object| object.into_bound(py))
}

fn list(py: Python<'_>, objects: Vec<Object>) -> PyResult<Bound<'_, PyAny>> {
    Ok(PyList::new(py, objects.into_iter().map(|object| object.into_bound(py)))?.into_any())
}
