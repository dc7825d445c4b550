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
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Transport};
    /// fn greet(transport: &Transport) -> Result<(), Error> {
    ///     transport.write(b"hel")?;
    ///     transport.write(b"lo")
    /// }
    /// ```
    pub fn write(&self, data: &[u8]) -> Result<(), Error> {
        on_any!(self, transport => transport.write(data))
    }

    /// Sends several buffers as one. They are taken over, not copied: where they are long, that costs less than to put
    /// them into one.
    ///
    /// # Errors
    /// As of [`write`](Self::write); nothing is sent then.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Transport};
    /// fn answer(transport: &Transport, body: Vec<u8>) -> Result<(), Error> {
    ///     let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    ///     transport.writelines([head.into_bytes(), body])
    /// }
    /// ```
    pub fn writelines(&self, lines: impl IntoIterator<Item = Vec<u8>>) -> Result<(), Error> {
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        on_any!(self, transport => transport.writelines(lines))
    }

    /// Whether [`write_eof`](Self::write_eof) ends what is sent and leaves the other half open, or, of a pipe, closes it.
    /// Nothing but the reading end of a pipe says no.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Transport};
    /// fn say(transport: &Transport, all: &[u8]) -> Result<(), Error> {
    ///     transport.write(all)?;
    ///     if transport.can_write_eof() {
    ///         transport.write_eof();
    ///     }
    ///     Ok(())
    /// }
    /// ```
    #[must_use]
    pub fn can_write_eof(&self) -> bool {
        on_any!(self, transport => transport.can_write_eof())
    }

    /// Ends the sending half behind what was written. The peer's half stays open; a pipe has none and is closed.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Transport};
    /// fn ask(transport: &Transport) -> Result<(), Error> {
    ///     transport.write(b"a question")?;
    ///     transport.write_eof();
    ///     assert!(matches!(transport.write(b"and another"), Err(Error::EndWritten)));
    ///     Ok(())
    /// }
    /// ```
    pub fn write_eof(&self) {
        on_any!(self, transport => transport.write_eof());
    }

    /// Closes the connection behind what was written; nothing more is received. `connection_lost` follows.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Transport};
    /// fn dismiss(transport: &Transport) -> Result<(), Error> {
    ///     transport.write(b"goodbye")?;
    ///     transport.close();
    ///     Ok(())
    /// }
    /// ```
    pub fn close(&self) {
        on_any!(self, transport => transport.close());
    }

    /// Closes the connection at once. What waits to be sent is dropped. `connection_lost` follows.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn throw_out(transport: &Transport) {
    ///     transport.abort();
    ///     assert!(transport.is_closing());
    /// }
    /// ```
    pub fn abort(&self) {
        on_any!(self, transport => transport.abort());
    }

    /// Whether it is closing or closed.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn is_of_use(transport: &Transport) -> bool {
    ///     !transport.is_closing()
    /// }
    /// ```
    #[must_use]
    pub fn is_closing(&self) -> bool {
        on_any!(self, transport => transport.is_closing())
    }

    /// Receives no more until [`resume_reading`](Self::resume_reading).
    ///
    /// ```
    /// use hotloop::asyncio::{Protocol, Transport};
    /// /// Takes no more than it can give back.
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data_received(&self, transport: &Transport, data: &[u8]) {
    ///         transport.write(data).expect("write_eof was not called");
    ///     }
    ///     fn pause_writing(&self, transport: &Transport) {
    ///         transport.pause_reading();
    ///     }
    ///     fn resume_writing(&self, transport: &Transport) {
    ///         transport.resume_reading();
    ///     }
    /// }
    /// ```
    pub fn pause_reading(&self) {
        on_any!(self, transport => transport.pause_reading());
    }

    /// Receives again.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn go_on(transport: &Transport) {
    ///     transport.resume_reading();
    ///     assert!(transport.is_reading() || transport.is_closing());
    /// }
    /// ```
    pub fn resume_reading(&self) {
        on_any!(self, transport => transport.resume_reading());
    }

    /// Whether it receives.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn wait(transport: &Transport) {
    ///     if transport.is_reading() {
    ///         transport.pause_reading();
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn is_reading(&self) -> bool {
        on_any!(self, transport => transport.is_reading())
    }

    /// How many bytes wait to be sent.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn is_all_sent(transport: &Transport) -> bool {
    ///     transport.get_write_buffer_size() == 0
    /// }
    /// ```
    #[must_use]
    pub fn get_write_buffer_size(&self) -> usize {
        on_any!(self, transport => transport.get_write_buffer_size())
    }

    /// Sets the marks of flow control, in bytes.
    ///
    /// # Errors
    /// If `high` is below `low`; nothing changes then.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn keep_little(transport: &Transport) {
    ///     transport.set_write_buffer_limits(Some(4096), Some(0)).expect("high is above low");
    /// }
    /// ```
    pub fn set_write_buffer_limits(
        &self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), InvalidLimits> {
        on_any!(self, transport => transport.set_write_buffer_limits(high, low))
    }

    /// The marks of flow control: low, then high, in bytes.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn is_full(transport: &Transport) -> bool {
    ///     let (_low, high) = transport.get_write_buffer_limits();
    ///     transport.get_write_buffer_size() > high
    /// }
    /// ```
    #[must_use]
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        on_any!(self, transport => transport.get_write_buffer_limits())
    }

    /// Who is at the other end, if the kernel told.
    ///
    /// ```
    /// use hotloop::asyncio::{SocketAddress, Transport};
    /// fn is_near(transport: &Transport) -> bool {
    ///     match transport.peer() {
    ///         Some(SocketAddress::Internet(address)) => address.ip().is_loopback(),
    ///         Some(SocketAddress::Unix(_)) => true,
    ///         _ => false,
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn peer(&self) -> Option<&SocketAddress> {
        on_any!(self, transport => transport.peer())
    }

    /// The descriptor; `None` after `connection_lost`. It stays the transport's.
    ///
    /// ```
    /// use hotloop::asyncio::Transport;
    /// fn name(transport: &Transport) -> String {
    ///     transport.fileno().map_or("lost".to_owned(), |fd| format!("connection {fd}"))
    /// }
    /// ```
    #[must_use]
    pub fn fileno(&self) -> Option<RawFd> {
        on_any!(self, transport => transport.fileno())
    }

    /// Gives it another protocol.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Protocol, Transport};
    /// struct Body;
    /// impl Protocol for Body {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// struct Head;
    /// impl Protocol for Head {
    ///     fn data_received(&self, transport: &Transport, _: &[u8]) {
    ///         transport.set_protocol(Rc::new(Body));
    ///     }
    /// }
    /// ```
    pub fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        on_any!(self, transport => transport.set_protocol(protocol));
    }

    /// Its loop.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hotloop::asyncio::{Error, Transport};
    /// fn close_in_a_while(transport: &Transport) -> Result<(), Error> {
    ///     let closing = transport.clone();
    ///     transport.event_loop().call_later(Duration::from_secs(60), move || closing.close())?;
    ///     Ok(())
    /// }
    /// ```
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

    /// What it is where nothing is encrypted.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match &self.0 {
            Kind::Stream(stream) => Some(stream),
            #[cfg(feature = "tls")]
            Kind::Tls(_) => None,
        }
    }

    /// Waits until all that was written is the kernel's.
    pub(crate) async fn flushed(&self) -> Result<(), Error> {
        match &self.0 {
            Kind::Stream(stream) => stream.flushed().await,
            #[cfg(feature = "tls")]
            Kind::Tls(tls) => tls.flushed().await,
        }
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
