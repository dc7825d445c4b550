//! Descriptors that were closed behind the driver's back: the number says nothing any more, or something else.
//!
//! epoll forgets a registration only when the last duplicate of its descriptor is closed, and can be told to forget it
//! only by a number that still names it. asyncio's users meet this as a loop that takes all of a processor.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hotloop::driver::{Driver, Op, OpKey};

use crate::kernel::high_number;
use crate::world::{World, cancelled, poll, ready};

/// A connection whose near end is at a number that no other test uses.
struct Connection {
    near: OwnedFd,
    far: UnixStream,
}

impl Connection {
    fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        Ok(Self {
            near: high_number(near.as_fd())?,
            far,
        })
    }

    fn fd(&self) -> RawFd {
        self.near.as_raw_fd()
    }

    /// Puts the near end of `other` at the number of this one, which is closed thereby: no other thread can get
    /// hold of the number in between.
    fn become_another(&mut self, other: Self) -> io::Result<()> {
        rustix::io::dup2(&other.near, &mut self.near)?;
        self.far = other.far;
        Ok(())
    }
}

/// Fails if the driver spins: a wait that finds nothing lasts as long as it may.
fn assert_quiet(world: &impl World, driver: &mut impl Driver) -> io::Result<()> {
    let timeout = Duration::from_millis(1);
    // A remedy may cost a wait or two that end early.
    for _ in 0..8 {
        let start = world.now();
        driver.wait(Some(timeout))?;
        assert_eq!(driver.next_completion(), None);
        if world.now() - start >= timeout {
            return Ok(());
        }
    }
    panic!("eight waits in a row ended early with nothing to tell");
}

pub(crate) fn a_cancel_after_the_close_ends_the_operation<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let connection = Connection::new()?;
    let fd = connection.fd();
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.submit(OpKey(2), fd, Op::WatchWrite)?;
    drop(connection);
    assert_eq!(
        poll(&mut driver)?,
        [],
        "nothing is reported of a closed descriptor"
    );
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    driver.cancel(OpKey(2), fd, Op::WatchWrite);
    assert_eq!(poll(&mut driver)?, [cancelled(1), cancelled(2)]);
    assert_quiet(&world, &mut driver)
}

#[cfg(epoll)]
pub(crate) fn a_duplicate_of_a_closed_descriptor_is_not_reported_for_ever<W: World>() -> io::Result<()> {
    for op in [Op::WatchRead, Op::Receive, Op::WatchWrite] {
        let world = W::new()?;
        let mut driver = world.driver()?;
        let Connection { near, mut far } = Connection::new()?;
        let fd = near.as_raw_fd();
        driver.submit(OpKey(1), fd, op)?;
        let duplicate = near.try_clone()?;
        drop(near);
        far.write_all(b"a")?;
        // As long as the operation stands, it is told what the kernel says, as asyncio tells its readers.
        assert_eq!(poll(&mut driver)?, [ready(1)]);
        driver.cancel(OpKey(1), fd, op);
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        assert_quiet(&world, &mut driver)?;
        // The duplicate is a descriptor like any other.
        driver.submit(OpKey(2), duplicate.as_raw_fd(), op)?;
        assert_eq!(poll(&mut driver)?, [ready(2)]);
    }
    Ok(())
}

pub(crate) fn a_duplicate_of_a_closed_descriptor_is_not_heard_of<W: World>() -> io::Result<()> {
    for op in [Op::WatchRead, Op::Receive, Op::WatchWrite] {
        let world = W::new()?;
        let mut driver = world.driver()?;
        let Connection { near, mut far } = Connection::new()?;
        let fd = near.as_raw_fd();
        driver.submit(OpKey(1), fd, op)?;
        let duplicate = near.try_clone()?;
        drop(near);
        far.write_all(b"a")?;
        assert_quiet(&world, &mut driver)?;
        driver.cancel(OpKey(1), fd, op);
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        driver.submit(OpKey(2), duplicate.as_raw_fd(), op)?;
        assert_eq!(poll(&mut driver)?, [ready(2)]);
    }
    Ok(())
}

