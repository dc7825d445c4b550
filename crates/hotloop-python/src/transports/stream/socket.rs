//! The socket under a stream transport: who owns the descriptor, and what the two ends are called.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use hotloop::driver::{self, Accepted, SocketAddress};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::It;
use crate::addresses;
use crate::answers::none;
use crate::ffi::{Call, Object};
use crate::modules::TRANSPORTS;

/// Who owns the descriptor of a transport.
#[derive(Debug)]
pub(crate) enum Owner {
    /// The transport: a connection that was accepted, until somebody asks for its socket.
    Transport(OwnedFd),
    /// A Python socket.
    Socket(Object),
    /// Nobody: it is closed. The socket that it had is there to be asked for.
    Closed(Option<Object>),
}

/// What Python calls the family, the type and the protocol of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketKind {
    pub(crate) family: i32,
    pub(crate) socktype: i32,
    pub(crate) proto: i32,
}

impl SocketKind {
    /// That of a stream socket that was connected to an address.
    pub(super) fn of(address: &SocketAddress) -> Self {
        let (family, proto) = driver::stream_family(address);
        Self {
            family,
            socktype: hotloop::address::STREAM,
            proto,
        }
    }
}

impl Owner {
    /// The Python socket, if there is one.
    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Self::Socket(socket) | Self::Closed(Some(socket)) => Some(socket),
            Self::Transport(_) | Self::Closed(None) => None,
        }
    }
}

impl<'py> It<'_, 'py> {
    /// The Python socket, made now if there is none yet; `None` after the connection was closed.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn python_socket(self) -> PyResult<Option<Object>> {
        let fd: RawFd = match &*self.owner.borrow() {
            Owner::Socket(socket) => return Ok(Some(socket.clone())),
            Owner::Closed(_) => return Ok(None),
            Owner::Transport(fd) => fd.as_raw_fd(),
        };
        let socket: Object = self.new_socket("adopt", fd)?;
        if let Owner::Transport(fd) = self.owner.replace(Owner::Socket(socket.clone())) {
            // The socket closes it from now on.
            let _ = fd.into_raw_fd();
        }
        Ok(Some(socket))
    }

    /// Closes the descriptor.
    ///
    /// # Errors
    /// What the Python socket raises.
    pub(super) fn close_socket(self) -> PyResult<()> {
        let py = self.py();
        match self.owner.replace(Owner::Closed(None)) {
            Owner::Transport(fd) => {
                drop(fd);
                Ok(())
            }
            Owner::Socket(socket) => {
                self.owner.replace(Owner::Closed(Some(socket.clone())));
                socket.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop)
            }
            closed @ Owner::Closed(_) => {
                self.owner.replace(closed);
                Ok(())
            }
        }
    }

    /// `_extra`: what `get_extra_info` looks names up in, made when somebody asks.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn extra(self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        if let Some(extra) = self.extra.get() {
            return Ok(extra.into_bound(py));
        }
        let socket = match self.python_socket()? {
            Some(socket) => socket,
            None => {
                let closed = self.owner.borrow().object().cloned();
                closed.map_or_else(|| self.new_socket("closed_socket", -1), Ok)?
            }
        };
        let wrapped = py
            .import("asyncio.trsock")?
            .call_method1("TransportSocket", (socket.bind(py),))?;
        let extra = PyDict::new(py);
        extra.set_item("socket", wrapped)?;
        let (local, peer) = self.ends.borrow().clone();
        extra.set_item("sockname", name(py, local.as_ref())?)?;
        extra.set_item("peername", name(py, peer.as_ref())?)?;
        let extra = extra.into_any();
        self.extra.replace(Some((&extra).into()));
        Ok(extra)
    }

    fn new_socket(self, maker: &str, fd: RawFd) -> PyResult<Object> {
        let SocketKind {
            family,
            socktype,
            proto,
        } = self.kind;
        let made = TRANSPORTS
            .module(self.py())?
            .call_method1(maker, (fd, family, socktype, proto))?;
        Ok(made.into())
    }
}

/// `get_extra_info(name, default=None)`.
pub(super) fn get_extra_info<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (Some(key), false) = (call.get(0), call.len() > 2 || call.has_keywords()) else {
        let stock = py
            .import("asyncio.transports")?
            .getattr("BaseTransport")?
            .getattr("get_extra_info")?;
        return call.forward(&stock.call_method1("__get__", (this.object(),))?);
    };
    let default = match call.get(1) {
        Some(default) => (*default).clone(),
        None => none(py)?,
    };
    // Most of what programs ask for is of other kinds of transports.
    if this.extra.is_none()
        && let Ok(text) = key.cast_exact::<PyString>()
        && !matches!(text.to_str(), Ok("socket" | "sockname" | "peername"))
    {
        return Ok(default);
    }
    this.extra()?
        .call_method1(pyo3::intern!(py, "get"), (&*key, default))
}

/// The name of one end as the `socket` module tells it; `None` if the kernel told none.
fn name<'py>(py: Python<'py>, address: Option<&SocketAddress>) -> PyResult<Bound<'py, PyAny>> {
    address.map_or_else(|| none(py), |address| addresses::name(py, address))
}

/// A connection as `Loop._accept` answers it.
///
/// # Errors
/// A path that is no text.
pub(crate) fn as_tuple<'py>(py: Python<'py>, connection: Accepted) -> PyResult<Bound<'py, PyAny>> {
    let peer = addresses::name(py, &connection.peer)?;
    Ok((connection.fd.into_raw_fd(), peer).into_pyobject(py)?.into_any())
}
