//! What streams receive: by the ring while it is little, by readiness while it is much.
//!
//! A stream begins as a readiness driver's. When it has received something small a few times, the ring receives for it: one
//! operation that fills a buffer whenever bytes come in, so that there is no system call for each. Where much comes in at
//! a time the second copy, out of that buffer, costs more than the calls that it saves, and the stream goes back.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use io_uring::{cqueue, opcode, squeue, types};
use slab::Slab;

use super::buffers::{Buffers, GROUP, MOST};
use super::receiver::{End, Kernel, LARGE, Receiver};
use super::ring::Ring;
use super::token;
use crate::driver::readiness::ReadinessDriver;
use crate::driver::{Completion, Direction, Driver, Epoll, Op, OpKey, Outcome};
use crate::sys::{self, Identity};

/// After so many small receives in a row the ring receives for a stream that it has received for before: often enough
/// that going back and forth does not count.
const RETURN_AFTER: u8 = 16;

/// The streams that are received from.
pub(super) struct Receivers {
    /// Who receives from a descriptor, by its number.
    descriptors: Vec<Receiving>,
    /// The streams that the ring receives for, and those whose last completion is still to come.
    receivers: Slab<Receiver>,
    /// The receivers that the next wait looks at.
    attended: Vec<usize>,
    /// Empty; what `attended` was before, for its room.
    spare: Vec<usize>,
    /// `None` until the first one is needed.
    buffers: Option<Buffers>,
    /// After so many small receives in a row the ring receives for a stream.
    after: u8,
}

/// Who receives from a descriptor.
#[derive(Clone, Copy, Debug, Default)]
enum Receiving {
    /// Nobody, or not for a stream.
    #[default]
    Nobody,
    /// The inner driver waits, and a system call receives.
    Inner {
        key: OpKey,
        /// How many small receives in a row there were.
        small: u8,
        /// After how many of them the ring shall receive.
        after: u8,
    },
    /// The ring, by the number of the receiver. It need not have an operation under way.
    Ring(usize),
}

/// Which part of the driver a receiver needs when a wait begins.
pub(super) struct Surroundings<'a> {
    pub(super) ring: &'a mut Ring,
    pub(super) inner: &'a mut ReadinessDriver<Epoll>,
    pub(super) completed: &'a mut VecDeque<Completion>,
}

impl Receivers {
    /// No streams. The ring receives for a stream after so many small receives, or from the beginning.
    pub(super) fn new(after: u8) -> Self {
        Self {
            descriptors: Vec::new(),
            receivers: Slab::new(),
            attended: Vec::new(),
            spare: Vec::new(),
            buffers: None,
            after,
        }
    }

    /// Begins an operation that reads.
    ///
    /// # Errors
    /// As of [`Driver::submit`].
    pub(super) fn submit(
        &mut self,
        inner: &mut ReadinessDriver<Epoll>,
        key: OpKey,
        fd: RawFd,
        op: Op,
    ) -> io::Result<()> {
        if let Some(index) = self.index(fd) {
            if self.receivers[index].key.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if op == Op::Receive {
                if sys::socket_identity(fd)? == Some(self.receivers[index].identity) {
                    self.receivers[index].key = Some(key);
                    self.attend(index);
                    return Ok(());
                }
                self.let_go(index);
            }
        }
        if op == Op::Receive
            && self.after == 0
            && !self.is_full()
            && inner.waiting(fd, Direction::Read).is_none()
            && let Some(identity) = sys::socket_identity(fd)?
        {
            self.begin(key, fd, identity);
            return Ok(());
        }
        inner.submit(key, fd, op)?;
        self.note_inner(key, fd, op, self.after);
        Ok(())
    }

    /// Cancels an operation that reads.
    pub(super) fn cancel(
        &mut self,
        inner: &mut ReadinessDriver<Epoll>,
        completed: &mut VecDeque<Completion>,
        key: OpKey,
        fd: RawFd,
        op: Op,
    ) {
        match self.index(fd) {
            Some(index) if self.receivers[index].key == Some(key) => {
                // The kernel is asked to stop by the next wait: until then the loop may have changed its mind.
                self.end_key(index, completed);
            }
            _ => inner.cancel(key, fd, op),
        }
    }

