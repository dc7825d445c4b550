//! The rows on tokio's current-thread runtime.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use crate::due;

pub(crate) fn tasks(count: usize) -> Duration {
    timed(async move {
        let done = Rc::new(Cell::new(0));
        let mut last = None;
        for _ in 0..count {
            let done = Rc::clone(&done);
            last = Some(spawn_local(async move { done.set(done.get() + 1) }));
        }
        if let Some(last) = last {
            assert!(last.await.is_ok());
        }
        assert_eq!(done.get(), count);
    })
}

pub(crate) fn timers(count: usize) -> Duration {
    timed(async move {
        let sleepers: Vec<_> = (0..count)
            .map(|index| spawn_local(tokio::time::sleep(due(index, count))))
            .collect();
        for sleeper in sleepers {
            assert!(sleeper.await.is_ok());
        }
    })
}

pub(crate) fn round_trips(count: usize) -> Duration {
    timed(async move {
        let handle = Handle::current();
        let (finished, wait) = oneshot::channel();
        thread::spawn(move || {
            let (answer, answers) = mpsc::sync_channel(1);
            let mut asked = 0;
            while asked < count {
                let answer = answer.clone();
                handle.spawn(async move { assert_eq!(answer.send(()), Ok(())) });
                if answers.recv().is_err() {
                    break;
                }
                asked += 1;
            }
            finished.send(asked)
        });
        assert_eq!(wait.await, Ok(count), "not all were answered");
    })
}

/// How long the runtime takes. It is made before.
fn timed(run: impl Future<Output = ()>) -> Duration {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("tokio does not start here: {error}"));
    let start = Instant::now();
    LocalSet::new().block_on(&runtime, run);
    start.elapsed()
}
