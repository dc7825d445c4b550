//! The end: in order, at once, by an error, or unnoticed.

use hotloop::transport::Close;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use super::{Key, Linked, tuple};
use crate::dispatch::is_fatal;
use crate::event_loop::Loop;
use crate::ffi::{self, This};
use crate::modules::REPORTS;

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Ends the connection in order: behind what is queued.
    pub(crate) fn close(self) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        self.link().closing.set(true);
        self.with_loop(|event_loop| {
            let close = key.close(&mut *event_loop.engine()?);
            if close == Close::LostSoon {
                self.schedule_lost(event_loop, &py.None().into_bound(py))
            } else {
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Ends the connection at once; `connection_lost(error)` follows on the next turn.
    pub(crate) fn force_close(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        if self.link().lost.get() > 0 {
            return Ok(());
        }
        self.link().closing.set(true);
        self.with_loop(|event_loop| {
            key.abort(&mut *event_loop.engine()?);
            self.schedule_lost(event_loop, error)
        })?;
        Ok(())
    }

    /// Reports an exception by a function of `hotloop._reports` and ends the connection; lets `SystemExit` and
    /// `KeyboardInterrupt` through.
    pub(crate) fn fail_by(self, report: &str, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        self.report_by(report, &error, message)?;
        self.force_close(&error)
    }

    /// Reports an exception by a function of `hotloop._reports`.
    pub(crate) fn report_by(self, report: &str, error: &Bound<'py, PyAny>, message: &str) -> PyResult<()> {
        REPORTS
            .module(self.py())?
            .call_method1(report, (self.object(), error, message))
            .map(drop)
    }

    pub(crate) fn schedule_lost(
        self,
        event_loop: This<'_, 'py, Loop>,
        error: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = self.py();
        self.link().lost.set(self.link().lost.get() + 1);
        let function = self
            .object()
            .getattr(pyo3::intern!(py, "_call_connection_lost"))?;
        let arguments = tuple((error,).into_pyobject(py)?);
        event_loop.schedule(&function, arguments, self.given_context())?;
        Ok(())
    }

    /// Tells the protocol that the connection is lost, then closes the file and lets go of everything.
    pub(crate) fn lose(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let none = py.None().into_bound(py);
        let told = match self.protocol() {
            None => Ok(()),
            Some(protocol) => {
                let name = pyo3::intern!(py, "connection_lost");
                ffi::call_method(&protocol.object.bind(py), name, [error.unwrap_or(&none)]).map(drop)
            }
        };
        self.release();
        let link = self.link();
        let closed = T::close_descriptor(self);
        drop(link.protocol.take());
        drop(link.event_loop.take());
        drop((link.read_context.take(), link.write_context.take()));
        told.and(closed)
    }

    /// Takes what is under it from the engine.
    pub(crate) fn release(self) {
        let Some(key) = self.link().key.take() else { return };
        self.link().closing.set(true);
        if let Some(event_loop) = self.event_loop()
            && let Ok(mut engine) = event_loop.get(self.py()).engine_now()
        {
            key.release(&mut engine);
        }
    }

    /// Warns of a transport that goes without having been closed, and closes its descriptor.
    pub(crate) fn warn_unclosed(self) {
        let py = self.py();
        let reported = REPORTS
            .module(py)
            .and_then(|reports| reports.call_method1("transport_unclosed", (self.object(),)))
            .and_then(|_| T::close_descriptor(self));
        // At the interpreter's exit there may be nothing left to warn with.
        if let Err(error) = reported
            && !error.is_instance_of::<PyImportError>(py)
        {
            error.write_unraisable(py, Some(self.object()));
        }
        self.release();
    }
}
