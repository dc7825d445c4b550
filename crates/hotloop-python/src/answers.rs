//! Small things that native methods take from Python and answer it.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::ffi::{Call, Object};

/// A positional argument that asyncio's own code always passes.
pub(crate) fn argument<'a, 'py>(
    call: &Call<'a, 'py>,
    index: usize,
    function: &str,
) -> PyResult<Borrowed<'a, 'py, PyAny>> {
    call.get(index)
        .ok_or_else(|| PyTypeError::new_err(format!("{function}() takes more arguments")))
}

/// `None`.
#[inline]
pub(crate) fn none(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Ok(py.None().into_bound(py))
}

#[inline]
pub(crate) fn bool_object(py: Python<'_>, value: bool) -> PyResult<Bound<'_, PyAny>> {
    Ok(pyo3::types::PyBool::new(py, value).to_owned().into_any())
}

/// The object, or `None`.
pub(crate) fn object_or_none(py: Python<'_>, object: Option<Object>) -> Bound<'_, PyAny> {
    object.map_or_else(|| py.None().into_bound(py), |object| object.into_bound(py))
}
