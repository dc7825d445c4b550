//! Whatever is written, however it is cut: the peer receives that and nothing else.

use proptest::prelude::*;

use hotloop::transport::Close;

use crate::program::{Program, Seen};

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    /// So many bytes, cut into lines of the other number.
    Lines(usize, usize),
    /// The peer takes so many bytes.
    Room(usize),
    /// The turn ends and another one begins, with a wait in between.
    Turn,
    /// What follows is written outside a turn.
    EndTurn,
    Flush,
}

/// How many bytes one write has at most: past the size up to which writes are gathered.
const LARGEST: usize = 70_000;

/// After how many bytes the pattern of what is written begins anew: no power of two, which buffers might share.
const PERIOD: usize = 251;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..600).prop_map(Step::Write),
        1 => (60_000..LARGEST).prop_map(Step::Write),
        3 => (0usize..600, 1usize..300).prop_map(|(size, line)| Step::Lines(size, line)),
        1 => (60_000..LARGEST, 500usize..40_000).prop_map(|(size, line)| Step::Lines(size, line)),
        3 => (1usize..2000).prop_map(Step::Room),
        1 => (5000usize..100_000).prop_map(Step::Room),
        3 => Just(Step::Turn),
        1 => Just(Step::EndTurn),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn the_peer_receives_what_was_written(
        steps in steps(),
        room in prop_oneof![0usize..1000, 50_000usize..100_000],
        high in prop_oneof![Just(None), (0usize..1000).prop_map(Some)],
        posts in any::<bool>(),
        tcp in any::<bool>(),
    ) {
        // Bytes that tell where they belong.
        let pattern: Vec<u8> = (0..PERIOD as u8).cycle().take(PERIOD + LARGEST).collect();
        let mut program = Program::posting(posts);
        let key = program.stream(5, room);
        if tcp {
            program.event_loop.note_tcp(key);
        }
        if let Some(state) = program.event_loop.stream(key) {
            prop_assert!(state.flow.set_limits(high, None).is_ok());
        }
        let (mut written, mut received, mut paused) = (Vec::new(), Vec::new(), false);
        for step in steps {
            // What was posted or corked is on its way until the turn ends.
            let under_way = (posts || tcp) && matches!(step, Step::Write(_) | Step::Lines(..) | Step::Room(_));
            match step {
                Step::Write(size) | Step::Lines(size, _) => {
                    let start = written.len() % PERIOD;
                    let bytes = &pattern[start..start + size];
                    written.extend_from_slice(bytes);
                    let pause = match step {
                        Step::Lines(_, line) => program.write_lines(key, &bytes.chunks(line).collect::<Vec<_>>()),
                        _ => program.write(key, bytes),
                    };
                    prop_assert!(pause.is_ok());
                    let pause = pause.unwrap_or_default();
                    prop_assert!(!(pause && paused), "paused twice");
                    paused |= pause;
                    let (_, high) = program.event_loop.stream(key).map_or((0, 0), |state| state.flow.limits());
                    prop_assert_eq!(paused, paused || program.queued(key) > high);
                }
                Step::Room(bytes) => program.network.make_room(5, bytes),
                Step::Turn => turn(&mut program, key, &mut paused)?,
                Step::EndTurn => program.event_loop.end_turn(),
                Step::Flush => program.event_loop.flush_now(key),
            }
            received.extend(program.network.take_sent(5).0);
            let accounted = received.len() + program.queued(key);
            prop_assert!(accounted == written.len() || (under_way && accounted < written.len()));
        }
        // The end: all of it arrives, in order, and who was paused is resumed.
        if program.event_loop.close(key) == Close::AfterFlush {
            program.network.make_room(5, usize::MAX / 2);
            turn(&mut program, key, &mut paused)?;
            turn(&mut program, key, &mut paused)?;
            prop_assert!(program.event_loop.stream(key).is_some_and(|state| state.finish_close()));
        }
        prop_assert!(!paused, "paused for ever");
        received.extend(program.network.take_sent(5).0);
        prop_assert_eq!(received.len(), written.len());
        prop_assert!(received == written);
    }
}

/// A turn begins after a poll; what it finds is run, and it stays open for the writes that follow.
fn turn(program: &mut Program, key: hotloop::StreamKey, paused: &mut bool) -> Result<(), TestCaseError> {
    let timeout = program.prepare(true);
    prop_assert!(program.event_loop.wait(timeout).is_ok());
    program.begin();
    while let Some(seen) = program.next() {
        prop_assert_eq!(seen, Seen::Sent(5));
        let queued = program.queued(key);
        if program
            .event_loop
            .stream(key)
            .is_some_and(|state| state.flow.resume_at(queued))
        {
            prop_assert!(*paused, "resumed without a pause");
            *paused = false;
        }
    }
    Ok(())
}
