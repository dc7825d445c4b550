//! The contract between the loop and a kernel facility.
//!
//! A driver takes operations ([`Op`]) and gives completions ([`Completion`]). A *completion* facility (io_uring, IOCP)
//! does the operation itself; a *readiness* facility (epoll, kqueue, poll, select) goes through [`readiness`], which
//! tries the system call, else waits until the descriptor is ready, then does it. Nothing above this module knows
//! which of the two it runs on.
//!
//! The laws, tested for every driver by one suite (`tests/drivers.rs`):
//!
//! 1. [`submit`](Driver::submit) and [`cancel`](Driver::cancel) never block.
//! 2. Each accepted operation has exactly one last completion; a cancelled one too. Its key is free for reuse from
//!    then on, not before. What was found ready before the cancel may still come before that last completion; an
//!    operation begun after a wait hears nothing of that wait.
//! 3. The data of a `Ready` completion is taken when the completion is taken, not earlier: the loop hands out events
//!    one by one, and the reads of a turn must not all be done before its first callback.
//! 4. [`wait`](Driver::wait) is the only call that may block. A wake before it makes it return; wakes coalesce.
//! 5. EINTR ends a wait early without an error: the caller looks at its signals and waits again.
//! 6. Timeouts are kept to the nanosecond and never cut short by rounding: where the kernel only knows milliseconds,
//!    they are rounded up.
//! 7. A loop with nothing to do makes no system call.
//! 8. What was [posted](Driver::post) is sent by the next wait, before anything is waited for, or comes back
//!    [unsent](Driver::next_unsent) after it.
//! 9. Of several loops that accept on one listening socket, in processes of their own or not, a connection wakes one,
//!    and each has its turn; kqueue, poll and select cannot tell them apart and wake all.

mod any;
mod datagram;
mod op;
pub mod readiness;
pub mod sim;

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

pub use any::AnyDriver;
#[cfg(linux)]
pub(crate) use datagram::run_length;
pub use datagram::{Address, Batch, MAX_ADDRESS, MAX_BATCH, MAX_SENT, Outgoing, Parts};
pub use op::{
    Accepted, Completion, Direction, Interest, Op, OpKey, Outcome, Readiness, SocketAddress, Unsent,
};

mod delegated;
mod poll;
mod select;

pub use delegated::{Change, Delegated};
pub use poll::Poll;
pub use select::{OutOfRange, Select};

// The one place where the operating system is chosen.
#[cfg(epoll)]
mod busy_poll;
#[cfg(epoll)]
mod epoll;
#[cfg(epoll)]
mod eventfd;
#[cfg(epoll)]
pub use {epoll::Epoll, epoll::Epoll as SystemPoller, eventfd::Eventfd, eventfd::Eventfd as SystemWaker};
#[cfg(any(kqueue, test))]
pub(crate) mod filters;
#[cfg(kqueue)]
mod kqueue;
#[cfg(any(kqueue, test))]
mod wake_pipe;
#[cfg(any(kqueue, test))]
pub use wake_pipe::WakePipe;
#[cfg(kqueue)]
pub use {kqueue::Kqueue, kqueue::Kqueue as SystemPoller, wake_pipe::WakePipe as SystemWaker};
#[cfg(not(any(epoll, kqueue)))]
compile_error!(
    "hotloop has no driver for this operating system yet: it has epoll (Linux) and kqueue (macOS, BSD)"
);
#[cfg(io_uring)]
mod io_uring;
pub use crate::sys::PipeKind;
#[cfg(epoll)]
pub use crate::sys::reap;
#[cfg(io_uring)]
pub use crate::sys::{OpenedFile, kind_of, open_cached, read_cached};
#[cfg(io_uring)]
pub use io_uring::{FileDone, FileOp, FileRing, Refused, Settings};

/// The best readiness driver of this platform.
pub type Selector = readiness::ReadinessDriver<SystemPoller>;

/// The best completion driver of this platform.
#[cfg(io_uring)]
pub type Proactor = io_uring::Uring;

/// A kernel facility that runs operations; see the [module](self) for its laws.
pub trait Driver {
    /// What other threads wake it through.
    type Waker: Waker;

