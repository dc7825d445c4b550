//! `SocketTransport`: a stream connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::Direction;
use hotloop::transport::{Close, Stream};
use hotloop::{StreamEvent, StreamKey};
use pyo3::exceptions::{PyImportError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};

use super::protocol::{self, Kind, Protocol};
use super::reader;
use crate::dispatch::{in_context, is_fatal};
use crate::errors::{is_transient, os_error};
use crate::event_loop::{Loop, argument, bool_object, none, object_or_none};
use crate::ffi::{
    self, Bytes, Call, Class, ClassBuilder, Finalize, Instance, Layout, Object, ReadBuffer, This, Visit,
    WriteBuffer,
};

/// After so many writes to a lost connection each further one is logged (asyncio's
/// `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOG_THRESHOLD: u32 = 5;

/// A stream transport over a socket.
pub(crate) struct SocketTransport {
    /// The loop; `None` after `connection_lost`.
    event_loop: RefCell<Option<Instance<Loop>>>,
    /// The engine's name for the stream; `None` once it is released.
    key: Cell<Option<StreamKey>>,
    fd: RawFd,
    /// The socket, which owns the descriptor; `None` after `connection_lost`.
    socket: RefCell<Option<Object>>,
    protocol: RefCell<Option<Protocol>>,
    /// The server that accepted it, told when it goes.
    server: RefCell<Option<Object>>,
    /// What reading runs in: the context in which reading was last begun.
    read_context: RefCell<Option<Object>>,
    /// What the news of sending run in: the context of the write that found no room.
    write_context: RefCell<Option<Object>>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// How often the connection was lost or written to thereafter (asyncio's `_conn_lost`).
    lost: Cell<u32>,
    /// Resolved when nothing is queued any more: `sendfile` waits for it.
    empty_waiter: RefCell<Option<Object>>,
    /// Whether the stream was released: the engine answers no more.
    closing: Cell<bool>,
    /// The context that everything runs in, where the creator gave one (Python 3.15).
    context: Option<Object>,
}

type It<'a, 'py> = This<'a, 'py, SocketTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

impl Class for SocketTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.SocketTransport";
    const ASYNCIO_NAME: &'static str = "_SelectorSocketTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        let event_loop = self.event_loop.borrow();
        visit.objects(event_loop.iter().map(Instance::object));
        visit.objects(self.protocol.borrow().iter().map(|protocol| &protocol.object));
        visit.objects(&self.context);
        for held in [
            &self.socket,
            &self.server,
            &self.read_context,
            &self.write_context,
            &self.empty_waiter,
        ] {
            visit.objects(held.borrow().iter());
        }
    }

    fn clear(&self) {
        for held in [
            &self.socket,
            &self.server,
            &self.read_context,
            &self.write_context,
            &self.empty_waiter,
        ] {
            held.take();
        }
        self.protocol.take();
        self.event_loop.take();
    }
}

