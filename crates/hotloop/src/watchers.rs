//! `add_reader`, `add_writer`, and listening sockets.

use std::io;
use std::os::fd::RawFd;

use crate::driver::{Accepted, Direction, Driver, Op, OpKey};
use crate::event_loop::{EventLoop, Operation};
use crate::host::Host;

/// The watching operations of each descriptor, by its number.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<Watched>);

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    read: Option<OpKey>,
    write: Option<OpKey>,
}

impl Watchers {
    fn slot(&mut self, fd: RawFd, direction: Direction) -> Option<&mut Option<OpKey>> {
        let watched = self.0.get_mut(usize::try_from(fd).ok()?)?;
        Some(match direction {
            Direction::Read => &mut watched.read,
            Direction::Write => &mut watched.write,
        })
    }

    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let watched = |&(_, watched): &(usize, &Watched)| watched.read.is_some() || watched.write.is_some();
        self.0
            .iter()
            .enumerate()
            .filter(watched)
            .map(|(fd, _)| fd as RawFd)
    }

    fn set(&mut self, fd: RawFd, direction: Direction, key: OpKey) {
        let Ok(index) = usize::try_from(fd) else { return };
        if index >= self.0.len() {
            self.0.resize(index + 1, Watched::default());
        }
        if let Some(slot) = self.slot(fd, direction) {
            *slot = Some(key);
        }
    }
}

impl<H: Host, D: Driver> EventLoop<H, D> {
    /// Watches a descriptor in one direction: `handle` is an event of each turn in which it is ready. Answers the
    /// handle that it replaces.
    ///
    /// # Errors
    /// The kernel's, if it refuses the descriptor; a handle that was there before is gone then too. Both come back as
    /// [`Event::Replaced`](crate::Event::Replaced).
    pub fn watch(
        &mut self,
        fd: RawFd,
        direction: Direction,
        handle: H::Handle,
    ) -> io::Result<Option<H::Handle>> {
        let op = match direction {
            Direction::Read => Op::WatchRead,
            Direction::Write => Op::WatchWrite,
        };
        self.watch_by(fd, op, Operation::Watch(handle))
    }

    /// Stops watching a descriptor in one direction. Answers the handle, if there was one.
    pub fn unwatch(&mut self, fd: RawFd, direction: Direction) -> Option<H::Handle> {
        let key = self.watchers.slot(fd, direction)?.take()?;
        let op = match direction {
            Direction::Read => Op::WatchRead,
            Direction::Write => Op::WatchWrite,
        };
        self.driver.cancel(key, fd, op);
        self.end(key)
    }

    /// Says of a watched descriptor that it becomes readable for no other purpose than to end a wait (a signal handler
    /// writes there, for instance). A turn that does not wait need not ask for it: while it is the only one, such turns
    /// do without the kernel. None: there is no such descriptor.
    pub fn wakes_only(&mut self, fd: Option<RawFd>) {
        self.waking = fd.and_then(|fd| *self.watchers.slot(fd, Direction::Read)?);
    }

    /// The handle that watches a descriptor in one direction.
    pub fn watcher(&mut self, fd: RawFd, direction: Direction) -> Option<&H::Handle> {
        let key = (*self.watchers.slot(fd, direction)?)?;
        match self.operations.get(key.0 as usize) {
            Some(Operation::Watch(handle) | Operation::Accept(handle)) => Some(handle),
            _ => None,
        }
    }

    /// The descriptors that are watched.
    pub fn watched(&self) -> impl Iterator<Item = RawFd> {
        self.watchers.descriptors()
    }

    /// The handles of all watchers.
    pub fn watching(&self) -> impl Iterator<Item = &H::Handle> {
        self.operations
            .iter()
            .filter_map(|(_, operation)| match operation {
                Operation::Watch(handle) | Operation::Accept(handle) => Some(handle),
                _ => None,
            })
    }

