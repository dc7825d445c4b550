//! `Loop`: the native base of the loop classes.

mod by_hand;
mod class;
mod clock;
pub(crate) mod delegated;
mod generators;
mod guard;
mod registry;
mod scheduling;
mod watching;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use hotloop::driver::{AnyDriver, Batch};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

pub(crate) use self::class::add_to;
use self::guard::Door;
pub(crate) use self::guard::EngineGuard;
use crate::allocator;
use crate::answers::{bool_object, none};
use crate::dispatch;
use crate::errors::os_error;
use crate::ffi::{self, Call, Class, Instance, Layout, Name, Object, Registry, Spare, This, Visit};
use crate::handles::{self, Scheduled};
use crate::host::{Engine, Inbox};
use crate::modules::{self, BASE_EVENTS, FUTURES, TASKS};
use crate::tls::{self, Tls};
use crate::transports::{MAX_SIZE, Transport};

/// So many handles are kept for later callbacks: those of a busy turn.
const EMPTIED: usize = 256;

/// The native part of a loop.
pub(crate) struct Loop {
    /// `driver`: the name of the kernel facility underneath. It outlives the engine.
    facility: Cell<&'static str>,
    /// Whether a selector object in Python does the waiting.
    delegates: Cell<bool>,
    /// `None` once the loop is closed. Borrowed while the loop waits.
    engine: RefCell<Option<Engine>>,
    /// How other threads come by the engine while the loop waits.
    door: Door,
    /// The way into the engine for other threads; gone with it.
    inbox: RefCell<Option<Arc<Inbox>>>,
    /// Reads land here first, with room for [`MAX_SIZE`]. Only the pages that they have touched cost memory. Empty while
    /// one is under way.
    scratch: RefCell<Vec<MaybeUninit<u8>>>,
    /// What makes the `bytes` objects that protocols are given.
    messages: Spare,
    /// Whether the last `sock_recv` received much. Written by each.
    received_long: Cell<bool>,
    /// Datagrams land here first. `None` before the first ones come in, and while they are told.
    batch: RefCell<Option<Box<Batch>>>,
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
    /// `time`, where a subclass or an instance has replaced it.
    own_time: RefCell<Option<Object>>,
    /// `time.monotonic`, where somebody has replaced that.
    own_clock: RefCell<Option<Object>>,
    /// Whether there is any of these two.
    has_own_time: Cell<bool>,
    /// Whether a subclass or an instance has replaced what `cancel` of a handle asks the loop.
    own_cancelling: Cell<bool>,
    /// The version of the loop's class when these were looked up; 0 where that has to be done again. Reset when one
    /// of [`REPLACEABLE`] is set on the loop.
    own_version: Cell<u32>,
    /// [`ffi::changes`] of the names of `time` then.
    own_changes: Cell<u64>,
    /// `_clock_resolution`, in seconds: a timer due within it is due now.
    resolution: Cell<f64>,
    /// What the callbacks scheduled in this turn without a context of their own take a copy of. Renewed when the
    /// current variables have changed, and dropped with the turn, so that it keeps no value alive.
    snapshot: RefCell<Option<Object>>,
    /// A context that a callback has run in, to be the next copy: see `keep_spare`.
    spare: RefCell<Option<Object>>,
    /// What transports that began to read with the same variables share, until something comes in for them. Dropped when
    /// none of them is left.
    readers: RefCell<Option<Object>>,
    /// Handles whose callbacks have run, emptied, for the next ones.
    emptied: RefCell<Vec<Object>>,
    /// The native transports of sockets by descriptor.
    pub(crate) transports: Registry,
    /// `_foreign_transports`: a mapping of other transports by descriptor, where there are any.
    foreign: RefCell<Option<Object>>,
    /// `_task_factory`: what makes tasks, where that is not asyncio's class.
    task_factory: RefCell<Option<Object>>,
    /// `_asyncgens`: the asynchronous generators that have begun and not ended.
    generators: RefCell<Option<Object>>,
    /// `_asyncgens_shutdown_called`.
    generators_ended: Cell<bool>,
    /// `_current_handle`: what runs now, in debug mode.
    current: RefCell<Option<Object>>,
    /// TLS connections that have gathered bytes in this turn, for its end to encrypt.
    gathered: RefCell<VecDeque<Instance<Tls>>>,
}

