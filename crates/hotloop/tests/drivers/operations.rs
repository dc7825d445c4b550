//! What becomes of operations: readiness, cancelling, replacing, keys.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::time::Duration;

use hotloop::driver::{Driver, Op, OpKey};

use crate::world::{World, cancelled, errno, fill, kind, poll, ready, receive, take_all};

pub(crate) fn nothing_submitted_completes_nothing<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    assert_eq!(driver.next_completion(), None);
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_watched_descriptor_is_reported_as_long_as_it_is_readable<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    assert_eq!(poll(&mut driver)?, []);
    world.feed(fd, b"ab")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 10)?, 2);
    assert_eq!(poll(&mut driver)?, []);
    world.feed_end(fd)?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(poll(&mut driver)?, [ready(1)], "an end stays");
    Ok(())
}

pub(crate) fn a_watched_descriptor_is_reported_as_long_as_it_is_writable<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchWrite)?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    fill(&mut driver, fd)?;
    assert_eq!(poll(&mut driver)?, []);
    world.drain(fd)?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

pub(crate) fn a_receive_gives_the_bytes_and_then_the_end<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::Receive)?;
    assert_eq!(
        kind(receive(&mut driver, fd, 8)),
        Some(io::ErrorKind::WouldBlock),
        "nothing is there"
    );
    world.feed(fd, b"abc")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    let mut buffer = [MaybeUninit::new(0); 8];
    assert_eq!(driver.receive(fd, &mut buffer[..2])?, 2);
    // Two bytes were taken, one is left: it is reported again.
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(driver.receive(fd, &mut buffer[2..])?, 1);
    assert_eq!(poll(&mut driver)?, []);
    world.feed_end(fd)?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(receive(&mut driver, fd, 8)?, 0);
    Ok(())
}

pub(crate) fn a_send_is_reported_when_there_is_room_again<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    let sent = fill(&mut driver, fd)?;
    driver.submit(OpKey(1), fd, Op::Send)?;
    assert_eq!(poll(&mut driver)?, []);
    assert_eq!(world.drain(fd)?.len(), sent);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    assert_eq!(driver.send(fd, &[IoSlice::new(b"x")])?, 1);
    assert_eq!(world.drain(fd)?, b"x");
    Ok(())
}

pub(crate) fn a_send_takes_its_buffers_in_order<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    let buffers: Vec<[u8; 3]> = (0..60).map(|index| [index, index, index]).collect();
    let slices: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
    assert_eq!(driver.send(fd, &slices)?, 180);
    assert_eq!(world.drain(fd)?, buffers.concat());
    Ok(())
}

pub(crate) fn a_shutdown_follows_what_was_sent<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.send(fd, &[IoSlice::new(b"last")])?;
    driver.shutdown_write(fd)?;
    let refused = driver.send(fd, &[IoSlice::new(b"x")]);
    assert_eq!(kind(refused), Some(io::ErrorKind::BrokenPipe));
    assert_eq!(world.drain(fd)?, b"last");
    assert!(world.has_ended(fd)?);
    // The other half lives on.
    world.feed(fd, b"ab")?;
    assert_eq!(receive(&mut driver, fd, 8)?, 2);
    Ok(())
}

pub(crate) fn the_reader_comes_before_the_writer<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchWrite)?;
    driver.submit(OpKey(2), fd, Op::WatchRead)?;
    assert_eq!(poll(&mut driver)?, [ready(1)], "only writable");
    world.feed(fd, b"a")?;
    assert_eq!(poll(&mut driver)?, [ready(2), ready(1)]);
    fill(&mut driver, fd)?;
    assert_eq!(poll(&mut driver)?, [ready(2)], "only readable");
    Ok(())
}

pub(crate) fn a_second_operation_in_one_direction_is_refused<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    for op in [Op::WatchRead, Op::Receive, Op::Accept] {
        let refused = driver.submit(OpKey(2), fd, op);
        assert_eq!(kind(refused), Some(io::ErrorKind::AlreadyExists));
    }
    // The refused key names nothing, and the first operation goes on.
    driver.cancel(OpKey(2), fd, Op::WatchRead);
    world.feed(fd, b"a")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

pub(crate) fn a_cancelled_operation_has_one_last_completion<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    world.feed(fd, b"a")?;
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_cancelled_operation_that_was_ready_ends_all_the_same<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::Receive)?;
    world.feed(fd, b"a")?;
    driver.wait(Some(Duration::ZERO))?;
    driver.cancel(OpKey(1), fd, Op::Receive);
    // That it was ready may or may not be told; the end is told once, and last.
    let mut told = take_all(&mut driver);
    told.extend(poll(&mut driver)?);
    assert_eq!(told.pop(), Some(cancelled(1)));
    assert!(told.iter().all(|&completion| completion == ready(1)), "{told:?}");
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_cancel_in_one_direction_leaves_the_other<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::Receive)?;
    driver.submit(OpKey(2), fd, Op::Send)?;
    world.feed(fd, b"a")?;
    driver.cancel(OpKey(2), fd, Op::Send);
    assert_eq!(poll(&mut driver)?, [cancelled(2), ready(1)]);
    driver.submit(OpKey(3), fd, Op::Send)?;
    driver.cancel(OpKey(1), fd, Op::Receive);
    assert_eq!(poll(&mut driver)?, [cancelled(1), ready(3)]);
    Ok(())
}

