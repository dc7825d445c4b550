//! What ends a wait, and what does not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hotloop::driver::{Driver, Op, OpKey, Waker, Woken};

use crate::world::{World, cancelled, poll, ready, take_all};

/// A wait that is over long before this only if something ended it. No test ever waits it out.
const FOR_EVER: Option<Duration> = None;

pub(crate) fn a_wake_before_a_wait_ends_it<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    for _ in 0..3 {
        driver.waker().wake();
        assert_eq!(driver.wait(FOR_EVER)?, Woken::Normally);
        assert_eq!(driver.next_completion(), None);
    }
    Ok(())
}

pub(crate) fn wakes_coalesce<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let waker = driver.waker();
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    for _ in 0..1000 {
        waker.wake();
    }
    assert_eq!(poll(&mut driver)?, []);
    // Nothing is left of them: this wait goes on to its end, which is the only thing that ends it.
    let (timeout, start) = (Duration::from_millis(2), world.now());
    assert_eq!(driver.wait(Some(timeout))?, Woken::Normally);
    assert!(world.now() - start >= timeout);
    assert_eq!(driver.next_completion(), None);
    Ok(())
}

pub(crate) fn a_wake_takes_no_event_away<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    world.feed(fd, b"a")?;
    driver.waker().wake();
    driver.wait(FOR_EVER)?;
    let mut told = take_all(&mut driver);
    told.extend(poll(&mut driver)?);
    assert!(told.contains(&ready(1)), "{told:?}");
    Ok(())
}

pub(crate) fn a_waker_outlives_its_driver<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let driver = world.driver()?;
    let waker = driver.waker();
    drop(driver);
    waker.wake();
    assert_eq!(Arc::strong_count(&waker), 1);
    Ok(())
}

pub(crate) fn a_pending_completion_ends_a_wait<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let fd = world.connect()?;
    driver.submit(OpKey(1), fd, Op::WatchRead)?;
    driver.cancel(OpKey(1), fd, Op::WatchRead);
    driver.wait(FOR_EVER)?;
    assert_eq!(driver.next_completion(), Some(cancelled(1)));
    assert_eq!(driver.next_completion(), None);
    Ok(())
}

pub(crate) fn a_thread_ends_a_wait_without_end<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let waker = driver.waker();
    for _ in 0..100 {
        thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            driver.wait(FOR_EVER)
        })?;
        assert_eq!(driver.next_completion(), None);
    }
    Ok(())
}

pub(crate) fn a_timeout_is_never_early<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let nanoseconds = [1, 999, 1_000, 50_000, 999_999, 1_000_001, 1_500_000, 3_000_000];
    for timeout in nanoseconds.map(Duration::from_nanos) {
        let start = world.now();
        assert_eq!(driver.wait(Some(timeout))?, Woken::Normally);
        let passed = world.now() - start;
        assert!(passed >= timeout, "{passed:?} of {timeout:?}");
    }
    Ok(())
}

pub(crate) fn a_signal_ends_a_wait<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    // A handler that does next to nothing: without one, the signal would end the process.
    let arrived = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&arrived))?;
    let (waiting, over) = (nix::sys::pthread::pthread_self(), AtomicBool::new(false));
    let woken = thread::scope(|scope| {
        // One of many hits the wait; an earlier one finds this thread on its way to it.
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                nix::sys::pthread::pthread_kill(waiting, nix::sys::signal::SIGUSR1).ok();
                thread::yield_now();
            }
        });
        let woken = driver.wait(FOR_EVER);
        over.store(true, Ordering::SeqCst);
        woken
    })?;
    signal_hook::low_level::unregister(handler);
    assert_eq!(woken, Woken::BySignal);
    assert!(arrived.load(Ordering::SeqCst));
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}
