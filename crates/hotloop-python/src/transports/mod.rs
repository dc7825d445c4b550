//! Transports: Python objects over the engine's streams and datagram endpoints.

mod datagram;
mod link;
mod methods;
mod pipe;
mod protocol;
mod reader;
mod stream;

use hotloop::{DatagramEvent, StreamEvent};
use pyo3::prelude::*;

use self::datagram::DatagramTransport;
pub(crate) use self::datagram::open_datagrams;
use self::pipe::{ReadPipeTransport, WritePipeTransport};
pub(crate) use self::pipe::{open_read_pipe, open_write_pipe};
pub(crate) use self::protocol::{Kind, Protocol};
pub(crate) use self::stream::{SocketKind, SocketTransport, accepted, as_tuple, connecting, open_stream};
use crate::event_loop::Loop;
use crate::ffi::{Instance, Object, This};

/// The most that one read takes, in bytes: asyncio's `max_size`, so a protocol sees pieces of the sizes it is used to.
pub(crate) const MAX_SIZE: usize = 256 * 1024;

/// After so many writes to a lost connection each further one is logged (asyncio's
/// `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOG_THRESHOLD: u32 = 5;

/// A transport as the engine keeps it.
#[derive(Clone)]
pub(crate) enum Transport {
    Socket(Instance<SocketTransport>),
    ReadPipe(Instance<ReadPipeTransport>),
    WritePipe(Instance<WritePipeTransport>),
    Datagram(Instance<DatagramTransport>),
}

impl Transport {
    /// The Python object.
    pub(crate) fn object(&self) -> &Object {
        match self {
            Self::Socket(transport) => transport.object(),
            Self::ReadPipe(transport) => transport.object(),
            Self::WritePipe(transport) => transport.object(),
            Self::Datagram(transport) => transport.object(),
        }
    }

    /// Runs the news of its stream.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
    #[inline]
    pub(crate) fn on_event(&self, event_loop: This<'_, '_, Loop>, news: StreamEvent) -> PyResult<()> {
        let py = event_loop.py();
        match self {
            Self::Socket(transport) => transport.with(py, |this| link::on_event(this, event_loop, news)),
            Self::ReadPipe(transport) => transport.with(py, |this| link::on_event(this, event_loop, news)),
            Self::WritePipe(transport) => transport.with(py, |this| link::on_event(this, event_loop, news)),
            // It has no stream.
            Self::Datagram(_) => Ok(()),
        }
    }

    /// Runs the news of its datagram endpoint.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
    #[inline]
    pub(crate) fn on_datagram(&self, event_loop: This<'_, '_, Loop>, news: DatagramEvent) -> PyResult<()> {
        match self {
            Self::Datagram(transport) => {
                transport.with(event_loop.py(), |this| link::on_event(this, event_loop, news))
            }
            Self::Socket(_) | Self::ReadPipe(_) | Self::WritePipe(_) => Ok(()),
        }
    }
}

/// Notes in a loop whose a descriptor is; answers whether the object is a native transport of a socket.
pub(crate) fn register(event_loop: This<'_, '_, Loop>, fd: u32, transport: &Object) -> bool {
    let py = event_loop.py();
    if let Some(transport) = SocketTransport::of(transport) {
        transport.with(py, |this| this.register(event_loop, fd));
    } else if let Some(transport) = DatagramTransport::of(transport) {
        transport.with(py, |this| this.register(event_loop, fd));
    } else {
        return false;
    }
    true
}

/// Makes the classes and adds them to the module.
///
/// # Errors
/// What CPython raises if a class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    stream::add_to(module)?;
    pipe::add_to(module)?;
    datagram::add_to(module)
}
