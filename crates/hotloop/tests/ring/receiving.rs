//! Streams that the ring receives for.

use std::io;
use std::thread;
use std::time::Duration;

use hotloop::driver::{Driver, Op, OpKey, Proactor};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::surroundings::{Connection, FORKING, cancelled, eager, pattern, poll, ready, receive};

#[test]
fn a_stream_of_small_messages_becomes_the_rings() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    for message in 0..6_u8 {
        connection.feed(&[message])?;
        let before = driver.entered();
        assert_eq!(poll(&mut driver)?, [ready(1)]);
        assert!(driver.entered() - before <= 1, "one system call a turn");
        assert_eq!(receive(&mut driver, connection.fd(), 100)?, [message]);
    }
    let before = driver.entered();
    assert_eq!(poll(&mut driver)?, []);
    assert_eq!(driver.entered(), before, "nothing to do is no system call");
    Ok(())
}

#[test]
fn a_stream_of_large_messages_leaves_the_ring_and_comes_back() -> io::Result<()> {
    let mut driver = eager()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    let (mut fed, mut received) = (0, 0);
    // Large ones until the stream has left, then small ones until it is back, and once more.
    for size in [60_000; 10].into_iter().chain([10; 50]).chain([60_000; 10]) {
        connection.feed(&pattern(fed, size))?;
        fed += size;
        while received < fed {
            let told = poll(&mut driver)?;
            assert!(told.len() <= 1, "{told:?}");
            if told == [ready(1)] {
                let bytes = receive(&mut driver, connection.fd(), 100_000)?;
                assert_eq!(bytes, pattern(received, bytes.len()));
                received += bytes.len();
            }
        }
    }
    Ok(())
}

#[test]
fn the_end_follows_the_last_byte() -> io::Result<()> {
    let mut driver = eager()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    assert_eq!(poll(&mut driver)?, []);
    connection.feed(b"last")?;
    let Connection { near, far } = connection;
    drop(far);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&near);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 2)?, b"la");
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 100)?, b"st");
    for _ in 0..2 {
        assert_eq!(poll(&mut driver)?, [ready(1)], "an end stays");
        assert_eq!(receive(&mut driver, fd, 100)?, b"");
    }
    Ok(())
}

#[test]
fn what_comes_in_before_a_cancel_is_kept_for_the_next_receive() -> io::Result<()> {
    let mut driver = eager()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    let mut received = Vec::new();
    for turn in 0..50 {
        assert_eq!(poll(&mut driver)?, []);
        connection.feed(&pattern(turn * 30, 10))?;
        if turn % 3 == 1 {
            // The kernel has the bytes, and they are told of, but not taken.
            assert_eq!(poll(&mut driver)?, [ready(1)]);
        }
        driver.cancel(OpKey(1), connection.fd(), Op::Receive);
        connection.feed(&pattern(turn * 30 + 10, 10))?;
        if turn % 2 == 0 {
            assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        }
        connection.feed(&pattern(turn * 30 + 20, 10))?;
        driver.submit(OpKey(2), connection.fd(), Op::Receive)?;
        while received.len() < (turn + 1) * 30 {
            if poll(&mut driver)?.contains(&ready(2)) {
                received.extend(receive(&mut driver, connection.fd(), 7)?);
            }
        }
        driver.cancel(OpKey(2), connection.fd(), Op::Receive);
        driver.submit(OpKey(1), connection.fd(), Op::Receive)?;
        assert_eq!(poll(&mut driver)?, [cancelled(2)]);
    }
    assert_eq!(received, pattern(0, 50 * 30));
    Ok(())
}

#[test]
fn a_socket_that_is_released_closes_at_once() -> io::Result<()> {
    let _no_child = FORKING.read();
    let mut driver = eager()?;
    for _ in 0..3 {
        let connection = Connection::received_by(&mut driver, 1)?;
        assert_eq!(poll(&mut driver)?, []);
        driver.cancel(OpKey(1), connection.fd(), Op::Receive);
        driver.release(connection.fd());
        let Connection { near, mut far } = connection;
        drop(near);
        let mut byte = [0];
        assert_eq!(io::Read::read(&mut far, &mut byte)?, 0, "the end is there");
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    }
    Ok(())
}

