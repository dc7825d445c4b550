//! The states of a TLS connection, which are asyncio's.

use std::sync::OnceLock;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::It;
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

/// In the order of [`MEMBERS`], which is theirs.
const STATES: [State; 5] = [
    State::Unwrapped,
    State::Handshake,
    State::Wrapped,
    State::Flushing,
    State::Shutdown,
];

impl State {
    /// The state that a member of `SSLProtocolState` stands for.
    ///
    /// # Errors
    /// `ValueError` for anything else.
    pub(super) fn from_member(member: &Bound<'_, PyAny>) -> PyResult<Self> {
        let members = MEMBERS.get(member.py())?;
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
        Ok(MEMBERS.get(py)?[self as usize].clone().into_bound(py))
    }
}

impl It<'_, '_> {
    /// Goes from one state to another, as asyncio's `_set_state()`.
    ///
    /// # Errors
    /// `RuntimeError` where none leads to the other.
    pub(super) fn set_state(self, to: State) -> PyResult<()> {
        let py = self.py();
        let from = self.state.get();
        let allowed = matches!(
            (from, to),
            (_, State::Unwrapped)
                | (State::Unwrapped, State::Handshake)
                | (State::Handshake, State::Wrapped)
                | (State::Wrapped, State::Flushing)
                | (State::Flushing, State::Shutdown)
        );
        if !allowed {
            let [from, to] = [from.member(py)?.str()?, to.member(py)?.str()?];
            return Err(PyRuntimeError::new_err(format!(
                "cannot switch state from {from} to {to}"
            )));
        }
        self.state.set(to);
        Ok(())
    }
}

/// What the application's protocol was told: asyncio's `AppProtocolState`, in the attribute `_app_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppState {
    Initial,
    /// `connection_made`.
    Made,
    /// `eof_received`.
    Ended,
    /// `connection_lost`.
    Lost,
}

impl AppState {
    /// Whether a connection has it.
    ///
    /// # Errors
    /// What importing asyncio's module raises.
    pub(super) fn is(self, connection: It<'_, '_>) -> PyResult<bool> {
        let py = connection.py();
        let has = connection.object().getattr(pyo3::intern!(py, "_app_state"))?;
        Ok(APP_MEMBERS.get(py)?[self as usize].is(&has))
    }

    /// Gives it to a connection.
    ///
    /// # Errors
    /// As of [`is`](Self::is).
    pub(super) fn set(self, connection: It<'_, '_>) -> PyResult<()> {
        let py = connection.py();
        let member = APP_MEMBERS.get(py)?[self as usize].bind(py);
        connection
            .object()
            .setattr(pyo3::intern!(py, "_app_state"), member)
    }
}

/// Members of one of asyncio's enumerations, in an order of ours.
struct Members {
    class: &'static str,
    names: &'static [&'static str],
    /// One for each name, once they were looked up.
    found: OnceLock<Vec<Object>>,
}

/// In the order of [`State`].
static MEMBERS: Members = Members::new(
    "SSLProtocolState",
    &["UNWRAPPED", "DO_HANDSHAKE", "WRAPPED", "FLUSHING", "SHUTDOWN"],
);

/// In the order of [`AppState`].
static APP_MEMBERS: Members = Members::new(
    "AppProtocolState",
    &["STATE_INIT", "STATE_CON_MADE", "STATE_EOF", "STATE_CON_LOST"],
);

impl Members {
    const fn new(class: &'static str, names: &'static [&'static str]) -> Self {
        let found = OnceLock::new();
        Self { class, names, found }
    }

    /// # Errors
    /// What importing asyncio's module raises.
    fn get(&self, py: Python<'_>) -> PyResult<&[Object]> {
        if let Some(members) = self.found.get() {
            return Ok(members);
        }
        let class = py.import("asyncio.sslproto")?.getattr(self.class)?;
        let members = self
            .names
            .iter()
            .map(|name| class.getattr(name).map(Object::from));
        let members = members.collect::<PyResult<_>>()?;
        Ok(self.found.get_or_init(|| members))
    }
}
