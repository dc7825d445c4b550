//! Native classes: a Rust value behind the fields of a base class that may be written in Python.

mod collector;
mod entry;
mod instance;
mod plain;

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Call, Slot};

pub(crate) use collector::{Visit, track, track_if_shared};
pub(super) use entry::guard;
pub(crate) use instance::{Instance, This};
pub(crate) use plain::{Flag, PlainClass, alloc_plain, is_unshared, version_of, version_of_class};

/// A Rust value that lives inside a Python object.
///
/// It is only ever borrowed shared: Python may call back into the object at any time. What changes is in cells.
pub(crate) trait Class: Sized + 'static {
    /// The full name of the Python class, such as `hotloop._hotloop.Loop`.
    const NAME: &'static CStr;

    /// What asyncio's class of this kind calls itself in its error messages.
    const ASYNCIO_NAME: &'static str;

    /// Where things lie in an instance; a static of the implementing type, filled when the class is made.
    fn layout() -> &'static Layout;

    /// Shows every object that the value holds to the collector. It must run nothing else.
    fn traverse(&self, visit: &mut Visit);

    /// Drops every object that the value holds.
    fn clear(&self);
}

/// Where an instance of a native class keeps what.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Of the Rust value.
    value: AtomicIsize,
    /// Of the list of weak references; 0 if a class below keeps it.
    weakrefs: AtomicIsize,
    /// Of the attribute dictionary; 0 if a class below keeps it.
    attributes: AtomicIsize,
    /// Of the object slots of the base class.
    inherited: OnceLock<Vec<isize>>,
}

impl Layout {
    /// A layout to be filled.
    pub(crate) const fn new() -> Self {
        Self {
            value: AtomicIsize::new(0),
            weakrefs: AtomicIsize::new(0),
            attributes: AtomicIsize::new(0),
            inherited: OnceLock::new(),
        }
    }

    /// Where an instance holds plain references: its attributes and the slots of its base.
    fn references(&self) -> impl Iterator<Item = isize> {
        let attributes = Some(self.attributes.load(Ordering::Relaxed)).filter(|&offset| offset != 0);
        attributes
            .into_iter()
            .chain(self.inherited.get().into_iter().flatten().copied())
    }
}

/// What runs once before an instance goes, while it is still whole (`__del__`).
pub(crate) trait Finalize: Class {
    /// Must not raise; report instead.
    fn finalize(this: This<'_, '_, Self>);
}

/// Puts a native class together.
pub(crate) struct ClassBuilder<T> {
    methods: Vec<ffi::PyMethodDef>,
    properties: Vec<ffi::PyGetSetDef>,
    slots: Vec<ffi::PyType_Slot>,
    class: PhantomData<T>,
}

impl<T: Class> ClassBuilder<T> {
    pub(crate) fn new() -> Self {
        Self {
            methods: Vec::new(),
            properties: Vec::new(),
            slots: Vec::new(),
            class: PhantomData,
        }
    }

    /// Adds a method. `function` must be a plain function, which has no state to lose.
    pub(crate) fn method<F>(self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.fast(name, doc, entry::method::<T, F>)
    }

    /// As [`Self::method`], for one that is called so often that telling PyO3 of each call would cost most of it. Where all
    /// goes well it must drop no exception and no `Py`.
    pub(crate) fn bare_method<F>(self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.fast(name, doc, entry::bare_method::<T, F>)
    }

    /// Adds a method without arguments, named as `function` is. `function` must be a plain function.
    pub(crate) fn no_args<F>(self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.fast(name, doc, entry::no_args::<T, F>)
    }

    /// To [`Self::no_args`] what [`Self::bare_method`] is to [`Self::method`].
    pub(crate) fn bare_no_args<F>(self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.fast(name, doc, entry::bare_no_args::<T, F>)
    }

