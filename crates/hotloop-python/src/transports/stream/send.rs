//! Sending: writes, flow control, and the news of what was queued.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::It;
use crate::dispatch::is_fatal;
use crate::errors::os_error;
use crate::ffi::{Bytes, Instance};
use crate::transports::{LOG_THRESHOLD, Transport};

impl<'py> It<'_, 'py> {
    /// Sends or queues bytes. `own` makes an owned copy.
    #[inline]
    pub(super) fn send(self, bytes: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let lost = self.lost.get();
        if lost > 0 {
            if lost >= LOG_THRESHOLD {
                self.py()
                    .import("hotloop._reports")?
                    .call_method0("write_to_lost")?;
            }
            self.lost.set(lost + 1);
            return Ok(());
        }
        let Some(key) = self.key.get() else { return Ok(()) };
        let this = Transport::Socket(Instance::of(self));
        let written = self.with_loop(|event_loop| Ok(event_loop.engine()?.write(key, bytes, own, &this)))?;
        match written {
            Some(Ok(written)) => {
                if written.queued {
                    self.note_write_context()?;
                }
                if written.pause {
                    self.tell_flow("pause_writing")
                } else {
                    Ok(())
                }
            }
            None => Ok(()),
            Some(Err(error)) => self.fail(os_error(error), "Fatal write error on socket transport"),
        }
    }

    /// Sends what is gathered in this turn.
    pub(super) fn flush_now(self) -> PyResult<()> {
        if let Some(key) = self.key.get() {
            self.with_loop(|event_loop| {
                event_loop.engine()?.flush_now(key);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Queued bytes were sent.
    pub(super) fn sent(self) -> PyResult<()> {
        let resume = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.resume_at(queued)
        })?;
        if resume == Some(true) {
            self.tell_flow("resume_writing")?;
        }
        let Some((empty, eof, lost)) = self.state(|stream| {
            (
                stream.queue.is_empty(),
                stream.is_eof_written(),
                stream.finish_close(),
            )
        })?
        else {
            return Ok(());
        };
        if !empty {
            return Ok(());
        }
        drop(self.write_context.take());
        self.resolve_empty_waiter(None)?;
        if lost {
            self.lost.set(self.lost.get() + 1);
            return self.connection_lost(None);
        }
        if eof && let Some(key) = self.key.get() {
            self.with_loop(|event_loop| event_loop.engine()?.shutdown_write(key).map_err(os_error))?;
        }
        Ok(())
    }

    /// A send failed.
    pub(super) fn broken(self, error: io::Error) -> PyResult<()> {
        let error = os_error(error);
        self.resolve_empty_waiter(Some(&error))?;
        self.fail(error, "Fatal write error on socket transport")
    }

    /// Tells the protocol to pause or resume; what it raises is reported, not passed on.
    pub(super) fn tell_flow(self, name: &str) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let Err(error) = protocol.object.bind(py).call_method0(name) else {
            return Ok(());
        };
        if is_fatal(py, &error) {
            return Err(error);
        }
        let reports = py.import("hotloop._reports")?;
        reports
            .call_method1("flow_control_failed", (self.object(), error.into_value(py), name))
            .map(drop)
    }

    /// Raises where asyncio refuses a write.
    pub(super) fn check_write(self, function: &str) -> PyResult<()> {
        if self.is_eof_written()? {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {function}() after write_eof()"
            )));
        }
        if self.empty_waiter.borrow().is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "unable to {function}; sendfile is in progress"
            )));
        }
        Ok(())
    }

    /// Notes that this is the context in which the room to send is waited for.
    pub(super) fn note_write_context(self) -> PyResult<()> {
        if self.write_context.borrow().is_some() {
            return Ok(());
        }
        let old = self.write_context.replace(Some(self.current_context()?));
        drop(old);
        Ok(())
    }

    pub(super) fn resolve_empty_waiter(self, error: Option<&PyErr>) -> PyResult<()> {
        let py = self.py();
        let waiter = self.empty_waiter.borrow().clone();
        let Some(waiter) = waiter else { return Ok(()) };
        let waiter = waiter.bind(py);
        if waiter.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        match error {
            None => waiter.call_method1("set_result", (py.None(),))?,
            Some(error) => waiter.call_method1("set_exception", (error.value(py),))?,
        };
        Ok(())
    }
}
