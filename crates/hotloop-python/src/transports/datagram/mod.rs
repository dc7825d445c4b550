//! `DatagramTransport`: an endpoint of datagrams.

mod class;
mod receive;
mod send;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::Direction;
use hotloop::{DatagramEvent, EndpointKey};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(super) use self::class::add_to;
use super::Transport;
use super::link::{Link, Linked};
use crate::answers::argument;
use crate::event_loop::Loop;
use crate::ffi::{self, Call, Class, Finalize, Instance, Layout, Object, This, Visit};
use crate::peers::{Family, Peers};

/// A transport over a datagram socket.
pub(crate) struct DatagramTransport {
    /// To its loop, its endpoint and its protocol.
    link: Link<EndpointKey>,
    /// The socket, which owns the descriptor; `None` after `connection_lost`.
    socket: RefCell<Option<Object>>,
    /// Whether the protocol takes datagrams several at a time.
    batched: Cell<bool>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
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

type It<'a, 'py> = This<'a, 'py, DatagramTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

/// The options of UDP sockets, and the one that lets the kernel put datagrams together on their way in.
const SOL_UDP: i32 = 17;
const UDP_GRO: i32 = 104;

impl Class for DatagramTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.DatagramTransport";
    const ASYNCIO_NAME: &'static str = "_SelectorDatagramTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        self.link.traverse(visit);
        visit.objects(self.socket.borrow().iter());
        visit.objects(&self.address);
        visit.objects(self.named.borrow().iter());
    }

    fn clear(&self) {
        self.socket.take();
        self.named.take();
        self.link.clear();
    }
}

impl Finalize for DatagramTransport {
    fn finalize(this: It<'_, '_>) {
        if this.socket.borrow().is_some() {
            this.warn_unclosed();
        }
    }
}

impl DatagramTransport {
    /// The transport that an object is, if it is one.
    pub(super) fn of(object: &Object) -> Option<Instance<Self>> {
        Instance::from_class(object, CLASS.get())
    }
}

impl Linked for DatagramTransport {
    type Key = EndpointKey;

    #[inline]
    fn link(&self) -> &Link<EndpointKey> {
        &self.link
    }

    fn hosted(this: Instance<Self>) -> Transport {
        Transport::Datagram(this)
    }

    fn run<'py>(
        this: This<'_, 'py, Self>,
        event_loop: This<'_, 'py, Loop>,
        news: DatagramEvent,
    ) -> PyResult<()> {
        match news {
            DatagramEvent::Readable => this.receive(event_loop),
            DatagramEvent::Writable => this.flush(event_loop),
        }
    }

    fn close_descriptor(this: It<'_, '_>) -> PyResult<()> {
        let dropped = (this.peers.take(), this.named.take());
        drop(dropped);
        let socket = this.socket.take();
        let Some(socket) = socket else { return Ok(()) };
        let py = this.py();
        socket.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop)
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
            link: Link::new(this, fd, None),
            socket: RefCell::new(Some((&*socket).into())),
            batched: Cell::new(false),
            paused: Cell::new(false),
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
    transport.with(py, |transport| {
        transport.set_datagram_protocol(&protocol)?;
        transport.start(this, key, true)?;
        transport.ask_to_put_together()?;
        transport.wake(this, &waiter)
    })?;
    Ok(object)
}

impl<'py> It<'_, 'py> {
    fn set_datagram_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        // Asked of the class: an object that answers for any attribute has not asked for this.
        let batched = protocol
            .get_type()
            .hasattr(pyo3::intern!(self.py(), "datagrams_received"))?;
        self.set_protocol(protocol)?;
        self.batched.set(batched);
        Ok(())
    }

    /// Has the kernel put datagrams of one sender together on their way in, where the protocol wants several at a time
    /// anyway. Each is told by itself all the same; what the socket's option shows, only such a protocol has asked for.
    fn ask_to_put_together(self) -> PyResult<()> {
        let py = self.py();
        let socket = self.socket.borrow().clone();
        let Some(socket) = socket.filter(|_| self.batched.get() && self.family != Family::Unix) else {
            return Ok(());
        };
        let asked = socket
            .bind(py)
            .call_method1(pyo3::intern!(py, "setsockopt"), (SOL_UDP, UDP_GRO, 1));
        match asked {
            // An older kernel, or not UDP.
            Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(()),
            asked => asked.map(drop),
        }
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
