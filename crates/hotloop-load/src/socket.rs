//! Where the server is, and one non-blocking socket connected to it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use mio::{Interest, Registry, Token, event::Source, net};

use crate::tls::{Settings, TlsStream};

/// A server's address, already resolved.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Takes `host:port`, `udp:host:port` or `unix:PATH`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let (kind, host): (fn(SocketAddr) -> Self, _) = match text.strip_prefix("udp:") {
            Some(host) => (Self::Udp, host),
            None => (Self::Tcp, text),
        };
        let mut found = host
            .to_socket_addrs()
            .map_err(|error| format!("{text}: {error}"))?;
        found
            .next()
            .map(kind)
            .ok_or_else(|| format!("{text}: no address found"))
    }

    /// The value of an HTTP `Host` field.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.to_string(),
            Self::Unix(_) => String::from("localhost"),
        }
    }
}

/// A connected socket of any kind. A message on UDP is one datagram.
pub(crate) enum Socket {
    Tcp(net::TcpStream),
    Udp(net::UdpSocket),
    Unix(net::UnixStream),
    Tls(Box<TlsStream>),
}

impl Socket {
    /// Connects, waiting until that is done: a run starts with all its connections open.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Tcp(net::TcpStream::from_std(stream)))
            }
            Address::Udp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = std::net::UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(net::UdpSocket::from_std(socket)))
            }
            Address::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(net::UnixStream::from_std(stream)))
            }
        }
    }

    /// The same over TLS. The handshake is made while the first request is sent.
    pub(crate) fn connect_tls(address: &Address, settings: &Settings) -> io::Result<Self> {
        Ok(Self::Tls(Box::new(TlsStream::new(
            Self::connect(address)?,
            settings,
        )?)))
    }

    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.register(self.source(), token, interest)
    }

    pub(crate) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        registry.reregister(self.source(), token, interest)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self.source())
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Udp(socket) => socket,
            Self::Unix(stream) => stream,
            Self::Tls(stream) => stream.socket().source(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Udp(socket) => socket.recv(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Udp(socket) => socket.send(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Sends what is encrypted and has not gone out. `WouldBlock` if some is left.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Udp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
