//! Waiting for an epoll set.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Waits for events and appends them to `events`, up to its capacity. The timeout counts nanoseconds where the kernel
/// does (Linux 5.11) and is rounded up to milliseconds elsewhere.
///
/// # Errors
/// The kernel's; `Interrupted` if a signal came in.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<libc::epoll_event>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    /// Lowered for good once the kernel, or a filter in front of it, refused `epoll_pwait2`.
    static NANOSECONDS: AtomicBool = AtomicBool::new(true);

    if let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero())
        && NANOSECONDS.load(Ordering::Relaxed)
    {
        match epoll_wait_nanoseconds(epoll, events, timeout) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                NANOSECONDS.store(false, Ordering::Relaxed);
            }
            result => return result,
        }
    }
    epoll_wait_milliseconds(epoll, events, timeout)
}

fn epoll_wait_nanoseconds(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<libc::epoll_event>,
    timeout: Duration,
) -> io::Result<()> {
    /// The kernel's `__kernel_timespec`: 64 bits each, also where the C library's `timespec` has 32.
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }

    let timeout = Timespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: timeout.subsec_nanos().into(),
    };
    append_events(events, |pointer, limit| {
        // SAFETY: `pointer` is valid for `limit` events, the time outlives the call, and no signal mask is passed.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                pointer,
                limit,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        // At most `limit`, which is a `c_int`.
        count as libc::c_int
    })
}

fn epoll_wait_milliseconds(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<libc::epoll_event>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let milliseconds = match timeout {
        None => -1,
        Some(timeout) => {
            libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
        }
    };
    append_events(events, |pointer, limit| {
        // SAFETY: `pointer` is valid for `limit` events.
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), pointer, limit, milliseconds) }
    })
}

/// Appends the events that `wait` writes to the pointer it is given, at most as many as it is told. It answers how many
/// those are, or a negative number for an error.
fn append_events(
    events: &mut Vec<libc::epoll_event>,
    wait: impl FnOnce(*mut libc::epoll_event, libc::c_int) -> libc::c_int,
) -> io::Result<()> {
    let room = events.spare_capacity_mut();
    let limit = libc::c_int::try_from(room.len()).unwrap_or(libc::c_int::MAX);
    let count = wait(room.as_mut_ptr().cast(), limit);
    let Ok(count) = usize::try_from(count) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel wrote `count` events, at most `limit`, behind those that were there.
    unsafe { events.set_len(events.len() + count) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Instant;

    use rustix::event::epoll;

    use super::*;

    #[test]
    fn both_ways_to_wait_keep_the_whole_timeout() -> io::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut events = Vec::with_capacity(4);
        for timeout in [1, 999_999, 1_000_001, 2_500_000].map(Duration::from_nanos) {
            let start = Instant::now();
            epoll_wait_milliseconds(epoll.as_fd(), &mut events, Some(timeout))?;
            assert!(start.elapsed() >= timeout);
            let start = Instant::now();
            epoll_wait(epoll.as_fd(), &mut events, Some(timeout))?;
            assert!(start.elapsed() >= timeout);
        }
        assert!(events.is_empty());
        Ok(())
    }

    #[test]
    fn events_are_appended_up_to_the_capacity() -> io::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ready: Vec<_> = (0..3)
            .map(|_| rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC))
            .collect::<Result<_, _>>()?;
        for (label, fd) in (0..).zip(&ready) {
            epoll::add(
                &epoll,
                fd,
                epoll::EventData::new_u64(label),
                epoll::EventFlags::IN,
            )?;
        }
        let long = Some(Duration::from_secs(60));
        for timeout in [None, Some(Duration::ZERO), long] {
            let mut events = Vec::with_capacity(2);
            let capacity = events.capacity();
            epoll_wait(epoll.as_fd(), &mut events, timeout)?;
            assert_eq!(events.len(), capacity.min(3));
        }
        let mut events = Vec::with_capacity(8);
        epoll_wait(epoll.as_fd(), &mut events, long)?;
        epoll_wait_milliseconds(epoll.as_fd(), &mut events, long)?;
        let mut labels: Vec<u64> = events.iter().map(|event| event.u64).collect();
        labels.sort_unstable();
        assert_eq!(labels, [0, 0, 1, 1, 2, 2]);
        Ok(())
    }
}
