//! In which order a turn runs what is scheduled, and what waits for the next one.

use std::io;
use std::time::Duration;

use hotloop::driver::Direction;

use crate::program::{Program, Seen, call_at, callbacks, timers};

#[test]
fn callbacks_run_in_the_order_of_their_scheduling() -> io::Result<()> {
    let mut program = Program::new();
    for label in 0..100 {
        program.event_loop.call_soon(label);
    }
    assert_eq!(program.turn()?, callbacks(0..100));
    Ok(())
}

#[test]
fn ready_callbacks_then_io_then_timers() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 2)?;
    program.network.feed(5, b"a");
    program.call_at(0.0, 3);
    program.event_loop.call_soon(1);
    let expected = [Seen::Callback(1), Seen::Callback(2), Seen::Timer(3)];
    assert_eq!(program.turn()?, expected);
    Ok(())
}

#[test]
fn what_a_turn_schedules_waits_for_the_next() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 2)?;
    program.network.feed(5, b"a");
    program.call_at(0.0, 3);
    program.event_loop.call_soon(1);
    let first = program.turn_with(|program, seen| {
        // Each event schedules a callback and a timer that is long due.
        let (Seen::Callback(label) | Seen::Timer(label)) = seen else {
            return;
        };
        program.event_loop.call_soon(10 * label);
        call_at(&mut program.event_loop, -1.0, 10 * label + 1);
        if label == 2 {
            program.event_loop.unwatch(5, Direction::Read);
        }
    })?;
    assert_eq!(first, [Seen::Callback(1), Seen::Callback(2), Seen::Timer(3)]);
    let second = program.turn()?;
    assert_eq!(second[..3], callbacks([10, 20, 30]));
    assert_eq!(second.len(), 6);
    assert_eq!(program.waits().last(), Some(&Some(Duration::ZERO)), "a poll");
    Ok(())
}

#[test]
fn a_chain_of_callbacks_starves_neither_io_nor_timers() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 2)?;
    program.network.feed(5, b"a");
    program.event_loop.call_soon(1);
    for _ in 0..10 {
        program.call_at(0.0, 3);
        let seen = program.turn_with(|program, seen| {
            if seen == Seen::Callback(1) {
                program.event_loop.call_soon(1);
            }
        })?;
        assert_eq!(seen, [Seen::Callback(1), Seen::Callback(2), Seen::Timer(3)]);
    }
    Ok(())
}

#[test]
fn timers_run_by_their_time_and_not_by_their_scheduling() -> io::Result<()> {
    let mut program = Program::new();
    program.clock.set(10.0);
    for (when, label) in [(9.0, 3), (-5.0, 1), (10.0, 4), (8.0, 2), (11.0, 5)] {
        program.call_at(when, label);
    }
    assert_eq!(program.turn()?, timers([1, 2, 3, 4]), "the fifth is not due");
    assert_eq!(program.turn()?, timers([5]));
    Ok(())
}

#[test]
fn timers_of_one_time_run_as_in_asyncio() -> io::Result<()> {
    // What asyncio's heap makes of seven equal ones: not the order of scheduling.
    let mut program = Program::new();
    for label in 0..7 {
        program.call_at(1.0, label);
    }
    assert_eq!(program.turn()?, timers([0, 2, 5, 6, 4, 1, 3]));
    Ok(())
}

#[test]
fn a_timer_that_becomes_due_during_a_turn_waits_for_the_next() -> io::Result<()> {
    let mut program = Program::new();
    program.await_nothing()?;
    program.event_loop.call_soon(1);
    program.call_at(1.0, 2);
    let clock = program.clock.clone();
    assert_eq!(program.turn_with(|_, _| clock.advance(5.0))?, callbacks([1]));
    assert_eq!(program.turn()?, timers([2]));
    assert_eq!(
        program.waits(),
        [Some(Duration::ZERO); 2],
        "it was due before the second wait"
    );
    Ok(())
}

#[test]
fn a_timer_cancelled_earlier_in_its_turn_does_not_run() -> io::Result<()> {
    let mut program = Program::new();
    let (first, _second) = (program.call_at(0.0, 1), program.call_at(0.5, 2));
    program.event_loop.call_soon(0);
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Callback(0) {
            program.cancel(&first);
        }
    })?;
    assert_eq!(seen, callbacks([0]));
    assert_eq!(program.turn()?, timers([2]));
    Ok(())
}

#[test]
fn cancelled_timers_are_swept_from_the_top() -> io::Result<()> {
    let mut program = Program::new();
    let all: Vec<_> = (0..5)
        .map(|label| program.call_at(1.0 + f64::from(label), label))
        .collect();
    for index in [0, 1, 3] {
        program.cancel(&all[index]);
    }
    assert_eq!(program.turn()?, timers([2]));
    assert_eq!(program.swept, [0, 1]);
    assert_eq!(program.turn()?, timers([4]));
    assert_eq!(program.swept, [0, 1, 3]);
    assert!(program.event_loop.timers().is_empty());
    Ok(())
}

