//! How long a turn waits.

use std::io;
use std::mem::MaybeUninit;
use std::thread;
use std::time::Duration;

use hotloop::clock::Clock;
use hotloop::driver::{Direction, Selector, SystemPoller};
use hotloop::{Event, EventLoop, MAXIMUM_WAIT};

use crate::program::{Labels, Program, RESOLUTION, Seen, callbacks, timers};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_wait_lasts_until_the_next_timer() -> io::Result<()> {
    let mut program = Program::new();
    program.call_at(2.5, 2);
    program.call_at(1.5, 1);
    assert_eq!(program.turn()?, timers([1]));
    assert_eq!(program.turn()?, timers([2]));
    let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
    assert_eq!(program.waits(), [seconds(1.5), seconds(1.0)]);
    Ok(())
}

#[test]
fn a_wait_is_rounded_up_to_the_nanosecond() {
    let mut program = Program::new();
    for (when, nanoseconds) in [(1e-12, 1), (1e-9, 1), (1.1e-9, 2), (0.000_000_999_5, 1000)] {
        program.call_at(when, 1);
        assert_eq!(
            program.prepare(false),
            Some(Duration::from_nanos(nanoseconds)),
            "{when}"
        );
        let _ = program.event_loop.take_scheduled();
    }
}

#[test]
fn a_timer_is_never_early() -> io::Result<()> {
    let mut program = Program::new();
    // A day: its seconds in an `f64` still tell a hundredth of a nanosecond apart.
    program.clock.set(86_400.125);
    let start = program.clock.now();
    for (label, delay) in (0..).zip([1e-9, 1e-7, 0.000_123, 0.1, 0.1 + 0.2, 1.0 / 3.0, 59.999_999_999]) {
        program.call_at(start + delay, label);
    }
    let mut count = 0;
    while !program.event_loop.timers().is_empty() {
        let when = program.event_loop.timers().next_when().unwrap_or_default();
        let seen = program.turn()?;
        assert!(
            program.clock.now() >= when - RESOLUTION,
            "{} < {when}",
            program.clock.now()
        );
        assert!(!seen.is_empty(), "no wait ends before its timer is due");
        count += seen.len();
    }
    assert_eq!(count, 7);
    Ok(())
}

#[test]
fn a_wait_lasts_a_day_at_most() -> io::Result<()> {
    for when in [MAXIMUM_WAIT * 3.0, 1e10, f64::MAX, f64::INFINITY] {
        let mut program = Program::new();
        program.call_at(when, 1);
        assert_eq!(program.prepare(false), Some(DAY), "{when}");
        assert_eq!(program.turn()?, []);
        assert_eq!(program.clock.now(), MAXIMUM_WAIT);
    }
    Ok(())
}

#[test]
fn a_time_that_is_past_or_no_number_is_due_without_a_wait() -> io::Result<()> {
    for when in [-1.0, -0.0, 0.0, f64::NEG_INFINITY, f64::NAN] {
        let mut program = Program::new();
        program.await_nothing()?;
        program.call_at(when, 1);
        assert_eq!(program.turn()?, timers([1]), "{when}");
        assert_eq!(program.waits(), [Some(Duration::ZERO)], "{when}");
    }
    Ok(())
}

#[test]
fn a_turn_that_does_not_wait_asks_only_for_what_is_awaited() -> io::Result<()> {
    let mut program = Program::new();
    program.event_loop.call_soon(1);
    assert_eq!(program.turn()?, callbacks([1]));
    assert_eq!(program.waits(), [], "nothing is awaited");

    program.network.open(1, 0);
    program.event_loop.watch(1, Direction::Read, 10)?;
    program.event_loop.wakes_only(Some(1));
    program.network.feed(1, b"a");
    program.event_loop.call_soon(2);
    assert_eq!(program.turn()?, callbacks([2]));
    assert_eq!(program.waits(), [], "what only ends waits is not asked for");
    assert_eq!(program.turn()?, callbacks([10]), "but a wait hears of it");
    assert_eq!(program.waits(), [None]);

    // Together with others, and as one like others, it is.
    program.event_loop.call_soon(3);
    program.await_nothing()?;
    assert_eq!(program.turn()?, callbacks([3, 10]));
    program.event_loop.unwatch(99, Direction::Read);
    program.event_loop.wakes_only(None);
    program.event_loop.call_soon(4);
    assert_eq!(program.turn()?, callbacks([4, 10]));
    assert_eq!(program.waits()[1..], [Some(Duration::ZERO); 2]);

    // Whoever takes its place is not it.
    program.event_loop.wakes_only(Some(1));
    program.event_loop.watch(1, Direction::Read, 11)?;
    program.event_loop.call_soon(5);
    assert_eq!(program.turn()?, callbacks([5, 11]));
    Ok(())
}

#[test]
fn a_cancelled_timer_ends_no_wait() -> io::Result<()> {
    let mut program = Program::new();
    let first = program.call_at(1.0, 1);
    program.call_at(4.0, 2);
    program.cancel(&first);
    assert_eq!(program.turn()?, timers([2]));
    assert_eq!(program.waits(), [Some(Duration::from_secs(4))]);
    let last = program.call_at(9.0, 3);
    program.cancel(&last);
    assert_eq!(program.prepare(false), None);
    Ok(())
}

#[test]
fn a_loop_that_stops_polls() {
    let mut program = Program::new();
    program.call_at(5.0, 1);
    assert_eq!(program.prepare(true), Some(Duration::ZERO));
    assert_eq!(program.prepare(false), Some(Duration::from_secs(5)));
}

