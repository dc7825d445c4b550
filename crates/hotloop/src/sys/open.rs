//! New descriptors, non-blocking and close-on-exec.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::net::{SocketType, ipproto};

use super::{address, borrow, name};
use crate::driver::{Accepted, SocketAddress};

#[cfg(not(apple))]
use self::at_once as kernel;
#[cfg(apple)]
use self::in_steps as kernel;

/// Accepts a connection, non-blocking and close-on-exec.
///
/// # Errors
/// The socket's, `WouldBlock` among them.
pub(crate) fn accept(fd: RawFd) -> io::Result<Accepted> {
    let (fd, peer) = kernel::accept(borrow(fd)?)?;
    let peer = peer.as_ref().map_or(SocketAddress::Other, address);
    Ok(Accepted { fd, peer })
}

/// A new socket for an address, non-blocking and close-on-exec.
///
/// # Errors
/// The kernel's; `Unsupported` for an address of a family that is not known.
pub(crate) fn socket(address: &SocketAddress, kind: SocketType) -> io::Result<OwnedFd> {
    let protocol =
        (kind == SocketType::STREAM && matches!(address, SocketAddress::Internet(_))).then_some(ipproto::TCP);
    let family = name(address)?.address_family();
    Ok(kernel::socket(family, kind, protocol)?)
}

/// A new pipe, non-blocking and close-on-exec: the end to read from, and the one to write to.
///
/// # Errors
/// The kernel's.
#[cfg(any(kqueue, test))]
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(kernel::pipe()?)
}

/// Where the kernel makes them as they are to be.
#[cfg(not(apple))]
mod at_once {
    use std::os::fd::{BorrowedFd, OwnedFd};

    use rustix::io::Errno;
    use rustix::net::{
        AddressFamily, Protocol, SocketAddrAny, SocketFlags, SocketType, acceptfrom_with, socket_with,
    };

    const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

    pub(super) fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
        acceptfrom_with(fd, FLAGS)
    }

    pub(super) fn socket(
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<Protocol>,
    ) -> Result<OwnedFd, Errno> {
        socket_with(family, kind, FLAGS, protocol)
    }

    #[cfg(any(kqueue, test))]
    pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
        use rustix::pipe::{PipeFlags, pipe_with};

        pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
    }
}

/// Where it takes a call for each. A program that another thread starts in between inherits the descriptor.
#[cfg(any(apple, test))]
mod in_steps {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
    use rustix::net::{AddressFamily, Protocol, SocketAddrAny, SocketType};

    pub(super) fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
        let (fd, peer) = rustix::net::acceptfrom(fd)?;
        finish_socket(&fd)?;
        Ok((fd, peer))
    }

    pub(super) fn socket(
        family: AddressFamily,
        kind: SocketType,
        protocol: Option<Protocol>,
    ) -> Result<OwnedFd, Errno> {
        let socket = rustix::net::socket(family, kind, protocol)?;
        finish_socket(&socket)?;
        Ok(socket)
    }

    pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
        let (reader, writer) = rustix::pipe::pipe()?;
        finish(&reader)?;
        finish(&writer)?;
        Ok((reader, writer))
    }

    fn finish_socket(socket: impl AsFd) -> Result<(), Errno> {
        finish(&socket)?;
        // What other systems say with each send.
        #[cfg(apple)]
        rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
        Ok(())
    }

    fn finish(fd: impl AsFd) -> Result<(), Errno> {
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&fd, true)
    }
}

#[cfg(all(test, not(apple)))]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};

    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{Errno, FdFlags, fcntl_getfd};
    use rustix::net::{AddressFamily, SocketAddrAny};

    use super::*;
    use crate::driver::Direction;
    use crate::sys::only_way;

    fn check(fd: impl AsFd) -> io::Result<()> {
        assert!(fcntl_getfd(&fd)?.contains(FdFlags::CLOEXEC));
        assert!(fcntl_getfl(&fd)?.contains(OFlags::NONBLOCK));
        Ok(())
    }

    #[test]
    fn both_ways_make_the_same() -> io::Result<()> {
        for socket in [at_once::socket, in_steps::socket] {
            check(socket(
                AddressFamily::INET,
                SocketType::STREAM,
                Some(ipproto::TCP),
            )?)?;
            check(socket(AddressFamily::UNIX, SocketType::DGRAM, None)?)?;
        }
        for pipe in [at_once::pipe, in_steps::pipe] {
            let (reader, writer) = pipe()?;
            check(&reader)?;
            check(&writer)?;
            assert_eq!(rustix::io::write(&writer, b"a")?, 1);
            assert_eq!(rustix::io::read(&reader, &mut [0; 2])?, 1);
        }
        Ok(())
    }

    #[test]
    fn both_ways_accept_the_same() -> io::Result<()> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        for accept in [at_once::accept, in_steps::accept] {
            assert_eq!(accept(listener.as_fd()).err(), Some(Errno::AGAIN));
            let client = std::net::TcpStream::connect(listener.local_addr()?)?;
            let (accepted, peer) = accept(listener.as_fd())?;
            check(accepted)?;
            assert_eq!(peer, Some(SocketAddrAny::from(client.local_addr()?)));
        }
        Ok(())
    }

    #[test]
    fn an_end_of_a_pipe_has_one_way() -> io::Result<()> {
        let (reader, writer) = pipe()?;
        assert_eq!(only_way(reader.as_raw_fd())?, Some(Direction::Read));
        assert_eq!(only_way(writer.as_raw_fd())?, Some(Direction::Write));
        let (socket, _) = std::os::unix::net::UnixStream::pair()?;
        assert_eq!(only_way(socket.as_raw_fd())?, None);
        let file = std::fs::File::open(std::env::current_exe()?)?;
        assert_eq!(only_way(file.as_raw_fd())?, None);
        assert!(only_way(-1).is_err());
        Ok(())
    }
}
