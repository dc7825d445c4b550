//! What the ring sends with its waits.

use std::io;
use std::time::Duration;

use hotloop::clock::{Clock, Monotonic};
use hotloop::driver::{Driver, Proactor};

use crate::surroundings::{Connection, eager, pattern, poll, receive};

/// Answers every connection once, and says how often the ring was entered for that.
fn answer_all(driver: &mut Proactor, connections: &[Connection]) -> io::Result<u64> {
    for connection in connections {
        connection.feed(b"ping")?;
    }
    let before = driver.entered();
    let mut answered = 0;
    while answered < connections.len() {
        // Hands in the answers of the turn before.
        driver.wait(None)?;
        while let Some(completion) = driver.next_completion() {
            let fd = connections[completion.key.0 as usize].fd();
            assert_eq!(receive(driver, fd, 100)?, b"ping");
            assert!(driver.post(fd, b"po"));
            assert!(driver.post(fd, b"ng"));
            answered += 1;
        }
    }
    poll(driver)?;
    let entered = driver.entered() - before;
    assert!(driver.next_unsent().is_none());
    for connection in connections {
        assert_eq!(connection.arrived()?, b"pong");
    }
    Ok(entered)
}

#[test]
fn a_turn_is_one_system_call() -> io::Result<()> {
    // Of more than a few the kernel tells in parts, and each is a turn.
    for (count, most) in [(1, 2), (16, 2), (300, 40)] {
        let mut driver = eager()?;
        let connections = (0..count)
            .map(|key| Connection::received_by(&mut driver, key))
            .collect::<io::Result<Vec<_>>>()?;
        poll(&mut driver)?;
        for _ in 0..4 {
            let entered = answer_all(&mut driver, &connections)?;
            assert!(entered <= most, "{entered} calls for {count} connections");
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_comes_back() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = Connection::new()?;
    let (mut posted, mut arrived) = (0, Vec::new());
    for turn in 0..200 {
        let size = turn * 137 % 16_000 + 1;
        assert!(driver.post(connection.fd(), &pattern(posted, size)));
        poll(&mut driver)?;
        posted += size;
        while let Some(unsent) = driver.next_unsent() {
            assert_eq!((unsent.fd, unsent.error.is_none()), (connection.fd(), true));
            assert_eq!(
                unsent.bytes,
                pattern(posted - unsent.bytes.len(), unsent.bytes.len())
            );
            // Once more, when the peer has made room.
            posted -= unsent.bytes.len();
            arrived.extend(connection.arrived()?);
            assert_eq!(arrived.len(), posted);
        }
    }
    arrived.extend(connection.arrived()?);
    assert!(arrived == pattern(0, posted));
    Ok(())
}

#[test]
fn a_part_of_a_post_may_be_sent() -> io::Result<()> {
    // TCP, which takes a part where a Unix socket takes all or nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let near = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nonblocking(true)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&near);
    let mut driver = Proactor::new()?;
    let (mut taken, mut partial, mut refused) = (0, 0, 0);
    while refused < 3 {
        assert!(driver.post(fd, &pattern(taken, 15_999)));
        poll(&mut driver)?;
        let left = driver.next_unsent().map_or(0, |unsent| unsent.bytes.len());
        taken += 15_999 - left;
        partial += usize::from(left > 0 && left < 15_999);
        refused += usize::from(left == 15_999);
    }
    assert!(partial > 0, "the kernel takes what fits");
    drop((driver, near));
    let mut all = Vec::new();
    io::Read::read_to_end(&mut far, &mut all)?;
    assert!(all == pattern(0, taken));
    Ok(())
}

#[test]
fn a_post_to_a_peer_that_is_gone_is_an_error() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let Connection { near, far } = Connection::new()?;
    drop(far);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&near);
    for settles in [false, true] {
        assert!(driver.post(fd, b"lost"));
        if settles {
            driver.settle(fd);
        } else {
            poll(&mut driver)?;
        }
        let unsent = driver.next_unsent().ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(unsent.bytes, b"lost");
        let error = unsent.error.ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(driver.next_unsent().is_none());
    }
    Ok(())
}

#[test]
fn what_comes_behind_a_post_on_its_descriptor_comes_behind_it() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = Connection::new()?;
    assert!(driver.post(connection.fd(), b"one "));
    assert_eq!(driver.send(connection.fd(), &[io::IoSlice::new(b"two ")])?, 4);
    assert!(driver.post(connection.fd(), b"three"));
    driver.shutdown_write(connection.fd())?;
    assert_eq!(connection.arrived()?, b"one two three");
    Ok(())
}

#[test]
fn what_was_posted_is_sent_before_a_wait() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = Connection::new()?;
    assert!(driver.post(connection.fd(), b"now"));
    let (clock, timeout) = (Monotonic, Duration::from_millis(2));
    let start = clock.now();
    driver.wait(Some(timeout))?;
    assert!(
        clock.now() - start >= timeout.as_secs_f64(),
        "a send ends no wait"
    );
    assert_eq!(connection.arrived()?, b"now");
    Ok(())
}
