//! What a program writes its connections through.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::protocol::Protocol;
use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::driver::SocketAddress;
use crate::transport::InvalidLimits;

/// A connection, or one end of a pipe. Clones are the same one.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
///
/// struct Greeting;
/// impl Protocol for Greeting {
///     fn connection_made(&self, transport: &Transport) {
///         transport.write(b"hello").expect("write_eof was not called");
///         transport.close();
///     }
///     fn data_received(&self, _: &Transport, _: &[u8]) {}
/// }
///
/// let event_loop = SelectorEventLoop::new()?;
/// let (near, far) = UnixStream::pair()?;
/// event_loop.run_until_complete(async move {
///     let (transport, _) = get_running_loop()?
///         .create_connection_with_sock(|| Rc::new(Greeting), near)
///         .await?;
///     assert!(transport.is_closing());
///     Ok::<_, hotloop::asyncio::Error>(())
/// })??;
/// assert_eq!(std::io::read_to_string(far)?, "hello");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct Transport(Kind);

#[derive(Clone)]
enum Kind {
    Stream(Stream),
    #[cfg(feature = "tls")]
    Tls(Rc<Tls>),
}

/// Does the same with whichever kind it is.
macro_rules! on_any {
    ($transport:expr, $kind:ident => $call:expr) => {
        match &$transport.0 {
            Kind::Stream($kind) => $call,
            #[cfg(feature = "tls")]
            Kind::Tls($kind) => $call,
        }
    };
}

impl Transport {
    /// Sends bytes: at once as far as the kernel takes them, or later. What is written to a lost connection is dropped,
    /// as with asyncio.
    ///
    /// # Errors
    /// [`Error::EndWritten`] after [`write_eof`](Self::write_eof); `Unsupported` at the reading end of a pipe.
    pub fn write(&self, data: &[u8]) -> Result<(), Error> {
        on_any!(self, transport => transport.write(data))
    }

    /// Ends the sending half behind what was written. The peer's half stays open; a pipe has none and is closed.
    pub fn write_eof(&self) {
        on_any!(self, transport => transport.write_eof());
    }

    /// Closes the connection behind what was written; nothing more is received. `connection_lost` follows.
    pub fn close(&self) {
        on_any!(self, transport => transport.close());
    }

    /// Closes the connection at once. What waits to be sent is dropped. `connection_lost` follows.
    pub fn abort(&self) {
        on_any!(self, transport => transport.abort());
    }

    /// Whether it is closing or closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        on_any!(self, transport => transport.is_closing())
    }

    /// Receives no more until [`resume_reading`](Self::resume_reading).
    pub fn pause_reading(&self) {
        on_any!(self, transport => transport.pause_reading());
    }

    /// Receives again.
    pub fn resume_reading(&self) {
        on_any!(self, transport => transport.resume_reading());
    }

    /// Whether it receives.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        on_any!(self, transport => transport.is_reading())
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn get_write_buffer_size(&self) -> usize {
        on_any!(self, transport => transport.get_write_buffer_size())
    }

    /// Sets the marks of flow control, in bytes.
    ///
    /// # Errors
    /// If `high` is below `low`; nothing changes then.
    pub fn set_write_buffer_limits(
        &self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), InvalidLimits> {
        on_any!(self, transport => transport.set_write_buffer_limits(high, low))
    }

    /// The marks of flow control: low, then high, in bytes.
    #[must_use]
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        on_any!(self, transport => transport.get_write_buffer_limits())
    }

    /// Who is at the other end, if the kernel told.
    #[must_use]
    pub fn peer(&self) -> Option<&SocketAddress> {
        on_any!(self, transport => transport.peer())
    }

    /// The descriptor; `None` after `connection_lost`. It stays the transport's.
    #[must_use]
    pub fn fileno(&self) -> Option<RawFd> {
        on_any!(self, transport => transport.fileno())
    }

    /// Gives it another protocol.
    pub fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        on_any!(self, transport => transport.set_protocol(protocol));
    }

    /// Its loop.
    #[must_use]
    pub fn event_loop(&self) -> &BaseEventLoop {
        on_any!(self, transport => transport.event_loop())
    }

    /// Ends it at once by an error, which the protocol is told.
    #[cfg_attr(
        not(feature = "tls"),
        expect(dead_code, reason = "only TLS ends what it stands on")
    )]
    pub(crate) fn fail(&self, error: io::Error) {
        on_any!(self, transport => transport.fail(error));
    }

    /// The TLS of the connection, if it has one.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Stream(_) => None,
            Kind::Tls(tls) => Some(tls),
        }
    }
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Self(Kind::Stream(stream))
    }
}

#[cfg(feature = "tls")]
impl From<Rc<Tls>> for Transport {
    fn from(tls: Rc<Tls>) -> Self {
        Self(Kind::Tls(tls))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transport")
            .field("fd", &self.fileno())
            .field("closing", &self.is_closing())
            .finish()
    }
}
