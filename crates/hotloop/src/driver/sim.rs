//! A deterministic driver for tests: what becomes ready, and when, is what the test says.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::readiness::{Poller, ReadinessDriver};
use super::{
    Accepted, Address, Batch, Completion, Driver, Interest, Op, OpKey, Outgoing, Readiness, Unsent, Waker,
    Woken,
};
use crate::clock::Manual;

/// A driver over a [`Network`] of scripted descriptors and a manual clock: a wait never blocks, it moves the clock.
///
/// The operations go through the same readiness layer that the real drivers use.
#[derive(Debug)]
pub struct Sim {
    readiness: ReadinessDriver<SimPoller>,
    network: Network,
    /// What was posted for the next wait, if it takes posts at all.
    posts: Option<Vec<(RawFd, Vec<u8>)>>,
    unsent: VecDeque<Unsent>,
}

/// The scripted descriptors of a [`Sim`]. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    sockets: Rc<RefCell<BTreeMap<RawFd, Socket>>>,
}

/// One scripted descriptor.
#[derive(Debug, Default)]
struct Socket {
    /// What will be received, in the pieces in which it comes in. Fed by the test, drained by `receive`.
    incoming: VecDeque<Incoming>,
    /// What was sent. Written by `send`, read by the test.
    sent: Vec<u8>,
    /// The datagrams that were sent, and where to. Written by `send_datagrams`, read by the test.
    datagrams: Vec<(Vec<u8>, Option<Address>)>,
    /// How many more bytes the kernel takes before it has no room. Set by the test, lowered by `send`.
    room: usize,
    /// How many calls of `send` there were.
    sends: usize,
    /// What every `send` fails with. Set by the test.
    broken: Option<io::ErrorKind>,
    /// Whether the sending half was shut down.
    ended: bool,
    /// What the next calls of each kind fail with, before they do anything. Filled by the test.
    faults: BTreeMap<Call, VecDeque<io::ErrorKind>>,
}

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Receiving.
    Receive,
    /// Sending.
    Send,
    /// Telling the kernel to watch.
    Watch,
}

/// A piece of what a scripted descriptor receives.
#[derive(Debug)]
enum Incoming {
    Bytes(Vec<u8>),
    Datagram(Vec<u8>, Address),
    End,
    Error(io::ErrorKind),
}

impl Network {
    /// Opens the descriptor `fd` with room for `room` bytes to send.
    pub fn open(&self, fd: RawFd, room: usize) {
        self.sockets.borrow_mut().insert(
            fd,
            Socket {
                room,
                ..Socket::default()
            },
        );
    }

    /// Closes the descriptor: whatever watches it hears nothing more.
    pub fn close(&self, fd: RawFd) {
        self.sockets.borrow_mut().remove(&fd);
    }

    /// Lets `bytes` come in on `fd`, in one piece.
    pub fn feed(&self, fd: RawFd, bytes: &[u8]) {
        self.incoming(fd, Incoming::Bytes(bytes.to_vec()));
    }

    /// Lets a datagram come in on `fd`.
    pub fn feed_datagram(&self, fd: RawFd, bytes: &[u8], from: Address) {
        self.incoming(fd, Incoming::Datagram(bytes.to_vec(), from));
    }

    /// Lets the peer of `fd` end its stream.
    pub fn feed_end(&self, fd: RawFd) {
        self.incoming(fd, Incoming::End);
    }

    /// Lets the next receive on `fd` fail.
    pub fn feed_error(&self, fd: RawFd, error: io::ErrorKind) {
        self.incoming(fd, Incoming::Error(error));
    }

    /// Gives `fd` room for so many more bytes to send.
    pub fn make_room(&self, fd: RawFd, bytes: usize) {
        if let Some(socket) = self.sockets.borrow_mut().get_mut(&fd) {
            socket.room += bytes;
        }
    }

    /// Lets every send on `fd` fail from now on.
    pub fn break_sends(&self, fd: RawFd, error: io::ErrorKind) {
        if let Some(socket) = self.sockets.borrow_mut().get_mut(&fd) {
            socket.broken = Some(error);
        }
    }

    /// Lets a coming call on `fd` fail without doing anything, behind those that were told so before. The call after it
    /// is not touched.
    pub fn fail_next(&self, fd: RawFd, call: Call, error: io::ErrorKind) {
        if let Some(socket) = self.sockets.borrow_mut().get_mut(&fd) {
            socket.faults.entry(call).or_default().push_back(error);
        }
    }

    /// Whether the sending half of `fd` was shut down.
    #[must_use]
    pub fn has_ended(&self, fd: RawFd) -> bool {
        self.sockets.borrow().get(&fd).is_some_and(|socket| socket.ended)
    }

    /// Takes what was sent on `fd`, and how many calls it took.
    #[must_use]
    pub fn take_sent(&self, fd: RawFd) -> (Vec<u8>, usize) {
        match self.sockets.borrow_mut().get_mut(&fd) {
            Some(socket) => (
                std::mem::take(&mut socket.sent),
                std::mem::take(&mut socket.sends),
            ),
            None => (Vec::new(), 0),
        }
    }

