//! Streams under a transport: sockets and pipes with their protocols.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};

use super::buffered::{BufferedProtocol, lend};
use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::future::Future;
use super::host::{Engine, Hosted};
use super::protocol::Protocol;
use super::server::Client;
use super::transport::Transport;
use crate::driver::{Direction, PipeKind, SocketAddress};
use crate::transport::{Close, InvalidLimits};
use crate::{StreamEvent, StreamKey, Written, driver, sys};

/// A socket or one end of a pipe with its protocol, which knows it as a [`Transport`]. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Stream(Rc<State>);

/// The same for whoever does not keep it.
pub(crate) struct WeakStream(Weak<State>);

/// What the bytes of a stream move through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A connected socket.
    Socket,
    /// What is only read, like a file.
    ReadPipe(PipeKind),
    /// What is only written, like a file.
    WritePipe(PipeKind),
}

struct State {
    event_loop: BaseEventLoop,
    /// What `socket` is.
    medium: Medium,
    /// None after `connection_lost`.
    key: Cell<Option<StreamKey>>,
    /// The descriptor. Closed after `connection_lost`.
    socket: RefCell<Option<OwnedFd>>,
    /// Taken after `connection_lost`.
    protocol: RefCell<Option<Rc<dyn Protocol>>>,
    peer: Option<SocketAddress>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// Counts it among the server's clients.
    client: RefCell<Option<Client>>,
    /// A file is being sent: nothing else is.
    sending_file: Cell<bool>,
    /// Resolved when nothing is queued or, while a file is sent, when there is room; cancelled when it is lost.
    room: RefCell<Option<Future<()>>>,
}

impl Stream {
    /// Begins with a non-blocking descriptor: `connection_made` and reading follow on the next turns.
    pub(crate) fn open(
        event_loop: &BaseEventLoop,
        socket: OwnedFd,
        medium: Medium,
        protocol: Rc<dyn Protocol>,
        client: Option<Client>,
    ) -> Result<Self, Error> {
        let fd = socket.as_raw_fd();
        let (key, peer) = event_loop.with_engine(|engine| {
            let peer = engine.driver().peer_address(fd).ok();
            let key = match medium {
                Medium::Socket => {
                    // Only TCP has it.
                    let is_tcp = driver::set_nodelay(fd).is_ok();
                    let key = engine.open_stream(fd);
                    if is_tcp {
                        engine.note_tcp(key);
                    }
                    key
                }
                Medium::ReadPipe(kind) | Medium::WritePipe(kind) => engine.open_pipe(fd, kind),
            };
            (key, peer)
        })?;
        let stream = Self(Rc::new(State {
            event_loop: event_loop.clone(),
            medium,
            key: Cell::new(Some(key)),
            peer,
            socket: RefCell::new(Some(socket)),
            protocol: RefCell::new(Some(protocol)),
            paused: Cell::new(false),
            client: RefCell::new(client),
            sending_file: Cell::new(false),
            room: RefCell::new(None),
        }));
        let begun = stream.clone();
        event_loop.call_soon(move || {
            begun.tell("connection_made", |protocol, transport| {
                protocol.connection_made(transport)
            });
            let reading = begun.clone();
            // Closed meanwhile, it does not read.
            drop(begun.0.event_loop.call_soon(move || {
                if !reading.0.paused.get() && reading.0.medium.receives() {
                    reading.start_reading();
                }
            }));
        })?;
        Ok(stream)
    }

    pub(crate) fn write(&self, data: &[u8]) -> Result<(), Error> {
        self.write_by(data.is_empty(), |engine, key, host| {
            engine.write(key, data, || data.to_vec(), host)
        })
    }

    /// Writes buffers, of which none is empty.
    pub(crate) fn writelines(&self, lines: Vec<Vec<u8>>) -> Result<(), Error> {
        self.write_by(lines.is_empty(), |engine, key, host| {
            engine.write_lines(key, lines, host)
        })
    }

