//! Safe wrappers over the system calls that take a bare descriptor number.
//!
//! The loop is given numbers, not owned descriptors: in Python the socket object owns the descriptor. A number that
//! was closed meanwhile answers EBADF, which is an error like any other; it never touches memory.
#![expect(
    unsafe_code,
    reason = "a descriptor number becomes a `BorrowedFd` here, and libc is called where rustix is not enough"
)]

mod datagram;
#[cfg(epoll)]
mod epoll;
mod exit;
#[cfg(io_uring)]
mod file;
#[cfg(kqueue)]
mod kqueue;
mod names;
mod open;
mod select;
mod send_file;

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

pub use datagram::Batch;
pub(crate) use datagram::{receive_datagrams, receive_from, send_datagrams};
#[cfg(epoll)]
pub(crate) use epoll::epoll_wait;
pub(crate) use exit::exit_of;
#[cfg(io_uring)]
pub(crate) use file::is_plain;
#[cfg(io_uring)]
pub use file::{OpenedFile, kind_of, open_cached, read_cached};
#[cfg(kqueue)]
pub(crate) use kqueue::{add_filter, drop_filter, kqueue, kqueue_wait};
pub(crate) use names::name_info;
#[cfg(any(kqueue, test))]
pub(crate) use open::pipe;
pub(crate) use open::{accept, socket};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrUnix, SocketType,
};
pub(crate) use select::{FdSet, select};
pub(crate) use send_file::send_file;

#[cfg(any(kqueue, test))]
use crate::driver::Direction;
use crate::driver::SocketAddress;

/// Has a send to a peer that is gone fail by an error rather than by a signal. Apple's sockets are told when they are
/// made.
#[cfg(not(apple))]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(apple)]
const NO_SIGNAL: SendFlags = SendFlags::empty();

/// Whether a Unix socket's name may begin with a zero byte and be no path.
pub(crate) const HAS_ABSTRACT_NAMES: bool = cfg!(linux);

/// Nanoseconds of the system's monotonic clock.
///
/// By the C library, which knows where the kernel keeps the clock; looking for that by ourselves fails in places that
/// hide it, such as Valgrind.
#[inline]
pub(crate) fn monotonic_nanoseconds() -> i64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is written to a place of ours. The clock exists on every system, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Has a buffer of bytes filled by what else fills memory that has no bytes yet.
///
/// Only for what puts bytes there, as every driver does: nothing may take those away that are there already.
#[inline]
pub(crate) fn fill<R>(buffer: &mut [u8], by: impl FnOnce(&mut [MaybeUninit<u8>]) -> R) -> R {
    let bytes: *mut [u8] = buffer;
    // SAFETY: the layouts are the same and the bytes are borrowed for as long. They stay initialised, since drivers
    // write nothing else than bytes.
    by(unsafe { &mut *(bytes as *mut [MaybeUninit<u8>]) })
}

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

/// Asks the kernel whether a number is a descriptor.
///
/// # Errors
/// EBADF if it is none.
pub(crate) fn check_open(fd: RawFd) -> io::Result<()> {
    rustix::io::fcntl_getfd(borrow(fd)?)?;
    Ok(())
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
        [buffer] => rustix::net::send(fd, buffer, NO_SIGNAL)?,
        _ => rustix::net::sendmsg(fd, buffers, &mut SendAncillaryBuffer::default(), NO_SIGNAL)?,
    })
}

/// As [`send`], of what more bytes are to follow: TCP keeps what does not fill a packet until they come, until [`uncork`],
/// an acknowledgement, or the time of a retransmission is over (200 ms on a near connection; `tcp(7)`, `TCP_CORK`).
///
/// # Errors
/// The socket's, `WouldBlock` among them.
#[cfg(linux)]
#[inline]
pub(crate) fn send_corked(fd: RawFd, buffer: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(
        borrow(fd)?,
        buffer,
        NO_SIGNAL | rustix::net::SendFlags::MORE,
    )?)
}

/// Has TCP send what [`send_corked`] left with it, unless the program has corked the socket itself.
///
/// # Errors
/// The descriptor's, if it is no TCP socket.
#[cfg(linux)]
pub(crate) fn uncork(fd: RawFd) -> io::Result<()> {
    let fd = borrow(fd)?;
    // Nothing that a program can set is changed, TCP_NODELAY neither.
    if !rustix::net::sockopt::tcp_cork(fd)? {
        rustix::net::sockopt::set_tcp_cork(fd, false)?;
    }
    Ok(())
}

