//! Stream transports on a loop: the bytes in and out, of sockets and of pipes.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use crate::datagrams::EndpointKey;
use crate::driver::{Direction, Driver, Op, OpKey, PipeKind, Unsent};
use crate::event_loop::{EventLoop, Operation};
use crate::host::Host;
use crate::sys;
use crate::transport::{Close, MAX_SLICES, Stream};

/// Above this many bytes gathered, a stream is flushed without waiting for the end of the turn: there is no gain in
/// larger packets any more, only latency.
const GATHER_LIMIT: usize = 64 * 1024;

/// Up to this many bytes a write is posted where the driver sends with its wait: a copy of that costs less than a call.
const POST_LIMIT: usize = 16 * 1024;

/// Names a stream of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey(pub(crate) usize);

/// News of a stream transport.
#[derive(Debug)]
pub enum StreamEvent {
    /// There is something to [`receive`](EventLoop::receive).
    Readable,
    /// Queued bytes were sent: see whether to resume the protocol, and whether an end is reached.
    Sent,
    /// A send failed for good.
    Broken(io::Error),
}

/// What a write has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Whether bytes wait to be sent.
    pub queued: bool,
    /// Whether `pause_writing` is due.
    pub pause: bool,
}

/// What a stream's bytes move through, which decides by which calls they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    /// A connected socket of the stream's own.
    Socket,
    /// A pipe, a terminal, or whatever else is read and written like a file, a socket among them. It may be shared:
    /// by a second stream on the same number, and by other processes.
    Pipe,
}

/// A stream transport of a loop.
pub(crate) struct StreamEntry<H: Host> {
    fd: RawFd,
    /// What `fd` is, from the beginning to the end.
    medium: Medium,
    state: Stream<Queued<H::Bytes>>,
    /// How many bytes the driver sends with the next wait. Nothing is queued meanwhile.
    posted: usize,
    /// Whether small writes may be posted.
    posts: bool,
    /// In flight while the host wants to receive.
    receiving: Option<OpKey>,
    /// In flight while the kernel has no room.
    sending: Option<OpKey>,
    continuity: Continuity,
}

/// Whether a receive that does not fill its buffer has taken all that there was.
#[derive(Clone, Copy, Debug)]
enum Continuity {
    /// Not for certain: what comes in may have boundaries, as a terminal's lines have.
    Unknown,
    /// It has: this is TCP.
    Certain,
    /// So far it had, in so many receives of a pipe, whose reading end does not know whether the other one writes packets.
    Observed(u32),
}

/// How many receives of a pipe are looked behind at first, and one in how many after that.
const LOOKS: u32 = 16;

impl Continuity {
    /// Whether a receive that did not fill its buffer has taken all.
    fn took_all(&mut self, fd: RawFd) -> bool {
        match self {
            Self::Unknown => false,
            Self::Certain => true,
            Self::Observed(receives) => {
                *receives = receives.wrapping_add(1);
                if *receives > LOOKS && !receives.is_multiple_of(LOOKS) {
                    return true;
                }
                let is_empty = sys::is_empty(fd);
                if !is_empty {
                    *self = Self::Unknown;
                }
                is_empty
            }
        }
    }
}

/// Bytes that wait to be sent.
#[derive(Debug)]
pub enum Queued<B> {
    /// Of a write.
    Written(B),
    /// Of writes that were posted and could not be sent.
    Unsent(Vec<u8>),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Queued<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Written(bytes) => bytes.as_ref(),
            Self::Unsent(bytes) => bytes,
        }
    }
}

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Stream(StreamKey),
    Endpoint(EndpointKey),
}

/// The stream or endpoint of each descriptor, by its number.
#[derive(Debug, Default)]
pub(crate) struct Owners(Vec<Option<Owner>>);

impl Owners {
    /// Gives a descriptor to an owner. Answers the one that had it.
    fn set(&mut self, fd: RawFd, owner: Owner) -> Option<Owner> {
        let index = usize::try_from(fd).ok()?;
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        self.0[index].replace(owner)
    }

