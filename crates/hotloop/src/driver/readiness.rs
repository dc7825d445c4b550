//! Operations on top of readiness: try the system call, else wait until the descriptor is ready, then do it.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Accepted, Address, Batch, Completion, Direction, Driver, Interest, Op, OpKey, Outcome, Outgoing,
    Readiness, Unsent, Waker, Woken,
};
use crate::sys;

/// A kernel facility that says which descriptors are ready, level-triggered.
pub trait Poller {
    /// What other threads wake it through.
    type Waker: Waker;

    /// The waker of this poller.
    fn waker(&self) -> Arc<Self::Waker>;

    /// Starts to watch a descriptor. `generation` comes back with each of its events and tells this registration from
    /// an earlier one of the same number, which the kernel may keep alive through a duplicate of the descriptor.
    ///
    /// # Errors
    /// The kernel's.
    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()>;

    /// Changes the interest in a watched descriptor. One that is exclusive moves behind all others that wait for the
    /// descriptor exclusively, also where nothing else changes.
    ///
    /// # Errors
    /// The kernel's; `NotFound` if the descriptor is not watched (it was closed meanwhile).
    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()>;

    /// Stops watching a descriptor; one that is closed already is no error.
    ///
    /// # Errors
    /// The kernel's, other than that there is nothing to stop.
    fn delete(&mut self, fd: RawFd) -> io::Result<()>;

    /// Waits, and appends what is ready to `found`; see [`Driver::wait`].
    ///
    /// # Errors
    /// The kernel's.
    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken>;

    /// Whether the last wait told all that there was, and of nothing that has ended or is broken: see
    /// [`Driver::has_told_all`].
    fn has_told_all(&self) -> bool {
        false
    }

    /// Forgets every registration, watched descriptors and those only the kernel still knows. The waker stays.
    ///
    /// # Errors
    /// The kernel's, with nothing changed.
    fn reset(&mut self) -> io::Result<()>;
}

/// A [`Driver`] over a [`Poller`].
#[derive(Debug)]
pub struct ReadinessDriver<P> {
    poller: P,
    /// What waits on each descriptor, by its number. Written by `submit` and `cancel`.
    descriptors: Vec<Descriptor>,
    /// What a wait finds; empty but for its time, and kept for its room.
    found: Vec<Readiness>,
    /// What nobody has taken yet: what the last wait found, then the last completions of operations cancelled since.
    completed: VecDeque<Completion>,
}

/// What waits on one descriptor.
#[derive(Clone, Copy, Debug, Default)]
struct Descriptor {
    read: Option<OpKey>,
    write: Option<OpKey>,
    /// Raised with each new registration of this number.
    generation: u32,
    /// Whether what reads is [`Op::Accept`].
    accepting: bool,
    /// How many connections were accepted since this loop last stepped back behind the others.
    accepted: u8,
}

impl Descriptor {
    fn interest(self) -> Interest {
        Interest {
            read: self.read.is_some(),
            write: self.write.is_some(),
            exclusive: self.read.is_some() && self.accepting,
        }
    }

    /// Lets an operation wait. Answers the one whose place it takes.
    fn put(&mut self, key: OpKey, op: Op) -> Option<OpKey> {
        if op.direction() == Direction::Read {
            self.accepting = op == Op::Accept;
        }
        self.slot(op.direction()).replace(key)
    }

