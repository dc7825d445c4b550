//! Feeding an `asyncio.StreamReader` without a Python frame.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyNotImplementedError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyWeakrefMethods, PyWeakrefReference};

use crate::ffi::{self, Object};
use crate::modules::own_method;

/// asyncio's stream classes, and the functions whose place the native way takes.
#[derive(Debug)]
struct Stock {
    protocol: Object,
    reader: Object,
    /// The methods as asyncio defines them, in the order of [`METHODS`].
    methods: Vec<Object>,
    /// The property by which a protocol has its reader.
    property: Object,
    /// The version of the protocol's class at which that property was in its place; 0 before.
    checked: AtomicU32,
}

impl Stock {
    /// The reader of a protocol: as its property has it, without a Python frame where nobody has put another in its
    /// place. Nothing if the reader is gone.
    fn reader_of<'py>(&self, protocol: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = protocol.py();
        if !self.has_property(py) {
            return protocol.getattr(pyo3::intern!(py, "_stream_reader")).map(Some);
        }
        let reference = protocol.getattr(pyo3::intern!(py, "_stream_reader_wr"))?;
        match reference.cast_exact::<PyWeakrefReference>() {
            Ok(reference) => Ok(reference.upgrade()),
            Err(_) => protocol.getattr(pyo3::intern!(py, "_stream_reader")).map(Some),
        }
    }

    #[inline]
    fn has_property(&self, py: Python<'_>) -> bool {
        let version = ffi::version_of(&self.protocol).map_or(0, NonZeroU32::get);
        (version != 0 && version == self.checked.load(Ordering::Relaxed)) || self.check_property(py)
    }

    #[cold]
    fn check_property(&self, py: Python<'_>) -> bool {
        let found = self
            .protocol
            .bind(py)
            .getattr(pyo3::intern!(py, "_stream_reader"));
        let original = found.is_ok_and(|found| self.property.is(&found));
        let version = ffi::version_of(&self.protocol).filter(|_| original);
        self.checked
            .store(version.map_or(0, NonZeroU32::get), Ordering::Relaxed);
        original
    }
}

/// What must be unpatched for the native way: the owner (whether it is the reader) and the name.
const METHODS: [(bool, &str); 3] = [
    (false, "data_received"),
    (true, "feed_data"),
    (true, "_wakeup_waiter"),
];

static STOCK: OnceLock<Option<Stock>> = OnceLock::new();