    fn get(&self, fd: RawFd) -> Option<Owner> {
        *self.0.get(usize::try_from(fd).ok()?)?
    }

    /// Takes a descriptor from an owner, if it has it.
    pub(crate) fn remove(&mut self, fd: RawFd, owner: Owner) {
        let slot = usize::try_from(fd).ok().and_then(|index| self.0.get_mut(index));
        if let Some(slot) = slot
            && *slot == Some(owner)
        {
            *slot = None;
        }
    }
}

impl<H: Host, D: Driver> EventLoop<H, D> {
    /// Takes a connected, non-blocking stream socket under the loop's wing. It does not read yet.
    ///
    /// The descriptor stays the caller's: it closes it after [`release`](Self::release). The host's object is kept
    /// only while something is awaited for it; one that is given up meanwhile must be released by its owner.
    ///
    /// A stream whose descriptor was closed before its release, so that the number is this one's now, is cut off:
    /// whatever it does next is EBADF.
    pub fn open_stream(&mut self, fd: RawFd) -> StreamKey {
        let key = self.open(fd, Medium::Socket);
        self.take_over(fd, Owner::Stream(key));
        key
    }

    /// Takes a non-blocking descriptor under the loop's wing that is read or written like a file, of the `kind` that
    /// [`prepare_pipe`](crate::driver::prepare_pipe) has found. As for [`open_stream`](Self::open_stream), but:
    ///
    /// - Each write goes to the kernel by itself unless bytes wait already, since a terminal or a pipe that several
    ///   processes write to shows the difference.
    /// - Two of them may have the same descriptor. If both wait on it in the same direction, the later one does.
    /// - A [`close`](Self::close) that still sends goes on receiving the news that it no longer can.
    pub fn open_pipe(&mut self, fd: RawFd, kind: PipeKind) -> StreamKey {
        let key = self.open(fd, Medium::Pipe);
        match self.owners.set(fd, Owner::Stream(key)) {
            Some(Owner::Stream(old)) if self.is(old, Medium::Socket) => self.cut_off(old),
            Some(Owner::Endpoint(old)) => self.cut_endpoint_off(old),
            _ => {}
        }
        if kind == PipeKind::Pipe {
            self.set_continuity(key, Continuity::Observed(0));
        }
        key
    }

    /// Whether a descriptor belongs to a stream.
    pub fn has_stream(&self, fd: RawFd) -> bool {
        self.owners.get(fd).is_some()
    }

    /// The state of a stream; `None` once it is released.
    #[inline]
    pub fn stream(&mut self, key: StreamKey) -> Option<&mut Stream<Queued<H::Bytes>>> {
        self.streams.get_mut(key.0).map(|entry| &mut entry.state)
    }

    /// The host's objects of the streams and endpoints for which something is awaited.
    pub fn streaming(&self) -> impl Iterator<Item = &H::Stream> {
        let awaited = self
            .operations
            .iter()
            .filter_map(|(_, operation)| match operation {
                Operation::Receive(_, host)
                | Operation::Send(_, host)
                | Operation::ReceiveFrom(_, host)
                | Operation::SendTo(_, host) => Some(host),
                _ => None,
            });
        awaited
            .chain(self.posted.iter().chain(&self.gathered).map(|(_, host)| host))
            .chain(self.broken.iter().map(|(_, host, _)| host))
            .chain(self.held.iter().map(|(_, _, host)| host))
    }

