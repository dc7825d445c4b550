//! Linux's epoll, level-triggered, one registration a descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;

use super::busy_poll::BusyPoll;
use super::eventfd::Eventfd;
use super::readiness::Poller;
use super::{Interest, Readiness, Woken};
use crate::sys;

/// How many events one wait takes at most. More stay in the kernel, which hands them out in turn.
pub(super) const EVENTS: usize = 512;

/// What the kernel reports where reading does not exhaust what there is: behind the bytes there is an end or an error.
const ENDS: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();

/// What the waker's events carry: no descriptor number is negative, so no registration shares it.
const WAKER: u64 = u64::MAX;

/// The epoll facility.
#[derive(Debug)]
pub struct Epoll {
    /// Dropped before the waker, which it watches.
    epoll: OwnedFd,
    waker: Arc<Eventfd>,
    /// Room for what the kernel reports; written by each wait.
    events: Vec<libc::epoll_event>,
    /// Whether a wait that may sleep looks around first.
    busy_poll: BusyPoll,
}

impl Epoll {
    /// What the kernel calls it.
    pub const NAME: &str = "epoll";

    /// A new epoll instance and its waker.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        let waker = Arc::new(Eventfd::new()?);
        let epoll = create(&waker)?;
        Ok(Self {
            epoll,
            waker,
            events: Vec::with_capacity(EVENTS),
            busy_poll: BusyPoll::new(),
        })
    }

    /// Waits, awake for the first microseconds where that is likely to be enough; see [`BusyPoll`].
    fn wait_awake(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        let begun = Instant::now();
        let mut left = timeout;
        if self.busy_poll.is_due(self.events.len(), timeout) {
            let Self { epoll, events, .. } = self;
            let looked = self.busy_poll.look(begun, || {
                let woken = ask(epoll, events, Some(Duration::ZERO))?;
                Ok((!events.is_empty() || woken == Woken::BySignal).then_some(woken))
            })?;
            if let Some(woken) = looked {
                return Ok(woken);
            }
            left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        }
        let woken = ask(&self.epoll, &mut self.events, left)?;
        if !self.events.is_empty() {
            self.busy_poll.slept(begun.elapsed());
        }
        Ok(woken)
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Poller for Epoll {
    type Waker = Eventfd;

    fn waker(&self) -> Arc<Eventfd> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            sys::borrow(fd)?,
            data(fd, generation),
            flags(interest),
        )?)
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        let descriptor = sys::borrow(fd)?;
        if !interest.exclusive {
            match epoll::modify(&self.epoll, descriptor, data(fd, generation), flags(interest)) {
                // One that is exclusive cannot be changed.
                Err(Errno::INVAL) => {}
                result => return Ok(result?),
            }
        }
        epoll::delete(&self.epoll, descriptor)?;
        self.add(fd, generation, interest)
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        match epoll::delete(&self.epoll, sys::borrow(fd)?) {
            // Closed already, and perhaps reopened as something else.
            Ok(()) | Err(Errno::NOENT | Errno::BADF | Errno::PERM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        let woken = if timeout == Some(Duration::ZERO) {
            ask(&self.epoll, &mut self.events, timeout)?
        } else {
            self.wait_awake(timeout)?
        };
        found.extend(readinesses(&self.events));
        Ok(woken)
    }

    fn has_told_all(&self) -> bool {
        self.events.len() < EVENTS && self.events.iter().all(|event| event.events & ENDS == 0)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.epoll = create(&self.waker)?;
        Ok(())
    }
}

/// Asks the kernel once. What it has is in `events` then, and nothing else.
fn ask(epoll: &OwnedFd, events: &mut Vec<libc::epoll_event>, timeout: Option<Duration>) -> io::Result<Woken> {
    events.clear();
    match sys::epoll_wait(epoll.as_fd(), events, timeout) {
        Ok(()) => Ok(Woken::Normally),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Woken::BySignal),
        Err(error) => Err(error),
    }
}

/// An epoll instance that watches its waker.
fn create(waker: &Eventfd) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, waker, epoll::EventData::new_u64(WAKER), flags)?;
    Ok(epoll)
}

/// The descriptor in the low half, its generation in the high one.
fn data(fd: RawFd, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64((u64::from(generation) << 32) | u64::from(fd.cast_unsigned()))
}

fn flags(interest: Interest) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    flags.set(epoll::EventFlags::IN, interest.read);
    // Wakes nobody by itself, since what has ended is readable too. An exclusive registration may not ask for it.
    flags.set(epoll::EventFlags::RDHUP, interest.read && !interest.exclusive);
    flags.set(epoll::EventFlags::OUT, interest.write);
    flags.set(epoll::EventFlags::EXCLUSIVE, interest.exclusive);
    flags
}

/// What the kernel reports, but for wake-ups.
pub(super) fn readinesses(events: &[libc::epoll_event]) -> impl Iterator<Item = Readiness> {
    events.iter().filter_map(|event| {
        let (data, bits) = (event.u64, event.events & !libc::EPOLLRDHUP.cast_unsigned());
        (data != WAKER).then(|| readiness(data, bits))
    })
}

fn readiness(data: u64, bits: u32) -> Readiness {
    let (read, write) = (libc::EPOLLIN.cast_unsigned(), libc::EPOLLOUT.cast_unsigned());
    Readiness {
        fd: (data as u32).cast_signed(),
        generation: (data >> 32) as u32,
        // As Python's `selectors` reads them: what is neither one nor the other (an error, a hang-up) is both.
        ready: Interest {
            read: bits & !write != 0,
            write: bits & !read != 0,
            exclusive: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Waker;
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const READ: Interest = Interest {
        read: true,
        write: false,
        exclusive: false,
    };

    /// One that looks before it sleeps, and watches one of two ends.
    fn looking() -> io::Result<(Epoll, UnixStream, UnixStream)> {
        let mut epoll = Epoll::new()?;
        let (near, far) = UnixStream::pair()?;
        epoll.add(near.as_raw_fd(), 7, READ)?;
        epoll.busy_poll = BusyPoll::due();
        Ok((epoll, near, far))
    }

    #[test]
    fn what_is_there_is_found_by_looking() -> io::Result<()> {
        let (mut epoll, near, mut far) = looking()?;
        far.write_all(b"x")?;
        let mut found = Vec::new();
        assert_eq!(epoll.wait(None, &mut found)?, Woken::Normally);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].fd, found[0].generation), (near.as_raw_fd(), 7));
        assert!(found[0].ready.read);
        assert!(epoll.busy_poll.is_due(1, None));
        Ok(())
    }

    #[test]
    fn a_wait_that_looked_is_no_shorter_for_it() -> io::Result<()> {
        let (mut epoll, _near, _far) = looking()?;
        let (mut found, begun) = (Vec::new(), Instant::now());
        epoll.wait(Some(Duration::from_millis(2)), &mut found)?;
        assert!(begun.elapsed() >= Duration::from_millis(2));
        assert!(found.is_empty());
        assert!(!epoll.busy_poll.is_due(0, None));
        Ok(())
    }

    #[test]
    fn a_wait_that_looked_in_vain_sleeps_until_it_is_woken() -> io::Result<()> {
        let (mut epoll, _near, mut far) = looking()?;
        let waker = epoll.waker();
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            epoll.wait(None, &mut found)
        })?;
        assert!(found.is_empty());
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| far.write_all(b"x"));
            epoll.wait(None, &mut found)?;
            sent.join().expect("it does not panic")
        })?;
        assert_eq!(found.len(), 1);
        Ok(())
    }
}
