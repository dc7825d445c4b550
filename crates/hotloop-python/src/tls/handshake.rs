//! The handshake, as far as it goes well: its beginning, its steps and its completion. What goes wrong is asyncio's to
//! report, and so is everything in debug mode.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::It;
use super::session::Handshake;
use super::state::{AppState, State};
use crate::ffi;

impl<'py> It<'_, 'py> {
    /// The transport of the encrypted bytes is there: begins the handshake, as asyncio's `_start_handshake()`.
    pub(super) fn start_handshake(self) -> PyResult<()> {
        let py = self.py();
        if self.event_loop().is_none_or(|it| it.get(py).is_debug()) {
            return self.by_asyncio("_start_handshake");
        }
        self.set_state(State::Handshake)?;
        self.start_timer(
            pyo3::intern!(py, "_handshake_timeout_handle"),
            pyo3::intern!(py, "_ssl_handshake_timeout"),
            pyo3::intern!(py, "_check_handshake_timeout"),
        )?;
        self.handshake()
    }

    /// Goes on with the handshake after bytes have come in.
    pub(super) fn handshake(self) -> PyResult<()> {
        let py = self.py();
        let Some(session) = self.session() else {
            return Ok(());
        };
        let outer = self.busy.replace(true);
        let outcome = session.handshake(py);
        self.busy.set(outer);
        match outcome? {
            Handshake::Again => self.process_outgoing(),
            Handshake::Complete => self.complete(),
            Handshake::Failed(error) => self
                .object()
                .call_method1(
                    pyo3::intern!(py, "_on_handshake_complete"),
                    (error.into_value(py),),
                )
                .map(drop),
        }
    }

    /// The handshake is complete, as asyncio's `_on_handshake_complete(None)`.
    fn complete(self) -> PyResult<()> {
        let py = self.py();
        let by_asyncio = || {
            let name = pyo3::intern!(py, "_on_handshake_complete");
            ffi::call_method(self.object(), name, [&py.None().into_bound(py)]).map(drop)
        };
        if self.state.get() != State::Handshake || self.event_loop().is_none_or(|it| it.get(py).is_debug()) {
            return by_asyncio();
        }
        let ssl_object = self.ssl_object.borrow().clone();
        let (Some(ssl_object), Some(protocol)) = (ssl_object, self.protocol()) else {
            return by_asyncio();
        };
        let ssl_object = ssl_object.bind(py);
        let asked = [
            pyo3::intern!(py, "getpeercert"),
            pyo3::intern!(py, "cipher"),
            pyo3::intern!(py, "compression"),
        ]
        .map(|name| ffi::call_method(&ssl_object, name, []));
        // A certificate that cannot be read fails the handshake, in asyncio's way.
        let [Ok(certificate), Ok(cipher), Ok(compression)] = asked else {
            return by_asyncio();
        };
        self.cancel_timer(pyo3::intern!(py, "_handshake_timeout_handle"))?;
        self.state.set(State::Wrapped);
        let extra = self.object().getattr(pyo3::intern!(py, "_extra"))?;
        let extra = extra.cast::<PyDict>()?;
        extra.set_item(pyo3::intern!(py, "peercert"), certificate)?;
        extra.set_item(pyo3::intern!(py, "cipher"), cipher)?;
        extra.set_item(pyo3::intern!(py, "compression"), compression)?;
        extra.set_item(pyo3::intern!(py, "ssl_object"), &*ssl_object)?;
        if AppState::Initial.is(self)? {
            AppState::Made.set(self)?;
            let transport = self.app_transport.borrow().clone();
            let transport = match transport {
                Some(transport) => transport.into_bound(py),
                None => ffi::call_method(self.object(), pyo3::intern!(py, "_get_app_transport"), [])?,
            };
            let name = pyo3::intern!(py, "connection_made");
            ffi::call_method(&protocol.object.bind(py), name, [&transport])?;
        }
        self.wake_waiter(&py.None().into_bound(py))?;
        self.read()
    }

    /// Has a method called after a time, both of which the connection has by their names.
    pub(super) fn start_timer(
        self,
        handle: &Bound<'py, PyString>,
        delay: &Bound<'py, PyString>,
        method: &Bound<'py, PyString>,
    ) -> PyResult<()> {
        let Some(event_loop) = self.event_loop.borrow().clone() else {
            return Ok(());
        };
        let (py, this) = (self.py(), self.object());
        let name = pyo3::intern!(py, "call_later");
        let arguments = [&this.getattr(delay)?, &this.getattr(method)?];
        let timer = ffi::call_method(&event_loop.bind(py), name, arguments)?;
        this.setattr(handle, timer)
    }

    /// Cancels the timer of that name, if there is one.
    pub(super) fn cancel_timer(self, name: &Bound<'py, PyString>) -> PyResult<()> {
        let py = self.py();
        let handle = self.object().getattr(name)?;
        if !handle.is_none() {
            ffi::call_method(&handle, pyo3::intern!(py, "cancel"), [])?;
            self.object().setattr(name, py.None())?;
        }
        Ok(())
    }
}
