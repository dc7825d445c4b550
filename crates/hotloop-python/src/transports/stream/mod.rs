//! `SocketTransport`: a stream connection.

mod class;
mod end;
mod receive;
mod send;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::Direction;
use hotloop::transport::Stream;
use hotloop::{StreamEvent, StreamKey};
use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(super) use self::class::add_to;
use super::protocol::{self, Protocol};
use crate::answers::argument;
use crate::dispatch::{in_context, is_fatal};
use crate::event_loop::Loop;
use crate::ffi::{self, Bytes, Call, Class, Finalize, Instance, Layout, Object, This, Visit};

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
pub(super) fn on_event(this: It<'_, '_>, event_loop: This<'_, '_, Loop>, news: StreamEvent) -> PyResult<()> {
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

    /// What the events that are asked for now run in: the given context, else a copy of the current one, as the
    /// handle has that asyncio makes at this point.
    fn current_context(self) -> PyResult<Object> {
        self.context
            .clone()
            .map_or_else(|| ffi::copy_context(self.py()), Ok)
    }
}
