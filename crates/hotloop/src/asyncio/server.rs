//! Listening, accepting and connecting.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::error::{Error, Panic};
use super::event_loop::{BaseEventLoop, Report};
use super::future::Future;
use super::host::Callback;
use super::protocol::Protocol;
use super::transport::Transport;
use crate::driver::SocketAddress;
use crate::transport::{ACCEPT_BUDGET, is_out_of_resources};

/// How long a listener rests when descriptors or memory ran out (asyncio's `ACCEPT_RETRY_DELAY`).
const REST: Duration = Duration::from_secs(1);

type Factory = dyn Fn() -> Rc<dyn Protocol>;

/// What accepts connections. Clones are the same one; it goes on when all of them are dropped, until it is closed.
#[derive(Clone)]
pub struct Server(Rc<State>);

struct State {
    event_loop: BaseEventLoop,
    factory: Box<Factory>,
    /// Empty once it is closed.
    sockets: RefCell<Vec<OwnedFd>>,
    /// How many connections it has that are not lost.
    clients: Cell<usize>,
    /// Resolved when it is closed and has no clients.
    closed: Future<()>,
}

/// Counts one client of a server until it is dropped.
pub(crate) struct Clients(Weak<State>);

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
        let sockets = addresses
            .iter()
            .map(|address| {
                self.with_engine(|engine| engine.driver_mut().listen(address))?
                    .map_err(Error::from)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let server = Server(Rc::new(State {
            event_loop: self.clone(),
            factory: Box::new(move || factory()),
            sockets: RefCell::new(sockets),
            clients: Cell::new(0),
            closed: self.create_future(),
        }));
        server.start_serving()?;
        Ok(server)
    }

    /// Connects to a host and port, trying its addresses in their order, and begins with the protocol that `factory`
    /// makes.
    ///
    /// # Errors
    /// The resolver's; the last address's; [`Error::Closed`].
    pub async fn create_connection<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        host: &str,
        port: u16,
    ) -> Result<(Transport, Rc<P>), Error> {
        let mut failed = Error::Io(io::ErrorKind::NotFound.into());
        for address in self.getaddrinfo(host, port).await? {
            match self.connect(&SocketAddress::Internet(address)).await {
                Ok(socket) => {
                    let protocol = factory();
                    let transport = Transport::open(self, socket, protocol.clone(), None)?;
                    // By then the protocol has been told of the connection, as with asyncio.
                    let told = self.create_future();
                    let teller = told.clone();
                    self.call_soon(move || drop(teller.set_result(())))?;
                    told.await?;
                    return Ok((transport, protocol));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect(&self, address: &SocketAddress) -> Result<OwnedFd, Error> {
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

impl Server {
    /// Accepts no more. Connections that are there go on.
    pub fn close(&self) {
        let sockets = self.0.sockets.take();
        for socket in sockets {
            self.ignore(&socket);
            self.0.event_loop.let_go(socket);
        }
        self.0.finish();
    }

    /// Waits until it is closed and its last connection is lost.
    ///
    /// # Errors
    /// None but [`Error::Cancelled`], if the loop goes before.
    pub async fn wait_closed(&self) -> Result<(), Error> {
        self.0.closed.clone().await
    }

    /// Whether it accepts connections.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        !self.0.sockets.borrow().is_empty()
    }

    /// Where it listens.
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
                    server.0.clients.set(server.0.clients.get() + 1);
                    let client = Clients(Rc::downgrade(&server.0));
                    match Transport::open(event_loop, socket, protocol, Some(client)) {
                        Ok(_) | Err(Error::Closed) => return,
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
        if self.clients.get() == 0 && self.sockets.borrow().is_empty() {
            // Closed before: said already.
            drop(self.closed.set_result(()));
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.clients.set(server.clients.get().saturating_sub(1));
            server.finish();
        }
    }
}
