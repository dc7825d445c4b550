//! `select(2)`: sets of descriptor numbers below 1024.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

/// A set of descriptor numbers.
#[derive(Clone, Copy)]
pub(crate) struct FdSet(libc::fd_set);

impl FdSet {
    /// A set of none.
    pub(crate) fn new() -> Self {
        let mut set = MaybeUninit::<libc::fd_set>::uninit();
        // SAFETY: there is room for the set, which `FD_ZERO` writes as a whole.
        unsafe {
            libc::FD_ZERO(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Whether a set has room for a number.
    pub(crate) fn has_room_for(fd: RawFd) -> bool {
        usize::try_from(fd).is_ok_and(|number| number < libc::FD_SETSIZE)
    }

    /// Adds a number that there is room for; another one is left out.
    pub(crate) fn insert(&mut self, fd: RawFd) {
        if Self::has_room_for(fd) {
            // SAFETY: the number is within the set.
            unsafe { libc::FD_SET(fd, &raw mut self.0) };
        }
    }

    /// Whether a number is in the set.
    pub(crate) fn contains(&self, fd: RawFd) -> bool {
        // SAFETY: the number is within the set.
        Self::has_room_for(fd) && unsafe { libc::FD_ISSET(fd, &raw const self.0) }
    }
}

/// Waits until a descriptor of one of the sets is ready, and leaves only those that are. `highest` is the largest
/// number in either. The timeout counts nanoseconds.
///
/// # Errors
/// The kernel's, with the sets in no known state: `Interrupted` if a signal came in, EBADF if a number is closed.
pub(crate) fn select(
    highest: RawFd,
    read: &mut FdSet,
    write: &mut FdSet,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: both sets and the time outlive the call, which looks at numbers that the sets have room for only, and no
    // signal mask is passed.
    let count = unsafe {
        libc::pselect(
            highest.min(libc::FD_SETSIZE as RawFd - 1) + 1,
            &raw mut read.0,
            &raw mut write.0,
            ptr::null_mut(),
            timeout,
            ptr::null(),
        )
    };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
