//! Sending: at once or from the queue, and flow control.

use std::collections::VecDeque;

use hotloop::Flushed;
use hotloop::driver::{Address, Outgoing};
use hotloop::transport::{Destination, Queued};
use pyo3::exceptions::{PyAttributeError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{DatagramTransport, It, Peer};
use crate::errors::{is_transient, os_error, would_block};
use crate::event_loop::Loop;
use crate::ffi::{self, Bytes, Instance, This};
use crate::transports::link::Linked;

/// What ends a transport that fails to send in a way that is no error of the socket.
const FATAL: &str = "Fatal write error on datagram transport";

/// Where a datagram goes.
pub(super) enum Target<'py> {
    /// To the peer that the socket is connected to.
    Peer,
    Address(Address),
    /// To what only the socket can make out.
    Named(Bound<'py, PyAny>),
}

impl<'py> It<'_, 'py> {
    /// Sends or queues a datagram. `own` makes an owned copy of its bytes.
    pub(super) fn send(
        self,
        bytes: &[u8],
        own: impl FnOnce() -> Bound<'py, PyBytes>,
        to: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        match self.target(to) {
            Target::Peer => self.send_to(bytes, own, None),
            Target::Address(address) => self.send_to(bytes, own, Some(address)),
            Target::Named(to) if self.link.key.get().is_some() => self.send_named(own(), &to),
            Target::Named(_) => Err(gone()),
        }
    }

    /// Sends the datagrams of `batch`, which it empties, in as few calls of the kernel as there can be.
    pub(super) fn send_batch(self, batch: &mut Vec<(Bound<'py, PyBytes>, Option<Address>)>) -> PyResult<()> {
        let mut rest = batch.drain(..).collect::<VecDeque<_>>();
        while !rest.is_empty() {
            let Some(key) = self.link.key.get() else {
                return Err(gone());
            };
            let outgoing: Vec<_> = rest
                .iter()
                .map(|(bytes, to)| Outgoing {
                    bytes: bytes.as_bytes(),
                    to: to.as_ref(),
                })
                .collect();
            let sent = self.with_loop(|event_loop| Ok(event_loop.engine()?.send_at_once(key, &outgoing)))?;
            match sent {
                None => return Err(gone()),
                Some(Ok(count)) => drop(rest.drain(..count)),
                Some(Err(error)) if is_transient(&error) => {
                    for (bytes, to) in rest.drain(..) {
                        self.send_to(bytes.as_bytes(), || bytes.clone(), to)?;
                    }
                }
                Some(Err(error)) => {
                    rest.pop_front();
                    self.error_received(os_error(error))?;
                }
            }
        }
        Ok(())
    }

    fn send_to(
        self,
        bytes: &[u8],
        own: impl FnOnce() -> Bound<'py, PyBytes>,
        to: Option<Address>,
    ) -> PyResult<()> {
        let Some(key) = self.link.key.get() else {
            return Err(gone());
        };
        let own = || Bytes::new(&own());
        let sent = self.with_loop(|event_loop| {
            let host = DatagramTransport::hosted(Instance::of(self));
            Ok(event_loop
                .engine()?
                .send_datagram(key, bytes, own, to.as_ref(), &host))
        })?;
        match sent {
            None => Ok(()),
            Some(Ok(written)) => self.note_written(written),
            Some(Err(error)) => self.error_received(os_error(error)),
        }
    }

    /// Where a datagram goes that is sent to `to`.
    #[inline]
    pub(super) fn target(self, to: Option<&Bound<'py, PyAny>>) -> Target<'py> {
        match (self.peer, to) {
            (Peer::Named, _) | (Peer::Unnamed, None) => Target::Peer,
            (_, Some(to)) => match self.read_address(to) {
                Some(address) => Target::Address(address),
                None => Target::Named(to.clone()),
            },
            // Nowhere to send it to: the socket says so.
            (Peer::None, None) => Target::Named(self.py().None().into_bound(self.py())),
        }
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub(super) fn flush(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let Some(key) = self.link.key.get() else {
            return Ok(());
        };
        loop {
            let flushed = event_loop.engine()?.flush_datagrams(key);
            match flushed {
                Flushed::Empty | Flushed::Blocked => break,
                Flushed::Failed(error) => return self.error_received(os_error(error)),
                Flushed::Named => {
                    if !self.flush_named()? {
                        break;
                    }
                    if self.link.key.get() != Some(key) || self.link.lost.get() > 0 {
                        return Ok(());
                    }
                }
            }
        }
        self.resume_writing()?;
        let Some((empty, lost)) = self.state(|endpoint| (endpoint.is_empty(), endpoint.finish_close()))?
        else {
            return Ok(());
        };
        if empty {
            event_loop.engine()?.stop_flushing(key);
            drop(self.link.write_context.take());
        }
        if lost { self.lose(None) } else { Ok(()) }
    }

    /// The address that an object plainly is.
    #[inline]
    fn read_address(self, object: &Bound<'py, PyAny>) -> Option<Address> {
        // An answer goes to the very object that came with the datagram.
        let heard = self.peers.borrow().last_heard(object).copied();
        heard.or_else(|| self.family.read(object))
    }

    /// Sends or queues a datagram whose address only the socket can make out: a name, or something that is none.
    fn send_named(self, bytes: Bound<'py, PyBytes>, to: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(key) = self.link.key.get() else {
            return Ok(());
        };
        if self.state(|endpoint| endpoint.is_empty())?.unwrap_or(true) {
            match self.send_by_socket(&bytes, to) {
                Ok(true) => return Ok(()),
                // What an abort has dropped is not waited for.
                Ok(false) => drop(self.named.take()),
                Err(error) => return self.send_failed(error),
            }
        }
        self.named.borrow_mut().push_back(to.into());
        let datagram = Queued {
            bytes: Bytes::new(&bytes),
            to: Destination::Named,
        };
        let queued = self.with_loop(|event_loop| {
            let host = DatagramTransport::hosted(Instance::of(self));
            event_loop
                .engine()?
                .queue_datagram(key, datagram, &host)
                .map_err(os_error)
        })?;
        queued.map_or(Ok(()), |written| self.note_written(written))
    }

    /// Sends the first queued datagram, whose address only the socket can make out. Answers whether it is gone.
    fn flush_named(self) -> PyResult<bool> {
        let py = self.py();
        let Some(Some(datagram)) = self.state(|endpoint| endpoint.pop())? else {
            return Ok(false);
        };
        let Some(to) = self.named.borrow_mut().pop_front() else {
            return Ok(true);
        };
        let bytes = PyBytes::new(py, datagram.bytes.as_ref());
        match self.send_by_socket(&bytes, &to.bind(py)) {
            Ok(true) => Ok(true),
            Ok(false) => {
                self.named.borrow_mut().push_front(to);
                self.state(|endpoint| endpoint.push_front(datagram))?;
                Ok(false)
            }
            Err(error) => self.send_failed(error).map(|()| false),
        }
    }

    /// Has the socket send a datagram. Answers whether there was room.
    fn send_by_socket(self, bytes: &Bound<'py, PyBytes>, to: &Bound<'py, PyAny>) -> PyResult<bool> {
        let py = self.py();
        let socket = self.socket.borrow().clone();
        let Some(socket) = socket else { return Ok(true) };
        match ffi::call_method(&socket.bind(py), pyo3::intern!(py, "sendto"), [bytes, to]) {
            Ok(_) => Ok(true),
            Err(error) if would_block(py, &error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An error of the socket is the protocol's to hear of; anything else ends the transport.
    pub(super) fn send_failed(self, error: PyErr) -> PyResult<()> {
        if error.is_instance_of::<PyOSError>(self.py()) {
            self.error_received(error)
        } else {
            self.fail_by("transport_failed", error, FATAL)
        }
    }
}

/// What a send comes to after `connection_lost`: asyncio's transport looks for its socket and then for its loop.
fn gone() -> PyErr {
    PyAttributeError::new_err("'NoneType' object has no attribute 'call_exception_handler'")
}
