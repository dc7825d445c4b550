//! Signals as callbacks, on the kernel's driver: each test has signals of its own, since a process has one set.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use hotloop::driver::{Selector, SystemPoller};
use hotloop::{Event, EventLoop};
use nix::sys::signal::{Signal, raise};

use crate::program::Labels;

type Loop = EventLoop<Labels, Selector>;

fn new_loop() -> io::Result<Loop> {
    Ok(EventLoop::new(Selector::new(SystemPoller::new()?)))
}

/// One turn that waits as long as it must, and the callbacks of it.
fn turn(event_loop: &mut Loop) -> io::Result<Vec<u32>> {
    let timeout = event_loop.prepare_wait(|| 0.0, false, &mut Vec::new());
    // What is expected comes at once; a turn that waits for this long fails its test.
    event_loop.wait(Some(timeout.unwrap_or(Duration::from_secs(60))))?;
    event_loop.begin_turn(|| 0.0);
    let events = std::iter::from_fn(|| event_loop.next_event());
    Ok(events
        .filter_map(|event| match event {
            Event::Callback(label) => Some(label),
            _ => None,
        })
        .collect())
}

/// The callbacks of the turn in which the loop notices and of the one after it.
fn two_turns(event_loop: &mut Loop) -> io::Result<Vec<u32>> {
    let mut seen = turn(event_loop)?;
    seen.extend(turn(event_loop)?);
    Ok(seen)
}

#[test]
fn a_signal_calls_its_handler_once_and_wakes_the_loop() -> io::Result<()> {
    let mut event_loop = new_loop()?;
    assert_eq!(event_loop.add_signal_handler(libc::SIGUSR2, 1)?, None);
    assert_eq!(event_loop.add_signal_handler(libc::SIGWINCH, 2)?, None);
    raise(Signal::SIGUSR2)?;
    raise(Signal::SIGUSR2)?;
    assert_eq!(two_turns(&mut event_loop)?, [1]);
    raise(Signal::SIGWINCH)?;
    raise(Signal::SIGUSR2)?;
    assert_eq!(two_turns(&mut event_loop)?, [1, 2]);
    // A real wait this time, which another thread's signal ends.
    let sender = std::thread::spawn(|| raise(Signal::SIGUSR2));
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = turn(&mut event_loop)?;
    }
    assert_eq!(seen, [1]);
    assert!(sender.join().is_ok_and(|sent| sent.is_ok()));
    Ok(())
}

#[test]
fn a_handler_is_replaced_and_removed() -> io::Result<()> {
    let mut event_loop = new_loop()?;
    assert_eq!(event_loop.add_signal_handler(libc::SIGURG, 1)?, None);
    assert_eq!(event_loop.add_signal_handler(libc::SIGURG, 2)?, Some(1));
    raise(Signal::SIGURG)?;
    assert_eq!(two_turns(&mut event_loop)?, [2]);
    assert_eq!(
        event_loop.signal_handlers().collect::<Vec<_>>(),
        [(libc::SIGURG, &2)]
    );
    assert_eq!(event_loop.remove_signal_handler(libc::SIGURG), Some(2));
    assert_eq!(event_loop.remove_signal_handler(libc::SIGURG), None);
    // Ignored by default, and so now.
    raise(Signal::SIGURG)?;
    event_loop.call_soon(3);
    assert_eq!(turn(&mut event_loop)?, [3]);
    event_loop.call_soon(4);
    assert_eq!(turn(&mut event_loop)?, [4]);
    Ok(())
}

#[test]
fn every_loop_that_handles_a_signal_hears_of_it() -> io::Result<()> {
    let (mut one, mut two) = (new_loop()?, new_loop()?);
    one.add_signal_handler(libc::SIGIO, 1)?;
    two.add_signal_handler(libc::SIGIO, 2)?;
    raise(Signal::SIGIO)?;
    assert_eq!(two_turns(&mut one)?, [1]);
    assert_eq!(two_turns(&mut two)?, [2]);
    // SIGIO ends a process by default: while one loop is left that handles it, it does not.
    drop(one);
    raise(Signal::SIGIO)?;
    assert_eq!(two_turns(&mut two)?, [2]);
    Ok(())
}

#[test]
fn a_signal_that_nobody_handles_any_more_does_what_it_did() -> io::Result<()> {
    const NAME: &str = "signals::a_signal_that_nobody_handles_any_more_does_what_it_did";
    const IN_CHILD: &str = "HOTLOOP_TEST_RAISES";
    // It ends the process, so it is a process of its own that raises it.
    if std::env::var_os(IN_CHILD).is_none() {
        let child = std::process::Command::new(std::env::current_exe()?)
            .args(["--exact", NAME])
            .env(IN_CHILD, "1")
            .output()?;
        assert_eq!(child.status.signal(), Some(libc::SIGVTALRM), "{child:?}");
        return Ok(());
    }
    let mut event_loop = new_loop()?;
    event_loop.add_signal_handler(libc::SIGVTALRM, 1)?;
    raise(Signal::SIGVTALRM)?;
    assert_eq!(two_turns(&mut event_loop)?, [1]);
    let (handles, _) = event_loop.take_io();
    assert_eq!(handles, [1]);
    event_loop.add_signal_handler(libc::SIGVTALRM, 1)?;
    event_loop.remove_signal_handler(libc::SIGVTALRM);
    raise(Signal::SIGVTALRM)?;
    Ok(())
}

#[test]
fn what_cannot_be_caught_is_refused() -> io::Result<()> {
    let mut event_loop = new_loop()?;
    for number in [libc::SIGKILL, libc::SIGSTOP] {
        let refused = event_loop.add_signal_handler(number, 1);
        assert_eq!(
            refused.err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidInput)
        );
    }
    for number in [-1, 0, 1000] {
        let refused = event_loop.add_signal_handler(number, 1);
        assert_eq!(
            refused.err().and_then(|error| error.raw_os_error()),
            Some(libc::EINVAL)
        );
    }
    assert_eq!(event_loop.signal_handlers().count(), 0);
    Ok(())
}
