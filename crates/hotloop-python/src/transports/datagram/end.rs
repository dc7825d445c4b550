//! The end of an endpoint: orderly, at once, or by an error.

use hotloop::transport::Close;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::It;
use crate::dispatch::is_fatal;
use crate::event_loop::Loop;
use crate::ffi::{self, This};

impl<'py> It<'_, 'py> {
    pub(super) fn close(self) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
        self.with_loop(|event_loop| {
            let close = event_loop.engine()?.close_endpoint(key);
            if close == Close::LostSoon {
                self.schedule_lost(event_loop, &py.None().into_bound(py))
            } else {
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Ends the transport at once; `connection_lost(error)` follows on the next turn.
    pub(super) fn force_close(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        if self.lost.get() > 0 {
            return Ok(());
        }
        self.with_loop(|event_loop| {
            event_loop.engine()?.abort_endpoint(key);
            let dropped = self.named.take();
            drop(dropped);
            self.schedule_lost(event_loop, error)
        })?;
        Ok(())
    }

    /// Reports an exception and ends the transport; lets `SystemExit` and `KeyboardInterrupt` through.
    pub(super) fn fail(self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if is_fatal(py, &error) {
            return Err(error);
        }
        let error = error.into_value(py).into_bound(py).into_any();
        self.report(&error, &PyString::new(py, message))?;
        self.force_close(&error)
    }

    pub(super) fn report(self, error: &Bound<'py, PyAny>, message: &Bound<'py, PyAny>) -> PyResult<()> {
        let reports = self.py().import("hotloop._reports")?;
        reports
            .call_method1("transport_failed", (self.object(), error, message))
            .map(drop)
    }

    fn schedule_lost(self, event_loop: This<'_, 'py, Loop>, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.lost.set(self.lost.get() + 1);
        let function = self
            .object()
            .getattr(pyo3::intern!(py, "_call_connection_lost"))?;
        event_loop.schedule(&function, (error,).into_pyobject(py)?.into_any().into(), None)?;
        Ok(())
    }

    /// Tells the protocol that the endpoint is closed, then lets go of everything.
    pub(super) fn connection_lost(self, error: Option<&Bound<'py, PyAny>>) -> PyResult<()> {
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
        let closed = match self.socket.take() {
            None => Ok(()),
            Some(socket) => socket.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop),
        };
        drop(self.protocol.take());
        drop(self.event_loop.take());
        drop((self.read_context.take(), self.write_context.take()));
        drop(self.peers.take());
        told.and(closed)
    }

    /// Takes the endpoint from the engine.
    pub(super) fn release(self) {
        let Some(key) = self.key.take() else { return };
        self.released.set(true);
        let event_loop = self.event_loop.borrow().clone();
        if let Some(event_loop) = event_loop
            && let Ok(mut engine) = event_loop.get(self.py()).engine()
        {
            engine.release_endpoint(key);
        }
    }
}
