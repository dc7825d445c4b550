//! What the streams over pipes do otherwise than those over sockets.

use std::io;

use hotloop::StreamKey;
use hotloop::driver::{Direction, PipeKind};
use hotloop::transport::Close;

use crate::program::{Program, Seen};
use crate::sends::{PLENTY, text};

impl Program {
    /// A second stream on a descriptor that is open already, under a label of its own.
    fn another_pipe(&mut self, fd: i32, label: u32) -> StreamKey {
        let key = self.event_loop.open_pipe(fd, PipeKind::Pipe);
        self.labels.insert(key, label);
        key
    }

    fn pipe(&mut self, fd: i32, room: usize) -> StreamKey {
        self.network.open(fd, room);
        self.another_pipe(fd, fd.cast_unsigned())
    }
}

#[test]
fn each_write_goes_by_itself() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.pipe(5, PLENTY);
    program.in_a_turn(|program| {
        for bytes in ["one", "two", "three"] {
            assert_eq!(program.write(key, bytes.as_bytes()).ok(), Some(false));
            assert_eq!(program.sent(5), text(bytes, 1));
        }
    })?;
    Ok(())
}

#[test]
fn what_finds_no_room_follows_in_order() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.pipe(5, 4);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"abcdef").is_ok());
        assert!(program.write(key, b"gh").is_ok());
        assert_eq!(program.sent(5), text("abcd", 1));
    })?;
    program.network.make_room(5, 10);
    assert_eq!(program.turn()?, [Seen::Sent(5)]);
    assert_eq!(program.sent(5).0, "efgh");
    Ok(())
}

#[test]
fn a_close_that_still_sends_hears_that_nobody_reads() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.pipe(5, 1);
    program.start_reading(key)?;
    program.write(key, b"ab")?;
    assert_eq!(program.event_loop.close(key), Close::AfterFlush);
    program.network.feed_end(5);
    assert_eq!(program.in_a_turn(|_| {})?, [Seen::Readable(5)]);
    assert!(program.event_loop.abort(key));
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}

#[test]
fn two_of_them_share_a_descriptor() -> io::Result<()> {
    let mut program = Program::new();
    let (reader, writer) = (program.pipe(5, 1), program.another_pipe(5, 6));
    program.start_reading(reader)?;
    program.write(writer, b"abc")?;
    program.network.feed(5, b"x");
    program.network.make_room(5, 1);
    assert_eq!(program.turn()?, [Seen::Readable(5), Seen::Sent(6)]);
    program.event_loop.release(reader);
    program.network.make_room(5, 1);
    assert_eq!(program.turn()?, [Seen::Sent(6)], "the other end stays");
    assert_eq!(program.sent(5).0, "abc");
    Ok(())
}

#[test]
fn of_two_readers_the_later_one_reads() -> io::Result<()> {
    let mut program = Program::new();
    let (first, second) = (program.pipe(5, PLENTY), program.another_pipe(5, 6));
    program.start_reading(first)?;
    program.start_reading(second)?;
    assert_eq!(program.event_loop.take_discarded(), [5]);
    program.network.feed(5, b"x");
    assert_eq!(program.turn()?, [Seen::Readable(6)]);
    program.event_loop.release(first);
    assert_eq!(
        program.turn()?,
        [Seen::Readable(6)],
        "its end leaves the other alone"
    );
    Ok(())
}

#[test]
fn a_watcher_takes_the_place_of_a_reader() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.pipe(5, PLENTY);
    program.start_reading(key)?;
    program.event_loop.watch(5, Direction::Read, 7)?;
    program.network.feed(5, b"x");
    assert_eq!(program.turn()?, [Seen::Callback(7)]);
    Ok(())
}

#[test]
fn a_socket_with_its_number_cuts_a_pipe_off() -> io::Result<()> {
    let mut program = Program::new();
    let old = program.pipe(5, 0);
    program.write(old, b"old")?;
    program.network.close(5);
    let new = program.stream(5, PLENTY);
    program.write(new, b"new")?;
    assert_eq!(program.in_a_turn(|_| {})?, []);
    assert_eq!(program.sent(5), text("new", 1));
    Ok(())
}
