//! `DatagramTransport`: an endpoint of datagrams.

mod class;
mod end;
mod receive;
mod send;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::Direction;
use hotloop::transport::Datagrams;
use hotloop::{DatagramEvent, EndpointKey};
use pyo3::exceptions::{PyImportError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(super) use self::class::add_to;
use super::Transport;
use crate::answers::argument;
use crate::dispatch::{in_context, is_fatal};
use crate::event_loop::Loop;
use crate::ffi::{self, Bytes, Call, Class, Finalize, Instance, Layout, Object, This, Visit};
use crate::peers::{Family, Peers};

/// A transport over a datagram socket.
pub(crate) struct DatagramTransport {
    /// The loop; `None` after `connection_lost`.
    event_loop: RefCell<Option<Instance<Loop>>>,
    /// The engine's name for the endpoint; `None` once it is released.
    key: Cell<Option<EndpointKey>>,
    fd: RawFd,
    /// The socket, which owns the descriptor; `None` after `connection_lost`.
    socket: RefCell<Option<Object>>,
    protocol: RefCell<Option<Protocol>>,
    /// What reading runs in: the context in which reading was last begun.
    read_context: RefCell<Option<Object>>,
    /// What flushing runs in: the context of the send that found no room.
    write_context: RefCell<Option<Object>>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// How often the connection was lost or sent to thereafter (asyncio's `_conn_lost`).
    lost: Cell<u32>,
    /// Whether the endpoint was released: the engine answers no more.
    released: Cell<bool>,
    family: Family,
    /// The only address that can be sent to, if the endpoint was created with one (asyncio's `_address`).
    address: Option<Object>,
    /// Whom the socket is connected to.
    peer: Peer,
    /// Who was heard of lately.
    peers: RefCell<Peers>,
    /// The addresses of the queued datagrams that the socket must make out itself, oldest first.
    named: RefCell<VecDeque<Object>>,
}

/// Whom a socket is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// Nobody.
    None,
    /// A Unix socket without a name.
    Unnamed,
    /// An address.
    Named,
}

/// A protocol, and whether it takes datagrams several at a time.
#[derive(Clone)]
struct Protocol {
    object: Object,
    batched: bool,
}

impl Protocol {
    fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        // Asked of the class: an object that answers for any attribute has not asked for this.
        let batched = object
            .get_type()
            .hasattr(pyo3::intern!(object.py(), "datagrams_received"))?;
        Ok(Self {
            object: object.into(),
            batched,
        })
    }
}

type It<'a, 'py> = This<'a, 'py, DatagramTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

impl DatagramTransport {
    fn held(&self) -> [&RefCell<Option<Object>>; 3] {
        [&self.socket, &self.read_context, &self.write_context]
    }
}

impl Class for DatagramTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.DatagramTransport";
    const ASYNCIO_NAME: &'static str = "_SelectorDatagramTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.objects(self.event_loop.borrow().iter().map(Instance::object));
        visit.objects(self.protocol.borrow().iter().map(|protocol| &protocol.object));
        visit.objects(&self.address);
        visit.objects(self.named.borrow().iter());
        for held in self.held() {
            visit.objects(held.borrow().iter());
        }
    }

    fn clear(&self) {
        for held in self.held() {
            held.take();
        }
        self.named.take();
        self.protocol.take();
        self.event_loop.take();
    }
}

impl Finalize for DatagramTransport {
    fn finalize(this: It<'_, '_>) {
        let py = this.py();
        let Some(socket) = this.socket.borrow().clone() else {
            return;
        };
        let reported = py
            .import("hotloop._reports")
            .and_then(|reports| reports.call_method1("transport_unclosed", (this.object(),)))
            .and_then(|_| socket.bind(py).call_method0("close"));
        // At the interpreter's exit there may be nothing left to warn with.
        if let Err(error) = reported
            && !error.is_instance_of::<PyImportError>(py)
        {
            error.write_unraisable(py, Some(this.object()));
        }
        this.release();
    }
}

