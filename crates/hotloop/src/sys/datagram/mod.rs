//! Datagrams in and out, several a call where the kernel has that.

#[cfg(linux)]
mod several;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use super::{NO_SIGNAL, borrow};
use crate::driver::{Address, MAX_ADDRESS, MAX_BATCH, Outgoing};

/// The longest datagram of the Internet families, in bytes. What is longer (Unix only) is received one by one.
const SLOT: usize = 64 * 1024;

/// The longest datagram of all, in bytes: asyncio's own limit (`max_size`). The rest of a longer one is lost.
const LONGEST: usize = 256 * 1024;

/// What datagrams are received into, and who sent them. It is large, so a loop has one; only the pages that datagrams
/// have touched cost memory.
pub struct Batch {
    /// Slots for `MAX_BATCH` messages of up to `SLOT` bytes each, or for one of up to `LONGEST`.
    room: Box<[MaybeUninit<u8>]>,
    /// Who sent the message in each slot.
    from: [Address; MAX_BATCH],
    /// Where each datagram lies, in the order in which they came. Those bytes of `room` are initialised.
    spans: Vec<Span>,
}

/// Where a datagram lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    /// The slot of its message, which is a datagram, or several of one sender that the kernel has put together.
    slot: usize,
    /// Where it begins in the slot.
    start: usize,
    len: usize,
}

const _: () = assert!(LONGEST <= SLOT * MAX_BATCH);

impl Default for Batch {
    fn default() -> Self {
        Self {
            room: Box::new_uninit_slice(SLOT * MAX_BATCH),
            from: [Address::NOTHING; MAX_BATCH],
            spans: Vec::with_capacity(MAX_BATCH),
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.iter().map(|(bytes, from)| (bytes.len(), from)))
            .finish()
    }
}

impl Batch {
    /// How many datagrams there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no datagram.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// A datagram and who sent it.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], &Address)> {
        let span = self.spans.get(index)?;
        let bytes = &self.room[span.slot * SLOT + span.start..][..span.len];
        // SAFETY: these bytes are initialised, see `spans`; the layouts are the same.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), bytes.len()) };
        Some((bytes, &self.from[span.slot]))
    }

    /// The datagrams, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Address)> {
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// Drops all datagrams.
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Appends a datagram to those that were pushed, if there is room for it. What is longer than a slot is cut off,
    /// unless it is the first.
    pub fn push(&mut self, bytes: &[u8], from: Address) -> bool {
        let slot = self.spans.last().map_or(0, |last| last.slot + 1);
        if slot >= MAX_BATCH || self.spans.first().is_some_and(|first| first.len > SLOT) {
            return false;
        }
        let room = &mut self.room[slot * SLOT..][..if slot == 0 { LONGEST } else { SLOT }];
        let len = bytes.len().min(room.len());
        for (room, &byte) in room.iter_mut().zip(bytes) {
            room.write(byte);
        }
        self.from[slot] = from;
        self.spans.push(Span { slot, start: 0, len });
        true
    }
}

/// Receives up to `limit` datagrams into an emptied `batch`: as many as wait, at least one. Only one of a `limit` of
/// one may be longer than those of the Internet families. Where the kernel has no call for several it is one: an error
/// behind it would be taken by another call, and could not be told.
///
/// # Errors
/// The socket's, `WouldBlock` among them. One that comes up behind a datagram is kept by the kernel for the next call.
#[inline]
pub(crate) fn receive_datagrams(fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
    batch.spans.clear();
    #[cfg(linux)]
    if limit > 1 {
        return several::receive(fd, batch, limit.min(MAX_BATCH));
    }
    #[cfg(not(linux))]
    let _ = limit;
    let (len, from) = receive_from(fd, &mut batch.room[..LONGEST])?;
    batch.from[0] = from;
    batch.spans.push(Span {
        slot: 0,
        start: 0,
        len,
    });
    Ok(())
}

/// Receives one datagram into `buffer`, and says how many bytes that were and who sent them.
///
/// # Errors
/// The socket's, `WouldBlock` among them.
pub(crate) fn receive_from(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
    let fd = borrow(fd)?;
    let mut from = Address::NOTHING;
    from.len = MAX_ADDRESS as u32;
    // SAFETY: the buffer and the address are valid for the lengths that are passed.
    let count = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            from.bytes.as_mut_ptr().cast(),
            &raw mut from.len,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    from.len = from.len.min(MAX_ADDRESS as u32);
    Ok((count, from))
}

/// Sends datagrams, the first ones of them, and says how many. A peer that is gone is an error, never a signal.
/// Neighbours of one size to one address leave together, where the kernel can take them apart again behind the part of
/// its work that is the same for all (UDP_SEGMENT). Where the kernel has no call for several, it is one.
///
/// # Errors
/// The first one's, `WouldBlock` among them. What fails a later one is the first one's next time.
#[inline]
pub(crate) fn send_datagrams(fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
    let fd = borrow(fd)?;
    #[cfg(linux)]
    if datagrams.len() != 1 {
        return several::send(fd, datagrams);
    }
    let Some(datagram) = datagrams.first() else {
        return Ok(0);
    };
    let (name, len) = name_of(datagram);
    // SAFETY: the bytes and the address are valid for the lengths that are passed.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            datagram.bytes.as_ptr().cast(),
            datagram.bytes.len(),
            NO_SIGNAL.bits() as libc::c_int,
            name.cast(),
            len,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(1)
}

/// Where a datagram's address lies and how long it is; null and 0 without one.
fn name_of(datagram: &Outgoing<'_>) -> (*const u8, libc::socklen_t) {
    match datagram.to {
        None => (std::ptr::null(), 0),
        Some(to) => (to.bytes.as_ptr(), to.len),
    }
}