    /// Takes the datagrams that were sent on `fd`, and where to: none is to the peer.
    #[must_use]
    pub fn take_datagrams(&self, fd: RawFd) -> Vec<(Vec<u8>, Option<Address>)> {
        self.sockets
            .borrow_mut()
            .get_mut(&fd)
            .map(|socket| std::mem::take(&mut socket.datagrams))
            .unwrap_or_default()
    }

    fn incoming(&self, fd: RawFd, incoming: Incoming) {
        if let Some(socket) = self.sockets.borrow_mut().get_mut(&fd) {
            socket.incoming.push_back(incoming);
        }
    }

    /// What `act` does, unless the call is to fail.
    fn call<T>(
        &self,
        fd: RawFd,
        call: Call,
        act: impl FnOnce(&mut Socket) -> io::Result<T>,
    ) -> io::Result<T> {
        self.with(fd, |socket| {
            match socket.faults.get_mut(&call).and_then(VecDeque::pop_front) {
                Some(error) => Err(error.into()),
                None => act(socket),
            }
        })
    }

    fn with<T>(&self, fd: RawFd, act: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        match self.sockets.borrow_mut().get_mut(&fd) {
            Some(socket) => act(socket),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }
}

impl Sim {
    /// A driver over `network` whose waits move `clock`.
    #[must_use]
    pub fn new(network: Network, clock: Manual) -> Self {
        let poller = SimPoller {
            network: network.clone(),
            clock,
            watched: BTreeMap::new(),
            waker: Arc::new(Flag::default()),
            waits: Vec::new(),
        };
        Self {
            readiness: ReadinessDriver::new(poller),
            network,
            posts: None,
            unsent: VecDeque::new(),
        }
    }

    /// Takes what is posted, from now on, as a driver that sends with its waits.
    pub fn take_posts(&mut self) {
        self.posts = Some(Vec::new());
    }

    fn send_posted(&mut self, fd: RawFd, mut bytes: Vec<u8>) {
        let sent = self.send(fd, &[io::IoSlice::new(&bytes)]);
        let (count, error) = match sent {
            Ok(count) => (count, None),
            Err(error) if crate::streams::is_transient(&error) => (0, None),
            Err(error) => (0, Some(error)),
        };
        bytes.drain(..count);
        if !bytes.is_empty() {
            self.unsent.push_back(Unsent { fd, bytes, error });
        }
    }

    fn withdraw_post(&mut self, fd: RawFd) -> Option<Vec<u8>> {
        let posts = self.posts.as_mut()?;
        let index = posts.iter().position(|&(posted, _)| posted == fd)?;
        Some(posts.remove(index).1)
    }

    /// The timeouts of the waits so far; `None` is a wait with no end.
    #[must_use]
    pub fn waits(&self) -> &[Option<Duration>] {
        &self.readiness.poller().waits
    }
}

impl Driver for Sim {
    type Waker = Flag;

