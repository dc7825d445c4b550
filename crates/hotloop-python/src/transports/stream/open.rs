//! The beginning of a stream transport: over a socket that is given, or over a connection that was accepted or made.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use hotloop::driver::{self, Accepted, Direction, SocketAddress};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::socket::{Owner, SocketKind};
use super::{CLASS, It, SocketTransport};
use crate::answers::{argument, none};
use crate::event_loop::Loop;
use crate::ffi::{self, Call, Instance, Object, OptionCell, This};
use crate::modules::TRANSPORTS;
use crate::transports::link::Link;

/// `Loop._open_stream(sock, protocol, waiter, extra, server, context=None)`: a transport over a connected socket.
/// `connection_made` and then reading begin on the next turn.
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
    let kind = SocketKind::default();
    let transport = new(this, Owner::Socket((&*socket).into()), fd, kind, context)?;
    transport.with(py, |transport| {
        let ends = (driver::local_address(fd).ok(), driver::peer_address(fd).ok());
        let is_connected = ends.1.is_some();
        let is_plain = |end: &Option<SocketAddress>| !matches!(end, Some(SocketAddress::Other));
        if extra.is_none() && is_plain(&ends.0) && is_plain(&ends.1) {
            transport.ends.replace(ends);
        } else {
            let extra = TRANSPORTS
                .module(py)?
                .call_method1("extra", (&*socket, &*extra))?;
            transport.extra.replace(Some((&extra).into()));
        }
        let server = (!server.is_none()).then(|| (&*server).into());
        transport.begin(this, &protocol, server)?;
        if !is_connected && let Some(key) = transport.link.key.get() {
            this.engine()?.note_unconnected(key);
        }
        transport.wake(this, &waiter)?;
        Ok(transport.object().clone())
    })
}

/// A transport over a connection that was accepted, without a protocol yet; see [`It::serve`].
///
/// # Errors
/// Out of memory.
pub(crate) fn accepted(
    event_loop: This<'_, '_, Loop>,
    connection: Accepted,
    kind: SocketKind,
    context: Option<Object>,
) -> PyResult<Instance<SocketTransport>> {
    let Accepted { fd, peer } = connection;
    let number = fd.as_raw_fd();
    let transport = new(event_loop, Owner::Transport(fd), number, kind, context)?;
    transport.get(event_loop.py()).ends.borrow_mut().1 = Some(peer);
    Ok(transport)
}

/// A transport over a connection that is being made, without a protocol yet; see [`begin_connected`].
///
/// # Errors
/// Out of memory.
pub(crate) fn connecting(
    event_loop: This<'_, '_, Loop>,
    fd: OwnedFd,
    address: &SocketAddress,
) -> PyResult<Instance<SocketTransport>> {
    let number = fd.as_raw_fd();
    let kind = SocketKind::of(address);
    let transport = new(event_loop, Owner::Transport(fd), number, kind, None)?;
    if let SocketAddress::Internet(internet) = address
        && !internet.ip().is_unspecified()
    {
        // What the kernel would call the far end.
        transport.get(event_loop.py()).ends.borrow_mut().1 = Some(address.clone());
    }
    Ok(transport)
}

/// `SocketTransport._begin_connected(protocol, waiter, context)`: begins with a connection that was made, in a context of
/// its own unless that is `None`. The waiter is resolved once reading has begun.
///
/// # Errors
/// That the descriptor is in use by another transport.
pub(super) fn begin_connected<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let at = |index| argument(&call, index, "_begin_connected");
    let (protocol, waiter, context) = (at(0)?, at(1)?, at(2)?);
    if !context.is_none() {
        // A transport begins once.
        let _ = this.link.context.set((&*context).into());
    }
    if let Some(event_loop) = this.event_loop() {
        let mut ends = this.ends.borrow_mut();
        if ends.1.is_none() {
            ends.1 = driver::peer_address(this.link.fd).ok();
        }
        drop(ends);
        event_loop.with(py, |event_loop| {
            this.serve(event_loop, &protocol, None)?;
            this.wake(event_loop, &waiter)
        })?;
    }
    none(py)
}