pub(crate) fn a_cancel_under_another_key_is_left_alone<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.cancel(OpKey(2), fd, Op::WatchRead);
    driver.cancel(OpKey(1), fd, Op::WatchWrite);
    driver.cancel(OpKey(1), fd + 1000, Op::WatchRead);
    driver.cancel(OpKey(1), -1, Op::WatchRead);
    world.feed(fd, b"a")?;
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    Ok(())
}

pub(crate) fn a_key_is_free_after_its_last_completion<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (first, second) = (world.connect()?, world.connect()?);
    world.feed(first, b"a")?;
    for _ in 0..3 {
        driver.submit(OpKey(1), first, Op::WatchRead)?;
        assert_eq!(poll(&mut driver)?, [ready(1)]);
        driver.cancel(OpKey(1), first, Op::WatchRead);
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
        driver.submit(OpKey(1), second, Op::WatchWrite)?;
        assert_eq!(poll(&mut driver)?, [ready(1)]);
        driver.cancel(OpKey(1), second, Op::WatchWrite);
        assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    }
    Ok(())
}

pub(crate) fn a_cancel_in_the_turn_of_another_leaves_it_ready<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fds = [world.connect()?, world.connect()?, world.connect()?];
    for (key, fd) in (0..).zip(fds) {
        driver.submit(OpKey(key), fd, Op::Receive)?;
        world.feed(fd, b"a")?;
    }
    driver.wait(Some(Duration::ZERO))?;
    let first = driver.next_completion();
    // Whichever came first: its callback ends one of the others.
    let ended = (0..3).find(|&key| first != Some(ready(key))).unwrap_or_default();
    driver.cancel(OpKey(ended), fds[ended as usize], Op::Receive);
    let mut told = take_all(&mut driver);
    told.extend(first);
    for key in 0..3 {
        let completion = if key == ended { cancelled(key) } else { ready(key) };
        let times = told.iter().filter(|&&one| one == completion).count();
        assert_eq!(times, 1, "{completion:?} among {told:?}");
    }
    Ok(())
}

pub(crate) fn what_is_submitted_in_a_turn_waits_for_the_next_wait<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    // The writer keeps the descriptor registered while the reader is exchanged.
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.submit(OpKey(2), fd, Op::WatchWrite)?;
    world.feed(fd, b"a")?;
    driver.wait(Some(Duration::ZERO))?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    driver.submit(OpKey(3), fd, Op::WatchRead)?;
    let told = take_all(&mut driver);
    assert!(!told.contains(&ready(3)), "{told:?}");
    assert!(told.contains(&ready(2)), "{told:?}");
    assert_eq!(poll(&mut driver)?, [ready(3), ready(2)]);
    Ok(())
}

pub(crate) fn a_replacement_ends_the_old_operation_and_begins_the_new<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.replace(OpKey(2), fd, Op::WatchRead)?;
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    world.feed(fd, b"a")?;
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    // Back to the first key, which is free again, and to another operation of that direction.
    driver.replace(OpKey(1), fd, Op::Receive)?;
    assert_eq!(poll(&mut driver)?, [cancelled(2), ready(1)]);
    driver.cancel(OpKey(1), fd, Op::Receive);
    assert_eq!(poll(&mut driver)?, [cancelled(1)]);
    Ok(())
}

pub(crate) fn a_replacement_in_a_turn_waits_for_the_next_wait<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    world.feed(fd, b"a")?;
    driver.wait(Some(Duration::ZERO))?;
    driver.replace(OpKey(2), fd, Op::WatchRead)?;
    let told = take_all(&mut driver);
    assert!(!told.contains(&ready(2)), "{told:?}");
    assert_eq!(told.last(), Some(&cancelled(1)));
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    Ok(())
}

pub(crate) fn nothing_to_replace_is_not_found<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    let not_found = Some(io::ErrorKind::NotFound);
    assert_eq!(kind(driver.replace(OpKey(1), fd, Op::WatchRead)), not_found);
    driver.submit(OpKey(2), fd, Op::WatchWrite)?;
    assert_eq!(kind(driver.replace(OpKey(1), fd, Op::WatchRead)), not_found);
    assert_eq!(poll(&mut driver)?, [ready(2)]);
    Ok(())
}

pub(crate) fn what_a_turn_leaves_untaken_is_reported_again<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (first, second) = (world.connect()?, world.connect()?);
    driver.submit(OpKey(1), first, Op::WatchRead)?;
    driver.submit(OpKey(2), second, Op::WatchRead)?;
    driver.submit(OpKey(3), second, Op::WatchWrite)?;
    world.feed(first, b"a")?;
    world.feed(second, b"b")?;
    driver.wait(Some(Duration::ZERO))?;
    driver.next_completion();
    driver.cancel(OpKey(1), first, Op::WatchRead);
    let told = poll(&mut driver)?;
    // Once each, although they were found twice; and the end of an operation is never lost.
    for completion in [cancelled(1), ready(2), ready(3)] {
        let times = told.iter().filter(|&&one| one == completion).count();
        assert_eq!(times, 1, "{completion:?} among {told:?}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
    Ok(())
}

pub(crate) fn a_negative_descriptor_is_refused<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    for fd in [-1, -2, i32::MIN] {
        for op in [Op::WatchRead, Op::WatchWrite, Op::Receive, Op::Send, Op::Accept] {
            assert_eq!(errno(driver.submit(OpKey(1), fd, op)), Some(libc::EBADF));
        }
    }
    assert_eq!(errno(receive(&mut driver, -1, 1)), Some(libc::EBADF));
    assert_eq!(errno(driver.send(-1, &[IoSlice::new(b"a")])), Some(libc::EBADF));
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}
