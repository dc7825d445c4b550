//! The callbacks that wait for a time.

/// A compaction is worth its cost only past this many entries (asyncio's `_MIN_SCHEDULED_TIMER_HANDLES`).
const COMPACT_ABOVE: usize = 100;

/// A binary heap of timers by due time, in which the place of a cancelled timer stays until it surfaces or a compaction
/// sweeps it.
///
/// Cancelling is O(1): the owner marks its timer and reports the fact with [`Timers::note_cancelled`]. The heap sifts
/// as Python's `heapq` does (down along the smaller child to a leaf, then up), so that timers of one and the same due
/// time come out in the order in which stock asyncio runs them, which is not the order of scheduling.
#[derive(Debug)]
pub struct Timers<T> {
    /// A heap: the children of `i` are `2 * i + 1` and `2 * i + 2`.
    heap: Vec<Entry<T>>,
    /// How many entries of the heap are known to be cancelled.
    cancelled: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// Due time, in seconds of the loop's clock.
    when: f64,
    /// `None` if it was cancelled and is gone already. That the entry stays keeps the order of equal times.
    timer: Option<T>,
}

impl<T> Entry<T> {
    fn is_cancelled(&self, is_cancelled: &impl Fn(&T) -> bool) -> bool {
        self.timer.as_ref().is_none_or(is_cancelled)
    }
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self {
            heap: Vec::new(),
            cancelled: 0,
        }
    }
}

impl<T> Timers<T> {
    /// Adds a timer due at `when`, in seconds of the loop's clock. O(log n).
    pub fn push(&mut self, when: f64, timer: T) {
        let timer = Some(timer);
        self.heap.push(Entry { when, timer });
        self.sift_up(0, self.heap.len() - 1);
    }

    /// Reports that one timer in the heap was cancelled.
    #[inline]
    pub fn note_cancelled(&mut self) {
        self.cancelled += 1;
    }

    /// Takes a timer out of its entry, if that is the last one of the heap: as is one that was set just now, for later
    /// than the others. So time limits that are set and not reached, one after the other, take no more room than one.
    #[inline]
    pub fn take_last(&mut self, is_it: impl FnOnce(&T) -> bool) -> Option<T> {
        self.heap.last_mut()?.timer.take_if(|timer| is_it(timer))
    }

    /// How many cancelled timers are still in the heap.
    pub fn cancelled(&self) -> usize {
        self.cancelled
    }

    /// The due time of the next timer, cancelled or not.
    #[inline]
    pub fn next_when(&self) -> Option<f64> {
        self.heap.first().map(|entry| entry.when)
    }

    /// Takes the next timer if it is due before `end`.
    pub fn pop_due(&mut self, end: f64) -> Option<T> {
        loop {
            // Not `when < end`: a due time that is not a number counts as due, as it does in asyncio.
            if self.heap.first()?.when >= end {
                return None;
            }
            let first = self.pop_first();
            if first.is_some() {
                return first;
            }
        }
    }

