//! Connecting to one address: the part of `create_connection` before there is a protocol.

use std::os::fd::{AsRawFd, OwnedFd};

use hotloop::driver::{self, SocketAddress};
use pyo3::prelude::*;

use crate::addresses;
use crate::answers::{argument, none};
use crate::event_loop::Loop;
use crate::ffi::{Call, Object, This};
use crate::sockets;
use crate::transports;

/// `Loop._connect(host, port)`: begins to connect to a host that is an address. Answers a transport without a protocol
/// and a future for the end of the attempt; `None` where that is not certain to end as asyncio's own way would.
///
/// # Errors
/// That the number of the new descriptor is in use by a transport.
pub(crate) fn connect<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (host, port) = (argument(&call, 0, "_connect")?, argument(&call, 1, "_connect")?);
    let Some(address) = addresses::stream_address(&host, &port) else {
        return none(py);
    };
    let address = SocketAddress::Internet(address);
    match driver::connect(&address) {
        Ok((fd, connected)) => begun(this, fd, connected, &address),
        Err(_) => none(py),
    }
}

/// `Loop._connect_unix(path)`: the same for the path of a Unix socket, as bytes.
///
/// # Errors
/// That the number of the new descriptor is in use by a transport.
pub(crate) fn connect_unix<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let path: Vec<u8> = argument(&call, 0, "_connect_unix")?.extract()?;
    let address = SocketAddress::Unix(path.into());
    match driver::connect(&address) {
        Ok((fd, connected)) => begun(this, fd, connected, &address),
        Err(_) => none(this.py()),
    }
}

fn begun<'py>(
    this: This<'_, 'py, Loop>,
    fd: OwnedFd,
    connected: bool,
    address: &SocketAddress,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let number = fd.as_raw_fd();
    let transport = transports::connecting(this, fd, address)?;
    let future = if connected {
        none(py)?
    } else {
        let name: Object = addresses::name(py, address)?.into();
        sockets::wait_for_connection(this, &transport.object().bind(py), number, name)?
    };
    Ok((transport.object().bind(py), future)
        .into_pyobject(py)?
        .into_any())
}
