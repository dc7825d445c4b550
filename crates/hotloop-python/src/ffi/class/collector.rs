//! The life of an instance under Python's collector: shown, cleared, finalized, freed.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;

use super::entry::guard;
use super::instance::place;
use super::{Class, Finalize, This};
use crate::ffi::Object;

/// The collector's visit to an object.
pub(crate) struct Visit {
    visit: ffi::visitproc,
    argument: *mut c_void,
    result: c_int,
}

impl Visit {
    /// Shows one object to the collector.
    pub(crate) fn object(&mut self, object: &Object) {
        if self.result == 0 {
            // SAFETY: the visitor may be called with any living object during a traversal.
            self.result = unsafe { (self.visit)(object.pointer(), self.argument) };
        }
    }

    /// Shows an object to the collector, and if it is out of its sight and the caller's alone, what it refers to.
    pub(crate) fn owned(&mut self, object: &Object) {
        self.object(object);
        // SAFETY: a living object of a collectable type is traversed as the collector would, during a traversal.
        unsafe {
            let pointer = object.pointer();
            if self.result == 0
                && ffi::Py_REFCNT(pointer) == 1
                && ffi::PyObject_IS_GC(pointer) != 0
                && ffi::PyObject_GC_IsTracked(pointer) == 0
                && let Some(traverse) = (*ffi::Py_TYPE(pointer)).tp_traverse
            {
                self.result = traverse(pointer, self.visit, self.argument);
            }
        }
    }

    /// Shows objects to the collector.
    pub(crate) fn objects<'a>(&mut self, objects: impl IntoIterator<Item = &'a Object>) {
        for object in objects {
            self.object(object);
        }
    }
}

/// Shows an object to the collector.
pub(crate) fn track(object: &Object) {
    // SAFETY: every caller has just made the object, of a collectable class, with its fields whole.
    unsafe {
        if ffi::PyObject_GC_IsTracked(object.pointer()) == 0 {
            ffi::PyObject_GC_Track(object.pointer().cast());
        }
    }
}

/// Shows an object to the collector again, if anybody but the caller holds it: its owner no longer answers for it.
#[inline]
pub(crate) fn track_if_shared(object: &Object) {
    // SAFETY: the object is alive; it is tracked only if it is collectable and not tracked yet, with its fields whole.
    unsafe {
        if ffi::Py_REFCNT(object.pointer()) > 1
            && ffi::PyObject_IS_GC(object.pointer()) != 0
            && ffi::PyObject_GC_IsTracked(object.pointer()) == 0
        {
            ffi::PyObject_GC_Track(object.pointer().cast());
        }
    }
}

pub(super) unsafe extern "C" fn finalize<T: Finalize>(this: *mut ffi::PyObject) {
    guard((), |py| {
        // SAFETY: CPython finalizes an instance while it is whole, and keeps an exception under way safe around it
        // only for `__del__`; so that is done here.
        unsafe {
            let pending = PyErr::take(py);
            let object = Borrowed::from_ptr(py, this);
            T::finalize(This::new(&object));
            if let Some(pending) = pending {
                pending.restore(py);
            }
        }
        Ok(())
    });
}

pub(super) unsafe extern "C" fn dealloc<T: Class>(this: *mut ffi::PyObject) {
    // SAFETY: CPython hands over an instance with no reference left. The steps and their order are those that its
    // documentation asks of a collected heap type: finalize, untrack, weak references, fields, memory, type.
    unsafe {
        let class = ffi::Py_TYPE(this);
        if (*class).tp_finalize.is_some() && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        let weakrefs = T::layout().weakrefs.load(Ordering::Relaxed);
        if weakrefs != 0 && !(*this.byte_offset(weakrefs).cast::<*mut ffi::PyObject>()).is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        guard((), |_py| {
            drop((*place::<T>(this)).take());
            Ok(())
        });
        T::layout()
            .references()
            .for_each(|offset| clear_reference(this, offset));
        if let Some(free) = (*class).tp_free {
            free(this.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

pub(super) unsafe extern "C" fn traverse<T: Class>(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let mut visit = Visit {
        visit,
        argument,
        result: 0,
    };
    // SAFETY: CPython traverses an instance of the class. Nothing here runs Python code or counts a reference. The
    // value is written right after the allocation, before another one could start the collector.
    unsafe {
        let mut show = |pointer: *mut ffi::PyObject| {
            if visit.result == 0 && !pointer.is_null() {
                visit.result = (visit.visit)(pointer, visit.argument);
            }
        };
        show(ffi::Py_TYPE(this).cast());
        T::layout()
            .references()
            .for_each(|offset| show(*this.byte_offset(offset).cast()));
        if let Some(value) = &*place::<T>(this) {
            value.traverse(&mut visit);
        }
    }
    visit.result
}

pub(super) unsafe extern "C" fn clear<T: Class>(this: *mut ffi::PyObject) -> c_int {
    guard(-1, |_py| {
        // SAFETY: CPython clears an instance of the class.
        unsafe {
            T::layout()
                .references()
                .for_each(|offset| clear_reference(this, offset));
            if let Some(value) = &*place::<T>(this) {
                value.clear();
            }
        }
        Ok(0)
    })
}

/// Empties a field that holds null or a strong reference.
///
/// # Safety
/// There is such a field at `offset`.
unsafe fn clear_reference(this: *mut ffi::PyObject, offset: isize) {
    // SAFETY: as promised. The field is emptied first, since the release may run Python code.
    unsafe {
        let held = std::mem::replace(
            &mut *this.byte_offset(offset).cast::<*mut ffi::PyObject>(),
            std::ptr::null_mut(),
        );
        ffi::Py_XDECREF(held);
    }
}
