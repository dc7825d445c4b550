//! Child processes: `reap`, which takes their exit status.

use std::io;
use std::os::fd::RawFd;

use hotloop::driver;
use pyo3::prelude::*;

use crate::errors::os_error;

/// Takes the exit status of a child that has ended, by its descriptor, as `subprocess` gives it: the code, or the number of
/// the signal that has ended it, negated. Raises `ChildProcessError` if somebody else has taken it.
#[pyfunction]
fn reap(py: Python<'_>, pidfd: RawFd) -> PyResult<i32> {
    loop {
        // A debugger in another thread may have to let go of it first.
        match py.detach(|| driver::reap(pidfd)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
            reaped => return reaped.map_err(os_error),
        }
    }
}

/// Adds the function to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(reap, module)?)
}
