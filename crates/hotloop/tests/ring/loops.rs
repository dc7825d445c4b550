//! The engine on a ring: what is written arrives whole and in order, whoever sends it.

use std::io::{self, Read};
use std::time::Duration;

use hotloop::driver::Proactor;
use hotloop::{Event, EventLoop, Host, StreamEvent};

use crate::surroundings::{Connection, pattern};

/// A host without handles and timers, whose streams are labels.
struct Labels;

impl Host for Labels {
    type Handle = ();
    type Timer = ();
    type Stream = u32;
    type Bytes = Vec<u8>;

    fn is_cancelled(_timer: &()) -> bool {
        false
    }
}

/// Numbers that look like random ones, the same in every run.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*state >> 40) as usize
}

#[test]
fn what_is_written_arrives_at_a_slow_peer() -> io::Result<()> {
    for seed in 1..20 {
        let mut random = seed;
        let mut event_loop = EventLoop::<Labels, _>::new(Proactor::new()?);
        let Connection { near, mut far } = Connection::new()?;
        let key = event_loop.open_stream(std::os::fd::AsRawFd::as_raw_fd(&near));
        let (mut written, mut arrived, mut turns) = (0, Vec::new(), 0);
        let end = 1_000_000;
        while arrived.len() < written || written < end {
            let timeout = event_loop.prepare_wait(|| 0.0, true, &mut Vec::new());
            assert_eq!(timeout, Some(Duration::ZERO));
            event_loop.wait(timeout)?;
            event_loop.begin_turn(|| 0.0);
            while let Some(event) = event_loop.next_event() {
                assert!(matches!(event, Event::Stream(_, 7, StreamEvent::Sent)));
            }
            for _ in 0..next(&mut random) % 4 {
                let queued = event_loop.stream(key).map_or(0, |state| state.queue.len());
                // Mostly small, some of a size that goes by itself; a program that is paused writes nothing.
                let size = match next(&mut random) % 8 {
                    0 => next(&mut random) % 50_000,
                    _ => next(&mut random) % 4000,
                };
                if written < end && queued < 100_000 {
                    let bytes = pattern(written, size);
                    event_loop.write(key, &bytes, || bytes.clone(), &7)?;
                    written += size;
                }
            }
            match next(&mut random) % 5 {
                0 => event_loop.flush_now(key),
                1 => event_loop.end_turn(),
                _ => {}
            }
            let mut buffer = vec![0; next(&mut random) % 30_000 + 1];
            match far.read(&mut buffer) {
                Ok(count) => arrived.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            drop(event_loop.take_discarded());
            turns += 1;
            assert!(turns < 100_000, "stuck");
        }
        assert!(arrived == pattern(0, written));
        event_loop.release(key);
    }
    Ok(())
}
