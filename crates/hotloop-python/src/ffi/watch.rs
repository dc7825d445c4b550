//! Whether a module's names may have changed meanings, without looking any of them up.

use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Object;

/// The names that are watched.
static NAMES: OnceLock<Object> = OnceLock::new();

/// Watches the names of a module, the first one that this is called with. Where CPython has no watcher left for them,
/// [`changes`] stays as it is.
pub(crate) fn watch(module: &Bound<'_, PyModule>) {
    let names = module.dict();
    if NAMES.set(names.as_any().into()).is_ok() {
        counted::begin(&names);
    }
}

/// The names that are watched, if any are.
pub(crate) fn watched(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    NAMES
        .get()?
        .bind(py)
        .cast::<PyDict>()
        .ok()
        .map(|names| names.to_owned())
}

/// A number that is another one after each change of what is watched.
#[inline]
pub(crate) fn changes() -> u64 {
    counted::changes()
}

/// A watcher of dictionaries counts (`PyDict_AddWatcher`).
#[cfg(Py_3_12)]
mod counted {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Bound, PyDict, PyErr, ffi};

    static CHANGES: AtomicU64 = AtomicU64::new(1);

    type Watcher = unsafe extern "C" fn(
        event: c_int,
        dict: *mut ffi::PyObject,
        key: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
    ) -> c_int;

    unsafe extern "C" {
        fn PyDict_AddWatcher(watcher: Watcher) -> c_int;
        fn PyDict_Watch(watcher: c_int, dict: *mut ffi::PyObject) -> c_int;
    }

    unsafe extern "C" fn count(
        _event: c_int,
        _dict: *mut ffi::PyObject,
        _key: *mut ffi::PyObject,
        _value: *mut ffi::PyObject,
    ) -> c_int {
        CHANGES.fetch_add(1, Ordering::Relaxed);
        0
    }

    pub(super) fn begin(names: &Bound<'_, PyDict>) {
        // SAFETY: the dictionary is alive, and so is the function, which touches no object.
        let refused = unsafe {
            let watcher = PyDict_AddWatcher(count);
            watcher < 0 || PyDict_Watch(watcher, names.as_ptr()) < 0
        };
        if refused {
            drop(PyErr::take(names.py()));
        }
    }

    #[inline]
    pub(super) fn changes() -> u64 {
        CHANGES.load(Ordering::Relaxed)
    }
}

/// Each dictionary has a version of its own (PEP 509).
#[cfg(not(Py_3_12))]
mod counted {
    use super::{Bound, NAMES, PyDict, ffi};

    pub(super) fn begin(_names: &Bound<'_, PyDict>) {}

    #[inline]
    pub(super) fn changes() -> u64 {
        NAMES.get().map_or(0, |names| {
            // SAFETY: it is a dictionary, and kept alive.
            unsafe { (*names.pointer().cast::<ffi::PyDictObject>()).ma_version_tag }
        })
    }
}
