//! Datagrams in and out, several a call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};

use super::borrow;
use crate::driver::{Address, MAX_ADDRESS, MAX_BATCH, Outgoing};

/// The longest datagram of the Internet families, in bytes. What is longer (Unix only) is received one by one.
const SLOT: usize = 64 * 1024;

/// The longest datagram of all, in bytes: asyncio's own limit (`max_size`). The rest of a longer one is lost.
const LONGEST: usize = 256 * 1024;

/// What datagrams are received into, and who sent them. It is large, so a loop has one; only the pages that datagrams
/// have touched cost memory.
pub struct Batch {
    /// Room for `MAX_BATCH` datagrams of up to `SLOT` bytes each, or for one of up to `LONGEST`.
    room: Box<[MaybeUninit<u8>]>,
    /// Who sent each datagram.
    from: [Address; MAX_BATCH],
    /// How long each datagram is. The first so many bytes of its slot are initialised.
    lengths: [usize; MAX_BATCH],
    /// How many datagrams there are.
    count: usize,
}

const _: () = assert!(LONGEST <= SLOT * MAX_BATCH);

impl Default for Batch {
    fn default() -> Self {
        Self {
            room: Box::new_uninit_slice(SLOT * MAX_BATCH),
            from: [Address::NOTHING; MAX_BATCH],
            lengths: [0; MAX_BATCH],
            count: 0,
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
        self.count
    }

    /// Whether there is no datagram.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A datagram and who sent it.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], &Address)> {
        if index >= self.count {
            return None;
        }
        let bytes = &self.room[index * SLOT..][..self.lengths[index]];
        // SAFETY: so many bytes of the slot are initialised, see `lengths`; the layouts are the same.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), bytes.len()) };
        Some((bytes, &self.from[index]))
    }

    /// The datagrams, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Address)> {
        (0..self.count).map_while(|index| self.get(index))
    }

    /// Drops all datagrams.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Appends a datagram, if there is room for it. What is longer than a slot is cut off, unless it is the first.
    pub fn push(&mut self, bytes: &[u8], from: Address) -> bool {
        let index = self.count;
        if index >= MAX_BATCH || (index > 0 && self.lengths[0] > SLOT) {
            return false;
        }
        let slot = &mut self.room[index * SLOT..][..if index == 0 { LONGEST } else { SLOT }];
        let len = bytes.len().min(slot.len());
        for (slot, &byte) in slot.iter_mut().zip(bytes) {
            slot.write(byte);
        }
        (self.from[index], self.lengths[index]) = (from, len);
        self.count += 1;
        true
    }
}

/// Receives up to `limit` datagrams into an emptied `batch`: as many as wait, at least one. Only one of a `limit` of
/// one may be longer than those of the Internet families.
///
/// # Errors
/// The socket's, `WouldBlock` among them. One that comes up behind a datagram is kept by the kernel for the next call.
#[inline]
pub(crate) fn receive_datagrams(fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
    batch.count = 0;
    if limit <= 1 {
        (batch.lengths[0], batch.from[0]) = receive_from(fd, &mut batch.room[..LONGEST])?;
        batch.count = 1;
        return Ok(());
    }
    let limit = limit.min(MAX_BATCH);
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let slots = batch.room.chunks_exact_mut(SLOT).zip(&mut batch.from);
    for (((slot, from), part), header) in slots.zip(&mut parts).zip(&mut headers).take(limit) {
        let part = part.write(libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: SLOT,
        });
        // SAFETY: a header of zeros is one without a name, parts or control data.
        let header = header.write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = from.bytes.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = MAX_ADDRESS as libc::socklen_t;
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    let fd = borrow(fd)?;
    // SAFETY: the first `limit` headers are filled; what they point to outlives the call and is large enough.
    let count = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            limit as libc::c_uint,
            0,
            std::ptr::null_mut(),
        )
    };
    batch.count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for (index, header) in headers.iter().enumerate().take(batch.count) {
        // SAFETY: no more headers come back than were passed, and those were filled.
        let header = unsafe { header.assume_init_ref() };
        batch.lengths[index] = (header.msg_len as usize).min(SLOT);
        batch.from[index].len = header.msg_hdr.msg_namelen.min(MAX_ADDRESS as u32);
    }
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
///
/// # Errors
/// The first one's, `WouldBlock` among them. What fails a later one is the first one's next time.
#[inline]
pub(crate) fn send_datagrams(fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
    let fd = borrow(fd)?;
    if let [datagram] = datagrams {
        let (name, len) = name_of(datagram);
        // SAFETY: the bytes and the address are valid for the lengths that are passed.
        let sent = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                datagram.bytes.as_ptr().cast(),
                datagram.bytes.len(),
                libc::MSG_NOSIGNAL,
                name.cast(),
                len,
            )
        };
        return if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(1)
        };
    }
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let count = datagrams.len().min(MAX_BATCH);
    for ((datagram, part), header) in datagrams.iter().zip(&mut parts).zip(&mut headers) {
        let part = part.write(libc::iovec {
            iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
            iov_len: datagram.bytes.len(),
        });
        let (name, len) = name_of(datagram);
        // SAFETY: a header of zeros is one without a name, parts or control data.
        let header = header.write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = name.cast_mut().cast();
        header.msg_hdr.msg_namelen = len;
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers are filled; the kernel only reads what they point to, which outlives the call.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count as libc::c_uint,
            libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Where a datagram's address lies and how long it is; null and 0 without one.
fn name_of(datagram: &Outgoing<'_>) -> (*const u8, libc::socklen_t) {
    match datagram.to {
        None => (std::ptr::null(), 0),
        Some(to) => (to.bytes.as_ptr(), to.len),
    }
}