/// Looks asyncio's stream classes up.
fn stock(py: Python<'_>) -> Option<&'static Stock> {
    STOCK.get_or_init(|| find(py).ok()).as_ref()
}

fn find(py: Python<'_>) -> PyResult<Stock> {
    let streams = py.import("asyncio.streams")?;
    let (protocol, reader) = (
        streams.getattr("StreamReaderProtocol")?,
        streams.getattr("StreamReader")?,
    );
    let methods = METHODS
        .iter()
        .map(|&(of_reader, name)| own_method(if of_reader { &reader } else { &protocol }, name))
        .collect::<PyResult<_>>()?;
    Ok(Stock {
        property: protocol.getattr("_stream_reader")?.into(),
        protocol: protocol.into(),
        reader: reader.into(),
        methods,
        checked: AtomicU32::new(0),
    })
}

/// Whether a protocol is exactly asyncio's, over exactly asyncio's reader, and nobody has patched either class.
///
/// # Errors
/// What reading the protocol's attributes raises.
pub(super) fn is_stock(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    let Some(stock) = stock(py) else { return Ok(false) };
    if !ffi::same_type(&protocol.into(), &stock.protocol) {
        return Ok(false);
    }
    for (&(of_reader, name), original) in METHODS.iter().zip(&stock.methods) {
        let class = if of_reader { &stock.reader } else { &stock.protocol };
        if !original.is(&class.bind(py).getattr(name)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A stream reader that takes received bytes natively.
pub(super) struct Feeding<'py> {
    reader: Bound<'py, PyAny>,
    /// What it has not given out yet. Received bytes are appended, then [`Self::fed`] is called.
    pub(super) buffer: Bound<'py, PyByteArray>,
}

impl<'py> Feeding<'py> {
    /// The reader of a protocol that [`is_stock`]; nothing if it is gone, subclassed or patched, at its end, or its
    /// buffer is no `bytearray`: then the protocol's `data_received` has to be called.
    ///
    /// # Errors
    /// What reading the attributes raises.
    pub(super) fn of(protocol: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        let py = protocol.py();
        let Some(stock) = stock(py) else { return Ok(None) };
        let Some(reader) = stock.reader_of(protocol)? else {
            return Ok(None);
        };
        if !ffi::same_type(&(&reader).into(), &stock.reader) {
            return Ok(None);
        }
        let buffer = reader.getattr(pyo3::intern!(py, "_buffer"))?;
        let Ok(buffer) = buffer.cast_into_exact::<PyByteArray>() else {
            return Ok(None);
        };
        if !is_unpatched(protocol, &reader, stock)?
            || reader.getattr(pyo3::intern!(py, "_eof"))?.is_truthy()?
        {
            return Ok(None);
        }
        Ok(Some(Self { reader, buffer }))
    }

    /// Bytes were appended to the buffer: does the rest of what `feed_data` does.
    ///
    /// # Errors
    /// What asyncio's own code raises: a future's callbacks, a transport that cannot pause.
    pub(super) fn fed(self) -> PyResult<()> {
        wake(&self.reader)?;
        pause_if_full(&self.reader, self.buffer.len())
    }
}

/// Whether nobody has put methods of his own into the place of those that are done natively here.
fn is_unpatched(protocol: &Bound<'_, PyAny>, reader: &Bound<'_, PyAny>, stock: &Stock) -> PyResult<bool> {
    let py = protocol.py();
    let names = [
        pyo3::intern!(py, "data_received"),
        pyo3::intern!(py, "feed_data"),
        pyo3::intern!(py, "_wakeup_waiter"),
    ];
    for ((name, owner), original) in names.iter().zip([protocol, reader, reader]).zip(&stock.methods) {
        if !ffi::is_method_of(&owner.getattr(*name)?, original) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Wakes who waits for the reader.
fn wake(reader: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = reader.py();
    let waiter = reader.getattr(pyo3::intern!(py, "_waiter"))?;
    if waiter.is_none() {
        return Ok(());
    }
    reader.setattr(pyo3::intern!(py, "_waiter"), py.None())?;
    if !ffi::call_method(&waiter, pyo3::intern!(py, "cancelled"), [])?.is_truthy()? {
        ffi::call_method(
            &waiter,
            pyo3::intern!(py, "set_result"),
            [&py.None().into_bound(py)],
        )?;
    }
    Ok(())
}

/// Pauses the transport when the reader holds more than twice its limit.
fn pause_if_full(reader: &Bound<'_, PyAny>, held: usize) -> PyResult<()> {
    let py = reader.py();
    let limit = reader.getattr(pyo3::intern!(py, "_limit"))?;
    let is_below = match limit.extract::<usize>() {
        Ok(limit) => held <= limit.saturating_mul(2),
        Err(_) => held as f64 <= 2.0 * limit.extract::<f64>()?,
    };
    if is_below || reader.getattr(pyo3::intern!(py, "_paused"))?.is_truthy()? {
        return Ok(());
    }
    let transport = reader.getattr(pyo3::intern!(py, "_transport"))?;
    if transport.is_none() {
        return Ok(());
    }
    match transport.call_method0(pyo3::intern!(py, "pause_reading")) {
        // It cannot be paused: all that comes in is kept.
        Err(error) if error.is_instance_of::<PyNotImplementedError>(py) => {
            reader.setattr(pyo3::intern!(py, "_transport"), py.None())
        }
        paused => {
            paused?;
            reader.setattr(pyo3::intern!(py, "_paused"), true)
        }
    }
}
