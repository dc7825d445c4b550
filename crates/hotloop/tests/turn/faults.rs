//! Each operation fails, each in turn: what was taken is not lost and not doubled, and every error is told once.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;

use proptest::prelude::*;

use hotloop::StreamKey;
use hotloop::driver::Direction;
use hotloop::driver::sim::Call;

use crate::program::{Program, Seen};

const FD: i32 = 5;

/// After how many bytes the pattern begins anew.
const PERIOD: usize = 251;

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Feed(usize),
    Room(usize),
    Fail(Call, ErrorKind),
    Turn,
}

fn steps(errors: &'static [ErrorKind]) -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![Just(Call::Receive), Just(Call::Send)];
    let step = prop_oneof![
        5 => (0usize..600).prop_map(Step::Write),
        1 => (60_000usize..70_000).prop_map(Step::Write),
        4 => (1usize..600).prop_map(Step::Feed),
        3 => (1usize..5000).prop_map(Step::Room),
        3 => (call, prop::sample::select(errors)).prop_map(|(call, error)| Step::Fail(call, error)),
        4 => Just(Step::Turn),
    ];
    prop::collection::vec(step, 0..80)
}

/// One stream, and both sides of what went over it.
struct Exchange {
    program: Program,
    key: StreamKey,
    written: usize,
    sent: Vec<u8>,
    fed: usize,
    received: usize,
    /// The errors that were told.
    told: Vec<ErrorKind>,
}

impl Exchange {
    fn new(posts: bool) -> io::Result<Self> {
        let mut program = Program::posting(posts);
        let key = program.stream(FD, 1000);
        program.start_reading(key)?;
        Ok(Self {
            program,
            key,
            written: 0,
            sent: Vec::new(),
            fed: 0,
            received: 0,
            told: Vec::new(),
        })
    }

    /// Does one step; a stream that an error was told of does nothing more.
    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Write(size) if self.told.is_empty() => {
                let bytes = pattern(self.written, size);
                match self.program.write(self.key, &bytes) {
                    Ok(_) => self.written += size,
                    Err(error) => self.end(error.kind()),
                }
            }
            Step::Feed(size) => {
                self.program.network.feed(FD, &pattern(self.fed, size));
                self.fed += size;
            }
            Step::Room(size) => self.program.network.make_room(FD, size),
            Step::Fail(call, error) => self.program.network.fail_next(FD, call, error),
            Step::Turn => self.turn()?,
            Step::Write(_) => {}
        }
        self.sent.extend(self.program.network.take_sent(FD).0);
        Ok(())
    }

    /// A turn that a poll comes before; it stays open for the writes that follow.
    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.program.prepare(true);
        self.program.event_loop.wait(timeout)?;
        self.program.begin();
        while let Some(seen) = self.program.next() {
            match seen {
                Seen::Readable(_) => {
                    let mut buffer = [MaybeUninit::uninit(); 300];
                    match self.program.event_loop.receive(self.key, &mut buffer) {
                        Ok(count) => self.received += count,
                        Err(error) if is_transient(error.kind()) => {}
                        Err(error) => self.end(error.kind()),
                    }
                }
                Seen::Broken(_, error) => self.end(error),
                Seen::Sent(_) => {}
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        Ok(())
    }

    fn end(&mut self, error: ErrorKind) {
        self.told.push(error);
        self.program.event_loop.abort(self.key);
    }
}

/// The bytes of a stream from `start` on.
fn pattern(start: usize, size: usize) -> Vec<u8> {
    (0..PERIOD as u8)
        .cycle()
        .skip(start % PERIOD)
        .take(size)
        .collect()
}