    /// Writes, where a write is not refused or in vain.
    fn write_by(
        &self,
        nothing: bool,
        write: impl FnOnce(&mut Engine, StreamKey, &Hosted) -> io::Result<Written>,
    ) -> Result<(), Error> {
        if !self.0.medium.sends() {
            return Err(Error::Io(io::ErrorKind::Unsupported.into()));
        }
        if self.0.sending_file.get() {
            let busy = "unable to write; sendfile is in progress";
            return Err(Error::Io(io::Error::new(io::ErrorKind::ResourceBusy, busy)));
        }
        let Some(key) = self.0.key.get() else {
            return Ok(());
        };
        let is_pipe = self.0.medium != Medium::Socket;
        let written = self.0.event_loop.with_engine(|engine| {
            let stream = engine.stream(key)?;
            if stream.is_eof_written() {
                return Some(Err(Error::EndWritten));
            }
            if stream.is_lost() || nothing || (is_pipe && stream.is_closing()) {
                return None;
            }
            Some(Ok(write(engine, key, &Hosted::Stream(self.clone()))))
        });
        match written {
            Ok(None) | Err(_) => {}
            Ok(Some(Err(error))) => return Err(error),
            Ok(Some(Ok(Ok(written)))) => {
                if written.pause {
                    self.tell("pause_writing", |protocol, transport| {
                        protocol.pause_writing(transport)
                    });
                }
            }
            Ok(Some(Ok(Err(error)))) => self.fail(error),
        }
        Ok(())
    }

    pub(crate) fn can_write_eof(&self) -> bool {
        self.0.medium.sends()
    }

    pub(crate) fn write_eof(&self) {
        if self.0.medium != Medium::Socket {
            // A pipe has nothing but its sending half.
            return self.close();
        }
        if let Some(key) = self.0.key.get() {
            let ended = self.0.event_loop.with_engine(|engine| engine.write_eof(key));
            if let Ok(Err(error)) = ended {
                self.fail(error);
            }
        }
    }

    pub(crate) fn close(&self) {
        let Some(key) = self.0.key.get() else { return };
        let close = self.0.event_loop.with_engine(|engine| engine.close(key));
        if matches!(close, Ok(Close::LostSoon)) {
            self.lose_soon(None);
        }
    }

    pub(crate) fn abort(&self) {
        self.end(None);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.stream(|stream| stream.is_closing()).unwrap_or(true)
    }

    pub(crate) fn pause_reading(&self) {
        if matches!(self.0.medium, Medium::WritePipe(_)) {
            return;
        }
        self.0.paused.set(true);
        if let Some(key) = self.0.key.get() {
            let kept = self.0.event_loop.with_engine(|engine| engine.stop_reading(key));
            drop(kept);
        }
    }

    pub(crate) fn resume_reading(&self) {
        if self.0.paused.replace(false) {
            self.start_reading();
        }
    }

    /// Whether `pause_reading` was called and `resume_reading` was not.
    pub(crate) fn is_paused(&self) -> bool {
        self.0.paused.get()
    }

    pub(crate) fn is_reading(&self) -> bool {
        self.0.medium.is_read() && self.stream(|stream| stream.is_reading()).unwrap_or(false)
    }

    pub(crate) fn get_write_buffer_size(&self) -> usize {
        self.stream(|stream| stream.queue.len()).unwrap_or(0)
    }

    pub(crate) fn set_write_buffer_limits(
        &self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), InvalidLimits> {
        self.stream(|stream| stream.flow.set_limits(high, low))
            .unwrap_or(Ok(()))
    }

