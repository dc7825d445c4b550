//! Several datagrams a call, as Linux has that: `recvmmsg`, `sendmmsg`, and datagrams that travel together (UDP_GRO,
//! UDP_SEGMENT).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::{Batch, SLOT, Span, name_of};
use crate::driver::{MAX_ADDRESS, MAX_BATCH, MAX_SENT, Outgoing, run_length};
use crate::sys::borrow;

/// Room for what the kernel says beside a message, in bytes: a size of a few, behind time stamps and the like if somebody
/// has asked the socket for them.
const SAID: usize = 256;

/// Receives up to `limit` datagrams into an empty `batch`.
#[inline]
pub(super) fn receive(fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_BATCH];
    let mut said = [const { MaybeUninit::<Control<SAID>>::uninit() }; MAX_BATCH];
    let slots = batch.room.chunks_exact_mut(SLOT).zip(&mut batch.from);
    let rooms = slots.zip(&mut parts).zip(&mut said);
    for ((((slot, from), part), said), header) in rooms.zip(&mut headers).take(limit) {
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
        header.msg_hdr.msg_control = said.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = SAID;
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
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    for (slot, header) in headers.iter().enumerate().take(count) {
        // SAFETY: no more headers come back than were passed, and those were filled.
        let header = unsafe { header.assume_init_ref() };
        let len = (header.msg_len as usize).min(SLOT);
        batch.from[slot].len = header.msg_hdr.msg_namelen.min(MAX_ADDRESS as u32);
        // SAFETY: the kernel has written so much of the control data as the header says now, which is still there.
        let size = unsafe { size_of_each(&header.msg_hdr) };
        batch.spans.extend(datagrams_of(slot, len, size));
    }
    Ok(())
}

/// Sends datagrams, the first ones of them, and says how many.
#[inline]
pub(super) fn send(fd: BorrowedFd<'_>, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
    let first = run_length(datagrams);
    if first > 1 && takes_apart(fd) {
        let sent = send_messages(fd, datagrams, run_length);
        // A way out that does not take them together has sent none of them.
        if sent.as_ref().is_err_and(refuses_runs) {
            return send_messages(fd, &datagrams[..first], |_| 1);
        }
        return sent;
    }
    send_messages(fd, datagrams, |_| 1)
}

/// Whether the kernel takes messages on a socket apart. It is asked each time, which costs little beside what it saves:
/// a message with this request on another kind of socket, or to an older kernel, would go out as one datagram.
fn takes_apart(fd: BorrowedFd<'_>) -> bool {
    let mut size: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both are valid for what the kernel writes.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut size).cast(),
            &raw mut len,
        )
    };
    answer == 0
}

/// Whether an error can be that of datagrams that were sent together, and not of any of them: too long for the network
/// that they go to, or a device that computes no checksums.
fn refuses_runs(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP)
    )
}

/// The request to take a message apart.
#[repr(C)]
struct Segments {
    header: libc::cmsghdr,
    /// How long each datagram is but the last.
    size: u16,
}

/// Sends datagrams, so many of them a message as `run` says of those that are left.
fn send_messages(
    fd: BorrowedFd<'_>,
    datagrams: &[Outgoing<'_>],
    run: impl Fn(&[Outgoing<'_>]) -> usize,
) -> io::Result<usize> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_SENT];
    let mut requests = [const { MaybeUninit::<Segments>::uninit() }; MAX_SENT];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MAX_SENT];
    // How many datagrams each message has.
    let mut runs = [0; MAX_SENT];
    let mut rest = &datagrams[..datagrams.len().min(MAX_SENT)];
    let mut parts = parts.as_mut_slice();
    let mut count = 0;
    for ((header, request), length) in headers.iter_mut().zip(&mut requests).zip(&mut runs) {
        let Some(first) = rest.first() else { break };
        *length = run(rest).clamp(1, rest.len());
        let (together, others) = rest.split_at(*length);
        let (ours, free) = std::mem::take(&mut parts).split_at_mut(*length);
        for (part, datagram) in ours.iter_mut().zip(together) {
            part.write(libc::iovec {
                iov_base: datagram.bytes.as_ptr().cast_mut().cast(),
                iov_len: datagram.bytes.len(),
            });
        }
        let (name, len) = name_of(first);
        // SAFETY: a header of zeros is one without a name, parts or control data.
        let header = header.write(unsafe { std::mem::zeroed() });
        header.msg_hdr.msg_name = name.cast_mut().cast();
        header.msg_hdr.msg_namelen = len;
        header.msg_hdr.msg_iov = ours.as_mut_ptr().cast();
        header.msg_hdr.msg_iovlen = *length;
        if *length > 1 {
            // SAFETY: a request of zeros is one, if of nothing.
            let request = request.write(unsafe { std::mem::zeroed() });
            request.header.cmsg_level = libc::SOL_UDP;
            request.header.cmsg_type = libc::UDP_SEGMENT;
            // SAFETY: this only computes.
            request.header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as usize;
            request.size = first.bytes.len() as u16;
            header.msg_hdr.msg_control = (&raw mut *request).cast();
            header.msg_hdr.msg_controllen = size_of::<Segments>();
        }
        (rest, parts) = (others, free);
        count += 1;
    }
    // SAFETY: the first `count` headers are filled; the kernel only reads what they point to, which outlives the call.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count,
            libc::MSG_NOSIGNAL,
        )
    };
    let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    Ok(runs[..sent].iter().sum())
}

/// The datagrams of a message that came in: it is one, unless it has more bytes than each of them has (`size`, none if
/// the kernel told none). The last one may be shorter.
fn datagrams_of(slot: usize, len: usize, size: usize) -> impl Iterator<Item = Span> {
    let size = if size == 0 { len } else { size };
    let (whole, rest) = len.checked_div(size).map_or((0, 0), |whole| (whole, len % size));
    let count = (whole + usize::from(rest > 0)).max(1);
    (0..count).map(move |index| Span {
        slot,
        start: index * size,
        len: size.min(len - index * size),
    })
}

/// How long each datagram of a message is that the kernel has put together (UDP_GRO); 0 if it says nothing.
///
/// # Safety
/// The control data that the header points to are valid, as far as its length says.
unsafe fn size_of_each(header: &libc::msghdr) -> usize {
    // SAFETY: of a valid header.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: these macros give null, or where a whole header lies in the control data.
        let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        if (level, kind) == (libc::SOL_UDP, libc::UDP_GRO) {
            // SAFETY: what follows a header of this kind is an int, which need not be aligned.
            let size = unsafe { libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(size).unwrap_or(0);
        }
        // SAFETY: `control` lies in the control data of this header.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    0
}

/// Room for control data, aligned as their headers are.
#[repr(C, align(8))]
struct Control<const SIZE: usize>([MaybeUninit<u8>; SIZE]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_is_taken_apart_without_a_gap(slot in 0..MAX_BATCH, len in 0..SLOT, size in 0..2_000_usize) {
            let spans: Vec<_> = datagrams_of(slot, len, size).collect();
            prop_assert!(spans.iter().all(|span| span.slot == slot));
            let mut end = 0;
            for span in &spans {
                prop_assert_eq!(span.start, end);
                end += span.len;
            }
            prop_assert_eq!(end, len);
            let (last, others) = spans.split_last().expect("an empty message is a datagram too");
            prop_assert!(others.iter().all(|span| span.len == size));
            prop_assert!(size == 0 || last.len <= size);
            prop_assert!(last.len > 0 || len == 0);
        }
    }
}
