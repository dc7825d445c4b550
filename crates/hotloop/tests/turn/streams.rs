//! Stream transports in a turn: what is sent when, and how a stream ends.

use std::io;
use std::mem::MaybeUninit;

use hotloop::StreamKey;
use hotloop::driver::Direction;
use hotloop::transport::{Close, DEFAULT_HIGH, MAX_SLICES};

use crate::program::{Program, Seen, callbacks};

/// More room than any test fills.
const PLENTY: usize = 1 << 30;

impl Program {
    /// Writes, and answers whether `pause_writing` is due.
    pub(crate) fn write(&mut self, key: StreamKey, bytes: &[u8]) -> io::Result<bool> {
        let written = self
            .event_loop
            .write(key, bytes, || bytes.to_vec(), &self.labels[&key])?;
        Ok(written.pause)
    }

    /// How many bytes wait to be sent.
    pub(crate) fn queued(&mut self, key: StreamKey) -> usize {
        self.event_loop.stream(key).map_or(0, |state| state.queue.len())
    }

    /// What was sent on a descriptor since this was last asked, as text, and in how many calls.
    fn sent(&self, fd: i32) -> (String, usize) {
        let (bytes, calls) = self.network.take_sent(fd);
        (String::from_utf8_lossy(&bytes).into_owned(), calls)
    }
}

fn text(text: &str, calls: usize) -> (String, usize) {
    (text.to_owned(), calls)
}

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

#[test]
fn a_close_with_nothing_queued_ends_soon() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.start_reading(key)?;
    program.network.feed(5, b"too late");
    assert_eq!(program.event_loop.close(key), Close::LostSoon);
    assert_eq!(program.event_loop.close(key), Close::Already);
    assert_eq!(program.in_a_turn(|_| {})?, [], "a closed stream does not read");
    assert!(!program.event_loop.abort(key), "it is lost already");
    Ok(())
}

#[test]
fn a_close_sends_what_was_gathered() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"one").is_ok());
        assert!(program.write(key, b"two").is_ok());
        assert_eq!(program.event_loop.close(key), Close::LostSoon);
        assert_eq!(program.sent(5), text("onetwo", 2));
    })?;
    assert_eq!(program.sent(5), text("", 0));
    Ok(())
}

#[test]
fn a_close_waits_for_the_last_byte() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 2);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"abcd").is_ok());
        assert!(program.write(key, b"ef").is_ok());
        assert_eq!(program.event_loop.close(key), Close::AfterFlush);
    })?;
    let mut finished = Vec::new();
    for _ in 0..4 {
        program.network.make_room(5, 1);
        assert_eq!(program.turn()?, [Seen::Sent(5)]);
        finished.extend(program.event_loop.stream(key).map(|state| state.finish_close()));
    }
    assert_eq!(finished, [false, false, false, true]);
    assert_eq!(program.sent(5).0, "abcdef");
    program.event_loop.release(key);
    assert!(program.event_loop.stream(key).is_none());
    Ok(())
}

#[test]
fn an_abort_drops_what_is_queued() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 2);
    program.write(key, b"abcd")?;
    program.write(key, b"ef")?;
    assert!(program.event_loop.abort(key));
    assert!(!program.event_loop.abort(key));
    assert_eq!(program.queued(key), 0);
    program.network.make_room(5, PLENTY);
    assert_eq!(program.in_a_turn(|_| {})?, []);
    assert_eq!(program.sent(5).0, "ab");
    Ok(())
}

#[test]
fn an_abort_overtakes_a_close() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 2);
    program.write(key, b"abcd")?;
    assert_eq!(program.event_loop.close(key), Close::AfterFlush);
    assert!(program.event_loop.abort(key));
    program.network.make_room(5, PLENTY);
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}

#[test]
fn the_end_follows_the_last_byte() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 2);
    program.write(key, b"abc")?;
    program.event_loop.write_eof(key)?;
    assert!(!program.network.has_ended(5), "a byte waits");
    program.network.make_room(5, 10);
    assert_eq!(program.turn()?, [Seen::Sent(5)]);
    let state = program.event_loop.stream(key);
    assert!(state.is_some_and(|state| state.is_eof_written() && state.queue.is_empty()));
    program.event_loop.shutdown_write(key)?;
    assert!(program.network.has_ended(5));
    assert_eq!(program.sent(5).0, "abc");
    Ok(())
}

#[test]
fn an_end_in_a_turn_comes_behind_what_was_gathered() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"one").is_ok());
        assert!(program.write(key, b"two").is_ok());
        assert!(program.event_loop.write_eof(key).is_ok());
        assert!(program.network.has_ended(5));
        assert_eq!(program.sent(5), text("onetwo", 2));
        assert!(program.event_loop.write_eof(key).is_ok(), "twice is no error");
    })?;
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}