static CLASS: OnceLock<Object> = OnceLock::new();

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
            ready
                .chain(engine.watching())
                .for_each(|scheduled| scheduled.visit(visit));
            timers.for_each(|timer| visit.owned(timer));
            visit.objects(engine.streaming().map(Transport::object));
        }
        if let Ok(spare) = self.spare.try_borrow() {
            visit.objects(&*spare);
        }
        if let (Ok(snapshot), Ok(readers)) = (self.snapshot.try_borrow(), self.readers.try_borrow()) {
            visit.objects(&*snapshot);
            visit.objects(&*readers);
        }
        if let Ok(foreign) = self.foreign.try_borrow() {
            visit.objects(&*foreign);
        }
        if let (Ok(factory), Ok(generators)) = (self.task_factory.try_borrow(), self.generators.try_borrow())
        {
            visit.objects(factory.iter().chain(generators.iter()));
        }
        if let (Ok(time), Ok(current)) = (self.own_time.try_borrow(), self.current.try_borrow()) {
            visit.objects(time.iter().chain(current.iter()));
        }
        if let Ok(clock) = self.own_clock.try_borrow() {
            visit.objects(&*clock);
        }
        if let Ok(gathered) = self.gathered.try_borrow() {
            visit.objects(gathered.iter().map(Instance::object));
        }
    }

    fn clear(&self) {
        self.release();
        self.own_time.take();
        self.own_clock.take();
        self.current.take();
        self.foreign.take();
        self.task_factory.take();
        self.generators.take();
        self.gathered.take();
    }
}

