//! Listening and accepting.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use slab::Slab;

use super::error::{Error, Panic};
use super::event_loop::BaseEventLoop;
use super::future::{Future, Unless};
use super::host::Callback;
use super::protocol::Protocol;
use super::reports::Report;
use super::stream::{Medium, Stream, WeakStream};
use crate::driver::SocketAddress;
use crate::sys;
use crate::transport::{ACCEPT_BUDGET, is_out_of_resources};

/// How long a listener rests when descriptors or memory ran out (asyncio's `ACCEPT_RETRY_DELAY`).
const REST: Duration = Duration::from_secs(1);

type Factory = dyn Fn() -> Rc<dyn Protocol>;

/// What accepts connections. Clones are the same one; it goes on when all of them are dropped, until it is closed.
///
/// ```
/// use std::rc::Rc;
/// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
/// struct Silent;
/// impl Protocol for Silent {
///     fn data_received(&self, _: &Transport, _: &[u8]) {}
/// }
/// SelectorEventLoop::new()?.run_until_complete(async {
///     let server = get_running_loop()?.create_server(|| Rc::new(Silent), "127.0.0.1", 0).await?;
///     assert!(server.is_serving() && server.addresses()[0].port() != 0);
///     server.close();
///     assert!(!server.is_serving());
///     server.wait_closed().await
/// })??;
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct Server(Rc<State>);

struct State {
    event_loop: BaseEventLoop,
    factory: Box<Factory>,
    /// Empty once it is closed.
    sockets: RefCell<Vec<OwnedFd>>,
    /// What a Unix server has in the file system. Taken when it is closed.
    named: RefCell<Option<Named>>,
    /// The connections it has that are not lost.
    clients: RefCell<Slab<Option<WeakStream>>>,
    /// Resolved when it is closed and has no clients.
    closed: Future<()>,
}

/// A Unix socket in the file system, and which one it is: another may have its path later.
struct Named {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// One connection of a server, until it is dropped.
pub(crate) struct Client {
    server: Weak<State>,
    key: usize,
}

impl BaseEventLoop {
    /// Listens at a host and port (0: any that is free) and makes a protocol for each connection.
    ///
    /// # Errors
    /// The resolver's and the kernel's; [`Error::Closed`].
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data_received(&self, transport: &Transport, data: &[u8]) {
    ///         transport.write(data).expect("write_eof was not called");
    ///     }
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let server = get_running_loop()?.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
    ///     assert_eq!(server.addresses().len(), 1);
    ///     server.close();
    ///     server.wait_closed().await
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn create_server<P: Protocol + 'static>(
        &self,
        factory: impl Fn() -> Rc<P> + 'static,
        host: &str,
        port: u16,
    ) -> Result<Server, Error> {
        let addresses = self.getaddrinfo(host, port).await?;
        let sockets = addresses.iter().map(|&address| self.listen(&address.into()));
        let sockets = sockets.collect::<Result<Vec<_>, Error>>()?;
        self.serve(sockets, None, factory)
    }

