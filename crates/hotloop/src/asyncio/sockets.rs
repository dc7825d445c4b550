//! `sock_*`: sockets without a transport.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::sendfile::send_blocks;
use crate::driver::{self, Address, Direction, Outgoing, SocketAddress};
use crate::sys;

/// These borrow a socket that must be non-blocking; in debug mode one that blocks is refused. While one of them waits,
/// another on the same socket in the same direction takes its place, as with asyncio.
impl BaseEventLoop {
    /// Receives at most `size` bytes; none are the end of the stream.
    ///
    /// # Errors
    /// The socket's; [`Error::UsedByTransport`]; [`Error::Closed`].
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use hotloop::asyncio::{SelectorEventLoop, get_running_loop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (near, far) = UnixStream::pair()?;
    /// near.set_nonblocking(true)?;
    /// far.set_nonblocking(true)?;
    /// let received = event_loop.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     event_loop.sock_sendall(&near, b"hello").await?;
    ///     event_loop.sock_recv(&far, 100).await
    /// })??;
    /// assert_eq!(received, b"hello");
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_recv(&self, sock: &impl AsFd, size: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; size];
        let count = self.sock_recv_into(sock, &mut buffer).await?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Receives into a buffer, and answers how many bytes; 0 is the end of the stream.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv).
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// let (near, far) = UnixStream::pair()?;
    /// near.set_nonblocking(true)?;
    /// far.set_nonblocking(true)?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     event_loop.sock_sendall(&near, b"hello").await?;
    ///     let mut buffer = [0; 16];
    ///     let count = event_loop.sock_recv_into(&far, &mut buffer).await?;
    ///     assert_eq!(&buffer[..count], b"hello");
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_recv_into(&self, sock: &impl AsFd, buffer: &mut [u8]) -> Result<usize, Error> {
        self.try_socket(sock, Direction::Read, |fd| {
            sys::fill(buffer, |buffer| sys::receive(fd, buffer))
        })
        .await
    }

    /// Receives one datagram of at most `size` bytes, and who sent it. The rest of a longer one is lost.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv).
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use hotloop::asyncio::{SelectorEventLoop, get_running_loop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.set_nonblocking(true)?;
    /// other.set_nonblocking(true)?;
    /// let (received, from) = event_loop.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     event_loop.sock_sendto(&one, b"hello", &other.local_addr()?.into()).await?;
    ///     let (received, from) = event_loop.sock_recvfrom(&other, 100).await?;
    ///     Ok::<_, hotloop::asyncio::Error>((received, from == one.local_addr()?.into()))
    /// })??;
    /// assert_eq!((received.as_slice(), from), (b"hello".as_slice(), true));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_recvfrom(
        &self,
        sock: &impl AsFd,
        size: usize,
    ) -> Result<(Vec<u8>, SocketAddress), Error> {
        let mut buffer = vec![0; size];
        let (count, from) = self.sock_recvfrom_into(sock, &mut buffer).await?;
        buffer.truncate(count);
        Ok((buffer, from))
    }

    /// As [`sock_recvfrom`](Self::sock_recvfrom), into a buffer. Answers how many bytes that were, and who sent them.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv).
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.set_nonblocking(true)?;
    /// other.set_nonblocking(true)?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     let sent = event_loop.sock_sendto(&one, b"ping", &other.local_addr()?.into()).await?;
    ///     let mut buffer = [0; 16];
    ///     let (count, from) = event_loop.sock_recvfrom_into(&other, &mut buffer).await?;
    ///     assert_eq!((count, from), (sent, one.local_addr()?.into()));
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_recvfrom_into(
        &self,
        sock: &impl AsFd,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddress), Error> {
        let received = self.try_socket(sock, Direction::Read, |fd| {
            sys::fill(buffer, |buffer| sys::receive_from(fd, buffer))
        });
        let (count, from) = received.await?;
        Ok((count, SocketAddress::from(&from)))
    }

