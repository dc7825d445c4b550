//! What a stream sends when: at once, at the end of the turn, or when there is room.

use std::io;

use hotloop::StreamKey;
use hotloop::transport::{Close, DEFAULT_HIGH, MAX_SLICES};

use crate::program::{Program, Seen};

/// More room than any test fills.
pub(crate) const PLENTY: usize = 1 << 30;

impl Program {
    /// Writes, and answers whether `pause_writing` is due.
    pub(crate) fn write(&mut self, key: StreamKey, bytes: &[u8]) -> io::Result<bool> {
        let written = self
            .event_loop
            .write(key, bytes, || bytes.to_vec(), &self.labels[&key])?;
        assert_eq!(written.queued, self.queued(key) > 0);
        Ok(written.pause)
    }

    /// Writes lines, and answers whether `pause_writing` is due.
    pub(crate) fn write_lines(&mut self, key: StreamKey, lines: &[impl AsRef<[u8]>]) -> io::Result<bool> {
        let lines = lines.iter().map(|line| line.as_ref().to_vec());
        let written = self.event_loop.write_lines(key, lines, &self.labels[&key])?;
        assert_eq!(written.queued, self.queued(key) > 0);
        Ok(written.pause)
    }

    /// How many bytes wait to be sent.
    pub(crate) fn queued(&mut self, key: StreamKey) -> usize {
        self.event_loop.stream(key).map_or(0, |state| state.queue.len())
    }

    /// What was sent on a descriptor since this was last asked, as text, and in how many calls.
    pub(crate) fn sent(&self, fd: i32) -> (String, usize) {
        let (bytes, calls) = self.network.take_sent(fd);
        (String::from_utf8_lossy(&bytes).into_owned(), calls)
    }
}

pub(crate) fn text(text: &str, calls: usize) -> (String, usize) {
    (text.to_owned(), calls)
}

/// What comes behind the writes of a turn and has them sent first.
pub(crate) const ENDS: [fn(&mut Program, StreamKey); 5] = [
    |program, key| program.event_loop.flush_now(key),
    |program, key| assert_eq!(program.event_loop.close(key), Close::LostSoon),
    |program, key| assert!(program.event_loop.abort(key)),
    |program, key| program.event_loop.release(key),
    |program, _| program.event_loop.end_turn(),
];

#[test]
fn the_first_write_of_a_turn_goes_at_once() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    for _ in 0..2 {
        program.in_a_turn(|program| {
            assert_eq!(program.write(key, b"one").ok(), Some(false));
            assert_eq!(program.sent(5), text("one", 1));
        })?;
        assert_eq!(program.sent(5), text("", 0));
    }
    Ok(())
}

#[test]
fn later_writes_of_a_turn_are_one_send_at_its_end() -> io::Result<()> {
    let mut program = Program::new();
    let (key, other) = (program.stream(5, PLENTY), program.stream(6, PLENTY));
    program.in_a_turn(|program| {
        for bytes in ["one ", "two ", "three ", "four"] {
            assert_eq!(program.write(key, bytes.as_bytes()).ok(), Some(false));
            assert_eq!(program.write(other, b".").ok(), Some(false));
        }
        assert_eq!(program.sent(5), text("one ", 1));
        assert_eq!(program.queued(key), 14);
    })?;
    assert_eq!(program.sent(5), text("two three four", 1));
    assert_eq!(program.sent(6), text("....", 2));
    assert_eq!(program.queued(key), 0);
    Ok(())
}

/// A program whose stream 5 is a TCP connection that has had so many turns with several writes.
fn with_a_habit(turns: usize) -> io::Result<(Program, StreamKey)> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.event_loop.note_tcp(key);
    for _ in 0..turns {
        program.in_a_turn(|program| {
            for bytes in ["header", "body"] {
                assert_eq!(program.write(key, bytes.as_bytes()).ok(), Some(false));
            }
        })?;
        assert_eq!(program.sent(5), text("headerbody", 2));
    }
    Ok((program, key))
}

#[test]
fn a_first_write_leaves_with_those_that_follow_where_they_have_so_far() -> io::Result<()> {
    for (turns, at_once) in [(0, "header"), (1, "header"), (2, ""), (3, "")] {
        let (mut program, key) = with_a_habit(turns)?;
        program.in_a_turn(|program| {
            assert!(program.write(key, b"header").is_ok());
            assert_eq!(program.sent(5), text(at_once, 1), "the kernel has it");
            assert_eq!(program.queued(key), 0);
            assert!(program.write(key, b"body").is_ok());
            assert_eq!(program.queued(key), 4);
        })?;
        let rest = if at_once.is_empty() { "headerbody" } else { "body" };
        assert_eq!(program.sent(5), text(rest, 1));
    }
    Ok(())
}

