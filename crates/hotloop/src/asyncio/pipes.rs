//! Pipes and what else is read or written like a file.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::protocol::Protocol;
use super::stream::{Medium, Stream};
use super::transport::Transport;
use crate::driver::{self, PipeKind};

impl BaseEventLoop {
    /// Reads a pipe, a socket or a character device by a protocol. It becomes non-blocking and the transport's. Its end
    /// is `eof_received` and then `connection_lost`.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for what is neither of these; [`Error::Closed`].
    ///
    /// ```
    /// use std::io::Write;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Printing;
    /// impl Protocol for Printing {
    ///     fn data_received(&self, transport: &Transport, data: &[u8]) {
    ///         assert_eq!(data, b"hello");
    ///         transport.event_loop().stop();
    ///     }
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// event_loop.run_until_complete(async move {
    ///     get_running_loop()?.connect_read_pipe(|| Rc::new(Printing), reader).await
    /// })??;
    /// writer.write_all(b"hello")?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn connect_read_pipe<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        pipe: impl Into<OwnedFd>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let pipe = pipe.into();
        let medium = Medium::ReadPipe(prepared(&pipe)?);
        self.begin(pipe, medium, factory).await
    }

    /// Writes to a pipe, a socket or a character device by a protocol. It becomes non-blocking and the transport's.
    /// `connection_lost` also follows when nobody reads a pipe or a socket any more.
    ///
    /// # Errors
    /// As of [`connect_read_pipe`](Self::connect_read_pipe).
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (reader, writer) = std::io::pipe()?;
    /// event_loop.run_until_complete(async move {
    ///     let (pipe, _) = get_running_loop()?.connect_write_pipe(|| Rc::new(Silent), writer).await?;
    ///     pipe.write(b"hello")?;
    ///     pipe.close();
    ///     get_running_loop()?.create_task(async {})?.await
    /// })??;
    /// assert_eq!(std::io::read_to_string(reader)?, "hello");
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn connect_write_pipe<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        pipe: impl Into<OwnedFd>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let pipe = pipe.into();
        let medium = Medium::WritePipe(prepared(&pipe)?);
        self.begin(pipe, medium, factory).await
    }

    /// Opens the transport of a pipe; its protocol is told on the next turn.
    pub(crate) fn open_pipe(
        &self,
        pipe: OwnedFd,
        is_read: bool,
        protocol: Rc<dyn Protocol>,
    ) -> Result<Transport, Error> {
        let kind = prepared(&pipe)?;
        let medium = if is_read {
            Medium::ReadPipe(kind)
        } else {
            Medium::WritePipe(kind)
        };
        Ok(Stream::open(self, pipe, medium, protocol, None)?.into())
    }
}

/// What a descriptor is, if it can be waited for; it is non-blocking from now on.
fn prepared(pipe: &OwnedFd) -> io::Result<PipeKind> {
    driver::prepare_pipe(pipe.as_raw_fd())?.ok_or_else(|| {
        let refused = "Pipe transport is for pipes, sockets and character devices only";
        io::Error::new(io::ErrorKind::InvalidInput, refused)
    })
}
