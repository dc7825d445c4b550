//! The `__slots__` of a class written in Python, read and written at their offset.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::Object;

/// One slot of a class, such as `_callback` of `asyncio.Handle`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    offset: isize,
}

impl Slot {
    /// Finds the slot `name` of `class`.
    ///
    /// # Errors
    /// `TypeError` if the class has no such slot: a Python whose asyncio is laid out otherwise.
    pub(crate) fn find(class: &Bound<'_, PyType>, name: &str) -> PyResult<Self> {
        let descriptor = class.getattr(name)?;
        // SAFETY: the descriptor's type is checked before its fields are read; a member of an object kind is a pointer
        // at that offset in each instance.
        unsafe {
            if ffi::Py_TYPE(descriptor.as_ptr()) != &raw mut ffi::PyMemberDescr_Type {
                return Err(PyTypeError::new_err(format!("{class} keeps {name} in no slot")));
            }
            let member = (*descriptor.as_ptr().cast::<ffi::PyMemberDescrObject>()).d_member;
            if (*member).type_code != ffi::Py_T_OBJECT_EX {
                return Err(PyTypeError::new_err(format!(
                    "the slot {name} of {class} holds no object"
                )));
            }
            Ok(Self {
                offset: (*member).offset,
            })
        }
    }

    /// The object in the slot of `instance`, if any.
    ///
    /// `instance` must be of the class, or of one below it, in which the slot was found; every caller gets it from a
    /// [`super::same_type`] check or has just made it.
    #[inline]
    pub(crate) fn get(self, instance: &Object) -> Option<Object> {
        // SAFETY: the slot lies inside the instance (see above) and holds null or a strong reference.
        unsafe {
            let held = *self.place(instance);
            if held.is_null() {
                return None;
            }
            ffi::Py_INCREF(held);
            Some(Object::from_owned(held))
        }
    }

    /// Whether there is an object in the slot of `instance`.
    #[inline]
    pub(crate) fn is_filled(self, instance: &Object) -> bool {
        // SAFETY: as in `get`.
        unsafe { !(*self.place(instance)).is_null() }
    }

    /// Whether the slot of `instance` holds this very object.
    #[inline]
    pub(crate) fn holds(self, instance: &Object, value: &Bound<'_, PyAny>) -> bool {
        // SAFETY: as in `get`; objects are compared by address.
        unsafe { *self.place(instance) == value.as_ptr() }
    }

    /// Whether the slot of `instance` holds `True`.
    #[inline]
    pub(crate) fn is_true(self, instance: &Object) -> bool {
        // SAFETY: as in `get`; `True` is compared by address.
        unsafe { *self.place(instance) == ffi::Py_True() }
    }

    /// Puts an object into the slot of `instance`, which is empty.
    #[inline]
    pub(crate) fn init(self, instance: &Object, value: Object) {
        let value = std::mem::ManuallyDrop::new(value);
        // SAFETY: as in `get`. A reference that is there after all would be lost, but not freed too early.
        unsafe { *self.place(instance) = value.pointer() };
    }

    /// Has the slot of `instance` hold `value`, which it mostly does already.
    #[inline]
    pub(crate) fn ensure(self, instance: &Object, value: &Object) {
        // SAFETY: as in `get`; objects are compared by address.
        if unsafe { *self.place(instance) } != value.pointer() {
            self.set(instance, value.clone());
        }
    }

    /// Puts an object into the slot of `instance`.
    #[inline]
    pub(crate) fn set(self, instance: &Object, value: Object) {
        let value = std::mem::ManuallyDrop::new(value);
        // SAFETY: as in `get`. The old reference is released after the new one is in place, since that may run
        // Python code that looks at the slot.
        unsafe {
            let old = std::mem::replace(&mut *self.place(instance), value.pointer());
            ffi::Py_XDECREF(old);
        }
    }

    /// Takes what is in the slot of `instance` out of it.
    #[inline]
    pub(crate) fn take(self, instance: &Object) -> Option<Object> {
        // SAFETY: as in `get`; the slot's reference becomes the caller's.
        unsafe {
            let held = std::mem::replace(&mut *self.place(instance), std::ptr::null_mut());
            (!held.is_null()).then(|| Object::from_owned(held))
        }
    }

    #[inline]
    fn place(self, instance: &Object) -> *mut *mut ffi::PyObject {
        // SAFETY: inside the instance, see `get`.
        unsafe { instance.pointer().byte_offset(self.offset).cast() }
    }

    pub(super) fn offset(self) -> isize {
        self.offset
    }
}

/// Whether `object` is an instance of exactly `class`.
#[inline]
pub(crate) fn same_type(object: &Object, class: &Object) -> bool {
    // SAFETY: the object is alive.
    unsafe { ffi::Py_TYPE(object.pointer()).cast::<ffi::PyObject>() == class.pointer() }
}
