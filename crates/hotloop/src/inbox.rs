//! The way in for other threads.

use crate::driver::Waker;
use crate::sync::{Arc, AtomicBool, Ordering, SegQueue};

/// A lock-free queue that any thread may push to, and that wakes the loop only when the loop sleeps.
///
/// A burst of pushes costs one wake-up: the first pusher that finds the loop asleep takes the flag down, and the rest
/// find it down. Items of one thread come out in the order in which that thread pushed them.
#[derive(Debug)]
pub struct Inbox<T, W> {
    /// Pushed by any thread, popped by the loop's.
    queue: SegQueue<T>,
    /// Raised by the loop before it waits, lowered by it afterwards or by the pusher that wakes it.
    asleep: AtomicBool,
    waker: Arc<W>,
}

impl<T, W: Waker> Inbox<T, W> {
    /// An empty inbox whose pushes wake through `waker`.
    pub fn new(waker: Arc<W>) -> Self {
        Self {
            queue: SegQueue::new(),
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// Adds an item and wakes the loop if it sleeps. Any thread may call it.
    pub fn push(&self, item: T) {
        self.queue.push(item);
        self.wake();
    }

    /// Wakes the loop if it sleeps. Any thread may call it.
    pub fn wake(&self) {
        // Sequentially consistent, as in `fall_asleep`: either the loop sees the item, or this sees the flag.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// The oldest item.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether nothing is queued at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Says that the loop is about to wait. Answers false if it must not, since something came in.
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// Says that the loop no longer waits.
    pub fn wake_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}