    fn waker(&self) -> Arc<Flag> {
        self.readiness.waker()
    }

    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.readiness.submit(key, fd, op)
    }

    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op) {
        self.readiness.cancel(key, fd, op);
    }

    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.readiness.replace(key, fd, op)
    }

    fn release(&mut self, fd: RawFd) {
        self.withdraw_post(fd);
    }

    fn post(&mut self, fd: RawFd, bytes: &[u8]) -> bool {
        let Some(posts) = &mut self.posts else {
            return false;
        };
        match posts.iter_mut().find(|(posted, _)| *posted == fd) {
            Some((_, posted)) => posted.extend_from_slice(bytes),
            None => posts.push((fd, bytes.to_vec())),
        }
        true
    }

    fn settle(&mut self, fd: RawFd) {
        if let Some(bytes) = self.withdraw_post(fd) {
            self.send_posted(fd, bytes);
        }
    }

    fn next_unsent(&mut self) -> Option<Unsent> {
        self.unsent.pop_front()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        for (fd, bytes) in self.posts.as_mut().map(std::mem::take).unwrap_or_default() {
            self.send_posted(fd, bytes);
        }
        self.readiness.wait(timeout)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.readiness.next_completion()
    }

    fn has_completions(&self) -> bool {
        self.readiness.has_completions()
    }

    fn has_chores(&self) -> bool {
        self.has_completions() || self.posts.as_ref().is_some_and(|posts| !posts.is_empty())
    }

    fn has_told_all(&self) -> bool {
        self.readiness.has_told_all()
    }

    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.network
            .call(fd, Call::Receive, |socket| match socket.incoming.pop_front() {
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(Incoming::End) => {
                    socket.incoming.push_front(Incoming::End);
                    Ok(0)
                }
                Some(Incoming::Error(error)) => Err(error.into()),
                Some(Incoming::Bytes(mut bytes)) => {
                    let count = bytes.len().min(buffer.len());
                    for (slot, byte) in buffer.iter_mut().zip(bytes.drain(..count)) {
                        slot.write(byte);
                    }
                    if !bytes.is_empty() {
                        socket.incoming.push_front(Incoming::Bytes(bytes));
                    }
                    Ok(count)
                }
                Some(datagram @ Incoming::Datagram(..)) => {
                    socket.incoming.push_front(datagram);
                    Err(io::ErrorKind::InvalidInput.into())
                }
            })
    }

    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.network.call(fd, Call::Send, |socket| {
            socket.sends += 1;
            if let Some(error) = socket.broken {
                return Err(error.into());
            }
            if socket.ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if socket.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let before = socket.sent.len();
            for buffer in buffers {
                let count = buffer.len().min(socket.room);
                socket.sent.extend_from_slice(&buffer[..count]);
                socket.room -= count;
            }
            Ok(socket.sent.len() - before)
        })
    }

    fn read(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.receive(fd, buffer)
    }

    fn write(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.send(fd, buffers)
    }

    fn receive_datagrams(&mut self, fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
        batch.clear();
        while batch.len() < limit {
            match self.next_datagram(fd) {
                Ok((bytes, from)) => {
                    if !batch.push(&bytes, from) {
                        break;
                    }
                }
                Err(error) if batch.is_empty() => return Err(error.into()),
                Err(io::ErrorKind::WouldBlock) => break,
                Err(error) => {
                    self.network.with(fd, |socket| {
                        socket.incoming.push_front(Incoming::Error(error));
                        Ok(())
                    })?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn receive_from(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
        let (bytes, from) = self.next_datagram(fd)?;
        for (slot, &byte) in buffer.iter_mut().zip(&bytes) {
            slot.write(byte);
        }
        Ok((bytes.len().min(buffer.len()), from))
    }

    fn send_datagrams(&mut self, fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        self.network.with(fd, |socket| {
            socket.sends += 1;
            let mut sent = 0;
            for datagram in datagrams {
                let error = match socket.broken {
                    None if socket.room >= datagram.bytes.len() && socket.room > 0 => {
                        socket.room -= datagram.bytes.len();
                        socket
                            .datagrams
                            .push((datagram.bytes.to_vec(), datagram.to.copied()));
                        sent += 1;
                        continue;
                    }
                    // An error of a datagram is told once, and the next one is tried anew.
                    Some(error) if sent == 0 => {
                        socket.broken = None;
                        error
                    }
                    Some(error) => error,
                    None => io::ErrorKind::WouldBlock,
                };
                return if sent > 0 { Ok(sent) } else { Err(error.into()) };
            }
            Ok(sent)
        })
    }

    fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()> {
        self.network.with(fd, |socket| {
            socket.ended = true;
            Ok(())
        })
    }

    fn accept(&mut self, _fd: RawFd) -> io::Result<Accepted> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Sim {
    fn next_datagram(&self, fd: RawFd) -> Result<(Vec<u8>, Address), io::ErrorKind> {
        let next = self
            .network
            .with(fd, |socket| Ok(socket.incoming.pop_front()))
            .map_err(|error| error.kind())?;
        match next {
            None => Err(io::ErrorKind::WouldBlock),
            Some(Incoming::Datagram(bytes, from)) => Ok((bytes, from)),
            Some(Incoming::Error(error)) => Err(error),
            Some(Incoming::Bytes(_) | Incoming::End) => Err(io::ErrorKind::InvalidInput),
        }
    }
}

/// Looks at the scripted descriptors in the place of a kernel.
#[derive(Debug)]
struct SimPoller {
    network: Network,
    /// Moved on by a wait that finds nothing.
    clock: Manual,
    /// What is watched, in order of descriptor number, so that runs repeat.
    watched: BTreeMap<RawFd, (u32, Interest)>,
    waker: Arc<Flag>,
    waits: Vec<Option<Duration>>,
}

impl Poller for SimPoller {
    type Waker = Flag;

    fn waker(&self) -> Arc<Flag> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        self.network.call(fd, Call::Watch, |_| Ok(()))?;
        self.watched.insert(fd, (generation, interest));
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        self.add(fd, generation, interest)
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.watched.remove(&fd);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        self.waits.push(timeout);
        for (&fd, &(generation, interest)) in &self.watched {
            let sockets = self.network.sockets.borrow();
            let Some(socket) = sockets.get(&fd) else { continue };
            let read = interest.read && !socket.incoming.is_empty();
            let write = interest.write && (socket.room > 0 || socket.broken.is_some());
            if read || write {
                found.push(Readiness {
                    fd,
                    generation,
                    ready: Interest {
                        read,
                        write,
                        exclusive: false,
                    },
                });
            }
        }
        if self.waker.0.swap(false, Ordering::SeqCst) || !found.is_empty() {
            return Ok(Woken::Normally);
        }
        match timeout {
            Some(timeout) => {
                self.clock.advance(timeout.as_secs_f64());
                Ok(Woken::Normally)
            }
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing will ever happen: the wait has no end",
            )),
        }
    }

    fn has_told_all(&self) -> bool {
        true
    }

    fn reset(&mut self) -> io::Result<()> {
        self.watched.clear();
        Ok(())
    }
}

/// The waker of a [`Sim`].
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Waker for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