impl Loop {
    /// The engine, for one call into it; `None` once the loop is closed.
    ///
    /// # Errors
    /// As of [`Self::engine`], but for a closed loop.
    #[inline]
    pub(crate) fn open_engine(&self) -> PyResult<Option<EngineGuard<'_>>> {
        if self.engine.try_borrow().is_ok_and(|engine| engine.is_none()) {
            return Ok(None);
        }
        self.engine().map(Some)
    }

    /// The loop that an object is, if it is one.
    pub(crate) fn of(object: &Object) -> Option<Instance<Self>> {
        Instance::from_object(object, CLASS.get())
    }

    /// The number of the turn under way; 0 while none is.
    ///
    /// # Errors
    /// `RuntimeError` in a child of the process whose loop waits.
    #[inline]
    pub(crate) fn turn(&self) -> PyResult<u64> {
        Ok(self.open_engine()?.map_or(0, |engine| engine.turn()))
    }

    /// Encrypts what a TLS connection has gathered when the turn ends.
    pub(crate) fn flush_later(&self, connection: Instance<Tls>) {
        self.gathered.borrow_mut().push_back(connection);
    }

    /// Hands a callback to the loop from wherever this is, and wakes it.
    fn push(&self, handle: Object) {
        // Pushing runs nothing that could ask for the inbox; dropping the handle could.
        if let Some(inbox) = &*self.inbox.borrow() {
            inbox.push(handle.into());
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
        self.drop_spare();
        drop(self.readers.take());
        drop(self.emptied.take());
        drop(self.inbox.take());
        drop(engine);
        if let Some(((ready, timers), _)) = &scheduled {
            ready.iter().for_each(Scheduled::done);
            timers.iter().for_each(handles::done);
        }
        drop(scheduled);
    }

    /// Whether a selector object in Python does the waiting.
    #[inline]
    pub(crate) fn delegates(&self) -> bool {
        self.delegates.get()
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

    /// A handle to be filled anew, if one is left over.
    #[inline]
    fn take_emptied(&self) -> Option<Object> {
        self.emptied.borrow_mut().pop()
    }

    /// Keeps a handle for the next callback, if its own has run and nobody else holds it.
    #[inline]
    pub(crate) fn reuse(&self, handle: Object) {
        self.keep_emptied(handles::empty(handle));
    }

    /// Keeps a handle that was emptied, for the next callback.
    #[inline(always)]
    pub(crate) fn keep_emptied(&self, handle: Option<Object>) {
        let mut emptied = self.emptied.borrow_mut();
        if let Some(handle) = handle
            && emptied.len() < EMPTIED
        {
            emptied.push(handle);
        }
    }

    /// Drops what callbacks of the turn have shared.
    #[inline]
    pub(crate) fn drop_snapshot(&self) {
        if self.snapshot.borrow().is_some() {
            let old = self.snapshot.take();
            drop(old);
        }
        if self.readers.borrow().is_some() {
            self.drop_readers();
        }
    }

    #[inline(never)]
    fn drop_readers(&self) {
        let is_last = self
            .readers
            .borrow()
            .as_ref()
            .is_some_and(|readers| readers.refcount() == 1);
        if is_last {
            let old = self.readers.take();
            drop(old);
        }
    }

    /// A context with the variables of the current one, for a transport that begins to read. Others may have it too; it is
    /// to be copied before it is entered.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn context_of_readers(&self, py: Python<'_>) -> PyResult<Object> {
        let copy = ffi::copy_context(py)?;
        let mut readers = self.readers.borrow_mut();
        if let Some(readers) = &*readers
            && ffi::same_variables(py, readers, &copy)
        {
            return Ok(readers.clone());
        }
        let old = readers.replace(copy.clone());
        drop(readers);
        drop(old);
        Ok(copy)
    }

    /// Takes the scratch buffer for one read. Give it back with [`Self::return_scratch`].
    #[inline]
    pub(crate) fn take_scratch(&self) -> Vec<MaybeUninit<u8>> {
        let mut scratch = self.scratch.take();
        if scratch.len() < MAX_SIZE {
            scratch.resize(MAX_SIZE, MaybeUninit::uninit());
        }
        scratch
    }

    /// What makes the `bytes` objects that protocols are given. They are given back to it afterwards.
    #[inline]
    pub(crate) fn messages(&self) -> &Spare {
        &self.messages
    }

    /// Whether a `sock_recv` of so many bytes goes to where they are to stay, not through the scratch buffer.
    #[inline]
    pub(crate) fn receives_long(&self, limit: usize) -> bool {
        self.received_long.get() && (allocator::LONG..=MAX_SIZE).contains(&limit)
    }

    /// A `sock_recv` has received so many bytes.
    #[inline]
    pub(crate) fn note_received(&self, count: usize) {
        self.received_long.set(count >= allocator::LONG);
    }

    /// Takes the loop's batch for one receive. Give it back with [`Self::return_batch`].
    #[inline]
    pub(crate) fn take_batch(&self) -> Box<Batch> {
        self.batch.take().unwrap_or_default()
    }

    /// Gives the batch back.
    #[inline]
    pub(crate) fn return_batch(&self, batch: Box<Batch>) {
        self.batch.replace(Some(batch));
    }

    /// Gives the scratch buffer back.
    #[inline]
    pub(crate) fn return_scratch(&self, scratch: Vec<MaybeUninit<u8>>) {
        self.scratch.replace(scratch);
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

impl This<'_, '_, Loop> {
    /// Whether TLS connections have gathered something in the turn.
    #[inline]
    pub(crate) fn gathers_tls(self) -> bool {
        !self.gathered.borrow().is_empty()
    }

    /// Encrypts what TLS connections have gathered in the turn, and hands it to their transports.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` of a protocol that is told to pause.
    pub(crate) fn flush_tls(self) -> PyResult<()> {
        loop {
            let connection = self.gathered.borrow_mut().pop_front();
            let Some(connection) = connection else {
                return Ok(());
            };
            connection.with(self.py(), tls::flush)?;
        }
    }

    /// Whether `cancel` of a handle finds what it asks the loop where asyncio has it, so that native code may do it.
    ///
    /// # Errors
    /// What looking for the methods raises.
    #[inline]
    pub(crate) fn cancels_natively(self) -> PyResult<bool> {
        self.find_own()?;
        Ok(!self.own_cancelling.get())
    }

    /// Looks what a subclass or the instance has replaced, unless nothing can have changed since that was done.
    #[inline]
    fn find_own(self) -> PyResult<()> {
        let version = ffi::version_of_class(self.object()).map_or(0, NonZeroU32::get);
        if version == 0 || version != self.own_version.get() || ffi::changes() != self.own_changes.get() {
            self.find_own_now()?;
        }
        Ok(())
    }

    #[cold]
    fn find_own_now(self) -> PyResult<()> {
        let [time, cancelled, debug] = REPLACEABLE;
        let changes = ffi::changes();
        let own_time = self.own_method(time)?;
        let own_clock = clock::patched(self.py())?;
        let own_cancelling = self.own_method(cancelled)?.is_some() || self.own_method(debug)?.is_some();
        self.has_own_time.set(own_time.is_some() || own_clock.is_some());
        let old = (self.own_time.replace(own_time), self.own_clock.replace(own_clock));
        self.own_cancelling.set(own_cancelling);
        let version = ffi::version_of_class(self.object()).map_or(0, NonZeroU32::get);
        self.own_version.set(version);
        self.own_changes.set(changes);
        drop(old);
        Ok(())
    }

    /// The method of that name, if it is a subclass's or the instance's own.
    fn own_method(self, name: &str) -> PyResult<Option<Object>> {
        let method = self.object().getattr(name)?;
        // Not by an import: the end of the interpreter closes loops too, when there are no modules any more.
        let native = match CLASS.get() {
            Some(class) => class.bind(self.py()).getattr(name)?,
            None => return Ok(Some(method.into())),
        };
        let is_ours = self.object().get_type().getattr(name)?.is(&native)
            && method
                .getattr("__self__")
                .is_ok_and(|owner| owner.is(self.object()));
        Ok((!is_ours).then(|| method.into()))
    }
}

/// Methods that native code calls without looking for them each time.
const REPLACEABLE: [&str; 3] = ["time", "_timer_handle_cancelled", "get_debug"];

/// An attribute of the loop was set or deleted.
fn assigned(this: This<'_, '_, Loop>, name: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = name.cast::<PyString>()?;
    if REPLACEABLE.contains(&&*name.to_string_lossy()) {
        this.own_version.set(0);
    }
    Ok(())
}

fn construct(class: &Bound<'_, PyType>) -> PyResult<Loop> {
    modules::import_own(class.py())?;
    let by_completion = class
        .getattr_opt(pyo3::intern!(class.py(), "_by_completion"))?
        .is_some_and(|flag| flag.is_truthy().unwrap_or(false));
    let driver = AnyDriver::by_name(if by_completion { "io_uring" } else { "epoll" });
    let driver = driver
        .map_err(os_error)?
        .ok_or_else(|| PyRuntimeError::new_err("no driver"))?;
    let facility = Cell::new(driver.name());
    let engine = Engine::new(driver);
    Ok(Loop {
        facility,
        delegates: Cell::new(false),
        door: Door::new(),
        inbox: RefCell::new(Some(engine.inbox())),
        engine: RefCell::new(Some(engine)),
        scratch: RefCell::default(),
        messages: Spare::default(),
        received_long: Cell::new(false),
        batch: RefCell::default(),
        thread: RefCell::default(),
        stopping: Cell::new(false),
        closed: Cell::new(false),
        debug: Cell::new(false),
        running: Cell::new(false),
        own_time: RefCell::default(),
        own_clock: RefCell::default(),
        has_own_time: Cell::new(false),
        own_cancelling: Cell::new(false),
        own_version: Cell::new(0),
        own_changes: Cell::new(0),
        resolution: Cell::new(1e-9),
        snapshot: RefCell::default(),
        spare: RefCell::default(),
        readers: RefCell::default(),
        emptied: RefCell::default(),
        transports: Registry::default(),
        foreign: RefCell::default(),
        task_factory: RefCell::default(),
        generators: RefCell::default(),
        generators_ended: Cell::new(false),
        current: RefCell::default(),
        gathered: RefCell::default(),
    })
}

fn stop<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.stopping.set(true);
    none(this.py())
}

fn is_closed<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.closed.get())
}

