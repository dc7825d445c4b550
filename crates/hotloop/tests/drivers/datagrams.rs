//! Datagrams: several a call, each with its sender, each to its address.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use hotloop::driver::{Address, Batch, Driver, MAX_BATCH, Op, OpKey, Outgoing};
#[cfg(linux)]
use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::world::{World, kind, poll, ready};

/// What is in a batch: the datagrams and who sent them.
fn contents(batch: &Batch) -> Vec<(Vec<u8>, Address)> {
    batch
        .iter()
        .map(|(bytes, from)| (bytes.to_vec(), *from))
        .collect()
}

pub(crate) fn datagrams_come_in_batches_with_their_senders<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (fd, far) = world.datagrams()?;
    driver.submit(OpKey(1), fd, Op::ReceiveFrom)?;
    assert_eq!(poll(&mut driver)?, []);
    let mut batch = Batch::default();
    let nothing = driver.receive_datagrams(fd, &mut batch, MAX_BATCH);
    assert_eq!(kind(nothing), Some(io::ErrorKind::WouldBlock));
    let sent = [b"one".as_slice(), b"", b"three"];
    for bytes in sent {
        world.feed_datagram(fd, bytes)?;
    }
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    driver.receive_datagrams(fd, &mut batch, MAX_BATCH)?;
    assert_eq!(contents(&batch), sent.map(|bytes| (bytes.to_vec(), far)));
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_batch_takes_no_more_than_it_is_asked_for<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (fd, far) = world.datagrams()?;
    driver.submit(OpKey(1), fd, Op::ReceiveFrom)?;
    for bytes in [b"a", b"b", b"c", b"d"] {
        world.feed_datagram(fd, bytes)?;
    }
    let mut batch = Batch::default();
    driver.receive_datagrams(fd, &mut batch, 1)?;
    assert_eq!(contents(&batch), [(b"a".to_vec(), far)]);
    driver.receive_datagrams(fd, &mut batch, 2)?;
    assert_eq!(contents(&batch), [(b"b".to_vec(), far), (b"c".to_vec(), far)]);
    assert_eq!(poll(&mut driver)?, [ready(1)], "one is left");
    let mut buffer = [MaybeUninit::new(0); 8];
    assert_eq!(driver.receive_from(fd, &mut buffer)?, (1, far));
    assert_eq!(poll(&mut driver)?, []);
    Ok(())
}

pub(crate) fn a_long_datagram_is_cut_to_the_buffer<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (fd, far) = world.datagrams()?;
    world.feed_datagram(fd, b"long")?;
    world.feed_datagram(fd, b"next")?;
    let mut buffer = [MaybeUninit::new(0); 2];
    assert_eq!(driver.receive_from(fd, &mut buffer)?, (2, far));
    let mut batch = Batch::default();
    driver.receive_datagrams(fd, &mut batch, MAX_BATCH)?;
    assert_eq!(contents(&batch), [(b"next".to_vec(), far)]);
    Ok(())
}

pub(crate) fn datagrams_go_where_they_are_sent<W: World>() -> io::Result<()> {
    let world = W::new()?;
    let mut driver = world.driver()?;
    let (fd, far) = world.datagrams()?;
    let outgoing = |bytes| Outgoing {
        bytes,
        to: Some(&far),
    };
    assert_eq!(driver.send_datagrams(fd, &[outgoing(b"one")])?, 1);
    assert_eq!(
        driver.send_datagrams(fd, &[outgoing(b"two"), outgoing(b"three")])?,
        2
    );
    assert_eq!(
        world.drain_datagrams(fd)?,
        [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
    );
    let many = [outgoing(b"x"); MAX_BATCH + 1];
    let sent = driver.send_datagrams(fd, &many)?;
    assert!((1..=many.len()).contains(&sent));
    assert_eq!(world.drain_datagrams(fd)?.len(), sent);
    Ok(())
}

pub(crate) fn a_refused_datagram_is_an_error_of_a_later_call<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let near = UdpSocket::bind("127.0.0.1:0")?;
    near.set_nonblocking(true)?;
    let gone = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    near.connect(gone)?;
    let fd = near.as_raw_fd();
    driver.submit(OpKey(1), fd, Op::ReceiveFrom)?;
    let to_peer = Outgoing {
        bytes: b"x",
        to: None,
    };
    assert_eq!(driver.send_datagrams(fd, &[to_peer])?, 1);
    assert_eq!(poll(&mut driver)?, [ready(1)]);
    let mut batch = Batch::default();
    let refused = driver.receive_datagrams(fd, &mut batch, MAX_BATCH);
    assert_eq!(kind(refused), Some(io::ErrorKind::ConnectionRefused));
    assert_eq!(poll(&mut driver)?, [], "it is told once");
    Ok(())
}

