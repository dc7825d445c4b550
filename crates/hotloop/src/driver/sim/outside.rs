//! Threads that a simulation waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::driver::{SystemWaker, Waker};

/// Counts what other threads do on behalf of a simulation.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    busy: Arc<AtomicUsize>,
    /// Ends a wait for the last of them.
    waker: Arc<SystemWaker>,
}

impl Threads {
    pub(super) fn new(waker: Arc<SystemWaker>) -> Self {
        Self {
            busy: Arc::default(),
            waker,
        }
    }

    /// Has the time stand still until what this answers is dropped.
    pub(crate) fn hold(&self) -> Outside {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Outside(self.clone())
    }

    /// Whether anybody holds the time.
    pub(super) fn are_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }
}

/// Something that happens outside of a loop on virtual time: the time stands still until this is dropped, by whichever
/// thread has it.
#[derive(Debug)]
#[must_use = "the time goes on when this is dropped"]
pub struct Outside(Threads);

impl Drop for Outside {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        self.0.waker.wake();
    }
}