/// For asyncio a loop runs from when its thread is known until it is forgotten.
fn is_running<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.thread.borrow().is_some())
}

fn get_debug<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.debug.get())
}

fn create_future<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let class = FUTURES.get(py, pyo3::intern!(py, "Future"))?;
    ffi::call_with_keyword(&class, &LOOP, this.object())
}

/// What asyncio's method does where no task factory is set and nothing is traced; else that method.
fn create_task<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if this.debug.get()
        || this.closed.get()
        || this.task_factory.borrow().is_some()
        || call.len() != 1
        || !(call.has_only(&["name", "context"]) || may_start_eagerly(py, &call)?)
    {
        return call.forward(&asyncios_method(this, pyo3::intern!(py, "create_task"))?);
    }
    let class = TASKS.get(py, pyo3::intern!(py, "Task"))?;
    call.forward_with(&class, &LOOP, this.object())
}

/// A method of asyncio's loop, for this one: what a native method stands in the way of.
fn asyncios_method<'py>(
    this: This<'_, 'py, Loop>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let function = asyncios_function(this.py(), name)?;
    function.call_method1(pyo3::intern!(this.py(), "__get__"), (this.object(),))
}

fn asyncios_function<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    let class = BASE_EVENTS.get(py, pyo3::intern!(py, "BaseEventLoop"))?;
    class.getattr(name)
}

/// Whether the call has only keywords that asyncio's method hands on to `Task`, where it hands on any: earlier ones
/// refuse what they do not name, `eager_start` too, which their `Task` may know all the same.
fn may_start_eagerly(py: Python<'_>, call: &Call<'_, '_>) -> PyResult<bool> {
    static HANDS_ON: PyOnceLock<bool> = PyOnceLock::new();
    if !call.has_only(&["name", "context", "eager_start"]) {
        return Ok(false);
    }
    let hands_on = HANDS_ON.get_or_try_init(py, || {
        let flags = asyncios_function(py, pyo3::intern!(py, "create_task"))?
            .getattr("__code__")?
            .getattr("co_flags")?;
        Ok::<_, PyErr>(flags.extract::<i32>()? & pyo3::ffi::CO_VARKEYWORDS != 0)
    })?;
    Ok(*hands_on)
}

static LOOP: Name = Name::new("loop");

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
    this.drop_spare();
    let flushed = this.flush_tls();
    // A callback may have closed the loop as far as asyncio lets it.
    if let Ok(mut engine) = this.engine() {
        engine.end_turn();
    }
    flushed?;
    none(this.py())
}

fn run_once<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.find_own_now()?;
    dispatch::run(this)?;
    none(this.py())
}

fn write_to_self<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.wake();
    none(this.py())
}