impl Finalize for SocketTransport {
    fn finalize(this: It<'_, '_>) {
        let py = this.py();
        let Some(socket) = this.socket.borrow().clone() else {
            return;
        };
        let reported = py
            .import("hotloop._reports")
            .and_then(|reports| reports.call_method1("transport_unclosed", (this.object(), socket.bind(py))));
        // At the interpreter's exit there may be nothing left to warn with.
        if let Err(error) = reported
            && !error.is_instance_of::<PyImportError>(py)
        {
            error.write_unraisable(py, Some(this.object()));
        }
        this.release();
    }
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("asyncio.transports")?
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<SocketTransport>::new()
        .finalizer()
        .repr(repr)
        .method(
            c"write",
            c"write($self, /, data)\n--\n\nSend bytes, without waiting.",
            write,
        )
        .method(
            c"writelines",
            c"writelines($self, /, list_of_data)\n--\n\nSend a list of bytes, without waiting.",
            writelines,
        )
        .no_args(
            c"write_eof",
            c"write_eof($self, /)\n--\n\nEnd the sending half after what was written.",
            write_eof,
        )
        .no_args(c"can_write_eof", c"can_write_eof($self, /)\n--\n\nTrue.", can_write_eof)
        .no_args(
            c"close",
            c"close($self, /)\n--\n\nEnd the connection after what was written.",
            close,
        )
        .no_args(c"abort", c"abort($self, /)\n--\n\nEnd the connection at once.", abort)
        .no_args(
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the connection is ending or has ended.",
            is_closing,
        )
        .no_args(
            c"is_reading",
            c"is_reading($self, /)\n--\n\nWhether data is being received.",
            is_reading,
        )
        .no_args(
            c"pause_reading",
            c"pause_reading($self, /)\n--\n\nReceive nothing until resume_reading().",
            pause_reading,
        )
        .no_args(
            c"resume_reading",
            c"resume_reading($self, /)\n--\n\nUndo pause_reading().",
            resume_reading,
        )
        .method(
            c"set_protocol",
            c"set_protocol($self, /, protocol)\n--\n\nSet the protocol.",
            set_protocol,
        )
        .no_args(
            c"get_protocol",
            c"get_protocol($self, /)\n--\n\nThe protocol.",
            get_protocol,
        )
        .no_args(
            c"get_write_buffer_size",
            c"get_write_buffer_size($self, /)\n--\n\nHow many bytes wait to be sent.",
            get_write_buffer_size,
        )
        .no_args(
            c"get_write_buffer_limits",
            c"get_write_buffer_limits($self, /)\n--\n\nThe low and the high mark of flow control, in bytes.",
            get_write_buffer_limits,
        )
        .method(
            c"set_write_buffer_limits",
            c"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\nSet the marks of flow control, in bytes.",
            set_write_buffer_limits,
        )
        .no_args(
            c"_begin_reading",
            c"_begin_reading($self, /)\n--\n\nReceive from now on, unless paused.",
            begin_reading,
        )
        .method(
            c"_call_connection_lost",
            c"_call_connection_lost($self, exc, /)\n--\n\nTell the protocol and close the socket.",
            call_connection_lost,
        )
        .method(
            c"_force_close",
            c"_force_close($self, exc, /)\n--\n\nEnd the connection at once, for a reason.",
            force_close,
        )
        .method(
            c"_fatal_error",
            c"_fatal_error($self, exc, message='Fatal error on transport', /)\n--\n\nReport an exception and end the connection.",
            fatal_error,
        )
        .no_args(
            c"_make_empty_waiter",
            c"_make_empty_waiter($self, /)\n--\n\nA future for the moment when nothing is queued.",
            make_empty_waiter,
        )
        .no_args(
            c"_reset_empty_waiter",
            c"_reset_empty_waiter($self, /)\n--\n\nForget that future.",
            reset_empty_waiter,
        )
        .getter(c"_sock", c"The socket, or None.", |this: It<'_, '_>| {
            Ok(optional(this, &this.socket))
        })
        .getter(c"_sock_fd", c"The descriptor's number.", |this: It<'_, '_>| {
            Ok(this.fd.into_pyobject(this.py())?.into_any())
        })
        .getter(c"_server", c"The server, or None.", |this: It<'_, '_>| {
            Ok(optional(this, &this.server))
        })
        .getter(c"_loop", c"The loop, or None.", |this: It<'_, '_>| {
            let event_loop = this
                .event_loop
                .borrow()
                .as_ref()
                .map(|event_loop| event_loop.object().clone());
            Ok(object_or_none(this.py(), event_loop))
        })
        .getter(c"_protocol", c"The protocol, or None.", |this: It<'_, '_>| {
            let protocol = this
                .protocol
                .borrow()
                .as_ref()
                .map(|protocol| protocol.object.clone());
            Ok(object_or_none(this.py(), protocol))
        })
        .getter(
            c"_protocol_paused",
            c"Whether the protocol was told to pause.",
            |this: It<'_, '_>| {
                let paused = this.state(|stream| stream.flow.is_paused())?.unwrap_or(false);
                bool_object(this.py(), paused)
            },
        )
        .getter(
            c"_conn_lost",
            c"How often the connection was lost, or written to thereafter.",
            |this: It<'_, '_>| Ok(this.lost.get().into_pyobject(this.py())?.into_any()),
        )
        .getter(
            c"_closing",
            c"Whether the connection is ending or has ended.",
            |this: It<'_, '_>| bool_object(this.py(), this.is_closing()?),
        )
        .getter(c"_paused", c"Whether reading is paused.", |this: It<'_, '_>| {
            bool_object(this.py(), this.paused.get())
        })
        .getter(c"_eof", c"Whether write_eof() was called.", |this: It<'_, '_>| {
            bool_object(this.py(), this.is_eof_written()?)
        })
        .build(
            &base,
            &["_extra", "_loop", "_protocol_paused", "_high_water", "_low_water"],
            true,
        )?;
    class.setattr("max_size", 256 * 1024)?;
    class.setattr("_start_tls_compatible", true)?;
    let mode = module
        .py()
        .import("asyncio.constants")?
        .getattr("_SendfileMode")?;
    class.setattr("_sendfile_compatible", mode.getattr("TRY_NATIVE")?)?;
    module.add("SocketTransport", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

/// `Loop._open_stream(sock, protocol, waiter, extra, server)`: a transport over a connected socket. `connection_made`
/// and then reading begin on the next turn.
pub(crate) fn open_stream<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let [socket, protocol, waiter, extra, server] =
        [0, 1, 2, 3, 4].map(|index| argument(&call, index, "_open_stream"));
    let (socket, protocol, waiter, extra, server) = (socket?, protocol?, waiter?, extra?, server?);
    let context = call.get(5).filter(|context| !context.is_none()).map(Object::from);
    let fd: RawFd = socket.call_method0(pyo3::intern!(py, "fileno"))?.extract()?;
    let class = CLASS
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module is not imported"))?;
    let protocol_kind = protocol::kind(&protocol)?;
    let transport = Instance::new(
        &class.bind(py).cast::<PyType>()?.to_owned(),
        SocketTransport {
            event_loop: RefCell::new(Some(Instance::of(this))),
            key: Cell::new(None),
            fd,
            socket: RefCell::new(Some((&*socket).into())),
            protocol: RefCell::new(Some(Protocol {
                object: (&*protocol).into(),
                kind: protocol_kind,
            })),
            server: RefCell::new((!server.is_none()).then(|| (&*server).into())),
            read_context: RefCell::default(),
            write_context: RefCell::default(),
            paused: Cell::new(false),
            lost: Cell::new(0),
            empty_waiter: RefCell::default(),
            closing: Cell::new(false),
            context: context.clone(),
        },
    )?;
    let object = transport.object().clone().into_bound(py);
    object.setattr(pyo3::intern!(py, "_extra"), &*extra)?;
    // What still watches the number watched an earlier descriptor of it.
    let dropped =
        [Direction::Read, Direction::Write].map(|direction| Ok(this.engine()?.unwatch(fd, direction)));
    let key = this.engine()?.open_stream(fd);
    dropped.into_iter().collect::<PyResult<Vec<_>>>()?;
    transport.get(py).key.set(Some(key));
    let empty = call.rest(call.len());
    let with =
        |item: &Bound<'py, PyAny>| -> PyResult<Object> { Ok((item,).into_pyobject(py)?.into_any().into()) };
    this.schedule(
        &protocol.getattr(pyo3::intern!(py, "connection_made"))?,
        with(&object)?,
        None,
    )?;
    this.schedule(&object.getattr(pyo3::intern!(py, "_begin_reading"))?, empty, None)?;
    if !waiter.is_none() {
        let wake = py
            .import("asyncio.futures")?
            .getattr("_set_result_unless_cancelled")?;
        let arguments = (&*waiter, py.None()).into_pyobject(py)?.into_any().into();
        this.schedule(&wake, arguments, context)?;
    }
    Ok(object)
}

/// Runs the news of a stream.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
pub(crate) fn on_event(this: It<'_, '_>, event_loop: This<'_, '_, Loop>, news: StreamEvent) -> PyResult<()> {
    let py = this.py();
    let context = match news {
        StreamEvent::Readable => &this.read_context,
        StreamEvent::Sent | StreamEvent::Broken(_) => &this.write_context,
    };
    let context = context.borrow().clone();
    let act = || match news {
        StreamEvent::Readable => this.receive(event_loop),
        StreamEvent::Sent => this.sent(),
        StreamEvent::Broken(error) => this.broken(error),
    };
    let outcome = match context {
        Some(context) => in_context(py, &context, act),
        None => act(),
    };
    outcome.or_else(|error| {
        if is_fatal(py, &error) {
            Err(error)
        } else {
            report_event(event_loop, this, error)
        }
    })
}

/// Reports an exception that no protocol method is to blame for, as a handle's.
fn report_event(event_loop: This<'_, '_, Loop>, this: It<'_, '_>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    let arguments = (event_loop.object(), this.object(), error.into_value(py));
    py.import("hotloop._reports")?
        .call_method1("transport_event_failed", arguments)?;
    Ok(())
}

impl<'py> It<'_, 'py> {
    /// Calls `act` with the loop; `None` after `connection_lost`.
    #[inline]
    fn with_loop<R>(self, act: impl FnOnce(This<'_, 'py, Loop>) -> PyResult<R>) -> PyResult<Option<R>> {
        let event_loop = self.event_loop.borrow().clone();
        event_loop
            .map(|event_loop| event_loop.with(self.py(), act))
            .transpose()
    }

