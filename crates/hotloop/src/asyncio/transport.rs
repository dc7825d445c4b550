//! Stream transports: connections with their protocols.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::error::{Error, Panic};
use super::event_loop::{BaseEventLoop, Report};
use super::protocol::Protocol;
use super::server::Clients;
use crate::driver::SocketAddress;
use crate::transport::{Close, InvalidLimits};
use crate::{StreamEvent, StreamKey, driver, sys};

/// A connection. Clones are the same one.
#[derive(Clone)]
pub struct Transport(Rc<State>);

struct State {
    event_loop: BaseEventLoop,
    /// None after `connection_lost`.
    key: Cell<Option<StreamKey>>,
    /// Closed after `connection_lost`.
    socket: RefCell<Option<OwnedFd>>,
    /// Taken after `connection_lost`.
    protocol: RefCell<Option<Rc<dyn Protocol>>>,
    peer: Option<SocketAddress>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// Counts it among the server's clients.
    client: RefCell<Option<Clients>>,
}

impl Transport {
    /// Begins with a connected, non-blocking socket: `connection_made` and reading follow on the next turns.
    pub(crate) fn open(
        event_loop: &BaseEventLoop,
        socket: OwnedFd,
        protocol: Rc<dyn Protocol>,
        client: Option<Clients>,
    ) -> Result<Self, Error> {
        let fd = socket.as_raw_fd();
        // Only TCP has it.
        drop(driver::set_nodelay(fd));
        let (key, peer) = event_loop
            .with_engine(|engine| (engine.open_stream(fd), engine.driver().peer_address(fd).ok()))?;
        let transport = Self(Rc::new(State {
            event_loop: event_loop.clone(),
            key: Cell::new(Some(key)),
            peer,
            socket: RefCell::new(Some(socket)),
            protocol: RefCell::new(Some(protocol)),
            paused: Cell::new(false),
            client: RefCell::new(client),
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

    /// Sends bytes: at once as far as the kernel takes them, or later. What is written to a lost connection is dropped,
    /// as with asyncio.
    ///
    /// # Errors
    /// [`Error::EndWritten`] after [`write_eof`](Self::write_eof).
    pub fn write(&self, data: &[u8]) -> Result<(), Error> {
        let Some(key) = self.0.key.get() else {
            return Ok(());
        };
        let written = self.0.event_loop.with_engine(|engine| {
            let stream = engine.stream(key)?;
            if stream.is_eof_written() {
                return Some(Err(Error::EndWritten));
            }
            if stream.is_lost() || data.is_empty() {
                return None;
            }
            Some(Ok(engine.write(key, data, || data.to_vec(), self)))
        });
        match written {
            Ok(None) | Err(_) => {}
            Ok(Some(Err(error))) => return Err(error),
            Ok(Some(Ok(Ok(written)))) => {
                if written.pause {
                    self.tell("pause_writing", |protocol| protocol.pause_writing(self));
                }
            }
            Ok(Some(Ok(Err(error)))) => self.fail(error),
        }
        Ok(())
    }

    /// Ends the sending half behind what was written. The peer's half stays open.
    pub fn write_eof(&self) {
        if let Some(key) = self.0.key.get() {
            let ended = self.0.event_loop.with_engine(|engine| engine.write_eof(key));
            if let Ok(Err(error)) = ended {
                self.fail(error);
            }
        }
    }

    /// Closes the connection behind what was written; nothing more is received. `connection_lost` follows.
    pub fn close(&self) {
        let Some(key) = self.0.key.get() else { return };
        let close = self.0.event_loop.with_engine(|engine| engine.close(key));
        if matches!(close, Ok(Close::LostSoon)) {
            self.lose_soon(None);
        }
    }

    /// Closes the connection at once. What waits to be sent is dropped. `connection_lost` follows.
    pub fn abort(&self) {
        self.end(None);
    }

    /// Whether it is closing or closed.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.stream(|stream| stream.is_closing()).unwrap_or(true)
    }

    /// Receives no more until [`resume_reading`](Self::resume_reading).
    pub fn pause_reading(&self) {
        self.0.paused.set(true);
        if let Some(key) = self.0.key.get() {
            let kept = self.0.event_loop.with_engine(|engine| engine.stop_reading(key));
            drop(kept);
        }
    }

    /// Receives again.
    pub fn resume_reading(&self) {
        if self.0.paused.replace(false) {
            self.start_reading();
        }
    }

    /// Whether it receives.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.stream(|stream| stream.is_reading()).unwrap_or(false)
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn get_write_buffer_size(&self) -> usize {
        self.stream(|stream| stream.queue.len()).unwrap_or(0)
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
        self.stream(|stream| stream.flow.set_limits(high, low))
            .unwrap_or(Ok(()))
    }

    /// The marks of flow control: low, then high, in bytes.
    #[must_use]
    pub fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.stream(|stream| stream.flow.limits()).unwrap_or((0, 0))
    }

    /// Who is at the other end, if the kernel told.
    #[must_use]
    pub fn peer(&self) -> Option<&SocketAddress> {
        self.0.peer.as_ref()
    }

    /// The descriptor; `None` after `connection_lost`. It stays the transport's.
    #[must_use]
    pub fn fileno(&self) -> Option<RawFd> {
        self.0.socket.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Gives it another protocol.
    pub fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        let old = self.0.protocol.replace(Some(protocol));
        drop(old);
    }

    /// Its loop.
    #[must_use]
    pub fn event_loop(&self) -> &BaseEventLoop {
        &self.0.event_loop
    }

    /// News of the engine.
    pub(crate) fn on_event(&self, news: StreamEvent) {
        match news {
            StreamEvent::Readable => self.receive(),
            StreamEvent::Sent => self.sent(),
            StreamEvent::Broken(error) => self.fail(error),
        }
    }

    fn receive(&self) {
        let Some(key) = self.0.key.get() else { return };
        let state = &self.0.event_loop.0;
        // Out while the protocol looks at it: one that runs a turn of its own would find none, and does not.
        let mut scratch = state.scratch.take();
        let received = self
            .0
            .event_loop
            .with_engine(|engine| sys::fill(&mut scratch, |buffer| engine.receive(key, buffer)));
        match received {
            Err(_) => {}
            Ok(Ok(0)) => self.receive_end(),
            Ok(Ok(count)) => {
                self.tell("data_received", |protocol| {
                    protocol.data_received(self, &scratch[..count]);
                });
            }
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Ok(Err(error)) => self.fail(error),
        }
        state.scratch.replace(scratch);
    }

    fn receive_end(&self) {
        let mut keep_open = false;
        self.tell("eof_received", |protocol| keep_open = protocol.eof_received(self));
        if !keep_open {
            self.close();
        } else if let Some(key) = self.0.key.get() {
            let kept = self.0.event_loop.with_engine(|engine| engine.stop_reading(key));
            drop(kept);
        }
    }

    fn sent(&self) {
        let resume = self.stream(|stream| {
            let queued = stream.queue.len();
            stream.flow.resume_at(queued)
        });
        if resume == Some(true) {
            self.tell("resume_writing", |protocol| protocol.resume_writing(self));
        }
        let ended = self.stream(|stream| {
            (
                stream.queue.is_empty(),
                stream.is_eof_written(),
                stream.finish_close(),
            )
        });
        match ended {
            Some((true, _, true)) => self.connection_lost(None),
            Some((true, true, false)) => {
                if let Some(key) = self.0.key.get() {
                    let ended = self.0.event_loop.with_engine(|engine| engine.shutdown_write(key));
                    if let Ok(Err(error)) = ended {
                        self.fail(error);
                    }
                }
            }
            _ => {}
        }
    }

    fn start_reading(&self) {
        if let Some(key) = self.0.key.get() {
            let started = self
                .0
                .event_loop
                .with_engine(|engine| engine.start_reading(key, self.clone()));
            if let Ok(Err(error)) = started {
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: io::Error) {
        self.end(Some(error));
    }

    fn end(&self, error: Option<io::Error>) {
        let Some(key) = self.0.key.get() else { return };
        if let Ok(true) = self.0.event_loop.with_engine(|engine| engine.abort(key)) {
            self.lose_soon(error);
        }
    }

    fn lose_soon(&self, error: Option<io::Error>) {
        let lost = self.clone();
        drop(self.0.event_loop.call_soon(move || lost.connection_lost(error)));
    }

    /// Tells the protocol that the connection is lost, then lets go of everything.
    fn connection_lost(&self, error: Option<io::Error>) {
        self.tell("connection_lost", |protocol| {
            protocol.connection_lost(self, error)
        });
        if let Some(key) = self.0.key.take() {
            drop(self.0.event_loop.with_engine(|engine| engine.release(key)));
        }
        let socket = self.0.socket.borrow_mut().take();
        drop(socket);
        let protocol = self.0.protocol.borrow_mut().take();
        drop(protocol);
        let client = self.0.client.borrow_mut().take();
        drop(client);
    }

    fn stream<R>(
        &self,
        ask: impl FnOnce(&mut crate::transport::Stream<crate::Queued<Vec<u8>>>) -> R,
    ) -> Option<R> {
        let key = self.0.key.get()?;
        let asked = self
            .0
            .event_loop
            .with_engine(|engine| engine.stream(key).map(ask));
        asked.ok().flatten()
    }

    /// Calls the protocol. A panic goes to the exception handler and ends the connection.
    fn tell(&self, what: &str, call: impl FnOnce(&dyn Protocol)) {
        let protocol = self.0.protocol.borrow().clone();
        let Some(protocol) = protocol else { return };
        let told = self
            .0
            .event_loop
            .timed(what, || catch_unwind(AssertUnwindSafe(|| call(&*protocol))));
        if let Err(payload) = told {
            self.0.event_loop.call_exception_handler(&Report {
                message: format!("Fatal error: protocol.{what}() call failed."),
                panic: Some(Panic::new(payload)),
                error: None,
            });
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
            engine.release(key);
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transport")
            .field("fd", &self.fileno())
            .field("closing", &self.is_closing())
            .finish()
    }
}