/// Reads what is there, at most `buffer.len()` bytes; 0 is the end. Never waits on a non-blocking descriptor.
///
/// # Errors
/// The descriptor's, `WouldBlock` among them.
#[inline]
pub(crate) fn read(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let (read, _) = rustix::io::read(borrow(fd)?, buffer)?;
    Ok(read.len())
}

/// Writes what the descriptor takes at once.
///
/// # Errors
/// The descriptor's, `WouldBlock` among them.
#[inline]
pub(crate) fn write(fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let fd = borrow(fd)?;
    Ok(match buffers {
        [buffer] => rustix::io::write(fd, buffer)?,
        _ => rustix::io::writev(fd, buffers)?,
    })
}

/// Begins to connect a new stream socket, non-blocking and close-on-exec. Answers it, and whether it is connected
/// already; else it is writable once that is decided.
///
/// # Errors
/// The kernel's: nothing has begun then.
pub(crate) fn connect(address: &SocketAddress) -> io::Result<(OwnedFd, bool)> {
    let socket = socket(address, SocketType::STREAM)?;
    let connected = connect_socket(&socket, address)?;
    Ok((socket, connected))
}

/// Begins to connect a socket. Answers whether it is connected already; else it is writable once that is decided.
///
/// # Errors
/// The kernel's: nothing has begun then.
pub(crate) fn connect_socket(socket: impl AsFd, address: &SocketAddress) -> io::Result<bool> {
    match rustix::net::connect(socket, &name(address)?) {
        Ok(()) => Ok(true),
        // An attempt that a signal came into goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a socket its name.
///
/// # Errors
/// The kernel's.
pub(crate) fn bind(socket: impl AsFd, address: &SocketAddress) -> io::Result<()> {
    Ok(rustix::net::bind(socket, &name(address)?)?)
}

/// The name of the near end of a socket.
///
/// # Errors
/// The kernel's.
pub(crate) fn local_address(fd: RawFd) -> io::Result<SocketAddress> {
    Ok(address(&rustix::net::getsockname(borrow(fd)?)?))
}

/// The name of the far end of a connection.
///
/// # Errors
/// The kernel's, if there is no far end.
pub(crate) fn peer_address(fd: RawFd) -> io::Result<SocketAddress> {
    let peer = rustix::net::getpeername(borrow(fd)?)?;
    Ok(peer.as_ref().map_or(SocketAddress::Other, address))
}

/// Sends small packets of TCP at once.
///
/// # Errors
/// The kernel's; there is no such option if it is not TCP.
pub(crate) fn set_nodelay(fd: RawFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_nodelay(borrow(fd)?, true)?)
}

/// Waits for the end of a child by its descriptor (pidfd) and takes its exit status: the code, or the number of the signal
/// that has ended it, negated.
///
/// # Errors
/// The kernel's: ECHILD if somebody else has taken it, EINVAL before Linux 5.4, EINTR.
#[cfg(epoll)]
pub fn reap(pidfd: RawFd) -> io::Result<i32> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    let ended = waitid(WaitId::PidFd(borrow(pidfd)?), WaitIdOptions::EXITED)?;
    // Without NOHANG there always is one, and of what has ended it is one of the two.
    let status = ended.and_then(|ended| {
        ended
            .exit_status()
            .or(ended.terminating_signal().map(|signal| -signal))
    });
    status.ok_or_else(|| Errno::CHILD.into())
}

/// What a descriptor is that is read or written like a file, and can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipeKind {
    /// A pipe, named or not.
    Pipe,
    /// A socket.
    Socket,
    /// A terminal or another character device.
    CharacterDevice,
}

impl PipeKind {
    /// Whether the kernel makes one that is only written to readable when nobody reads it any more. A terminal is readable
    /// whenever somebody types.
    #[must_use]
    pub fn hangs_up(self) -> bool {
        self != Self::CharacterDevice
    }
}

/// Makes a descriptor non-blocking, and answers what it is; `None` and no change if it cannot be waited for.
///
/// # Errors
/// The kernel's.
pub(crate) fn prepare_pipe(fd: RawFd) -> io::Result<Option<PipeKind>> {
    let fd = borrow(fd)?;
    let kind = match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::Fifo => PipeKind::Pipe,
        FileType::Socket => PipeKind::Socket,
        FileType::CharacterDevice => PipeKind::CharacterDevice,
        _ => return Ok(None),
    };
    rustix::io::ioctl_fionbio(fd, true)?;
    Ok(Some(kind))
}

