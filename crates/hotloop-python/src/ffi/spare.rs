//! The `bytes` object of a message that has been dealt with, for the next message.

use std::cell::Cell;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{Object, is_unshared, received_bytes};
use crate::allocator;

/// Up to so many bytes a `bytes` object comes from CPython's own allocator, which has one at hand at any time: 512 bytes
/// with what is in front of the contents and the zero behind them (`SMALL_REQUEST_THRESHOLD` in Objects/obmalloc.c).
const SMALL: usize = 512 - size_of::<ffi::PyVarObject>() - size_of::<ffi::Py_hash_t>() - 1;

/// A `bytes` object is filled again with a message that leaves at most this part of its room, so that one which is kept
/// for long holds on to little more than it shows.
const UNUSED: usize = 8;

/// Makes `bytes` objects, of one that nobody has any more where there is one.
///
/// Most protocols are done with a message when `data_received` returns, and the next message of such a size would go
/// through the C library's allocator twice for nothing: 450 instructions of the 2,950 that an echo of 1 KiB takes, since
/// glibc's quick lists end at 1,032 bytes.
#[derive(Default)]
pub(crate) struct Spare(Cell<Option<Object>>);

impl Spare {
    /// A `bytes` object with these contents.
    #[inline]
    pub(crate) fn bytes<'py>(&self, py: Python<'py>, contents: &[u8]) -> Bound<'py, PyAny> {
        if contents.len() > SMALL
            && let Some(spare) = self.0.take()
        {
            let room = length(&spare);
            if contents.len() <= room && room - contents.len() <= room / UNUSED {
                fill(&spare, contents);
                return spare.into_bound(py);
            }
        }
        received_bytes(py, contents)
    }

    /// Keeps a `bytes` object for what comes next, if the caller was the last to have it.
    #[inline]
    pub(crate) fn keep(&self, bytes: Bound<'_, PyAny>) {
        if !bytes.is_exact_instance_of::<PyBytes>() {
            return;
        }
        let bytes = Object::from(bytes);
        if (SMALL + 1..allocator::LONG).contains(&length(&bytes)) && is_unshared(&bytes) {
            self.0.set(Some(bytes));
        }
    }
}

/// How long a `bytes` object is.
#[inline]
fn length(bytes: &Object) -> usize {
    // SAFETY: private to this file, where each caller has a `bytes` object.
    unsafe { ffi::Py_SIZE(bytes.pointer()).unsigned_abs() }
}

/// Gives a `bytes` object other contents, of its length or less.
#[inline]
#[expect(deprecated, reason = "the hash that an object remembers has no other name")]
fn fill(bytes: &Object, contents: &[u8]) {
    debug_assert!(contents.len() <= length(bytes) && is_unshared(bytes));
    // SAFETY: the caller has seen that there is room, and `keep` that nobody else has the object: whoever had it may no
    // more look at it than at one that was freed. No object that CPython shares has one reference only. Like every
    // `bytes` object it ends with a zero, and is hashed when somebody asks.
    unsafe {
        let object = bytes.pointer().cast::<ffi::PyBytesObject>();
        let start = ffi::PyBytes_AS_STRING(bytes.pointer()).cast_mut().cast::<u8>();
        std::ptr::copy_nonoverlapping(contents.as_ptr(), start, contents.len());
        *start.add(contents.len()) = 0;
        (*object).ob_base.ob_size = contents.len().cast_signed();
        (*object).ob_shash = -1;
    }
}
