//! Bytes in and out of Python objects.

use std::io;
use std::mem::MaybeUninit;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};

use super::Object;
use crate::allocator;

/// An immutable `bytes` object, whose contents may be lent to the kernel: they never move and never change.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(Object);

impl Bytes {
    /// Keeps a `bytes` object.
    pub(crate) fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        Self(bytes.as_any().into())
    }
}

impl AsRef<[u8]> for Bytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made from a `bytes` object only, which is alive as long as `self`.
        unsafe {
            let start = ffi::PyBytes_AS_STRING(self.0.pointer()).cast::<u8>();
            std::slice::from_raw_parts(start, ffi::PyBytes_Size(self.0.pointer()).unsigned_abs())
        }
    }
}

/// Initialised parts of a scratch buffer.
#[inline]
pub(crate) fn filled(scratch: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`; callers pass what a receive has filled.
    unsafe { std::slice::from_raw_parts(scratch.as_ptr().cast::<u8>(), scratch.len()) }
}

/// A new `bytes` object with these contents, which were received.
#[inline]
pub(crate) fn received_bytes<'py>(py: Python<'py>, contents: &[u8]) -> Bound<'py, PyAny> {
    allocator::expect(contents.len());
    PyBytes::new(py, contents).into_any()
}

/// Appends initialised parts of a scratch buffer to a `bytearray`.
///
/// # Errors
/// `BufferError` if somebody holds a view of the array; out of memory.
#[inline]
pub(crate) fn append(array: &Bound<'_, PyByteArray>, scratch: &[MaybeUninit<u8>]) -> PyResult<()> {
    allocator::expect(scratch.len());
    let held = array.len();
    array.resize(held + scratch.len())?;
    // SAFETY: the array has just been made that large, nothing has run since, and the scratch buffer is not a part of
    // it; callers pass what a receive has filled.
    unsafe {
        let end = array.data().add(held);
        std::ptr::copy_nonoverlapping(scratch.as_ptr().cast::<u8>(), end, scratch.len());
    }
    Ok(())
}

unsafe extern "C" {
    /// CPython's, which PyO3 does not declare: changes the length of a `bytes` object that nobody else has. Where it
    /// fails the object is freed, and the pointer is null.
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, length: ffi::Py_ssize_t) -> std::ffi::c_int;
}

/// A `bytes` object of what `receive` fills of so much room, and of how long that is.
///
/// # Errors
/// Out of memory; those of `receive`.
pub(crate) fn receive_bytes<'py>(
    py: Python<'py>,
    room: usize,
    receive: impl FnOnce(&mut [MaybeUninit<u8>]) -> PyResult<io::Result<usize>>,
) -> PyResult<io::Result<Bound<'py, PyBytes>>> {
    allocator::expect(room);
    // SAFETY: made without contents, the object is this function's alone, and has that much room.
    let (object, filled) = unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), room.cast_signed());
        let object = Bound::from_owned_ptr_or_err(py, object)?;
        let start = ffi::PyBytes_AS_STRING(object.as_ptr()).cast_mut().cast();
        (object, receive(std::slice::from_raw_parts_mut(start, room)))
    };
    let length = match filled? {
        Ok(filled) => filled.min(room),
        Err(error) => return Ok(Err(error)),
    };
    let mut object = object.into_ptr();
    // SAFETY: it is still this function's alone, and is cut to what was filled.
    let cut = unsafe {
        _PyBytes_Resize(&raw mut object, length.cast_signed());
        Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>()
    };
    Ok(Ok(cut))
}

/// Appends to a `bytearray` what `receive` fills of so much room. Answers how much that was.
///
/// # Errors
/// `BufferError` if somebody holds a view of the array, before anything is received; out of memory; those of `receive`,
/// with the array as it was.
pub(crate) fn receive_append(
    array: &Bound<'_, PyByteArray>,
    room: usize,
    receive: impl FnOnce(&mut [MaybeUninit<u8>]) -> PyResult<io::Result<usize>>,
) -> PyResult<io::Result<usize>> {
    allocator::expect(room);
    let held = array.len();
    array.resize(held + room)?;
    // SAFETY: the array has just been made that large, and nothing runs in Python until it is cut to what was filled.
    let filled = unsafe {
        let end = array.data().add(held).cast::<MaybeUninit<u8>>();
        receive(std::slice::from_raw_parts_mut(end, room))
    };
    let length = match &filled {
        Ok(Ok(filled)) => *filled.min(&room),
        _ => 0,
    };
    array.resize(held + length)?;
    filled
}

/// A view of an object's bytes, held while it is read.
pub(crate) struct ReadBuffer<'py>(View<'py>);

impl<'py> ReadBuffer<'py> {
    /// A contiguous view of any bytes-like object.
    ///
    /// # Errors
    /// What the object raises if it has none.
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        View::new(object, ffi::PyBUF_SIMPLE).map(Self)
    }

    /// The bytes. They may be those of a mutable object: nothing may run in Python while they are looked at.
    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.0.view.len == 0 {
            return &[];
        }
        // SAFETY: the view is held, and contiguous as asked for.
        unsafe { std::slice::from_raw_parts(self.0.view.buf.cast::<u8>(), self.0.view.len.unsigned_abs()) }
    }
}

/// A view of a writable object's bytes, held while it is filled.
pub(crate) struct WriteBuffer<'py>(View<'py>);

impl<'py> WriteBuffer<'py> {
    /// A contiguous, writable view.
    ///
    /// # Errors
    /// What the object raises if it has none.
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        View::new(object, ffi::PyBUF_WRITABLE).map(Self)
    }

    /// The room, for the kernel to fill.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [MaybeUninit<u8>] {
        if self.0.view.len == 0 {
            return &mut [];
        }
        // SAFETY: the view is held, writable and contiguous as asked for.
        unsafe { std::slice::from_raw_parts_mut(self.0.view.buf.cast(), self.0.view.len.unsigned_abs()) }
    }
}

/// A held buffer.
struct View<'py> {
    view: ffi::Py_buffer,
    _py: Python<'py>,
}

impl<'py> View<'py> {
    fn new(object: &Bound<'py, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let mut view = ffi::Py_buffer::new();
        // SAFETY: the object is alive, and the view is released when dropped.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut view, flags) } < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self {
            view,
            _py: object.py(),
        })
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        // SAFETY: the view was filled by `PyObject_GetBuffer`, and the token proves the lock.
        unsafe { ffi::PyBuffer_Release(&raw mut self.view) };
    }
}
