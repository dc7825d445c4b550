//! Memory that the kernel receives into: it picks a buffer when bytes are there, and not before.

use std::io;
use std::mem::size_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The bytes of one buffer: a page, which most messages fit in.
const SIZE: usize = 4096;

/// How many buffers there are at first.
const FIRST: u16 = 64;

/// How many buffers there are at most: 8 MiB.
pub(super) const MOST: u16 = 2048;

/// What operations call this set of buffers by: there is one a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers, and the ring by which the kernel is given them.
pub(super) struct Buffers {
    /// `MOST` buffers, of which the system has memory only for those that were used.
    memory: Mapping,
    /// `MOST` entries. The kernel reads those up to the tail, which is in the first of them.
    entries: Mapping,
    /// How many were ever given to the kernel: the numbers below this.
    provided: u16,
    /// How many the kernel has filled and nobody has given back.
    out: u16,
    /// Where the next one is given.
    tail: u16,
}

/// A received piece in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) buffer: u16,
    /// The bytes that were not taken yet.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Buffers {
    /// The first buffers, given to the kernel.
    ///
    /// # Errors
    /// The kernel's, if it has no memory for them or may not lock what it needs.
    pub(super) fn new(ring: &IoUring) -> io::Result<Self> {
        let mut buffers = Self {
            memory: Mapping::new(usize::from(MOST) * SIZE)?,
            entries: Mapping::new(usize::from(MOST) * size_of::<BufRingEntry>())?,
            provided: 0,
            out: 0,
            tail: 0,
        };
        let entries = buffers.entries.start.as_ptr() as u64;
        // SAFETY: there are as many entries, at the start of a page. Their memory outlives the ring, or the kernel's pin
        // of the pages does.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(entries, MOST, GROUP, 0)?;
        }
        buffers.provide(FIRST);
        Ok(buffers)
    }

    /// Gives the kernel, which has run out, as many more as it had, unless most of those are there to be used again: to be called
    /// when it says so, before any is given back. Answers whether it has any now.
    pub(super) fn grow(&mut self) -> bool {
        let more = self.provided.min(MOST - self.provided);
        if more > 0 && self.out > self.provided / 2 {
            self.provide(more);
        }
        self.out < self.provided
    }

    /// Notes that the kernel has filled a buffer.
    pub(super) fn take(&mut self, buffer: u16, length: usize) -> Piece {
        self.out += 1;
        Piece {
            buffer,
            start: 0,
            end: length.min(SIZE),
        }
    }

    /// The bytes of a piece.
    pub(super) fn bytes(&self, piece: Piece) -> &[u8] {
        let start = usize::from(piece.buffer) * SIZE + piece.start;
        // SAFETY: the piece lies in the mapping, and its buffer is the kernel's again only when it was given back, which
        // takes this apart from the reference.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), piece.end - piece.start) }
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.out -= 1;
        self.give(buffer);
    }

    fn provide(&mut self, count: u16) {
        for buffer in self.provided..self.provided + count {
            self.give(buffer);
        }
        self.provided += count;
    }

    fn give(&mut self, buffer: u16) {
        let entries = self.entries.start.as_ptr().cast::<BufRingEntry>();
        let address = self.memory.start.as_ptr() as u64 + u64::from(buffer) * SIZE as u64;
        // SAFETY: there are `MOST` entries, a power of two, and all buffers fit in: this one is not the kernel's to read.
        // The tail lies in the part of the first entry that belongs to no buffer, which these setters leave alone.
        let tail = unsafe {
            let entry = &mut *entries.add(usize::from(self.tail & (MOST - 1)));
            entry.set_addr(address);
            entry.set_len(SIZE as u32);
            entry.set_bid(buffer);
            AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut())
        };
        self.tail = self.tail.wrapping_add(1);
        tail.store(self.tail, Ordering::Release);
    }
}

/// Pages of our own.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the pages are nobody else's, but for the kernel, to which all threads of the process are the same.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: the kernel finds a place that nobody has.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self {
                start: start.cast(),
                length,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and nobody refers to them any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
