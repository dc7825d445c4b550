//! `poll(2)`: one list of descriptors, handed to the kernel with each wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::readiness::Poller;
use super::{Interest, Readiness, SystemWaker, Woken};
use crate::sys;

/// The poll facility.
///
/// It knows of descriptors only while it waits. So a number that was closed is forgotten when the kernel first says so,
/// as epoll forgets it at once, and one that is in use anew is watched as what it is now.
#[derive(Debug)]
pub struct Poll {
    waker: Arc<SystemWaker>,
    /// What the kernel is asked for, in the order in which it was added.
    asked: Vec<PollFd<'static>>,
    /// The generation of each registration, in the order of `asked`.
    generations: Vec<u32>,
}

impl Poll {
    /// An empty list, and its waker.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        let waker = Arc::new(SystemWaker::new()?);
        let mut poll = Self {
            waker,
            asked: Vec::new(),
            generations: Vec::new(),
        };
        poll.reset()?;
        Ok(poll)
    }

    /// Where a descriptor is in the list. It is asked for more often the later it was added.
    fn position(&self, fd: RawFd) -> Option<usize> {
        let watched = self.asked.iter().skip(1);
        Some(watched.rev().position(|asked| asked.as_fd().as_raw_fd() == fd)?)
            .map(|back| self.asked.len() - 1 - back)
    }

    fn remove(&mut self, position: usize) {
        self.asked.remove(position);
        self.generations.remove(position);
    }
}

impl Poller for Poll {
    type Waker = SystemWaker;

    fn waker(&self) -> Arc<SystemWaker> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        let descriptor = sys::borrow(fd)?;
        // The kernel would say so at the next wait only.
        sys::check_open(fd)?;
        if let Some(stale) = self.position(fd) {
            self.remove(stale);
        }
        self.asked
            .push(PollFd::from_borrowed_fd(descriptor, flags(interest)));
        self.generations.push(generation);
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        let position = self.position(fd).ok_or(io::ErrorKind::NotFound)?;
        sys::check_open(fd)?;
        self.asked[position] = PollFd::from_borrowed_fd(sys::borrow(fd)?, flags(interest));
        self.generations[position] = generation;
        Ok(())
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(position) = self.position(fd) {
            self.remove(position);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut self.asked, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Woken::BySignal),
            Err(error) => return Err(error.into()),
        }
        if !self.asked[0].revents().is_empty() {
            self.waker.drain();
        }
        let mut has_closed = false;
        for (asked, &generation) in self.asked.iter().zip(&self.generations).skip(1) {
            let flags = asked.revents();
            if flags.contains(PollFlags::NVAL) {
                has_closed = true;
            } else if !flags.is_empty() {
                found.push(Readiness {
                    fd: asked.as_fd().as_raw_fd(),
                    generation,
                    ready: Interest {
                        // As Python's `selectors` reads them: what is neither one nor the other is both.
                        read: !(flags - PollFlags::OUT).is_empty(),
                        write: !(flags - PollFlags::IN).is_empty(),
                        exclusive: false,
                    },
                });
            }
        }
        if has_closed {
            let is_closed = |asked: &PollFd<'_>| asked.revents().contains(PollFlags::NVAL);
            let mut closed = self.asked.iter().map(is_closed);
            self.generations.retain(|_| closed.next() == Some(false));
            self.asked.retain(|asked| !is_closed(asked));
        }
        Ok(Woken::Normally)
    }

    fn reset(&mut self) -> io::Result<()> {
        let waker = sys::borrow(self.waker.as_fd().as_raw_fd())?;
        self.asked.clear();
        self.asked.push(PollFd::from_borrowed_fd(waker, PollFlags::IN));
        self.generations.clear();
        self.generations.push(0);
        Ok(())
    }
}

fn flags(interest: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, interest.read);
    flags.set(PollFlags::OUT, interest.write);
    flags
}