    /// Listens at a Unix socket by its path, in the place of a socket that is there; an abstract one begins with a zero
    /// byte. The path is removed when the server is closed, unless it is another's by then.
    ///
    /// # Errors
    /// The kernel's; [`Error::Closed`].
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
    ///     let path = std::env::temp_dir().join(format!("hotloop-{}", std::process::id()));
    ///     let server = event_loop.create_unix_server(|| Rc::new(Silent), &path).await?;
    ///     let (transport, _) = event_loop.create_unix_connection(|| Rc::new(Silent), &path).await?;
    ///     transport.close();
    ///     server.close();
    ///     assert!(!path.exists());
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    #[expect(
        clippy::unused_async,
        reason = "asyncio's is a coroutine, and a name may want a resolver one day"
    )]
    pub async fn create_unix_server<P: Protocol + 'static>(
        &self,
        factory: impl Fn() -> Rc<P> + 'static,
        path: impl AsRef<Path>,
    ) -> Result<Server, Error> {
        let path = path.as_ref();
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = self.listen(&path.into())?;
        let named = fs::symlink_metadata(path).ok().map(|found| Named {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        });
        self.serve(vec![socket], named, factory)
    }

    /// Listens at a socket that has its name already. It becomes non-blocking and the server's.
    ///
    /// # Errors
    /// The kernel's; [`Error::Closed`].
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// event_loop.run_until_complete(async move {
    ///     let server = get_running_loop()?.create_server_with_sock(|| Rc::new(Silent), listener)?;
    ///     assert_eq!(server.addresses(), [address]);
    ///     server.close();
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn create_server_with_sock<P: Protocol + 'static>(
        &self,
        factory: impl Fn() -> Rc<P> + 'static,
        sock: impl Into<OwnedFd>,
    ) -> Result<Server, Error> {
        let socket = sock.into();
        rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
        rustix::net::listen(&socket, sys::LISTEN_BACKLOG).map_err(io::Error::from)?;
        self.serve(vec![socket], None, factory)
    }

    fn listen(&self, address: &SocketAddress) -> Result<OwnedFd, Error> {
        Ok(self.with_engine(|engine| engine.driver_mut().listen(address))??)
    }

    fn serve<P: Protocol + 'static>(
        &self,
        sockets: Vec<OwnedFd>,
        named: Option<Named>,
        factory: impl Fn() -> Rc<P> + 'static,
    ) -> Result<Server, Error> {
        let server = Server(Rc::new(State {
            event_loop: self.clone(),
            factory: Box::new(move || factory()),
            sockets: RefCell::new(sockets),
            named: RefCell::new(named),
            clients: RefCell::default(),
            closed: self.create_future(),
        }));
        server.start_serving()?;
        Ok(server)
    }
}

impl Server {
    /// Accepts no more. Connections that are there go on.
    ///
    /// ```
    /// use hotloop::asyncio::Server;
    /// fn finish(server: &Server) {
    ///     server.close();
    ///     assert!(!server.is_serving() && server.addresses().is_empty());
    /// }
    /// ```
    pub fn close(&self) {
        let sockets = self.0.sockets.take();
        for socket in sockets {
            self.ignore(&socket);
            self.0.event_loop.let_go(socket);
        }
        if let Some(named) = self.0.named.borrow_mut().take() {
            named.remove();
        }
        self.0.finish();
    }

    /// Waits until it is closed and its last connection is lost.
    ///
    /// # Errors
    /// None but [`Error::Cancelled`], if the loop goes before.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Server};
    /// async fn finish(server: &Server) -> Result<(), Error> {
    ///     server.close();
    ///     server.wait_closed().await
    /// }
    /// ```
    pub async fn wait_closed(&self) -> Result<(), Error> {
        self.0.closed.clone().await
    }

    /// Serves until it is closed. Given up before that (its task cancelled, its time over), it closes the server.
    ///
    /// # Errors
    /// As of [`wait_closed`](Self::wait_closed).
    ///
    /// ```
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// use hotloop::asyncio::{self, Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// SelectorEventLoop::new()?.run_until_complete(async {
    ///     let server = get_running_loop()?.create_server(|| Rc::new(Silent), "127.0.0.1", 0).await?;
    ///     let served = asyncio::timeout(Duration::from_millis(1), server.serve_forever()).await;
    ///     assert!(matches!(served, Err(Error::TimedOut)) && !server.is_serving());
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn serve_forever(&self) -> Result<(), Error> {
        let mut unless = Unless(Some(|| self.close()));
        let served = self.wait_closed().await;
        unless.0 = None;
        served
    }

    /// Closes its connections, each behind what was written to it.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Server};
    /// async fn finish(server: &Server) -> Result<(), Error> {
    ///     server.close();
    ///     server.close_clients();
    ///     server.wait_closed().await
    /// }
    /// ```
    pub fn close_clients(&self) {
        self.clients().iter().for_each(Stream::close);
    }

    /// Ends its connections at once; what was written to them and not sent is lost.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, Server};
    /// async fn give_up(server: &Server) -> Result<(), Error> {
    ///     server.close();
    ///     server.abort_clients();
    ///     server.wait_closed().await
    /// }
    /// ```
    pub fn abort_clients(&self) {
        self.clients().iter().for_each(Stream::abort);
    }

    fn clients(&self) -> Vec<Stream> {
        let clients = self.0.clients.borrow();
        let streams = clients
            .iter()
            .filter_map(|(_, client)| client.as_ref()?.upgrade());
        streams.collect()
    }

