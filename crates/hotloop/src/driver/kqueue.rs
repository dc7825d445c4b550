//! The kqueue of macOS and the BSDs, level-triggered, one or two filters a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::filters::{Filters, Told, Trigger, Watched};
use super::readiness::Poller;
use super::wake_pipe::WakePipe;
use super::{Direction, Interest, Readiness, Woken};
use crate::sys;

/// The kqueue facility.
///
/// It forgets a number when it is closed, whichever duplicates there are: nothing it tells is of an earlier registration.
#[derive(Debug)]
pub struct Kqueue {
    kqueue: OwnedFd,
    waker: Arc<WakePipe>,
    filters: Filters,
    /// Room for what the kernel tells; written by each wait.
    told: Vec<Told>,
}

impl Kqueue {
    /// What the kernel calls it.
    pub const NAME: &str = "kqueue";

    /// A new kqueue and its waker.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        let waker = Arc::new(WakePipe::new()?);
        Ok(Self {
            kqueue: create(&waker)?,
            waker,
            filters: Filters::default(),
            told: Vec::new(),
        })
    }

    /// Has the kernel watch what is asked for a descriptor now, in the place of what was before.
    fn watch(&mut self, fd: RawFd, before: Option<Watched>, now: Watched) -> io::Result<()> {
        for direction in [Direction::Read, Direction::Write] {
            let old = before.and_then(|before| before.asks(direction));
            let new = now.asks(direction);
            // The kernel does not change the trigger of a filter that it has.
            if old.is_some() && old != new {
                sys::drop_filter(self.kqueue.as_fd(), fd, direction)?;
            }
            // Also what is there already: the number may be another descriptor by now.
            let Some(trigger) = new else { continue };
            match sys::add_filter(self.kqueue.as_fd(), fd, direction, trigger == Trigger::Edge) {
                Ok(()) => {}
                // The writing end of a pipe that nobody reads.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.filters.hang_up(fd),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the kernel watch a descriptor, or nothing new if it refuses.
    fn ask(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        let now = Watched {
            generation,
            interest,
            only_way: sys::only_way(fd)?,
        };
        let before = self.filters.remove(fd);
        let result = self.watch(fd, before, now);
        if result.is_ok() {
            self.filters.insert(fd, now);
            return Ok(());
        }
        self.filters.remove(fd);
        if let Some(before) = before {
            // The old filters stay, or come back. If that fails, nothing becomes ready here any more.
            drop(self.watch(fd, Some(now), before));
            self.filters.insert(fd, before);
        } else {
            self.drop_filters(fd, now);
        }
        result
    }

    fn drop_filters(&self, fd: RawFd, watched: Watched) {
        for direction in [Direction::Read, Direction::Write] {
            if watched.asks(direction).is_some()
                && sys::drop_filter(self.kqueue.as_fd(), fd, direction).is_err()
            {
                // It was closed: there is no filter.
            }
        }
    }
}

impl Poller for Kqueue {
    type Waker = WakePipe;

    fn waker(&self) -> Arc<WakePipe> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        self.ask(fd, generation, interest)
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        if self.filters.get(fd).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.ask(fd, generation, interest)
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(watched) = self.filters.remove(fd) {
            self.drop_filters(fd, watched);
        }
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        for fd in self.filters.take_hung_up() {
            if let Some(watched) = self.filters.get(fd)
                && self.watch(fd, Some(watched), watched).is_err()
            {
                // It was closed: nothing becomes ready here any more.
            }
        }
        let timeout = if self.filters.has_hung_up() {
            Some(Duration::ZERO)
        } else {
            timeout
        };
        self.told.clear();
        if let Err(error) = sys::kqueue_wait(self.kqueue.as_fd(), &mut self.told, timeout) {
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(Woken::BySignal),
                _ => Err(error),
            };
        }
        let waker = self.waker.as_fd().as_raw_fd();
        if self.told.iter().any(|told| told.fd == waker) {
            self.waker.drain();
        }
        self.filters.tell(&mut self.told, found);
        Ok(Woken::Normally)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.kqueue = create(&self.waker)?;
        self.filters = Filters::default();
        Ok(())
    }
}

/// A kqueue that watches its waker.
fn create(waker: &WakePipe) -> io::Result<OwnedFd> {
    let kqueue = sys::kqueue()?;
    sys::add_filter(kqueue.as_fd(), waker.as_fd().as_raw_fd(), Direction::Read, false)?;
    Ok(kqueue)
}
