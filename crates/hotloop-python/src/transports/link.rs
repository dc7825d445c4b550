//! What every transport over a stream of the engine has: its loop, its stream, its file and its protocol.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;

use hotloop::transport::{Close, Stream};
use hotloop::{StreamEvent, StreamKey};
use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::protocol::{Kind, Protocol};
use super::{Transport, reader};
use crate::dispatch::{in_context, is_fatal};
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Bytes, Call, Class, Instance, Object, This, Visit};
use crate::host::Engine;

/// The ties of a transport: upwards to its protocol, downwards to the engine and to the kernel.
pub(crate) struct Link {
    /// The loop; `None` after `connection_lost`.
    pub(super) event_loop: RefCell<Option<Instance<Loop>>>,
    /// The engine's name for the stream; `None` once it is released.
    pub(super) key: Cell<Option<StreamKey>>,
    /// The number of the descriptor.
    pub(super) fd: RawFd,
    /// What is told; `None` before it is known, and after `connection_lost`.
    pub(super) protocol: RefCell<Option<Protocol>>,
    /// What reading runs in: the context in which reading was last begun.
    pub(super) read_context: RefCell<Option<Object>>,
    /// What the news of sending run in: the context of the write that found no room.
    pub(super) write_context: RefCell<Option<Object>>,
    /// How often the connection was lost or written to thereafter (asyncio's `_conn_lost` of sockets).
    pub(super) lost: Cell<u32>,
    /// Whether the end has begun: set by whatever ends the stream.
    pub(super) closing: Cell<bool>,
    /// The context that everything runs in, where the creator gave one (Python 3.15).
    pub(super) context: Option<Object>,
}

impl Link {
    /// The ties of a transport whose protocol is still to be set, and whose stream is still to be opened.
    pub(super) fn new(event_loop: This<'_, '_, Loop>, fd: RawFd, context: Option<Object>) -> Self {
        Self {
            event_loop: RefCell::new(Some(Instance::of(event_loop))),
            key: Cell::new(None),
            fd,
            protocol: RefCell::default(),
            read_context: RefCell::default(),
            write_context: RefCell::default(),
            lost: Cell::new(0),
            closing: Cell::new(false),
            context,
        }
    }

    /// Shows every object that it holds to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit) {
        visit.objects(self.event_loop.borrow().iter().map(Instance::object));
        visit.objects(self.protocol.borrow().iter().map(|protocol| &protocol.object));
        visit.objects(&self.context);
        for held in [&self.read_context, &self.write_context] {
            visit.objects(held.borrow().iter());
        }
    }

    /// Drops every object that it holds.
    pub(super) fn clear(&self) {
        for held in [&self.read_context, &self.write_context] {
            held.take();
        }
        self.protocol.take();
        self.event_loop.take();
    }
}

/// A transport over a stream of the engine.
pub(crate) trait Linked: Class {
    /// Its ties.
    fn link(&self) -> &Link;

    /// The instance as the engine keeps it.
    fn hosted(this: Instance<Self>) -> Transport;

    /// Runs the news of its stream, in the context in which they were asked for.
    ///
    /// # Errors
    /// What is nobody's but the loop's to report, `SystemExit` and `KeyboardInterrupt` among it.
    fn run<'py>(
        this: This<'_, 'py, Self>,
        event_loop: This<'_, 'py, Loop>,
        news: StreamEvent,
    ) -> PyResult<()>;

    /// Closes the descriptor, through whoever owns it; once.
    ///
    /// # Errors
    /// What the owner raises.
    fn close_descriptor(this: This<'_, '_, Self>) -> PyResult<()>;
}

/// Runs the news of a stream.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
pub(super) fn on_event<T: Linked>(
    this: This<'_, '_, T>,
    event_loop: This<'_, '_, Loop>,
    news: StreamEvent,
) -> PyResult<()> {
    let py = this.py();
    let context = match news {
        StreamEvent::Readable => &this.link().read_context,
        StreamEvent::Sent | StreamEvent::Broken(_) => &this.link().write_context,
    };
    let context = context.borrow().clone();
    let act = || T::run(this, event_loop, news);
    let outcome = match context {
        Some(context) => in_context(py, &context, act),
        None => act(),
    };
    outcome.or_else(|error| {
        if is_fatal(py, &error) {
            return Err(error);
        }
        // No protocol method accounts for it: reported as a handle's.
        let arguments = (event_loop.object(), this.object(), error.into_value(py));
        py.import("hotloop._reports")?
            .call_method1("transport_event_failed", arguments)
            .map(drop)
    })
}