    /// The waker of this driver. It may be called from any thread, also after the driver is gone.
    fn waker(&self) -> Arc<Self::Waker>;

    /// Begins an operation on a descriptor.
    ///
    /// # Errors
    /// The kernel's, if it refuses the descriptor: nothing has begun then, and `key` stays free. `AlreadyExists` if an
    /// operation in the same direction is waiting on that descriptor.
    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()>;

    /// Cancels an operation on a descriptor that is still open. Its last completion follows. An operation that does
    /// not wait there any longer is left alone.
    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op);

    /// Replaces the operation that waits with another in the same direction. The old one's last completion follows,
    /// also where this fails.
    ///
    /// # Errors
    /// `NotFound` if no operation in that direction waits on the descriptor; else the kernel's, as of `submit`: the
    /// number may be another descriptor by now.
    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()>;

    /// Lets go of a stream socket, before its descriptor is closed and after its operations were cancelled: whatever a
    /// driver still does or keeps for it ends here. The peer hears of the close at once, and nothing that was taken
    /// from this socket reaches another of the same number.
    /// What was posted and not sent is dropped.
    fn release(&mut self, fd: RawFd);

    /// Waits until something completes, the waker is called, the timeout is over (`None`: there is none) or a signal
    /// comes in.
    ///
    /// # Errors
    /// The kernel's. A signal is not an error.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken>;

    /// The next completion of the last wait.
    fn next_completion(&mut self) -> Option<Completion>;

    /// Whether there may be completions that nobody has taken.
    fn has_completions(&self) -> bool;

    /// Whether a wait that takes no time is needed though no operation is under way: something is left to be told, done
    /// or refused. Without operations and without chores it would find nothing, and is spared.
    fn has_chores(&self) -> bool;

    /// Whether there is nothing that the last wait could have told of and has not: once all that it told of is
    /// received, and unless anybody does something meanwhile, another wait finds nothing. A driver that does not know
    /// says no.
    fn has_told_all(&self) -> bool {
        false
    }

    /// Takes received bytes into `buffer`, for an [`Op::Receive`] that is `Ready`; 0 is the end of the stream. The
    /// bytes before that are initialised.
    ///
    /// # Errors
    /// The connection's; `WouldBlock` if there was nothing after all.
    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize>;

    /// Sends what the kernel takes at once of these buffers and says how many bytes that was.
    ///
    /// # Errors
    /// The connection's; `WouldBlock` if the kernel has no room: then submit [`Op::Send`].
    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// As [`send`](Self::send), of bytes that others are to follow soon: the kernel has them and may wait for those, for
    /// [`uncork`](Self::uncork), or for a moment of its own choice, before it sends the last packet. A driver that
    /// gains nothing by it sends.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    fn send_corked(&mut self, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
        self.send(fd, &[io::IoSlice::new(bytes)])
    }

    /// Has the kernel wait no longer, where nothing has followed.
    fn uncork(&mut self, _fd: RawFd) {}

    /// Takes bytes that the next wait sends on a stream socket, behind those that were posted before. Answers whether
    /// it has taken them; a driver that gains nothing by it takes none.
    fn post(&mut self, fd: RawFd, bytes: &[u8]) -> bool;

    /// Sends what was posted on a descriptor now: something is to come behind it.
    fn settle(&mut self, fd: RawFd);

    /// The next of what was posted and could not be sent, since a wait or [`settle`](Self::settle): one for each
    /// descriptor.
    fn next_unsent(&mut self) -> Option<Unsent>;

    /// As [`receive`](Self::receive), from a descriptor that need not be a socket.
    ///
    /// # Errors
    /// The descriptor's; `WouldBlock` if there was nothing after all.
    fn read(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize>;

    /// As [`send`](Self::send), to a descriptor that need not be a socket. One without a reader is an error, and a
    /// signal (SIGPIPE) where the process has not turned that off, as Python and Rust do.
    ///
    /// # Errors
    /// The descriptor's; `WouldBlock` if the kernel has no room: then submit [`Op::Send`].
    fn write(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// Takes datagrams that came in, at most `limit` of them, for an [`Op::ReceiveFrom`] that is `Ready`. Whatever
    /// `batch` held before is gone.
    ///
    /// # Errors
    /// The socket's, such as what became of a datagram sent before; `WouldBlock` if there was nothing after all. It
    /// is told before the datagrams that came in after it.
    fn receive_datagrams(&mut self, fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()>;

    /// Takes one datagram into `buffer`, and says how many bytes it has and who sent it. Those bytes are initialised.
    ///
    /// # Errors
    /// As of [`receive_datagrams`](Self::receive_datagrams).
    fn receive_from(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)>;

    /// Sends datagrams, as many of the first ones as the kernel takes at once, and says how many those were: at least
    /// one.
    ///
    /// # Errors
    /// The first datagram's; `WouldBlock` if the kernel has no room: then submit [`Op::Send`].
    fn send_datagrams(&mut self, fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize>;

    /// Ends the sending half of a stream, behind what was sent.
    ///
    /// # Errors
    /// The connection's.
    fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()>;

    /// Takes one accepted connection, non-blocking and close-on-exec, for an [`Op::Accept`] that is `Ready`.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` if there is none left.
    fn accept(&mut self, fd: RawFd) -> io::Result<Accepted>;
}

/// Takes the error that is pending on a socket: how a connection attempt went.
///
/// # Errors
/// The kernel's, if the descriptor is no socket.
pub fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    crate::sys::take_error(fd)
}

/// Begins to connect a new stream socket to an address, non-blocking and close-on-exec. Answers it, and whether it is
/// connected already; else it is writable once [`take_error`] knows.
///
/// # Errors
/// The kernel's: nothing has begun then.
pub fn connect(address: &SocketAddress) -> io::Result<(OwnedFd, bool)> {
    crate::sys::connect(address)
}

/// A new stream socket that listens at an address, non-blocking and close-on-exec, with the options that asyncio sets.
///
/// # Errors
/// The kernel's.
pub fn listen(address: &SocketAddress) -> io::Result<OwnedFd> {
    crate::sys::listen(address)
}

/// The family and the protocol, in the kernel's numbers, of a socket that [`connect`] makes.
#[must_use]
pub fn stream_family(address: &SocketAddress) -> (i32, i32) {
    match address {
        SocketAddress::Internet(SocketAddr::V4(_)) => (libc::AF_INET, libc::IPPROTO_TCP),
        SocketAddress::Internet(SocketAddr::V6(_)) => (libc::AF_INET6, libc::IPPROTO_TCP),
        SocketAddress::Unix(_) | SocketAddress::Other => (libc::AF_UNIX, 0),
    }
}

/// Sends at most `count` bytes of a file from an offset on, as many as the socket takes at once; 0 is the end of the
/// file. The file's own position stays.
///
/// # Errors
/// The socket's, `WouldBlock` among them; the file's, if it is none that can be sent so.
pub fn send_file(fd: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    crate::sys::send_file(fd, file, offset, count)
}

/// What the kernel calls the near end of a connection.
///
/// # Errors
/// The kernel's, if the descriptor is no socket.
pub fn local_address(fd: RawFd) -> io::Result<SocketAddress> {
    crate::sys::local_address(fd)
}

/// What the kernel calls the far end of a connection.
///
/// # Errors
/// The kernel's, if there is none.
pub fn peer_address(fd: RawFd) -> io::Result<SocketAddress> {
    crate::sys::peer_address(fd)
}

/// Makes a descriptor non-blocking that is read or written like a file, and answers what it is. `None` for what cannot be
/// waited for, as a regular file, which stays as it is.
///
/// # Errors
/// The kernel's.
pub fn prepare_pipe(fd: RawFd) -> io::Result<Option<PipeKind>> {
    crate::sys::prepare_pipe(fd)
}

/// Has a TCP connection send small packets at once.
///
/// # Errors
/// The kernel's: only TCP has such an option.
pub fn set_nodelay(fd: RawFd) -> io::Result<()> {
    crate::sys::set_nodelay(fd)
}

/// Makes a waiting driver return.
pub trait Waker: Send + Sync {
    /// Makes the wait under way, or else the next one, return. Any thread may call it.
    fn wake(&self);
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There are completions, a wake-up, or the time is over.
    Normally,
    /// A signal came in.
    BySignal,
}
