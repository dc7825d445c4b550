//! Small writes under a driver that sends them with its wait.

use std::io::{self, ErrorKind};
use std::time::Duration;

use hotloop::StreamKey;
use hotloop::driver::sim::Call;
use hotloop::transport::Close;

use crate::program::{Program, Seen};
use crate::sends::{ENDS, PLENTY, text};

const FD: i32 = 5;

/// A program in the middle of a turn, with a stream that has room for so many bytes.
fn in_a_turn(room: usize) -> (Program, StreamKey) {
    let mut program = Program::posting(true);
    let key = program.stream(FD, room);
    program.begin();
    (program, key)
}

/// The turn ends, and another one begins. Answers what that one finds.
fn next_turn(program: &mut Program) -> io::Result<Vec<Seen>> {
    program.prepare(true);
    program.event_loop.wait(Some(Duration::ZERO))?;
    program.begin();
    Ok(std::iter::from_fn(|| program.next()).collect())
}

#[test]
fn small_writes_of_a_turn_are_one_send_of_the_wait() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    for _ in 0..2 {
        for bytes in ["one ", "two ", "three"] {
            assert!(!program.write(key, bytes.as_bytes())?);
        }
        program.prepare(true);
        assert_eq!(program.sent(FD), text("", 0), "the wait sends");
        assert_eq!(program.queued(key), 0);
        program.event_loop.wait(Some(Duration::ZERO))?;
        assert_eq!(program.sent(FD), text("one two three", 1));
        program.begin();
        assert_eq!(program.next(), None);
        assert_eq!(program.event_loop.take_discarded(), [FD.cast_unsigned()]);
    }
    Ok(())
}

#[test]
fn what_has_no_room_waits_for_it_before_what_is_written_later() -> io::Result<()> {
    let (mut program, key) = in_a_turn(4);
    program.write(key, b"one two ")?;
    assert_eq!(next_turn(&mut program)?, []);
    assert_eq!(program.sent(FD), text("one ", 1));
    assert_eq!(program.queued(key), 4);
    program.write(key, b"three")?;
    assert_eq!(program.queued(key), 9);
    program.network.make_room(FD, PLENTY);
    assert_eq!(next_turn(&mut program)?, [Seen::Sent(FD.cast_unsigned())]);
    assert_eq!(program.sent(FD).0, "two three");
    Ok(())
}

#[test]
fn a_large_write_goes_behind_the_small_ones_before_it() -> io::Result<()> {
    for room in [PLENTY, 100, 2] {
        let (mut program, key) = in_a_turn(room);
        let large = vec![b'.'; 100_000];
        program.write(key, b"small")?;
        program.write(key, &large)?;
        program.write(key, b"again")?;
        program.network.make_room(FD, PLENTY);
        next_turn(&mut program)?;
        next_turn(&mut program)?;
        let (sent, _) = program.sent(FD);
        assert!(sent.starts_with("small.") && sent.ends_with(".again"));
        assert_eq!(sent.len(), 10 + large.len());
    }
    Ok(())
}

#[test]
fn lines_go_behind_the_small_writes_before_them() -> io::Result<()> {
    for room in [PLENTY, 9, 2] {
        let (mut program, key) = in_a_turn(room);
        program.write(key, b"small ")?;
        program.write_lines(key, &["one ", "two "])?;
        program.write(key, b"again")?;
        program.network.make_room(FD, PLENTY);
        next_turn(&mut program)?;
        next_turn(&mut program)?;
        assert_eq!(program.sent(FD).0, "small one two again");
    }
    Ok(())
}

#[test]
fn no_more_is_posted_than_may_wait_without_a_pause() -> io::Result<()> {
    let (mut program, key) = in_a_turn(0);
    if let Some(state) = program.event_loop.stream(key) {
        assert!(state.flow.set_limits(Some(6), Some(1)).is_ok());
    }
    assert!(!program.write(key, b"123")?);
    assert!(!program.write(key, b"456")?);
    assert!(program.write(key, b"7")?, "seven bytes wait");
    assert_eq!(program.queued(key), 7);
    Ok(())
}

