//! Native classes without a value of ours: their instances keep their state in the slots of their base.

use std::ffi::{CStr, c_int, c_void};
use std::num::NonZeroU32;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};

use super::entry::{conjure, guard, guard_bare};
use super::{leak, make_type, slot};
use crate::ffi::{Object, Slot};

/// Puts together a class with nothing of its own but a name, some accessors and methods, and a flag: its instances keep
/// their state in the slots of their base.
#[derive(Default)]
pub(crate) struct PlainClass {
    methods: Vec<ffi::PyMethodDef>,
    properties: Vec<ffi::PyGetSetDef>,
}

impl PlainClass {
    /// Adds an attribute in front of the base's. Both functions must be plain ones.
    pub(crate) fn property<G, S>(mut self, name: &'static CStr, _get: G, _set: S) -> Self
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
        self.properties.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(plain_get::<G>),
            set: Some(plain_set::<S>),
            ..Default::default()
        });
        self
    }

    /// Adds a method without arguments in front of the base's. The function must be a plain one, which drops no exception and
    /// no `Py` where all goes well.
    pub(crate) fn no_args<F>(mut self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a> Fn(Python<'a>, &Object) -> PyResult<Object> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunction: plain_method::<F>,
            },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: doc.as_ptr(),
        });
        self
    }

    /// Makes the class below `base`.
    ///
    /// # Errors
    /// What CPython raises if the class cannot be.
    pub(crate) fn build<'py>(
        mut self,
        base: &Bound<'py, PyType>,
        name: &'static CStr,
    ) -> PyResult<(Bound<'py, PyType>, Flag)> {
        // SAFETY: the base is alive.
        let (size, traverse, clear) = unsafe {
            let base = &*base.as_type_ptr();
            (base.tp_basicsize, base.tp_traverse, base.tp_clear)
        };
        self.properties.push(ffi::PyGetSetDef::default());
        self.methods.push(ffi::PyMethodDef::zeroed());
        // A class with a spec must say how it is traversed; one written in Python is by its list of slots, of which there
        // are no more below it.
        let dealloc = owns_every_word(base)?;
        let slots = [
            dealloc.then(|| slot(ffi::Py_tp_dealloc, plain_dealloc as *mut c_void)),
            traverse.map(|traverse| slot(ffi::Py_tp_traverse, traverse as *mut c_void)),
            clear.map(|clear| slot(ffi::Py_tp_clear, clear as *mut c_void)),
            Some(slot(ffi::Py_tp_getset, leak(self.properties).cast())),
            Some(slot(ffi::Py_tp_methods, leak(self.methods).cast())),
        ];
        let class = make_type(
            base,
            name,
            size + FLAG,
            ffi::Py_TPFLAGS_BASETYPE,
            slots.into_iter().flatten().collect(),
        )?;
        Ok((class, Flag { offset: size }))
    }
}

/// A new instance of a class without a value of ours: one made by [`PlainClass`], with nothing in its slots, and out of the
/// collector's sight.
///
/// # Errors
/// Out of memory.
#[inline]
pub(crate) fn alloc_plain(py: Python<'_>, class: &Object) -> PyResult<Object> {
    let class = class.pointer().cast::<ffi::PyTypeObject>();
    // SAFETY: a heap type made by `PlainClass`; its fields are all object slots, for which zero is "empty".
    unsafe {
        let object = ffi::PyObject_GC_New::<ffi::PyObject>(class);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let fields = (*class).tp_basicsize.unsigned_abs() - size_of::<ffi::PyObject>();
        object.add(1).cast::<u8>().write_bytes(0, fields);
        Ok(Object::from_owned(object))
    }
}

/// Whether the fields of `base` are nothing but object slots and the list of weak references, so that [`plain_dealloc`] knows
/// what an instance holds.
fn owns_every_word(base: &Bound<'_, PyType>) -> PyResult<bool> {
    // SAFETY: the base is alive.
    let (size, weakrefs, attributes) = unsafe {
        let base = &*base.as_type_ptr();
        (base.tp_basicsize, base.tp_weaklistoffset, base.tp_dictoffset)
    };
    let mut slots = std::collections::BTreeSet::new();
    for class in base.mro() {
        let class = class.cast_into::<PyType>()?;
        for name in class.getattr("__dict__")?.call_method0("keys")?.try_iter()? {
            if let Ok(slot) = Slot::find(&class, name?.cast::<PyString>()?.to_str()?) {
                slots.insert(slot.offset());
            }
        }
    }
    let first = size_of::<ffi::PyObject>().cast_signed();
    let mut words = (first..size).step_by(size_of::<usize>());
    Ok(attributes == 0 && words.all(|word| word == weakrefs || slots.contains(&word)))
}

