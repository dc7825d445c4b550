//! Receiving: from the kernel to the protocol.

use hotloop::driver::Batch;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::{DatagramTransport, It};
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Instance, This};
use crate::transports::link::Linked;

impl<'py> It<'_, 'py> {
    /// Receives once and tells the protocol.
    pub(super) fn receive(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let (Some(key), 0) = (self.link.key.get(), self.link.lost.get()) else {
            return Ok(());
        };
        let mut batch = event_loop.take_batch();
        let received = event_loop.engine()?.receive_datagrams(key, &mut batch);
        if let Err(error) = received {
            event_loop.return_batch(batch);
            return if is_transient(&error) {
                Ok(())
            } else {
                self.error_received(os_error(error))
            };
        }
        let told = if self.batched.get() {
            self.tell_all(event_loop, &batch)
        } else {
            self.tell(event_loop, &batch)
        };
        event_loop.return_batch(batch);
        told
    }

    /// Tells the protocol of the first datagram of a batch, and of the next ones as long as nothing else could have
    /// come in between had each had a turn of its own. The rest waits for the next turn.
    fn tell(self, event_loop: This<'_, 'py, Loop>, batch: &Batch) -> PyResult<()> {
        let py = self.py();
        for index in 0..batch.len() {
            let Some(protocol) = self.protocol() else {
                return Ok(());
            };
            let (data, from) = self.read(event_loop, batch, index)?;
            let name = pyo3::intern!(py, "datagram_received");
            let told = ffi::call_method(&protocol.object.bind(py), name, [&data, &from]).map(drop);
            event_loop.messages().keep(data);
            let rest = index + 1;
            if rest < batch.len() && (told.is_err() || !self.may_go_on(event_loop)?) {
                if let Some(key) = self.link.key.get()
                    && !self.is_closing()
                {
                    let host = DatagramTransport::hosted(Instance::of(self));
                    event_loop.engine()?.hold_datagrams(key, batch, rest, &host);
                }
                return told;
            }
            told?;
        }
        Ok(())
    }

    /// Tells a protocol that wants them so of all datagrams of a batch at once.
    fn tell_all(self, event_loop: This<'_, 'py, Loop>, batch: &Batch) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let datagrams = (0..batch.len())
            .map(|index| self.read(event_loop, batch, index))
            .collect::<PyResult<Vec<_>>>()?;
        let list = PyList::new(py, datagrams)?.into_any();
        let name = pyo3::intern!(py, "datagrams_received");
        ffi::call_method(&protocol.object.bind(py), name, [&list]).map(drop)
    }

    /// A datagram and who sent it, as Python objects.
    #[inline]
    fn read(
        self,
        event_loop: This<'_, 'py, Loop>,
        batch: &Batch,
        index: usize,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = self.py();
        let (bytes, from) = batch
            .get(index)
            .ok_or_else(|| PyRuntimeError::new_err("a batch has less datagrams than it says"))?;
        let from = self.peers.borrow_mut().heard(py, from)?;
        Ok((event_loop.messages().bytes(py, bytes), from))
    }

    /// Whether a turn for the next datagram would have nothing else to do.
    fn may_go_on(self, event_loop: This<'_, 'py, Loop>) -> PyResult<bool> {
        if self.link.lost.get() > 0
            || self.paused.get()
            || !event_loop.is_running()
            || event_loop.is_stopping()
            || event_loop.is_debug()
            || event_loop.gathers_tls()
        {
            return Ok(false);
        }
        let end = if event_loop.engine()?.timers().is_empty() {
            0.0
        } else {
            event_loop.now()? + event_loop.resolution()
        };
        Ok(event_loop.engine()?.is_quiet(end))
    }
}