    /// Looks at the engine's stream; `None` once it is released.
    #[inline]
    fn state<R>(self, look: impl FnOnce(&mut Stream<Bytes>) -> R) -> PyResult<Option<R>> {
        let Some(key) = self.key.get() else {
            return Ok(None);
        };
        Ok(self
            .with_loop(|event_loop| Ok(event_loop.engine()?.stream(key).map(look)))?
            .flatten())
    }

    fn is_closing(self) -> PyResult<bool> {
        Ok(self
            .state(|stream| stream.is_closing())?
            .unwrap_or_else(|| self.closing.get()))
    }

    fn is_eof_written(self) -> PyResult<bool> {
        Ok(self.state(|stream| stream.is_eof_written())?.unwrap_or(false))
    }

    fn protocol(self) -> Option<Protocol> {
        self.protocol.borrow().clone()
    }

    /// Receives once and tells the protocol.
    fn receive(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        if self.lost.get() > 0 {
            return Ok(());
        }
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        match protocol.kind {
            Kind::Buffered => self.receive_into(event_loop, &protocol),
            Kind::Plain | Kind::Reader => self.receive_bytes(event_loop, &protocol),
        }
    }

    fn receive_bytes(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let outcome = match received {
            Ok(0) => Err(Ok(())),
            Ok(count) => {
                let protocol_object = protocol.object.bind(py);
                let fed = match protocol.kind {
                    Kind::Reader => reader::feed(&protocol_object, &scratch[..count]),
                    _ => Ok(false),
                };
                // Nothing foreign has run if this is false, so the scratch buffer is still this read's.
                fed.map(|fed| (!fed).then(|| ffi::bytes_from(py, &scratch[..count])))
                    .map_err(Err)
            }
            Err(error) => {
                event_loop.return_scratch(scratch);
                return self.read_failed(error);
            }
        };
        event_loop.return_scratch(scratch);
        let told = match outcome {
            Ok(None) => Ok(()),
            Ok(Some(data)) => data_received(&protocol.object.bind(py), &data),
            Err(Ok(())) => return self.receive_end(protocol),
            Err(Err(error)) => Err(error),
        };
        told.or_else(|error| self.fail(error, "Fatal error: protocol.data_received() call failed."))
    }

