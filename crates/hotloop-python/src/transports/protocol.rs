//! What kind of protocol a transport feeds.

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::reader;
use crate::ffi::Object;
use crate::modules::PROTOCOLS;
use crate::tls::Tls;

/// How received bytes reach a protocol. Decided when the protocol is set, as asyncio does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `data_received(bytes)`.
    Plain,
    /// `get_buffer(size)`, then `buffer_updated(count)`.
    Buffered,
    /// asyncio's own stream protocol over its own reader: fed without a Python frame.
    Reader,
    /// A TLS connection of ours: fed without any object in between.
    Tls,
}

/// A protocol and its kind.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) object: Object,
    pub(crate) kind: Kind,
}

impl Protocol {
    /// A protocol, with its kind.
    ///
    /// # Errors
    /// What an `isinstance` check of the protocol raises.
    pub(crate) fn new(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            object: protocol.into(),
            kind: kind(protocol)?,
        })
    }
}

fn kind(protocol: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let py = protocol.py();
    if reader::is_stock(protocol)? {
        return Ok(Kind::Reader);
    }
    if Tls::of(&protocol.into()).is_some() {
        return Ok(Kind::Tls);
    }
    let buffered = PROTOCOLS
        .get(py, pyo3::intern!(py, "BufferedProtocol"))?
        .cast_into::<PyType>()?;
    Ok(if protocol.is_instance(&buffered)? {
        Kind::Buffered
    } else {
        Kind::Plain
    })
}
