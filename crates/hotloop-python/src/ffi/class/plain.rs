//! Native classes without a value of ours: their instances keep their state in the slots of their base.

use std::ffi::{CStr, c_int, c_void};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::entry::{conjure, guard};
use super::{leak, make_type, slot};
use crate::ffi::Object;

/// A class below `base` with nothing of its own but a name: its instances keep their state in the base's slots.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn plain_class<'py, G, S>(
    base: &Bound<'py, PyType>,
    name: &'static CStr,
    property: &'static CStr,
    _get: G,
    _set: S,
) -> PyResult<(Bound<'py, PyType>, Flag)>
where
    G: for<'a> Fn(Python<'a>, &Object) -> PyResult<Object> + Copy + 'static,
    S: for<'a> Fn(Python<'a>, &Object, Object) + Copy + 'static,
{
    const {
        assert!(
            size_of::<G>() == 0 && size_of::<S>() == 0,
            "an accessor is a plain function"
        )
    };
    // SAFETY: the base is alive.
    let (size, traverse, clear) = unsafe {
        let base = &*base.as_type_ptr();
        (base.tp_basicsize, base.tp_traverse, base.tp_clear)
    };
    // A class with a spec must say how it is traversed; one written in Python is by its list of slots, of which there
    // are no more below it.
    let slots = [
        traverse.map(|traverse| slot(ffi::Py_tp_traverse, traverse as *mut c_void)),
        clear.map(|clear| slot(ffi::Py_tp_clear, clear as *mut c_void)),
    ];
    let property = ffi::PyGetSetDef {
        name: property.as_ptr(),
        get: Some(plain_get::<G>),
        set: Some(plain_set::<S>),
        ..Default::default()
    };
    let properties = slot(
        ffi::Py_tp_getset,
        leak(vec![property, ffi::PyGetSetDef::default()]).cast(),
    );
    let class = make_type(
        base,
        name,
        // Room for the flag, and for the alignment of what a class below may add.
        size + 8,
        ffi::Py_TPFLAGS_BASETYPE,
        slots.into_iter().flatten().chain([properties]).collect(),
    )?;
    Ok((class, Flag { offset: size }))
}

/// A new instance of a class without a value of ours: one made by [`plain_class`].
///
/// # Errors
/// Out of memory.
#[inline]
pub(crate) fn alloc_plain(py: Python<'_>, class: &Object) -> PyResult<Object> {
    let class = class.pointer().cast::<ffi::PyTypeObject>();
    // SAFETY: a heap type made by `plain_class`; its fields are all object slots, for which zero is "empty".
    unsafe {
        let object = ffi::PyType_GenericAlloc(class, 0);
        if object.is_null() {
            Err(PyErr::fetch(py))
        } else {
            Ok(Object::from_owned(object))
        }
    }
}

/// A yes or no of its own that each instance of a plain class has; no at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    offset: isize,
}

impl Flag {
    /// Whether it is set in `instance`, which must be of the class that the flag came with.
    #[inline]
    pub(crate) fn get(self, instance: &Object) -> bool {
        // SAFETY: the class has this byte behind its base's fields, zero at first; callers check the class.
        unsafe { *instance.pointer().byte_offset(self.offset).cast::<u8>() != 0 }
    }

    /// Sets it in `instance`.
    #[inline]
    pub(crate) fn set(self, instance: &Object, value: bool) {
        // SAFETY: as in `get`.
        unsafe { *instance.pointer().byte_offset(self.offset).cast::<u8>() = value.into() }
    }
}

unsafe extern "C" fn plain_get<G>(this: *mut ffi::PyObject, _closure: *mut c_void) -> *mut ffi::PyObject
where
    G: for<'a> Fn(Python<'a>, &Object) -> PyResult<Object> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls an accessor with a living instance of its class.
        let (object, function) = unsafe { (Borrowed::from_ptr(py, this), conjure::<G>()) };
        Ok(function(py, &object.into())?.into_bound(py).into_ptr())
    })
}

unsafe extern "C" fn plain_set<S>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> c_int
where
    S: for<'a> Fn(Python<'a>, &Object, Object) + Copy + 'static,
{
    guard(-1, |py| {
        if value.is_null() {
            return Err(PyTypeError::new_err("the attribute cannot be deleted"));
        }
        // SAFETY: as in `plain_get`, with a living value.
        let (object, value, function) = unsafe {
            (
                Borrowed::from_ptr(py, this),
                Borrowed::from_ptr(py, value),
                conjure::<S>(),
            )
        };
        function(py, &object.into(), value.into());
        Ok(0)
    })
}