    /// Sends all of the bytes.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv): how many bytes were sent before is not known then.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// let (near, far) = UnixStream::pair()?;
    /// near.set_nonblocking(true)?;
    /// far.set_nonblocking(true)?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     event_loop.sock_sendall(&near, b"hello").await?;
    ///     assert_eq!(event_loop.sock_recv(&far, 16).await?, b"hello");
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_sendall(&self, sock: &impl AsFd, data: &[u8]) -> Result<(), Error> {
        let mut rest = data;
        loop {
            let send = |fd| sys::send(fd, &[io::IoSlice::new(rest)]);
            let sent = self.try_socket(sock, Direction::Write, send).await?;
            rest = rest.get(sent..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends one datagram, and answers how many bytes it has.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv); `InvalidInput` for what is no address.
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.set_nonblocking(true)?;
    /// other.set_nonblocking(true)?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     let sent = event_loop.sock_sendto(&one, b"ping", &other.local_addr()?.into()).await?;
    ///     assert_eq!(sent, 4);
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_sendto(
        &self,
        sock: &impl AsFd,
        data: &[u8],
        to: &SocketAddress,
    ) -> Result<usize, Error> {
        let to = Address::try_from(to)?;
        self.try_socket(sock, Direction::Write, |fd| {
            let datagram = Outgoing {
                bytes: data,
                to: Some(&to),
            };
            sys::send_datagrams(fd, &[datagram])
        })
        .await?;
        Ok(data.len())
    }

    /// Sends bytes of a file from `offset` on, `count` of them or all up to its end, without reading them into this
    /// process. Answers how many that were. The file's position is behind them then; given up, it stays.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv), with the position behind what was sent before; `InvalidInput` for what is
    /// no file that the kernel sends so.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::os::unix::net::UnixStream;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, get_running_loop};
    /// let (near, far) = UnixStream::pair()?;
    /// near.set_nonblocking(true)?;
    /// let text = std::fs::read_to_string("Cargo.toml")?;
    /// let sent = SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let file = File::open("Cargo.toml")?;
    ///     get_running_loop()?.sock_sendfile(&near, &file, 1, None).await
    /// })??;
    /// assert_eq!(sent, text.len() as u64 - 1);
    /// assert_eq!(std::io::read_to_string(far)?, text[1..]);
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn sock_sendfile(
        &self,
        sock: &impl AsFd,
        file: &File,
        offset: u64,
        count: Option<u64>,
    ) -> Result<u64, Error> {
        send_blocks(file, offset, count, async |from, block| {
            let send = |fd| sys::send_file(fd, file.as_raw_fd(), from, block);
            self.try_socket(sock, Direction::Write, send).await
        })
        .await
    }

    /// Accepts a connection: non-blocking, close-on-exec. Answers it and who connected.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv).
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use hotloop::asyncio::{SelectorEventLoop, get_running_loop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let client = TcpStream::connect(listener.local_addr()?)?;
    /// let (_connection, peer) = event_loop
    ///     .run_until_complete(async move { get_running_loop()?.sock_accept(&listener).await })??;
    /// assert_eq!(peer, client.local_addr()?.into());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_accept(&self, sock: &impl AsFd) -> Result<(OwnedFd, SocketAddress), Error> {
        let accepted = self.try_socket(sock, Direction::Read, sys::accept).await?;
        Ok((accepted.fd, accepted.peer))
    }

    /// Connects a socket.
    ///
    /// # Errors
    /// As of [`sock_recv`](Self::sock_recv).
    ///
    /// ```
    /// use std::net::UdpSocket;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, SocketAddress, get_running_loop};
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.set_nonblocking(true)?;
    /// let to = SocketAddress::from(other.local_addr()?);
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     event_loop.sock_connect(&one, &to).await?;
    ///     assert_eq!(one.peer_addr()?, other.local_addr()?);
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn sock_connect(&self, sock: &impl AsFd, to: &SocketAddress) -> Result<(), Error> {
        let fd = sock.as_fd().as_raw_fd();
        self.check_socket(fd)?;
        if sys::connect_socket(sock, to)? {
            return Ok(());
        }
        self.wait_connected(fd).await
    }

    /// Waits for the end of an attempt to connect.
    pub(crate) async fn wait_connected(&self, fd: RawFd) -> Result<(), Error> {
        self.wait_ready(fd, Direction::Write).await?;
        match driver::take_error(fd)? {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Does something to a socket that may have to wait.
    async fn try_socket<T>(
        &self,
        sock: &impl AsFd,
        direction: Direction,
        mut act: impl FnMut(RawFd) -> io::Result<T>,
    ) -> Result<T, Error> {
        let fd = sock.as_fd().as_raw_fd();
        self.check_socket(fd)?;
        loop {
            match act(fd) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_ready(fd, direction).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Ok(done?),
            }
        }
    }

    fn check_socket(&self, fd: RawFd) -> Result<(), Error> {
        self.check_no_transport(fd)?;
        if self.get_debug() && !sys::is_nonblocking(fd)? {
            let blocks = "the socket must be non-blocking";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, blocks).into());
        }
        Ok(())
    }
}
