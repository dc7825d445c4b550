//! kqueues: what they watch, and waiting for them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::event::kqueue::{self, Event, EventFilter, EventFlags, ProcessEvents};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::driver::Direction;
use crate::driver::filters::Told;

/// How many events one wait takes at most. More stay in the kernel, which hands them out in turn.
const EVENTS: usize = 512;

/// A new kqueue, which programs that are started do not inherit.
///
/// # Errors
/// The kernel's: no descriptor left, most likely.
pub(crate) fn kqueue() -> io::Result<OwnedFd> {
    let kqueue = kqueue::kqueue()?;
    rustix::io::fcntl_setfd(&kqueue, rustix::io::FdFlags::CLOEXEC)?;
    Ok(kqueue)
}

/// Watches a descriptor in one direction; one that is watched already stays so. `is_edge` tells only what is new.
///
/// # Errors
/// The kernel's; `BrokenPipe` for a pipe whose other end is gone.
pub(crate) fn add_filter(
    kqueue: BorrowedFd<'_>,
    fd: RawFd,
    direction: Direction,
    is_edge: bool,
) -> io::Result<()> {
    let mut flags = EventFlags::ADD;
    flags.set(EventFlags::CLEAR, is_edge);
    Ok(change(kqueue, filter(fd, direction), flags)?)
}

/// Stops watching a descriptor in one direction; one that is closed or not watched is no error.
///
/// # Errors
/// The kernel's.
pub(crate) fn drop_filter(kqueue: BorrowedFd<'_>, fd: RawFd, direction: Direction) -> io::Result<()> {
    match change(kqueue, filter(fd, direction), EventFlags::DELETE) {
        Ok(()) | Err(Errno::NOENT | Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A descriptor that becomes readable when a child process has ended, and stays so.
///
/// # Errors
/// The kernel's; it may know no process that has ended already.
pub(crate) fn exit_of(pid: Pid) -> io::Result<OwnedFd> {
    let exit = kqueue()?;
    let flags = ProcessEvents::EXIT;
    change(exit.as_fd(), EventFilter::Proc { pid, flags }, EventFlags::ADD)?;
    Ok(exit)
}

/// Waits for events and appends them to `told`. The timeout counts nanoseconds.
///
/// # Errors
/// The kernel's; `Interrupted` if a signal came in.
pub(crate) fn kqueue_wait(
    kqueue: BorrowedFd<'_>,
    told: &mut Vec<Told>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let mut room = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
    // SAFETY: this asks for no change, and so names no descriptor.
    let (events, _) = unsafe { kqueue::kevent(kqueue, &[], &mut room[..], timeout) }?;
    told.extend(events.iter().filter_map(|event| {
        let (fd, is_write) = match event.filter() {
            EventFilter::Read(fd) => (fd, false),
            EventFilter::Write(fd) => (fd, true),
            _ => return None,
        };
        Some(Told {
            fd,
            is_write,
            has_ended: event.flags().contains(EventFlags::EOF),
        })
    }));
    Ok(())
}

/// Changes what a kqueue watches. The kernel answers a single change by the call's own error.
fn change(kqueue: BorrowedFd<'_>, filter: EventFilter, flags: EventFlags) -> Result<(), Errno> {
    let change = [Event::new(filter, flags, ptr::null_mut())];
    // SAFETY: a number that is closed, now or later, is an error or forgotten by the kernel; it touches no memory.
    unsafe { kqueue::kevent(kqueue, &change, &mut [] as &mut [Event], None) }?;
    Ok(())
}

fn filter(fd: RawFd, direction: Direction) -> EventFilter {
    match direction {
        Direction::Read => EventFilter::Read(fd),
        Direction::Write => EventFilter::Write(fd),
    }
}