#[test]
fn a_socket_that_is_released_behind_many_that_are_ready_closes_at_once() -> io::Result<()> {
    let _no_child = FORKING.read();
    let mut driver = eager()?;
    let connections = (0..200)
        .map(|key| Connection::received_by(&mut driver, key))
        .collect::<io::Result<Vec<_>>>()?;
    assert_eq!(poll(&mut driver)?, []);
    for connection in &connections[1..] {
        connection.feed(b"something")?;
    }
    driver.cancel(OpKey(0), connections[0].fd(), Op::Receive);
    driver.release(connections[0].fd());
    let mut connections = connections.into_iter();
    let Some(Connection { near, mut far }) = connections.next() else {
        return Ok(());
    };
    drop(near);
    assert_eq!(io::Read::read(&mut far, &mut [0])?, 0, "the end is there");
    // Nothing is lost of the others.
    let others: Vec<_> = connections.collect();
    let mut received = 0;
    while received < others.len() {
        let told = poll(&mut driver)?;
        for key in told
            .iter()
            .filter(|told| **told != cancelled(0))
            .map(|told| told.key.0)
        {
            let fd = others[key as usize - 1].fd();
            assert_eq!(receive(&mut driver, fd, 100)?, b"something");
            received += 1;
        }
    }
    Ok(())
}

#[test]
fn what_a_released_socket_received_reaches_no_other_of_its_number() -> io::Result<()> {
    let mut driver = eager()?;
    let mut connection = Connection::received_by(&mut driver, 1)?;
    assert_eq!(poll(&mut driver)?, []);
    connection.feed(b"old")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    driver.cancel(OpKey(1), connection.fd(), Op::Receive);
    driver.release(connection.fd());
    let fd = connection.fd();
    let other = Connection::new()?;
    // At the number of the one before, which is closed thereby.
    let mut near = std::os::fd::OwnedFd::from(connection.near);
    rustix::io::dup2(&other.near, &mut near)?;
    connection = Connection {
        near: near.into(),
        far: other.far,
    };
    assert_eq!(connection.fd(), fd);
    driver.submit(OpKey(2), fd, Op::Receive)?;
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    connection.feed(b"new")?;
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    assert_eq!(receive(&mut driver, fd, 100)?, b"new");
    Ok(())
}

#[test]
fn full_queues_and_buffers_lose_nothing() -> io::Result<()> {
    // More streams than operations that are handed in at a time, and more pieces than buffers and completions.
    const STREAMS: u32 = 300;
    const SIZE: usize = 40_000;
    let mut driver = eager()?;
    let connections = (0..STREAMS)
        .map(|key| Connection::received_by(&mut driver, key))
        .collect::<io::Result<Vec<_>>>()?;
    let mut received = vec![Vec::new(); STREAMS as usize];
    for (index, connection) in connections.iter().enumerate() {
        connection.feed(&pattern(index, SIZE))?;
    }
    let mut turns = 0;
    while received.iter().any(|bytes| bytes.len() < SIZE) {
        driver.wait(Some(Duration::ZERO))?;
        // Nobody takes anything in the first turns.
        turns += 1;
        while let Some(completion) = driver.next_completion() {
            let index = completion.key.0 as usize;
            if turns > 4 {
                received[index].extend(receive(&mut driver, connections[index].fd(), 3000)?);
            }
        }
        assert!(turns < 1000, "stuck");
    }
    for (index, bytes) in received.iter().enumerate() {
        assert!(*bytes == pattern(index, SIZE));
    }
    Ok(())
}

