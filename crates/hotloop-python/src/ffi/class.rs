//! Native classes: a Rust value behind the fields of a base class that may be written in Python.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Call, Object, Slot};

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
        let is_one = class.is_some_and(|class| super::same_type(object, class));
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

/// Takes an object out of the collector's sight, for as long as its owner answers for it by [`Visit::owned`].
#[inline]
pub(crate) fn untrack(object: &Object) {
    // SAFETY: the object is collectable and alive; untracking twice is harmless.
    unsafe { ffi::PyObject_GC_UnTrack(object.pointer().cast()) };
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
    pub(crate) fn method<F>(mut self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: method::<T, F>,
            },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: doc.as_ptr(),
        });
        self
    }

    /// Adds a method without arguments, named as `function` is. `function` must be a plain function.
    pub(crate) fn no_args<F>(mut self, name: &'static CStr, doc: &'static CStr, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: no_args::<T, F>,
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
            get: Some(get::<T, G>),
            set: Some(set::<T, S>),
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
            get: Some(get::<T, G>),
            doc: doc.as_ptr(),
            ..Default::default()
        });
        self
    }

    /// Makes instances from Python by calling the class, with a value from `make`; arguments are left to `__init__`.
    pub(crate) fn constructor<F>(mut self, _make: F) -> Self
    where
        F: Fn(Python<'_>) -> PyResult<T> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a constructor is a plain function") };
        self.slots
            .push(slot(ffi::Py_tp_new, construct::<T, F> as *mut c_void));
        self
    }

    /// Runs [`Finalize::finalize`] before an instance goes.
    pub(crate) fn finalizer(mut self) -> Self
    where
        T: Finalize,
    {
        self.slots
            .push(slot(ffi::Py_tp_finalize, finalize::<T> as *mut c_void));
        self
    }

    /// Gives instances a text for `repr()`. `function` must be a plain function.
    pub(crate) fn repr<F>(mut self, _function: F) -> Self
    where
        F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "an accessor is a plain function") };
        self.slots
            .push(slot(ffi::Py_tp_repr, repr::<T, F> as *mut c_void));
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
            .push(slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void));
        self.slots
            .push(slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void));
        self.slots.push(slot(ffi::Py_tp_clear, clear::<T> as *mut c_void));
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

/// Where the value of an instance lies. It is `None` only while the instance is deallocated.
///
/// # Safety
/// `object` is an instance of the class of `T`.
#[inline]
unsafe fn place<T: Class>(object: *mut ffi::PyObject) -> *mut Option<T> {
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

/// Runs what Python has called, and gives Python its result or its exception. A panic becomes an exception.
#[inline]
fn guard<R>(failed: R, act: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Python::attach(|py| match act(py) {
            Ok(result) => Ok(result),
            Err(error) => {
                error.restore(py);
                Err(())
            }
        })
    }));
    match outcome {
        Ok(Ok(result)) => result,
        Ok(Err(())) => failed,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "hotloop panicked".to_owned());
            Python::attach(|py| PanicException::new_err(text).restore(py));
            failed
        }
    }
}

/// A plain function, out of thin air.
///
/// # Safety
/// `F` has no size and was passed as a value once, so it can be called.
#[inline]
unsafe fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a value without a size has no bytes to be read or to be wrong, and one such value existed.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

unsafe extern "C" fn method<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls a method with an instance of its class, and with its arguments as a vectorcall's.
        let (object, call, function) = unsafe {
            (
                Borrowed::from_ptr(py, this),
                Call::new(py, arguments, positional, names),
                conjure::<F>(),
            )
        };
        function(
            This {
                object: &object,
                class: PhantomData,
            },
            call,
        )
        .map(Bound::into_ptr)
    })
}

unsafe extern "C" fn no_args<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls a method with an instance of its class, and with its arguments as a vectorcall's.
        let (object, call, function) = unsafe {
            (
                Borrowed::from_ptr(py, this),
                Call::new(py, arguments, positional, names),
                conjure::<F>(),
            )
        };
        if call.len() > 0 || call.has_keywords() {
            let name = std::any::type_name::<F>().rsplit("::").next().unwrap_or_default();
            return Err(call.unwanted(&format!("{}.{name}", T::ASYNCIO_NAME)));
        }
        function(This {
            object: &object,
            class: PhantomData,
        })
        .map(Bound::into_ptr)
    })
}

unsafe extern "C" fn get<T, F>(this: *mut ffi::PyObject, _closure: *mut c_void) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls an accessor with an instance of its class.
        let (object, function) = unsafe { (Borrowed::from_ptr(py, this), conjure::<F>()) };
        function(This {
            object: &object,
            class: PhantomData,
        })
        .map(Bound::into_ptr)
    })
}

unsafe extern "C" fn repr<T, F>(this: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    // SAFETY: as the accessor's.
    unsafe { get::<T, F>(this, std::ptr::null_mut()) }
}

unsafe extern "C" fn set<T, F>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> c_int
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, &Bound<'py, PyAny>) -> PyResult<()> + Copy + 'static,
{
    guard(-1, |py| {
        if value.is_null() {
            return Err(PyTypeError::new_err("the attribute cannot be deleted"));
        }
        // SAFETY: CPython calls an accessor with an instance of its class and a living value.
        let (object, value, function) = unsafe {
            (
                Borrowed::from_ptr(py, this),
                Borrowed::from_ptr(py, value),
                conjure::<F>(),
            )
        };
        function(
            This {
                object: &object,
                class: PhantomData,
            },
            &value,
        )?;
        Ok(0)
    })
}

unsafe extern "C" fn construct<T, F>(
    class: *mut ffi::PyTypeObject,
    _arguments: *mut ffi::PyObject,
    _names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: Fn(Python<'_>) -> PyResult<T> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: `tp_new` is called with the class itself or one below it, whose instances begin with our layout.
        unsafe {
            let value = conjure::<F>()(py)?;
            let class = Borrowed::from_ptr(py, class.cast());
            Ok(
                Instance::<T>::new(class.cast::<PyType>()?.as_any().cast::<PyType>()?, value)?
                    .object
                    .into_bound(py)
                    .into_ptr(),
            )
        }
    })
}

unsafe extern "C" fn finalize<T: Finalize>(this: *mut ffi::PyObject) {
    guard((), |py| {
        // SAFETY: CPython finalizes an instance while it is whole, and keeps an exception under way safe around it
        // only for `__del__`; so that is done here.
        unsafe {
            let pending = PyErr::take(py);
            let object = Borrowed::from_ptr(py, this);
            T::finalize(This {
                object: &object,
                class: PhantomData,
            });
            if let Some(pending) = pending {
                pending.restore(py);
            }
        }
        Ok(())
    });
}

unsafe extern "C" fn dealloc<T: Class>(this: *mut ffi::PyObject) {
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

unsafe extern "C" fn traverse<T: Class>(
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

unsafe extern "C" fn clear<T: Class>(this: *mut ffi::PyObject) -> c_int {
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
