//! One connection of the load: sends, receives, and times each exchange.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::{Interest, Registry, Token};

use crate::exchange::{Exchange, Progress, Wrong};
use crate::socket::Socket;

/// A connected client with one request under way.
pub(crate) struct Client<E> {
    socket: Socket,
    exchange: E,
    token: Token,
    /// Bytes of the current request that the kernel has taken.
    sent: usize,
    /// When the current request was begun.
    begun: Instant,
    /// Whether the poll tells when the socket is writable, which is so only while a request is half sent.
    wants_write: bool,
}

impl<E: Exchange> Client<E> {
    /// Registers a connected socket, to be told when it is readable.
    pub(crate) fn new(
        mut socket: Socket,
        exchange: E,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        socket.register(registry, token, Interest::READABLE)?;
        Ok(Self {
            socket,
            exchange,
            token,
            sent: 0,
            begun: Instant::now(),
            wants_write: false,
        })
    }

    /// Begins the next request.
    pub(crate) fn begin(&mut self, registry: &Registry) -> Result<(), Wrong> {
        self.exchange.advance();
        self.sent = 0;
        self.begun = Instant::now();
        self.send(registry)
    }

    /// Goes on after the poll told of this socket. Calls `completed` with the beginning of each exchange that is done,
    /// and begins the next one.
    ///
    /// # Errors
    ///
    /// A wrong answer or a lost connection: this client is of no further use.
    pub(crate) fn progress(
        &mut self,
        registry: &Registry,
        buffer: &mut [u8],
        mut completed: impl FnMut(Instant),
    ) -> Result<(), Wrong> {
        self.send(registry)?;
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(Wrong(String::from("the server closed the connection"))),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&error)),
            };
            if self.exchange.receive(&buffer[..count])? == Progress::Complete {
                if self.sent < self.exchange.request().len() {
                    return Err(Wrong(String::from(
                        "the answer came before the end of the request",
                    )));
                }
                completed(self.begun);
                self.begin(registry)?;
            }
            // The poll is edge-triggered, and a read that leaves room in the buffer has emptied the socket.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }

    /// Ends the poll's interest in the socket; dropping the client closes it.
    pub(crate) fn end(mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }

    /// Sends what the kernel takes of the current request.
    fn send(&mut self, registry: &Registry) -> Result<(), Wrong> {
        while self.sent < self.exchange.request().len() {
            match self.socket.write(&self.exchange.request()[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        let wants_write = self.sent < self.exchange.request().len();
        if wants_write != self.wants_write {
            let interest = if wants_write {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            self.socket
                .reregister(registry, self.token, interest)
                .map_err(|error| lost(&error))?;
            self.wants_write = wants_write;
        }
        Ok(())
    }
}

fn lost(error: &io::Error) -> Wrong {
    Wrong(format!("the connection was lost: {error}"))
}