    /// Accepts on a listening socket, as a watcher of it for reading: each turn with connections waiting has one
    /// [`Event::Accept`](crate::Event::Accept), until [`unwatch`](Self::unwatch). Answers the handle that it replaces.
    ///
    /// # Errors
    /// As of [`watch`](Self::watch).
    pub fn listen(&mut self, fd: RawFd, handle: H::Handle) -> io::Result<Option<H::Handle>> {
        self.watch_by(fd, Op::Accept, Operation::Accept(handle))
    }

    /// Accepts one connection: non-blocking, close-on-exec.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` if none is left.
    pub fn accept(&mut self, fd: RawFd) -> io::Result<Accepted> {
        self.driver.accept(fd)
    }

    /// Submits an operation on a descriptor, in the place of a watcher if there is one: either the host gives the
    /// descriptor to a transport now, or it was closed without `unwatch` and its number is in use anew.
    pub(crate) fn submit(&mut self, fd: RawFd, op: Op, operation: Operation<H>) -> io::Result<OpKey> {
        let key = self.begin(operation);
        let watcher = self.watchers.slot(fd, op.direction()).and_then(Option::take);
        let begun = self.submit_or_replace(key, fd, op, watcher.is_some());
        let replaced = watcher.and_then(|watcher| self.end(watcher));
        self.replaced.extend(replaced);
        if let Err(error) = begun {
            let host = self.end_for_stream(key);
            self.discarded.extend(host);
            self.operations.try_remove(key.0 as usize);
            return Err(error);
        }
        Ok(key)
    }

    /// Marks an operation as ended, and answers what it watched for. Its key is free after its last completion.
    pub(crate) fn end(&mut self, key: OpKey) -> Option<H::Handle> {
        let operation = self.operations.get_mut(key.0 as usize)?;
        if self.waking == Some(key) {
            self.waking = None;
        }
        match std::mem::replace(operation, Operation::Ended) {
            Operation::Watch(handle) | Operation::Accept(handle) => Some(handle),
            _ => None,
        }
    }

    /// Marks an operation of a stream or an endpoint as ended, and answers the host's object that was kept for it.
    pub(crate) fn end_for_stream(&mut self, key: OpKey) -> Option<H::Stream> {
        match std::mem::replace(self.operations.get_mut(key.0 as usize)?, Operation::Ended) {
            Operation::Receive(_, host)
            | Operation::Send(_, host)
            | Operation::ReceiveFrom(_, host)
            | Operation::SendTo(_, host) => Some(host),
            _ => None,
        }
    }

    /// Submits an operation, in the place of a watcher where there is one, or else of a pipe that waits there: of all
    /// who come for a descriptor that is a pipe's the last one has it, as with asyncio.
    fn submit_or_replace(&mut self, key: OpKey, fd: RawFd, op: Op, watched: bool) -> io::Result<()> {
        if watched {
            return self.driver.replace(key, fd, op);
        }
        match self.driver.submit(key, fd, op) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match self.displace(fd, op.direction()) {
                    Some(_) => self.driver.replace(key, fd, op),
                    None => Err(error),
                }
            }
            begun => begun,
        }
    }

    /// Begins an operation of a watcher or a listener, and answers the handle of the one that it replaces.
    fn watch_by(&mut self, fd: RawFd, op: Op, operation: Operation<H>) -> io::Result<Option<H::Handle>> {
        let direction = op.direction();
        let key = self.begin(operation);
        let old = self.watchers.slot(fd, direction).and_then(Option::take);
        let begun = self.submit_or_replace(key, fd, op, old.is_some());
        let old = old.and_then(|old| self.end(old));
        match begun {
            Ok(()) => self.watchers.set(fd, direction, key),
            Err(error) => {
                let refused = match self.operations.try_remove(key.0 as usize) {
                    Some(Operation::Watch(handle) | Operation::Accept(handle)) => Some(handle),
                    _ => None,
                };
                self.replaced.extend(old.into_iter().chain(refused));
                return Err(error);
            }
        }
        Ok(old)
    }

    fn begin(&mut self, operation: Operation<H>) -> OpKey {
        // No machine has four billion operations in flight: each needs a descriptor.
        OpKey(self.operations.insert(operation) as u32)
    }
}
