//! What is sent with a wait: small writes of a turn, copied, one operation a stream.
//!
//! The kernel does such an operation while it is handed in, or not at all (`MSG_DONTWAIT`), and says nothing of a success. What
//! it does not take, because there is no room or the connection is broken, it says at once. So all of them are over when the
//! call is, and a turn costs one call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use super::ring::Ring;
use super::token;
use crate::driver::Unsent;
use crate::sys;

/// Room that is kept from turn to turn for the bytes of one stream. More is given back.
const KEPT: usize = 32 * 1024;

/// The posts of a turn.
#[derive(Default)]
pub(super) struct Posts {
    /// Those of this turn, and behind them empty ones that are kept for their room.
    posts: Vec<Post>,
    /// How many belong to this turn.
    used: usize,
    /// How many of them were handed in. The kernel may read these.
    begun: usize,
    /// The post of each descriptor, by its number. It counts if that post is used and still the descriptor's.
    descriptors: Vec<u32>,
    /// What could not be sent, for the loop to take.
    unsent: VecDeque<Unsent>,
}

/// What one stream sends.
struct Post {
    fd: RawFd,
    /// Stays where it is while the kernel may read it: nobody appends to a post that was handed in.
    bytes: Vec<u8>,
}

/// How a send never waits, and is whole or an error, and a peer that is gone no signal.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

impl Posts {
    /// Takes bytes for a descriptor, behind those that it has for it. Answers whether it has taken them.
    pub(super) fn post(&mut self, fd: RawFd, bytes: &[u8]) -> bool {
        let Ok(place) = usize::try_from(fd) else {
            return false;
        };
        if let Some(index) = self.index(fd) {
            self.posts[index].bytes.extend_from_slice(bytes);
            return true;
        }
        if place >= self.descriptors.len() {
            self.descriptors.resize(place + 1, u32::MAX);
        }
        self.descriptors[place] = self.used as u32;
        if self.used == self.posts.len() {
            self.posts.push(Post {
                fd,
                bytes: Vec::new(),
            });
        }
        let post = &mut self.posts[self.used];
        post.fd = fd;
        post.bytes.extend_from_slice(bytes);
        self.used += 1;
        true
    }

    /// Sends what was posted on a descriptor by a call of its own.
    pub(super) fn settle(&mut self, fd: RawFd) {
        if let Some(index) = self.index(fd) {
            let post = &mut self.posts[index];
            let sent = sys::send(fd, &[IoSlice::new(&post.bytes)]);
            self.note(index, sent);
        }
    }

    /// Drops what was posted on a descriptor, and what could not be sent.
    pub(super) fn release(&mut self, fd: RawFd) {
        if let Some(index) = self.index(fd) {
            self.posts[index].bytes.clear();
        }
        self.unsent.retain(|unsent| unsent.fd != fd);
    }

    /// Whether a descriptor has bytes that were posted and not sent.
    pub(super) fn holds(&self, fd: RawFd) -> bool {
        self.index(fd).is_some() || self.unsent.iter().any(|unsent| unsent.fd == fd)
    }

    /// The next of what could not be sent.
    pub(super) fn next_unsent(&mut self) -> Option<Unsent> {
        self.unsent.pop_front()
    }

    /// Hands everything in.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn begin(&mut self, ring: &mut Ring) -> io::Result<()> {
        while self.begun < self.used {
            let index = self.begun;
            let Post { fd, bytes } = &self.posts[index];
            if bytes.is_empty() {
                self.begun += 1;
                continue;
            }
            let send = opcode::Send::new(types::Fd(*fd), bytes.as_ptr(), bytes.len() as u32)
                .flags(FLAGS)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(token::post(index));
            // SAFETY: the bytes are left alone until `finish`, and until then kept in place.
            unsafe { ring.push(&send)? };
            self.begun += 1;
        }
        Ok(())
    }

    /// Notes that the kernel has not sent all of a post.
    pub(super) fn complete(&mut self, index: usize, result: i32) {
        let sent = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        self.note(index, sent);
    }

    /// Whether the kernel may read what was posted.
    pub(super) fn is_begun(&self) -> bool {
        self.begun > 0
    }

    /// Whether there is something to hand in, to finish or to tell.
    pub(super) fn is_any_left(&self) -> bool {
        self.used > 0 || !self.unsent.is_empty()
    }

    /// Ends the turn: everything that was handed in is over.
    pub(super) fn finish(&mut self) {
        for post in &mut self.posts[..self.used] {
            post.bytes.clear();
            post.bytes.shrink_to(KEPT);
        }
        (self.used, self.begun) = (0, 0);
    }

    /// Hands everything in once more: the ring that it was handed in to has not begun it.
    pub(super) fn begin_anew(&mut self) {
        self.begun = 0;
    }

    /// The post of a descriptor that was not handed in.
    fn index(&self, fd: RawFd) -> Option<usize> {
        let index = *self.descriptors.get(usize::try_from(fd).ok()?)? as usize;
        let post = self.posts[..self.used].get(index)?;
        (index >= self.begun && post.fd == fd && !post.bytes.is_empty()).then_some(index)
    }

    /// Notes how much of a post was sent.
    fn note(&mut self, index: usize, sent: io::Result<usize>) {
        let post = &mut self.posts[index];
        let (sent, error) = match sent {
            Ok(sent) => (sent, None),
            Err(error) if crate::streams::is_transient(&error) => (0, None),
            Err(error) => (0, Some(error)),
        };
        if sent < post.bytes.len() {
            self.unsent.push_back(Unsent {
                fd: post.fd,
                bytes: post.bytes[sent..].to_vec(),
                error,
            });
        }
        post.bytes.clear();
    }
}