    fn slot(&mut self, direction: Direction) -> &mut Option<OpKey> {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

impl<P: Poller> ReadinessDriver<P> {
    /// A driver with nothing to do, over `poller`.
    pub fn new(poller: P) -> Self {
        Self {
            poller,
            descriptors: Vec::new(),
            found: Vec::new(),
            completed: VecDeque::new(),
        }
    }

    /// The poller underneath.
    pub fn poller(&self) -> &P {
        &self.poller
    }

    /// The poller underneath, to tell it something. The registrations in it are the driver's.
    pub fn poller_mut(&mut self) -> &mut P {
        &mut self.poller
    }

    /// The operation that waits on a descriptor in one direction.
    #[cfg(io_uring)]
    pub(super) fn waiting(&mut self, fd: RawFd, direction: Direction) -> Option<OpKey> {
        *self.descriptor(fd)?.slot(direction)
    }

    /// Forgets an operation without a last completion. Answers whether there was one.
    pub(super) fn withdraw(&mut self, key: OpKey, fd: RawFd, op: Op) -> bool {
        let Some(entry) = self.descriptor(fd) else {
            return false;
        };
        let old = entry.interest();
        let slot = entry.slot(op.direction());
        if *slot != Some(key) {
            return false;
        }
        *slot = None;
        if self.apply(fd, old).is_err() {
            // At worst this leaves a registration without an operation, which the next event of it takes away.
        }
        true
    }

    /// Does what a wait does, but for the waiting: `find` says what is ready.
    pub(super) fn wait_by(
        &mut self,
        find: impl FnOnce(&mut P, &mut Vec<Readiness>) -> io::Result<Woken>,
    ) -> io::Result<Woken> {
        // What an earlier turn left untaken is level-triggered: the kernel reports it again.
        self.completed
            .retain(|completion| completion.outcome == Outcome::Cancelled);
        let woken = find(&mut self.poller, &mut self.found)?;
        self.complete_found();
        Ok(woken)
    }

    /// The entry of a descriptor, if it ever had one.
    fn descriptor(&mut self, fd: RawFd) -> Option<&mut Descriptor> {
        self.descriptors.get_mut(usize::try_from(fd).ok()?)
    }

    /// Tells the poller of a change from `old` interest to what the entry says now.
    fn apply(&mut self, fd: RawFd, old: Interest) -> io::Result<()> {
        let Self {
            poller, descriptors, ..
        } = self;
        let entry = usize::try_from(fd)
            .ok()
            .and_then(|index| descriptors.get_mut(index));
        let Some(entry) = entry else { return Ok(()) };
        let interest = entry.interest();
        if interest == old {
            return Ok(());
        }
        if interest.is_empty() {
            return poller.delete(fd);
        }
        if !old.is_empty() {
            match poller.modify(fd, entry.generation, interest) {
                // The descriptor was closed behind our back and its number is in use again: register it anew.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        entry.generation = entry.generation.wrapping_add(1);
        match poller.add(fd, entry.generation, interest) {
            // A registration that outlived our interest, for instance through a removal that the kernel refused.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                poller.modify(fd, entry.generation, interest)
            }
            result => result,
        }
    }

    /// Makes completions of what a wait found, for the operations that wait there now: one that is begun, or put in
    /// the place of another, later in the turn hears nothing of this wait.
    fn complete_found(&mut self) {
        let mut stale = false;
        for Readiness {
            fd,
            generation,
            ready,
        } in self.found.drain(..)
        {
            let entry = self.descriptors.get(fd as usize).copied().unwrap_or_default();
            // The kernel knows a registration that we do not.
            if entry.generation != generation || entry.interest().is_empty() {
                stale = true;
                continue;
            }
            let read = entry.read.filter(|_| ready.read);
            let write = entry.write.filter(|_| ready.write);
            self.completed
                .extend([read, write].into_iter().flatten().map(|key| Completion {
                    key,
                    outcome: Outcome::Ready,
                }));
        }
        if stale && self.drop_stale().is_err() {
            // No descriptor for a new set: the event comes again, and with it this attempt.
        }
    }

    /// Gets rid of a registration that names no operation of ours: its descriptor was closed while a duplicate keeps
    /// the registration alive. The kernel would report it for ever, and can no longer be told by number to stop, so
    /// the remedy is a new set of registrations.
    fn drop_stale(&mut self) -> io::Result<()> {
        self.poller.reset()?;
        for index in 0..self.descriptors.len() {
            let entry = self.descriptors[index];
            let fd = RawFd::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
            if !entry.interest().is_empty()
                && self.poller.add(fd, entry.generation, entry.interest()).is_err()
            {
                // Closed without a word to us: as with the old registration, nothing becomes ready here any more.
            }
        }
        Ok(())
    }
}

/// After so many connections a loop lets the others that accept on the same socket go first. The kernel wakes the one
/// that has waited there longest since it was registered; without this, of processes with little to do the first would
/// serve all clients and the others none.
const STEP_BACK_AFTER: u8 = 8;

impl<P: Poller> ReadinessDriver<P> {
    /// Counts a connection that was accepted, and steps back when it is time to.
    fn step_back(&mut self, fd: RawFd) {
        let Some(entry) = self.descriptor(fd) else { return };
        entry.accepted += 1;
        if entry.accepted < STEP_BACK_AFTER {
            return;
        }
        entry.accepted = 0;
        let (interest, generation) = (entry.interest(), entry.generation);
        if interest.exclusive && self.poller.modify(fd, generation, interest).is_err() {
            // The number is no listening socket of ours any more, or the kernel has no memory for it: then as with a
            // descriptor that was closed, nothing becomes ready here any more.
        }
    }
}

impl<P: Poller> Driver for ReadinessDriver<P> {
    type Waker = P::Waker;

    fn waker(&self) -> Arc<P::Waker> {
        self.poller.waker()
    }

    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        let index = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        if index >= self.descriptors.len() {
            // The kernel is asked first, since a number out of nowhere must not make the table grow up to it.
            let mut first = Descriptor::default();
            first.put(key, op);
            self.poller.add(fd, first.generation, first.interest())?;
            self.descriptors.resize(index + 1, Descriptor::default());
            self.descriptors[index] = first;
            return Ok(());
        }
        let entry = &mut self.descriptors[index];
        let old = entry.interest();
        if entry.slot(op.direction()).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        entry.put(key, op);
        let result = self.apply(fd, old);
        if result.is_err() {
            *self.descriptors[index].slot(op.direction()) = None;
        }
        result
    }

    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op) {
        if self.withdraw(key, fd, op) {
            self.completed.push_back(Completion {
                key,
                outcome: Outcome::Cancelled,
            });
        }
    }

    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        let entry = self.descriptor(fd).ok_or(io::ErrorKind::NotFound)?;
        let old = (*entry.slot(op.direction())).ok_or(io::ErrorKind::NotFound)?;
        entry.put(key, op);
        let (interest, generation) = (entry.interest(), entry.generation);
        self.completed.push_back(Completion {
            key: old,
            outcome: Outcome::Cancelled,
        });
        // The kernel is asked again although nothing changes for it: if the descriptor was closed and its number is in
        // use anew, the old registration is gone, and without this the new operation would wait for ever.
        let result = match self.poller.modify(fd, generation, interest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.apply(fd, Interest::default()),
            result => result,
        };
        if let (Err(_), Some(entry)) = (&result, self.descriptor(fd)) {
            *entry.slot(op.direction()) = None;
        }
        result
    }