    fn receive_into(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
        let protocol_object = protocol.object.bind(py);
        let size = (-1i32).into_pyobject(py)?.into_any();
        let buffer =
            ffi::call_method(&protocol_object, pyo3::intern!(py, "get_buffer"), [&size]).and_then(|buffer| {
                if buffer.len()? == 0 {
                    return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
                }
                Ok(buffer)
            });
        let buffer = match buffer {
            Ok(buffer) => buffer,
            Err(error) => return self.fail(error, "Fatal error: protocol.get_buffer() call failed."),
        };
        let Ok(mut buffer) = WriteBuffer::new(&buffer) else {
            return self.refuse_buffer(&buffer);
        };
        let received = event_loop.engine()?.receive(key, buffer.as_mut_slice());
        drop(buffer);
        match received {
            Ok(0) => self.receive_end(protocol),
            Ok(count) => {
                let count = count.into_pyobject(py)?.into_any();
                ffi::call_method(&protocol_object, pyo3::intern!(py, "buffer_updated"), [&count])
                    .map(drop)
                    .or_else(|error| self.fail(error, "Fatal error: protocol.buffer_updated() call failed."))
            }
            Err(error) => self.read_failed(error),
        }
    }

    /// Ends the connection over something that cannot be received into; the socket says why.
    fn refuse_buffer(self, buffer: &Bound<'py, PyAny>) -> PyResult<()> {
        let socket = self.socket.borrow().clone();
        let Some(socket) = socket else { return Ok(()) };
        match socket
            .bind(self.py())
            .call_method1(pyo3::intern!(self.py(), "recv_into"), (buffer,))
        {
            Ok(_) => Ok(()),
            Err(error) => self.fail(error, "Fatal read error on socket transport"),
        }
    }

