//! Waits that look for completions before they sleep.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use hotloop::driver::{Driver, Proactor, Waker};

use crate::surroundings::{Connection, eager, ready, receive};

/// Waits until the peer's bytes are there, and takes them.
fn hear(driver: &mut Proactor, connection: &Connection, bytes: &[u8]) -> io::Result<()> {
    driver.wait(None)?;
    assert_eq!(driver.next_completion(), Some(ready(1)));
    assert_eq!(receive(driver, connection.fd(), 100)?, bytes);
    Ok(())
}

/// One that looks in its next wait: messages were there as soon as it waited for them, time and again.
fn looking() -> io::Result<(Proactor, Connection)> {
    let mut driver = eager()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    for message in 0..100 {
        connection.feed(&[message])?;
        hear(&mut driver, &connection, &[message])?;
    }
    Ok((driver, connection))
}

/// How often the ring is entered for a message to the peer and a wait in which nothing comes in.
fn entered_in_vain(driver: &mut Proactor, connection: &Connection) -> io::Result<u64> {
    const TIMEOUT: Duration = Duration::from_millis(2);
    assert!(driver.post(connection.fd(), b"ping"));
    let (before, begun) = (driver.entered(), Instant::now());
    driver.wait(Some(TIMEOUT))?;
    assert!(begun.elapsed() >= TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(driver.next_completion(), None);
    assert_eq!(connection.arrived()?, b"ping");
    Ok(driver.entered() - before)
}

#[test]
fn what_is_handed_in_goes_out_before_the_wait_looks_and_a_look_in_vain_is_the_last() -> io::Result<()> {
    let (mut driver, connection) = looking()?;
    assert_eq!(entered_in_vain(&mut driver, &connection)?, 2);
    assert_eq!(entered_in_vain(&mut driver, &connection)?, 1);
    Ok(())
}

#[test]
fn an_answer_is_heard_by_one_that_looks() -> io::Result<()> {
    let (mut driver, connection) = looking()?;
    for message in 0..100 {
        assert!(driver.post(connection.fd(), &[message]));
        thread::scope(|scope| {
            let peer = scope.spawn(|| {
                connection.far.set_nonblocking(false)?;
                let mut question = [0];
                io::Read::read_exact(&mut &connection.far, &mut question)?;
                connection.feed(&question)
            });
            hear(&mut driver, &connection, &[message])?;
            peer.join().expect("it does not panic")
        })?;
    }
    Ok(())
}

#[test]
fn one_that_looks_is_woken_all_the_same() -> io::Result<()> {
    let (mut driver, _connection) = looking()?;
    let waker = driver.waker();
    thread::scope(|scope| {
        scope.spawn(|| waker.wake());
        driver.wait(None)
    })?;
    assert_eq!(driver.next_completion(), None);
    Ok(())
}
