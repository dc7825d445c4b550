//! TLS by rustls: a protocol to the transport below it, a transport to the protocol above it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::future::{Future, Unless};
use super::handle::TimerHandle;
use super::protocol::Protocol;
use super::server::Server;
use super::transport::Transport;
use crate::driver::SocketAddress;
use crate::transport::InvalidLimits;

/// How long a handshake may take (asyncio's `SSL_HANDSHAKE_TIMEOUT`).
const HANDSHAKE: Duration = Duration::from_secs(60);

/// How long the peer may take to say goodbye (asyncio's `SSL_SHUTDOWN_TIMEOUT`).
const SHUTDOWN: Duration = Duration::from_secs(30);

/// How many encrypted bytes may wait to be sent (asyncio's `FLOW_CONTROL_HIGH_WATER_SSL_WRITE`).
const HIGH_WATER: usize = 512 * 1024;

/// How much plain text a protocol is given at once, at most: four records.
const PLAIN: usize = 64 * 1024;

thread_local! {
    /// Plain text is decrypted into it. Out while a protocol looks at it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One end of a TLS connection.
pub(crate) struct Tls {
    /// What a transport of it is made of.
    me: Weak<Self>,
    event_loop: BaseEventLoop,
    /// rustls's state. Never borrowed while a protocol or the transport below runs.
    connection: RefCell<Connection>,
    /// Set when that begins.
    lower: OnceCell<Transport>,
    /// Taken at the end.
    protocol: RefCell<Option<Rc<dyn Protocol>>>,
    stage: Cell<Stage>,
    /// Encrypted bytes that wait while the protocol is not read for.
    incoming: RefCell<VecDeque<u8>>,
    /// The peer has closed its half below TLS.
    ended: Cell<bool>,
    /// The protocol was told the end of the peer's half.
    end_told: Cell<bool>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// `write_eof` was called, or `close`.
    end_written: Cell<bool>,
    /// What comes in is being taken: whoever else wants to leaves it to that.
    taking: Cell<bool>,
    /// Ends a handshake or a goodbye that takes too long.
    timer: RefCell<Option<TimerHandle>>,
    /// Resolved when the handshake is over.
    decided: Future<()>,
    /// Why it failed, until whoever awaits it has taken that.
    failure: RefCell<Option<io::Error>>,
}

/// How far it has come, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Handshake,
    Open,
    /// Our goodbye is said, the peer's is awaited.
    Closing,
    Lost,
}

impl BaseEventLoop {
    /// Connects to a host and port by TLS, as [`create_connection`](Self::create_connection) does without; the peer must
    /// have a certificate of `host`. The protocol is told of the connection after the handshake, which has 60 seconds.
    ///
    /// # Errors
    /// As of `create_connection`; `InvalidInput` if `host` cannot be in a certificate; `InvalidData` if the handshake
    /// fails.
    ///
    /// ```no_run
    /// use std::rc::Rc;
    /// use std::sync::Arc;
    /// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop, rustls};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let trusted = rustls::RootCertStore::empty();
    /// let config = rustls::ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let config = Arc::new(config);
    ///     get_running_loop()?.create_tls_connection(|| Rc::new(Silent), "example.org", 443, config).await
    /// })??;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn create_tls_connection<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        host: &str,
        port: u16,
        config: Arc<ClientConfig>,
    ) -> Result<(Transport, Rc<P>), Error> {
        let client = client(config, host)?;
        let protocol = factory();
        let tls = Tls::new(self, client, protocol.clone());
        let connecting = self.create_connection(|| Rc::clone(&tls), host, port);
        connecting.await?;
        Ok((tls.finish_handshake().await?, protocol))
    }

    /// Listens at a host and port for TLS connections, as [`create_server`](Self::create_server) does without. A
    /// protocol is told of its connection after the handshake, and never of one whose handshake fails.
    ///
    /// # Errors
    /// As of `create_server`.
    pub async fn create_tls_server<P: Protocol + 'static>(
        &self,
        factory: impl Fn() -> Rc<P> + 'static,
        host: &str,
        port: u16,
        config: Arc<ServerConfig>,
    ) -> Result<Server, Error> {
        // What is wrong with it is told here, and not at each connection.
        ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let event_loop = self.clone();
        let factory = move || {
            let server = ServerConnection::new(Arc::clone(&config)).expect("it was right for the first one");
            Tls::new(&event_loop, server.into(), factory())
        };
        self.create_server(factory, host, port).await
    }

    /// Goes over to TLS on a connection, as its client. `protocol` is told of what is sent from now on; it has no
    /// second `connection_made`. Answers the transport to write to instead.
    ///
    /// # Errors
    /// As of [`create_tls_connection`](Self::create_tls_connection).
    pub async fn start_tls_client(
        &self,
        transport: &Transport,
        protocol: Rc<dyn Protocol>,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<Transport, Error> {
        let client = client(config, host)?;
        self.start_tls(transport, protocol, client).await
    }

    /// Goes over to TLS on a connection, as its server.
    ///
    /// # Errors
    /// As of [`start_tls_client`](Self::start_tls_client).
    pub async fn start_tls_server(
        &self,
        transport: &Transport,
        protocol: Rc<dyn Protocol>,
        config: Arc<ServerConfig>,
    ) -> Result<Transport, Error> {
        let server = ServerConnection::new(config).map_err(io::Error::other)?;
        self.start_tls(transport, protocol, server.into()).await
    }

    async fn start_tls(
        &self,
        transport: &Transport,
        protocol: Rc<dyn Protocol>,
        connection: Connection,
    ) -> Result<Transport, Error> {
        if transport.is_closing() {
            return Err(Error::Io(io::ErrorKind::NotConnected.into()));
        }
        let tls = Tls::new(self, connection, Rc::new(Upgraded(protocol)));
        transport.set_protocol(tls.clone());
        tls.begin(transport);
        transport.resume_reading();
        tls.finish_handshake().await
    }
}