fn is_transient(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

proptest! {
    // Each case runs hundreds of turns.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, ..ProptestConfig::default() })]

    #[test]
    fn what_is_tried_again_loses_nothing(
        steps in steps(&[ErrorKind::WouldBlock, ErrorKind::Interrupted]),
        posts in any::<bool>(),
    ) {
        let exchange = Exchange::new(posts);
        prop_assert!(exchange.is_ok());
        let Ok(mut exchange) = exchange else { return Ok(()) };
        for step in steps {
            prop_assert!(exchange.step(step).is_ok());
        }
        exchange.program.network.make_room(FD, usize::MAX / 2);
        // Each turn is one more call of each kind, and there are fewer faults than steps.
        for _ in 0..200 {
            prop_assert!(exchange.step(Step::Turn).is_ok());
        }
        prop_assert_eq!(&exchange.told, &[]);
        prop_assert_eq!(exchange.received, exchange.fed);
        prop_assert_eq!(exchange.program.queued(exchange.key), 0);
        prop_assert!(exchange.sent == pattern(0, exchange.written));
    }

    #[test]
    fn an_error_is_told_once_and_nothing_follows_it(
        before in steps(&[ErrorKind::WouldBlock, ErrorKind::Interrupted]),
        call in prop_oneof![Just(Call::Receive), Just(Call::Send)],
        error in prop::sample::select(&[
            ErrorKind::ConnectionReset,
            ErrorKind::BrokenPipe,
            ErrorKind::OutOfMemory,
        ]),
        behind in steps(&[ErrorKind::WouldBlock, ErrorKind::Interrupted]),
        posts in any::<bool>(),
    ) {
        let exchange = Exchange::new(posts);
        prop_assert!(exchange.is_ok());
        let Ok(mut exchange) = exchange else { return Ok(()) };
        for step in before.into_iter().chain([Step::Fail(call, error)]).chain(behind) {
            prop_assert!(exchange.step(step).is_ok());
        }
        exchange.program.network.make_room(FD, usize::MAX / 2);
        for _ in 0..200 {
            prop_assert!(exchange.step(Step::Feed(1)).is_ok());
            prop_assert!(exchange.step(Step::Write(1)).is_ok());
            prop_assert!(exchange.step(Step::Turn).is_ok());
        }
        prop_assert_eq!(&exchange.told, &[error]);
        prop_assert_eq!(exchange.program.queued(exchange.key), 0);
        prop_assert!(exchange.received <= exchange.fed);
        // What went out before is the beginning of what was written, once.
        prop_assert!(pattern(0, exchange.written).starts_with(&exchange.sent));
    }
}

#[test]
fn a_reader_that_the_kernel_refuses_can_be_tried_again() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(FD, 10);
    program.network.fail_next(FD, Call::Watch, ErrorKind::OutOfMemory);
    let refused = program.start_reading(key).err();
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::OutOfMemory));
    assert_eq!(program.event_loop.take_discarded(), [FD.cast_unsigned()]);
    program.start_reading(key)?;
    program.network.feed(FD, b"x");
    assert_eq!(program.turn()?, [Seen::Readable(FD.cast_unsigned())]);
    Ok(())
}

#[test]
fn a_send_that_cannot_wait_for_room_is_an_error_of_the_stream() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(FD, 2);
    program.network.fail_next(FD, Call::Watch, ErrorKind::OutOfMemory);
    let refused = program.write(key, b"abcd").err();
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::OutOfMemory));
    program.event_loop.abort(key);
    assert_eq!(program.queued(key), 0);
    Ok(())
}

#[test]
fn nothing_follows_the_error_of_a_write() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(FD, 1 << 20);
    program.in_a_turn(|program| {
        assert!(program.write(key, b"sent").is_ok());
        assert!(program.write(key, b"gathered").is_ok());
        // Once only, as a kernel that is short of memory for a moment does.
        program.network.fail_next(FD, Call::Send, ErrorKind::OutOfMemory);
        let refused = program.write(key, &[b'.'; 1 << 16]).err();
        assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::OutOfMemory));
        program.event_loop.abort(key);
    })?;
    assert_eq!(program.sent(FD).0, "sent");
    Ok(())
}

#[test]
fn a_gathered_send_that_cannot_wait_for_room_is_told_in_the_next_turn() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.stream(FD, 4);
    program.in_a_turn(|program| {
        program.network.fail_next(FD, Call::Watch, ErrorKind::OutOfMemory);
        assert!(program.write(key, b"ab").is_ok());
        assert!(program.write(key, b"cdef").is_ok());
    })?;
    let label = FD.cast_unsigned();
    assert_eq!(program.turn()?, [Seen::Broken(label, ErrorKind::OutOfMemory)]);
    program.event_loop.abort(key);
    assert_eq!(program.sent(FD).0, "abcd");
    Ok(())
}

#[test]
fn a_watcher_that_the_kernel_refuses_is_not_kept() -> io::Result<()> {
    let mut program = Program::new();
    program.network.open(FD, 10);
    for direction in [Direction::Read, Direction::Write] {
        program.network.fail_next(FD, Call::Watch, ErrorKind::OutOfMemory);
        assert!(program.event_loop.watch(FD, direction, 1).is_err());
        assert_eq!(program.event_loop.watcher(FD, direction), None);
        assert_eq!(program.event_loop.watch(FD, direction, 2)?, None);
        assert_eq!(program.event_loop.watcher(FD, direction), Some(&2));
    }
    Ok(())
}
