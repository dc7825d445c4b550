//! Making datagram endpoints: `create_datagram_endpoint`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::net::SocketType;

use super::datagram::DatagramTransport;
use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::protocol::DatagramProtocol;
use crate::driver::SocketAddress;
use crate::sys;

impl BaseEventLoop {
    /// Makes an endpoint of datagrams, UDP or Unix as its addresses are: `local` is its own name, `remote` the only one
    /// that it sends to and receives from. One of them must be there, for a socket has a family.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` without an address; [`Error::Closed`].
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::net::SocketAddr;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{
    ///     DatagramProtocol, DatagramTransport, Error, SelectorEventLoop, SocketAddress, get_running_loop,
    /// };
    /// /// Answers datagrams, or stops at the first.
    /// struct Ping { answers: bool }
    /// impl DatagramProtocol for Ping {
    ///     fn datagram_received(&self, transport: &DatagramTransport, data: &[u8], from: &SocketAddress) {
    ///         if self.answers {
    ///             transport.sendto(data, Some(from)).expect("it is not connected");
    ///         } else {
    ///             assert_eq!(data, b"ping");
    ///             transport.event_loop().stop();
    ///         }
    ///     }
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let event_loop = get_running_loop()?;
    ///     let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ///     let (server, _) = event_loop
    ///         .create_datagram_endpoint(|| Rc::new(Ping { answers: true }), Some(any.into()), None)
    ///         .await?;
    ///     let (client, _) = event_loop
    ///         .create_datagram_endpoint(|| Rc::new(Ping { answers: false }), None, server.local_address())
    ///         .await?;
    ///     client.sendto(b"ping", None)
    /// })??;
    /// event_loop.run_forever()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn create_datagram_endpoint<P: DatagramProtocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        local: Option<SocketAddress>,
        remote: Option<SocketAddress>,
    ) -> Result<(DatagramTransport, Rc<P>), Error> {
        let Some(address) = local.as_ref().or(remote.as_ref()) else {
            return Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        };
        let socket = sys::socket(address, SocketType::DGRAM)?;
        if let Some(local) = &local {
            sys::bind(&socket, local)?;
        }
        if let Some(remote) = &remote
            && !sys::connect_socket(&socket, remote)?
        {
            self.wait_connected(socket.as_raw_fd()).await?;
        }
        self.create_datagram_endpoint_with_sock(factory, socket).await
    }

    /// Makes an endpoint of a datagram socket that has its name and options already. It becomes non-blocking and the
    /// transport's.
    ///
    /// # Errors
    /// The kernel's; [`Error::Closed`].
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{
    ///     DatagramProtocol, DatagramTransport, Error, SelectorEventLoop, SocketAddress, get_running_loop,
    /// };
    /// struct Silent;
    /// impl DatagramProtocol for Silent {
    ///     fn datagram_received(&self, _: &DatagramTransport, _: &[u8], _: &SocketAddress) {}
    /// }
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let own = socket.local_addr()?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let making = get_running_loop()?;
    ///     let (endpoint, _) = making.create_datagram_endpoint_with_sock(|| Rc::new(Silent), socket).await?;
    ///     assert_eq!(endpoint.local_address(), Some(own.into()));
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn create_datagram_endpoint_with_sock<P: DatagramProtocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        sock: impl Into<OwnedFd>,
    ) -> Result<(DatagramTransport, Rc<P>), Error> {
        let socket = sock.into();
        rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
        let protocol = factory();
        let transport = DatagramTransport::open(self, socket, protocol.clone())?;
        self.wait_begun(|| transport.close()).await?;
        Ok((transport, protocol))
    }
}