    /// Starts receiving. Each turn with something to receive has an event for `host`.
    ///
    /// # Errors
    /// The kernel's, if it refuses the descriptor.
    pub fn start_reading(&mut self, key: StreamKey, host: H::Stream) -> io::Result<()> {
        let Some(entry) = self.streams.get_mut(key.0) else {
            return Ok(());
        };
        if !entry.state.set_reading(true) {
            return Ok(());
        }
        let (fd, op) = (entry.fd, entry.medium.receiving());
        let begun = self.submit(fd, op, Operation::Receive(key, host));
        let entry = &mut self.streams[key.0];
        match begun {
            Ok(operation) => entry.receiving = Some(operation),
            Err(error) => {
                entry.state.set_reading(false);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops receiving. Answers the host's object that was kept for it.
    pub fn stop_reading(&mut self, key: StreamKey) -> Option<H::Stream> {
        let entry = self.streams.get_mut(key.0)?;
        entry.state.set_reading(false);
        self.stop_receiving(key)
    }

    /// Takes received bytes; 0 is the end of the stream. The bytes before that are initialised.
    ///
    /// # Errors
    /// The connection's; `WouldBlock` if there is nothing; `NotFound` if the stream is gone.
    #[inline]
    pub fn receive(&mut self, key: StreamKey, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let entry = self.streams.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        let received = match entry.medium {
            Medium::Socket => self.driver.receive(entry.fd, buffer),
            Medium::Pipe => self.driver.read(entry.fd, buffer),
        };
        self.told.took_all = matches!(received, Ok(count) if count > 0 && count < buffer.len())
            && entry.continuity.took_all(entry.fd);
        received
    }

    /// Notes that a stream is a TCP connection. What comes in has no boundaries then, so a receive that does not fill its
    /// buffer has taken all; and what goes out may be [corked](Self::write).
    pub fn note_tcp(&mut self, key: StreamKey) {
        self.set_continuity(key, Continuity::Certain);
    }

    /// Notes that a stream's descriptor is no connected socket: a write to it fails, and is to say so itself, not the next
    /// turn.
    pub fn note_unconnected(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get_mut(key.0) {
            entry.posts = false;
        }
    }

    fn set_continuity(&mut self, key: StreamKey, continuity: Continuity) {
        if let Some(entry) = self.streams.get_mut(key.0) {
            entry.continuity = continuity;
        }
    }

    /// Writes bytes: the first write of a turn goes to the kernel at once if nothing is queued, later ones in that turn
    /// are gathered until its end. A driver that sends with its wait is given small ones for that instead. `own` makes an
    /// owned buffer of the same bytes; it is called only if some are kept, and `host` is kept until they are sent.
    ///
    /// Where turns of a TCP connection have had several writes, as those of a server that writes a header and then a body,
    /// the first one goes to the kernel with word that more follows (`MSG_MORE`), so that all of them are one
    /// packet. If none follows by the end of the turn, the kernel is told then; it does not wait longer than 200 ms
    /// or so for that.
    ///
    /// # Errors
    /// The connection's: it is broken then. `NotFound` if the stream is gone.
    pub fn write(
        &mut self,
        key: StreamKey,
        bytes: &[u8],
        own: impl FnOnce() -> H::Bytes,
        host: &H::Stream,
    ) -> io::Result<Written> {
        let turn = self.turn;
        if self.post(key, bytes, host) {
            return Ok(Written::default());
        }
        if self.settle(key) {
            self.take_broken(key)?;
        }
        let entry = self.streams.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        let state = &mut entry.state;
        let at_once = entry.medium == Medium::Pipe || state.written_in != turn || turn == 0;
        if at_once && state.queue.is_empty() {
            let corks =
                state.begin_writing(turn) && turn != 0 && matches!(entry.continuity, Continuity::Certain);
            let sent = if corks {
                self.driver.send_corked(entry.fd, bytes)
            } else {
                entry
                    .medium
                    .send(&mut self.driver, entry.fd, &[IoSlice::new(bytes)])
            };
            if corks && sent.is_ok() {
                state.corked = true;
                self.gather(key, host);
            }
            let sent = match sent {
                Ok(sent) if sent == bytes.len() => return Ok(Written::default()),
                Ok(sent) => sent,
                Err(error) if is_transient(&error) => 0,
                Err(error) => return Err(error),
            };
            self.streams[key.0].state.queue.push(Queued::Written(own()), sent);
            if let Err(error) = self.wait_for_room(key, host) {
                self.give_up_sending(key);
                return Err(error);
            }
        } else {
            if !at_once {
                state.write_again();
            }
            state.queue.push(Queued::Written(own()), 0);
            self.flush_or_gather(key, host)?;
        }
        Ok(self.written(key))
    }

    /// Writes several buffers as one, without putting them into one: see [`write`](Self::write). For long ones, which it costs
    /// less to keep than to copy.
    ///
    /// # Errors
    /// The connection's: it is broken then. `NotFound` if the stream is gone.
    pub fn write_lines(
        &mut self,
        key: StreamKey,
        lines: impl IntoIterator<Item = H::Bytes>,
        host: &H::Stream,
    ) -> io::Result<Written> {
        let turn = self.turn;
        if self.settle(key) {
            self.take_broken(key)?;
        }
        let entry = self.streams.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        let state = &mut entry.state;
        let at_once = entry.medium == Medium::Pipe || state.written_in != turn || turn == 0;
        let is_first = at_once && state.queue.is_empty();
        if is_first {
            state.begin_writing(turn);
        } else if !at_once {
            state.write_again();
        }
        for line in lines {
            state.queue.push(Queued::Written(line), 0);
        }
        if is_first {
            self.flush(key, host)?;
        } else {
            self.flush_or_gather(key, host)?;
        }
        Ok(self.written(key))
    }

    /// What has broken the stream by what was posted before a write: that write tells it, and the next turn does not.
    #[cold]
    fn take_broken(&mut self, key: StreamKey) -> io::Result<()> {
        let broken = self.broken.iter().position(|(broken, _, _)| *broken == key);
        match broken.and_then(|index| self.broken.remove(index)) {
            None => Ok(()),
            Some((_, host, error)) => {
                self.discarded.push(host);
                Err(error)
            }
        }
    }

    /// Sees to what a write has queued: now where it is much or outside a turn, or else at the end of the turn.
    fn flush_or_gather(&mut self, key: StreamKey, host: &H::Stream) -> io::Result<()> {
        let entry = &self.streams[key.0];
        if entry.sending.is_none() {
            let queued = entry.state.queue.len();
            if self.turn == 0 || queued >= GATHER_LIMIT || entry.state.flow.is_above(queued) {
                return self.flush(key, host);
            }
            self.gather(key, host);
        }
        Ok(())
    }

    /// What a write has led to.
    fn written(&mut self, key: StreamKey) -> Written {
        let state = &mut self.streams[key.0].state;
        let queued = state.queue.len();
        Written {
            queued: queued > 0,
            pause: state.flow.pause_at(queued),
        }
    }

    /// Sends what is queued, as far as the kernel takes it; the rest follows when it has room.
    ///
    /// # Errors
    /// The connection's: it is broken then.
    pub fn flush(&mut self, key: StreamKey, host: &H::Stream) -> io::Result<()> {
        let flushed = self.send_queued(key, host);
        if flushed.is_err() {
            self.give_up_sending(key);
        }
        flushed
    }

    /// Sends the posted and the gathered writes of one stream, so that what comes next on its descriptor keeps its place behind
    /// them. A failure is told on the next turn.
    pub fn flush_now(&mut self, key: StreamKey) {
        self.settle(key);
        if self.stream(key).is_some_and(|state| state.gathered) {
            let found = self.gathered.iter().position(|&(gathered, _)| gathered == key);
            if let Some((key, host)) = found.map(|index| self.gathered.remove(index)) {
                self.flush_one(key, host);
            }
        }
    }

    /// Begins the orderly end of a stream.
    pub fn close(&mut self, key: StreamKey) -> Close {
        self.flush_now(key);
        let Some(state) = self.stream(key) else {
            return Close::Already;
        };
        let close = state.close();
        if close != Close::AfterFlush || !self.is(key, Medium::Pipe) {
            self.discard_receiving(key);
        }
        close
    }

    /// Ends a stream at once. Answers whether `connection_lost` is due.
    pub fn abort(&mut self, key: StreamKey) -> bool {
        self.flush_now(key);
        // Whatever broke it has been overtaken.
        self.forget_pending(key);
        let Some(state) = self.stream(key) else {
            return false;
        };
        let first = state.abort();
        self.discard_receiving(key);
        self.stop_sending(key);
        first
    }

    /// Ends the sending half after the last queued byte.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_eof(&mut self, key: StreamKey) -> io::Result<()> {
        self.flush_now(key);
        if self.stream(key).is_some_and(Stream::write_eof) {
            self.shutdown_write(key)
        } else {
            Ok(())
        }
    }

    /// Ends the sending half now.
    ///
    /// # Errors
    /// The socket's.
    pub fn shutdown_write(&mut self, key: StreamKey) -> io::Result<()> {
        match self.streams.get(key.0) {
            Some(entry) => self.driver.shutdown_write(entry.fd),
            None => Ok(()),
        }
    }

    /// Forgets a stream, before its descriptor is closed. The key may name another stream from now on.
    pub fn release(&mut self, key: StreamKey) {
        self.settle(key);
        self.uncork(key);
        self.discard_receiving(key);
        self.stop_sending(key);
        self.forget_pending(key);
        self.let_go(key);
        if let Some(entry) = self.streams.try_remove(key.0) {
            self.owners.remove(entry.fd, Owner::Stream(key));
        }
    }

    /// Whether there is something for [`take_discarded`](Self::take_discarded).
    #[inline]
    pub fn has_discarded(&self) -> bool {
        !self.discarded.is_empty()
    }

    /// The host's objects that are awaited for no longer, for the host to drop when it holds nothing borrowed.
    #[must_use]
    pub fn take_discarded(&mut self) -> Vec<H::Stream> {
        std::mem::take(&mut self.discarded)
    }

    /// Has all that was posted sent now: no wait comes soon.
    pub(crate) fn settle_all(&mut self) {
        for index in 0..self.posted.len() {
            let key = self.posted[index].0;
            if let Some(entry) = self.streams.get(key.0).filter(|entry| entry.posted > 0) {
                self.driver.settle(entry.fd);
            }
        }
        self.take_unsent();
    }

    /// Queues what was posted and could not be sent, after a wait. Nobody has to be paused for it: no more is posted
    /// than may wait.
    #[inline]
    pub(crate) fn take_unsent(&mut self) {
        if self.posted.is_empty() {
            return;
        }
        self.queue_unsent();
        let Self {
            posted,
            streams,
            discarded,
            ..
        } = self;
        for (key, host) in posted.drain(..) {
            if let Some(entry) = streams.get_mut(key.0) {
                entry.posted = 0;
            }
            discarded.push(host);
        }
    }

    /// Flushes every stream that was written to more than once in the turn.
    #[inline]
    pub(crate) fn flush_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.flush_all();
        }
    }