    /// Whether it accepts connections.
    ///
    /// ```
    /// use hotloop::asyncio::Server;
    /// fn state(server: &Server) -> &'static str {
    ///     if server.is_serving() { "open" } else { "closed" }
    /// }
    /// ```
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.0.sockets.borrow().is_empty()
    }

    /// Where it listens.
    ///
    /// ```
    /// use hotloop::asyncio::Server;
    /// fn port(server: &Server) -> Option<u16> {
    ///     server.addresses().first().map(|address| address.port())
    /// }
    /// ```
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.0.sockets.borrow();
        let names = sockets.iter().map(|socket| {
            let name = self
                .0
                .event_loop
                .with_engine(|engine| engine.driver().local_address(socket.as_raw_fd()));
            name.map_err(io::Error::other)?
        });
        names
            .filter_map(|name| match name {
                Ok(SocketAddress::Internet(address)) => Some(address),
                _ => None,
            })
            .collect()
    }

    fn start_serving(&self) -> Result<(), Error> {
        let count = self.0.sockets.borrow().len();
        (0..count).try_for_each(|index| self.listen(index))
    }

    fn listen(&self, index: usize) -> Result<(), Error> {
        let fd = self.0.sockets.borrow().get(index).map(AsRawFd::as_raw_fd);
        let Some(fd) = fd else { return Ok(()) };
        let server = self.clone();
        let event_loop = &self.0.event_loop;
        let key = event_loop.keep(Rc::new(move || server.accept(index, fd)));
        let old = event_loop.with_engine(|engine| engine.listen(fd, Callback::Local(key)))??;
        event_loop.forget(old);
        Ok(())
    }

    fn ignore(&self, socket: &OwnedFd) {
        self.0.event_loop.remove_reader(socket.as_raw_fd());
    }

    fn accept(&self, index: usize, fd: i32) {
        let event_loop = &self.0.event_loop;
        for _ in 0..ACCEPT_BUDGET {
            match event_loop.with_engine(|engine| engine.accept(fd)) {
                Err(_) => return,
                Ok(Ok(accepted)) => self.serve(accepted.fd),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Ok(Err(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    return;
                }
                Ok(Err(error)) => {
                    if is_out_of_resources(&error) {
                        self.rest(index, fd);
                    }
                    event_loop.call_exception_handler(&Report {
                        message: "socket.accept() out of system resource".to_owned(),
                        panic: None,
                        error: Some(error),
                    });
                    return;
                }
            }
        }
    }

    fn rest(&self, index: usize, fd: i32) {
        let event_loop = &self.0.event_loop;
        event_loop.remove_reader(fd);
        let server = self.clone();
        // Of a server that is closed by then there is nothing to listen to.
        drop(event_loop.call_later(REST, move || drop(server.listen(index))));
    }

    /// Serves a connection on the next turn.
    fn serve(&self, socket: OwnedFd) {
        let server = self.clone();
        drop(self.0.event_loop.call_soon(move || {
            let event_loop = &server.0.event_loop;
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (server.0.factory)()));
            let (panic, error) = match made {
                Ok(protocol) => {
                    let key = server.0.clients.borrow_mut().insert(None);
                    let client = Client {
                        server: Rc::downgrade(&server.0),
                        key,
                    };
                    match Stream::open(event_loop, socket, Medium::Socket, protocol, Some(client)) {
                        Ok(stream) => {
                            let mut clients = server.0.clients.borrow_mut();
                            if let Some(client) = clients.get_mut(key) {
                                *client = Some(stream.downgrade());
                            }
                            return;
                        }
                        Err(Error::Closed) => return,
                        Err(error) => (None, Some(io::Error::other(error))),
                    }
                }
                Err(payload) => (Some(Panic::new(payload)), None),
            };
            event_loop.call_exception_handler(&Report {
                message: "Error on transport creation for incoming connection".to_owned(),
                panic,
                error,
            });
        }));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Server")
            .field("addresses", &self.addresses())
            .finish()
    }
}

impl State {
    /// Says that it is closed, once it is and has no clients.
    fn finish(&self) {
        if self.clients.borrow().is_empty() && self.sockets.borrow().is_empty() {
            // Closed before: said already.
            drop(self.closed.set_result(()));
        }
    }
}

impl Named {
    fn remove(&self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode)) {
            // Somebody else has removed it just now, or it may not be.
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(server) = self.server.upgrade() {
            drop(server.clients.borrow_mut().try_remove(self.key));
            server.finish();
        }
    }
}