/// `SocketTransport._abandon()`: gives a connection up that has no protocol, whether it was made or not.
///
/// # Errors
/// None.
pub(super) fn abandon<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    // The number is somebody else's once the descriptor is closed.
    if matches!(&*this.owner.borrow(), Owner::Transport(_))
        && let Some(event_loop) = this.event_loop()
        && let Ok(mut engine) = event_loop.get(py).engine_now()
    {
        let watcher = engine.unwatch(this.link.fd, Direction::Write);
        drop(engine);
        drop(watcher);
    }
    this.refuse();
    none(py)
}

fn new(
    event_loop: This<'_, '_, Loop>,
    owner: Owner,
    fd: RawFd,
    kind: SocketKind,
    context: Option<Object>,
) -> PyResult<Instance<SocketTransport>> {
    let class = CLASS
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module is not imported"))?;
    Instance::new(
        &class.bind(event_loop.py()).cast::<PyType>()?.to_owned(),
        SocketTransport {
            link: Link::new(event_loop, fd, context),
            owner: RefCell::new(owner),
            kind,
            ends: RefCell::default(),
            extra: OptionCell::default(),
            server: OptionCell::default(),
            paused: Cell::new(false),
            empty_waiter: OptionCell::default(),
        },
    )
}

impl<'py> It<'_, 'py> {
    /// Serves an accepted connection, as a transport of `server`.
    ///
    /// # Errors
    /// What the server raises: it is closed meanwhile. That the descriptor is in use by another transport.
    pub(crate) fn serve(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Bound<'py, PyAny>,
        server: Option<Object>,
    ) -> PyResult<()> {
        event_loop.ensure_no_transport(self.link.fd)?;
        self.ends.borrow_mut().0 = driver::local_address(self.link.fd).ok();
        self.begin(event_loop, protocol, server)
    }

    /// Closes an accepted connection that is not served.
    pub(crate) fn refuse(self) {
        let old = self.owner.replace(Owner::Closed(None));
        drop(old);
    }

    /// Gives the transport its protocol and its server, and has the loop begin.
    fn begin(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Bound<'py, PyAny>,
        server: Option<Object>,
    ) -> PyResult<()> {
        self.set_protocol(protocol)?;
        if let Some(server) = server {
            self.attach(&server)?;
            self.server.replace(Some(server));
        }
        self.register(event_loop, self.link.fd.unsigned_abs());
        // A stream over IP that is not TCP (SCTP, MPTCP on old kernels) has no such option, nor the need.
        let is_tcp = matches!(self.ends.borrow().0, Some(SocketAddress::Internet(_)))
            && driver::set_nodelay(self.link.fd).is_ok();
        // What still watches the number watched an earlier descriptor of it.
        let dropped = [Direction::Read, Direction::Write]
            .map(|direction| Ok(event_loop.engine()?.unwatch(self.link.fd, direction)));
        let key = event_loop.engine()?.open_stream(self.link.fd);
        if is_tcp {
            event_loop.engine()?.note_tcp(key);
        }
        dropped.into_iter().collect::<PyResult<Vec<_>>>()?;
        self.start(event_loop, key, true)
    }

    /// Counts the connection with its server, which since Python 3.13 is given the transport.
    fn attach(self, server: &Object) -> PyResult<()> {
        let (server, name) = (server.bind(self.py()), pyo3::intern!(self.py(), "_attach"));
        if cfg!(Py_3_13) {
            ffi::call_method(&server, name, [self.object()])?;
        } else {
            ffi::call_method(&server, name, [])?;
        }
        Ok(())
    }

    /// Tells the server that the connection is gone.
    pub(super) fn detach(self) -> PyResult<()> {
        let Some(server) = self.server.take() else {
            return Ok(());
        };
        let (server, name) = (server.bind(self.py()), pyo3::intern!(self.py(), "_detach"));
        if cfg!(Py_3_13) {
            ffi::call_method(&server, name, [self.object()])?;
        } else {
            ffi::call_method(&server, name, [])?;
        }
        Ok(())
    }
}
