//! The clock: `time.monotonic()`, natively as long as it is the system's.

use hotloop::clock::{Clock, Monotonic};
use pyo3::prelude::*;
use pyo3::types::PyFloat;

use super::Loop;
use crate::ffi::{self, Object, This};

/// Watches what `time.monotonic` is: tests that freeze or move time put a function of their own there.
///
/// # Errors
/// What the import raises.
pub(super) fn watch(py: Python<'_>) -> PyResult<()> {
    ffi::watch(&py.import("time")?);
    Ok(())
}

/// What stands in the place of the system's clock, if anything does.
///
/// # Errors
/// What looking at it raises.
pub(super) fn patched(py: Python<'_>) -> PyResult<Option<Object>> {
    // At the end of the interpreter modules have no names any more.
    let Some(names) = ffi::watched(py) else {
        return Ok(None);
    };
    let found = names.get_item(pyo3::intern!(py, "monotonic"))?;
    let Some(found) = found.filter(|found| !found.is_none()) else {
        return Ok(None);
    };
    let module = found.getattr_opt(pyo3::intern!(py, "__self__"))?;
    let is_systems = module
        .and_then(|module| module.cast_into::<PyModule>().ok())
        .is_some_and(|module| module.dict().is(&names))
        && found
            .getattr(pyo3::intern!(py, "__name__"))?
            .eq(pyo3::intern!(py, "monotonic"))?;
    Ok((!is_systems).then(|| found.into()))
}

impl This<'_, '_, Loop> {
    /// The loop's time, in seconds: a subclass's or the instance's own `time()` where there is one.
    ///
    /// # Errors
    /// What that raises.
    #[inline]
    pub(crate) fn now(self) -> PyResult<f64> {
        self.find_own()?;
        if !self.has_own_time.get() {
            return Ok(Monotonic.now());
        }
        let own_time = self.own_time.borrow().clone();
        let own_time = own_time.or_else(|| self.own_clock.borrow().clone());
        match own_time {
            None => Ok(Monotonic.now()),
            Some(own_time) => ffi::call_no_args(&own_time.bind(self.py()))?.extract(),
        }
    }
}

/// `Loop.time()`: asyncio's, which asks `time.monotonic` each time.
///
/// # Errors
/// What a clock of the program's own raises.
pub(super) fn time<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.find_own()?;
    if this.has_own_time.get() {
        let own_clock = this.own_clock.borrow().clone();
        if let Some(own_clock) = own_clock {
            return ffi::call_no_args(&own_clock.bind(this.py()));
        }
    }
    Ok(PyFloat::new(this.py(), Monotonic.now()).into_any())
}
