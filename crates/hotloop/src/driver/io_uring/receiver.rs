//! One stream that the ring receives for: what came in, and what the kernel does.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use super::buffers::{Buffers, Piece};
use crate::driver::OpKey;
use crate::sys::Identity;

/// From so many bytes on a receive is a large one: more than two buffers, each of which the kernel fills by itself.
pub(super) const LARGE: usize = 8 * 1024;

/// After so many large receives in a row the ring receives no more for a stream.
const LEAVE_AFTER: u8 = 2;

/// A stream that the ring receives for.
pub(super) struct Receiver {
    pub(super) fd: RawFd,
    /// What `fd` was when it was submitted: the number may come to mean another.
    pub(super) identity: Identity,
    /// The loop's operation; `None` while it does not want to receive.
    pub(super) key: Option<OpKey>,
    pub(super) kernel: Kernel,
    /// Bytes that came in and were moved out of their buffers, before those in `pieces`.
    pub(super) kept: VecDeque<u8>,
    /// What came in, oldest first.
    pub(super) pieces: VecDeque<Piece>,
    /// What comes behind all of that.
    pub(super) end: Option<End>,
    /// How many large receives in a row there were.
    pub(super) large: u8,
    /// Whether the inner driver shall receive, when the kernel has stopped and everything was taken.
    pub(super) leaving: bool,
    /// Whether the descriptor was let go of: nobody takes anything any more.
    pub(super) released: bool,
    /// Whether it is among the attended.
    pub(super) attended: bool,
    /// Whether the loop was told in this wait, or since.
    pub(super) told: bool,
}

/// What the kernel does for a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Idle,
    Receiving,
    /// It was asked to stop, and has not answered.
    Stopping,
}

/// What a stream ends with.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Peer,
    Error(i32),
}

impl Receiver {
    pub(super) fn new(fd: RawFd, identity: Identity, key: OpKey) -> Self {
        Self {
            fd,
            identity,
            key: Some(key),
            kernel: Kernel::Idle,
            kept: VecDeque::new(),
            pieces: VecDeque::new(),
            end: None,
            large: 0,
            leaving: false,
            released: false,
            attended: false,
            told: false,
        }
    }

    pub(super) fn has_untaken(&self) -> bool {
        !self.kept.is_empty() || !self.pieces.is_empty() || self.end.is_some()
    }

    /// Takes as much as fits of what came in. `None` if there is nothing.
    pub(super) fn take(
        &mut self,
        buffers: &mut Option<Buffers>,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Option<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffer.len() && !self.kept.is_empty() {
            let (bytes, _) = self.kept.as_slices();
            let count = copy(bytes, &mut buffer[filled..]);
            self.kept.drain(..count);
            filled += count;
        }
        if let Some(buffers) = buffers {
            while filled < buffer.len()
                && let Some(piece) = self.pieces.front_mut()
            {
                let count = copy(buffers.bytes(*piece), &mut buffer[filled..]);
                filled += count;
                piece.start += count;
                if piece.start == piece.end {
                    buffers.give_back(piece.buffer);
                    self.pieces.pop_front();
                }
            }
        }
        if filled > 0 {
            self.large = if filled < LARGE {
                0
            } else {
                self.large.saturating_add(1)
            };
            self.leaving |= self.large >= LEAVE_AFTER;
            return Some(Ok(filled));
        }
        match self.end? {
            End::Peer => Some(Ok(0)),
            End::Error(error) => {
                // An error is told once. Behind it the kernel has nothing but the end.
                self.end = Some(End::Peer);
                Some(Err(io::Error::from_raw_os_error(error)))
            }
        }
    }

    /// Moves what came in out of its buffers.
    pub(super) fn keep(&mut self, buffers: &mut Option<Buffers>) {
        let Some(buffers) = buffers else { return };
        for piece in self.pieces.drain(..) {
            self.kept.extend(buffers.bytes(piece));
            buffers.give_back(piece.buffer);
        }
    }
}

/// Copies as many bytes as fit, and says how many those were.
fn copy(from: &[u8], to: &mut [MaybeUninit<u8>]) -> usize {
    let count = from.len().min(to.len());
    // SAFETY: both are that long, and a `MaybeUninit` of a byte is a byte.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().cast(), count) };
    count
}
