//! What comes of datagrams: received in batches, told one by one, sent at once or when there is room.

use std::io;
use std::net::SocketAddr;

use hotloop::driver::{Address, Batch};
use hotloop::transport::Close;
use hotloop::{DatagramEvent, EndpointKey, Flushed};

use crate::program::{Program, Seen, callbacks};
use crate::sends::PLENTY;

const READABLE: Seen = Seen::Datagram(5, DatagramEvent::Readable);
const WRITABLE: Seen = Seen::Datagram(5, DatagramEvent::Writable);

fn address(port: u16) -> Address {
    SocketAddr::from(([127, 0, 0, 1], port)).into()
}

impl Program {
    /// Feeds datagrams from a port of that number each.
    fn feed_numbers(&self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            self.network
                .feed_datagram(5, number.to_string().as_bytes(), address(number));
        }
    }

    /// Receives a batch: the ports that the datagrams came from.
    fn receive_numbers(&mut self, key: EndpointKey, batch: &mut Batch) -> io::Result<Vec<u16>> {
        self.event_loop.receive_datagrams(key, batch)?;
        let port = |(bytes, from): (&[u8], &Address)| {
            let number: u16 = String::from_utf8_lossy(bytes).parse().expect("a number");
            assert_eq!(*from, address(number));
            number
        };
        Ok(batch.iter().map(port).collect())
    }

    fn send_datagram(&mut self, key: EndpointKey, bytes: &[u8], to: Option<u16>) -> io::Result<(bool, bool)> {
        let to = to.map(address);
        let written = self
            .event_loop
            .send_datagram(key, bytes, || bytes.to_vec(), to.as_ref(), &5)?;
        Ok((written.queued, written.pause))
    }

    fn queue_size(&mut self, key: EndpointKey) -> usize {
        self.event_loop.endpoint(key).map_or(0, |state| state.size())
    }
}

#[test]
fn batches_grow_with_what_comes_in() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let mut batch = Batch::default();
    program.feed_numbers(0..40);
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    while let Ok(numbers) = program.receive_numbers(key, &mut batch) {
        sizes.push(numbers.len());
        all.extend(numbers);
    }
    assert_eq!(all, (0..40).collect::<Vec<_>>());
    assert_eq!(sizes, [2, 4, 8, 16, 10]);
    program.feed_numbers(0..1);
    assert_eq!(program.receive_numbers(key, &mut batch)?, [0]);
    Ok(())
}

#[test]
fn what_is_held_is_told_in_the_next_turn_before_what_came_in_later() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let mut batch = Batch::default();
    program.feed_numbers(1..5);
    let mut told = Vec::new();
    for turn in 0..4 {
        let seen = program.turn_with(|program, seen| {
            assert_eq!(seen, READABLE);
            let numbers = program.receive_numbers(key, &mut batch).expect("it is readable");
            told.push(numbers[0]);
            program.event_loop.hold_datagrams(key, &batch, 1, &5);
        })?;
        assert_eq!(seen, [READABLE], "turn {turn}");
        assert_eq!(
            program.waits().last(),
            Some(&if turn % 2 == 0 {
                None
            } else {
                Some(std::time::Duration::ZERO)
            })
        );
    }
    assert_eq!(told, [1, 2, 3, 4]);
    Ok(())
}

#[test]
fn what_is_held_waits_for_a_pause_to_end() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let mut batch = Batch::default();
    program.feed_numbers(1..3);
    program.turn_with(|program, _| {
        assert_eq!(program.receive_numbers(key, &mut batch).ok(), Some(vec![1, 2]));
        program.event_loop.pause_endpoint(key);
        program.event_loop.hold_datagrams(key, &batch, 1, &5);
    })?;
    assert_eq!(program.in_a_turn(|_| {})?, []);
    let seen = program.in_a_turn(|program| {
        assert!(program.event_loop.resume_endpoint(key, 5).is_ok());
    })?;
    assert_eq!(seen, [], "a resume is for the next turn");
    assert_eq!(program.turn()?, [READABLE]);
    assert_eq!(program.receive_numbers(key, &mut batch)?, [2]);
    Ok(())
}

#[test]
fn a_closed_endpoint_tells_nothing_that_it_held() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let mut batch = Batch::default();
    program.feed_numbers(1..3);
    program.turn_with(|program, _| {
        assert_eq!(program.receive_numbers(key, &mut batch).ok(), Some(vec![1, 2]));
        program.event_loop.hold_datagrams(key, &batch, 1, &5);
        assert_eq!(program.event_loop.close_endpoint(key), Close::LostSoon);
    })?;
    assert_eq!(program.in_a_turn(|_| {})?, []);
    assert_eq!(
        program.event_loop.take_discarded().len(),
        2,
        "for the operation and for what was held"
    );
    Ok(())
}