#[test]
fn a_write_that_nothing_follows_leaves_when_the_turn_ends() -> io::Result<()> {
    let (mut program, key) = with_a_habit(2)?;
    program.in_a_turn(|program| {
        assert!(program.write(key, b"alone").is_ok());
        assert_eq!(program.sent(5), text("", 1));
    })?;
    assert_eq!(program.sent(5), text("alone", 0));
    // From then on nothing is expected of it.
    program.in_a_turn(|program| {
        assert!(program.write(key, b"at once").is_ok());
        assert_eq!(program.sent(5), text("at once", 1));
    })?;
    Ok(())
}

#[test]
fn whatever_ends_a_stream_has_it_leave() -> io::Result<()> {
    for act in ENDS {
        let (mut program, key) = with_a_habit(2)?;
        program.begin();
        program.write(key, b"last")?;
        assert_eq!(program.sent(5), text("", 1));
        act(&mut program, key);
        assert_eq!(program.sent(5), text("last", 0));
    }
    Ok(())
}

#[test]
fn outside_a_turn_nothing_is_expected_to_follow() -> io::Result<()> {
    let (mut program, key) = with_a_habit(2)?;
    program.write(key, b"at once")?;
    assert_eq!(program.sent(5), text("at once", 1));
    Ok(())
}

#[test]
fn what_has_no_room_follows_in_its_place() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 22);
    program.event_loop.note_tcp(key);
    for _ in 0..2 {
        program.in_a_turn(|program| {
            assert!(program.write(key, b"header").is_ok());
            assert!(program.write(key, b"body").is_ok());
        })?;
    }
    assert_eq!(program.sent(5).0, "headerbodyheaderbody");
    program.in_a_turn(|program| {
        assert_eq!(program.write(key, b"header").ok(), Some(false));
        assert_eq!(program.write(key, b"body").ok(), Some(false));
    })?;
    assert_eq!(program.sent(5).0, "he");
    program.network.make_room(5, PLENTY);
    assert_eq!(program.turn()?, [Seen::Sent(5)]);
    assert_eq!(program.sent(5).0, "aderbody");
    Ok(())
}

#[test]
fn writes_outside_a_turn_go_at_once() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    for bytes in ["one", "two", "three"] {
        program.write(key, bytes.as_bytes())?;
        assert_eq!(program.sent(5), text(bytes, 1));
    }
    Ok(())
}

#[test]
fn what_was_gathered_goes_before_the_wait() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.event_loop.call_soon(1);
    let timeout = program.prepare(false);
    program.event_loop.wait(timeout)?;
    program.begin();
    program.write(key, b"one")?;
    program.write(key, b"two")?;
    assert_eq!(program.sent(5), text("one", 1));
    // Even if the host stops in the middle of the turn.
    program.prepare(true);
    assert_eq!(program.sent(5), text("two", 1));
    Ok(())
}

#[test]
fn much_that_is_gathered_does_not_wait_for_the_end() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    let large = vec![b'.'; DEFAULT_HIGH];
    program.in_a_turn(|program| {
        assert!(program.write(key, b"first").is_ok());
        assert_eq!(program.write(key, &large[1..]).ok(), Some(false));
        assert_eq!(program.sent(5).1, 1, "not yet");
        assert_eq!(
            program.write(key, b".").ok(),
            Some(false),
            "the kernel took it: no reason to pause"
        );
        assert_eq!(program.sent(5), (String::from_utf8_lossy(&large).into_owned(), 1));
    })?;
    assert_eq!(program.sent(5), text("", 0));
    Ok(())
}

#[test]
fn a_low_high_water_mark_is_kept_to_by_sending() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    if let Some(state) = program.event_loop.stream(key) {
        assert!(state.flow.set_limits(Some(0), None).is_ok());
    }
    program.in_a_turn(|program| {
        for _ in 0..3 {
            assert_eq!(program.write(key, b"x").ok(), Some(false));
        }
        assert_eq!(
            program.sent(5),
            text("xxx", 3),
            "asyncio would not pause here either"
        );
    })?;
    Ok(())
}

