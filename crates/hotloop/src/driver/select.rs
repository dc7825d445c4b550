//! `select(2)`: two sets of descriptor numbers, of which none may be 1024 or more.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::readiness::Poller;
use super::{Interest, Readiness, SystemWaker, Woken};
use crate::sys::{self, FdSet};

/// The select facility. As [`Poll`](super::Poll) it knows of descriptors only while it waits.
#[derive(Debug)]
pub struct Select {
    waker: Arc<SystemWaker>,
    /// What the kernel is asked for: the generation and the interest of each descriptor.
    asked: BTreeMap<RawFd, (u32, Interest)>,
}

/// A descriptor number that `select` has no room for.
#[derive(Clone, Copy, Debug)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Python's words.
        to.write_str("filedescriptor out of range in select()")
    }
}

impl Error for OutOfRange {}

impl Select {
    /// Empty sets, and their waker.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely. [`OutOfRange`] within, if there is none left for `select`.
    pub fn new() -> io::Result<Self> {
        let waker = Arc::new(SystemWaker::new()?);
        check_range(waker.as_fd().as_raw_fd())?;
        Ok(Self {
            waker,
            asked: BTreeMap::new(),
        })
    }
}

impl Poller for Select {
    type Waker = SystemWaker;

    fn waker(&self) -> Arc<SystemWaker> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        sys::check_open(fd)?;
        check_range(fd)?;
        self.asked.insert(fd, (generation, interest));
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        let asked = self.asked.get_mut(&fd).ok_or(io::ErrorKind::NotFound)?;
        sys::check_open(fd)?;
        *asked = (generation, interest);
        Ok(())
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        self.asked.remove(&fd);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        let waker = self.waker.as_fd().as_raw_fd();
        let (mut read, mut write) = (FdSet::new(), FdSet::new());
        read.insert(waker);
        for (&fd, (_, interest)) in &self.asked {
            if interest.read {
                read.insert(fd);
            }
            if interest.write {
                write.insert(fd);
            }
        }
        let highest = self.asked.keys().next_back().map_or(waker, |&fd| fd.max(waker));
        match sys::select(highest, &mut read, &mut write, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Woken::BySignal),
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                // One that was closed fails the wait for all. The loop waits again, without it.
                self.asked.retain(|&fd, _| sys::check_open(fd).is_ok());
                return Ok(Woken::Normally);
            }
            Err(error) => return Err(error),
        }
        if read.contains(waker) {
            self.waker.drain();
        }
        for (&fd, &(generation, interest)) in &self.asked {
            let ready = Interest {
                read: interest.read && read.contains(fd),
                write: interest.write && write.contains(fd),
                exclusive: false,
            };
            if !ready.is_empty() {
                found.push(Readiness {
                    fd,
                    generation,
                    ready,
                });
            }
        }
        Ok(Woken::Normally)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.asked.clear();
        Ok(())
    }
}

fn check_range(fd: RawFd) -> io::Result<()> {
    if FdSet::has_room_for(fd) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, OutOfRange))
}
