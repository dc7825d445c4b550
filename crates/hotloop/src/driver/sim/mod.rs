//! A deterministic driver for tests: what becomes ready, and when, is what the test says.

mod chance;
mod network;
mod outside;
mod wires;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use chance::{Chance, Faults};
pub use network::{Call, Network};
pub use outside::Outside;
pub(crate) use outside::Threads;

use self::network::Incoming;
use super::readiness::{Poller, ReadinessDriver};
use super::{
    Accepted, Address, Batch, Completion, Driver, Interest, Op, OpKey, Outgoing, Readiness, SystemWaker,
    Unsent, Waker, Woken,
};
use crate::clock::{Clock, Manual};

/// A driver over a [`Network`] of scripted descriptors and a manual clock: a wait never blocks, it moves the clock.
///
/// The operations go through the same readiness layer that the real drivers use.
#[derive(Debug)]
pub struct Sim<W: Alarm = Flag> {
    readiness: ReadinessDriver<SimPoller<W>>,
    network: Network,
    /// What was posted for the next wait, if it takes posts at all.
    posts: Option<Vec<(RawFd, Vec<u8>)>>,
    unsent: VecDeque<Unsent>,
}

impl Sim {
    /// A driver over `network` whose waits move `clock`.
    #[must_use]
    pub fn new(network: Network, clock: Manual) -> Self {
        Self::over(network, clock, Arc::default(), None)
    }
}

impl Sim<SystemWaker> {
    /// A driver over `network` whose waits move `clock`, and that other threads may wake. While one of them holds an
    /// [`Outside`] it waits for real.
    ///
    /// # Errors
    /// The system's: no descriptor left.
    pub(crate) fn with_threads(network: Network, clock: Manual) -> io::Result<(Self, Threads)> {
        let waker = Arc::new(SystemWaker::new()?);
        let threads = Threads::new(Arc::clone(&waker));
        let sim = Self::over(network, clock, waker, Some(threads.clone()));
        Ok((sim, threads))
    }
}

impl<W: Alarm> Sim<W> {
    fn over(network: Network, clock: Manual, waker: Arc<W>, threads: Option<Threads>) -> Self {
        let poller = SimPoller {
            network: network.clone(),
            clock,
            watched: BTreeMap::new(),
            waker,
            threads,
            waits: Vec::new(),
        };
        Self {
            readiness: ReadinessDriver::new(poller),
            network,
            posts: None,
            unsent: VecDeque::new(),
        }
    }

    /// Begins to connect to an address of the network.
    ///
    /// # Errors
    /// `Unsupported` where nothing is wired; the system's, if no descriptor is left.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> io::Result<OwnedFd> {
        let now = self.now();
        self.wired(|wires, sockets| wires.connect(sockets, address, now))?
    }

    /// Listens at an address of the network.
    ///
    /// # Errors
    /// `AddrInUse`; else as of [`connect`](Self::connect).
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<OwnedFd> {
        self.wired(|wires, sockets| wires.listen(sockets, address))?
    }

    /// How a connection attempt went.
    pub(crate) fn take_error(&mut self, fd: RawFd) -> io::Result<Option<io::Error>> {
        self.wired(|wires, _| wires.take_error(fd))
    }

    /// The names of a descriptor's ends: the near one's, and the far one's.
    pub(crate) fn names(&self, fd: RawFd) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        self.wired(|wires, _| wires.names(fd))?
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The address of a name, which is its own.
    pub(crate) fn resolve(&mut self, host: &str) -> Option<IpAddr> {
        self.network.with_wires(|wires, _| wires.resolve(host))
    }

    fn wired<T>(&self, act: impl FnOnce(&mut wires::Wires, &mut network::Sockets) -> T) -> io::Result<T> {
        self.network
            .with_wires(act)
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn now(&self) -> f64 {
        self.readiness.poller().clock.now()
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

impl<W: Alarm> Driver for Sim<W> {
    type Waker = W;

    fn waker(&self) -> Arc<W> {
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
        let now = self.now();
        self.network
            .with_wires(|wires, sockets| wires.release(sockets, fd, now));
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
            socket.corked = 0;
            let before = socket.sent.len();
            for buffer in buffers {
                let count = buffer.len().min(socket.room);
                socket.sent.extend_from_slice(&buffer[..count]);
                socket.room -= count;
            }
            Ok(socket.sent.len() - before)
        })
    }

    fn send_corked(&mut self, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.send(fd, &[io::IoSlice::new(bytes)])?;
        // As if the bytes before had filled their packets. No time ends it: what is left corked is never sent.
        self.network.with(fd, |socket| {
            socket.corked = sent;
            Ok(sent)
        })
    }

    fn uncork(&mut self, fd: RawFd) {
        let uncorked = self.network.with(fd, |socket| {
            socket.corked = 0;
            Ok(())
        });
        // One that is closed has nothing left.
        drop(uncorked);
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

    fn accept(&mut self, fd: RawFd) -> io::Result<Accepted> {
        self.network.with(fd, |socket| {
            let accepted = socket.accepting.pop_front();
            accepted.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        })
    }
}

impl<W: Alarm> Sim<W> {
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
struct SimPoller<W> {
    network: Network,
    /// Moved on by a wait that finds nothing.
    clock: Manual,
    /// What is watched, in order of descriptor number, so that runs repeat.
    watched: BTreeMap<RawFd, (u32, Interest)>,
    waker: Arc<W>,
    /// Who is waited for, if there are other threads.
    threads: Option<Threads>,
    waits: Vec<Option<Duration>>,
}

impl<W: Alarm> Poller for SimPoller<W> {
    type Waker = W;

    fn waker(&self) -> Arc<W> {
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
        let end = timeout.map(|timeout| self.clock.now() + timeout.as_secs_f64());
        loop {
            let now = self.clock.now();
            self.network
                .with_wires(|wires, sockets| wires.move_on(sockets, now))
                .transpose()?;
            self.network.find_ready(&self.watched, found);
            if self.waker.take() || !found.is_empty() || timeout == Some(Duration::ZERO) {
                return Ok(Woken::Normally);
            }
            if self.threads.as_ref().is_some_and(Threads::are_busy) {
                self.waker.block()?;
                return Ok(Woken::Normally);
            }
            let arrival = self.network.with_wires(|wires, _| wires.next_arrival()).flatten();
            match (arrival, end) {
                (Some(at), Some(end)) if at <= end => self.clock.set(at),
                (Some(at), None) => self.clock.set(at),
                (_, Some(end)) => {
                    self.clock.set(end);
                    return Ok(Woken::Normally);
                }
                (None, None) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "nothing will ever happen: the wait has no end",
                    ));
                }
            }
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

/// A waker that a simulation can ask.
pub trait Alarm: Waker {
    /// Takes the wake-ups that are pending. Answers whether there were any.
    fn take(&self) -> bool;

    /// Waits for one, for real.
    ///
    /// # Errors
    /// The system's; `Unsupported` where nobody else could send one.
    fn block(&self) -> io::Result<()>;
}

/// The waker of a [`Sim`] without threads.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Waker for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Alarm for Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    fn block(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Alarm for SystemWaker {
    fn take(&self) -> bool {
        self.drain()
    }

    fn block(&self) -> io::Result<()> {
        let mut asked = [rustix::event::PollFd::new(self, rustix::event::PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut asked, None))?;
        self.drain();
        Ok(())
    }
}