impl Transport {
    /// Asks the TLS of the connection, if it has one: for the peer's certificates, the protocol that was agreed on, and
    /// the like.
    pub fn with_tls<R>(&self, ask: impl FnOnce(&Connection) -> R) -> Option<R> {
        self.tls().map(|tls| ask(&tls.connection.borrow()))
    }
}

impl Tls {
    fn new(event_loop: &BaseEventLoop, mut connection: Connection, protocol: Rc<dyn Protocol>) -> Rc<Self> {
        // What waits to be sent waits below, where flow control sees it.
        connection.set_buffer_limit(None);
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            event_loop: event_loop.clone(),
            connection: RefCell::new(connection),
            lower: OnceCell::new(),
            protocol: RefCell::new(Some(protocol)),
            stage: Cell::new(Stage::Handshake),
            incoming: RefCell::default(),
            ended: Cell::new(false),
            end_told: Cell::new(false),
            paused: Cell::new(false),
            end_written: Cell::new(false),
            taking: Cell::new(false),
            timer: RefCell::new(None),
            decided: event_loop.create_future(),
            failure: RefCell::new(None),
        })
    }

    /// Waits for the end of the handshake. Answers the transport.
    async fn finish_handshake(&self) -> Result<Transport, Error> {
        let mut unless = Unless(Some(|| self.abort()));
        self.decided.clone().await?;
        unless.0 = None;
        match self.failure.borrow_mut().take() {
            Some(error) => Err(error.into()),
            None => self.transport().ok_or(Error::Cancelled),
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> Result<(), Error> {
        match self.stage.get() {
            Stage::Open if self.end_written.get() => Err(Error::EndWritten),
            Stage::Open => {
                let written = self.connection.borrow_mut().writer().write_all(data);
                self.send();
                Ok(written?)
            }
            _ => Ok(()),
        }
    }

    /// Says goodbye, and goes on reading: TLS has a half-close too, unlike asyncio's.
    pub(crate) fn write_eof(&self) {
        if self.stage.get() == Stage::Open && !self.end_written.replace(true) {
            self.connection.borrow_mut().send_close_notify();
            self.send();
        }
    }

    pub(crate) fn close(&self) {
        match self.stage.get() {
            Stage::Handshake => self.abort(),
            Stage::Open => {
                self.write_eof();
                self.stage.set(Stage::Closing);
                self.start_timer(SHUTDOWN, "TLS shutdown timed out");
                // What the peer still sends is read and dropped: unread, it would have the kernel reset the connection,
                // and the peer lose what was sent last.
                if let Some(lower) = self.lower.get() {
                    lower.resume_reading();
                }
                self.take_incoming();
            }
            Stage::Closing | Stage::Lost => {}
        }
    }

    pub(crate) fn abort(&self) {
        if let Some(lower) = self.lower.get() {
            lower.abort();
        }
    }

    pub(crate) fn fail(&self, error: io::Error) {
        if let Some(lower) = self.lower.get() {
            lower.fail(error);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.stage.get() >= Stage::Closing || self.lower.get().is_none_or(Transport::is_closing)
    }

    pub(crate) fn pause_reading(&self) {
        if self.stage.get() == Stage::Open {
            self.paused.set(true);
            if let Some(lower) = self.lower.get() {
                lower.pause_reading();
            }
        }
    }

    pub(crate) fn resume_reading(&self) {
        if !self.paused.replace(false) {
            return;
        }
        if let Some(lower) = self.lower.get() {
            lower.resume_reading();
        }
        if let Some(this) = self.me.upgrade() {
            // Not at once: whoever resumes does not expect to be called.
            drop(self.event_loop.call_soon(move || this.take_incoming()));
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        !self.paused.get() && !self.is_closing()
    }

    pub(crate) fn get_write_buffer_size(&self) -> usize {
        self.lower.get().map_or(0, Transport::get_write_buffer_size)
    }

    pub(crate) fn set_write_buffer_limits(
        &self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), InvalidLimits> {
        self.lower
            .get()
            .map_or(Ok(()), |lower| lower.set_write_buffer_limits(high, low))
    }

    pub(crate) fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.lower
            .get()
            .map_or((0, 0), Transport::get_write_buffer_limits)
    }

    pub(crate) fn peer(&self) -> Option<&SocketAddress> {
        self.lower.get()?.peer()
    }

    pub(crate) fn fileno(&self) -> Option<RawFd> {
        self.lower.get()?.fileno()
    }

    pub(crate) fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        let old = self.protocol.replace(Some(protocol));
        drop(old);
    }

    pub(crate) fn event_loop(&self) -> &BaseEventLoop {
        &self.event_loop
    }

    /// Begins the handshake.
    fn begin(&self, lower: &Transport) {
        // It begins once.
        drop(self.lower.set(lower.clone()));
        // High is above low.
        let _ = lower.set_write_buffer_limits(Some(HIGH_WATER), None);
        self.start_timer(
            HANDSHAKE,
            "TLS handshake is taking too long: aborting the connection",
        );
        self.send();
    }

    /// Takes what came in: through the handshake, to the protocol, to the end.
    fn take_incoming(&self) {
        if self.taking.replace(true) {
            return;
        }
        let mut plain = SCRATCH.take();
        plain.resize(PLAIN, 0);
        while self.stage.get() != Stage::Lost && !self.paused.get() {
            match self.take_plain(&mut plain) {
                Ok(Taken::Plain(count)) => {
                    if self.stage.get() == Stage::Open {
                        self.tell(|protocol, transport| protocol.data_received(transport, &plain[..count]));
                    }
                }
                Ok(Taken::Handshake) => self.open(),
                Ok(Taken::End) => {
                    self.end();
                    break;
                }
                Ok(Taken::Nothing) => {
                    if self.ended.get() {
                        self.end();
                    }
                    break;
                }
                Err(error) => {
                    // The alert that says why goes before the end.
                    self.send();
                    self.fail(io::Error::new(io::ErrorKind::InvalidData, error));
                    break;
                }
            }
        }
        SCRATCH.set(plain);
        self.taking.set(false);
        // What was received may have to be answered.
        self.send();
    }

    /// Decrypts as much as there is, and fits.
    fn take_plain(&self, plain: &mut [u8]) -> Result<Taken, rustls::Error> {
        let mut connection = self.connection.borrow_mut();
        let mut incoming = self.incoming.borrow_mut();
        let mut count = 0;
        loop {
            match connection.reader().read(&mut plain[count..]) {
                // The goodbye, or no room.
                Ok(0) if count == 0 => return Ok(Taken::End),
                Ok(0) => return Ok(Taken::Plain(count)),
                Ok(more) => {
                    count += more;
                    continue;
                }
                Err(_) => {}
            }
            if incoming.is_empty() {
                break;
            }
            // From memory there is no error but that rustls has no room, which it has once its plain text was read.
            if connection.read_tls(&mut *incoming).is_err() {
                break;
            }
            let handshaking = self.stage.get() == Stage::Handshake;
            match connection.process_new_packets() {
                Ok(_) if handshaking && !connection.is_handshaking() => return Ok(Taken::Handshake),
                Ok(_) => {}
                Err(error) if count == 0 => return Err(error),
                // It is told again when this was.
                Err(_) => break,
            }
        }
        Ok(if count > 0 {
            Taken::Plain(count)
        } else {
            Taken::Nothing
        })
    }

    /// The handshake is done.
    fn open(&self) {
        self.stop_timer();
        self.send();
        self.stage.set(Stage::Open);
        self.tell(|protocol, transport| protocol.connection_made(transport));
        // Nobody else sets it.
        drop(self.decided.set_result(()));
    }

    /// The peer's half has ended.
    fn end(&self) {
        match self.stage.get() {
            Stage::Handshake => self.fail(io::ErrorKind::ConnectionReset.into()),
            Stage::Open => {
                let mut keep_open = false;
                if !self.end_told.replace(true) {
                    self.tell(|protocol, transport| keep_open = protocol.eof_received(transport));
                    if !keep_open {
                        self.close_below();
                    }
                }
            }
            Stage::Closing => self.close_below(),
            Stage::Lost => {}
        }
    }

    /// Says goodbye and waits for nobody.
    fn close_below(&self) {
        self.write_eof();
        self.stage.set(self.stage.get().max(Stage::Closing));
        if let Some(lower) = self.lower.get() {
            lower.close();
        }
    }

    /// Hands what is encrypted to the transport below.
    fn send(&self) {
        let mut encrypted = Vec::new();
        let mut connection = self.connection.borrow_mut();
        while connection.wants_write() && connection.write_tls(&mut encrypted).is_ok_and(|count| count > 0) {}
        drop(connection);
        if let Some(lower) = self.lower.get()
            && !encrypted.is_empty()
        {
            // Refused only after its end was written, which nobody else does.
            drop(lower.write(&encrypted));
        }
    }

    fn start_timer(&self, after: Duration, why: &'static str) {
        let late = self.me.clone();
        let timer = self.event_loop.call_later(after, move || {
            if let Some(this) = late.upgrade() {
                this.fail(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        });
        self.stop_timer();
        *self.timer.borrow_mut() = timer.ok();
    }

    fn stop_timer(&self) {
        let timer = self.timer.borrow_mut().take();
        if let Some(timer) = timer {
            timer.cancel();
        }
    }

    fn transport(&self) -> Option<Transport> {
        self.me.upgrade().map(Transport::from)
    }

    /// Calls the protocol. A panic of it is the transport's below, through which all of this is called.
    fn tell(&self, call: impl FnOnce(&dyn Protocol, &Transport)) {
        let protocol = self.protocol.borrow().clone();
        if let (Some(protocol), Some(transport)) = (protocol, self.transport()) {
            call(&*protocol, &transport);
        }
    }
}

impl Protocol for Tls {
    fn connection_made(&self, lower: &Transport) {
        self.begin(lower);
    }

    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.incoming.borrow_mut().extend(data);
        self.take_incoming();
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.ended.set(true);
        self.take_incoming();
        // Closed here, behind the goodbye.
        true
    }

    fn connection_lost(&self, _: &Transport, error: Option<io::Error>) {
        self.stop_timer();
        if self.stage.replace(Stage::Lost) == Stage::Handshake {
            let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
            *self.failure.borrow_mut() = Some(error);
            drop(self.decided.set_result(()));
        } else {
            self.tell(|protocol, transport| protocol.connection_lost(transport, error));
        }
        let protocol = self.protocol.borrow_mut().take();
        drop(protocol);
    }

    fn pause_writing(&self, _: &Transport) {
        self.tell(|protocol, transport| protocol.pause_writing(transport));
    }

    fn resume_writing(&self, _: &Transport) {
        self.tell(|protocol, transport| protocol.resume_writing(transport));
    }
}

/// What was taken of what came in.
enum Taken {
    /// So many bytes of plain text.
    Plain(usize),
    /// The end of the handshake.
    Handshake,
    /// The peer's goodbye.
    End,
    Nothing,
}

/// A protocol that knows of its connection already.
struct Upgraded(Rc<dyn Protocol>);

impl Protocol for Upgraded {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        self.0.data_received(transport, data);
    }

    fn eof_received(&self, transport: &Transport) -> bool {
        self.0.eof_received(transport)
    }

    fn connection_lost(&self, transport: &Transport, error: Option<io::Error>) {
        self.0.connection_lost(transport, error);
    }

    fn pause_writing(&self, transport: &Transport) {
        self.0.pause_writing(transport);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.0.resume_writing(transport);
    }
}

fn client(config: Arc<ClientConfig>, host: &str) -> io::Result<Connection> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(ClientConnection::new(config, name)
        .map_err(io::Error::other)?
        .into())
}