/// What became of one read.
pub(super) enum Received {
    /// The protocol has it, or there was nothing.
    Done,
    /// The stream has ended.
    End,
    /// The kernel refused.
    Failed(io::Error),
}

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Calls `act` with the loop; `None` after `connection_lost`.
    #[inline]
    pub(super) fn with_loop<R>(
        self,
        act: impl FnOnce(This<'_, 'py, Loop>) -> PyResult<R>,
    ) -> PyResult<Option<R>> {
        let event_loop = self.link().event_loop.borrow().clone();
        event_loop
            .map(|event_loop| event_loop.with(self.py(), act))
            .transpose()
    }

    /// Calls `act` with the engine and the name of the stream; `None` once the stream is released or the loop closed.
    #[inline]
    fn with_engine<R>(self, act: impl FnOnce(&mut Engine, StreamKey) -> R) -> PyResult<Option<R>> {
        let Some(key) = self.link().key.get() else {
            return Ok(None);
        };
        let done = self.with_loop(|event_loop| {
            let mut engine = event_loop.open_engine()?;
            Ok(engine.as_deref_mut().map(|engine| act(engine, key)))
        })?;
        Ok(done.flatten())
    }

    /// The loop; `None` after `connection_lost`.
    pub(crate) fn event_loop(self) -> Option<Instance<Loop>> {
        self.link().event_loop.borrow().clone()
    }

    /// Looks at the engine's stream; `None` once it is released or the loop closed.
    #[inline]
    pub(super) fn state<R>(self, look: impl FnOnce(&mut Stream<Bytes>) -> R) -> PyResult<Option<R>> {
        Ok(self
            .with_engine(|engine, key| engine.stream(key).map(look))?
            .flatten())
    }

    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        self.link().closing.get()
    }

    pub(super) fn protocol(self) -> Option<Protocol> {
        self.link().protocol.borrow().clone()
    }

    pub(super) fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let old = self.link().protocol.replace(Some(Protocol::new(protocol)?));
        drop(old);
        Ok(())
    }

    /// What the events that are asked for now run in: the given context, else a copy of the current one, as the
    /// handle has that asyncio makes at this point.
    fn current_context(self) -> PyResult<Object> {
        self.link()
            .context
            .clone()
            .map_or_else(|| ffi::copy_context(self.py()), Ok)
    }

    /// Notes the stream that was opened, and has `connection_made` and, if it is for `reading`, the method
    /// `_begin_reading` run on the next turn.
    pub(super) fn start(
        self,
        event_loop: This<'_, 'py, Loop>,
        key: StreamKey,
        reading: bool,
    ) -> PyResult<()> {
        let py = self.py();
        self.link().key.set(Some(key));
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let context = &self.link().context;
        let made = protocol
            .object
            .bind(py)
            .getattr(pyo3::intern!(py, "connection_made"))?;
        event_loop.schedule(&made, tuple((self.object(),).into_pyobject(py)?), context.clone())?;
        if reading {
            let begin = self.object().getattr(pyo3::intern!(py, "_begin_reading"))?;
            event_loop.schedule(&begin, ffi::no_arguments(py), context.clone())?;
        }
        Ok(())
    }

    /// Has a future resolved behind what is scheduled, if there is one.
    pub(super) fn wake(self, event_loop: This<'_, 'py, Loop>, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if waiter.is_none() {
            return Ok(());
        }
        let wake = py
            .import("asyncio.futures")?
            .getattr("_set_result_unless_cancelled")?;
        let arguments = tuple((waiter, py.None()).into_pyobject(py)?);
        event_loop.schedule(&wake, arguments, self.link().context.clone())?;
        Ok(())
    }

    /// Starts to receive.
    pub(super) fn start_reading(self) -> PyResult<()> {
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        let old = self.link().read_context.replace(Some(self.current_context()?));
        drop(old);
        self.with_loop(|event_loop| {
            event_loop
                .engine()?
                .start_reading(key, T::hosted(Instance::of(self)))
                .map_err(os_error)
        })?;
        Ok(())
    }

    /// Stops receiving.
    pub(super) fn stop_reading(self) -> PyResult<()> {
        let kept = self.with_engine(|engine, key| engine.stop_reading(key))?;
        drop(kept);
        Ok(())
    }

    /// Receives once through the scratch buffer and tells the protocol: a stock stream reader natively, any other by
    /// its `data_received`.
    ///
    /// # Errors
    /// The protocol's.
    pub(super) fn receive_bytes(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Protocol,
    ) -> PyResult<Received> {
        let py = self.py();
        let Some(key) = self.link().key.get() else {
            return Ok(Received::Done);
        };
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let protocol_object = protocol.object.bind(py);
        let data = match received {
            Ok(count) if count > 0 => {
                let fed = match protocol.kind {
                    Kind::Reader => reader::feed(&protocol_object, &scratch[..count]),
                    _ => Ok(false),
                };
                // Nothing foreign has run if this is false, so the scratch buffer is still this read's.
                fed.map(|fed| (!fed).then(|| ffi::bytes_from(py, &scratch[..count])))
            }
            ended => {
                event_loop.return_scratch(scratch);
                return Ok(match ended {
                    Ok(_) => Received::End,
                    Err(error) => Received::failed(error),
                });
            }
        };
        event_loop.return_scratch(scratch);
        if let Some(data) = data? {
            ffi::call_method(&protocol_object, pyo3::intern!(py, "data_received"), [&data])?;
        }
        Ok(Received::Done)
    }

    /// Sends or queues bytes, and pauses the protocol where that is due. `own` makes an owned copy. Answers why the
    /// connection is broken, if it is.
    #[inline]
    pub(super) fn send_or_queue(
        self,
        bytes: &[u8],
        own: impl FnOnce() -> Bytes,
    ) -> PyResult<Option<io::Error>> {
        let Some(key) = self.link().key.get() else {
            return Ok(None);
        };
        let this = T::hosted(Instance::of(self));
        let written = self.with_loop(|event_loop| Ok(event_loop.engine()?.write(key, bytes, own, &this)))?;
        match written {
            Some(Ok(written)) => {
                if written.queued {
                    self.note_write_context()?;
                }
                if written.pause {
                    self.tell_flow("pause_writing")?;
                }
                Ok(None)
            }
            None => Ok(None),
            Some(Err(error)) => Ok(Some(error)),
        }
    }

    /// Notes that this is the context in which the room to send is waited for.
    fn note_write_context(self) -> PyResult<()> {
        if self.link().write_context.borrow().is_some() {
            return Ok(());
        }
        let old = self.link().write_context.replace(Some(self.current_context()?));
        drop(old);
        Ok(())
    }

    /// Tells the protocol to resume where what is queued is no more than the low mark.
    pub(super) fn resume_writing(self) -> PyResult<()> {
        let resume = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.resume_at(queued)
        })?;
        if resume == Some(true) {
            self.tell_flow("resume_writing")?;
        }
        Ok(())
    }

    /// Tells the protocol to pause or resume; what it raises is reported, not passed on.
    fn tell_flow(self, name: &str) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let Err(error) = protocol.object.bind(py).call_method0(name) else {
            return Ok(());
        };
        if is_fatal(py, &error) {
            return Err(error);
        }
        let reports = py.import("hotloop._reports")?;
        reports
            .call_method1("flow_control_failed", (self.object(), error.into_value(py), name))
            .map(drop)
    }

    /// Sends what is gathered in this turn.
    pub(super) fn flush_now(self) -> PyResult<()> {
        self.with_engine(|engine, key| engine.flush_now(key)).map(drop)
    }

    /// The marks of flow control, in bytes.
    pub(super) fn limits(self) -> PyResult<(usize, usize)> {
        Ok(self.state(|stream| stream.flow.limits())?.unwrap_or_default())
    }

    /// Sets the marks of flow control, by asyncio's own rules and words, and pauses the protocol if that is due.
    pub(super) fn set_limits(self, call: &Call<'_, 'py>) -> PyResult<()> {
        let checks = self
            .py()
            .import("hotloop._reports")?
            .getattr("write_buffer_limits")?;
        let (high, low): (usize, usize) = call.forward(&checks)?.extract()?;
        self.state(|stream| stream.flow.set_limits(Some(high), Some(low)))?
            .transpose()
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        // What is only gathered goes out at the end of the turn without further news: it must not count as waiting.
        self.flush_now()?;
        let pause = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.pause_at(queued)
        })?;
        if pause == Some(true) {
            self.tell_flow("pause_writing")?;
        }
        Ok(())
    }

    /// Ends the connection in order: behind what is queued.
    pub(super) fn close(self) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        self.link().closing.set(true);
        self.with_loop(|event_loop| {
            let close = event_loop.engine()?.close(key);
            if close == Close::LostSoon {
                self.schedule_lost(event_loop, &py.None().into_bound(py))
            } else {
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Ends the connection at once; `connection_lost(error)` follows on the next turn.
    pub(super) fn force_close(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        if self.link().lost.get() > 0 {
            return Ok(());
        }
        self.link().closing.set(true);
        self.with_loop(|event_loop| {
            event_loop.engine()?.abort(key);
            self.schedule_lost(event_loop, error)
        })?;
        Ok(())
    }

    /// Reports an exception by a function of `hotloop._reports` and ends the connection; lets `SystemExit` and
    /// `KeyboardInterrupt` through.
    pub(super) fn fail_by(self, report: &str, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        self.report_by(report, &error, message)?;
        self.force_close(&error)
    }

    /// Reports an exception by a function of `hotloop._reports`.
    pub(super) fn report_by(self, report: &str, error: &Bound<'py, PyAny>, message: &str) -> PyResult<()> {
        self.py()
            .import("hotloop._reports")?
            .call_method1(report, (self.object(), error, message))
            .map(drop)
    }

    pub(super) fn schedule_lost(
        self,
        event_loop: This<'_, 'py, Loop>,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = self.py();
        self.link().lost.set(self.link().lost.get() + 1);
        let function = self
            .object()
            .getattr(pyo3::intern!(py, "_call_connection_lost"))?;
        let arguments = tuple((error,).into_pyobject(py)?);
        event_loop.schedule(&function, arguments, self.link().context.clone())?;
        Ok(())
    }

    /// Tells the protocol that the connection is lost, then closes the file and lets go of everything.
    pub(super) fn lose(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let none = py.None().into_bound(py);
        let told = match self.protocol() {
            None => Ok(()),
            Some(protocol) => {
                let name = pyo3::intern!(py, "connection_lost");
                ffi::call_method(&protocol.object.bind(py), name, [error.unwrap_or(&none)]).map(drop)
            }
        };
        self.release();
        let link = self.link();
        let closed = T::close_descriptor(self);
        drop(link.protocol.take());
        drop(link.event_loop.take());
        drop((link.read_context.take(), link.write_context.take()));
        told.and(closed)
    }

    /// Takes the stream from the engine.
    pub(super) fn release(self) {
        let Some(key) = self.link().key.take() else { return };
        self.link().closing.set(true);
        let event_loop = self.link().event_loop.borrow().clone();
        if let Some(event_loop) = event_loop
            && let Ok(mut engine) = event_loop.get(self.py()).engine()
        {
            engine.release(key);
        }
    }

    /// Warns of a transport that goes without having been closed, and closes its descriptor.
    pub(super) fn warn_unclosed(self) {
        let py = self.py();
        let reported = py
            .import("hotloop._reports")
            .and_then(|reports| reports.call_method1("transport_unclosed", (self.object(),)))
            .and_then(|_| T::close_descriptor(self));
        // At the interpreter's exit there may be nothing left to warn with.
        if let Err(error) = reported
            && !error.is_instance_of::<PyImportError>(py)
        {
            error.write_unraisable(py, Some(self.object()));
        }
        self.release();
    }
}

impl Received {
    /// What a refused read comes to: nothing, where the stream was released or there is nothing after all.
    pub(super) fn failed(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound || is_transient(&error) {
            Self::Done
        } else {
            Self::Failed(error)
        }
    }
}

fn tuple(arguments: Bound<'_, PyTuple>) -> Object {
    arguments.into_any().into()
}