#[test]
fn received_bytes_are_taken_when_their_event_is() -> io::Result<()> {
    let mut program = Program::new();
    let keys = [program.stream(5, 0), program.stream(6, 0)];
    for (fd, key) in (5..).zip(keys) {
        program.start_reading(key)?;
        program.network.feed(fd, b"abc");
    }
    let mut buffer = [MaybeUninit::uninit(); 8];
    let seen = program.turn_with(|program, seen| {
        // What comes in during the turn is part of what the second stream takes.
        let (key, size) = match seen {
            Seen::Readable(5) => (keys[0], 3),
            _ => (keys[1], 8),
        };
        program.network.feed(6, b"defgh");
        let mut received = 0;
        while let Ok(count @ 1..) = program.event_loop.receive(key, &mut buffer[received..]) {
            received += count;
        }
        assert_eq!(received, size);
    })?;
    assert_eq!(seen, [Seen::Readable(5), Seen::Readable(6)]);
    Ok(())
}

#[test]
fn a_paused_stream_is_not_told_of_bytes() -> io::Result<()> {
    let mut program = Program::new();
    let keys = [program.stream(5, 0), program.stream(6, 0)];
    for (fd, key) in (5..).zip(keys) {
        program.start_reading(key)?;
        program.start_reading(key)?;
        program.network.feed(fd, b"abc");
    }
    // Paused by the other one's event, in the same turn.
    let seen = program.turn_with(|program, _| {
        assert_eq!(program.event_loop.stop_reading(keys[1]), Some(6));
    })?;
    assert_eq!(seen, [Seen::Readable(5)]);
    assert_eq!(program.turn()?, [Seen::Readable(5)]);
    program.start_reading(keys[1])?;
    assert_eq!(program.turn()?, [Seen::Readable(5), Seen::Readable(6)]);
    Ok(())
}

#[test]
fn an_end_and_an_error_of_receiving_are_told() -> io::Result<()> {
    let mut program = Program::new();
    let keys = [program.stream(5, 0), program.stream(6, 0)];
    for key in keys {
        program.start_reading(key)?;
    }
    program.network.feed_end(5);
    program.network.feed_error(6, io::ErrorKind::ConnectionReset);
    assert_eq!(program.turn()?, [Seen::Readable(5), Seen::Readable(6)]);
    let mut buffer = [MaybeUninit::uninit(); 8];
    assert_eq!(program.event_loop.receive(keys[0], &mut buffer)?, 0);
    let failed = program.event_loop.receive(keys[1], &mut buffer).err();
    assert_eq!(
        failed.map(|error| error.kind()),
        Some(io::ErrorKind::ConnectionReset)
    );
    Ok(())
}

#[test]
fn a_released_stream_is_never_heard_of_again() -> io::Result<()> {
    let mut program = Program::new();
    let keys = [program.stream(5, PLENTY), program.stream(6, 0)];
    for (fd, key) in (5..).zip(keys) {
        program.start_reading(key)?;
        program.network.feed(fd, b"abc");
    }
    let mut heir = None;
    let seen = program.turn_with(|program, seen| {
        if seen == Seen::Readable(5) {
            // Its event of this turn is found, its gathered bytes and its failure are on lists; its key goes to
            // another stream at once.
            for bytes in [b"a", b"b"] {
                assert!(program.write(keys[0], bytes).is_ok());
            }
            program.network.break_sends(5, io::ErrorKind::ConnectionReset);
            program.event_loop.flush_now(keys[0]);
            program.event_loop.release(keys[1]);
            program.event_loop.release(keys[0]);
            program.event_loop.release(keys[0]);
            assert!(keys.iter().all(|&key| program.event_loop.stream(key).is_none()));
            heir = Some([program.stream(7, PLENTY), program.stream(8, PLENTY)]);
        }
    })?;
    assert_eq!(seen, [Seen::Readable(5)]);
    let heir = heir.unwrap_or(keys);
    assert!(
        heir.iter().all(|key| keys.contains(key)),
        "the keys are used again"
    );
    assert_eq!(program.in_a_turn(|_| {})?, []);
    for key in heir {
        program.start_reading(key)?;
        program.write(key, b"x")?;
    }
    program.network.feed(8, b"a");
    assert_eq!(program.turn()?, [Seen::Readable(8)]);
    Ok(())
}

#[test]
fn a_stream_that_is_gone_is_not_found() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, PLENTY);
    program.event_loop.release(key);
    let mut buffer = [MaybeUninit::uninit(); 8];
    let (written, received) = (
        program.write(key, b"a"),
        program.event_loop.receive(key, &mut buffer),
    );
    assert_eq!(
        written.map_err(|error| error.kind()),
        Err(io::ErrorKind::NotFound)
    );
    assert_eq!(
        received.map_err(|error| error.kind()),
        Err(io::ErrorKind::NotFound)
    );
    program.start_reading(key)?;
    program.event_loop.write_eof(key)?;
    program.event_loop.flush(key, &5)?;
    program.event_loop.flush_now(key);
    assert_eq!(program.event_loop.close(key), Close::Already);
    assert!(!program.event_loop.abort(key));
    assert!(program.event_loop.stream(key).is_none());
    assert_eq!(program.event_loop.streaming().count(), 0);
    Ok(())
}

#[test]
fn a_stream_and_its_reader_share_one_descriptor() -> io::Result<()> {
    // A number left behind with a watcher (closed without `remove_reader`) comes back as a connection.
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Write, 1)?;
    let key = program.stream(5, PLENTY);
    program.start_reading(key)?;
    program.network.feed(5, b"a");
    assert_eq!(program.turn()?, [Seen::Readable(5), callbacks([1])[0]]);
    Ok(())
}
