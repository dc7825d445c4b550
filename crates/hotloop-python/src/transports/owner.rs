//! Who owns the descriptor of a transport.

use std::os::fd::OwnedFd;

use pyo3::prelude::*;

use crate::ffi::Object;

/// Who owns the descriptor of a transport, and is what closes it.
#[derive(Debug)]
pub(crate) enum Owner {
    /// The transport: a connection that was accepted, until somebody asks for its socket.
    Transport(OwnedFd),
    /// A Python object: a socket, or the file object of a pipe.
    File(Object),
    /// Nobody: it is closed. The object that it had is there to be asked for.
    Closed(Option<Object>),
}

impl Owner {
    /// The Python object, if there is one.
    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Self::File(file) | Self::Closed(Some(file)) => Some(file),
            Self::Transport(_) | Self::Closed(None) => None,
        }
    }

    /// The Python object, if it owns the descriptor.
    pub(super) fn file(&self) -> Option<&Object> {
        match self {
            Self::File(file) => Some(file),
            Self::Transport(_) | Self::Closed(_) => None,
        }
    }

    /// Whether the descriptor is closed, as far as the transport knows.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// What is to be put in the place of an owner whose descriptor is about to be closed.
    pub(super) fn closed(&self) -> Self {
        Self::Closed(self.object().cloned())
    }

    /// Closes the descriptor, by the Python object's own `close()` where there is one.
    ///
    /// # Errors
    /// What that raises.
    pub(super) fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::File(file) => file.bind(py).call_method0(pyo3::intern!(py, "close")).map(drop),
            Self::Transport(_) | Self::Closed(_) => Ok(()),
        }
    }
}
