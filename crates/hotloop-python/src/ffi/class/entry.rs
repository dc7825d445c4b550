//! Where Python calls in: methods, accessors and constructors.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{Class, Instance, This};
use crate::ffi::Call;

pub(super) unsafe extern "C" fn method<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    // SAFETY: CPython calls a method with an instance of its class, and with its arguments as a vectorcall's.
    unsafe {
        enter::<T, F, _>(this, std::ptr::null_mut(), |this, function| {
            let call = Call::new(this.py(), arguments, positional, names);
            function(this, call).map(Bound::into_ptr)
        })
    }
}

/// As [`method`], for one that [`guard_bare`] is enough for.
pub(super) unsafe extern "C" fn bare_method<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, Call<'a, 'py>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    guard_bare(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls a method with an instance of its class, and with its arguments as a vectorcall's.
        unsafe {
            let object = Borrowed::from_ptr(py, this);
            let call = Call::new(py, arguments, positional, names);
            conjure::<F>()(This::new(&object), call).map(Bound::into_ptr)
        }
    })
}

pub(super) unsafe extern "C" fn no_args<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    // SAFETY: as `method`'s.
    unsafe {
        enter::<T, F, _>(this, std::ptr::null_mut(), |this, function| {
            let call = Call::new(this.py(), arguments, positional, names);
            if call.len() > 0 || call.has_keywords() {
                let name = std::any::type_name::<F>().rsplit("::").next().unwrap_or_default();
                return Err(call.unwanted(&format!("{}.{name}", T::ASYNCIO_NAME)));
            }
            function(this).map(Bound::into_ptr)
        })
    }
}

/// As [`no_args`], for one that [`guard_bare`] is enough for.
pub(super) unsafe extern "C" fn bare_no_args<T, F>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    if positional > 0 || !names.is_null() {
        // SAFETY: the arguments are passed on unchanged.
        return unsafe { no_args::<T, F>(this, arguments, positional, names) };
    }
    guard_bare(std::ptr::null_mut(), |py| {
        // SAFETY: CPython calls a method with an instance of its class.
        unsafe {
            let object = Borrowed::from_ptr(py, this);
            conjure::<F>()(This::new(&object)).map(Bound::into_ptr)
        }
    })
}

pub(super) unsafe extern "C" fn get<T, F>(
    this: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    // SAFETY: CPython calls an accessor with an instance of its class.
    unsafe {
        enter::<T, F, _>(this, std::ptr::null_mut(), |this, function| {
            function(this).map(Bound::into_ptr)
        })
    }
}

pub(super) unsafe extern "C" fn repr<T, F>(this: *mut ffi::PyObject) -> *mut ffi::PyObject
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>) -> PyResult<Bound<'py, PyAny>> + Copy + 'static,
{
    // SAFETY: as the accessor's.
    unsafe { get::<T, F>(this, std::ptr::null_mut()) }
}

pub(super) unsafe extern "C" fn set<T, F>(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> c_int
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, &Bound<'py, PyAny>) -> PyResult<()> + Copy + 'static,
{
    // SAFETY: CPython calls an accessor with an instance of its class, and a living value or null.
    unsafe {
        enter::<T, F, _>(this, -1, |this, function| {
            if value.is_null() {
                return Err(PyTypeError::new_err("the attribute cannot be deleted"));
            }
            function(this, &Borrowed::from_ptr(this.py(), value))?;
            Ok(0)
        })
    }
}

/// `tp_setattro`: sets the attribute as any object does, then tells `F`.
pub(super) unsafe extern "C" fn assign<T, F>(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int
where
    T: Class,
    F: for<'a, 'py> Fn(This<'a, 'py, T>, &Bound<'py, PyAny>) -> PyResult<()> + Copy + 'static,
{
    // SAFETY: CPython calls the slot with an instance of its class, a living name, and a living value or null.
    unsafe {
        if ffi::PyObject_GenericSetAttr(this, name, value) < 0 {
            return -1;
        }
        enter::<T, F, _>(this, -1, |this, function| {
            function(this, &Borrowed::from_ptr(this.py(), name))?;
            Ok(0)
        })
    }
}

pub(super) unsafe extern "C" fn construct<T, F>(
    class: *mut ffi::PyTypeObject,
    _arguments: *mut ffi::PyObject,
    _names: *mut ffi::PyObject,
) -> *mut ffi::PyObject
where
    T: Class,
    F: Fn(&Bound<'_, PyType>) -> PyResult<T> + Copy + 'static,
{
    guard(std::ptr::null_mut(), |py| {
        // SAFETY: `tp_new` is called with the class itself or one below it, whose instances begin with our layout.
        unsafe {
            let class = Borrowed::from_ptr(py, class.cast());
            let class = class.cast::<PyType>()?;
            let value = conjure::<F>()(&class)?;
            let instance = Instance::<T>::new(&class, value)?;
            Ok(instance.object().clone().into_bound(py).into_ptr())
        }
    })
}

/// Calls `act` with the instance that Python has called and the plain function `F` behind the entry.
///
/// # Safety
/// `this` is a living instance of the class of `T`, and an `F` was passed as a value once.
#[inline]
unsafe fn enter<T: Class, F: Copy, R>(
    this: *mut ffi::PyObject,
    failed: R,
    act: impl FnOnce(This<'_, '_, T>, F) -> PyResult<R>,
) -> R {
    guard(failed, |py| {
        // SAFETY: as promised.
        unsafe {
            let object = Borrowed::from_ptr(py, this);
            act(This::new(&object), conjure::<F>())
        }
    })
}

/// Runs what Python has called, and gives Python its result or its exception. A panic becomes an exception.
#[inline]
pub(in crate::ffi) fn guard<R>(failed: R, act: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
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

/// As [`guard`], without telling PyO3 that this thread holds the lock, which costs as much as a short method does. Where
/// PyO3 was not told before, it keeps a `Py` or an exception that is dropped by `act` until it is told the next time; so
/// this is for what drops none where all goes well.
#[inline]
pub(in crate::ffi) fn guard_bare<R>(failed: R, act: impl FnOnce(Python<'_>) -> PyResult<R>) -> R {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: Python calls with the interpreter lock held.
        act(unsafe { Python::assume_attached() })
    }));
    match outcome {
        Ok(Ok(result)) => result,
        outcome => {
            fail(outcome.map(Result::err));
            failed
        }
    }
}

/// Raises what has come of a call in the place of its result.
#[cold]
fn fail(outcome: std::thread::Result<Option<PyErr>>) {
    guard((), |_py| match outcome {
        Ok(error) => error.map_or(Ok(()), Err),
        Err(panic) => resume_unwind(panic),
    });
}

/// A plain function, out of thin air.
///
/// # Safety
/// `F` has no size and was passed as a value once, so it can be called.
#[inline]
pub(super) unsafe fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a value without a size has no bytes to be read or to be wrong, and one such value existed.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}
