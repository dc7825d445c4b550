//! The scripted descriptors of a simulation.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chance::Chance;
use super::wires::Wires;
use crate::driver::{Accepted, Address, Interest, Readiness};

/// The scripted descriptors of a [`Sim`](super::Sim). Clones share them.
///
/// The locks are there because a driver may be sent to another thread; nobody ever waits for them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    sockets: Arc<Mutex<Sockets>>,
    /// Joins descriptors to connections, where there are any.
    wires: Option<Arc<Mutex<Wires>>>,
}

/// Scripted descriptors by their numbers.
pub(super) type Sockets = BTreeMap<RawFd, Socket>;

/// One scripted descriptor.
#[derive(Debug, Default)]
pub(super) struct Socket {
    /// The place of the descriptor among those that are ready at once. By its number unless it is given another.
    pub(super) order: u64,
    /// What will be received, in the pieces in which it comes in. Fed by the test or by wires, drained by `receive`.
    pub(super) incoming: VecDeque<Incoming>,
    /// Connections that wait to be accepted. Filled by wires, drained by `accept`.
    pub(super) accepting: VecDeque<Accepted>,
    /// What was sent. Written by `send`, read by the test or by wires.
    pub(super) sent: Vec<u8>,
    /// How many bytes of that, at its end, the kernel keeps until more come or it is uncorked.
    pub(super) corked: usize,
    /// The datagrams that were sent, and where to. Written by `send_datagrams`, read by the test.
    pub(super) datagrams: Vec<(Vec<u8>, Option<Address>)>,
    /// How many more bytes the kernel takes before it has no room. Set by the test or by wires, lowered by `send`.
    pub(super) room: usize,
    /// How many calls of `send` there were.
    pub(super) sends: usize,
    /// What every `send` fails with. Set by the test or by wires.
    pub(super) broken: Option<io::ErrorKind>,
    /// Whether the sending half was shut down.
    pub(super) ended: bool,
    /// What the next calls of each kind fail with, before they do anything. Filled by the test.
    pub(super) faults: BTreeMap<Call, VecDeque<io::ErrorKind>>,
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
pub(super) enum Incoming {
    Bytes(Vec<u8>),
    Datagram(Vec<u8>, Address),
    End,
    Error(io::ErrorKind),
}

impl Socket {
    /// Takes what has left the kernel.
    pub(super) fn take_sent(&mut self) -> Vec<u8> {
        if self.ended {
            self.corked = 0;
        }
        let kept = self.sent.split_off(self.sent.len() - self.corked);
        std::mem::replace(&mut self.sent, kept)
    }
}

impl Network {
    /// A network whose descriptors are joined to connections, as chance has it.
    ///
    /// # Errors
    /// The system's: no descriptor left.
    pub fn wired(chance: Chance) -> io::Result<Self> {
        Ok(Self {
            sockets: Arc::default(),
            wires: Some(Arc::new(Mutex::new(Wires::new(chance)?))),
        })
    }

    /// Does something with what is drawn of a wired network.
    pub(crate) fn with_chance<T>(&self, act: impl FnOnce(&mut Chance) -> T) -> Option<T> {
        self.with_wires(|wires, _| act(&mut wires.chance))
    }

    /// How many ends of connections are open.
    pub(crate) fn open_ends(&self) -> usize {
        self.with_wires(|wires, _| wires.open_ends()).unwrap_or(0)
    }

    /// Breaks every connection.
    pub(crate) fn reset_all(&self) {
        self.with_wires(|wires, sockets| wires.reset_all(sockets));
    }

    /// Does something with the wires, if there are any.
    pub(super) fn with_wires<T>(&self, act: impl FnOnce(&mut Wires, &mut Sockets) -> T) -> Option<T> {
        let wires = self.wires.as_ref()?;
        Some(act(&mut lock(wires), &mut lock(&self.sockets)))
    }