    fn flush_all(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        for (key, host) in gathered.drain(..) {
            self.flush_one(key, host);
        }
        // Kept for its room; flushing gathers nothing.
        self.gathered = gathered;
    }

    /// Has the end of the turn see to a stream.
    fn gather(&mut self, key: StreamKey, host: &H::Stream) {
        if let Some(state) = self.streams.get_mut(key.0).map(|entry| &mut entry.state)
            && !std::mem::replace(&mut state.gathered, true)
        {
            self.gathered.push((key, host.clone()));
        }
    }

    /// Has the kernel send what it was told more would follow.
    fn uncork(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get_mut(key.0)
            && std::mem::take(&mut entry.state.corked)
        {
            self.driver.uncork(entry.fd);
        }
    }

    fn flush_one(&mut self, key: StreamKey, host: H::Stream) {
        let Some(entry) = self.streams.get_mut(key.0) else {
            self.discarded.push(host);
            return;
        };
        entry.state.gathered = false;
        if entry.sending.is_some() {
            // The kernel had no room meanwhile: what is queued goes out with the news that it has, and that news must
            // come, since a paused protocol and an end of writing wait for it.
            self.discarded.push(host);
        } else {
            match self.flush(key, &host) {
                Ok(()) => self.discarded.push(host),
                Err(error) => self.broken.push_back((key, host, error)),
            }
        }
        // If nothing has followed.
        self.uncork(key);
    }