    /// Replaces an operation that reads.
    ///
    /// # Errors
    /// As of [`Driver::replace`].
    pub(super) fn replace(
        &mut self,
        inner: &mut ReadinessDriver<Epoll>,
        completed: &mut VecDeque<Completion>,
        key: OpKey,
        fd: RawFd,
        op: Op,
    ) -> io::Result<()> {
        match self.index(fd) {
            Some(index) if self.receivers[index].key.is_some() => {
                self.end_key(index, completed);
                self.submit(inner, key, fd, op)
            }
            _ => {
                inner.replace(key, fd, op)?;
                self.note_inner(key, fd, op, self.after);
                Ok(())
            }
        }
    }

    /// Takes what was received.
    ///
    /// # Errors
    /// As of [`Driver::receive`].
    #[inline]
    pub(super) fn receive(
        &mut self,
        inner: &mut ReadinessDriver<Epoll>,
        fd: RawFd,
        buffer: &mut [MaybeUninit<u8>],
    ) -> io::Result<usize> {
        match self.receiving(fd) {
            Receiving::Nobody => inner.receive(fd, buffer),
            Receiving::Inner { key, small, after } => {
                let count = inner.receive(fd, buffer)?;
                let small = if (1..LARGE).contains(&count) {
                    small.saturating_add(1)
                } else {
                    0
                };
                self.descriptors[fd as usize] = Receiving::Inner { key, small, after };
                if small >= after.max(1) {
                    self.take_over(inner, key, fd);
                }
                Ok(count)
            }
            Receiving::Ring(index) => {
                let receiver = &mut self.receivers[index];
                let taken = receiver.take(&mut self.buffers, buffer);
                let idle = receiver.key.is_none() && receiver.kernel == Kernel::Idle;
                if receiver.leaving {
                    self.attend(index);
                }
                match taken {
                    Some(taken) => taken,
                    None if idle => inner.receive(fd, buffer),
                    None => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Lets go of a descriptor. Answers the receiver that the kernel still works for.
    pub(super) fn release(&mut self, fd: RawFd) -> Option<usize> {
        match self.receiving(fd) {
            Receiving::Nobody => None,
            Receiving::Inner { .. } => {
                self.descriptors[fd as usize] = Receiving::Nobody;
                None
            }
            Receiving::Ring(index) => {
                self.let_go(index);
                self.is_busy(index).then_some(index)
            }
        }
    }

    /// Whether the kernel works for a receiver.
    pub(super) fn is_busy(&self, index: usize) -> bool {
        self.receivers
            .get(index)
            .is_some_and(|receiver| receiver.kernel != Kernel::Idle)
    }

    /// Whether the ring receives for no stream, and has none to stop for.
    pub(super) fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Whether the kernel works for any receiver.
    pub(super) fn is_any_busy(&self) -> bool {
        self.receivers
            .iter()
            .any(|(_, receiver)| receiver.kernel != Kernel::Idle)
    }

    /// What asks the kernel to stop receiving.
    pub(super) fn stop(&mut self, index: usize) -> squeue::Entry {
        if let Some(receiver) = self.receivers.get_mut(index) {
            receiver.kernel = Kernel::Stopping;
        }
        opcode::AsyncCancel::new(token::receiver(index))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(token::NOTHING)
    }

    /// Begins a wait: has the kernel receive for those that want it and stop for those that do not, and tells of what
    /// was left.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn begin_wait(&mut self, mut surroundings: Surroundings<'_>) -> io::Result<()> {
        let mut attended = std::mem::replace(&mut self.attended, std::mem::take(&mut self.spare));
        let mut begun = Ok(());
        for index in attended.drain(..) {
            self.receivers[index].attended = false;
            self.receivers[index].told = false;
            if let Err(error) = self.look_after(index, &mut surroundings) {
                self.attend(index);
                begun = Err(error);
            }
        }
        self.spare = attended;
        begun
    }

    /// Notes what the kernel says of a receiver. During a wait, the loop is told.
    pub(super) fn complete(
        &mut self,
        index: usize,
        entry: &cqueue::Entry,
        completed: Option<&mut VecDeque<Completion>>,
    ) {
        let Some(receiver) = self.receivers.get_mut(index) else {
            return;
        };
        let (result, flags) = (entry.result(), entry.flags());
        if let (Some(buffer), Some(buffers)) = (cqueue::buffer_select(flags), &mut self.buffers) {
            let piece = buffers.take(buffer, usize::try_from(result).unwrap_or_default());
            if receiver.released || piece.end == 0 {
                buffers.give_back(buffer);
            } else {
                receiver.pieces.push_back(piece);
            }
        }
        match -result {
            0 => receiver.end = Some(End::Peer),
            ..0 | libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            // By the next wait the loop may have given all of them back, and they would seem enough.
            libc::ENOBUFS => receiver.leaving |= !self.buffers.as_mut().is_some_and(Buffers::grow),
            // Nothing that a ring can receive from: the inner driver knows what to say.
            libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTSOCK | libc::EBADF => receiver.leaving = true,
            error => receiver.end = Some(End::Error(error)),
        }
        let stopped = !cqueue::more(flags);
        if stopped {
            receiver.kernel = Kernel::Idle;
            if receiver.key.is_none() {
                receiver.keep(&mut self.buffers);
            }
        }
        if let (Some(completed), Some(key)) = (completed, receiver.key)
            && receiver.has_untaken()
            && !receiver.told
        {
            receiver.told = true;
            completed.push_back(Completion {
                key,
                outcome: Outcome::Ready,
            });
        }
        if stopped || receiver.has_untaken() {
            self.attend(index);
        }
    }

    /// Moves what came in out of its buffers: the ring is gone. Answers the buffers, if the kernel might still fill one.
    pub(super) fn retire(&mut self) -> Option<Buffers> {
        for (_, receiver) in &mut self.receivers {
            receiver.keep(&mut self.buffers);
        }
        let buffers = self.buffers.take();
        buffers.filter(|_| self.is_any_busy())
    }

    /// Has the next ring receive for those that want it.
    pub(super) fn forget_ring(&mut self) {
        for (index, receiver) in &mut self.receivers {
            receiver.kernel = Kernel::Idle;
            if !receiver.attended {
                receiver.attended = true;
                self.attended.push(index);
            }
        }
    }

    fn receiving(&self, fd: RawFd) -> Receiving {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.descriptors.get(index))
            .copied()
            .unwrap_or_default()
    }

    /// The receiver of a descriptor.
    fn index(&self, fd: RawFd) -> Option<usize> {
        match self.receiving(fd) {
            Receiving::Ring(index) => Some(index),
            _ => None,
        }
    }

    fn set(&mut self, fd: RawFd, receiving: Receiving) {
        let Ok(index) = usize::try_from(fd) else { return };
        if index >= self.descriptors.len() {
            self.descriptors.resize(index + 1, Receiving::Nobody);
        }
        self.descriptors[index] = receiving;
    }

    /// Notes what the inner driver waits for.
    fn note_inner(&mut self, key: OpKey, fd: RawFd, op: Op, after: u8) {
        if op == Op::Receive {
            self.set(fd, Receiving::Inner { key, small: 0, after });
        }
    }

    fn attend(&mut self, index: usize) {
        let receiver = &mut self.receivers[index];
        if !receiver.attended {
            receiver.attended = true;
            self.attended.push(index);
        }
    }

    /// Whether the ring receives for as many streams as it has buffers. Of more that are busy at once, all but so many would be
    /// tried and refused in every turn.
    fn is_full(&self) -> bool {
        self.receivers.len() >= usize::from(MOST)
    }

    /// Has the ring receive in the place of the inner driver, if it has room.
    fn take_over(&mut self, inner: &mut ReadinessDriver<Epoll>, key: OpKey, fd: RawFd) {
        if self.is_full() || inner.waiting(fd, Direction::Read) != Some(key) {
            return;
        }
        if let Ok(Some(identity)) = sys::socket_identity(fd) {
            inner.withdraw(key, fd, Op::Receive);
            self.begin(key, fd, identity);
        }
    }

    /// Lets the ring receive from a descriptor, from the next wait on.
    fn begin(&mut self, key: OpKey, fd: RawFd, identity: Identity) {
        let index = self.receivers.insert(Receiver::new(fd, identity, key));
        self.set(fd, Receiving::Ring(index));
        self.attend(index);
    }

    fn end_key(&mut self, index: usize, completed: &mut VecDeque<Completion>) {
        if let Some(key) = self.receivers[index].key.take() {
            completed.push_back(Completion {
                key,
                outcome: Outcome::Cancelled,
            });
        }
        self.attend(index);
    }

    /// Takes the descriptor from a receiver, which goes with its last completion.
    fn let_go(&mut self, index: usize) {
        let receiver = &mut self.receivers[index];
        receiver.keep(&mut self.buffers);
        receiver.kept.clear();
        receiver.key = None;
        receiver.released = true;
        let fd = receiver.fd;
        self.set(fd, Receiving::Nobody);
        self.attend(index);
    }

    /// Sees to one receiver at the beginning of a wait.
    fn look_after(&mut self, index: usize, surroundings: &mut Surroundings<'_>) -> io::Result<()> {
        let receiver = &mut self.receivers[index];
        let wanted = receiver.key.is_some() && !receiver.leaving;
        match receiver.kernel {
            Kernel::Receiving if !wanted => {
                let stop = self.stop(index);
                // SAFETY: it names no memory.
                let asked = unsafe { surroundings.ring.push(&stop) };
                if asked.is_err() {
                    self.receivers[index].kernel = Kernel::Receiving;
                    return asked;
                }
            }
            Kernel::Idle if receiver.released => {
                self.receivers.remove(index);
                return Ok(());
            }
            Kernel::Idle if wanted && receiver.end.is_none() => self.start(index, surroundings.ring)?,
            _ => {}
        }
        let receiver = &mut self.receivers[index];
        let Some(key) = receiver.key else { return Ok(()) };
        if receiver.leaving && receiver.kernel == Kernel::Idle && !receiver.has_untaken() {
            return self.leave(index, key, surroundings);
        }
        if receiver.has_untaken() {
            receiver.told = true;
            surroundings.completed.push_back(Completion {
                key,
                outcome: Outcome::Ready,
            });
            self.attend(index);
        }
        Ok(())
    }

    /// Has the kernel receive. Where it can be given no buffers, the receiver is left to the inner driver.
    fn start(&mut self, index: usize, ring: &mut Ring) -> io::Result<()> {
        if self.buffers.is_none() {
            self.buffers = Buffers::new(ring.kernel()).ok();
        }
        let receiver = &mut self.receivers[index];
        if self.buffers.is_none() {
            receiver.leaving = true;
            return Ok(());
        }
        let receive = opcode::RecvMulti::new(types::Fd(receiver.fd), GROUP)
            .build()
            .user_data(token::receiver(index));
        // SAFETY: the buffers are dropped after the ring, or kept for a while.
        unsafe { ring.push(&receive)? };
        receiver.kernel = Kernel::Receiving;
        Ok(())
    }

    /// Has the inner driver receive in the place of the ring.
    fn leave(&mut self, index: usize, key: OpKey, surroundings: &mut Surroundings<'_>) -> io::Result<()> {
        let fd = self.receivers[index].fd;
        match surroundings.inner.submit(key, fd, Op::Receive) {
            Ok(()) => {
                self.receivers.remove(index);
                self.note_inner(key, fd, Op::Receive, RETURN_AFTER);
            }
            // Closed behind our back: nothing is heard of it any more.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(error) => {
                let receiver = &mut self.receivers[index];
                receiver.end = Some(End::Error(error.raw_os_error().unwrap_or(libc::ENOMEM)));
                self.attend(index);
            }
        }
        Ok(())
    }
}
