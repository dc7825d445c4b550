//! Errors of the kernel, as Python raises them.

use std::io;

use hotloop::driver::{OutOfRange, Refused};
use pyo3::exceptions::{PyBlockingIOError, PyInterruptedError, PyOSError, PyValueError};
use pyo3::prelude::*;

/// The `OSError` for an error: with its number and the system's text, of the class that Python has for the number.
/// Where the driver knows more than the system's text says, its own; a `ValueError` for a number that `select` has no
/// room for.
pub(crate) fn os_error(error: io::Error) -> PyErr {
    if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        return PyOSError::new_err((refused.errno(), refused.to_string()));
    }
    if let Some(beyond) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<OutOfRange>())
    {
        return PyValueError::new_err(beyond.to_string());
    }
    let Some(number) = error.raw_os_error() else {
        return error.into();
    };
    let text = error.to_string();
    // Rust appends the number to the system's text.
    let text = text
        .strip_suffix(&format!(" (os error {number})"))
        .unwrap_or(&text)
        .to_owned();
    PyOSError::new_err((number, text))
}

/// Whether an error says to try again later.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whether an exception of a Python socket says to try again later.
pub(crate) fn would_block(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}