#[test]
fn many_cancelled_timers_are_swept_wherever_they_are() -> io::Result<()> {
    let mut program = Program::new();
    let all: Vec<_> = (0..1000)
        .map(|label| program.call_at(f64::from(label) + 1.0, label))
        .collect();
    for timer in &all[1..] {
        program.cancel(timer);
    }
    assert_eq!(program.turn()?, timers([0]));
    assert_eq!(program.swept.len(), 999);
    assert!(program.event_loop.timers().is_empty());
    Ok(())
}

#[test]
fn callbacks_of_other_threads_keep_their_place_among_ours() -> io::Result<()> {
    let mut program = Program::new();
    let inbox = program.event_loop.inbox();
    program.event_loop.call_soon(1);
    inbox.push(2);
    inbox.push(3);
    program.event_loop.call_soon(4);
    inbox.push(5);
    assert_eq!(program.event_loop.ready().len(), 5);
    assert_eq!(program.turn()?, callbacks(1..=5));
    Ok(())
}

#[test]
fn what_another_thread_pushes_during_a_turn_waits_for_the_next() -> io::Result<()> {
    let mut program = Program::new();
    program.await_nothing()?;
    let inbox = program.event_loop.inbox();
    program.event_loop.call_soon(1);
    assert_eq!(program.turn_with(|_, _| inbox.push(2))?, callbacks([1]));
    assert_eq!(program.turn()?, callbacks([2]));
    assert_eq!(program.waits(), [Some(Duration::ZERO); 2]);
    Ok(())
}

#[test]
fn what_another_thread_pushes_before_a_wait_comes_before_what_the_wait_finds() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 2)?;
    let timeout = program.prepare(false);
    assert_eq!(timeout, None, "nothing is scheduled");
    program.event_loop.inbox().push(1);
    program.network.feed(5, b"a");
    program.event_loop.wait(timeout)?;
    program.begin();
    assert_eq!(
        (program.next(), program.next()),
        (Some(Seen::Callback(1)), Some(Seen::Callback(2)))
    );
    assert_eq!(program.next(), None);
    Ok(())
}

#[test]
fn a_turn_that_is_broken_off_goes_on_in_the_next() -> io::Result<()> {
    // As when a callback raises KeyboardInterrupt: what was not run yet is not lost, and nothing runs twice.
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 3)?;
    program.network.feed(5, b"a");
    program.event_loop.call_soon(1);
    program.event_loop.call_soon(2);
    program.call_at(0.0, 4);
    let timeout = program.prepare(false);
    program.event_loop.wait(timeout)?;
    program.begin();
    assert_eq!(program.next(), Some(Seen::Callback(1)));
    assert_eq!(
        program.turn()?,
        [Seen::Callback(2), Seen::Callback(3), Seen::Timer(4)]
    );
    Ok(())
}

#[test]
fn all_that_is_scheduled_can_be_taken_out() -> io::Result<()> {
    let mut program = Program::new();
    program.event_loop.call_soon(1);
    program.event_loop.inbox().push(2);
    program.call_at(0.0, 3);
    program.call_at(7.0, 4);
    let timeout = program.prepare(true);
    program.event_loop.wait(timeout)?;
    program.begin();
    let (ready, timers) = program.event_loop.take_scheduled();
    assert_eq!(ready, [1, 2]);
    assert_eq!(timers.len(), 2, "the one that is due among them");
    assert_eq!(program.next(), None);
    assert_eq!(program.prepare(false), None);
    Ok(())
}

/// A host that runs callbacks and timers by itself, in the middle of a turn, has all of that turn and of the next.
#[test]
fn a_host_takes_what_is_queued_and_the_io_is_handled_behind_a_wait() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 4)?;
    program.call_at(0.0, 3);
    for label in [1, 2] {
        program.event_loop.call_soon(label);
    }
    let mut by_hand = Vec::new();
    let rest = program.turn_with(|program, seen| {
        if seen != Seen::Callback(1) {
            return;
        }
        program.event_loop.call_soon(5);
        program.network.feed(5, b"a");
        let (first, due, later) = program.event_loop.queued();
        assert_eq!((first.count(), due.count(), later.count()), (1, 1, 1));
        while let Some(event) = program.event_loop.pop_scheduled() {
            by_hand.push(Seen::from(event));
        }
        let mut swept = Vec::new();
        assert_eq!(program.event_loop.prepare_wait(|| 0.0, false, &mut swept), None);
        program.event_loop.wait(None).expect("there is something to read");
        program.event_loop.begin_io();
        while let Some(event) = program.event_loop.next_io() {
            by_hand.push(Seen::from(event));
        }
        program.event_loop.end_turn();
    })?;
    let expected = [
        Seen::Callback(2),
        Seen::Timer(3),
        Seen::Callback(5),
        Seen::Callback(4),
    ];
    assert_eq!(by_hand, expected);
    assert_eq!(rest, [Seen::Callback(1)]);
    Ok(())
}