/// Streams that have a byte each, and how many of them the waits tell of until each has told of its own.
fn told_of(driver: &mut Proactor, streams: u32) -> io::Result<Vec<usize>> {
    let connections = (0..streams)
        .map(|_| Connection::new())
        .collect::<io::Result<Vec<_>>>()?;
    for (key, connection) in (0..).zip(&connections) {
        connection.feed(b"x")?;
        driver.submit(OpKey(key), connection.fd(), Op::Receive)?;
    }
    let mut waits = Vec::new();
    while waits.iter().sum::<usize>() < connections.len() {
        let told = poll(driver)?;
        assert!(!told.is_empty(), "stuck behind {waits:?}");
        for completion in &told {
            let connection = &connections[completion.key.0 as usize];
            assert_eq!(receive(driver, connection.fd(), 10)?, b"x");
        }
        waits.push(told.len());
    }
    Ok(waits)
}

#[test]
fn buffers_are_twice_as_many_each_time_that_they_run_out() -> io::Result<()> {
    assert_eq!(told_of(&mut eager()?, 400)?, [64, 128, 208]);
    Ok(())
}

#[test]
fn the_ring_receives_for_no_more_streams_than_there_are_buffers() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let waits = told_of(&mut eager()?, 2048 + 300)?;
    assert_eq!(
        waits[..4],
        [64 + 300, 128, 256, 512],
        "those 300 are told of at once"
    );
    Ok(())
}

#[test]
fn a_loop_that_moves_to_another_thread_loses_nothing() -> io::Result<()> {
    let mut driver = eager()?;
    let connections = [
        Connection::received_by(&mut driver, 0)?,
        Connection::received_by(&mut driver, 1)?,
    ];
    for turn in 0..6 {
        for connection in &connections {
            // Some before the kernel is asked, some that it has, some that it has not.
            connection.feed(&pattern(turn * 20, 10))?;
            assert!(!poll(&mut driver)?.is_empty());
            connection.feed(&pattern(turn * 20 + 10, 10))?;
        }
        driver = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut received = [0, 0];
                    while received != [20, 20] {
                        driver.wait(None)?;
                        while let Some(completion) = driver.next_completion() {
                            let index = completion.key.0 as usize;
                            let bytes = receive(&mut driver, connections[index].fd(), 6)?;
                            let start = turn * 20 + received[index];
                            assert_eq!(bytes, pattern(start, bytes.len()));
                            received[index] += bytes.len();
                        }
                    }
                    assert_eq!(poll(&mut driver)?, []);
                    io::Result::Ok(driver)
                })
                .join()
                .map_err(|_| io::Error::other("the thread panicked"))?
        })?;
    }
    // Let go of from a thread that the ring does not let in.
    let [first, second] = connections;
    driver.cancel(OpKey(0), first.fd(), Op::Receive);
    driver.release(first.fd());
    assert_eq!(poll(&mut driver)?, [cancelled(0)]);
    second.feed(b"on")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

#[test]
fn a_driver_is_dropped_with_all_under_way() -> io::Result<()> {
    let _no_child = FORKING.read();
    for _ in 0..20 {
        let mut driver = eager()?;
        let connection = Connection::received_by(&mut driver, 1)?;
        assert_eq!(poll(&mut driver)?, []);
        connection.feed(b"never taken")?;
        drop(driver);
        let Connection { near, far } = connection;
        drop(near);
        // Nothing holds the socket any more.
        match io::Read::read(&mut &far, &mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    Ok(())
}

#[test]
fn a_driver_outlives_the_thread_that_it_ran_in() -> io::Result<()> {
    let _no_child = FORKING.read();
    let (driver, connection) = thread::spawn(|| {
        let mut driver = eager()?;
        let connection = Connection::received_by(&mut driver, 1)?;
        assert_eq!(poll(&mut driver)?, []);
        assert!(driver.post(connection.fd(), b"never sent"));
        io::Result::Ok((driver, connection))
    })
    .join()
    .map_err(|_| io::Error::other("the thread panicked"))??;
    drop(driver);
    let Connection { near, mut far } = connection;
    drop(near);
    far.set_nonblocking(false)?;
    assert_eq!(io::Read::read(&mut far, &mut [0])?, 0);
    Ok(())
}
