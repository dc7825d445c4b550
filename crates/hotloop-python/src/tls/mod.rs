//! TLS: a native data path between a transport and a protocol, over the user's own `ssl.SSLContext`.
//!
//! [`Tls`] is the native base of `hotloop._tls.TlsProtocol`, whose other base is asyncio's `SSLProtocol`. What happens
//! for each packet is here, and what each connection goes through that begins and ends well: the handshake and the
//! goodbye. What goes wrong, what is reported, and debug mode are asyncio's own Python. The state that both look at lies
//! in native fields, which asyncio's code reads and sets as attributes.

mod attributes;
mod class;
mod ending;
mod handshake;
mod receive;
mod send;
mod session;
mod state;
mod transport;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::OnceLock;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use self::session::Session;
use self::state::State;
use crate::event_loop::Loop;
use crate::ffi::{Bytes, Class, Instance, Layout, Object, This, Visit};
use crate::modules::SSLPROTO;
use crate::transports::{Protocol, SocketTransport};

pub(crate) use self::receive::{absorb, advance};
pub(crate) use self::send::flush;

/// The native part of a TLS connection: a protocol towards the transport of encrypted bytes, and what the
/// application's transport writes to.
pub(crate) struct Tls {
    /// `_loop`.
    event_loop: RefCell<Option<Object>>,
    /// The same where it is one of ours.
    native_loop: RefCell<Option<Instance<Loop>>>,
    /// `_state`.
    state: Cell<State>,
    /// `_incoming`: a `MemoryBIO` of what has come in.
    incoming: RefCell<Option<Object>>,
    /// `_outgoing`: a `MemoryBIO` of what is to go out.
    outgoing: RefCell<Option<Object>>,
    /// `_sslobj`: what the context's `wrap_bio` has answered.
    ssl_object: RefCell<Option<Object>>,
    /// The same, ready to be called. Set with `_sslobj`.
    session: RefCell<Option<Rc<Session>>>,
    /// `_transport`: of the encrypted bytes; `None` before `connection_made` and after `connection_lost`.
    transport: RefCell<Option<Lower>>,
    /// `_app_protocol`: the application's.
    protocol: RefCell<Option<Protocol>>,
    /// `_app_transport`: what the application writes to.
    app_transport: RefCell<Option<Object>>,
    /// `_app_reading_paused`: the application has paused reading.
    app_reading_paused: Cell<bool>,
    /// `_ssl_reading_paused`: reading of the lower transport is paused, since too much came in that nobody reads.
    ssl_reading_paused: Cell<bool>,
    /// `_ssl_writing_paused`: the lower transport has told this protocol to pause.
    ssl_writing_paused: Cell<bool>,
    /// `_app_writing_paused`: the application's protocol was told to pause.
    app_writing_paused: Cell<bool>,
    /// `_incoming_high_water` and `_incoming_low_water`, in bytes.
    incoming_marks: [Cell<usize>; 2],
    /// `_outgoing_high_water` and `_outgoing_low_water`, in bytes.
    outgoing_marks: [Cell<usize>; 2],
    /// `_conn_lost`: how often the connection was lost or written to thereafter.
    lost: Cell<u32>,
    /// Plain text that waits: for the handshake, or for room below.
    backlog: RefCell<VecDeque<Bytes>>,
    /// How much of the first of the backlog is encrypted already.
    encrypted: Cell<usize>,
    /// The length of the backlog in bytes, without that.
    backlog_size: Cell<usize>,
    /// Plain text of the later writes of this turn, for its end to encrypt in one record. Empty where there is a
    /// backlog.
    gathered: RefCell<Vec<u8>>,
    /// Whether the last read has left nothing of what came in.
    drained: Cell<bool>,
    /// The turn of the last write that went out at once.
    written_in: Cell<u64>,
    /// Whether the session is being called, or the backlog encrypted: a callback of the user's context that writes
    /// meanwhile only adds to the backlog, since OpenSSL is not to be entered twice.
    busy: Cell<bool>,
}

type It<'a, 'py> = This<'a, 'py, Tls>;

/// The transport below.
#[derive(Clone)]
enum Lower {
    Socket(Instance<SocketTransport>),
    /// Any other, called by name: another TLS connection, or a class of somebody else's.
    Other(Object),
}

static CLASS: OnceLock<Object> = OnceLock::new();

impl Class for Tls {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.TlsProtocol";
    const ASYNCIO_NAME: &'static str = "SSLProtocol";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        for held in [
            &self.event_loop,
            &self.incoming,
            &self.outgoing,
            &self.ssl_object,
            &self.app_transport,
        ] {
            visit.objects(held.borrow().iter());
        }
        let native_loop = self.native_loop.borrow();
        visit.objects(native_loop.iter().map(Instance::object));
        visit.objects(self.transport.borrow().iter().map(Lower::object));
        visit.objects(self.protocol.borrow().iter().map(|protocol| &protocol.object));
        if let Some(session) = &*self.session.borrow() {
            session.traverse(visit);
        }
    }

    fn clear(&self) {
        for held in [
            &self.event_loop,
            &self.incoming,
            &self.outgoing,
            &self.ssl_object,
            &self.app_transport,
        ] {
            drop(held.take());
        }
        drop(self.native_loop.take());
        drop(self.session.take());
        drop(self.transport.take());
        drop(self.protocol.take());
        drop(self.backlog.take());
    }
}

impl Lower {
    /// The transport of an object.
    fn new(transport: &Bound<'_, PyAny>) -> Self {
        match SocketTransport::of(&transport.into()) {
            Some(socket) => Self::Socket(socket),
            None => Self::Other(transport.into()),
        }
    }

    fn object(&self) -> &Object {
        match self {
            Self::Socket(socket) => socket.object(),
            Self::Other(object) => object,
        }
    }
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What CPython raises if a class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    class::add_to(module)?;
    transport::add_to(module)
}

impl Tls {
    /// The connection that a protocol is, if it is one.
    #[inline]
    pub(crate) fn of(object: &Object) -> Option<Instance<Self>> {
        Instance::from_object(object, CLASS.get())
    }
}

impl<'py> It<'_, 'py> {
    #[inline]
    fn session(self) -> Option<Rc<Session>> {
        self.session.borrow().clone()
    }

    #[inline]
    fn protocol(self) -> Option<Protocol> {
        self.protocol.borrow().clone()
    }

    #[inline]
    fn event_loop(self) -> Option<Instance<Loop>> {
        self.native_loop.borrow().clone()
    }

    /// Calls one of asyncio's own methods of this protocol.
    fn call(self, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.object().call_method0(name)
    }

    /// Has asyncio's own code do it, by the name of a method without arguments.
    fn by_asyncio(self, name: &str) -> PyResult<()> {
        let py = self.py();
        let class = SSLPROTO.get(py, pyo3::intern!(py, "SSLProtocol"))?;
        class.call_method1(name, (self.object(),)).map(drop)
    }

    /// Ends the connection over an exception, as asyncio's code does; lets through what is no `Exception`.
    fn fatal(self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        self.object()
            .call_method1(
                pyo3::intern!(py, "_fatal_error"),
                (error.into_value(py), "Fatal error on SSL protocol"),
            )
            .map(drop)
    }
}
