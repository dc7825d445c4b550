//! Waits that a ring has no part in.

use std::io;

use hotloop::driver::{Driver, Op, OpKey, Proactor};

use crate::surroundings::{Connection, cancelled, poll, ready, receive};

/// A descriptor that the driver watches, as `add_reader` has it do, which is never the ring's.
fn watched_by(driver: &mut Proactor, key: u32) -> io::Result<Connection> {
    let connection = Connection::new()?;
    driver.submit(OpKey(key), connection.fd(), Op::WatchRead)?;
    Ok(connection)
}

/// How often the ring is entered by a wait without end, which tells of `key`.
fn entered_by_a_wait(driver: &mut Proactor, key: u32) -> io::Result<u64> {
    let before = driver.entered();
    driver.wait(None)?;
    assert_eq!(driver.next_completion(), Some(ready(key)));
    Ok(driver.entered() - before)
}

#[test]
fn a_ring_with_nothing_to_do_is_not_entered() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = watched_by(&mut driver, 1)?;
    for message in 0..20_u8 {
        assert_eq!(poll(&mut driver)?, []);
        connection.feed(&[message])?;
        assert_eq!(entered_by_a_wait(&mut driver, 1)?, 0);
        assert_eq!(receive(&mut driver, connection.fd(), 100)?, [message]);
    }
    Ok(())
}

#[test]
fn of_waits_that_find_nothing_the_ring_answers_all_but_the_first() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let connection = watched_by(&mut driver, 1)?;
    for _ in 0..3 {
        let before = driver.entered();
        for _ in 0..100 {
            assert_eq!(poll(&mut driver)?, []);
        }
        assert_eq!(driver.entered() - before, 1, "it is asked once");
        connection.feed(b"x")?;
        assert_eq!(entered_by_a_wait(&mut driver, 1)?, 1);
        // From here on it is spared again.
        let before = driver.entered();
        for _ in 0..100 {
            assert_eq!(poll(&mut driver)?, [ready(1)]);
        }
        assert_eq!(driver.entered(), before);
        assert_eq!(receive(&mut driver, connection.fd(), 100)?, b"x");
    }
    Ok(())
}

#[test]
fn a_ring_is_spared_again_without_the_last_stream_that_it_received_for() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let watched = watched_by(&mut driver, 1)?;
    let stream = Connection::received_by(&mut driver, 2)?;
    for message in 0..4_u8 {
        stream.feed(&[message])?;
        assert_eq!(entered_by_a_wait(&mut driver, 2)?, u64::from(message >= 2));
        assert_eq!(receive(&mut driver, stream.fd(), 100)?, [message]);
    }
    driver.cancel(OpKey(2), stream.fd(), Op::Receive);
    driver.release(stream.fd());
    drop(stream);
    assert_eq!(poll(&mut driver)?, [cancelled(2)]);
    watched.feed(b"x")?;
    // The ring was asked of the epoll set and has to answer.
    assert_eq!(entered_by_a_wait(&mut driver, 1)?, 1);
    assert_eq!(entered_by_a_wait(&mut driver, 1)?, 0);
    assert_eq!(entered_by_a_wait(&mut driver, 1)?, 0);
    Ok(())
}

#[test]
fn what_is_posted_is_sent_with_the_next_wait() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    let watched = watched_by(&mut driver, 1)?;
    watched.feed(b"x")?;
    assert_eq!(entered_by_a_wait(&mut driver, 1)?, 0);
    assert!(driver.post(watched.fd(), b"answer"));
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(watched.arrived()?, b"answer");
    Ok(())
}