    /// What of the watched descriptors is ready. Of a wired network in an order of chance.
    pub(super) fn find_ready(&self, watched: &BTreeMap<RawFd, (u32, Interest)>, found: &mut Vec<Readiness>) {
        let sockets = lock(&self.sockets);
        let mut ready: Vec<(u64, Readiness)> = Vec::new();
        for (&fd, &(generation, interest)) in watched {
            let Some(socket) = sockets.get(&fd) else { continue };
            let read = interest.read && !(socket.incoming.is_empty() && socket.accepting.is_empty());
            let write = interest.write && (socket.room > 0 || socket.broken.is_some());
            if read || write {
                let ready_for = Interest {
                    read,
                    write,
                    exclusive: false,
                };
                ready.push((
                    socket.order,
                    Readiness {
                        fd,
                        generation,
                        ready: ready_for,
                    },
                ));
            }
        }
        drop(sockets);
        ready.sort_by_key(|&(order, _)| order);
        if let Some(wires) = &self.wires {
            lock(wires).chance.shuffle(&mut ready);
        }
        found.extend(ready.into_iter().map(|(_, readiness)| readiness));
    }

    /// Opens the descriptor `fd` with room for `room` bytes to send.
    pub fn open(&self, fd: RawFd, room: usize) {
        lock(&self.sockets).insert(
            fd,
            Socket {
                order: fd.unsigned_abs().into(),
                room,
                ..Socket::default()
            },
        );
    }

    /// Closes the descriptor: whatever watches it hears nothing more.
    pub fn close(&self, fd: RawFd) {
        lock(&self.sockets).remove(&fd);
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
        if let Some(socket) = lock(&self.sockets).get_mut(&fd) {
            socket.room += bytes;
        }
    }

    /// Lets every send on `fd` fail from now on.
    pub fn break_sends(&self, fd: RawFd, error: io::ErrorKind) {
        if let Some(socket) = lock(&self.sockets).get_mut(&fd) {
            socket.broken = Some(error);
        }
    }

    /// Lets a coming call on `fd` fail without doing anything, behind those that were told so before. The call after it
    /// is not touched.
    pub fn fail_next(&self, fd: RawFd, call: Call, error: io::ErrorKind) {
        if let Some(socket) = lock(&self.sockets).get_mut(&fd) {
            socket.faults.entry(call).or_default().push_back(error);
        }
    }

    /// Whether the sending half of `fd` was shut down.
    #[must_use]
    pub fn has_ended(&self, fd: RawFd) -> bool {
        lock(&self.sockets).get(&fd).is_some_and(|socket| socket.ended)
    }

    /// Takes what was sent on `fd`, and how many calls it took.
    #[must_use]
    pub fn take_sent(&self, fd: RawFd) -> (Vec<u8>, usize) {
        match lock(&self.sockets).get_mut(&fd) {
            Some(socket) => (socket.take_sent(), std::mem::take(&mut socket.sends)),
            None => (Vec::new(), 0),
        }
    }

    /// Takes the datagrams that were sent on `fd`, and where to: none is to the peer.
    #[must_use]
    pub fn take_datagrams(&self, fd: RawFd) -> Vec<(Vec<u8>, Option<Address>)> {
        lock(&self.sockets)
            .get_mut(&fd)
            .map(|socket| std::mem::take(&mut socket.datagrams))
            .unwrap_or_default()
    }

    fn incoming(&self, fd: RawFd, incoming: Incoming) {
        if let Some(socket) = lock(&self.sockets).get_mut(&fd) {
            socket.incoming.push_back(incoming);
        }
    }

    /// What `act` does, unless the call is to fail.
    pub(super) fn call<T>(
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

    pub(super) fn with<T>(&self, fd: RawFd, act: impl FnOnce(&mut Socket) -> io::Result<T>) -> io::Result<T> {
        match lock(&self.sockets).get_mut(&fd) {
            Some(socket) => act(socket),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
