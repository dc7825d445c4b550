//! What a stream receives, and how it ends.

use std::io;
use std::mem::MaybeUninit;

use hotloop::StreamKey;
use hotloop::driver::Direction;
use hotloop::transport::Close;

use crate::program::{Program, Seen};
use crate::sends::{PLENTY, text};

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
fn a_stream_takes_the_place_of_a_watcher_in_its_direction() -> io::Result<()> {
    // A number left behind with watchers (closed without `remove_reader`) comes back as a connection.
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 1)?;
    program.event_loop.watch(5, Direction::Write, 2)?;
    let key = program.stream(5, PLENTY);
    program.start_reading(key)?;
    program.network.feed(5, b"a");
    let replaced = Seen::Replaced(1);
    assert_eq!(program.turn()?, [replaced, Seen::Readable(5), Seen::Callback(2)]);
    assert_eq!(program.event_loop.unwatch(5, Direction::Read), None);
    assert_eq!(program.turn()?, [Seen::Readable(5), Seen::Callback(2)]);
    Ok(())
}

#[test]
fn a_refused_watcher_is_handed_back_and_so_is_the_one_before_it() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(5, 0);
    program.event_loop.watch(5, Direction::Read, 1)?;
    program.network.close(5);
    assert!(program.event_loop.watch(5, Direction::Read, 2).is_err());
    assert_eq!(
        program.turn()?,
        [Seen::Replaced(1), Seen::Replaced(2)],
        "without a wait"
    );
    assert_eq!(program.event_loop.watching().count(), 0);
    Ok(())
}

#[test]
fn what_a_stream_has_queued_does_not_reach_the_next_one_of_its_number() -> io::Result<()> {
    let mut program = Program::new();
    let old = program.stream(5, 0);
    program.start_reading(old)?;
    program.write(old, b"secret")?;
    // Its descriptor is closed behind its back, and the number is that of another connection.
    program.network.close(5);
    let new = program.stream(5, PLENTY);
    program.start_reading(new)?;
    program.network.feed(5, b"a");
    assert_eq!(program.turn()?, [Seen::Readable(5)]);
    program.write(new, b"public")?;
    let written = program
        .write(old, b"more")
        .and_then(|_| program.event_loop.flush(old, &5));
    assert_eq!(
        written.err().and_then(|error| error.raw_os_error()),
        Some(libc::EBADF)
    );
    assert_eq!(program.sent(5), text("public", 1));
    // The end of the old one leaves the new one alone.
    program.event_loop.abort(old);
    program.event_loop.release(old);
    assert_eq!(program.turn()?, [Seen::Readable(5)]);
    Ok(())
}

#[test]
fn a_stream_is_kept_only_while_something_is_awaited_for_it() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(5, 1);
    let kept = |program: &Program| program.event_loop.streaming().count();
    assert_eq!(kept(&program), 0, "open, but nobody waits for anything");
    program.start_reading(key)?;
    assert_eq!(kept(&program), 1);
    program.write(key, b"abc")?;
    assert_eq!(kept(&program), 2, "bytes and room");
    assert_eq!(program.event_loop.stop_reading(key), Some(5));
    program.network.make_room(5, PLENTY);
    assert_eq!(program.turn()?, [Seen::Sent(5)]);
    assert_eq!(kept(&program), 0, "all is sent");
    assert_eq!(
        program.event_loop.take_discarded(),
        [5],
        "what was kept comes back"
    );
    Ok(())
}

#[test]
fn whatever_was_kept_of_a_stream_comes_back() -> io::Result<()> {
    // Each way to the end, with one object kept to receive, one to send, one for the end of the turn.
    for end in [Program::abort, Program::release, Program::take_all] {
        let mut program = Program::new();
        let (key, gathering) = (program.stream(5, 0), program.stream(6, PLENTY));
        program.start_reading(key)?;
        program.write(key, b"a")?;
        let mut back = 0;
        program.in_a_turn(|program| {
            assert!(program.write(gathering, b"a").is_ok());
            assert!(program.write(gathering, b"b").is_ok());
            assert_eq!(program.event_loop.streaming().count(), 3);
            back = end(program, key) + end(program, gathering);
        })?;
        assert_eq!(back, 3);
        assert_eq!(program.event_loop.streaming().count(), 0);
    }
    Ok(())
}

impl Program {
    /// How many objects come back when a stream is aborted.
    fn abort(&mut self, key: StreamKey) -> usize {
        self.event_loop.abort(key);
        self.event_loop.take_discarded().len()
    }

    /// How many objects come back when a stream is released.
    fn release(&mut self, key: StreamKey) -> usize {
        self.event_loop.release(key);
        self.event_loop.take_discarded().len()
    }

    /// How many objects come back when the loop ends.
    fn take_all(&mut self, _key: StreamKey) -> usize {
        self.event_loop.take_io().1.len()
    }
}