    fn open(&mut self, fd: RawFd, medium: Medium) -> StreamKey {
        StreamKey(self.streams.insert(StreamEntry {
            fd,
            medium,
            state: Stream::default(),
            posted: 0,
            posts: true,
            receiving: None,
            sending: None,
            continuity: Continuity::Unknown,
        }))
    }

    fn is(&self, key: StreamKey, medium: Medium) -> bool {
        self.streams
            .get(key.0)
            .is_some_and(|entry| entry.medium == medium)
    }

    /// Takes from a pipe what it waits for on a descriptor in one direction, in favour of whoever has come for it
    /// later. Answers the operation, which still waits; the caller replaces it.
    pub(crate) fn displace(&mut self, fd: RawFd, direction: Direction) -> Option<OpKey> {
        // Rare enough to look through all of them: two ends of a program that share a descriptor.
        let (_, entry) = self
            .streams
            .iter_mut()
            .find(|(_, entry)| entry.fd == fd && entry.medium == Medium::Pipe && entry.waits(direction))?;
        let operation = match direction {
            Direction::Read => entry.receiving.take(),
            Direction::Write => entry.sending.take(),
        }?;
        let host = self.end_for_stream(operation);
        self.discarded.extend(host);
        Some(operation)
    }

    /// Gives a descriptor to a stream or an endpoint that is opened on it.
    pub(crate) fn take_over(&mut self, fd: RawFd, owner: Owner) {
        match self.owners.set(fd, owner) {
            Some(Owner::Stream(old)) => self.cut_off(old),
            Some(Owner::Endpoint(old)) => self.cut_endpoint_off(old),
            None => {}
        }
    }

