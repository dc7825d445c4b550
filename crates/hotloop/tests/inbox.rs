//! The inbox, with real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hotloop::driver::Waker;
use hotloop::inbox::Inbox;

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
