//! An owned reference.

use pyo3::ffi;
use pyo3::prelude::*;

/// A strong reference to a Python object, cloned and dropped by the bare reference count.
///
/// `Py<PyAny>` asks a thread-local counter at each drop whether the interpreter lock is held. The engine's queues are
/// only ever touched with it held, and hot enough for the difference to show.
#[derive(Debug)]
pub(crate) struct Object(std::ptr::NonNull<ffi::PyObject>);

// SAFETY: a reference may move between threads; counting it and looking through it happens with the interpreter lock
// held only, which every way to make, clone, read or drop one demands (see `Drop`).
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

impl Object {
    /// Takes over a reference that the caller owns.
    ///
    /// # Safety
    /// `pointer` is a strong reference, not null, that nobody else will release.
    pub(super) unsafe fn from_owned(pointer: *mut ffi::PyObject) -> Self {
        debug_assert!(
            !pointer.is_null(),
            "a null pointer is an error to be fetched, not an object"
        );
        // SAFETY: not null, as the caller promises.
        Self(unsafe { std::ptr::NonNull::new_unchecked(pointer) })
    }

    /// The bare pointer; the reference stays here.
    #[inline]
    pub(super) fn pointer(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// The same object, as PyO3 sees it.
    #[inline]
    pub(crate) fn bind<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the reference is alive as long as `self` is borrowed, and the token proves the lock.
        unsafe { Borrowed::from_ptr(py, self.pointer()) }
    }

    /// Gives the reference to PyO3.
    #[inline]
    pub(crate) fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        let pointer = std::mem::ManuallyDrop::new(self).0.as_ptr();
        // SAFETY: the reference was owned by `self`, which is forgotten.
        unsafe { Bound::from_owned_ptr(py, pointer) }
    }

    /// How many references there are to the object.
    #[inline]
    pub(crate) fn refcount(&self) -> isize {
        // SAFETY: the object is alive.
        unsafe { ffi::Py_REFCNT(self.pointer()) }
    }

    /// Whether both are one object.
    #[inline]
    pub(crate) fn is(&self, other: &Bound<'_, PyAny>) -> bool {
        self.0.as_ptr() == other.as_ptr()
    }
}

impl Clone for Object {
    #[inline]
    fn clone(&self) -> Self {
        debug_assert!(super::gil_is_held());
        // SAFETY: the object is alive and the interpreter lock is held.
        unsafe { ffi::Py_INCREF(self.pointer()) };
        Self(self.0)
    }
}

impl Drop for Object {
    #[inline]
    fn drop(&mut self) {
        debug_assert!(
            super::gil_is_held(),
            "objects are dropped by the loop's thread, with the lock held"
        );
        // SAFETY: the reference is owned, and the interpreter lock is held.
        unsafe { ffi::Py_DECREF(self.pointer()) };
    }
}

impl From<Bound<'_, PyAny>> for Object {
    #[inline]
    fn from(bound: Bound<'_, PyAny>) -> Self {
        // SAFETY: `into_ptr` gives its reference up.
        unsafe { Self::from_owned(bound.into_ptr()) }
    }
}

impl From<&Bound<'_, PyAny>> for Object {
    #[inline]
    fn from(bound: &Bound<'_, PyAny>) -> Self {
        bound.clone().into()
    }
}

impl From<Borrowed<'_, '_, PyAny>> for Object {
    #[inline]
    fn from(borrowed: Borrowed<'_, '_, PyAny>) -> Self {
        borrowed.to_owned().into()
    }
}
