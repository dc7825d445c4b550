//! The end of a connection: by an error, and what a socket has to let go of.

use pyo3::prelude::*;

use super::It;

impl<'py> It<'_, 'py> {
    /// Reports an exception and ends the connection; lets `SystemExit` and `KeyboardInterrupt` through.
    pub(super) fn fail(self, error: PyErr, message: &str) -> PyResult<()> {
        self.fail_by("transport_failed", error, message)
    }

    /// Tells the protocol that the connection is lost, then lets go of everything.
    pub(super) fn connection_lost(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let lost = self.lose(error);
        lost.and(self.detach())
    }
}
