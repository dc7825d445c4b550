//! What kind of protocol a transport feeds.

use std::mem::MaybeUninit;

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::reader::{self, Feeding};
use crate::ffi::{self, Object};
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

    /// The reader that is fed natively, if it has one.
    ///
    /// # Errors
    /// What reading its attributes raises.
    #[inline]
    pub(super) fn feeding<'py>(&self, py: Python<'py>) -> PyResult<Option<Feeding<'py>>> {
        match self.kind {
            Kind::Reader => Feeding::of(&self.object.bind(py)),
            _ => Ok(None),
        }
    }

    /// Feeds its reader natively, if it has one. Answers whether that was possible.
    ///
    /// # Errors
    /// As of [`Feeding`]; `BufferError` if somebody holds a view of the reader's buffer.
    #[inline]
    pub(crate) fn feed(&self, py: Python<'_>, data: &[MaybeUninit<u8>]) -> PyResult<bool> {
        let Some(feeding) = self.feeding(py)? else {
            return Ok(false);
        };
        ffi::append(&feeding.buffer, data)?;
        feeding.fed()?;
        Ok(true)
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
