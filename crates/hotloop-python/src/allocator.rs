//! What glibc's allocator is shown where messages are long.

use std::hint::black_box;
use std::sync::Once;

/// From so many bytes in one piece on, received data is long: it takes several pages, which the kernel clears one by one.
pub(crate) const LONG: usize = 32 * 1024;

/// The block that is freed, in bytes. glibc keeps twice as much: dozens of connections with 100 KiB in hand.
const FREED: usize = 4 << 20;

/// Says that so many bytes are about to be copied into an object of their own.
///
/// glibc gives the end of its heap back to the kernel whenever 128 KiB of it are free. Where a turn allocates more than
/// that and frees it, each turn takes those pages anew, and that they are cleared costs more than what is done with
/// them: half of an echo of 100 KiB through a stream reader. glibc learns by itself from any large block that is freed:
/// twice its size may be free from then on (mallopt(3), `M_MMAP_THRESHOLD`). So one is freed here, once in a process and
/// not before messages are long. Where the program or its environment has set these numbers, glibc learns nothing.
#[inline]
pub(crate) fn expect(length: usize) {
    if length >= LONG {
        keep_pages();
    }
}

#[cold]
fn keep_pages() {
    static FREE: Once = Once::new();
    FREE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(FREED))));
}
