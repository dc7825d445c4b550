//! A child of a process that has a ring.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotloop::driver::{Driver, Op, OpKey, Proactor};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::surroundings::{Connection, FORKING, eager, poll, ready, receive};

/// Runs `act` in a child, and fails if it does.
#[expect(unsafe_code, reason = "a fork of a process with threads")]
fn in_child(act: impl FnOnce() -> io::Result<bool>) -> io::Result<()> {
    let _alone = FORKING.write();
    // SAFETY: the child does system calls and allocates, which the C library sees to across a fork.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let passed = act().unwrap_or(false);
            // SAFETY: nothing of the parent's is torn down here.
            unsafe { libc::_exit(i32::from(!passed)) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
            Ok(())
        }
    }
}

#[test]
fn a_child_is_refused_and_the_parent_goes_on() -> io::Result<()> {
    let mut driver = eager()?;
    let connection = Connection::received_by(&mut driver, 1)?;
    assert_eq!(poll(&mut driver)?, []);
    connection.feed(b"one")?;
    let fd = connection.fd();
    let mut refused = Vec::new();
    in_child(|| {
        refused.push(driver.wait(Some(Duration::ZERO)).err());
        refused.push(driver.wait(None).err());
        refused.push(driver.submit(OpKey(2), fd, Op::Send).err());
        refused.push(driver.replace(OpKey(2), fd, Op::Receive).err());
        refused.push(receive(&mut driver, fd, 10).err());
        refused.push(driver.send(fd, &[io::IoSlice::new(b"x")]).err());
        driver.cancel(OpKey(1), fd, Op::Receive);
        driver.release(fd);
        driver.settle(fd);
        let clear = |error: &Option<io::Error>| {
            error
                .as_ref()
                .is_some_and(|error| error.to_string().contains("forked"))
        };
        let posts = driver.post(fd, b"x");
        Ok(refused.iter().all(clear) && !posts)
    })?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 10)?, b"one");
    connection.feed(b"two")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 10)?, b"two");
    Ok(())
}

#[test]
fn a_child_can_drop_what_it_inherited_and_make_its_own() -> io::Result<()> {
    let mut driver = Some(eager()?);
    let connection = match &mut driver {
        Some(driver) => Connection::received_by(driver, 1)?,
        None => return Ok(()),
    };
    if let Some(driver) = &mut driver {
        assert_eq!(poll(driver)?, []);
    }
    in_child(|| {
        drop(driver.take());
        let mut own = eager()?;
        let connection = Connection::received_by(&mut own, 5)?;
        connection.feed(b"child")?;
        Ok(poll(&mut own)? == [ready(5)] && receive(&mut own, connection.fd(), 10)? == b"child")
    })?;
    connection.feed(b"parent")?;
    if let Some(driver) = &mut driver {
        assert_eq!(poll(driver)?, [ready(1)]);
        assert_eq!(receive(driver, connection.fd(), 10)?, b"parent");
    }
    Ok(())
}

#[test]
fn a_fork_meets_no_ring_half_made() -> io::Result<()> {
    let make = || Proactor::new().and_then(|mut driver| poll(&mut driver));
    make()?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                drop(make());
            }
        });
        let forked = (0..50).try_for_each(|_| in_child(|| Ok(rings()? == 0)));
        ended.store(true, Ordering::Relaxed);
        forked
    })
}

/// How many rings the process has.
fn rings() -> io::Result<usize> {
    let names = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    Ok(names
        .filter(|name| name.to_string_lossy().contains("io_uring"))
        .count())
}

#[test]
fn a_ring_ends_with_its_driver_although_a_child_lives() -> io::Result<()> {
    let mut driver = Proactor::new()?;
    assert_eq!(poll(&mut driver)?, []);
    assert!(rings()? > 0);
    // Those of other tests in other threads are closed as well.
    in_child(|| Ok(rings()? == 0))
}