pub(crate) fn a_datagram_that_fails_stops_those_behind_it<W: World>() -> io::Result<()> {
    let mut driver = W::new()?.driver()?;
    let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let to = Address::from(far.local_addr()?);
    let long = vec![0; 70_000];
    let outgoing = |bytes| Outgoing { bytes, to: Some(&to) };
    let datagrams = [outgoing(b"1".as_slice()), outgoing(&long), outgoing(b"2")];
    assert_eq!(driver.send_datagrams(near.as_raw_fd(), &datagrams)?, 1);
    let failed = driver.send_datagrams(near.as_raw_fd(), &datagrams[1..]);
    assert_eq!(
        failed.err().and_then(|error| error.raw_os_error()),
        Some(libc::EMSGSIZE)
    );
    assert_eq!(driver.send_datagrams(near.as_raw_fd(), &datagrams[2..])?, 1);
    let mut buffer = [0; 8];
    for expected in [b"1", b"2"] {
        let count = far.recv(&mut buffer)?;
        assert_eq!(&buffer[..count], expected);
    }
    Ok(())
}

/// Whether or not the kernel takes them apart on their way out and puts them together on their way in, which it may do
/// to neighbours of one size.
pub(crate) fn many_datagrams_arrive_as_they_were_sent<W: World>() -> io::Result<()> {
    let state = RefCell::new((W::new()?.driver()?, Batch::default()));
    let near = UdpSocket::bind("127.0.0.1:0")?;
    let from = Address::from(near.local_addr()?);
    let (plain, together) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    #[cfg(linux)]
    setsockopt(&together, sockopt::UdpGroSegment, &true)?;
    for far in [&plain, &together] {
        far.set_nonblocking(true)?;
    }
    let to = [
        Address::from(plain.local_addr()?),
        Address::from(together.local_addr()?),
    ];
    let sizes = prop::sample::select(vec![0_usize, 1, 2, 700, 1472, 1473, 3000]);
    let strategy = prop::collection::vec((sizes, 0..2_usize, 1..6_usize), 1..12);
    let mut runner = TestRunner::default();
    let outcome = runner.run(&strategy, |runs| {
        let (driver, batch) = &mut *state.borrow_mut();
        let sent: Vec<(Vec<u8>, usize)> = runs
            .iter()
            .flat_map(|&(size, to, count)| std::iter::repeat_n((size, to), count))
            .enumerate()
            .map(|(number, (size, to))| (vec![number as u8; size], to))
            .collect();
        let outgoing: Vec<_> = sent
            .iter()
            .map(|(bytes, far)| Outgoing {
                bytes,
                to: to.get(*far),
            })
            .collect();
        let mut rest = outgoing.as_slice();
        while !rest.is_empty() {
            let count = driver.send_datagrams(near.as_raw_fd(), rest)?;
            prop_assert!((1..=rest.len()).contains(&count));
            rest = &rest[count..];
        }
        for (number, far) in [&plain, &together].into_iter().enumerate() {
            let mut arrived = Vec::new();
            loop {
                match driver.receive_datagrams(far.as_raw_fd(), batch, MAX_BATCH) {
                    Ok(()) => arrived.extend(contents(batch)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let expected: Vec<_> = sent
                .iter()
                .filter(|(_, to)| *to == number)
                .map(|(bytes, _)| (bytes.clone(), from))
                .collect();
            prop_assert_eq!(arrived, expected);
        }
        Ok(())
    });
    outcome.map_err(|error| io::Error::other(error.to_string()))
}
