//! Sending: writes, flow control, and the news of what was queued.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::It;
use crate::errors::os_error;
use crate::ffi::Bytes;
use crate::writing::Plain;

impl<'py> It<'_, 'py> {
    /// Sends or queues bytes. `own` makes an owned copy.
    #[inline]
    pub(super) fn send(self, bytes: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.link.lost.get() > 0 {
            return self.count_lost_write();
        }
        let broken = self.send_or_queue(bytes, own)?;
        self.fail_to_send(broken)
    }

    /// Sends or queues what `writelines` is given.
    pub(super) fn send_lines(self, lines: Plain<'py>) -> PyResult<()> {
        match lines {
            Plain::Joined(joined) => self.send(joined.as_bytes(), || Bytes::new(&joined)),
            Plain::Lines(_) if self.link.lost.get() > 0 => self.count_lost_write(),
            Plain::Lines(lines) => {
                let broken = self.send_or_queue_lines(lines)?;
                self.fail_to_send(broken)
            }
        }
    }

    #[inline]
    fn fail_to_send(self, broken: Option<io::Error>) -> PyResult<()> {
        match broken {
            None => Ok(()),
            Some(error) => self.fail(os_error(error), "Fatal write error on socket transport"),
        }
    }

    /// Queued bytes were sent.
    pub(super) fn sent(self) -> PyResult<()> {
        self.resume_writing()?;
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
        drop(self.link.write_context.take());
        self.resolve_empty_waiter(None)?;
        if lost {
            self.link.lost.set(self.link.lost.get() + 1);
            return self.connection_lost(None);
        }
        if eof && let Some(key) = self.link.key.get() {
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

    pub(super) fn is_eof_written(self) -> PyResult<bool> {
        Ok(self.state(|stream| stream.is_eof_written())?.unwrap_or(false))
    }

    /// Raises where asyncio refuses a write.
    pub(super) fn check_write(self, function: &str) -> PyResult<()> {
        if self.is_eof_written()? {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {function}() after write_eof()"
            )));
        }
        if self.empty_waiter.is_some() {
            return Err(PyRuntimeError::new_err(format!(
                "unable to {function}; sendfile is in progress"
            )));
        }
        Ok(())
    }

    pub(super) fn resolve_empty_waiter(self, error: Option<&PyErr>) -> PyResult<()> {
        let py = self.py();
        let Some(waiter) = self.empty_waiter.get() else {
            return Ok(());
        };
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
