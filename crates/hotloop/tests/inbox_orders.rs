//! The inbox in every order that its threads can come in: its source once more, over what loom can see into.
//!
//! loom takes sequential consistency for acquire and release, and the queue's stand-in has a lock. What this proves is the
//! protocol, then: that nobody sleeps while something is queued, whoever comes first. That the orderings are enough for a
//! queue without a lock is said where they are.

use loom::sync::{Condvar, Mutex};
use loom::thread;

use crate::driver::Waker;
use crate::inbox::Inbox;
use crate::sync::{Arc, AtomicBool, Ordering};

#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is public where it belongs, and all of it used there"
)]
#[path = "../src/inbox.rs"]
mod inbox;

/// What the inbox takes from its crate.
mod driver {
    pub(crate) trait Waker: Send + Sync {
        fn wake(&self);
    }
}

/// loom's, in the place of the standard library's and of the queue.
mod sync {
    use std::collections::VecDeque;

    use loom::sync::Mutex;

    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug)]
    pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

    impl<T> SegQueue<T> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(VecDeque::new()))
        }

        pub(crate) fn push(&self, item: T) {
            self.0.lock().expect("no thread panics").push_back(item);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.0.lock().expect("no thread panics").pop_front()
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.lock().expect("no thread panics").is_empty()
        }
    }
}

/// An eventfd: a wake-up that nobody waits for is not lost.
#[derive(Default)]
struct Eventfd {
    readable: Mutex<bool>,
    turned: Condvar,
}

impl Eventfd {
    fn wait(&self) {
        let mut readable = self.readable.lock().expect("no thread panics");
        while !*readable {
            readable = self.turned.wait(readable).expect("no thread panics");
        }
        *readable = false;
    }
}

impl Waker for Eventfd {
    fn wake(&self) {
        *self.readable.lock().expect("no thread panics") = true;
        self.turned.notify_one();
    }
}

/// A flag instead of something to wait for: whether a wake-up was wanted.
struct Flag(AtomicBool);

impl Waker for Flag {
    fn wake(&self) {
        assert!(!self.0.swap(true, Ordering::SeqCst), "one burst, two wake-ups");
    }
}

/// Runs `model` in every order with at most so many preemptions.
fn every_order(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A loop that takes what comes in until it has `wanted` items; loom tells of one that sleeps for ever.
fn take(inbox: &Inbox<usize, Eventfd>, eventfd: &Eventfd, wanted: usize) -> Vec<usize> {
    let mut items = Vec::new();
    while items.len() < wanted {
        if inbox.fall_asleep() {
            eventfd.wait();
            inbox.wake_up();
        }
        while let Some(item) = inbox.pop() {
            items.push(item);
        }
    }
    items
}

#[test]
fn a_loop_does_not_sleep_while_something_is_queued() {
    every_order(3, || {
        let eventfd = Arc::new(Eventfd::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&eventfd)));
        let pushing = Arc::clone(&inbox);
        let pusher = thread::spawn(move || {
            pushing.push(1);
            pushing.push(2);
        });
        assert_eq!(take(&inbox, &eventfd, 2), [1, 2]);
        pusher.join().expect("it does not panic");
    });
}

#[test]
fn nor_with_two_who_push() {
    every_order(2, || {
        let eventfd = Arc::new(Eventfd::default());
        let inbox = Arc::new(Inbox::new(Arc::clone(&eventfd)));
        let pushers = [1, 2].map(|item| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.push(item))
        });
        let mut items = take(&inbox, &eventfd, 2);
        items.sort_unstable();
        assert_eq!(items, [1, 2]);
        for pusher in pushers {
            pusher.join().expect("it does not panic");
        }
    });
}

#[test]
fn a_loop_that_sleeps_once_is_woken_once() {
    every_order(3, || {
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let inbox = Arc::new(Inbox::new(Arc::clone(&flag)));
        let sleeps = inbox.fall_asleep();
        assert!(sleeps, "nothing is queued yet");
        let pushers = [1, 2].map(|item| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.push(item))
        });
        for pusher in pushers {
            pusher.join().expect("it does not panic");
        }
        assert!(flag.0.load(Ordering::SeqCst), "it was woken");
        assert!(inbox.pop().is_some() && inbox.pop().is_some());
    });
}
