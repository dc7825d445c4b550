//! Connecting: `create_connection` and its kin.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::happy_eyeballs::HappyEyeballs;
use super::protocol::Protocol;
use super::stream::{Medium, Stream};
use super::transport::Transport;
use crate::driver::SocketAddress;

impl BaseEventLoop {
    /// Connects to a host and port, trying its addresses in their order, and begins with the protocol that `factory`
    /// makes.
    ///
    /// # Errors
    /// The resolver's; the kernel's, as of [`create_connection_to`](Self::create_connection_to); [`Error::Closed`].
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let event_loop = get_running_loop()?;
    ///     let server = event_loop.create_server(|| Rc::new(Silent), "127.0.0.1", 0).await?;
    ///     let port = server.addresses()[0].port();
    ///     let (transport, _) = event_loop.create_connection(|| Rc::new(Silent), "127.0.0.1", port).await?;
    ///     transport.close();
    ///     server.close();
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn create_connection<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        host: &str,
        port: u16,
    ) -> Result<(Transport, Rc<P>), Error> {
        let how = HappyEyeballs::ONE_BY_ONE;
        self.create_connection_with_happy_eyeballs(factory, host, port, how)
            .await
    }

    /// Connects to a Unix socket by its path; an abstract one begins with a zero byte.
    ///
    /// # Errors
    /// The kernel's; [`Error::Closed`].
    ///
    /// ```no_run
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     get_running_loop()?.create_unix_connection(|| Rc::new(Silent), "/run/service").await
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn create_unix_connection<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        path: impl AsRef<Path>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let socket = self.connect(&path.as_ref().into()).await?;
        self.begin(socket, Medium::Socket, factory).await
    }

    /// Begins with a stream socket that is connected already. It becomes non-blocking and the transport's; see
    /// [`Transport`] for an example.
    ///
    /// # Errors
    /// The kernel's; [`Error::Closed`].
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (near, far) = UnixStream::pair()?;
    /// event_loop.run_until_complete(async move {
    ///     let connecting = get_running_loop()?;
    ///     let (transport, _) = connecting.create_connection_with_sock(|| Rc::new(Silent), near).await?;
    ///     transport.write(b"hello")?;
    ///     transport.close();
    ///     connecting.create_task(async {})?.await
    /// })??;
    /// assert_eq!(std::io::read_to_string(far)?, "hello");
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn create_connection_with_sock<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        sock: impl Into<OwnedFd>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let socket = sock.into();
        rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
        self.begin(socket, Medium::Socket, factory).await
    }

    /// Opens a transport. By the time this is done its protocol has been told of it, as with asyncio.
    pub(crate) async fn begin<P: Protocol + 'static>(
        &self,
        socket: OwnedFd,
        medium: Medium,
        factory: impl FnOnce() -> Rc<P>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let protocol = factory();
        let stream = Stream::open(self, socket, medium, protocol.clone(), None)?;
        self.wait_begun(|| stream.close()).await?;
        Ok((stream.into(), protocol))
    }

    /// A new socket, connected to an address. Given up, it is closed.
    pub(crate) async fn connect(&self, address: &SocketAddress) -> Result<OwnedFd, Error> {
        let (socket, connected) = self.with_engine(|engine| engine.driver_mut().connect(address))??;
        if connected {
            return Ok(socket);
        }
        let fd = socket.as_raw_fd();
        let decided = self.create_future();
        let decide = decided.clone();
        let attempt = Attempt {
            event_loop: self,
            socket: Some(socket),
        };
        self.add_writer(fd, move || drop(decide.set_result(())))?;
        decided.await?;
        match self.with_engine(|engine| engine.driver_mut().take_error(fd))?? {
            None => attempt.succeed(),
            Some(error) => Err(error.into()),
        }
    }
}

/// A connection that is not there yet. Dropped, also where its task is cancelled, it is given up.
struct Attempt<'a> {
    event_loop: &'a BaseEventLoop,
    /// None once it has succeeded.
    socket: Option<OwnedFd>,
}

impl Attempt<'_> {
    fn succeed(mut self) -> Result<OwnedFd, Error> {
        let socket = self.socket.take().ok_or(Error::InvalidState)?;
        self.event_loop.remove_writer(socket.as_raw_fd());
        Ok(socket)
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.event_loop.remove_writer(socket.as_raw_fd());
            self.event_loop.let_go(socket);
        }
    }
}
