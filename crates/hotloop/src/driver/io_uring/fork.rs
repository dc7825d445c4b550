//! What a fork does to rings: the child has them too, and must not touch them.
//!
//! A child of `fork` has the parent's memory, the ring's shared part included, and its descriptors. Whatever it submitted
//! or took would be the parent's. So a handler marks every ring of the child as forked, and closes its descriptors: a
//! ring lives as long as anybody has it open, and with it what it has under way.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How many forks lie between this process and the first one that had a ring.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The descriptors of the first rings of the process, -1 where there is none. A fixed place: the handler runs between
/// fork and whatever comes then, when nothing may be locked or allocated.
static DESCRIPTORS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// Keeps forks away while the descriptor of a ring is made or closed, until [`DESCRIPTORS`] says so too: a child would
/// keep a ring of which it knows nothing, or close what has the number by then. The system's own, as that of Rust cannot
/// be locked in one function and unlocked in another, as handlers must.
struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is a lock, which the system's functions take by its address and from any thread.
unsafe impl Sync for Gate {}

static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

impl Gate {
    fn shut(&self) {
        // SAFETY: the mutex lives as long as the program. A thread that has it does not ask for it again: see `hold`.
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
    }

    fn open(&self) {
        // SAFETY: this thread has it. So has that of a child whose parent took it before the fork.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}

/// While it lives, no other thread forks. Whoever has it makes or closes one ring, and calls nothing that may do either.
#[derive(Debug)]
pub(super) struct Held(PhantomData<*const ()>);

/// Waits until no other thread makes or closes a ring, or forks, and keeps it so.
pub(super) fn hold() -> Held {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: the handlers only do what they may around a fork: a lock that no signal handler takes, atomics and
        // `close`. They stay in memory as long as this code does, which is never unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) };
    });
    GATE.shut();
    Held(PhantomData)
}

impl Drop for Held {
    fn drop(&mut self) {
        GATE.open();
    }
}

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
    /// Notes a ring that was made meanwhile.
    pub(super) fn new(fd: RawFd, _: &Held) -> Self {
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

    /// Notes that the ring was closed meanwhile.
    pub(super) fn forget(&mut self, _: &Held) {
        if let Some(place) = self.place.take()
            && !self.is_inherited()
        {
            DESCRIPTORS[place].store(-1, Ordering::Relaxed);
        }
    }
}

extern "C" fn before() {
    GATE.shut();
}

extern "C" fn after() {
    GATE.open();
}

extern "C" fn in_child() {
    GATE.open();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for place in &DESCRIPTORS {
        let fd = place.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the descriptor is a ring's, which from now on nobody in this process uses or closes.
            unsafe { libc::close(fd) };
        }
    }
}
