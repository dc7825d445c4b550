//! `add_reader`, `add_writer` and listeners in a turn.

use std::io;

use hotloop::driver::Direction::{Read, Write};

use crate::program::{Program, Seen, callbacks};

/// A program with three readable descriptors, watched by handles of their numbers.
fn three_readable() -> io::Result<Program> {
    let mut program = Program::new();
    for fd in 1..=3 {
        program.network.open(fd, 0);
        program.network.feed(fd, b"a");
        program.event_loop.watch(fd, Read, fd.cast_unsigned())?;
    }
    Ok(program)
}

#[test]
fn a_watcher_is_called_in_each_turn_in_which_it_is_ready() -> io::Result<()> {
    let mut program = three_readable()?;
    assert_eq!(program.turn()?, callbacks([1, 2, 3]));
    assert_eq!(program.turn()?, callbacks([1, 2, 3]));
    Ok(())
}

#[test]
fn a_watcher_removed_earlier_in_the_turn_is_not_called() -> io::Result<()> {
    let mut program = three_readable()?;
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Callback(1) {
            assert_eq!(program.event_loop.unwatch(2, Read), Some(2));
            assert_eq!(program.event_loop.unwatch(2, Read), None);
        }
    })?;
    assert_eq!(seen, callbacks([1, 3]));
    assert_eq!(program.turn()?, callbacks([1, 3]));
    Ok(())
}

#[test]
fn a_watcher_replaced_in_the_turn_waits_for_the_next() -> io::Result<()> {
    let mut program = three_readable()?;
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Callback(1) {
            assert_eq!(program.event_loop.watch(2, Read, 20).ok(), Some(Some(2)));
        }
    })?;
    assert_eq!(seen, callbacks([1, 3]), "neither the old nor the new");
    assert_eq!(program.turn()?, callbacks([1, 20, 3]));
    Ok(())
}

#[test]
fn a_watcher_begun_in_the_turn_waits_for_the_next() -> io::Result<()> {
    let mut program = three_readable()?;
    program.network.make_room(2, 1);
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Callback(1) {
            program.event_loop.unwatch(3, Read);
            // These take the key that was just given back, if it is free.
            assert!(program.event_loop.watch(3, Read, 30).is_ok());
            assert!(program.event_loop.watch(2, Write, 22).is_ok());
        }
    })?;
    assert_eq!(seen, callbacks([1, 2]));
    assert_eq!(program.turn()?, callbacks([1, 2, 22, 30]));
    Ok(())
}

#[test]
fn keys_of_ended_operations_lead_nobody_astray() -> io::Result<()> {
    let mut program = three_readable()?;
    for round in 0..50 {
        let seen = program.turn_with(|program, seen| {
            if let Seen::Callback(label) = seen {
                let fd = (label % 10).cast_signed();
                program.event_loop.unwatch(fd, Read);
                assert!(program.event_loop.watch(fd, Read, label + 10).is_ok());
            }
        })?;
        let expected = (1..=3).map(|fd| fd + 10 * round);
        assert_eq!(seen, callbacks(expected));
    }
    assert_eq!(program.event_loop.watching().count(), 3);
    Ok(())
}

#[test]
fn both_directions_have_watchers_of_their_own() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(1, 1);
    assert_eq!(program.event_loop.watch(1, Write, 2)?, None);
    assert_eq!(program.event_loop.watch(1, Read, 1)?, None);
    program.network.feed(1, b"a");
    assert_eq!(program.turn()?, callbacks([1, 2]), "the reader first");
    assert_eq!(program.event_loop.watcher(1, Read), Some(&1));
    assert_eq!(program.event_loop.watcher(1, Write), Some(&2));
    assert_eq!(program.event_loop.unwatch(1, Read), Some(1));
    assert_eq!(program.event_loop.watcher(1, Read), None);
    assert_eq!(program.turn()?, callbacks([2]));
    Ok(())
}

#[test]
fn a_refused_descriptor_is_not_watched() -> io::Result<()> {
    let mut program = Program::new();
    for fd in [-1, 7, i32::MAX] {
        let refused = program.event_loop.watch(fd, Read, 1).err();
        assert_eq!(
            refused.and_then(|error| error.raw_os_error()),
            Some(libc::EBADF),
            "{fd}"
        );
        assert_eq!(program.event_loop.watcher(fd, Read), None);
        assert_eq!(program.event_loop.unwatch(fd, Read), None);
    }
    assert_eq!(program.event_loop.watching().count(), 0);
    let back = [Seen::Replaced(1); 3];
    assert_eq!(
        program.turn()?,
        back,
        "handed back, since the engine drops nothing of the host's"
    );
    assert_eq!(program.prepare(false), None);
    Ok(())
}

#[test]
fn a_listener_is_told_of_connections_until_it_is_unwatched() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(4, 0);
    assert_eq!(program.event_loop.listen(4, 44)?, None);
    program.network.feed(4, b"a connection");
    program.event_loop.call_soon(1);
    assert_eq!(program.turn()?, [Seen::Callback(1), Seen::Accept(44)]);
    assert_eq!(program.event_loop.watcher(4, Read), Some(&44));
    assert_eq!(
        program.event_loop.listen(4, 45)?,
        Some(44),
        "one replaces the other"
    );
    assert_eq!(program.turn()?, [Seen::Accept(45)]);
    assert_eq!(program.event_loop.unwatch(4, Read), Some(45));
    assert_eq!(program.event_loop.unwatch(4, Read), None);
    program.event_loop.call_soon(1);
    assert_eq!(program.turn()?, callbacks([1]));
    Ok(())
}

#[test]
fn a_reader_takes_the_place_of_a_listener() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(4, 0);
    program.network.feed(4, b"a connection");
    program.event_loop.listen(4, 44)?;
    assert_eq!(program.event_loop.watch(4, Read, 5)?, Some(44));
    assert_eq!(program.turn()?, callbacks([5]));
    assert_eq!(program.event_loop.listen(4, 44)?, Some(5));
    assert_eq!(program.turn()?, [Seen::Accept(44)]);
    Ok(())
}
