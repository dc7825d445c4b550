//! A Python object whose bytes are wherever the caller says, for the time of one call.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use super::Object;

/// Lends memory of ours to a function written in C that takes bytes-like objects, without a copy and without a new
/// object for each call.
#[derive(Debug)]
pub(crate) struct Window(Object);

/// What the Python object of a window is made of.
#[repr(C)]
struct Opening {
    head: ffi::PyObject,
    /// What is lent; null while nothing is.
    start: *mut u8,
    length: isize,
    /// Whether the borrower may write there.
    writable: bool,
    /// How many views of it are held.
    views: usize,
}

impl Window {
    /// A window that is closed.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        static CLASS: OnceLock<Object> = OnceLock::new();
        if CLASS.get().is_none() {
            let made = class(py)?;
            CLASS.get_or_init(|| made);
        }
        let class = CLASS.get().map_or(std::ptr::null_mut(), Object::pointer).cast();
        // SAFETY: a heap type of ours without a collector; zero is the value of a closed window.
        unsafe {
            let object = ffi::PyType_GenericAlloc(class, 0);
            if object.is_null() {
                return Err(PyErr::fetch(py));
            }
            Ok(Self(Object::from_owned(object)))
        }
    }

    /// Calls `act` with an object that has the bytes of `bytes`. The process ends if a view of it is still held after
    /// that: `act` must pass it only to functions that are known to let go of it.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) fn lend<'py, R>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        act: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<R>,
    ) -> PyResult<R> {
        self.open(py, bytes.as_ptr().cast_mut(), bytes.len(), false, act)
    }

    /// The same with room to be filled.
    ///
    /// # Errors
    /// Those of `act`.
    pub(crate) fn lend_room<'py, R>(
        &self,
        py: Python<'py>,
        room: &mut [MaybeUninit<u8>],
        act: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<R>,
    ) -> PyResult<R> {
        self.open(py, room.as_mut_ptr().cast(), room.len(), true, act)
    }

    fn open<'py, R>(
        &self,
        py: Python<'py>,
        start: *mut u8,
        length: usize,
        writable: bool,
        act: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<R>,
    ) -> PyResult<R> {
        let opening = self.0.pointer().cast::<Opening>();
        // SAFETY: the object is alive and of this layout.
        if unsafe { !(*opening).start.is_null() } {
            // The function that it is open for has called back.
            return Self::new(py)?.open(py, start, length, writable, act);
        }
        // SAFETY: the object is alive and of this layout; nothing else refers to its fields across a call.
        unsafe {
            (*opening).start = start;
            (*opening).length = length.cast_signed();
            (*opening).writable = writable;
        }
        let _shut = Shut(opening);
        act(&self.0.bind(py))
    }
}

/// Closes a window, also when a panic passes by.
struct Shut(*mut Opening);

impl Drop for Shut {
    fn drop(&mut self) {
        // SAFETY: the window outlives this guard.
        unsafe {
            (*self.0).start = std::ptr::null_mut();
            if (*self.0).views > 0 {
                // Whoever holds the view would go on reading memory that is no longer lent.
                std::process::abort();
            }
        }
    }
}

fn class(py: Python<'_>) -> PyResult<Object> {
    let mut slots = [
        ffi::PyType_Slot {
            slot: ffi::Py_bf_getbuffer,
            pfunc: get_buffer as *mut c_void,
        },
        ffi::PyType_Slot {
            slot: ffi::Py_bf_releasebuffer,
            pfunc: release_buffer as *mut c_void,
        },
        ffi::PyType_Slot::default(),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"hotloop._hotloop.Window".as_ptr(),
        basicsize: size_of::<Opening>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is complete, ends with a zero, and is copied; its name is static.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?.into()) }
}

unsafe extern "C" fn get_buffer(this: *mut ffi::PyObject, view: *mut ffi::Py_buffer, flags: c_int) -> c_int {
    // SAFETY: CPython calls this with an instance of the class and a view to be filled.
    unsafe {
        let opening = this.cast::<Opening>();
        if (*opening).start.is_null() {
            (*view).obj = std::ptr::null_mut();
            super::class::guard(-1, |_| Err(PyBufferError::new_err("nothing is lent")))
        } else {
            let read_only = c_int::from(!(*opening).writable);
            let (start, length) = ((*opening).start.cast(), (*opening).length);
            let filled = ffi::PyBuffer_FillInfo(view, this, start, length, read_only, flags);
            (*opening).views += usize::from(filled == 0);
            filled
        }
    }
}

unsafe extern "C" fn release_buffer(this: *mut ffi::PyObject, _view: *mut ffi::Py_buffer) {
    // SAFETY: CPython calls this once for each view that was filled.
    unsafe { (*this.cast::<Opening>()).views -= 1 };
}
