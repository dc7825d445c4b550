//! The waker where there is no eventfd: a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Waker;
use crate::sys;

/// A pipe whose reading end ends a wait.
///
/// Whoever waits drains it: unlike an eventfd's counter it fills up, and a full one has no new edge to tell.
#[derive(Debug)]
pub struct WakePipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl WakePipe {
    /// A new one, with no wake-up pending.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = sys::pipe()?;
        Ok(Self { reader, writer })
    }

    /// Takes the wake-ups that are pending. Answers whether there were any.
    pub(super) fn drain(&self) -> bool {
        let mut taken = [0; 512];
        let mut any = false;
        while let Ok(count) = rustix::io::retry_on_intr(|| rustix::io::read(&self.reader, &mut taken)) {
            any = true;
            if count < taken.len() {
                break;
            }
        }
        any
    }
}

impl AsFd for WakePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Waker for WakePipe {
    fn wake(&self) {
        // The one possible failure is a full pipe, which is many wake-ups pending already.
        if rustix::io::retry_on_intr(|| rustix::io::write(&self.writer, &[0])).is_err() {}
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn ends_a_wait(pipe: &WakePipe) -> io::Result<bool> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        Ok(poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&now))? == 1)
    }

    #[test]
    fn wakes_coalesce_however_many_there_are() -> io::Result<()> {
        let pipe = WakePipe::new()?;
        assert!(!pipe.drain());
        // Whole reads, a part of one, and more than any pipe holds.
        for wakes in [1, 512, 1024, 1300, 1 << 17] {
            assert!(!ends_a_wait(&pipe)?);
            (0..wakes).for_each(|_| pipe.wake());
            assert!(ends_a_wait(&pipe)?);
            assert!(pipe.drain());
            assert!(!pipe.drain());
        }
        Ok(())
    }
}
