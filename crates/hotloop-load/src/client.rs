//! One connection of the load: sends, receives, and times each exchange.

use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Instant;

use mio::{Interest, Registry, Token};

use crate::exchange::{Exchange, Progress, Wrong};
use crate::socket::Socket;

/// Makes a connection.
pub(crate) type Connect = Rc<dyn Fn() -> io::Result<Socket>>;

/// A connected client with one request under way.
pub(crate) struct Client<E> {
    socket: Socket,
    /// How to connect anew for the next exchange; `None` where all go over one connection.
    reconnect: Option<Connect>,
    exchange: E,
    token: Token,
    /// Bytes of the current request that the kernel has taken.
    sent: usize,
    /// When the current request was begun, or the last part of its answer came that counts by itself.
    begun: Instant,
    /// Whether the poll tells when the socket is writable, which is so only while a request is half sent.
    wants_write: bool,
}

impl<E: Exchange> Client<E> {
    /// Registers a connected socket, to be told when it is readable.
    pub(crate) fn new(
        mut socket: Socket,
        reconnect: Option<Connect>,
        exchange: E,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        socket.register(registry, token, Interest::READABLE)?;
        Ok(Self {
            socket,
            reconnect,
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
                // What has come in may have given something to say.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.send(registry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&error)),
            };
            let progress = self.exchange.receive(&buffer[..count])?;
            if progress == Progress::Part {
                completed(self.begun);
                self.begun = Instant::now();
            }
            if progress == Progress::Complete {
                if self.sent < self.exchange.request().len() {
                    return Err(Wrong(String::from(
                        "the answer came before the end of the request",
                    )));
                }
                completed(self.begun);
                self.connect_anew(registry)?;
                self.begin(registry)?;
            }
            // The poll is edge-triggered, and a read that leaves room in the buffer has emptied the socket.
            if count < buffer.len() {
                return self.send(registry);
            }
        }
    }

    /// Ends the poll's interest in the socket; dropping the client closes it.
    pub(crate) fn end(mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }

    /// Ends the connection and makes another one, where each exchange has its own.
    fn connect_anew(&mut self, registry: &Registry) -> Result<(), Wrong> {
        let Some(connect) = &self.reconnect else {
            return Ok(());
        };
        let mut socket = connect().map_err(|error| lost(&error))?;
        self.socket.deregister(registry).map_err(|error| lost(&error))?;
        socket
            .register(registry, self.token, Interest::READABLE)
            .map_err(|error| lost(&error))?;
        self.socket = socket;
        self.wants_write = false;
        Ok(())
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
        let flushed = match self.socket.flush() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => return Err(lost(&error)),
        };
        let wants_write = !flushed || self.sent < self.exchange.request().len();
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
