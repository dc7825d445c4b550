//! Datagram transports: endpoints with their protocols.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use rustix::net::SocketType;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::host::{Engine, Hosted};
use super::protocol::DatagramProtocol;
use super::running::RESOLUTION;
use crate::driver::{self, Address, Batch, SocketAddress};
use crate::streams::is_transient;
use crate::transport::{Close, Datagrams, InvalidLimits};
use crate::{DatagramEvent, EndpointKey, Flushed, sys};

/// What a queued datagram counts besides its bytes (asyncio's `_header_size`).
const OVERHEAD: usize = 8;

/// An endpoint of datagrams. Clones are the same one.
///
/// ```
/// use std::net::{SocketAddr, UdpSocket};
/// use std::rc::Rc;
/// use hotloop::asyncio::{
///     DatagramProtocol, DatagramTransport, Error, SelectorEventLoop, SocketAddress, get_running_loop,
/// };
/// struct Silent;
/// impl DatagramProtocol for Silent {
///     fn datagram_received(&self, _: &DatagramTransport, _: &[u8], _: &SocketAddress) {}
/// }
/// let other = UdpSocket::bind("127.0.0.1:0")?;
/// let to = other.local_addr()?;
/// SelectorEventLoop::new()?.run_until_complete(async move {
///     let any = SocketAddr::from(([127, 0, 0, 1], 0));
///     let making = get_running_loop()?;
///     let (endpoint, _) = making.create_datagram_endpoint(|| Rc::new(Silent), Some(any.into()), None).await?;
///     endpoint.sendto(b"ping", Some(&to.into()))?;
///     endpoint.close();
///     Ok::<_, Error>(())
/// })??;
/// let mut buffer = [0; 16];
/// let (count, _) = other.recv_from(&mut buffer)?;
/// assert_eq!(&buffer[..count], b"ping");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct DatagramTransport(Rc<State>);

struct State {
    event_loop: BaseEventLoop,
    /// None after `connection_lost`.
    key: Cell<Option<EndpointKey>>,
    /// Closed after `connection_lost`.
    socket: RefCell<Option<OwnedFd>>,
    /// Taken after `connection_lost`.
    protocol: RefCell<Option<Rc<dyn DatagramProtocol>>>,
    /// Whom the socket is connected to.
    peer: Option<SocketAddress>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
}

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

impl DatagramTransport {
    fn open(
        event_loop: &BaseEventLoop,
        socket: OwnedFd,
        protocol: Rc<dyn DatagramProtocol>,
    ) -> Result<Self, Error> {
        let fd = socket.as_raw_fd();
        // What is longer than a slot of a batch is no datagram of the Internet.
        let batched = matches!(driver::local_address(fd)?, SocketAddress::Internet(_));
        let key = event_loop.with_engine(|engine| engine.open_endpoint(fd, OVERHEAD, batched))?;
        let transport = Self(Rc::new(State {
            event_loop: event_loop.clone(),
            key: Cell::new(Some(key)),
            peer: driver::peer_address(fd).ok(),
            socket: RefCell::new(Some(socket)),
            protocol: RefCell::new(Some(protocol)),
            paused: Cell::new(false),
        }));
        let begun = transport.clone();
        event_loop.call_soon(move || {
            begun.tell("connection_made", |protocol| protocol.connection_made(&begun));
            let reading = begun.clone();
            // Closed meanwhile, it does not read.
            drop(begun.0.event_loop.call_soon(move || {
                if !reading.0.paused.get() {
                    reading.start_reading();
                }
            }));
        })?;
        Ok(transport)
    }