    fn read_failed(self, error: io::Error) -> PyResult<()> {
        match error.kind() {
            // The stream was released.
            io::ErrorKind::NotFound => Ok(()),
            _ if is_transient(&error) => Ok(()),
            _ => self.fail(os_error(error), "Fatal read error on socket transport"),
        }
    }

    /// The peer has ended its stream.
    fn receive_end(self, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let keep_open = ffi::call_method(&protocol.object.bind(py), pyo3::intern!(py, "eof_received"), [])
            .and_then(|keep_open| keep_open.is_truthy());
        match keep_open {
            Err(error) => self.fail(error, "Fatal error: protocol.eof_received() call failed."),
            Ok(true) => self.stop_reading(),
            Ok(false) => self.close(),
        }
    }

    /// Queued bytes were sent.
    fn sent(self) -> PyResult<()> {
        let resume = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.resume_at(queued)
        })?;
        if resume == Some(true) {
            self.tell_flow("resume_writing")?;
        }
        let Some((empty, eof, lost)) = self.state(|stream| {
            (
                stream.queue.is_empty(),
                stream.is_eof_written(),
                stream.finish_close(),
            )
        })?
        else {
            return Ok(());
        };
        if !empty {
            return Ok(());
        }
        drop(self.write_context.take());
        self.resolve_empty_waiter(None)?;
        if lost {
            self.lost.set(self.lost.get() + 1);
            return self.connection_lost(None);
        }
        if eof && let Some(key) = self.key.get() {
            self.with_loop(|event_loop| event_loop.engine()?.shutdown_write(key).map_err(os_error))?;
        }
        Ok(())
    }

    /// A send failed.
    fn broken(self, error: io::Error) -> PyResult<()> {
        let error = os_error(error);
        self.resolve_empty_waiter(Some(&error))?;
        self.fail(error, "Fatal write error on socket transport")
    }

    fn resolve_empty_waiter(self, error: Option<&PyErr>) -> PyResult<()> {
        let py = self.py();
        let waiter = self.empty_waiter.borrow().clone();
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        match error {
            None => waiter.call_method1("set_result", (py.None(),))?,
            Some(error) => waiter.call_method1("set_exception", (error.value(py),))?,
        };
        Ok(())
    }

    /// Reports an exception and ends the connection; lets `SystemExit` and `KeyboardInterrupt` through.
    fn fail(self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        self.report(&error, &PyString::new(py, message))?;
        self.force_close(&error)
    }

    fn report(self, error: &Bound<'py, PyAny>, message: &Bound<'py, PyAny>) -> PyResult<()> {
        let reports = self.py().import("hotloop._reports")?;
        reports
            .call_method1("transport_failed", (self.object(), error, message))
            .map(drop)
    }

    /// Ends the connection at once; `connection_lost(error)` follows on the next turn.
    fn force_close(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        if self.lost.get() > 0 {
            return Ok(());
        }
        self.with_loop(|event_loop| {
            event_loop.engine()?.abort(key);
            self.schedule_lost(event_loop, error)
        })?;
        Ok(())
    }

    fn close(self) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
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

    fn schedule_lost(self, event_loop: This<'_, 'py, Loop>, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.lost.set(self.lost.get() + 1);
        let function = self
            .object()
            .getattr(pyo3::intern!(py, "_call_connection_lost"))?;
        event_loop.schedule(
            &function,
            (error,).into_pyobject(py)?.into_any().into(),
            self.context.clone(),
        )?;
        Ok(())
    }

    /// Tells the protocol that the connection is lost, then lets go of everything.
    fn connection_lost(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
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
        let closed = match self.socket.take() {
            None => Ok(()),
            Some(socket) => socket.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop),
        };
        drop(self.protocol.take());
        drop(self.event_loop.take());
        drop((self.read_context.take(), self.write_context.take()));
        let detached = match self.server.take() {
            None => Ok(()),
            Some(server) => py
                .import("hotloop._reports")?
                .call_method1("detach", (server.bind(py), self.object()))
                .map(drop),
        };
        told.and(closed).and(detached)
    }

    /// Sends what is gathered in this turn.
    fn flush_now(self) -> PyResult<()> {
        if let Some(key) = self.key.get() {
            self.with_loop(|event_loop| {
                event_loop.engine()?.flush_now(key);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Takes the stream from the engine.
    fn release(self) {
        let Some(key) = self.key.take() else { return };
        self.closing.set(true);
        let event_loop = self.event_loop.borrow().clone();
        if let Some(event_loop) = event_loop
            && let Ok(mut engine) = event_loop.get(self.py()).engine()
        {
            engine.release(key);
        }
    }

    /// Starts to receive.
    fn start_reading(self) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        let old = self.read_context.replace(Some(self.current_context()?));
        drop(old);
        self.with_loop(|event_loop| {
            event_loop
                .engine()?
                .start_reading(key, Instance::of(self))
                .map_err(os_error)
        })?;
        Ok(())
    }

    /// Stops receiving.
    fn stop_reading(self) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        let kept = self.with_loop(|event_loop| Ok(event_loop.engine()?.stop_reading(key)))?;
        drop(kept);
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

    /// Sends or queues bytes. `own` makes an owned copy.
    #[inline]
    fn send(self, bytes: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let lost = self.lost.get();
        if lost > 0 {
            if lost >= LOG_THRESHOLD {
                self.py()
                    .import("hotloop._reports")?
                    .call_method0("write_to_lost")?;
            }
            self.lost.set(lost + 1);
            return Ok(());
        }
        let Some(key) = self.key.get() else { return Ok(()) };
        let this = Instance::of(self);
        let written = self.with_loop(|event_loop| Ok(event_loop.engine()?.write(key, bytes, own, &this)))?;
        match written {
            Some(Ok(written)) => {
                if written.queued {
                    self.note_write_context()?;
                }
                if written.pause {
                    self.tell_flow("pause_writing")
                } else {
                    Ok(())
                }
            }
            None => Ok(()),
            Some(Err(error)) => self.fail(os_error(error), "Fatal write error on socket transport"),
        }
    }

    /// What the events that are asked for now run in: the given context, else a copy of the current one, as the
    /// handle has that asyncio makes at this point.
    fn current_context(self) -> PyResult<Object> {
        self.context
            .clone()
            .map_or_else(|| ffi::copy_context(self.py()), Ok)
    }

    /// Notes that this is the context in which the room to send is waited for.
    fn note_write_context(self) -> PyResult<()> {
        if self.write_context.borrow().is_some() {
            return Ok(());
        }
        let old = self.write_context.replace(Some(self.current_context()?));
        drop(old);
        Ok(())
    }

    /// Raises where asyncio refuses a write.
    fn check_write(self, function: &str) -> PyResult<()> {
        if self.is_eof_written()? {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {function}() after write_eof()"
            )));
        }
        if self.empty_waiter.borrow().is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "unable to {function}; sendfile is in progress"
            )));
        }
        Ok(())
    }
}

