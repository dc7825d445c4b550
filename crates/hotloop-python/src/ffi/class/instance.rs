//! An instance of a native class, borrowed or owned, and where its value lies.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::Class;
use crate::ffi::{Object, same_type};

/// An instance of a native class that a call or an event is about.
pub(crate) struct This<'a, 'py, T> {
    object: &'a Bound<'py, PyAny>,
    class: PhantomData<T>,
}

impl<T> Clone for This<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for This<'_, '_, T> {}

impl<'a, 'py, T: Class> This<'a, 'py, T> {
    /// What an object is seen as inside its class.
    ///
    /// # Safety
    /// The object is an instance of the class of `T`.
    #[inline]
    pub(super) unsafe fn new(object: &'a Bound<'py, PyAny>) -> Self {
        Self {
            object,
            class: PhantomData,
        }
    }

    /// The Python object.
    #[inline]
    pub(crate) fn object(self) -> &'a Bound<'py, PyAny> {
        self.object
    }

    /// The interpreter lock's token.
    #[inline]
    pub(crate) fn py(self) -> Python<'py> {
        self.object.py()
    }
}

impl<T: Class> std::ops::Deref for This<'_, '_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a `This<T>` is made only for instances of the class of `T`, whose value is initialised.
        unsafe { value(self.object.as_ptr()) }
    }
}

/// A strong reference to an instance of a native class.
pub(crate) struct Instance<T> {
    object: Object,
    class: PhantomData<T>,
}

impl<T> Clone for Instance<T> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            class: PhantomData,
        }
    }
}

impl<T: Class> Instance<T> {
    /// The instance behind a `This`.
    pub(crate) fn of(this: This<'_, '_, T>) -> Self {
        Self {
            object: this.object.into(),
            class: PhantomData,
        }
    }

    /// A new instance of `class`, which [`ClassBuilder`] has made for `T`, around `value`.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(class: &Bound<'_, PyType>, value: T) -> PyResult<Self> {
        let pointer = class.as_type_ptr();
        // SAFETY: the class is one of ours: it is a heap type with `tp_alloc`, and its instances have room for a `T`
        // at the offset that was noted when it was made. The value is written before anybody sees the object.
        unsafe {
            let alloc = (*pointer).tp_alloc.unwrap_or(ffi::PyType_GenericAlloc);
            let object = alloc(pointer, 0);
            if object.is_null() {
                return Err(PyErr::fetch(class.py()));
            }
            std::ptr::write(place::<T>(object), Some(value));
            Ok(Self {
                object: Object::from_owned(object),
                class: PhantomData,
            })
        }
    }

    /// The instance that an object is, if it is one of exactly `class`, which [`ClassBuilder`] has made for `T`.
    #[inline]
    pub(crate) fn from_class(object: &Object, class: Option<&Object>) -> Option<Self> {
        let is_one = class.is_some_and(|class| same_type(object, class));
        is_one.then(|| Self {
            object: object.clone(),
            class: PhantomData,
        })
    }

    /// The instance that an object is, if it is one of `class`, which [`ClassBuilder`] has made for `T`, or of a class
    /// below it.
    #[inline]
    pub(crate) fn from_object(object: &Object, class: Option<&Object>) -> Option<Self> {
        let is_one = class.is_some_and(|class| {
            // A native class adds fields of its own, so each class below it has it among its first bases.
            // SAFETY: both are alive; a class keeps its bases alive.
            unsafe {
                let mut above = ffi::Py_TYPE(object.pointer());
                while !above.is_null() && above.cast() != class.pointer() {
                    above = (*above).tp_base;
                }
                !above.is_null()
            }
        });
        is_one.then(|| Self {
            object: object.clone(),
            class: PhantomData,
        })
    }

    /// The Python object.
    #[inline]
    pub(crate) fn object(&self) -> &Object {
        &self.object
    }

    /// The value inside.
    #[inline]
    pub(crate) fn get(&self, _py: Python<'_>) -> &T {
        // SAFETY: an `Instance<T>` holds an instance of the class of `T`.
        unsafe { value(self.object.pointer()) }
    }

    /// Calls `act` with the instance.
    #[inline]
    pub(crate) fn with<'py, R>(&self, py: Python<'py>, act: impl FnOnce(This<'_, 'py, T>) -> R) -> R {
        let object = self.object.bind(py);
        act(This {
            object: &object,
            class: PhantomData,
        })
    }
}

/// Where the value of an instance lies. It is `None` only while the instance is deallocated.
///
/// # Safety
/// `object` is an instance of the class of `T`.
#[inline]
pub(super) unsafe fn place<T: Class>(object: *mut ffi::PyObject) -> *mut Option<T> {
    // SAFETY: inside the instance, as the class was made.
    unsafe {
        object
            .byte_offset(T::layout().value.load(Ordering::Relaxed))
            .cast()
    }
}

/// # Safety
/// `object` is an instance of the class of `T`, its value is written, and it stays alive for `'a`.
#[inline]
unsafe fn value<'a, T: Class>(object: *mut ffi::PyObject) -> &'a T {
    // SAFETY: as promised; the value is written by the only two ways to make an instance, and taken by `dealloc` only.
    unsafe { (*place::<T>(object)).as_ref().unwrap_unchecked() }
}