    fn release(&mut self, _fd: RawFd) {}

    #[inline]
    fn post(&mut self, _fd: RawFd, _bytes: &[u8]) -> bool {
        false
    }

    fn settle(&mut self, _fd: RawFd) {}

    #[inline]
    fn next_unsent(&mut self) -> Option<Unsent> {
        None
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        let timeout = if self.completed.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        self.wait_by(|poller, found| poller.wait(timeout, found))
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        self.completed.pop_front()
    }

    #[inline]
    fn has_completions(&self) -> bool {
        !self.completed.is_empty()
    }

    #[inline]
    fn has_chores(&self) -> bool {
        self.has_completions()
    }

    #[inline]
    fn has_told_all(&self) -> bool {
        self.completed.is_empty() && self.poller.has_told_all()
    }

    #[inline]
    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        sys::receive(fd, buffer)
    }

    #[inline]
    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        sys::send(fd, buffers)
    }

    #[cfg(linux)]
    #[inline]
    fn send_corked(&mut self, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
        sys::send_corked(fd, bytes)
    }

    #[cfg(linux)]
    fn uncork(&mut self, fd: RawFd) {
        // A socket that refuses is at its end: nothing of it waits.
        drop(sys::uncork(fd));
    }

    #[inline]
    fn read(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        sys::read(fd, buffer)
    }

    #[inline]
    fn write(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        sys::write(fd, buffers)
    }

    #[inline]
    fn receive_datagrams(&mut self, fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
        sys::receive_datagrams(fd, batch, limit)
    }

    #[inline]
    fn receive_from(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
        sys::receive_from(fd, buffer)
    }

    #[inline]
    fn send_datagrams(&mut self, fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        sys::send_datagrams(fd, datagrams)
    }

    fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()> {
        sys::shutdown_write(fd)
    }

    fn accept(&mut self, fd: RawFd) -> io::Result<Accepted> {
        let accepted = sys::accept(fd)?;
        self.step_back(fd);
        Ok(accepted)
    }
}
