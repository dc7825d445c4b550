//! Linux's io_uring: a ring that does the operations of streams, around an epoll set that watches the rest.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory of ours while the code here goes on"
)]

mod files;
mod fork;
mod polled;
mod refused;
mod ring;

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};

pub use self::files::{FileDone, FileOp, FileRing, kind_of};
use self::polled::{Polled, Report};
pub use self::refused::Refused;
use self::ring::{Entered, Ring};
use super::epoll::{Eventfd, readinesses};
use super::readiness::ReadinessDriver;
use super::{Accepted, Address, Batch, Completion, Driver, Epoll, Op, OpKey, Outcome, Outgoing, Woken};

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
    inner: ReadinessDriver<Epoll>,
    /// What nobody has taken yet: what the last wait found, then the last completions of operations cancelled since.
    completed: VecDeque<Completion>,
    /// How often rings of before were entered.
    entered: u64,
}

/// What tests change of a driver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether the ring takes events of the epoll set where the kernel can do that, in place of a call of ours.
    pub takes_events: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { takes_events: true }
    }
}

/// What completions of the ring are told apart by.
mod token {
    /// What needs no answer.
    pub(super) const NOTHING: u64 = 0;
    /// The epoll set.
    pub(super) const POLLED: u64 = 1;
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
            inner: ReadinessDriver::new(Epoll::new()?),
            completed: VecDeque::new(),
            entered: 0,
        })
    }

    /// How often this driver has entered its ring: one a turn.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.entered + self.ring.as_ref().map_or(0, Ring::entered)
    }

    /// Refuses to go on in a child of the process that made the driver.
    #[inline]
    fn refuse_child(&self) -> io::Result<()> {
        match &self.ring {
            Some(ring) if ring.is_inherited() => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the event loop was forked with its io_uring: make a new one in the child",
            )),
            _ => Ok(()),
        }
    }

    /// The ring, as one that the calling thread may enter. One that another thread has entered is given up for a new
    /// one.
    fn claim(&mut self) -> io::Result<&mut Ring> {
        let mine = match &mut self.ring {
            Some(ring) => ring.claim()?,
            None => false,
        };
        if !mine {
            self.give_up_ring()?;
            let mut ring = Ring::new()?;
            ring.claim()?;
            return Ok(self.ring.insert(ring));
        }
        self.ring
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Takes what the ring has, and lets go of it.
    fn give_up_ring(&mut self) -> io::Result<()> {
        self.reap()?;
        if let Some(ring) = self.ring.take() {
            self.entered += ring.entered();
        }
        self.polled.forget();
        Ok(())
    }

    /// Takes completions from the ring.
    fn reap(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        while let Some(completion) = ring.next() {
            if completion.user_data() == token::POLLED {
                self.polled.answer(completion.result());
            }
        }
        Ok(())
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

    fn wait_in(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        let epoll = self.inner.poller().as_fd().as_raw_fd();
        for _ in 0..2 {
            let ask = self.polled.ask(epoll).map(|ask| ask.user_data(token::POLLED));
            let ring = self.claim()?;
            if let Some(ask) = &ask {
                // SAFETY: what it names is in `polled`, which outlives the ring.
                unsafe { ring.push(ask)? };
            }
            if let Entered::Woken(woken) = ring.wait(timeout)? {
                return Ok(woken);
            }
            self.give_up_ring()?;
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.refuse_child().is_err() {
            return;
        }
        if let Some(ring) = self.ring.as_mut().filter(|ring| ring.is_mine()) {
            let all = opcode::AsyncCancel2::new(types::CancelBuilder::any())
                .build()
                .user_data(token::NOTHING);
            // SAFETY: it names no memory.
            let mut cancelled = unsafe { ring.push(&all) }.is_ok();
            // Once is enough, unless the kernel is short of something.
            for _ in 0..3 {
                cancelled = cancelled && self.polled.is_under_way();
                let Some(ring) = self.ring.as_mut().filter(|_| cancelled) else {
                    break;
                };
                cancelled = ring.submit().is_ok() && self.reap().is_ok();
            }
        }
        self.polled.forget();
    }
}

impl Driver for Uring {
    type Waker = Eventfd;

    fn waker(&self) -> Arc<Eventfd> {
        self.inner.waker()
    }

    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.refuse_child()?;
        self.inner.submit(key, fd, op)
    }

    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op) {
        if self.refuse_child().is_err() {
            return;
        }
        self.inner.cancel(key, fd, op);
        self.take_inner();
    }

    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        self.refuse_child()?;
        let replaced = self.inner.replace(key, fd, op);
        self.take_inner();
        replaced
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        self.refuse_child()?;
        self.completed
            .retain(|completion| completion.outcome == Outcome::Cancelled);
        let overlooked = self.polled.overlook();
        let timeout = if overlooked || !self.completed.is_empty() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        let woken = self.wait_in(timeout)?;
        self.reap()?;
        self.complete_polled()?;
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

    #[inline]
    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.refuse_child()?;
        self.inner.receive(fd, buffer)
    }

    #[inline]
    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.refuse_child()?;
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
