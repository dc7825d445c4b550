//! What only real descriptors do: they are refused, hang up, fail and accept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use hotloop::driver::{Accepted, Driver, Op, OpKey, SocketAddress};
use rustix::io::FdFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::world::{World, cancelled, errno, kind, poll, ready, receive};

/// A duplicate at a number far above those that the tests of this process open: once closed, it stays closed, although
/// other tests run in other threads.
pub(crate) fn high_number(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 800)?)
}

/// Allows numbers of descriptors as high as this process may have them.
fn raise_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

pub(crate) fn a_closed_descriptor_is_refused<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    // Higher than what `stale` uses, so that nobody opens this number again.
    let closed = rustix::io::fcntl_dupfd_cloexec(io::stdout().as_fd(), 1000)?.as_raw_fd();
    for op in [Op::WatchRead, Op::WatchWrite, Op::Receive, Op::Send, Op::Accept] {
        assert_eq!(errno(driver.submit(OpKey(1), closed, op)), Some(libc::EBADF));
    }
    assert_eq!(
        kind(driver.replace(OpKey(1), closed, Op::WatchRead)),
        Some(io::ErrorKind::NotFound)
    );
    assert_eq!(errno(receive(&mut driver, closed, 1)), Some(libc::EBADF));
    assert_eq!(errno(driver.accept(closed)), Some(libc::EBADF));
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

#[cfg(epoll)]
pub(crate) fn a_regular_file_is_refused<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let file = File::open(std::env::current_exe()?)?;
    for op in [Op::WatchRead, Op::WatchWrite] {
        let refused = driver.submit(OpKey(1), file.as_raw_fd(), op);
        assert_eq!(errno(refused), Some(libc::EPERM));
    }
    // Refused is not begun: the number can serve a descriptor that is accepted.
    let mut number = OwnedFd::from(file);
    let (near, mut far) = UnixStream::pair()?;
    rustix::io::dup2(&near, &mut number)?;
    driver.submit(OpKey(1), number.as_raw_fd(), Op::WatchRead)?;
    far.write_all(b"a")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

pub(crate) fn a_regular_file_is_always_ready<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let file = File::open(std::env::current_exe()?)?;
    driver.submit(OpKey(1), file.as_raw_fd(), Op::WatchRead)?;
    driver.submit(OpKey(2), file.as_raw_fd(), Op::WatchWrite)?;
    for _ in 0..2 {
        assert_eq!(poll(&mut driver)?, [ready(1), ready(2)]);
    }
    Ok(())
}

pub(crate) fn a_number_beyond_the_sets_is_refused<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (near, mut far) = UnixStream::pair()?;
    raise_limit()?;
    let beyond = rustix::io::fcntl_dupfd_cloexec(&near, 2000)?;
    for op in [Op::WatchRead, Op::WatchWrite] {
        let refused = driver.submit(OpKey(1), beyond.as_raw_fd(), op);
        assert_eq!(kind(refused), Some(io::ErrorKind::InvalidInput));
    }
    far.write_all(b"a")?;
    assert_eq!(poll(&mut driver)?, []);
    driver.submit(OpKey(1), near.as_raw_fd(), Op::WatchRead)?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

pub(crate) fn a_huge_descriptor_is_refused_without_a_table_of_its_size<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    for op in [Op::WatchRead, Op::WatchWrite] {
        assert_eq!(errno(driver.submit(OpKey(1), i32::MAX, op)), Some(libc::EBADF));
        assert_eq!(
            kind(driver.replace(OpKey(1), i32::MAX, op)),
            Some(io::ErrorKind::NotFound)
        );
        driver.cancel(OpKey(1), i32::MAX, op);
    }
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_hang_up_is_both_readable_and_writable<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    // The reading end of a pipe is never writable, and yet a writer on it hears of the hang-up; so for both ends.
    let (reader, writer) = rustix::pipe::pipe()?;
    driver.submit(OpKey(1), reader.as_raw_fd(), Op::WatchRead)?;
    driver.submit(OpKey(2), reader.as_raw_fd(), Op::WatchWrite)?;
    assert_eq!(poll(&mut driver)?, []);
    drop(writer);
    assert_eq!(poll(&mut driver)?, [ready(1), ready(2)]);
    Ok(())
}

pub(crate) fn an_error_is_both_readable_and_writable<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    driver.submit(OpKey(1), writer.as_raw_fd(), Op::WatchRead)?;
    driver.submit(OpKey(2), writer.as_raw_fd(), Op::WatchWrite)?;
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    drop(reader);
    assert_eq!(poll(&mut driver)?, [ready(1), ready(2)]);
    Ok(())
}

pub(crate) fn a_reset_connection_is_an_error_of_receive<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (mut near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    driver.submit(OpKey(1), near.as_raw_fd(), Op::Receive)?;
    // A peer that closes with something unread resets the connection.
    near.write_all(b"unread")?;
    drop(far);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(
        kind(receive(&mut driver, near.as_raw_fd(), 8)),
        Some(io::ErrorKind::ConnectionReset)
    );
    Ok(())
}

