//! Linux's io_uring: a ring that does the operations of streams, around an epoll set that watches the rest.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory of ours while the code here goes on"
)]

mod buffers;
mod files;
mod fork;
mod polled;
mod receive;
mod receiver;
mod refused;
mod retired;
mod ring;
mod send;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

pub use self::files::{FileDone, FileOp, FileRing};
use self::fork::Generation;
use self::polled::{Polled, Report};
use self::receive::{Receivers, Surroundings};
pub use self::refused::Refused;
use self::ring::{Entered, Ring};
use self::send::Posts;
use super::epoll::readinesses;
use super::eventfd::Eventfd;
use super::readiness::ReadinessDriver;
use super::{
    Accepted, Address, Batch, Completion, Direction, Driver, Epoll, Op, OpKey, Outcome, Outgoing, Unsent,
    Woken,
};

/// A driver over io_uring.
///
/// What a stream receives and sends is the ring's. Everything else (watched descriptors, listening sockets, datagrams,
/// pipes, room to send) is watched by an inner readiness driver, whose epoll set the ring waits for: an operation of a
/// ring holds its *file*, not its number. A socket that is closed while a ring polls it stays open and its peer is told
/// nothing, and a number that comes back means another file. For streams the loop says when it lets go of a
/// descriptor; who calls `add_reader` says nothing, and knows the ways of epoll, which are asyncio's.
pub struct Uring {
    /// Dropped before the memory that the kernel knows through it. `None` between a ring that was given up (the loop
    /// has moved to another thread) and the next wait.
    ring: Option<Ring>,
    polled: Polled,
    receivers: Receivers,
    posts: Posts,
    inner: ReadinessDriver<Epoll>,
    /// What nobody has taken yet: what the last wait found, then the last completions of operations cancelled since.
    completed: VecDeque<Completion>,
    /// Whether the inner driver is waited for in the place of a ring that has nothing to do.
    spares_ring: bool,
    /// How many completions the last wait has led to.
    found: usize,
    /// How many waits without time in a row were the inner driver's and found nothing.
    fruitless: u8,
    /// How often rings of before were entered.
    entered: u64,
    /// The process that made the driver.
    born: Generation,
}

/// What tests change of a driver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether the ring takes events of the epoll set where the kernel can do that, in place of a call of ours.
    pub takes_events: bool,
    /// After how many small receives in a row the ring receives for a stream; 0 is from its beginning.
    pub receive_after: u8,
    /// Whether a ring that has nothing to do is spared, and its epoll set waited for as if there were no ring.
    pub spares_ring: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            takes_events: true,
            // A connection of one request gains nothing by a change of hands.
            receive_after: 2,
            spares_ring: true,
        }
    }
}

/// What completions of the ring are told apart by.
mod token {
    /// What needs no answer.
    pub(super) const NOTHING: u64 = 0;
    /// The epoll set.
    pub(super) const POLLED: u64 = 1;

    /// What a kind of operation is told by: the upper half of a token. The lower one is a number.
    const KIND: u64 = !0 << 32;
    const RECEIVER: u64 = 1 << 32;
    const POST: u64 = 2 << 32;

    /// A receiver.
    pub(super) fn receiver(index: usize) -> u64 {
        // There are no more of them than there are descriptors.
        RECEIVER | index as u64
    }

    /// A post.
    pub(super) fn post(index: usize) -> u64 {
        POST | index as u64
    }

    /// The post of a token, if it is one's.
    pub(super) fn as_post(token: u64) -> Option<usize> {
        (token & KIND == POST).then_some((token & !KIND) as usize)
    }

    /// The receiver of a token, if it is one's.
    pub(super) fn as_receiver(token: u64) -> Option<usize> {
        (token & KIND == RECEIVER).then_some((token & !KIND) as usize)
    }
}

