//! The callbacks that are ready to run.

use std::collections::VecDeque;

/// So many items the queue keeps room for when it has had many more: 2 MiB of callbacks without handles.
const KEPT: usize = 1 << 16;

/// A first-in, first-out queue that knows how many of its items belong to the turn under way.
///
/// What is pushed during a turn waits for the next one, so a callback that schedules itself again cannot starve
/// I/O or timers.
#[derive(Debug)]
pub struct Ready<T> {
    /// Oldest first. Pushed by everyone, popped by the turn.
    queue: VecDeque<T>,
    /// How many from the front belong to the turn under way. Set by `begin_turn`, lowered by `pop`.
    this_turn: usize,
}

impl<T> Default for Ready<T> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            this_turn: 0,
        }
    }
}

impl<T> Ready<T> {
    /// Appends an item, for the next turn that begins.
    #[inline]
    pub fn push(&mut self, item: T) {
        self.queue.push_back(item);
    }

    /// Puts an item in front of all others, inside the turn under way if there is one.
    pub fn push_front(&mut self, item: T) {
        self.queue.push_front(item);
        if self.this_turn > 0 {
            self.this_turn += 1;
        }
    }

    /// Begins a turn: all that is queued now belongs to it. What a crowd took up before is given back once it is gone.
    pub fn begin_turn(&mut self) {
        self.this_turn = self.queue.len();
        if self.queue.capacity() > KEPT && self.this_turn < KEPT / 16 {
            self.queue.shrink_to(KEPT);
        }
    }

    /// How many items of the turn under way are left.
    pub(crate) fn in_turn(&self) -> usize {
        self.this_turn
    }

    /// Has the next `count` items belong to the turn under way too.
    pub(crate) fn extend_turn(&mut self, count: usize) {
        self.this_turn = (self.this_turn + count).min(self.queue.len());
    }

    /// The next item of the turn under way.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.this_turn == 0 {
            return None;
        }
        self.this_turn -= 1;
        self.queue.pop_front()
    }

    /// Takes the oldest item, whichever turn it belongs to.
    pub fn pop_front(&mut self) -> Option<T> {
        self.this_turn = self.this_turn.saturating_sub(1);
        self.queue.pop_front()
    }

    /// How many items are queued, of this turn and later ones.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The items, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter()
    }

    /// The items, oldest first, to be changed in their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.queue.iter_mut()
    }

    /// The newest item, to be changed in its place.
    #[inline]
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.queue.back_mut()
    }

    /// Takes all items out, oldest first, so that the caller can drop them when it holds nothing borrowed.
    pub fn take(&mut self) -> VecDeque<T> {
        self.this_turn = 0;
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_a_crowd_is_given_back() {
        let mut ready = Ready::default();
        (0..10 * KEPT).for_each(|item| ready.push(item));
        ready.begin_turn();
        assert_eq!(std::iter::from_fn(|| ready.pop()).count(), 10 * KEPT);
        ready.push(1);
        assert!(ready.queue.capacity() > KEPT);
        ready.begin_turn();
        assert!(ready.queue.capacity() <= KEPT);
        assert_eq!(ready.pop(), Some(1));
    }

    #[test]
    fn what_a_turn_pushes_waits_for_the_next() {
        let mut ready = Ready::default();
        ready.push(1);
        ready.push(2);
        assert_eq!(ready.pop(), None, "no turn has begun");
        ready.begin_turn();
        assert_eq!(ready.pop(), Some(1));
        ready.push(3);
        assert_eq!(ready.pop(), Some(2));
        assert_eq!(ready.pop(), None);
        ready.begin_turn();
        assert_eq!(ready.pop(), Some(3));
        assert!(ready.is_empty());
    }

    #[test]
    fn taking_all_ends_the_turn() {
        let mut ready = Ready::default();
        ready.push(1);
        ready.begin_turn();
        assert_eq!(ready.take(), [1]);
        ready.push(2);
        assert_eq!(ready.pop(), None);
        assert_eq!(ready.len(), 1);
    }
}