/// `tp_dealloc` of a plain class: what the one of classes written in Python comes to for it, without looking through its
/// bases for what there is.
unsafe extern "C" fn plain_dealloc(this: *mut ffi::PyObject) {
    // SAFETY: CPython hands over an instance with no reference left, of a class made by `PlainClass` or of one below it,
    // which has another `tp_dealloc`. The steps and their order are those that CPython's documentation asks of a collected heap
    // type. Between the head of the object and the flag each word is a slot, or the list of weak references: see
    // `owns_every_word`.
    unsafe {
        let class = ffi::Py_TYPE(this);
        if (*class).tp_finalize.is_some() && ffi::PyObject_CallFinalizerFromDealloc(this) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(this.cast());
        let weakrefs = (*class).tp_weaklistoffset;
        if weakrefs != 0 && !(*this.byte_offset(weakrefs).cast::<*mut ffi::PyObject>()).is_null() {
            ffi::PyObject_ClearWeakRefs(this);
        }
        let mut plain = class;
        let is_plain = |dealloc| std::ptr::fn_addr_eq(dealloc, plain_dealloc as ffi::destructor);
        while !(*plain).tp_dealloc.is_some_and(is_plain) {
            plain = (*plain).tp_base;
        }
        let end = this.byte_offset((*plain).tp_basicsize - FLAG).cast();
        let weakrefs = this.byte_offset(weakrefs).cast();
        let mut word = this.add(1).cast::<*mut ffi::PyObject>();
        while word < end {
            // Nobody can look at the field any more, so it may keep what is released.
            if word != weakrefs {
                ffi::Py_XDECREF(*word);
            }
            word = word.add(1);
        }
        if let Some(free) = (*class).tp_free {
            free(this.cast());
        }
        ffi::Py_DECREF(class.cast());
    }
}

/// Room for the flag of an instance, in bytes, and for the alignment of what a class below may add.
const FLAG: isize = 8;

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

/// Whether nobody but the caller can get at an object: it holds the only reference, and there is no weak one.
#[inline]
pub(crate) fn is_unshared(object: &Object) -> bool {
    // SAFETY: the object is alive. Where its class has weak references, their list is at that offset.
    unsafe {
        let pointer = object.pointer();
        let weakrefs = (*ffi::Py_TYPE(pointer)).tp_weaklistoffset;
        ffi::Py_REFCNT(pointer) == 1
            && (weakrefs == 0 || (*pointer.byte_offset(weakrefs).cast::<*mut ffi::PyObject>()).is_null())
    }
}

/// Which version of its attributes a class is at: it changes whenever an attribute of the class or of one above it does.
/// None while that is not counted, until an attribute is looked up.
#[inline]
pub(crate) fn version_of(class: &Object) -> Option<NonZeroU32> {
    // SAFETY: every caller passes a class, which is alive.
    let version = unsafe { (*class.pointer().cast::<ffi::PyTypeObject>()).tp_version_tag };
    NonZeroU32::new(version)
}

/// As [`version_of`], of the class of an object.
#[inline]
pub(crate) fn version_of_class(object: &Bound<'_, PyAny>) -> Option<NonZeroU32> {
    // SAFETY: the object is alive, and so is its class.
    let version = unsafe { (*ffi::Py_TYPE(object.as_ptr())).tp_version_tag };
    NonZeroU32::new(version)
}

unsafe extern "C" fn plain_method<F>(
    this: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    F: for<'a> Fn(Python<'a>, &Object) -> PyResult<Object> + Copy + 'static,
{
    guard_bare(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls a method with a living instance of its class.
        let (object, function) = unsafe { (Borrowed::from_ptr(py, this), conjure::<F>()) };
        Ok(function(py, &object.into())?.into_bound(py).into_ptr())
    })
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