#[test]
fn an_idle_loop_waits_once_and_without_end() {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 1).ok();
    // The simulation knows that nothing will ever come, which no kernel does.
    let waited = program.turn().map_err(|error| error.kind());
    assert_eq!(waited, Err(io::ErrorKind::TimedOut));
    assert_eq!(program.waits(), [None]);
}

#[test]
fn a_loop_does_not_spin_after_its_work() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 100);
    program.start_reading(key)?;
    program.network.feed(5, b"request");
    program.call_at(10.0, 1);
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Readable(5) {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
            assert_eq!(program.event_loop.receive(key, &mut buffer).ok(), Some(7));
            for _ in 0..3 {
                assert!(program.write(key, b"answer").is_ok());
            }
        }
    })?;
    assert_eq!(seen, [Seen::Readable(5)]);
    assert_eq!(program.turn()?, timers([1]));
    let ten = Some(Duration::from_secs(10));
    assert_eq!(
        program.waits(),
        [ten, ten],
        "the first found something, the second lasted"
    );
    Ok(())
}

#[test]
fn something_in_the_inbox_makes_a_wait_a_poll() -> io::Result<()> {
    let mut program = Program::new();
    program.event_loop.inbox().push(1);
    assert_eq!(program.prepare(false), Some(Duration::ZERO));
    assert_eq!(program.turn()?, callbacks([1]));
    // Pushed when the timeout is settled already: the wait looks again.
    let timeout = program.prepare(false);
    assert_eq!(timeout, None);
    program.event_loop.inbox().push(2);
    program.event_loop.wait(timeout)?;
    assert_eq!(program.waits().last(), Some(&Some(Duration::ZERO)));
    Ok(())
}

#[test]
fn a_push_wakes_a_loop_that_sleeps() -> io::Result<()> {
    let mut event_loop = EventLoop::<Labels, Selector>::new(Selector::new(SystemPoller::new()?));
    for round in 0..100 {
        let inbox = event_loop.inbox();
        let timeout = event_loop.prepare_wait(|| 0.0, false, &mut Vec::new());
        assert_eq!(timeout, None);
        let mut seen = thread::scope(|scope| -> io::Result<Vec<u32>> {
            scope.spawn(move || inbox.push(round));
            let mut seen = Vec::new();
            // A wake-up that came late for the last round may end a wait with nothing to show.
            while seen.is_empty() {
                event_loop.wait(None)?;
                event_loop.begin_turn(|| 0.0);
                while let Some(event) = event_loop.next_event() {
                    let Event::Callback(label) = event else { continue };
                    seen.push(label);
                }
            }
            Ok(seen)
        })?;
        assert_eq!(seen.pop(), Some(round));
        assert_eq!(seen, []);
    }
    Ok(())
}

#[test]
fn a_turn_behind_bytes_that_were_all_received_is_spared_the_call() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 0);
    program.event_loop.note_tcp(key);
    program.start_reading(key)?;
    let waits = |program: &Program| program.waits().len();
    let mut buffer = [MaybeUninit::uninit(); 4];
    for (bytes, only, spared) in [
        (&b"abc"[..], true, true),
        (b"abc", false, false),
        (b"abcd", true, false),
    ] {
        program.network.feed(5, bytes);
        let timeout = program.prepare(false);
        program.event_loop.wait(timeout)?;
        program.begin();
        assert!(matches!(program.event_loop.next_event(), Some(Event::Stream(..))));
        assert_eq!(program.event_loop.receive(key, &mut buffer)?, bytes.len());
        if only {
            program.event_loop.note_received_only();
        }
        program.event_loop.call_soon(1);
        assert!(program.event_loop.next_event().is_none());
        let before = waits(&program);
        assert_eq!(program.turn()?, callbacks([1]));
        assert_eq!(waits(&program) == before, spared, "{bytes:?} {only}");
        // A callback has run since: whatever it has done, the kernel may have news.
        program.event_loop.call_soon(2);
        assert_eq!(program.turn()?, callbacks([2]));
        assert!(waits(&program) > before);
    }
    Ok(())
}

#[test]
fn a_turn_begins_at_once_only_where_it_has_nothing_but_callbacks() -> io::Result<()> {
    let begins = |prepare: &dyn Fn(&mut Program) -> io::Result<()>, callback: bool| -> io::Result<bool> {
        let mut program = Program::new();
        prepare(&mut program)?;
        if callback {
            program.event_loop.call_soon(1);
        }
        let begins = program.event_loop.begin_at_once();
        if begins {
            assert_eq!(program.next(), Some(Seen::Callback(1)));
        } else {
            // Nothing was done: the turn is as it would have been.
            assert_eq!(program.turn()?.first() == Some(&Seen::Callback(1)), callback);
        }
        Ok(begins)
    };
    let nothing = |_: &mut Program| Ok(());
    assert!(begins(&nothing, true)?);
    let pushed = |program: &mut Program| {
        program.event_loop.inbox().push(1);
        Ok(())
    };
    assert!(begins(&pushed, true)?);
    let a_timer = |program: &mut Program| {
        program.call_at(0.0, 2);
        Ok(())
    };
    assert!(!begins(&a_timer, false)?);
    assert!(!begins(&a_timer, true)?);
    assert!(!begins(&Program::await_nothing, true)?);
    let unsent = |program: &mut Program| {
        let key = program.stream(5, 100);
        program.event_loop.begin_turn(|| 0.0);
        for _ in 0..2 {
            program.write(key, b"answer")?;
        }
        Ok(())
    };
    assert!(!begins(&unsent, true)?);
    Ok(())
}