#[test]
fn whatever_comes_behind_a_post_has_it_sent_first() -> io::Result<()> {
    for act in ENDS {
        let (mut program, key) = in_a_turn(PLENTY);
        program.write(key, b"posted")?;
        act(&mut program, key);
        assert_eq!(program.sent(FD), text("posted", 1));
        assert_eq!(next_turn(&mut program)?, []);
        assert_eq!(program.sent(FD), text("", 0));
    }
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"posted")?;
    program.event_loop.write_eof(key)?;
    assert_eq!(program.sent(FD), text("posted", 1));
    assert!(program.network.has_ended(FD));
    Ok(())
}

#[test]
fn an_end_of_writing_waits_for_a_post_without_room() -> io::Result<()> {
    let (mut program, key) = in_a_turn(2);
    program.write(key, b"last")?;
    program.event_loop.write_eof(key)?;
    assert!(!program.network.has_ended(FD));
    assert_eq!(program.event_loop.close(key), Close::AfterFlush);
    program.network.make_room(FD, PLENTY);
    assert_eq!(next_turn(&mut program)?, [Seen::Sent(FD.cast_unsigned())]);
    assert_eq!(program.sent(FD).0, "last");
    Ok(())
}

#[test]
fn outside_a_turn_nothing_is_posted() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"posted ")?;
    program.event_loop.end_turn();
    program.write(key, b"at once")?;
    assert_eq!(program.sent(FD), text("posted at once", 2));
    Ok(())
}

#[test]
fn an_error_of_a_post_is_told_in_the_next_turn() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"lost")?;
    program.network.break_sends(FD, ErrorKind::BrokenPipe);
    let broken = Seen::Broken(FD.cast_unsigned(), ErrorKind::BrokenPipe);
    assert_eq!(next_turn(&mut program)?, [broken]);
    program.event_loop.abort(key);
    assert_eq!(next_turn(&mut program)?, []);
    Ok(())
}

#[test]
fn a_write_to_what_is_no_connection_tells_its_error_itself() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.event_loop.note_unconnected(key);
    program.network.break_sends(FD, ErrorKind::BrokenPipe);
    let refused = program.write(key, b"lost").err();
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::BrokenPipe));
    program.event_loop.abort(key);
    assert_eq!(next_turn(&mut program)?, []);
    Ok(())
}

#[test]
fn an_error_of_a_post_is_told_by_the_write_that_finds_it() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"lost")?;
    // Once only: what is written then must not be sent without what was lost.
    program
        .network
        .fail_next(FD, Call::Send, ErrorKind::ConnectionReset);
    let refused = program.write(key, &[b'.'; 20_000]).err();
    assert_eq!(
        refused.map(|error| error.kind()),
        Some(ErrorKind::ConnectionReset)
    );
    program.event_loop.abort(key);
    assert_eq!(next_turn(&mut program)?, []);
    assert_eq!(program.sent(FD), text("", 0));
    Ok(())
}

#[test]
fn nothing_that_was_posted_reaches_another_of_the_same_number() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"for the old one")?;
    // Closed behind the loop's back, and opened anew.
    let other = program.stream(FD, PLENTY);
    program.write(other, b"for the new one")?;
    assert_eq!(next_turn(&mut program)?, []);
    assert_eq!(program.sent(FD), text("for the new one", 1));
    assert!(program.write(key, b"x").is_err());
    Ok(())
}

#[test]
fn a_closed_loop_gives_back_whom_it_would_have_sent_for() -> io::Result<()> {
    let (mut program, key) = in_a_turn(PLENTY);
    program.write(key, b"posted")?;
    assert_eq!(
        program.event_loop.streaming().collect::<Vec<_>>(),
        [&FD.cast_unsigned()]
    );
    let (handles, streams) = program.event_loop.take_io();
    assert_eq!((handles, streams), (vec![], vec![FD.cast_unsigned()]));
    Ok(())
}
