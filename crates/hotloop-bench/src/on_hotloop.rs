//! The rows on the loops of the crate.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hotloop::asyncio::{BaseEventLoop, Error, ProactorEventLoop, SelectorEventLoop, sleep};

use crate::due;

/// A loop and what it is called.
pub(crate) struct EventLoop {
    pub(crate) name: &'static str,
    event_loop: BaseEventLoop,
}

/// The loops that this machine has.
pub(crate) fn all() -> Vec<EventLoop> {
    let selector = SelectorEventLoop::new().map(BaseEventLoop::from);
    let proactor = ProactorEventLoop::new().map(BaseEventLoop::from);
    [("selector", selector), ("proactor", proactor)]
        .into_iter()
        .filter_map(|(name, event_loop)| match event_loop {
            Ok(event_loop) => Some(EventLoop { name, event_loop }),
            Err(error) => {
                eprintln!("no {name} loop here: {error}");
                None
            }
        })
        .collect()
}

pub(crate) fn callbacks(event_loop: &EventLoop, count: usize) -> Duration {
    timed(event_loop, |event_loop| {
        let left = Rc::new(Cell::new(count));
        for _ in 0..count {
            let (left, stopping) = (Rc::clone(&left), event_loop.clone());
            event_loop.call_soon(move || {
                left.set(left.get() - 1);
                if left.get() == 0 {
                    stopping.stop();
                }
            })?;
        }
        event_loop.run_forever()
    })
}

pub(crate) fn tasks(event_loop: &EventLoop, count: usize) -> Duration {
    timed(event_loop, |event_loop| {
        let done = Rc::new(Cell::new(0));
        let making = event_loop.clone();
        event_loop.run_until_complete(async move {
            let mut last = None;
            for _ in 0..count {
                let done = Rc::clone(&done);
                last = Some(making.create_task(async move { done.set(done.get() + 1) })?);
            }
            if let Some(last) = last {
                last.await?;
            }
            assert_eq!(done.get(), count);
            Ok(())
        })?
    })
}

pub(crate) fn timers(event_loop: &EventLoop, count: usize) -> Duration {
    timed(event_loop, |event_loop| {
        let making = event_loop.clone();
        event_loop.run_until_complete(async move {
            let sleepers: Vec<_> = (0..count)
                .map(|index| making.create_task(sleep(due(index, count))))
                .collect::<Result<_, _>>()?;
            for sleeper in sleepers {
                sleeper.await??;
            }
            Ok(())
        })?
    })
}

pub(crate) fn round_trips(event_loop: &EventLoop, count: usize) -> Duration {
    timed(event_loop, |event_loop| {
        let (threadsafe, stopper) = (event_loop.threadsafe(), event_loop.stopper());
        let asking = thread::spawn(move || {
            let (answer, answers) = mpsc::sync_channel(1);
            let mut asked = 0;
            while asked < count {
                let answer = answer.clone();
                let sent = threadsafe.call_soon_threadsafe(move || assert_eq!(answer.send(()), Ok(())));
                if sent.is_err() || answers.recv().is_err() {
                    break;
                }
                asked += 1;
            }
            stopper.stop();
            asked
        });
        event_loop.run_forever()?;
        assert!(
            asking.join().is_ok_and(|asked| asked == count),
            "not all were answered"
        );
        Ok(())
    })
}

/// How long a run of the loop takes.
fn timed(event_loop: &EventLoop, run: impl FnOnce(&BaseEventLoop) -> Result<(), Error>) -> Duration {
    let start = Instant::now();
    let ran = run(&event_loop.event_loop);
    let taken = start.elapsed();
    assert!(ran.is_ok(), "{}: {ran:?}", event_loop.name);
    taken
}