/// The only direction that an end of a pipe has; `None` if a descriptor may have both, as a FIFO that was opened for both
/// and a kqueue, which says that it is one.
///
/// # Errors
/// EBADF if it is none.
#[cfg(any(kqueue, test))]
pub(crate) fn only_way(fd: RawFd) -> io::Result<Option<Direction>> {
    use rustix::fs::OFlags;

    let fd = borrow(fd)?;
    if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) != FileType::Fifo {
        return Ok(None);
    }
    let mode = rustix::fs::fcntl_getfl(fd)? & OFlags::RWMODE;
    Ok(match mode {
        OFlags::RDONLY => Some(Direction::Read),
        OFlags::WRONLY => Some(Direction::Write),
        _ => None,
    })
}

/// Whether there is nothing to read from a pipe.
pub(crate) fn is_empty(fd: RawFd) -> bool {
    borrow(fd).is_ok_and(|fd| rustix::io::ioctl_fionread(fd) == Ok(0))
}

/// How many connections may wait to be accepted (asyncio's default).
pub(crate) const LISTEN_BACKLOG: i32 = 100;

/// A new stream socket that listens, with the options that asyncio sets: non-blocking and close-on-exec.
///
/// # Errors
/// The kernel's.
pub(crate) fn listen(address: &SocketAddress) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::STREAM)?;
    if let SocketAddress::Internet(address) = address {
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
    }
    bind(&socket, address)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Whether a descriptor answers rather than waits.
///
/// # Errors
/// EBADF if it is none.
pub(crate) fn is_nonblocking(fd: RawFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(borrow(fd)?)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// Takes the error that is pending on a socket.
///
/// # Errors
/// The kernel's, if the descriptor is no socket.
pub(crate) fn take_error(fd: RawFd) -> io::Result<Option<io::Error>> {
    Ok(rustix::net::sockopt::socket_error(borrow(fd)?)?
        .err()
        .map(Into::into))
}

/// Which socket of the system a number means.
#[cfg(io_uring)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

/// Which socket a descriptor is; `None` if it is something else.
///
/// # Errors
/// EBADF if it is nothing.
#[cfg(io_uring)]
pub(crate) fn socket_identity(fd: RawFd) -> io::Result<Option<Identity>> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: there is room for the answer.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written it.
    let status = unsafe { status.assume_init() };
    let socket = status.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    Ok(socket.then_some(Identity(status.st_dev, status.st_ino)))
}

/// An address as the kernel takes it.
fn name(address: &SocketAddress) -> io::Result<SocketAddrAny> {
    Ok(match address {
        SocketAddress::Internet(address) => SocketAddrAny::from(*address),
        SocketAddress::Unix(name) => match name.split_first() {
            #[cfg(linux)]
            Some((0, name)) => SocketAddrUnix::new_abstract_name(name)?.into(),
            _ => SocketAddrUnix::new(&**name)?.into(),
        },
        SocketAddress::Other => return Err(io::ErrorKind::Unsupported.into()),
    })
}

/// What the kernel calls the end of a connection.
fn address(name: &SocketAddrAny) -> SocketAddress {
    if let Ok(name) = SocketAddr::try_from(name.clone()) {
        return SocketAddress::Internet(name);
    }
    if name.address_family() != AddressFamily::UNIX {
        return SocketAddress::Other;
    }
    let length = name.addr_len() as usize;
    // SAFETY: the storage holds as many bytes as its length says, all written by the kernel.
    let bytes = unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), length) };
    let path = std::mem::offset_of!(libc::sockaddr_un, sun_path);
    let text = bytes.get(path..).unwrap_or_default();
    // A path ends with a zero; an abstract name begins with one and is as long as it is.
    let text = match text.iter().position(|&byte| byte == 0) {
        Some(end) if end > 0 || !HAS_ABSTRACT_NAMES => &text[..end],
        _ => text,
    };
    SocketAddress::Unix(text.into())
}

/// Shuts the sending half of a connection down.
///
/// # Errors
/// The socket's.
pub(crate) fn shutdown_write(fd: RawFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(borrow(fd)?, rustix::net::Shutdown::Write)?)
}
