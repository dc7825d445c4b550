//! The handshake, as far as it goes well: its beginning, its steps and its completion. What goes wrong is asyncio's to
//! report, and so is everything in debug mode.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::It;
use super::session::Handshake;
use super::state::State;
use crate::ffi::{self, Object};

impl<'py> It<'_, 'py> {
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
        self.cancel_time_limit()?;
        self.state.set(State::Wrapped);
        let extra = self.object().getattr(pyo3::intern!(py, "_extra"))?;
        let extra = extra.cast::<PyDict>()?;
        extra.set_item(pyo3::intern!(py, "peercert"), certificate)?;
        extra.set_item(pyo3::intern!(py, "cipher"), cipher)?;
        extra.set_item(pyo3::intern!(py, "compression"), compression)?;
        extra.set_item(pyo3::intern!(py, "ssl_object"), &*ssl_object)?;
        let [initial, made] = app_states(py)?;
        let app_state = pyo3::intern!(py, "_app_state");
        if initial.is(&self.object().getattr(app_state)?) {
            self.object().setattr(app_state, made.bind(py))?;
            let transport = ffi::call_method(self.object(), pyo3::intern!(py, "_get_app_transport"), [])?;
            let name = pyo3::intern!(py, "connection_made");
            ffi::call_method(&protocol.object.bind(py), name, [&transport])?;
        }
        ffi::call_method(self.object(), pyo3::intern!(py, "_wakeup_waiter"), [])?;
        self.read()
    }

    fn cancel_time_limit(self) -> PyResult<()> {
        let py = self.py();
        let name = pyo3::intern!(py, "_handshake_timeout_handle");
        let handle = self.object().getattr(name)?;
        if !handle.is_none() {
            ffi::call_method(&handle, pyo3::intern!(py, "cancel"), [])?;
            self.object().setattr(name, py.None())?;
        }
        Ok(())
    }
}

/// asyncio's states of the application's protocol: before `connection_made`, and after.
fn app_states(py: Python<'_>) -> PyResult<&'static [Object; 2]> {
    static FOUND: OnceLock<[Object; 2]> = OnceLock::new();
    if let Some(states) = FOUND.get() {
        return Ok(states);
    }
    let states = py.import("asyncio.sslproto")?.getattr("AppProtocolState")?;
    let found = [
        states.getattr("STATE_INIT")?.into(),
        states.getattr("STATE_CON_MADE")?.into(),
    ];
    Ok(FOUND.get_or_init(|| found))
}