/// `Loop._open_datagrams(sock, protocol, address, waiter, extra)`: a transport over a datagram socket of a family that
/// is known here. `connection_made` and then reading begin on the next turn.
pub(crate) fn open_datagrams<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let [socket, protocol, address, waiter, extra] =
        [0, 1, 2, 3, 4].map(|index| argument(&call, index, "_open_datagrams"));
    let (socket, protocol, address, waiter, extra) = (socket?, protocol?, address?, waiter?, extra?);
    let fd: RawFd = socket.call_method0(pyo3::intern!(py, "fileno"))?.extract()?;
    let family = Family::of(&socket)?
        .ok_or_else(|| PyTypeError::new_err("the socket's family is not known to the native transport"))?;
    let peer_name = extra.get_item(pyo3::intern!(py, "peername"))?;
    let peer = match (peer_name.is_none(), peer_name.is_truthy()?) {
        (true, _) => Peer::None,
        (false, false) => Peer::Unnamed,
        (false, true) => Peer::Named,
    };
    let class = CLASS
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module is not imported"))?;
    let transport = Instance::new(
        &class.bind(py).cast::<PyType>()?.to_owned(),
        DatagramTransport {
            event_loop: RefCell::new(Some(Instance::of(this))),
            key: Cell::new(None),
            fd,
            socket: RefCell::new(Some((&*socket).into())),
            protocol: RefCell::new(Some(Protocol::new(&protocol)?)),
            read_context: RefCell::default(),
            write_context: RefCell::default(),
            paused: Cell::new(false),
            lost: Cell::new(0),
            released: Cell::new(false),
            family,
            address: address.is_truthy()?.then(|| (&*address).into()),
            peer,
            peers: RefCell::default(),
            named: RefCell::default(),
        },
    )?;
    let object = transport.object().clone().into_bound(py);
    object.setattr(pyo3::intern!(py, "_extra"), &*extra)?;
    // What still watches the number watched an earlier descriptor of it.
    let dropped =
        [Direction::Read, Direction::Write].map(|direction| Ok(this.engine()?.unwatch(fd, direction)));
    let key = this
        .engine()?
        .open_endpoint(fd, class::overhead().unwrap_or(0), family != Family::Unix);
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
        this.schedule(&wake, arguments, None)?;
    }
    Ok(object)
}

/// Runs the news of an endpoint.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
pub(super) fn on_event(
    this: It<'_, '_>,
    event_loop: This<'_, '_, Loop>,
    news: DatagramEvent,
) -> PyResult<()> {
    let py = this.py();
    let (context, callback) = match news {
        DatagramEvent::Readable => (&this.read_context, "_read_ready"),
        DatagramEvent::Writable => (&this.write_context, "_sendto_ready"),
    };
    let context = context.borrow().clone();
    let act = || match news {
        DatagramEvent::Readable => this.receive(event_loop),
        DatagramEvent::Writable => this.flush(event_loop),
    };
    let outcome = match context {
        Some(context) => in_context(py, &context, act),
        None => act(),
    };
    outcome.or_else(|error| {
        if is_fatal(py, &error) {
            return Err(error);
        }
        // What the protocol raises is nobody's but the loop's to report, in the name of asyncio's callback.
        let arguments = (event_loop.object(), this.object(), error.into_value(py), callback);
        py.import("hotloop._reports")?
            .call_method1("datagram_event_failed", arguments)
            .map(drop)
    })
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

    /// Looks at the engine's endpoint; `None` once it is released or the loop is closed.
    #[inline]
    fn state<R>(self, look: impl FnOnce(&mut Datagrams<Bytes>) -> R) -> PyResult<Option<R>> {
        let Some(key) = self.key.get() else {
            return Ok(None);
        };
        let looked = self.with_loop(|event_loop| {
            if event_loop.check_closed().is_err() {
                return Ok(None);
            }
            Ok(event_loop.engine()?.endpoint(key).map(look))
        })?;
        Ok(looked.flatten())
    }

    fn is_closing(self) -> PyResult<bool> {
        Ok(self
            .state(|endpoint| endpoint.life().is_closing())?
            .unwrap_or_else(|| self.released.get()))
    }

    fn protocol(self) -> Option<Protocol> {
        self.protocol.borrow().clone()
    }

    fn hosted(self) -> Transport {
        Transport::Datagram(Instance::of(self))
    }

    /// Tells the protocol of an error of the socket, which goes on.
    fn error_received(self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let error = error.into_value(py).into_bound(py).into_any();
        let name = pyo3::intern!(py, "error_received");
        ffi::call_method(&protocol.object.bind(py), name, [&error]).map(drop)
    }
}