#[test]
fn a_turn_is_quiet_if_the_next_would_have_nothing_else_to_do() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let stream = program.stream(6, PLENTY);
    program.call_at(10.0, 1);
    let quiet = |program: &mut Program, end| program.event_loop.is_quiet(end);
    program.feed_numbers(1..3);
    let mut batch = Batch::default();
    let seen = program.turn_with(|program, _| {
        assert_eq!(program.receive_numbers(key, &mut batch).ok(), Some(vec![1, 2]));
        assert!(quiet(program, 9.0));
        assert!(!quiet(program, 11.0), "a timer is due");
        for _ in 0..2 {
            assert_eq!(program.write(stream, b"x").ok(), Some(false));
        }
        assert!(!quiet(program, 9.0), "a write is gathered");
        program.event_loop.flush_now(stream);
        assert!(quiet(program, 9.0));
        program.event_loop.hold_datagrams(key, &batch, 1, &5);
        assert!(!quiet(program, 9.0), "something is held");
        program.event_loop.call_soon(2);
        assert!(!quiet(program, 9.0), "a callback is ready");
    })?;
    assert_eq!(seen, [READABLE]);
    assert_eq!(program.turn()?, [callbacks([2]), vec![READABLE]].concat());
    Ok(())
}

#[test]
fn an_error_comes_before_the_datagrams_behind_it() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, PLENTY)?;
    let mut batch = Batch::default();
    program.feed_numbers(1..2);
    program.network.feed_error(5, io::ErrorKind::ConnectionRefused);
    program.feed_numbers(2..3);
    assert_eq!(program.receive_numbers(key, &mut batch)?, [1]);
    let error = program
        .receive_numbers(key, &mut batch)
        .map_err(|error| error.kind());
    assert_eq!(error, Err(io::ErrorKind::ConnectionRefused));
    assert_eq!(program.receive_numbers(key, &mut batch)?, [2]);
    Ok(())
}

#[test]
fn a_datagram_goes_at_once_or_waits_for_room() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, 3)?;
    assert_eq!(program.send_datagram(key, b"one", Some(1))?, (false, false));
    assert_eq!(program.send_datagram(key, b"two", Some(2))?, (true, false));
    assert_eq!(program.send_datagram(key, b"3", None)?, (true, false));
    assert_eq!(program.queue_size(key), 3 + 8 + 1 + 8);
    assert_eq!(
        program.network.take_datagrams(5),
        [(b"one".to_vec(), Some(address(1)))]
    );
    assert_eq!(program.in_a_turn(|_| {})?, []);
    program.network.make_room(5, 100);
    let seen = program.turn_with(|program, _| {
        assert!(matches!(program.event_loop.flush_datagrams(key), Flushed::Empty));
        program.event_loop.stop_flushing(key);
    })?;
    assert_eq!(seen, [WRITABLE]);
    assert_eq!(
        program.network.take_datagrams(5),
        [(b"two".to_vec(), Some(address(2))), (b"3".to_vec(), None)]
    );
    assert_eq!(program.in_a_turn(|_| {})?, []);
    Ok(())
}

#[test]
fn a_failed_datagram_is_gone_and_the_next_follows() -> io::Result<()> {
    let mut program = Program::new();
    let key = program.endpoint(5, 0)?;
    for number in 1..4 {
        program.send_datagram(key, b"x", Some(number))?;
    }
    program.network.make_room(5, 100);
    program.network.break_sends(5, io::ErrorKind::ConnectionRefused);
    let Flushed::Failed(error) = program.event_loop.flush_datagrams(key) else {
        panic!("the first one is refused");
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(program.queue_size(key), 2 * 9);
    assert!(matches!(program.event_loop.flush_datagrams(key), Flushed::Empty));
    let sent = program.network.take_datagrams(5);
    assert_eq!(
        sent.iter().map(|(_, to)| *to).collect::<Vec<_>>(),
        [Some(address(2)), Some(address(3))]
    );
    Ok(())
}

#[test]
fn a_number_that_is_opened_anew_is_the_later_one_s() -> io::Result<()> {
    let mut program = Program::new();
    let first = program.endpoint(5, 0)?;
    program.send_datagram(first, b"x", None)?;
    let second = program.endpoint(5, PLENTY)?;
    assert!(matches!(
        program.event_loop.flush_datagrams(first),
        Flushed::Failed(_)
    ));
    program.event_loop.release_endpoint(first);
    program.feed_numbers(1..2);
    assert_eq!(program.turn()?, [READABLE]);
    assert_eq!(program.receive_numbers(second, &mut Batch::default())?, [1]);
    let stream = program.stream(5, PLENTY);
    assert!(
        program
            .event_loop
            .receive_datagrams(second, &mut Batch::default())
            .is_err()
    );
    program.write(stream, b"x")?;
    assert_eq!(program.network.take_sent(5).0, b"x");
    Ok(())
}
