//! Who waits for something to be done.

use std::task::Waker;

/// The wakers of those who wait. Mostly there is one, which takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakers {
    /// Adds whoever is woken by this one, once.
    pub(super) fn add(&mut self, waker: &Waker) {
        let Some(first) = &self.first else {
            self.first = Some(waker.clone());
            return;
        };
        if !first.will_wake(waker) && !self.others.iter().any(|other| other.will_wake(waker)) {
            self.others.push(waker.clone());
        }
    }

    /// Wakes all, in the order in which they were added.
    pub(super) fn wake(self) {
        self.first.into_iter().chain(self.others).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::task::Wake;

    struct Noting(u32, Arc<Mutex<Vec<u32>>>);

    impl Wake for Noting {
        fn wake(self: Arc<Self>) {
            if let Ok(mut woken) = self.1.lock() {
                woken.push(self.0);
            }
        }
    }

    #[test]
    fn each_is_woken_once_and_in_order() {
        let woken = Arc::new(Mutex::new(Vec::new()));
        let wakers: Vec<_> = (1..=3)
            .map(|number| Waker::from(Arc::new(Noting(number, Arc::clone(&woken)))))
            .collect();
        let mut waiting = Wakers::default();
        for index in [0, 1, 0, 2, 1, 2] {
            waiting.add(&wakers[index]);
        }
        waiting.wake();
        assert_eq!(woken.lock().as_deref().ok(), Some(&vec![1, 2, 3]));
    }
}