    /// Gives the driver bytes to send with its wait. Answers whether it has taken them: outside a turn, behind what is
    /// queued, and of more than a little it has not.
    #[inline]
    fn post(&mut self, key: StreamKey, bytes: &[u8], host: &H::Stream) -> bool {
        let Some(entry) = self.streams.get_mut(key.0) else {
            return false;
        };
        let posted = entry.posted + bytes.len();
        if self.turn == 0
            || entry.fd < 0
            || !entry.posts
            || bytes.is_empty()
            || entry.medium != Medium::Socket
            || bytes.len() > POST_LIMIT
            || posted > GATHER_LIMIT
            || !entry.state.queue.is_empty()
            || entry.state.flow.is_above(posted)
            || !self.driver.post(entry.fd, bytes)
        {
            return false;
        }
        if entry.posted == 0 {
            entry.state.written_in = self.turn;
            self.posted.push((key, host.clone()));
        }
        entry.posted = posted;
        true
    }

    /// Has what was posted for a stream sent now. Answers whether there was something.
    fn settle(&mut self, key: StreamKey) -> bool {
        let Some(entry) = self.streams.get_mut(key.0) else {
            return false;
        };
        if entry.posted == 0 {
            return false;
        }
        entry.posted = 0;
        self.driver.settle(entry.fd);
        self.queue_unsent();
        true
    }

    /// Queues what the driver could not send, and has its streams wait for room. What broke one is told in the next
    /// turn.
    fn queue_unsent(&mut self) {
        while let Some(Unsent { fd, bytes, error }) = self.driver.next_unsent() {
            let Some(Owner::Stream(key)) = self.owners.get(fd) else {
                continue;
            };
            let posted = self.posted.iter().find(|&&(posted, _)| posted == key);
            let Some((_, host)) = posted.cloned() else {
                continue;
            };
            // After an error too: what is written before that is told must not come to stand in their place.
            self.streams[key.0].state.queue.push(Queued::Unsent(bytes), 0);
            let waits = match error {
                Some(error) => Err(error),
                None => self.wait_for_room(key, &host),
            };
            match waits {
                Ok(()) => self.discarded.push(host),
                Err(error) => {
                    self.give_up_sending(key);
                    self.broken.push_back((key, host, error));
                }
            }
        }
    }