pub(crate) fn a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (near, far) = UnixStream::pair()?;
    drop(far);
    let (one, two) = (IoSlice::new(b"a"), IoSlice::new(b"b"));
    for buffers in [&[one][..], &[one, two][..]] {
        let sent = driver.send(near.as_raw_fd(), buffers);
        assert_eq!(kind(sent), Some(io::ErrorKind::BrokenPipe));
    }
    Ok(())
}

pub(crate) fn a_pipe_is_read_and_written_as_a_file<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    let (near, far) = (reader.as_raw_fd(), writer.as_raw_fd());
    let mut buffer = [MaybeUninit::uninit(); 8];
    driver.submit(OpKey(1), near, Op::Read)?;
    assert_eq!(poll(&mut driver)?, []);
    assert_eq!(
        kind(driver.read(near, &mut buffer)),
        Some(io::ErrorKind::WouldBlock)
    );
    assert_eq!(driver.write(far, &[IoSlice::new(b"ab")])?, 2);
    assert_eq!(driver.write(far, &[IoSlice::new(b"c"), IoSlice::new(b"de")])?, 3);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(driver.read(near, &mut buffer)?, 5);
    drop(writer);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(driver.read(near, &mut buffer)?, 0);
    Ok(())
}

pub(crate) fn a_write_that_nobody_reads_is_an_error<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (reader, writer) = rustix::pipe::pipe()?;
    drop(reader);
    let (one, two) = (IoSlice::new(b"a"), IoSlice::new(b"b"));
    for buffers in [&[one][..], &[one, two][..]] {
        let written = driver.write(writer.as_raw_fd(), buffers);
        assert_eq!(kind(written), Some(io::ErrorKind::BrokenPipe));
    }
    Ok(())
}

pub(crate) fn an_accept_gives_each_connection_once<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let fd = listener.as_raw_fd();
    driver.submit(OpKey(1), fd, Op::Accept)?;
    assert_eq!(poll(&mut driver)?, []);
    assert_eq!(kind(driver.accept(fd)), Some(io::ErrorKind::WouldBlock));
    let clients = [
        TcpStream::connect(listener.local_addr()?)?,
        TcpStream::connect(listener.local_addr()?)?,
    ];
    for client in &clients {
        assert_eq!(poll(&mut driver)?, [ready(1)]);
        let Accepted { fd, peer } = driver.accept(fd)?;
        assert!(rustix::io::fcntl_getfd(&fd)?.contains(FdFlags::CLOEXEC));
        let accepted = TcpStream::from(fd);
        assert_eq!(peer, SocketAddress::Internet(client.local_addr()?));
        assert_eq!(
            kind(receive(&mut driver, accepted.as_raw_fd(), 1)),
            Some(io::ErrorKind::WouldBlock),
            "non-blocking"
        );
    }
    assert_eq!(poll(&mut driver)?, []);
    assert_eq!(kind(driver.accept(fd)), Some(io::ErrorKind::WouldBlock));
    Ok(())
}

pub(crate) fn an_accept_goes_on_beside_a_writer_and_after_a_reader<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let fd = listener.as_raw_fd();
    let connect_and_accept = |driver: &mut W::Driver, key| {
        let client = TcpStream::connect(listener.local_addr()?)?;
        assert_eq!(poll(driver)?, [ready(key)]);
        driver.accept(fd)?;
        drop(client);
        assert_eq!(poll(driver)?, []);
        io::Result::Ok(())
    };
    driver.submit(OpKey(1), fd, Op::Accept)?;
    connect_and_accept(&mut driver, 1)?;
    driver.submit(OpKey(2), fd, Op::WatchWrite)?;
    connect_and_accept(&mut driver, 1)?;
    driver.cancel(OpKey(2), fd, Op::WatchWrite);
    assert_eq!(poll(&mut driver)?, [cancelled(2)]);
    connect_and_accept(&mut driver, 1)?;
    driver.replace(OpKey(3), fd, Op::WatchRead)?;
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    connect_and_accept(&mut driver, 3)?;
    driver.replace(OpKey(4), fd, Op::Accept)?;
    assert_eq!(poll(&mut driver)?, [cancelled(3)]);
    // Often enough for the driver to have let others go first.
    for _ in 0..20 {
        connect_and_accept(&mut driver, 4)?;
    }
    driver.cancel(OpKey(4), fd, Op::Accept);
    assert_eq!(poll(&mut driver)?, [cancelled(4)]);
    Ok(())
}

pub(crate) fn many_ready_descriptors_are_all_reported<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    // More than one wait of epoll takes. A duplicate is a descriptor of its own.
    let (near, mut far) = UnixStream::pair()?;
    raise_limit()?;
    let duplicates = (0..600)
        // Out of the way of other tests, whose numbers must stay small for select.
        .map(|_| rustix::io::fcntl_dupfd_cloexec(&near, 2000).map_err(io::Error::from))
        .collect::<io::Result<Vec<_>>>()?;
    far.write_all(b"a")?;
    for (key, duplicate) in (0..).zip(&duplicates) {
        driver.submit(OpKey(key), duplicate.as_raw_fd(), Op::WatchRead)?;
    }
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        told.extend(poll(&mut driver)?.iter().map(|completion| completion.key.0));
    }
    assert_eq!(told, (0..600).collect());
    Ok(())
}
