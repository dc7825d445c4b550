//! `getaddrinfo` for address literals, and the names of sockets.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use hotloop::address::{DATAGRAM, Port, Query, Resolved, STREAM, literal, text};
use hotloop::driver::SocketAddress;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt, PyList, PyString};

use crate::answers::{argument, none};
use crate::event_loop::Loop;
use crate::ffi::{Call, This};

/// `_literal_addresses(host, port, family, type, proto, flags)`: what `socket.getaddrinfo` answers, a list of
/// `(family, type, proto, canonname, address)`, if the host is an address; else `None`.
pub(crate) fn literal_addresses<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let at = |index| argument(&call, index, "_literal_addresses");
    let (host, port) = (at(0)?, at(1)?);
    let numbers = [at(2)?, at(3)?, at(4)?, at(5)?].map(|number| number.extract::<i32>().ok());
    // Whatever is not plainly text or a number is for the socket module to judge.
    let [Some(family), Some(socktype), Some(proto), Some(flags)] = numbers else {
        return none(py);
    };
    let Some(resolved) = resolve(&host, &port, [family, socktype, proto, flags]) else {
        return none(py);
    };
    let numbers = Numbers::get(py)?;
    let empty = pyo3::intern!(py, "");
    // All entries are of one address, and a tuple of it may be in each of them.
    let address = match resolved.first() {
        Some(entry) => resolved_address(&host, entry.address)?,
        None => return none(py),
    };
    let entries = resolved.iter().map(|entry| {
        let family = numbers.family(entry.address).bind(py);
        let socktype = numbers.socktype(entry.socktype).bind(py);
        (family, socktype, entry.proto, empty, &address)
    });
    Ok(PyList::new(py, entries)?.into_any())
}

/// The address that a host was found to be, with its port.
fn resolved_address<'py>(host: &Bound<'py, PyAny>, address: SocketAddr) -> PyResult<Bound<'py, PyAny>> {
    let py = host.py();
    match (host.cast_exact::<PyString>(), address) {
        // Only one text is read as an address of IPv4: the one that it has.
        (Ok(host), SocketAddr::V4(address)) => Ok((host, address.port()).into_pyobject(py)?.into_any()),
        _ => internet(py, address),
    }
}

/// The one address of a stream that a host and a port name, if the host is an address.
pub(crate) fn stream_address(host: &Bound<'_, PyAny>, port: &Bound<'_, PyAny>) -> Option<SocketAddr> {
    match resolve(host, port, [0, STREAM, 0, 0])?.as_slice() {
        [one] => Some(one.address),
        _ => None,
    }
}

/// What `getaddrinfo` answers for a family, a type, a protocol and flags, if that is certain.
fn resolve(
    host: &Bound<'_, PyAny>,
    port: &Bound<'_, PyAny>,
    [family, socktype, proto, flags]: [i32; 4],
) -> Option<Vec<Resolved>> {
    let host = if host.is_none() {
        None
    } else {
        Some(text_of(host)?)
    };
    let port = match text_of(port) {
        Some(text) => Port::Text(text),
        None if port.is_none() => Port::Unset,
        None => Port::Number(port.cast_exact::<PyInt>().ok()?.extract().ok()?),
    };
    literal(&Query {
        host,
        port,
        family,
        socktype,
        proto,
        flags,
    })
}

/// The name of a socket's end, as the `socket` module tells it.
///
/// # Errors
/// A path that is no text.
pub(crate) fn name<'py>(py: Python<'py>, address: &SocketAddress) -> PyResult<Bound<'py, PyAny>> {
    match address {
        SocketAddress::Internet(address) => internet(py, *address),
        SocketAddress::Unix(name) => unix(py, name),
        SocketAddress::Other => none(py),
    }
}

/// The name of a Unix socket: an abstract one, with its leading zero, is bytes, a path is text.
///
/// # Errors
/// A path that is no text.
pub(crate) fn unix<'py>(py: Python<'py>, name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if name.first() == Some(&0) {
        return Ok(PyBytes::new(py, name).into_any());
    }
    Ok(OsStr::from_bytes(name).into_pyobject(py)?.into_any())
}

/// An address and a port of IPv4 or IPv6.
///
/// # Errors
/// Out of memory.
pub(crate) fn internet<'py>(py: Python<'py>, address: SocketAddr) -> PyResult<Bound<'py, PyAny>> {
    let host = text(address.ip());
    Ok(match address {
        SocketAddr::V4(address) => (host, address.port()).into_pyobject(py)?.into_any(),
        SocketAddr::V6(address) => (host, address.port(), address.flowinfo(), address.scope_id())
            .into_pyobject(py)?
            .into_any(),
    })
}

/// What Python's `socket` module calls the numbers of an answer.
struct Numbers {
    /// `AF_INET` and `AF_INET6`.
    families: [Py<PyAny>; 2],
    /// `SOCK_STREAM`, `SOCK_DGRAM` and `SOCK_RAW`.
    types: [Py<PyAny>; 3],
}

impl Numbers {
    /// Looks them up, once.
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static NUMBERS: PyOnceLock<Numbers> = PyOnceLock::new();
        NUMBERS.get_or_try_init(py, || {
            let socket = py.import("socket")?;
            let member = |name: &str| socket.getattr(name).map(Bound::unbind);
            Ok(Self {
                families: [member("AF_INET")?, member("AF_INET6")?],
                types: [member("SOCK_STREAM")?, member("SOCK_DGRAM")?, member("SOCK_RAW")?],
            })
        })
    }

    fn family(&self, address: SocketAddr) -> &Py<PyAny> {
        &self.families[usize::from(address.is_ipv6())]
    }

    fn socktype(&self, number: i32) -> &Py<PyAny> {
        match number {
            STREAM => &self.types[0],
            DATAGRAM => &self.types[1],
            _ => &self.types[2],
        }
    }
}

/// The text of a `str` or of ASCII `bytes`; nothing of anything else.
fn text_of<'a>(value: &'a Bound<'_, PyAny>) -> Option<&'a str> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return text.to_str().ok();
    }
    let bytes = value.cast_exact::<PyBytes>().ok()?.as_bytes();
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
}