#[inline]
fn data_received(protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    ffi::call_method(protocol, pyo3::intern!(protocol.py(), "data_received"), [data]).map(drop)
}

fn optional<'py>(this: It<'_, 'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(this.py(), held)
}

fn repr<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let writing = this.state(|stream| stream.queue.len())?.unwrap_or(0);
    let reading = this.state(|stream| stream.is_reading())?.unwrap_or(false);
    let reports = py.import("hotloop._reports")?;
    reports.call_method1("transport_repr", (this.object(), reading, writing))
}

fn write<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    // The one call in a thousand with a keyword is worth the check.
    let data = match call.get(0) {
        Some(data) if call.len() == 1 && !call.has_keywords() => data,
        _ => call.only("_SelectorSocketTransport.write", "data")?,
    };
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        this.check_write("write")?;
        this.send(bytes.as_bytes(), || Bytes::new(&bytes))?;
        return none(py);
    }
    let reports = py.import("hotloop._reports")?;
    if !reports.call_method1("is_bytes_like", (&*data,))?.is_truthy()? {
        let name = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "data argument must be a bytes-like object, not {}",
            name.repr()?
        )));
    }
    this.check_write("write")?;
    let view = ReadBuffer::new(&data)?;
    // What is kept is a copy: the caller may change its buffer as soon as this returns.
    this.send(view.as_slice(), || Bytes::new(&PyBytes::new(py, view.as_slice())))?;
    none(py)
}

