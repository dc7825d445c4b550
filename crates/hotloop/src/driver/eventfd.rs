//! The waker of Linux: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use super::Waker;

/// An eventfd that ends a wait.
///
/// epoll watches it edge-triggered and never reads it: each write is an edge of its own, and its 64-bit counter does
/// not fill up in the lifetime of a machine. So a wake-up costs one system call, not three. Facilities without edges
/// drain it.
#[derive(Debug)]
pub struct Eventfd(OwnedFd);

impl Eventfd {
    /// A new one, with no wake-up pending.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Takes the wake-ups that are pending. Answers whether there were any.
    pub(super) fn drain(&self) -> bool {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut [0; 8])).is_ok()
    }
}

impl AsFd for Eventfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Waker for Eventfd {
    fn wake(&self) {
        // The one possible failure is a full counter, which is a wake-up pending already.
        if rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes())).is_err() {}
    }
}
