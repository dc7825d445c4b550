//! Connecting to one address: the part of `create_connection` before there is a protocol.

use std::os::fd::{AsRawFd, OwnedFd};

use hotloop::driver::{self, SocketAddress};
use pyo3::prelude::*;
use rustix::io::Errno;

use crate::addresses;
use crate::answers::{argument, none};
use crate::errors::os_error;
use crate::event_loop::Loop;
use crate::ffi::{Call, Object, This};
use crate::sockets;
use crate::transports;

/// `Loop._connect(host, port)`: begins to connect to a host that is an address. Answers a transport without a protocol
/// and a future for the end of the attempt; `None` where that is not certain to end as asyncio's own way would.
///
/// # Errors
/// The kernel's, and that the number of the new descriptor is in use by a transport.
pub(crate) fn connect<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (host, port) = (argument(&call, 0, "_connect")?, argument(&call, 1, "_connect")?);
    let Some(address) = addresses::stream_address(&host, &port) else {
        return none(py);
    };
    begin(this, &SocketAddress::Internet(address))
}

/// `Loop._connect_unix(path)`: the same for the path of a Unix socket, as bytes.
///
/// # Errors
/// The kernel's, and that the number of the new descriptor is in use by a transport.
pub(crate) fn connect_unix<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let path: Vec<u8> = argument(&call, 0, "_connect_unix")?.extract()?;
    if path.is_empty() {
        // Python and the kernel's own interface differ in what they make of it.
        return none(this.py());
    }
    begin(this, &SocketAddress::Unix(path.into()))
}

fn begin<'py>(this: This<'_, 'py, Loop>, address: &SocketAddress) -> PyResult<Bound<'py, PyAny>> {
    match driver::connect(address) {
        Ok((fd, connected)) => begun(this, fd, connected, address),
        // Nothing has begun: the address is none, for which asyncio has words of its own, or a Unix socket has no room,
        // which asyncio takes for a beginning.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                None | Some(Errno::INVAL | Errno::NAMETOOLONG | Errno::AGAIN)
            ) =>
        {
            none(this.py())
        }
        Err(error) => Err(os_error(error)),
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
