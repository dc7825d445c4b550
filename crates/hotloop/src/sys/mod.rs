//! Safe wrappers over the system calls that take a bare descriptor number.
//!
//! The loop is given numbers, not owned descriptors: in Python the socket object owns the descriptor. A number that
//! was closed meanwhile answers EBADF, which is an error like any other; it never touches memory.
#![expect(
    unsafe_code,
    reason = "a descriptor number becomes a `BorrowedFd` here, and libc is called where rustix is not enough"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};

/// Lends a descriptor number to one system call.
///
/// # Errors
/// EBADF if the number is negative.
pub(crate) fn borrow(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is not -1. Should it be closed, the system call that it is lent to answers EBADF.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Receives what is there, at most `buffer.len()` bytes; 0 is the end of the stream. Never waits on a non-blocking
/// socket.
///
/// # Errors
/// The socket's, `WouldBlock` among them.
#[inline]
pub(crate) fn receive(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(borrow(fd)?, buffer, RecvFlags::empty())?;
    Ok(received.0.len())
}

/// Sends what the socket takes at once. A peer that is gone is EPIPE, never a signal.
///
/// # Errors
/// The socket's, `WouldBlock` among them.
#[inline]
pub(crate) fn send(fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let fd = borrow(fd)?;
    Ok(match buffers {
        [buffer] => rustix::net::send(fd, buffer, SendFlags::NOSIGNAL)?,
        _ => rustix::net::sendmsg(
            fd,
            buffers,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )?,
    })
}

/// Accepts a connection, non-blocking and close-on-exec.
///
/// # Errors
/// The socket's, `WouldBlock` among them.
pub(crate) fn accept(fd: RawFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(
        borrow(fd)?,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
    )?)
}

/// Shuts the sending half of a connection down.
///
/// # Errors
/// The socket's.
pub(crate) fn shutdown_write(fd: RawFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(borrow(fd)?, rustix::net::Shutdown::Write)?)
}

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

    let room = events.spare_capacity_mut();
    let (pointer, capacity) = (room.as_mut_ptr().cast::<libc::epoll_event>(), room.len());
    let limit = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
    let precise = timeout.is_some_and(|timeout| !timeout.is_zero()) && NANOSECONDS.load(Ordering::Relaxed);
    let count = if precise {
        let timeout = timeout.unwrap_or_default();
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: `pointer` is valid for `limit` events, the time outlives the call, and no signal mask is passed.
        unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                pointer,
                limit,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        }
    } else {
        let milliseconds = match timeout {
            None => -1,
            Some(timeout) => {
                libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
            }
        };
        // SAFETY: `pointer` is valid for `limit` events.
        libc::c_long::from(unsafe { libc::epoll_wait(epoll.as_raw_fd(), pointer, limit, milliseconds) })
    };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        if precise && matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            NANOSECONDS.store(false, Ordering::Relaxed);
            return epoll_wait(epoll, events, timeout);
        }
        return Err(error);
    };
    // SAFETY: the kernel wrote `count` events, at most `capacity`, behind those that were there.
    unsafe { events.set_len(events.len() + count) };
    Ok(())
}