    /// Sends what is queued, for [`flush`](Self::flush), which sees to what an error leaves.
    fn send_queued(&mut self, key: StreamKey, host: &H::Stream) -> io::Result<()> {
        let Some(entry) = self.streams.get_mut(key.0) else {
            return Ok(());
        };
        while !entry.state.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = entry.state.queue.slices(&mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            match entry.medium.send(&mut self.driver, entry.fd, &slices[..count]) {
                Ok(sent) => {
                    entry.state.corked = false;
                    entry.state.queue.advance(sent);
                    if sent == offered {
                        continue;
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
            return self.wait_for_room(key, host);
        }
        self.stop_sending(key);
        Ok(())
    }

    /// Takes the descriptor from a stream: what it has queued must not reach whoever has the number now.
    fn cut_off(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get_mut(key.0) {
            entry.posted = 0;
        }
        self.discard_receiving(key);
        self.stop_sending(key);
        self.let_go(key);
        if let Some(entry) = self.streams.get_mut(key.0) {
            entry.fd = -1;
        }
    }

    /// Has the driver let go of a socket. A pipe's descriptor may be another's too, and a driver keeps nothing for it.
    fn let_go(&mut self, key: StreamKey) {
        if let Some(entry) = self.streams.get(key.0)
            && entry.medium == Medium::Socket
        {
            self.driver.release(entry.fd);
        }
    }

    fn wait_for_room(&mut self, key: StreamKey, host: &H::Stream) -> io::Result<()> {
        let StreamEntry {
            fd, sending: None, ..
        } = self.streams[key.0]
        else {
            return Ok(());
        };
        let operation = self.submit(fd, Op::Send, Operation::Send(key, host.clone()))?;
        self.streams[key.0].sending = Some(operation);
        Ok(())
    }

    /// Ends the receiving operation. Answers the host's object that was kept for it.
    fn stop_receiving(&mut self, key: StreamKey) -> Option<H::Stream> {
        let entry = self.streams.get_mut(key.0)?;
        let (fd, op) = (entry.fd, entry.medium.receiving());
        let operation = entry.receiving.take()?;
        self.driver.cancel(operation, fd, op);
        self.end_for_stream(operation)
    }

    fn discard_receiving(&mut self, key: StreamKey) {
        let host = self.stop_receiving(key);
        self.discarded.extend(host);
    }

    fn stop_sending(&mut self, key: StreamKey) {
        let Some(entry) = self.streams.get_mut(key.0) else {
            return;
        };
        let fd = entry.fd;
        if let Some(operation) = entry.sending.take() {
            self.driver.cancel(operation, fd, Op::Send);
            let host = self.end_for_stream(operation);
            self.discarded.extend(host);
        }
    }

    /// Lets a stream that is broken send nothing more, not even at its end: nothing may follow the error that is told
    /// of it. What is queued stays until that end, which waits for it.
    fn give_up_sending(&mut self, key: StreamKey) {
        self.stop_sending(key);
        self.forget_gathered(key);
    }

    /// Forgets what the end of the turn would do for a stream, and what the next one would tell it.
    fn forget_pending(&mut self, key: StreamKey) {
        self.forget_gathered(key);
        while let Some(index) = self.broken.iter().position(|(broken, _, _)| *broken == key) {
            let host = self.broken.remove(index).map(|(_, host, _)| host);
            self.discarded.extend(host);
        }
    }

    fn forget_gathered(&mut self, key: StreamKey) {
        if let Some(state) = self.stream(key) {
            state.gathered = false;
        }
        let gathered = self
            .gathered
            .extract_if(.., |(gathered, _)| *gathered == key)
            .map(|(_, host)| host);
        self.discarded.extend(gathered);
    }
}

impl<H: Host> StreamEntry<H> {
    fn waits(&self, direction: Direction) -> bool {
        match direction {
            Direction::Read => self.receiving.is_some(),
            Direction::Write => self.sending.is_some(),
        }
    }
}

impl Medium {
    /// By what operation it is received from.
    fn receiving(self) -> Op {
        match self {
            Self::Socket => Op::Receive,
            Self::Pipe => Op::Read,
        }
    }

    #[inline]
    fn send(self, driver: &mut impl Driver, fd: RawFd, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket => driver.send(fd, buffers),
            Self::Pipe => driver.write(fd, buffers),
        }
    }
}

/// Whether a send is worth trying again later.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