    /// Takes one timer out of the middle, if it is there. O(n).
    pub fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let position = self
            .heap
            .iter()
            .position(|entry| entry.timer.as_ref().is_some_and(&is_it))?;
        let entry = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.sift_down(position);
            self.sift_up(0, position);
        }
        entry.timer
    }

    /// Takes the cancelled timers that need not stay: those at the top, and all if more than half of many are cancelled.
    ///
    /// They are handed out rather than dropped here, because dropping one may run foreign code.
    pub fn sweep(&mut self, is_cancelled: impl Fn(&T) -> bool, swept: &mut Vec<T>) {
        if self.heap.len() > COMPACT_ABOVE && self.cancelled * 2 > self.heap.len() {
            let all = std::mem::take(&mut self.heap);
            for entry in all {
                if entry.is_cancelled(&is_cancelled) {
                    swept.extend(entry.timer);
                } else {
                    self.heap.push(entry);
                }
            }
            for root in (0..self.heap.len() / 2).rev() {
                self.sift_down(root);
            }
            self.cancelled = 0;
            return;
        }
        if self.cancelled == 0 {
            return;
        }
        while let Some(first) = self.heap.first()
            && first.is_cancelled(&is_cancelled)
        {
            self.cancelled = self.cancelled.saturating_sub(1);
            swept.extend(self.pop_first());
        }
    }

    /// How many timers are in the heap, cancelled ones included, those that are gone too.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no timer is in the heap.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The timers, in heap order, but for those that are gone.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().filter_map(|entry| entry.timer.as_ref())
    }

    /// Takes all timers out, so that the caller can drop them when it holds nothing borrowed.
    pub fn take(&mut self) -> Vec<T> {
        self.cancelled = 0;
        std::mem::take(&mut self.heap)
            .into_iter()
            .filter_map(|entry| entry.timer)
            .collect()
    }

    /// Takes the root. The heap must not be empty.
    fn pop_first(&mut self) -> Option<T> {
        let first = self.heap.swap_remove(0);
        if !self.heap.is_empty() {
            self.sift_down(0);
        }
        first.timer
    }

    /// Moves the entry at `position` towards `root` while it is due before its parent.
    fn sift_up(&mut self, root: usize, mut position: usize) {
        while position > root {
            let parent = (position - 1) / 2;
            if self.is_due_before(position, parent) {
                self.heap.swap(position, parent);
                position = parent;
            } else {
                break;
            }
        }
    }

    /// Moves the entry at `root` down to a leaf along the smaller children, then up to its place.
    fn sift_down(&mut self, root: usize) {
        let end = self.heap.len();
        let mut position = root;
        loop {
            let left = 2 * position + 1;
            if left >= end {
                break;
            }
            let right = left + 1;
            let smaller = if right >= end || self.is_due_before(left, right) {
                left
            } else {
                right
            };
            self.heap.swap(position, smaller);
            position = smaller;
        }
        self.sift_up(root, position);
    }

    /// Whether one entry is due before another. A time that is not a number is neither before nor after any.
    fn is_due_before(&self, one: usize, other: usize) -> bool {
        self.heap[one].when < self.heap[other].when
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(timers: &mut Timers<u32>) -> Vec<u32> {
        std::iter::from_fn(|| timers.pop_due(f64::INFINITY)).collect()
    }

    #[test]
    fn equal_times_come_out_as_from_pythons_heapq() {
        // Made with heapq: seven entries of one time, labelled in order of pushing, popped.
        let mut timers = Timers::default();
        for label in 0..7 {
            timers.push(1.0, label);
        }
        assert_eq!(drain(&mut timers), [0, 2, 5, 6, 4, 1, 3]);
    }

    #[test]
    fn only_what_is_due_comes_out() {
        let mut timers = Timers::default();
        timers.push(2.0, 2);
        timers.push(1.0, 1);
        assert_eq!(timers.pop_due(1.0), None, "due at the end is not before the end");
        assert_eq!(timers.pop_due(1.5), Some(1));
        assert_eq!(timers.pop_due(1.5), None);
        assert_eq!(timers.next_when(), Some(2.0));
    }

    #[test]
    fn a_cancelled_top_is_swept_and_a_buried_one_stays() {
        let mut timers = Timers::default();
        for label in 0..3 {
            timers.push(f64::from(label), label);
        }
        timers.note_cancelled();
        timers.note_cancelled();
        let mut swept = Vec::new();
        timers.sweep(|&label| label == 0 || label == 2, &mut swept);
        assert_eq!(swept, [0]);
        assert_eq!(timers.len(), 2);
        assert_eq!(timers.cancelled(), 1);
    }

    #[test]
    fn only_the_last_one_can_be_gone_early() {
        let mut timers = Timers::default();
        timers.push(1.0, 1);
        timers.push(2.0, 2);
        assert_eq!(timers.take_last(|&label| label == 1), None);
        assert_eq!(timers.take_last(|&label| label == 2), Some(2));
        assert_eq!(timers.take_last(|&label| label == 2), None);
        assert_eq!(timers.len(), 2, "its place stays");
        assert_eq!(drain(&mut timers), [1]);
        assert!(timers.is_empty());
    }

    /// What the owner of timers does with them.
    #[derive(Clone, Debug)]
    enum Step {
        Push(u32),
        Cancel(prop::sample::Index),
        Remove(prop::sample::Index),
        Sweep,
        PopDue(u32),
    }

    fn a_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u32..50).prop_map(Step::Push),
            4 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => Just(Step::Sweep),
            1 => (0u32..50).prop_map(Step::PopDue),
        ]
    }

    proptest! {
        #[test]
        fn any_program_agrees_with_an_unordered_list(
            first in prop::collection::vec(0u32..50, 0..200),
            steps in prop::collection::vec(a_step(), 0..200),
        ) {
            let mut timers = Timers::default();
            // By label: when it is due, and whether it is cancelled.
            let mut made: Vec<(f64, bool)> = Vec::new();
            let mut there: Vec<usize> = Vec::new();
            for step in first.into_iter().map(Step::Push).chain(steps) {
                match step {
                    Step::Push(when) => {
                        timers.push(f64::from(when), made.len());
                        there.push(made.len());
                        made.push((f64::from(when), false));
                    }
                    Step::Cancel(index) if !there.is_empty() => {
                        let label = *index.get(&there);
                        if !std::mem::replace(&mut made[label].1, true) {
                            timers.note_cancelled();
                        }
                    }
                    Step::Remove(index) if !there.is_empty() => {
                        let label = there.swap_remove(index.index(there.len()));
                        prop_assert_eq!(timers.remove(|&found| found == label), Some(label));
                    }
                    Step::Cancel(_) | Step::Remove(_) => {}
                    Step::Sweep => {
                        let mut swept = Vec::new();
                        timers.sweep(|&label| made[label].1, &mut swept);
                        prop_assert!(swept.iter().all(|&label| made[label].1));
                        let before = there.len();
                        there.retain(|label| !swept.contains(label));
                        prop_assert_eq!(before - there.len(), swept.len(), "each was there, once");
                        let left = there.iter().filter(|&&label| made[label].1).count();
                        prop_assert!(there.len() <= COMPACT_ABOVE || left * 2 <= there.len());
                        prop_assert!(timers.iter().next().is_none_or(|&label| !made[label].1));
                    }
                    Step::PopDue(end) => {
                        let end = f64::from(end);
                        let popped = timers.pop_due(end);
                        let earliest = there.iter().map(|&label| made[label].0).min_by(f64::total_cmp);
                        prop_assert_eq!(popped.map(|label| made[label].0), earliest.filter(|&when| when < end));
                        if let Some(popped) = popped {
                            let position = there.iter().position(|&label| label == popped);
                            prop_assert!(position.is_some(), "it was there");
                            there.retain(|&label| label != popped);
                        }
                    }
                }
                prop_assert_eq!(timers.len(), there.len());
                let earliest = there.iter().map(|&label| made[label].0).min_by(f64::total_cmp);
                prop_assert_eq!(timers.next_when(), earliest);
                prop_assert!(timers.cancelled() >= there.iter().filter(|&&label| made[label].1).count());
            }
            let mut left = timers.take();
            left.sort_unstable();
            there.sort_unstable();
            prop_assert_eq!(left, there);
        }

        #[test]
        fn a_timer_that_is_gone_early_changes_the_order_of_no_other(
            steps in prop::collection::vec((0u32..6, prop_oneof![3 => Just(0u32), 2 => Just(1), 1 => Just(2)], 0u32..8), 0..400),
        ) {
            // The same is done to both, but that the first lets go of what is cancelled at its end.
            let (mut early, mut late) = (Timers::default(), Timers::default());
            let mut cancelled = Vec::new();
            let mut gone = 0;
            for (when, cancels, then) in steps {
                let label = cancelled.len();
                cancelled.push(cancels > 0);
                early.push(f64::from(when), label);
                late.push(f64::from(when), label);
                if cancels > 0 {
                    early.note_cancelled();
                    late.note_cancelled();
                    let taken = early.take_last(|&last| last == label);
                    prop_assert!(taken.is_none_or(|taken| taken == label));
                    gone += usize::from(taken.is_some());
                    prop_assert!(early.iter().count() + gone >= late.len());
                }
                if then == 0 {
                    early.sweep(|&label| cancelled[label], &mut Vec::new());
                    late.sweep(|&label| cancelled[label], &mut Vec::new());
                } else if then == 1 {
                    let due = |timers: &mut Timers<usize>| {
                        let popped = std::iter::from_fn(|| timers.pop_due(f64::from(when)));
                        popped.filter(|&label| !cancelled[label]).collect::<Vec<_>>()
                    };
                    prop_assert_eq!(due(&mut early), due(&mut late));
                }
                prop_assert_eq!((early.len(), early.cancelled()), (late.len(), late.cancelled()));
                prop_assert_eq!(early.next_when(), late.next_when());
            }
        }

        #[test]
        fn what_is_left_behind_a_removal_is_in_order(times in prop::collection::vec(0u32..50, 1..100), removed: prop::sample::Index) {
            let mut timers = Timers::default();
            for (label, &time) in times.iter().enumerate() {
                timers.push(f64::from(time), label);
            }
            let removed = removed.index(times.len());
            prop_assert_eq!(timers.remove(|&label| label == removed), Some(removed));
            prop_assert_eq!(timers.remove(|&label| label == removed), None);
            let left: Vec<u32> = std::iter::from_fn(|| timers.pop_due(f64::INFINITY)).map(|label| times[label]).collect();
            let mut expected = times.clone();
            expected.remove(removed);
            expected.sort_unstable();
            prop_assert_eq!(left, expected);
        }

        #[test]
        fn order_and_compaction_agree_with_a_sorted_list(
            times in prop::collection::vec(0u32..50, 0..300),
            cancelled in prop::collection::vec(any::<bool>(), 300),
        ) {
            let mut timers = Timers::default();
            for (label, &time) in times.iter().enumerate() {
                timers.push(f64::from(time), label as u32);
            }
            let is_cancelled = |label: &u32| cancelled[*label as usize];
            for label in 0..times.len() as u32 {
                if is_cancelled(&label) {
                    timers.note_cancelled();
                }
            }
            let mut swept = Vec::new();
            timers.sweep(is_cancelled, &mut swept);
            prop_assert!(swept.iter().all(is_cancelled));
            let left: Vec<u32> = drain(&mut timers).into_iter().filter(|label| !is_cancelled(label)).collect();
            let mut expected: Vec<u32> = (0..times.len() as u32).filter(|label| !is_cancelled(label)).collect();
            expected.sort_by_key(|&label| times[label as usize]);
            let when = |labels: &[u32]| labels.iter().map(|&label| times[label as usize]).collect::<Vec<_>>();
            prop_assert_eq!(when(&left), when(&expected));
            let mut labels = left;
            labels.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(labels, expected);
        }
    }
}