    /// Sends a datagram, at once if the kernel has room: to an address, or to the peer of a connected endpoint. What
    /// becomes of it otherwise is `error_received`; what is sent by a lost endpoint is dropped.
    ///
    /// # Errors
    /// `InvalidInput` for what is no address, and for another than the peer of a connected endpoint.
    pub fn sendto(&self, data: &[u8], to: Option<&SocketAddress>) -> Result<(), Error> {
        let to = match (&self.0.peer, to) {
            (Some(peer), Some(to)) if peer != to => {
                let refused = "Invalid address: must be None or the peer's";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, refused).into());
            }
            (Some(_), _) | (None, None) => None,
            (None, Some(to)) => Some(Address::try_from(to)?),
        };
        let is_lost = self
            .endpoint(|endpoint| endpoint.life().is_lost())
            .unwrap_or(true);
        let Some(key) = self.0.key.get().filter(|_| !is_lost) else {
            return Ok(());
        };
        let host = Hosted::Datagram(self.clone());
        let sent =
            self.engine(|engine| engine.send_datagram(key, data, || data.to_vec(), to.as_ref(), &host));
        match sent {
            None => {}
            Some(Ok(written)) if written.pause => {
                self.tell("pause_writing", |protocol| protocol.pause_writing(self));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => self.tell_error(error),
        }
        Ok(())
    }

    /// Closes the endpoint behind what was sent; nothing more is received. `connection_lost` follows.
    pub fn close(&self) {
        let Some(key) = self.0.key.get() else { return };
        if self.engine(|engine| engine.close_endpoint(key)) == Some(Close::LostSoon) {
            self.lose_soon(None);
        }
    }

    /// Closes the endpoint at once. What waits to be sent is dropped. `connection_lost` follows.
    pub fn abort(&self) {
        self.end(None);
    }

    /// Whether it is closing or closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.endpoint(|endpoint| endpoint.life().is_closing())
            .unwrap_or(true)
    }

    /// Receives no more until [`resume_reading`](Self::resume_reading).
    pub fn pause_reading(&self) {
        self.0.paused.set(true);
        if let Some(key) = self.0.key.get() {
            self.engine(|engine| engine.pause_endpoint(key));
        }
    }

    /// Receives again.
    pub fn resume_reading(&self) {
        if self.0.paused.replace(false) {
            self.start_reading();
        }
    }

    /// How many bytes wait to be sent, with eight more for each datagram.
    #[must_use]
    pub fn get_write_buffer_size(&self) -> usize {
        self.endpoint(|endpoint| endpoint.size()).unwrap_or(0)
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
        self.endpoint(|endpoint| endpoint.flow.set_limits(high, low))
            .unwrap_or(Ok(()))
    }

    /// Whom it is connected to, if to anybody.
    #[must_use]
    pub fn peer(&self) -> Option<&SocketAddress> {
        self.0.peer.as_ref()
    }

    /// Its own name; `None` after `connection_lost`.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddress> {
        driver::local_address(self.fileno()?).ok()
    }

    /// The descriptor; `None` after `connection_lost`. It stays the transport's.
    #[must_use]
    pub fn fileno(&self) -> Option<RawFd> {
        self.0.socket.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Its loop.
    #[must_use]
    pub fn event_loop(&self) -> &BaseEventLoop {
        &self.0.event_loop
    }

    /// News of the engine.
    pub(crate) fn on_event(&self, news: DatagramEvent) {
        match news {
            DatagramEvent::Readable => self.receive(),
            DatagramEvent::Writable => self.flush(),
        }
    }

    /// Parts it from its protocol, without a word.
    pub(crate) fn let_go(&self) {
        let protocol = self.0.protocol.borrow_mut().take();
        drop(protocol);
    }

    fn receive(&self) {
        let Some(key) = self.0.key.get() else { return };
        let batches = &self.0.event_loop.0.batch;
        // Out while the protocol looks at it: one that runs a turn of its own would find none, and does not.
        let mut batch = batches.borrow_mut().take().unwrap_or_default();
        match self.engine(|engine| engine.receive_datagrams(key, &mut batch)) {
            None => {}
            Some(Ok(())) => self.tell_all(key, &batch),
            Some(Err(error)) if is_transient(&error) => {}
            Some(Err(error)) => self.tell_error(error),
        }
        *batches.borrow_mut() = Some(batch);
    }

    /// Tells the protocol of the first datagram of a batch, and of the next ones as long as nothing else could have come
    /// in between had each had a turn of its own. The rest waits for the next turn.
    fn tell_all(&self, key: EndpointKey, batch: &Batch) {
        for (index, (bytes, from)) in batch.iter().enumerate() {
            if self.is_closing() {
                return;
            }
            if index > 0 && !self.may_go_on() {
                let host = Hosted::Datagram(self.clone());
                self.engine(|engine| engine.hold_datagrams(key, batch, index, &host));
                return;
            }
            let from = SocketAddress::from(from);
            self.tell("datagram_received", |protocol| {
                protocol.datagram_received(self, bytes, &from);
            });
        }
    }

    /// Whether a turn for the next datagram would have nothing else to do.
    fn may_go_on(&self) -> bool {
        let event_loop = &self.0.event_loop;
        if self.0.paused.get() || event_loop.is_stopping() || event_loop.get_debug() {
            return false;
        }
        let end = event_loop.time() + RESOLUTION;
        self.engine(|engine| engine.is_quiet(end)).unwrap_or(false)
    }

    fn flush(&self) {
        let Some(key) = self.0.key.get() else { return };
        if let Some(Flushed::Failed(error)) = self.engine(|engine| engine.flush_datagrams(key)) {
            self.tell_error(error);
        }
        let resume = self.endpoint(|endpoint| {
            let size = endpoint.size();
            endpoint.flow.resume_at(size)
        });
        if resume == Some(true) {
            self.tell("resume_writing", |protocol| protocol.resume_writing(self));
        }
        self.engine(|engine| engine.stop_flushing(key));
        if self.endpoint(Datagrams::finish_close) == Some(true) {
            self.connection_lost(None);
        }
    }

    fn start_reading(&self) {
        let Some(key) = self.0.key.get() else { return };
        let host = Hosted::Datagram(self.clone());
        if let Some(Err(error)) = self.engine(|engine| engine.resume_endpoint(key, host)) {
            self.end(Some(error));
        }
    }

    fn tell_error(&self, error: io::Error) {
        self.tell("error_received", |protocol| protocol.error_received(self, error));
    }

    fn end(&self, error: Option<io::Error>) {
        let Some(key) = self.0.key.get() else { return };
        if self.engine(|engine| engine.abort_endpoint(key)) == Some(true) {
            self.lose_soon(error);
        }
    }

    fn lose_soon(&self, error: Option<io::Error>) {
        let lost = self.clone();
        drop(self.0.event_loop.call_soon(move || lost.connection_lost(error)));
    }

    /// Tells the protocol that the endpoint is lost, then lets go of everything.
    fn connection_lost(&self, error: Option<io::Error>) {
        self.tell("connection_lost", |protocol| {
            protocol.connection_lost(self, error);
        });
        if let Some(key) = self.0.key.take() {
            self.engine(|engine| engine.release_endpoint(key));
        }
        let socket = self.0.socket.borrow_mut().take();
        drop(socket);
        self.let_go();
    }

    fn endpoint<R>(&self, ask: impl FnOnce(&mut Datagrams<Vec<u8>>) -> R) -> Option<R> {
        let key = self.0.key.get()?;
        self.engine(|engine| engine.endpoint(key).map(ask)).flatten()
    }

    /// Does something with the engine; `None` if the loop is closed.
    fn engine<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        self.0.event_loop.with_engine(act).ok()
    }

    /// Calls the protocol. A panic goes to the exception handler and ends the endpoint.
    fn tell(&self, what: &str, call: impl FnOnce(&dyn DatagramProtocol)) {
        let protocol = self.0.protocol.borrow().clone();
        let Some(protocol) = protocol else { return };
        if !self.0.event_loop.tell_protocol(what, || call(&*protocol)) {
            self.abort();
        }
    }
}

/// One that nobody has any more, and that waits for nothing, ends without a word.
impl Drop for State {
    fn drop(&mut self) {
        let engine = self.event_loop.0.engine.try_borrow_mut();
        if let (Some(key), Ok(mut engine)) = (self.key.take(), engine)
            && let Some(engine) = engine.as_mut()
        {
            engine.release_endpoint(key);
        }
    }
}

impl fmt::Debug for DatagramTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DatagramTransport")
            .field("fd", &self.fileno())
            .field("closing", &self.is_closing())
            .finish()
    }
}
