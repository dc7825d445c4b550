//! Addresses of sockets: as the `socket` module writes them, and back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use std::sync::OnceLock;

use hotloop::driver::{Address, Parts};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use rustix::net::AddressFamily;

use crate::addresses;
use crate::ffi::{self, Object};

/// The families whose addresses are read and written natively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Internet4,
    Internet6,
    Unix,
}

impl Family {
    /// The family of a Python socket, if it is one that is known here.
    ///
    /// # Errors
    /// `TypeError` if it is no socket.
    pub(crate) fn of(socket: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        static FAMILY: OnceLock<Object> = OnceLock::new();
        member(&FAMILY, "family", socket).map(Self::from_number)
    }

    fn from_number(number: i32) -> Option<Self> {
        let known = [
            (AddressFamily::INET, Self::Internet4),
            (AddressFamily::INET6, Self::Internet6),
            (AddressFamily::UNIX, Self::Unix),
        ];
        let (_, family) = known
            .into_iter()
            .find(|(known, _)| i32::from(known.as_raw()) == number)?;
        Some(family)
    }

    /// The address that an object plainly is. Whatever is not certain (names, subclasses, errors) is `None`, for the
    /// socket to judge.
    pub(crate) fn read(self, object: &Bound<'_, PyAny>) -> Option<Address> {
        match self {
            Self::Internet4 => internet4(object),
            Self::Internet6 => internet6(object),
            Self::Unix => unix(object),
        }
    }
}

/// The type of a Python socket, by the number of the `socket` module.
///
/// # Errors
/// `TypeError` if it is no socket.
pub(crate) fn kind_of(socket: &Bound<'_, PyAny>) -> PyResult<i32> {
    static KIND: OnceLock<Object> = OnceLock::new();
    member(&KIND, "type", socket)
}

/// A number that a socket keeps, without the detour by which the `socket` module makes an enumeration of it.
fn member(descriptor: &OnceLock<Object>, name: &str, socket: &Bound<'_, PyAny>) -> PyResult<i32> {
    let py = socket.py();
    if descriptor.get().is_none() {
        let class = py.import("_socket")?.getattr("socket")?;
        let found = class.getattr("__dict__")?.get_item(name)?;
        descriptor.get_or_init(|| found.into());
    }
    let Some(descriptor) = descriptor.get() else {
        return Err(PyTypeError::new_err("the socket module has no sockets"));
    };
    ffi::call_method(&descriptor.bind(py), pyo3::intern!(py, "__get__"), [socket])?.extract()
}

/// An address as Python's socket would give it; `None` for a family that is not known here.
///
/// # Errors
/// Out of memory.
pub(crate) fn write<'py>(py: Python<'py>, address: &Address) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(Some(match address.parts() {
        Parts::Nothing => py.None().into_bound(py),
        Parts::Internet(address) => addresses::internet(py, address)?,
        Parts::Unix(name) => addresses::unix(py, name)?,
        Parts::Other => return Ok(None),
    }))
}

fn internet4(object: &Bound<'_, PyAny>) -> Option<Address> {
    let tuple = object.cast_exact::<PyTuple>().ok()?;
    if tuple.len() != 2 {
        return None;
    }
    let host: Ipv4Addr = host(tuple)?;
    Some(SocketAddr::from(SocketAddrV4::new(host, number(tuple, 1)?)).into())
}

fn internet6(object: &Bound<'_, PyAny>) -> Option<Address> {
    let tuple = object.cast_exact::<PyTuple>().ok()?;
    if !(2..=4).contains(&tuple.len()) {
        return None;
    }
    let host: Ipv6Addr = host(tuple)?;
    let optional = |index| {
        if index < tuple.len() {
            number(tuple, index)
        } else {
            Some(0)
        }
    };
    let (flowinfo, scope_id): (u32, u32) = (optional(2)?, optional(3)?);
    if flowinfo > 0xf_ffff {
        return None;
    }
    Some(SocketAddr::from(SocketAddrV6::new(host, number(tuple, 1)?, flowinfo, scope_id)).into())
}

fn unix(object: &Bound<'_, PyAny>) -> Option<Address> {
    if let Ok(path) = object.cast_exact::<PyBytes>() {
        return Address::unix(path.as_bytes());
    }
    // Other text depends on the encoding of the file system.
    let path = object.cast_exact::<PyString>().ok()?.to_str().ok()?;
    path.is_ascii().then(|| Address::unix(path.as_bytes())).flatten()
}

fn host<T: std::str::FromStr>(tuple: &Bound<'_, PyTuple>) -> Option<T> {
    let host = tuple.get_borrowed_item(0).ok()?;
    host.cast_exact::<PyString>().ok()?.to_str().ok()?.parse().ok()
}

fn number<'py, T: for<'a> FromPyObject<'a, 'py>>(tuple: &Bound<'py, PyTuple>, index: usize) -> Option<T> {
    let number = tuple.get_borrowed_item(index).ok()?;
    number.cast_exact::<PyInt>().ok()?;
    number.extract().ok()
}

/// How many addresses are remembered at most. A server that answers more peers than this in turn makes their tuples
/// anew.
const MAX_REMEMBERED: usize = 64;

/// The peers that were heard of lately, so that a datagram of one needs no new tuple, and an answer to it no parsing.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Each at the place that its address says; a power of two of them, from the first datagram on.
    remembered: Vec<Option<(Address, Object)>>,
    /// The place of the last one that was heard of.
    last: usize,
}

impl Peers {
    /// The object for an address that was heard of.
    ///
    /// # Errors
    /// Out of memory; an address of a family that is not known.
    pub(crate) fn heard<'py>(&mut self, py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
        let hash = hash(address.as_bytes());
        if let Some(Some((known, object))) = self.remembered.get(hash & self.mask())
            && known == address
        {
            self.last = hash & self.mask();
            return Ok(object.bind(py).to_owned());
        }
        let object = write(py, address)?.unwrap_or_else(|| py.None().into_bound(py));
        if self.remembered.is_empty() {
            self.remembered.push(None);
        }
        if self.remembered[hash & self.mask()].is_some() && self.remembered.len() < MAX_REMEMBERED {
            let room = self.remembered.len() * 2;
            let old = std::mem::replace(&mut self.remembered, vec![const { None }; room]);
            for (address, object) in old.into_iter().flatten() {
                let place = self::hash(address.as_bytes()) & self.mask();
                self.remembered[place] = Some((address, object));
            }
        }
        self.last = hash & self.mask();
        self.remembered[self.last] = Some((*address, (&object).into()));
        Ok(object)
    }

    /// The address behind an object, if it is the one that was answered last.
    #[inline]
    pub(crate) fn last_heard(&self, object: &Bound<'_, PyAny>) -> Option<&Address> {
        let (address, known) = self.remembered.get(self.last)?.as_ref()?;
        known.is(object).then_some(address)
    }

    fn mask(&self) -> usize {
        self.remembered.len().wrapping_sub(1)
    }
}

/// Spreads addresses; those of one host differ in their port only.
fn hash(bytes: &[u8]) -> usize {
    bytes.iter().fold(0_u32, |hash, &byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    }) as usize
}
