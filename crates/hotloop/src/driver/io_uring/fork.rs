//! What a fork does to rings: the child has them too, and must not touch them.
//!
//! A child of `fork` has the parent's memory, the ring's shared part included, and its descriptors. Whatever it submitted
//! or took would be the parent's. So a handler marks every ring of the child as forked, and closes its descriptors: a
//! ring lives as long as anybody has it open, and with it what it has under way.

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How many forks lie between this process and the first one that had a ring.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The descriptors of the first rings of the process, -1 where there is none. A fixed place: the handler runs between
/// fork and whatever comes then, when nothing may be locked or allocated.
static DESCRIPTORS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// The process in which something was made: it, or a child of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generation(u32);

impl Generation {
    pub(super) fn current() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is a child of that one.
    #[inline]
    pub(super) fn is_past(self) -> bool {
        self.0 != GENERATION.load(Ordering::Relaxed)
    }
}

/// Tells a ring that was inherited from one of this process.
#[derive(Debug)]
pub(super) struct Birthmark {
    generation: Generation,
    /// Where the descriptor is kept, if there was a place left. The handler closes such a one.
    place: Option<usize>,
}

impl Birthmark {
    /// Notes a new ring.
    pub(super) fn new(fd: RawFd) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler only does what it may between a fork and what comes then: atomics and `close`. It
            // stays in memory as long as this code does, which is never unloaded.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        let place = DESCRIPTORS.iter().position(|place| {
            place
                .compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        });
        Self {
            generation: Generation::current(),
            place,
        }
    }

    /// Whether the ring is a parent process's.
    #[inline]
    pub(super) fn is_inherited(&self) -> bool {
        self.generation.is_past()
    }

    /// Whether the ring is inherited, and its descriptor closed already.
    pub(super) fn is_closed(&self) -> bool {
        self.is_inherited() && self.place.is_some()
    }
}

impl Drop for Birthmark {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && !self.is_inherited()
        {
            DESCRIPTORS[place].store(-1, Ordering::Relaxed);
        }
    }
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for place in &DESCRIPTORS {
        let fd = place.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the descriptor is a ring's, which from now on nobody in this process uses or closes.
            unsafe { libc::close(fd) };
        }
    }
}