    pub(crate) fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.stream(|stream| stream.flow.limits()).unwrap_or((0, 0))
    }

    pub(crate) fn peer(&self) -> Option<&SocketAddress> {
        self.0.peer.as_ref()
    }

    pub(crate) fn fileno(&self) -> Option<RawFd> {
        self.0.socket.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        let old = self.0.protocol.replace(Some(protocol));
        drop(old);
    }

    pub(crate) fn event_loop(&self) -> &BaseEventLoop {
        &self.0.event_loop
    }

    /// Waits until all that was written is the kernel's.
    pub(crate) async fn flushed(&self) -> Result<(), Error> {
        let Some(key) = self.0.key.get() else {
            return Err(aborted());
        };
        self.0.event_loop.with_engine(|engine| engine.flush_now(key))?;
        if self.stream(|stream| stream.queue.is_empty()).unwrap_or(true) {
            return Ok(());
        }
        let room = self.0.room.borrow().clone();
        let room = room.unwrap_or_else(|| {
            let room = self.0.event_loop.create_future();
            *self.0.room.borrow_mut() = Some(room.clone());
            room
        });
        room.await.map_err(|_| aborted())
    }

    /// Waits until the kernel takes more.
    pub(crate) async fn writable(&self, fd: RawFd) -> Result<(), Error> {
        let event_loop = &self.0.event_loop;
        let room = event_loop.create_future();
        *self.0.room.borrow_mut() = Some(room.clone());
        let waited = event_loop.wait_for(fd, Direction::Write, room).await;
        waited.map_err(|error| {
            if matches!(error, Error::Cancelled) {
                aborted()
            } else {
                error
            }
        })
    }

    /// Says that a file is being sent, or no longer. Answers whether one was.
    pub(crate) fn set_sending_file(&self, sends: bool) -> bool {
        self.0.sending_file.replace(sends)
    }

    pub(crate) fn downgrade(&self) -> WeakStream {
        WeakStream(Rc::downgrade(&self.0))
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.0.medium == Medium::Socket
    }

    /// Ends it at once by an error, which the protocol is told.
    pub(crate) fn fail(&self, error: io::Error) {
        self.end(Some(error));
    }

    /// Parts it from its protocol, without a word.
    pub(crate) fn let_go(&self) {
        let protocol = self.0.protocol.borrow_mut().take();
        drop(protocol);
    }

    /// News of the engine.
    pub(crate) fn on_event(&self, news: StreamEvent) {
        match news {
            // What is written to is readable when nobody reads it any more.
            StreamEvent::Readable if !self.0.medium.is_read() => {
                self.hung_up();
            }
            StreamEvent::Readable => self.receive(),
            StreamEvent::Sent => self.sent(),
            StreamEvent::Broken(error) => self.fail(error),
        }
    }

    fn receive(&self) {
        let Some(key) = self.0.key.get() else { return };
        let protocol = self.0.protocol.borrow().clone();
        if let Some(buffered) = protocol.as_deref().and_then(Protocol::buffered) {
            return self.receive_into(buffered, key);
        }
        let state = &self.0.event_loop.0;
        // Out while the protocol looks at it: one that runs a turn of its own would find none, and does not.
        let mut scratch = state.scratch.take();
        let received = self
            .0
            .event_loop
            .with_engine(|engine| sys::fill(&mut scratch, |buffer| engine.receive(key, buffer)));
        if let Some(count) = self.received(received) {
            self.tell("data_received", |protocol, transport| {
                protocol.data_received(transport, &scratch[..count]);
            });
        }
        state.scratch.replace(scratch);
    }

    /// Receives to where a protocol wants it.
    fn receive_into(&self, protocol: &dyn BufferedProtocol, key: StreamKey) {
        let event_loop = &self.0.event_loop;
        let mut received = Err(Error::Closed);
        self.tell("get_buffer", |_, transport| {
            received = lend(protocol, transport, None, |buffer| {
                event_loop.with_engine(|engine| sys::fill(buffer, |buffer| engine.receive(key, buffer)))
            });
        });
        if let Some(count) = self.received(received) {
            self.tell("buffer_updated", |_, transport| {
                protocol.buffer_updated(transport, count)
            });
        }
    }

    /// Answers how many bytes came in, if any did; ends and errors are dealt with.
    fn received(&self, received: Result<io::Result<usize>, Error>) -> Option<usize> {
        match received {
            Err(_) => {}
            Ok(Ok(0)) => self.receive_end(),
            Ok(Ok(count)) => return Some(count),
            Ok(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Ok(Err(error)) => self.fail(error),
        }
        None
    }

    fn receive_end(&self) {
        let mut keep_open = false;
        self.tell("eof_received", |protocol, transport| {
            keep_open = protocol.eof_received(transport);
        });
        if !keep_open || self.0.medium != Medium::Socket {
            self.close();
        } else if let Some(key) = self.0.key.get() {
            let kept = self.0.event_loop.with_engine(|engine| engine.stop_reading(key));
            drop(kept);
        }
    }

    fn hung_up(&self) {
        let queued = self.stream(|stream| !stream.queue.is_empty()).unwrap_or(false);
        self.end(queued.then(|| io::ErrorKind::BrokenPipe.into()));
    }

    fn sent(&self) {
        let is_socket = self.0.medium == Medium::Socket;
        let resume = self.stream(|stream| {
            let queued = stream.queue.len();
            // asyncio's transport of a pipe resumes when all is written, not at the low mark.
            (is_socket || queued == 0) && stream.flow.resume_at(queued)
        });
        if resume == Some(true) {
            self.tell("resume_writing", |protocol, transport| {
                protocol.resume_writing(transport)
            });
        }
        let ended = self.stream(|stream| {
            (
                stream.queue.is_empty(),
                stream.is_eof_written(),
                stream.finish_close(),
            )
        });
        if matches!(ended, Some((true, ..))) {
            let room = self.0.room.borrow_mut().take();
            // Whoever waited may be gone.
            drop(room.map(|room| room.set_result(())));
        }
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
                .with_engine(|engine| engine.start_reading(key, Hosted::Stream(self.clone())));
            if let Ok(Err(error)) = started {
                self.fail(error);
            }
        }
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
        self.tell("connection_lost", |protocol, transport| {
            protocol.connection_lost(transport, error);
        });
        if let Some(key) = self.0.key.take() {
            drop(self.0.event_loop.with_engine(|engine| engine.release(key)));
        }
        let room = self.0.room.borrow_mut().take();
        if let Some(room) = room {
            room.cancel();
        }
        let socket = self.0.socket.borrow_mut().take();
        if self.0.sending_file.get()
            && let Some(socket) = &socket
        {
            self.0.event_loop.unwatch(socket.as_raw_fd(), Direction::Write);
        }
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
    fn tell(&self, what: &str, call: impl FnOnce(&dyn Protocol, &Transport)) {
        let protocol = self.0.protocol.borrow().clone();
        let Some(protocol) = protocol else { return };
        let transport = Transport::from(self.clone());
        if !self
            .0
            .event_loop
            .tell_protocol(what, || call(&*protocol, &transport))
        {
            self.abort();
        }
    }
}

/// Why what waited for a connection failed, when that is lost.
pub(crate) fn aborted() -> Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the connection was lost or closed",
    )
    .into()
}

impl WeakStream {
    /// The stream, if anybody has it.
    pub(crate) fn upgrade(&self) -> Option<Stream> {
        self.0.upgrade().map(Stream)
    }
}

impl Medium {
    /// Whether bytes come in.
    fn is_read(self) -> bool {
        matches!(self, Self::Socket | Self::ReadPipe(_))
    }

    /// Whether it can be written to.
    fn sends(self) -> bool {
        !matches!(self, Self::ReadPipe(_))
    }

    /// Whether the kernel is asked what comes in, be it the news that nobody reads any more.
    fn receives(self) -> bool {
        match self {
            Self::Socket | Self::ReadPipe(_) => true,
            Self::WritePipe(kind) => kind.hangs_up(),
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

impl fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transport")
            .field("fd", &self.fileno())
            .field("closing", &self.is_closing())
            .finish()
    }
}