#[test]
fn more_buffers_than_one_call_takes_arrive_in_order() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    let pieces: Vec<Vec<u8>> = (0..1000).map(|index| format!("{index},").into_bytes()).collect();
    program.in_a_turn(|program| {
        for piece in &pieces {
            assert!(program.write(key, piece).is_ok());
        }
    })?;
    let (sent, calls) = program.network.take_sent(5);
    assert_eq!(sent, pieces.concat());
    assert_eq!(calls, 1 + 999usize.div_ceil(MAX_SLICES));
    Ok(())
}

#[test]
fn lines_go_as_one_write_does() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.in_a_turn(|program| {
        assert_eq!(program.write_lines(key, &["one ", "", "two "]).ok(), Some(false));
        assert_eq!(
            program.sent(5),
            text("one two ", 1),
            "the first of a turn at once"
        );
        assert_eq!(program.write_lines(key, &["three ", "four "]).ok(), Some(false));
        assert_eq!(program.write(key, b"five").ok(), Some(false));
        assert_eq!(program.queued(key), 15);
    })?;
    assert_eq!(program.sent(5), text("three four five", 1));
    program.write_lines(key, &["outside ", "a turn"])?;
    assert_eq!(program.sent(5), text("outside a turn", 1));
    Ok(())
}

#[test]
fn lines_are_a_write_that_follows_the_first_one() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.event_loop.note_tcp(key);
    for _ in 0..2 {
        program.in_a_turn(|program| {
            assert!(program.write(key, b"header").is_ok());
            assert!(program.write_lines(key, &["bo", "dy"]).is_ok());
        })?;
    }
    assert_eq!(program.sent(5).0, "headerbodyheaderbody");
    program.in_a_turn(|program| {
        assert!(program.write(key, b"header").is_ok());
        assert_eq!(program.sent(5), text("", 1), "it waits for the body");
        assert!(program.write_lines(key, &["bo", "dy"]).is_ok());
    })?;
    assert_eq!(program.sent(5).0, "headerbody");
    Ok(())
}

#[test]
fn lines_without_room_wait_in_their_places() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 6);
    if let Some(state) = program.event_loop.stream(key) {
        assert!(state.flow.set_limits(Some(8), Some(2)).is_ok());
    }
    assert!(!program.write_lines(key, &["1234", "5678"])?);
    assert_eq!(program.sent(5), text("123456", 1));
    assert!(program.write_lines(key, &["abcd", "efgh"])?, "the pause is due");
    assert_eq!(program.sent(5), text("", 0), "nothing overtakes what waits");
    program.network.make_room(5, PLENTY);
    assert_eq!(program.turn()?, [Seen::Sent(5)]);
    assert_eq!(program.sent(5), text("78abcdefgh", 1));
    Ok(())
}

#[test]
fn lines_that_fail_are_an_error_of_their_write() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.network.break_sends(5, io::ErrorKind::BrokenPipe);
    let written = program
        .write_lines(key, &["a", "b"])
        .map_err(|error| error.kind());
    assert_eq!(written, Err(io::ErrorKind::BrokenPipe));
    assert!(program.event_loop.abort(key));
    assert_eq!(program.in_a_turn(|_| {})?, [], "told once");
    Ok(())
}

#[test]
fn an_empty_write_queues_nothing() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 0);
    program.in_a_turn(|program| {
        assert_eq!(program.write(key, b"").ok(), Some(false));
        assert_eq!(program.write(key, b"").ok(), Some(false));
        assert_eq!(program.queued(key), 0);
    })?;
    assert_eq!(program.queued(key), 0);
    assert_eq!(program.prepare(false), None);
    Ok(())
}

#[test]
fn what_the_kernel_does_not_take_follows_when_it_has_room() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 4);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"abcdef").is_ok());
        assert_eq!(program.sent(5), text("abcd", 1));
        assert!(program.write(key, b"ghi").is_ok());
    })?;
    assert_eq!(program.sent(5), text("", 0), "no call while there is no room");
    for room in [3, 1, 10] {
        program.network.make_room(5, room);
        assert_eq!(program.turn()?, [Seen::Sent(5)]);
    }
    assert_eq!(program.sent(5).0, "efghi");
    assert_eq!(program.queued(key), 0);
    // Sent to the last byte: nobody waits for room any more, and the next write goes at once.
    assert_eq!(program.in_a_turn(|_| {})?, []);
    program.write(key, b"j")?;
    assert_eq!(program.sent(5), text("j", 1));
    Ok(())
}

