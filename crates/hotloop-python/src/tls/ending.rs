//! The end of a connection: flushing, the goodbye in both directions, the loss. What goes wrong is asyncio's to report.

use pyo3::prelude::*;

use super::session::Handshake;
use super::state::{AppState, State};
use super::{It, Lower};
use crate::ffi;

impl<'py> It<'_, 'py> {
    /// Begins the orderly end, as asyncio's `_start_shutdown()`.
    pub(super) fn start_shutdown(self) -> PyResult<()> {
        let py = self.py();
        match self.state.get() {
            State::Flushing | State::Shutdown | State::Unwrapped => Ok(()),
            State::Handshake => self.by_asyncio("_start_shutdown"),
            State::Wrapped => {
                self.mark_closed()?;
                self.state.set(State::Flushing);
                self.start_timer(
                    pyo3::intern!(py, "_shutdown_timeout_handle"),
                    pyo3::intern!(py, "_ssl_shutdown_timeout"),
                    pyo3::intern!(py, "_check_shutdown_timeout"),
                )?;
                self.flush_all()
            }
        }
    }

    /// Reads what is left, then says goodbye, as asyncio's `_do_flush()`.
    pub(super) fn flush_all(self) -> PyResult<()> {
        self.read()?;
        self.set_state(State::Shutdown)?;
        self.shut_down()
    }

    /// Goes on with the goodbye, as asyncio's `_do_shutdown()`; `close_notify` goes behind everything that was written.
    pub(super) fn shut_down(self) -> PyResult<()> {
        let py = self.py();
        if let Err(error) = self.write_backlog() {
            return self.fatal(error);
        }
        let is_eof = self.object().getattr(pyo3::intern!(py, "_eof_received"))?;
        let session = self.session();
        let said = match session {
            Some(session) if !is_eof.is_truthy()? => session.shut_down(py)?,
            _ => Handshake::Complete,
        };
        match said {
            Handshake::Again => self.process_outgoing(),
            Handshake::Failed(error) => {
                self.cancel_timer(pyo3::intern!(py, "_shutdown_timeout_handle"))?;
                let name = pyo3::intern!(py, "_fatal_error");
                ffi::call_method(self.object(), name, [error.into_value(py).bind(py).as_any()]).map(drop)
            }
            Handshake::Complete => {
                self.process_outgoing()?;
                self.call_eof_received()?;
                self.finish_shutdown()
            }
        }
    }

    /// The goodbye is said: closes the transport below.
    fn finish_shutdown(self) -> PyResult<()> {
        let py = self.py();
        self.cancel_timer(pyo3::intern!(py, "_shutdown_timeout_handle"))?;
        let transport = self.transport.borrow().as_ref().map(Lower::object).cloned();
        let (Some(transport), Some(event_loop)) = (transport, self.event_loop.borrow().clone()) else {
            return Ok(());
        };
        // The transport below sends what it is given before it closes, also while it asks to wait.
        self.send_outgoing()?;
        let close = transport.bind(py).getattr(pyo3::intern!(py, "close"))?;
        let name = pyo3::intern!(py, "call_soon");
        ffi::call_method(&event_loop.bind(py), name, [&close]).map(drop)
    }

    /// Tells the application that the peer has ended, once.
    pub(super) fn call_eof_received(self) -> PyResult<()> {
        if AppState::Made.is(self)? {
            self.by_asyncio("_call_eof_received")
        } else {
            Ok(())
        }
    }

    /// The connection is gone.
    pub(super) fn connection_lost(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        self.forget_queued();
        if let Some(session) = self.session() {
            session.drain(py)?;
        }
        self.lost.set(self.lost.get() + 1);
        self.mark_closed()?;
        if self.state.get() != State::Handshake && (AppState::Made.is(self)? || AppState::Ended.is(self)?) {
            AppState::Lost.set(self)?;
            if let (Some(protocol), Some(event_loop)) = (self.protocol(), self.event_loop.borrow().clone()) {
                let told = protocol
                    .object
                    .bind(py)
                    .getattr(pyo3::intern!(py, "connection_lost"))?;
                let name = pyo3::intern!(py, "call_soon");
                ffi::call_method(&event_loop.bind(py), name, [&told, error])?;
            }
        }
        self.state.set(State::Unwrapped);
        let transport = self.transport.take();
        let app_transport = self.app_transport.take();
        let protocol = self.protocol.take();
        drop((transport, app_transport, protocol));
        self.wake_waiter(error)?;
        self.cancel_timer(pyo3::intern!(py, "_shutdown_timeout_handle"))?;
        self.cancel_timer(pyo3::intern!(py, "_handshake_timeout_handle"))
    }

    /// Resolves what waits for the handshake, if anything does: by an exception unless that is `None`.
    pub(super) fn wake_waiter(self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let name = pyo3::intern!(py, "_waiter");
        let waiter = self.object().getattr(name)?;
        if waiter.is_none() {
            return Ok(());
        }
        if !ffi::call_method(&waiter, pyo3::intern!(py, "cancelled"), [])?.is_truthy()? {
            let name = if error.is_none() {
                pyo3::intern!(py, "set_result")
            } else {
                pyo3::intern!(py, "set_exception")
            };
            ffi::call_method(&waiter, name, [error])?;
        }
        self.object().setattr(name, py.None())
    }

    /// The application's transport is closed from now on.
    fn mark_closed(self) -> PyResult<()> {
        let transport = self.app_transport.borrow().clone();
        match transport {
            None => Ok(()),
            Some(transport) => {
                let closed = pyo3::intern!(self.py(), "_closed");
                transport.bind(self.py()).setattr(closed, true)
            }
        }
    }
}
