//! The states of a TLS connection, which are asyncio's.

use std::sync::OnceLock;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::ffi::Object;

/// asyncio's `SSLProtocolState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before the handshake, and after the end.
    Unwrapped,
    Handshake,
    /// Bytes flow.
    Wrapped,
    /// The connection is ending: what is queued goes out first.
    Flushing,
    /// `close_notify` is sent, that of the peer is awaited.
    Shutdown,
}

/// In the order of [`MEMBERS`].
const STATES: [State; 5] = [
    State::Unwrapped,
    State::Handshake,
    State::Wrapped,
    State::Flushing,
    State::Shutdown,
];

const MEMBERS: [&str; 5] = ["UNWRAPPED", "DO_HANDSHAKE", "WRAPPED", "FLUSHING", "SHUTDOWN"];

impl State {
    /// The state that a member of `SSLProtocolState` stands for.
    ///
    /// # Errors
    /// `ValueError` for anything else.
    pub(super) fn from_member(member: &Bound<'_, PyAny>) -> PyResult<Self> {
        let members = members(member.py())?;
        let found = members.iter().zip(STATES).find(|(known, _)| known.is(member));
        found
            .map(|(_, state)| state)
            .ok_or_else(|| PyValueError::new_err("not a state of a TLS connection"))
    }

    /// The member of `SSLProtocolState` for it.
    ///
    /// # Errors
    /// What importing asyncio's module raises.
    pub(super) fn member(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        Ok(members(py)?[self as usize].clone().into_bound(py))
    }
}

fn members(py: Python<'_>) -> PyResult<&'static [Object; 5]> {
    static FOUND: OnceLock<[Object; 5]> = OnceLock::new();
    if let Some(members) = FOUND.get() {
        return Ok(members);
    }
    let states = py.import("asyncio.sslproto")?.getattr("SSLProtocolState")?;
    let [a, b, c, d, e] = MEMBERS.map(|name| states.getattr(name).map(Object::from));
    let members = [a?, b?, c?, d?, e?];
    Ok(FOUND.get_or_init(|| members))
}