    /// Adds a method that is called by vectorcall.
    fn fast(
        mut self,
        name: &'static CStr,
        doc: &'static CStr,
        entry: ffi::PyCFunctionFastWithKeywords,
    ) -> Self {
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: entry,
            },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: doc.as_ptr(),
        });
        self
    }

    /// Adds an attribute that can be read and, through `set`, assigned. Both must be plain functions.
    pub(crate) fn property<G, S>(mut self, name: &'static CStr, doc: &'static CStr, _get: G, _set: S) -> Self
    where
        G: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
        S: for<'a, 'py> Fn(This<'a, 'py, T>, &Bound<'py, PyAny>) -> PyResult<()> + Copy + 'static,
    {
        const {
            assert!(
                size_of::<G>() == 0 && size_of::<S>() == 0,
                "an accessor is a plain function"
            )
        };
        self.properties.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(entry::get::<T, G>),
            set: Some(entry::set::<T, S>),
            doc: doc.as_ptr(),
            closure: std::ptr::null_mut(),
        });
        self
    }

    /// Adds an attribute that can only be read. `get` must be a plain function.
    pub(crate) fn getter<G>(mut self, name: &'static CStr, doc: &'static CStr, _get: G) -> Self
    where
        G: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<G>() == 0, "an accessor is a plain function") };
        self.properties.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(entry::get::<T, G>),
            doc: doc.as_ptr(),
            ..Default::default()
        });
        self
    }

    /// Makes instances from Python by calling the class, with a value from `make` for the class that is
    /// called; arguments are left to `__init__`.
    pub(crate) fn constructor<F>(mut self, _make: F) -> Self
    where
        F: Fn(&Bound<'_, PyType>) -> PyResult<T> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a constructor is a plain function") };
        self.slots
            .push(slot(ffi::Py_tp_new, entry::construct::<T, F> as *mut c_void));
        self
    }

    /// Runs [`Finalize::finalize`] before an instance goes.
    pub(crate) fn finalizer(mut self) -> Self
    where
        T: Finalize,
    {
        self.slots
            .push(slot(ffi::Py_tp_finalize, collector::finalize::<T> as *mut c_void));
        self
    }

    /// Gives instances a text for `repr()`. `function` must be a plain function.
    pub(crate) fn repr<F>(mut self, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "an accessor is a plain function") };
        self.slots
            .push(slot(ffi::Py_tp_repr, entry::repr::<T, F> as *mut c_void));
        self
    }

    /// Tells `function` the name of each attribute that was set or deleted. It must be a plain function.
    pub(crate) fn assigned<F>(mut self, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>, &Bound<'py, PyAny>) -> PyResult<()> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "an accessor is a plain function") };
        self.slots
            .push(slot(ffi::Py_tp_setattro, entry::assign::<T, F> as *mut c_void));
        self
    }

    /// Makes the class below `base`, whose object slots named in `inherited` it keeps for its instances. `final_class`:
    /// it can be neither derived from nor instantiated from Python.
    ///
    /// # Errors
    /// What CPython raises if the class cannot be.
    pub(crate) fn build<'py>(
        mut self,
        base: &Bound<'py, PyType>,
        inherited: &[&str],
        final_class: bool,
    ) -> PyResult<Bound<'py, PyType>> {
        let inherited: Vec<isize> = inherited
            .iter()
            .map(|name| Ok(Slot::find(base, name)?.offset()))
            .collect::<PyResult<_>>()?;
        let offset = room_after::<Option<T>>(base);
        let layout = T::layout();
        layout.value.store(offset, Ordering::Relaxed);
        layout.inherited.get_or_init(|| inherited);
        let weakrefs = offset + size_of::<Option<T>>().next_multiple_of(8).cast_signed();
        let attributes = weakrefs + 8;
        let member = |name: &'static CStr, offset| ffi::PyMemberDef {
            name: name.as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset,
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        };
        let mut members = Vec::new();
        let mut size = weakrefs;
        if final_class {
            members.push(member(c"__weaklistoffset__", weakrefs));
            members.push(member(c"__dictoffset__", attributes));
            size = attributes + 8;
            layout.weakrefs.store(weakrefs, Ordering::Relaxed);
            layout.attributes.store(attributes, Ordering::Relaxed);
        }
        // SAFETY: a zeroed entry ends the list.
        members.push(unsafe { std::mem::zeroed() });
        self.slots.push(slot(ffi::Py_tp_members, leak(members).cast()));
        self.slots
            .push(slot(ffi::Py_tp_dealloc, collector::dealloc::<T> as *mut c_void));
        self.slots
            .push(slot(ffi::Py_tp_traverse, collector::traverse::<T> as *mut c_void));
        self.slots
            .push(slot(ffi::Py_tp_clear, collector::clear::<T> as *mut c_void));
        if final_class {
            self.properties.push(ffi::PyGetSetDef {
                name: c"__dict__".as_ptr(),
                get: Some(ffi::PyObject_GenericGetDict),
                set: Some(ffi::PyObject_GenericSetDict),
                ..Default::default()
            });
        }
        let flags = if final_class {
            ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        } else {
            ffi::Py_TPFLAGS_BASETYPE
        };
        self.finish(base, T::NAME, size, flags)
    }

    fn finish<'py>(
        mut self,
        base: &Bound<'py, PyType>,
        name: &'static CStr,
        size: isize,
        flags: std::ffi::c_ulong,
    ) -> PyResult<Bound<'py, PyType>> {
        if !self.methods.is_empty() {
            self.methods.push(ffi::PyMethodDef::zeroed());
            self.slots
                .push(slot(ffi::Py_tp_methods, leak(self.methods).cast()));
        }
        if !self.properties.is_empty() {
            self.properties.push(ffi::PyGetSetDef::default());
            self.slots
                .push(slot(ffi::Py_tp_getset, leak(self.properties).cast()));
        }
        make_type(base, name, size, flags, self.slots)
    }
}

fn make_type<'py>(
    base: &Bound<'py, PyType>,
    name: &'static CStr,
    size: isize,
    flags: std::ffi::c_ulong,
    mut slots: Vec<ffi::PyType_Slot>,
) -> PyResult<Bound<'py, PyType>> {
    slots.push(ffi::PyType_Slot::default());
    let basicsize = c_int::try_from(size).map_err(|_| PyTypeError::new_err("the base class is too large"))?;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | flags) as c_uint,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the spec is complete and ends with a zero; CPython copies it, but for the tables that are leaked, and
    // the names, which are static.
    unsafe {
        let class = ffi::PyType_FromSpecWithBases(&raw mut spec, base.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(base.py(), class)?.cast_into::<PyType>()?)
    }
}

/// The tables of a class live as long as the process, like the class.
fn leak<E>(table: Vec<E>) -> *mut E {
    Box::leak(table.into_boxed_slice()).as_mut_ptr()
}

fn slot(number: c_int, pointer: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot {
        slot: number,
        pfunc: pointer,
    }
}

/// Where a `V` can lie behind the fields of `base`.
fn room_after<V>(base: &Bound<'_, PyType>) -> isize {
    // SAFETY: the base is alive.
    let size = unsafe { (*base.as_type_ptr()).tp_basicsize };
    size.unsigned_abs()
        .next_multiple_of(align_of::<V>().max(8))
        .cast_signed()
}
