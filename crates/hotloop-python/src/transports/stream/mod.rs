//! `SocketTransport`: a stream connection.

mod class;
mod end;
mod open;
mod receive;
mod send;
mod socket;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::SocketAddress;
use hotloop::transport::Stream;
use hotloop::{StreamEvent, StreamKey};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

pub(super) use self::class::add_to;
pub(crate) use self::open::{accepted, open_stream};
use self::socket::Owner;
pub(crate) use self::socket::{SocketKind, as_tuple};
use super::protocol::Protocol;
use crate::dispatch::{in_context, is_fatal};
use crate::event_loop::Loop;
use crate::ffi::{self, Bytes, Class, Finalize, Instance, Layout, Object, This, Visit};

/// A stream transport over a socket.
pub(crate) struct SocketTransport {
    /// The loop; `None` after `connection_lost`.
    event_loop: RefCell<Option<Instance<Loop>>>,
    /// The engine's name for the stream; `None` once it is released.
    key: Cell<Option<StreamKey>>,
    fd: RawFd,
    /// Who closes the descriptor. Closed after `connection_lost`.
    owner: RefCell<Owner>,
    /// What a Python socket is made with, where there is none yet.
    kind: SocketKind,
    /// What the near and the far end are called, each if the kernel told. Set when the transport is opened.
    ends: RefCell<(Option<SocketAddress>, Option<SocketAddress>)>,
    /// `_extra`: a dictionary, given by the creator or made when somebody asks.
    extra: RefCell<Option<Object>>,
    /// `None` until a protocol was made for an accepted connection, and after `connection_lost`.
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
        visit.objects(self.owner.borrow().object());
        for held in [
            &self.extra,
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
            &self.extra,
            &self.server,
            &self.read_context,
            &self.write_context,
            &self.empty_waiter,
        ] {
            held.take();
        }
        self.owner.replace(Owner::Closed(None));
        self.protocol.take();
        self.event_loop.take();
    }
}

impl Finalize for SocketTransport {
    fn finalize(this: It<'_, '_>) {
        let py = this.py();
        if matches!(&*this.owner.borrow(), Owner::Closed(_)) || this.key.get().is_none() {
            return;
        }
        let reported = py
            .import("hotloop._reports")
            .and_then(|reports| reports.call_method1("transport_unclosed", (this.object(),)))
            .and_then(|_| this.close_socket());
        // At the interpreter's exit there may be nothing left to warn with.
        if let Err(error) = reported
            && !error.is_instance_of::<PyImportError>(py)
        {
            error.write_unraisable(py, Some(this.object()));
        }
        this.release();
    }
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

    /// The loop; `None` after `connection_lost`.
    pub(crate) fn event_loop(self) -> Option<Instance<Loop>> {
        self.event_loop.borrow().clone()
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
