//! Bytes that wait to be sent.

use std::collections::VecDeque;
use std::io::IoSlice;

/// How many buffers one call sends at most. Linux takes 1024 (`IOV_MAX`); past a few dozen the call is bound by copying.
pub const MAX_SLICES: usize = 64;

/// A queue of owned buffers, of whose first some bytes may be gone already.
#[derive(Debug)]
pub struct SendQueue<B> {
    /// How many bytes are still to be sent.
    len: usize,
    /// They, from the first time on that some have to wait: most streams never have any, and there are thousands of them.
    waiting: Option<Box<Waiting<B>>>,
}

#[derive(Debug)]
struct Waiting<B> {
    /// Oldest first; none is empty.
    buffers: VecDeque<B>,
    /// How many bytes of the first buffer were sent.
    offset: usize,
}

impl<B> Default for SendQueue<B> {
    fn default() -> Self {
        Self {
            len: 0,
            waiting: None,
        }
    }
}

impl<B> Default for Waiting<B> {
    fn default() -> Self {
        Self {
            buffers: VecDeque::new(),
            offset: 0,
        }
    }
}

impl<B: AsRef<[u8]>> SendQueue<B> {
    /// Appends a buffer, of which the first `sent` bytes are gone already.
    pub fn push(&mut self, buffer: B, sent: usize) {
        let len = buffer.as_ref().len().saturating_sub(sent);
        if len == 0 {
            return;
        }
        let waiting = self.waiting.get_or_insert_default();
        debug_assert!(
            sent == 0 || waiting.buffers.is_empty(),
            "only the first buffer may have been sent in part"
        );
        if waiting.buffers.is_empty() {
            waiting.offset = sent;
        }
        waiting.buffers.push_back(buffer);
        self.len += len;
    }

    /// How many bytes wait.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `slices` with the first buffers and says how many there are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_SLICES]) -> usize {
        let Some(waiting) = &self.waiting else {
            return 0;
        };
        let mut offset = waiting.offset;
        let mut count = 0;
        for (slice, buffer) in slices.iter_mut().zip(&waiting.buffers) {
            *slice = IoSlice::new(&buffer.as_ref()[offset..]);
            offset = 0;
            count += 1;
        }
        count
    }

    /// Takes away `sent` bytes from the front; more than there are count as all.
    pub fn advance(&mut self, sent: usize) {
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        let mut sent = sent.min(self.len);
        self.len -= sent;
        while let Some(first) = waiting.buffers.front() {
            let left = first.as_ref().len() - waiting.offset;
            if sent < left {
                waiting.offset += sent;
                return;
            }
            sent -= left;
            waiting.offset = 0;
            waiting.buffers.pop_front();
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gives_out_what_came_in(
            buffers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..200),
            steps in prop::collection::vec(1usize..40, 1..50),
        ) {
            let mut queue = SendQueue::default();
            let expected = buffers.concat();
            for buffer in buffers {
                queue.push(buffer, 0);
            }
            let mut sent = Vec::new();
            for step in steps.iter().cycle() {
                if queue.is_empty() {
                    break;
                }
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = queue.slices(&mut slices);
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                prop_assert!(!bytes.is_empty());
                let step = (*step).min(bytes.len());
                sent.extend_from_slice(&bytes[..step]);
                queue.advance(step);
                prop_assert_eq!(queue.len(), expected.len() - sent.len());
            }
            prop_assert_eq!(sent, expected);
        }
    }

    #[test]
    fn a_first_buffer_may_be_sent_in_part() {
        let mut queue = SendQueue::default();
        queue.push(b"abc".to_vec(), 2);
        queue.push(b"de".to_vec(), 0);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = queue.slices(&mut slices);
        assert_eq!(
            slices[..count]
                .iter()
                .map(|slice| slice.to_vec())
                .collect::<Vec<_>>()
                .concat(),
            b"cde"
        );
        assert_eq!(queue.len(), 3);
    }
}