impl Uring {
    /// A driver with nothing to do.
    ///
    /// # Errors
    /// [`Refused`] if io_uring is not to be had; else the kernel's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        Self::with(Settings::default())
    }

    /// As [`new`](Self::new), with settings of one's own.
    ///
    /// # Errors
    /// As of `new`.
    pub fn with(settings: Settings) -> io::Result<Self> {
        let ring = Ring::new()?;
        Ok(Self {
            polled: Polled::new(settings.takes_events && ring.waits_for_epoll),
            ring: Some(ring),
            receivers: Receivers::new(settings.receive_after),
            posts: Posts::default(),
            inner: ReadinessDriver::new(Epoll::new()?),
            completed: VecDeque::new(),
            spares_ring: settings.spares_ring,
            found: 0,
            fruitless: 0,
            entered: 0,
            born: Generation::current(),
        })
    }

    /// How often this driver has entered its ring: at most once a turn, but for waits that look before they sleep, and for
    /// what is over before a socket closes.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered + self.ring.as_ref().map_or(0, Ring::entered)
    }

    /// Refuses to go on in a child of the process that made the driver.
    #[inline]
    fn refuse_child(&self) -> io::Result<()> {
        if self.born.is_past() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the event loop was forked with its io_uring: make a new one in the child",
            ));
        }
        Ok(())
    }

    /// The ring, as one that the calling thread may enter. One that another thread has entered is given up for a new
    /// one.
    fn claim(&mut self) -> io::Result<&mut Ring> {
        let mine = match &mut self.ring {
            Some(ring) => ring.claim()?,
            None => false,
        };
        if !mine {
            self.give_up_ring();
            let mut ring = Ring::new()?;
            ring.claim()?;
            return Ok(self.ring.insert(ring));
        }
        self.ring
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes what the ring has, and lets go of it.
    fn give_up_ring(&mut self) {
        self.reap(false);
        if let Some(ring) = self.ring.take() {
            self.entered += ring.entered();
        }
        self.retire_memory();
        self.receivers.forget_ring();
        self.posts.begin_anew();
    }

    /// Leaves what the kernel may still have to it.
    fn retire_memory(&mut self) {
        if let Some(events) = self.polled.retire() {
            retired::keep(events);
        }
        if let Some(buffers) = self.receivers.retire() {
            retired::keep(buffers);
        }
    }

    /// Takes completions from the ring. The loop is told of them in a wait only.
    fn reap(&mut self, waiting: bool) {
        let Some(ring) = &mut self.ring else { return };
        while let Some(entry) = ring.next() {
            let token = entry.user_data();
            if let Some(index) = token::as_receiver(token) {
                let completed = waiting.then_some(&mut self.completed);
                self.receivers.complete(index, &entry, completed);
            } else if let Some(index) = token::as_post(token) {
                self.posts.complete(index, entry.result());
            } else if token == token::POLLED {
                self.polled.answer(entry.result());
            }
        }
    }

    /// Completes what the inner driver finds, if the ring says that it finds something.
    fn complete_polled(&mut self) -> io::Result<()> {
        match self.polled.take()? {
            Report::Nothing => return Ok(()),
            Report::Some => self.inner.wait(Some(Duration::ZERO))?,
            Report::Events(events) => self.inner.wait_by(|_, found| {
                found.extend(readinesses(events));
                Ok(Woken::Normally)
            })?,
        };
        self.take_inner();
        Ok(())
    }

    /// Takes what the inner driver has completed: of both drivers the order counts.
    fn take_inner(&mut self) {
        while let Some(completion) = self.inner.next_completion() {
            self.completed.push_back(completion);
        }
    }

    /// Whether the ring has nothing under way and is to begin nothing.
    fn is_ring_idle(&self) -> bool {
        !self.polled.is_under_way() && self.receivers.is_empty() && !self.posts.is_any_left()
    }

    /// Whether the next wait can do without the ring. Where callbacks follow each other and nothing comes in, it shall
    /// not: once it was asked, a ring says without a call that there is nothing yet.
    fn can_spare_ring(&self) -> bool {
        self.spares_ring && self.is_ring_idle() && self.fruitless < FRUITLESS
    }

    /// Waits as if there were no ring.
    fn wait_in_inner(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        self.drop_untaken();
        let timeout = if self.completed.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        let woken = self.inner.wait(timeout)?;
        self.take_inner();
        self.fruitless = if timeout == Some(Duration::ZERO) && self.completed.is_empty() {
            self.fruitless + 1
        } else {
            0
        };
        Ok(woken)
    }

    /// Drops what nobody has taken of the last wait; an operation's last completion stays.
    fn drop_untaken(&mut self) {
        self.completed
            .retain(|completion| completion.outcome == Outcome::Cancelled);
    }

    /// Hands in what is due, and waits.
    fn wait_in_ring(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        for _ in 0..2 {
            self.drop_untaken();
            self.claim()?;
            let Some(ring) = &mut self.ring else { break };
            let epoll = self.inner.poller().as_fd().as_raw_fd();
            if let Some(ask) = self.polled.ask(epoll) {
                // SAFETY: what it names is in `polled`, which outlives the ring.
                if let Err(error) = unsafe { ring.push(&ask.user_data(token::POLLED)) } {
                    // The next wait asks again.
                    self.polled.answer(-libc::ECANCELED);
                    return Err(error);
                }
            }
            self.posts.begin(ring)?;
            self.receivers.begin_wait(Surroundings {
                ring: &mut *ring,
                inner: &mut self.inner,
                completed: &mut self.completed,
            })?;
            let timeout = if self.completed.is_empty() {
                timeout
            } else {
                Some(Duration::ZERO)
            };
            if let Entered::Woken(woken) = ring.wait(timeout, self.found)? {
                return Ok(woken);
            }
            self.give_up_ring();
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Ends the sends of a turn. They are over with the call that they were handed in by, unless the kernel was short
    /// of memory, or had more to say than fits.
    fn finish_posts(&mut self) -> io::Result<()> {
        for _ in 0..SENDING {
            let Some(ring) = self.ring.as_mut().filter(|_| self.posts.is_begun()) else {
                return Ok(());
            };
            if ring.is_settled() {
                self.posts.finish();
                return Ok(());
            }
            ring.submit()?;
            self.reap(true);
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }

    /// Has the kernel stop what it does for a stream, and waits for that to be so: it takes no longer than a call.
    fn stop_receiving(&mut self, index: usize) {
        let stop = self.receivers.stop(index);
        let Some(ring) = self.ring.as_mut().filter(|ring| ring.is_mine()) else {
            // Another thread's, which only that could ask.
            self.give_up_ring();
            return;
        };
        // SAFETY: it names no memory.
        if unsafe { ring.push(&stop) }.is_ok() {
            self.enter_while(|driver| driver.receivers.is_busy(index));
        }
    }

    /// Enters the kernel, which does what is due a part at a time, as long as `busy` and it gets on.
    fn enter_while(&mut self, busy: impl Fn(&Self) -> bool) {
        let mut idle = 0;
        while busy(self) && idle < STOPPING {
            let Some(ring) = &mut self.ring else { return };
            if ring.submit().is_err() {
                return;
            }
            idle += usize::from(!ring.is_due());
            self.reap(false);
        }
    }
}

/// After how many waits without time that find nothing, a call each, the ring is asked.
const FRUITLESS: u8 = 8;

/// How often the kernel is entered at most to have it send.
const SENDING: usize = 1000;

/// How often the kernel is entered at most with nothing due, to have it stop: once, unless it is short of something.
const STOPPING: usize = 4;

impl Drop for Uring {
    fn drop(&mut self) {
        if self.refuse_child().is_err() {
            return;
        }
        let is_busy = |driver: &Self| driver.polled.is_under_way() || driver.receivers.is_any_busy();
        if let Some(ring) = self.ring.as_mut().filter(|ring| ring.is_mine()) {
            let all = opcode::AsyncCancel2::new(types::CancelBuilder::any())
                .build()
                .user_data(token::NOTHING);
            // SAFETY: it names no memory.
            if unsafe { ring.push(&all) }.is_ok() {
                self.enter_while(is_busy);
            }
        }
        self.retire_memory();
    }
}

impl Driver for Uring {
    type Waker = Eventfd;

    fn waker(&self) -> Arc<Eventfd> {
        self.inner.waker()
    }

    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.refuse_child()?;
        match op.direction() {
            Direction::Read => self.receivers.submit(&mut self.inner, key, fd, op),
            Direction::Write => self.inner.submit(key, fd, op),
        }
    }

    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op) {
        if self.refuse_child().is_err() {
            return;
        }
        let Self {
            receivers,
            inner,
            completed,
            ..
        } = self;
        match op.direction() {
            Direction::Read => receivers.cancel(inner, completed, key, fd, op),
            Direction::Write => inner.cancel(key, fd, op),
        }
        self.take_inner();
    }

    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.refuse_child()?;
        let Self {
            receivers,
            inner,
            completed,
            ..
        } = self;
        let replaced = match op.direction() {
            Direction::Read => receivers.replace(inner, completed, key, fd, op),
            Direction::Write => inner.replace(key, fd, op),
        };
        self.take_inner();
        replaced
    }

    fn release(&mut self, fd: RawFd) {
        if self.refuse_child().is_err() {
            return;
        }
        self.posts.release(fd);
        if let Some(index) = self.receivers.release(fd) {
            self.stop_receiving(index);
        }
    }

    #[inline]
    fn post(&mut self, fd: RawFd, bytes: &[u8]) -> bool {
        self.refuse_child().is_ok() && self.posts.post(fd, bytes)
    }

    fn settle(&mut self, fd: RawFd) {
        if self.refuse_child().is_ok() {
            self.posts.settle(fd);
        }
    }

    #[inline]
    fn next_unsent(&mut self) -> Option<Unsent> {
        self.posts.next_unsent()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        self.refuse_child()?;
        let timeout = if self.polled.overlook() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        if self.can_spare_ring() {
            return self.wait_in_inner(timeout);
        }
        self.fruitless = 0;
        let woken = self.wait_in_ring(timeout)?;
        self.reap(true);
        self.finish_posts()?;
        self.complete_polled()?;
        self.found = self.completed.len();
        Ok(woken)
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        self.completed.pop_front()
    }

    #[inline]
    fn has_completions(&self) -> bool {
        !self.completed.is_empty()
    }

    fn has_chores(&self) -> bool {
        self.has_completions()
            || self.inner.has_chores()
            || self.posts.is_any_left()
            || self.receivers.is_any_busy()
            || self.born.is_past()
    }

    #[inline]
    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.receivers.receive(&mut self.inner, fd, buffer)
    }

    #[inline]
    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.posts.settle(fd);
        if self.posts.holds(fd) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.inner.send(fd, buffers)
    }

    fn read(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.inner.read(fd, buffer)
    }

    fn write(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.inner.write(fd, buffers)
    }

    fn receive_datagrams(&mut self, fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
        self.refuse_child()?;
        self.inner.receive_datagrams(fd, batch, limit)
    }

    fn receive_from(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
        self.refuse_child()?;
        self.inner.receive_from(fd, buffer)
    }

    fn send_datagrams(&mut self, fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.inner.send_datagrams(fd, datagrams)
    }

    fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()> {
        self.refuse_child()?;
        self.posts.settle(fd);
        self.inner.shutdown_write(fd)
    }

    fn accept(&mut self, fd: RawFd) -> io::Result<Accepted> {
        self.refuse_child()?;
        self.inner.accept(fd)
    }
}

/// A host lets go of its locks around a wait, and a loop may run in another thread than the one that made it.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Uring>();
};
