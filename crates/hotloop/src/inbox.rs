//! The way in for other threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::SegQueue;

use crate::driver::Waker;

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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Waker for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_burst_wakes_a_sleeping_loop_once_and_a_waking_one_never() {
        let waker = Arc::new(Counting::default());
        let inbox = Inbox::new(Arc::clone(&waker));
        inbox.push(1);
        assert_eq!(waker.0.load(Ordering::SeqCst), 0);
        assert!(!inbox.fall_asleep(), "an item is waiting");
        assert_eq!(inbox.pop(), Some(1));
        assert!(inbox.fall_asleep());
        inbox.push(2);
        inbox.push(3);
        assert_eq!(waker.0.load(Ordering::SeqCst), 1);
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(2), Some(3), None));
    }

    #[test]
    fn items_of_one_thread_keep_their_order() {
        let inbox = Arc::new(Inbox::new(Arc::new(Counting::default())));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || (0..500).for_each(|item| inbox.push((thread, item))))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a pusher does not panic");
        }
        let mut next = [0; 4];
        while let Some((thread, item)) = inbox.pop() {
            assert_eq!(item, next[thread as usize]);
            next[thread as usize] += 1;
        }
        assert_eq!(next, [500; 4]);
    }
}