#[test]
fn a_protocol_is_paused_once_and_resumed_once() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 0);
    if let Some(state) = program.event_loop.stream(key) {
        assert!(state.flow.set_limits(Some(10), Some(4)).is_ok());
    }
    assert!(!program.write(key, &[b'.'; 10])?, "at the mark, not above it");
    assert!(program.write(key, b".")?);
    assert!(!program.write(key, b".")?, "it is paused already");
    let mut resumed = Vec::new();
    for _ in 0..12 {
        program.network.make_room(5, 1);
        assert_eq!(program.turn()?, [Seen::Sent(5)]);
        let queued = program.queued(key);
        if program
            .event_loop
            .stream(key)
            .is_some_and(|state| state.flow.resume_at(queued))
        {
            resumed.push(queued);
        }
    }
    assert_eq!(resumed, [4]);
    Ok(())
}

#[test]
fn a_paused_protocol_hears_when_all_is_sent() -> io::Result<()> {
    // Room comes before the turn ends, in which the writes were gathered first and then too many.
    let mut program = Program::new();
    let key = program.stream(5, 1);
    if let Some(state) = program.event_loop.stream(key) {
        assert!(state.flow.set_limits(Some(10), Some(4)).is_ok());
    }
    program.in_a_turn(|program| {
        assert_eq!(program.write(key, b"a").ok(), Some(false));
        assert_eq!(program.write(key, b"b").ok(), Some(false), "gathered");
        assert_eq!(
            program.write(key, &[b'.'; 10]).ok(),
            Some(true),
            "refused by the kernel"
        );
        program.network.make_room(5, PLENTY);
    })?;
    assert_eq!(
        program.turn()?,
        [Seen::Sent(5)],
        "or the protocol stays paused for ever"
    );
    assert_eq!(program.queued(key), 0);
    Ok(())
}

#[test]
fn an_end_of_writing_hears_when_all_is_sent() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 1);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"a").is_ok());
        assert!(program.write(key, b"b").is_ok());
        assert!(program.write(key, &vec![b'.'; DEFAULT_HIGH]).is_ok());
        program.network.make_room(5, PLENTY);
        assert!(program.event_loop.write_eof(key).is_ok());
    })?;
    // Whether it was shut down at once or is to be after the last byte: one of the two has to happen.
    let seen = program.in_a_turn(|_| {})?;
    assert!(
        program.network.has_ended(5) || seen == [Seen::Sent(5)],
        "{seen:?}"
    );
    Ok(())
}

#[test]
fn a_first_write_that_fails_is_an_error_of_the_write() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.network.break_sends(5, io::ErrorKind::BrokenPipe);
    let written = program.write(key, b"a").map_err(|error| error.kind());
    assert_eq!(written, Err(io::ErrorKind::BrokenPipe));
    Ok(())
}

#[test]
fn a_gathered_write_that_fails_is_told_in_the_next_turn() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    let seen = program.in_a_turn(|program| {
        assert!(program.write(key, b"a").is_ok());
        assert!(program.write(key, b"b").is_ok());
        program.network.break_sends(5, io::ErrorKind::ConnectionReset);
    })?;
    assert_eq!(seen, []);
    let broken = Seen::Broken(5, io::ErrorKind::ConnectionReset);
    assert_eq!(program.turn()?, [broken], "without a wait for something else");
    assert!(program.event_loop.abort(key));
    assert_eq!(program.in_a_turn(|_| {})?, [], "told once");
    Ok(())
}

#[test]
fn a_close_whose_last_bytes_fail_is_told() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    let seen = program.in_a_turn(|program| {
        assert!(program.write(key, b"a").is_ok());
        assert!(program.write(key, b"b").is_ok());
        program.network.break_sends(5, io::ErrorKind::ConnectionReset);
        assert_eq!(program.event_loop.close(key), Close::AfterFlush);
    })?;
    let broken = Seen::Broken(5, io::ErrorKind::ConnectionReset);
    assert_eq!(seen, [broken], "or nobody would end it");
    Ok(())
}

#[test]
fn a_queued_write_that_fails_is_told_when_it_does() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 0);
    program.write(key, b"a")?;
    program.network.break_sends(5, io::ErrorKind::ConnectionReset);
    assert_eq!(program.turn()?, [Seen::Broken(5, io::ErrorKind::ConnectionReset)]);
    assert!(program.event_loop.abort(key));
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}

#[test]
fn a_stream_that_was_aborted_does_not_break_too() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    let seen = program.in_a_turn(|program| {
        assert!(program.write(key, b"a").is_ok());
        assert!(program.write(key, b"b").is_ok());
        program.network.break_sends(5, io::ErrorKind::ConnectionReset);
        assert!(program.event_loop.abort(key));
    })?;
    assert_eq!(seen, [], "the abort was the first reason for its end");
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}