pub(crate) fn a_stale_registration_leaves_the_others_alone<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (stale, mut other) = (Connection::new()?, Connection::new()?);
    let fd = stale.fd();
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.submit(OpKey(2), other.fd(), Op::WatchRead)?;
    let (_duplicate, mut far) = (stale.near.try_clone()?, stale.far);
    drop(stale.near);
    far.write_all(b"a")?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    assert_quiet(&world, &mut driver)?;
    other.far.write_all(b"b")?;
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    driver.submit(OpKey(3), other.fd(), Op::WatchWrite)?;
    assert_eq!(poll(&mut driver)?, [ready(2), ready(3)]);
    // Threads wake it as before.
    hotloop::driver::Waker::wake(&*driver.waker());
    driver.cancel(OpKey(2), other.fd(), Op::WatchRead);
    driver.cancel(OpKey(3), other.fd(), Op::WatchWrite);
    assert_eq!(poll(&mut driver)?, [cancelled(2), cancelled(3)]);
    assert_quiet(&world, &mut driver)
}

pub(crate) fn a_reused_number_is_submitted_anew<W: World>() -> io::Result<()> {
    // Once with a duplicate that keeps the old registration alive, once without.
    for duplicated in [false, true] {
        let world = W::new()?;
        let mut driver = world.driver()?;
        let mut connection = Connection::new()?;
        let fd = connection.fd();
        driver.submit(OpKey(1), fd, Op::Receive)?;
        let duplicate = duplicated.then(|| connection.near.try_clone()).transpose()?;
        let mut old_far = connection.far.try_clone()?;
        connection.become_another(Connection::new()?)?;
        driver.cancel(OpKey(1), fd, Op::Receive);
        driver.submit(OpKey(2), fd, Op::Receive)?;
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        if duplicate.is_some() {
            old_far.write_all(b"old")?;
            assert_eq!(
                poll(&mut driver)?,
                [],
                "what comes in on the duplicate is not for the new one"
            );
            assert_quiet(&world, &mut driver)?;
        }
        connection.far.write_all(b"new")?;
        assert_eq!(poll(&mut driver)?, [ready(2)]);
    }
    Ok(())
}

pub(crate) fn a_reused_number_is_replaced_anew<W: World>() -> io::Result<()> {
    for duplicated in [false, true] {
        let world = W::new()?;
        let mut driver = world.driver()?;
        let mut connection = Connection::new()?;
        let fd = connection.fd();
        driver.submit(OpKey(1), fd, Op::WatchRead)?;
        let duplicate = duplicated.then(|| connection.near.try_clone()).transpose()?;
        let mut old_far = connection.far.try_clone()?;
        connection.become_another(Connection::new()?)?;
        driver.replace(OpKey(2), fd, Op::WatchRead)?;
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        if duplicate.is_some() {
            old_far.write_all(b"old")?;
            assert_eq!(
                poll(&mut driver)?,
                [],
                "what comes in on the duplicate is not for the new one"
            );
            assert_quiet(&world, &mut driver)?;
        }
        connection.far.write_all(b"new")?;
        assert_eq!(poll(&mut driver)?, [ready(2)]);
    }
    Ok(())
}

pub(crate) fn a_reused_number_takes_the_other_direction_too<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let mut connection = Connection::new()?;
    let fd = connection.fd();
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    connection.become_another(Connection::new()?)?;
    // The reader was never cancelled: by its number it watches the new descriptor now.
    driver.submit(OpKey(2), fd, Op::WatchWrite)?;
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    connection.far.write_all(b"new")?;
    assert_eq!(poll(&mut driver)?, [ready(1), ready(2)]);
    Ok(())
}

pub(crate) fn an_old_key_does_not_end_the_operation_of_a_reused_number<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let mut connection = Connection::new()?;
    let fd = connection.fd();
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    connection.become_another(Connection::new()?)?;
    driver.submit(OpKey(2), fd, Op::WatchRead)?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    connection.far.write_all(b"new")?;
    assert_eq!(poll(&mut driver)?, [cancelled(1), ready(2)]);
    Ok(())
}
