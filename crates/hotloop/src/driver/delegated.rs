//! Readiness that the host finds by itself, with a facility that the engine does not know.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::readiness::Poller;
use super::{Interest, Readiness, SystemWaker, Woken};
use crate::sys;

/// A poller that only takes notes: the host asks for [changes](Self::take_changes), waits, and says what it has
/// [found](Self::found). A wait of the driver then hands that out and never blocks.
#[derive(Debug)]
pub struct Delegated {
    waker: Arc<SystemWaker>,
    /// What the engine wants to hear of: the generation and the interest of each descriptor.
    asked: BTreeMap<RawFd, (u32, Interest)>,
    /// What the host was told of.
    told: BTreeMap<RawFd, (u32, Interest)>,
    /// What was asked for anew since the host was told, in that order. A number may be there more than once.
    changed: Vec<RawFd>,
    /// What the host has found since the last wait.
    found: Vec<(RawFd, Interest)>,
}

/// A descriptor whose interest is another one than the host knows. An empty interest is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The number of the descriptor.
    pub fd: RawFd,
    /// What the host knows.
    pub before: Interest,
    /// What is wanted now; also where it is the same, for somebody else.
    pub after: Interest,
}

/// Larger numbers are asked of the kernel before tables grow up to them.
const PLAUSIBLE: RawFd = 1 << 16;

impl Delegated {
    /// Notes of nothing, and a waker.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            waker: Arc::new(SystemWaker::new()?),
            asked: BTreeMap::new(),
            told: BTreeMap::new(),
            changed: Vec::new(),
            found: Vec::new(),
        })
    }

    /// The descriptor that becomes readable when another thread wakes the loop. The host waits for it too.
    pub fn waker_fd(&self) -> RawFd {
        self.waker.as_fd().as_raw_fd()
    }

    /// What has changed since this was asked last.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut changed = std::mem::take(&mut self.changed);
        let mut seen = std::collections::BTreeSet::new();
        changed.retain(|&fd| seen.insert(fd));
        for fd in changed {
            let none = Interest::default();
            let (asked, told) = (self.asked.get(&fd).copied(), self.told.get(&fd).copied());
            match (told, asked) {
                (None, None) => {}
                // The number is in use anew.
                (Some((old, before)), Some((new, after))) if old != new => changes.extend([
                    Change {
                        fd,
                        before,
                        after: none,
                    },
                    Change {
                        fd,
                        before: none,
                        after,
                    },
                ]),
                _ => changes.push(Change {
                    fd,
                    before: told.map_or(none, |(_, interest)| interest),
                    after: asked.map_or(none, |(_, interest)| interest),
                }),
            }
            match asked {
                Some(asked) => self.told.insert(fd, asked),
                None => self.told.remove(&fd),
            };
        }
        changes
    }

    /// Says that the host could not do what it was told of a descriptor: it does not know it.
    pub fn refused(&mut self, fd: RawFd) {
        self.told.remove(&fd);
    }

    /// Says that a descriptor is ready. Answers whether that is one of those that were asked for.
    pub fn found(&mut self, fd: RawFd, ready: Interest) -> bool {
        if fd == self.waker_fd() {
            self.waker.drain();
            return true;
        }
        self.found.push((fd, ready));
        self.asked.contains_key(&fd)
    }
}

impl Poller for Delegated {
    type Waker = SystemWaker;

    fn waker(&self) -> Arc<SystemWaker> {
        Arc::clone(&self.waker)
    }

    fn add(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        if !(0..PLAUSIBLE).contains(&fd) {
            sys::check_open(fd)?;
        }
        self.asked.insert(fd, (generation, interest));
        self.changed.push(fd);
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, generation: u32, interest: Interest) -> io::Result<()> {
        *self.asked.get_mut(&fd).ok_or(io::ErrorKind::NotFound)? = (generation, interest);
        self.changed.push(fd);
        Ok(())
    }

    fn delete(&mut self, fd: RawFd) -> io::Result<()> {
        if self.asked.remove(&fd).is_some() {
            self.changed.push(fd);
        }
        Ok(())
    }

    fn wait(&mut self, _timeout: Option<Duration>, found: &mut Vec<Readiness>) -> io::Result<Woken> {
        for (fd, ready) in self.found.drain(..) {
            // What nobody asks for any more was asked for when the host began to wait.
            if let Some(&(generation, interest)) = self.asked.get(&fd) {
                let ready = Interest {
                    read: ready.read && interest.read,
                    write: ready.write && interest.write,
                    exclusive: false,
                };
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
        self.changed.extend(self.asked.keys());
        self.asked.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Completion, Driver, Op, OpKey, Outcome, readiness::ReadinessDriver};

    fn change(before: Interest, after: Interest) -> Change {
        Change { fd: 7, before, after }
    }

    #[test]
    fn the_host_hears_what_changed_and_says_what_is_ready() -> io::Result<()> {
        let mut driver = ReadinessDriver::new(Delegated::new()?);
        driver.submit(OpKey(1), 7, Op::WatchRead)?;
        assert_eq!(
            driver.poller_mut().take_changes(),
            [change(Interest::NONE, Interest::READ)]
        );
        driver.submit(OpKey(2), 7, Op::WatchWrite)?;
        assert_eq!(
            driver.poller_mut().take_changes(),
            [change(Interest::READ, Interest::BOTH)]
        );
        assert_eq!(driver.poller_mut().take_changes(), []);
        assert!(driver.poller_mut().found(7, Interest::READ));
        assert!(!driver.poller_mut().found(8, Interest::READ));
        driver.wait(None)?;
        let told = driver.next_completion();
        let expected = Completion {
            key: OpKey(1),
            outcome: Outcome::Ready,
        };
        assert_eq!(told, Some(expected));
        assert_eq!(driver.next_completion(), None);
        Ok(())
    }

    #[test]
    fn a_descriptor_that_comes_and_goes_is_no_change_and_a_reused_one_two() -> io::Result<()> {
        let mut driver = ReadinessDriver::new(Delegated::new()?);
        driver.submit(OpKey(1), 7, Op::WatchRead)?;
        driver.cancel(OpKey(1), 7, Op::WatchRead);
        assert_eq!(driver.poller_mut().take_changes(), []);
        driver.submit(OpKey(2), 7, Op::WatchRead)?;
        assert_eq!(driver.poller_mut().take_changes().len(), 1);
        driver.cancel(OpKey(2), 7, Op::WatchRead);
        driver.submit(OpKey(3), 7, Op::WatchRead)?;
        let changes = driver.poller_mut().take_changes();
        assert_eq!(
            changes,
            [
                change(Interest::READ, Interest::NONE),
                change(Interest::NONE, Interest::READ)
            ]
        );
        Ok(())
    }
}
