//! TLS connections and servers, and the change to TLS on a connection.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::Tls;
use crate::asyncio::error::Error;
use crate::asyncio::event_loop::BaseEventLoop;
use crate::asyncio::protocol::Protocol;
use crate::asyncio::server::Server;
use crate::asyncio::transport::Transport;

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
    ///
    /// ```
    /// use std::rc::Rc;
    /// use std::sync::Arc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop, rustls};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// fn serve(config: rustls::ServerConfig) -> Result<(), Error> {
    ///     let event_loop = SelectorEventLoop::new()?;
    ///     let _server = event_loop.run_until_complete(async {
    ///         let config = Arc::new(config);
    ///         get_running_loop()?.create_tls_server(|| Rc::new(Silent), "127.0.0.1", 443, config).await
    ///     })??;
    ///     event_loop.run_forever()
    /// }
    /// ```
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
    ///
    /// ```
    /// use std::rc::Rc;
    /// use std::sync::Arc;
    /// use hotloop::asyncio::{Error, Protocol, Transport, rustls};
    /// async fn upgrade(
    ///     plain: &Transport,
    ///     protocol: Rc<dyn Protocol>,
    ///     config: Arc<rustls::ClientConfig>,
    /// ) -> Result<Transport, Error> {
    ///     plain.event_loop().start_tls_client(plain, protocol, config, "mail.example").await
    /// }
    /// ```
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
    ///
    /// ```
    /// use std::rc::Rc;
    /// use std::sync::Arc;
    /// use hotloop::asyncio::{Error, Protocol, Transport, rustls};
    /// async fn upgrade(
    ///     plain: &Transport,
    ///     protocol: Rc<dyn Protocol>,
    ///     config: Arc<rustls::ServerConfig>,
    /// ) -> Result<Transport, Error> {
    ///     plain.event_loop().start_tls_server(plain, protocol, config).await
    /// }
    /// ```
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
    ///
    /// ```
    /// use hotloop::asyncio::{Transport, rustls};
    /// fn version(transport: &Transport) -> Option<rustls::ProtocolVersion> {
    ///     transport.with_tls(|tls| tls.protocol_version()).flatten()
    /// }
    /// ```
    pub fn with_tls<R>(&self, ask: impl FnOnce(&Connection) -> R) -> Option<R> {
        self.tls().map(|tls| ask(&tls.connection.borrow()))
    }
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