fn writelines<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let list = call.only("_SelectorSocketTransport.writelines", "list_of_data")?;
    let join = || {
        let joined = PyBytes::new(py, b"").call_method1(pyo3::intern!(py, "join"), (&*list,))?;
        Ok::<_, PyErr>(joined.cast_into::<PyBytes>()?)
    };
    // Up to Python 3.11 this is a join and a write, in that order and by that name.
    let joined = if cfg!(Py_3_12) {
        this.check_write("writelines")?;
        join()?
    } else {
        let joined = join()?;
        this.check_write("write")?;
        joined
    };
    this.send(joined.as_bytes(), || Bytes::new(&joined))?;
    none(py)
}

fn write_eof<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(key) = this.key.get() {
        this.with_loop(|event_loop| event_loop.engine()?.write_eof(key).map_err(os_error))?;
    }
    none(this.py())
}

fn can_write_eof<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), true)
}

fn close<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.close()?;
    none(this.py())
}

fn abort<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    this.force_close(&py.None().into_bound(py))?;
    none(py)
}

fn is_closing<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.is_closing()?)
}

fn is_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), !this.paused.get() && !this.is_closing()?)
}

fn pause_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !this.paused.get() && !this.is_closing()? {
        this.paused.set(true);
        this.stop_reading()?;
    }
    none(this.py())
}

fn resume_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if this.paused.get() && !this.is_closing()? {
        this.paused.set(false);
        this.start_reading()?;
    }
    none(this.py())
}

fn begin_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !this.paused.get() && !this.is_closing()? {
        this.start_reading()?;
    }
    none(this.py())
}

fn set_protocol<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let protocol = call.only("_SelectorTransport.set_protocol", "protocol")?;
    let kind = protocol::kind(&protocol)?;
    let old = this.protocol.replace(Some(Protocol {
        object: (&*protocol).into(),
        kind,
    }));
    drop(old);
    none(this.py())
}

fn get_protocol<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Ok(object_or_none(
        this.py(),
        this.protocol().map(|protocol| protocol.object),
    ))
}

fn get_write_buffer_size<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // What is only gathered would have been sent already by a loop that does not gather.
    this.flush_now()?;
    let size = this.state(|stream| stream.queue.len())?.unwrap_or(0);
    Ok(size.into_pyobject(this.py())?.into_any())
}

fn get_write_buffer_limits<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let limits = this.state(|stream| stream.flow.limits())?.unwrap_or_default();
    Ok(limits.into_pyobject(this.py())?.into_any())
}

fn set_write_buffer_limits<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let checks = py.import("hotloop._reports")?.getattr("write_buffer_limits")?;
    // asyncio's own rules, by their words; both come back as numbers of bytes.
    let (high, low): (usize, usize) = call.forward(&checks)?.extract()?;
    this.state(|stream| stream.flow.set_limits(Some(high), Some(low)))?
        .transpose()
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    // What is only gathered goes out at the end of the turn without further news: it must not count as waiting.
    this.flush_now()?;
    let pause = this.state(|stream| {
        let queued = stream.queue.len();
        stream.flow.pause_at(queued)
    })?;
    if pause == Some(true) {
        this.tell_flow("pause_writing")?;
    }
    none(py)
}

fn call_connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = argument(&call, 0, "_call_connection_lost")?;
    this.connection_lost(Some(&error))?;
    none(this.py())
}

fn force_close<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.force_close(&*argument(&call, 0, "_force_close")?)?;
    none(this.py())
}

fn fatal_error<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let error = argument(&call, 0, "_fatal_error")?;
    let message = PyString::new(py, "Fatal error on transport").into_any();
    this.report(&error, call.get(1).as_deref().unwrap_or(&message))?;
    this.force_close(&error)?;
    none(py)
}

fn make_empty_waiter<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if this.empty_waiter.borrow().is_some() {
        return Err(PyRuntimeError::new_err("Empty waiter is already set"));
    }
    let event_loop = this.event_loop.borrow().clone();
    let Some(event_loop) = event_loop else {
        return Err(PyRuntimeError::new_err("the connection is lost"));
    };
    if let Some(key) = this.key.get() {
        event_loop.get(py).engine()?.flush_now(key);
    }
    let waiter = event_loop.object().bind(py).call_method0("create_future")?;
    if this.state(|stream| stream.queue.is_empty())?.unwrap_or(true) {
        waiter.call_method1("set_result", (py.None(),))?;
    }
    this.empty_waiter.replace(Some((&waiter).into()));
    Ok(waiter)
}

fn reset_empty_waiter<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    drop(this.empty_waiter.take());
    none(this.py())
}
