//! Sending: writes and flow control.

use std::io;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::Linked;
use crate::dispatch::is_fatal;
use crate::ffi::{Bytes, Call, Instance, This};

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Sends or queues bytes, and pauses the protocol where that is due. `own` makes an owned copy. Answers why the
    /// connection is broken, if it is.
    #[inline]
    pub(crate) fn send_or_queue(
        self,
        bytes: &[u8],
        own: impl FnOnce() -> Bytes,
    ) -> PyResult<Option<io::Error>> {
        let Some(key) = self.link().key.get() else {
            return Ok(None);
        };
        let this = T::hosted(Instance::of(self));
        let written = self.with_loop(|event_loop| Ok(event_loop.engine()?.write(key, bytes, own, &this)))?;
        match written {
            Some(Ok(written)) => {
                if written.queued {
                    self.note_write_context()?;
                }
                if written.pause {
                    self.tell_flow("pause_writing")?;
                }
                Ok(None)
            }
            None => Ok(None),
            Some(Err(error)) => Ok(Some(error)),
        }
    }

    /// Notes that this is the context in which the room to send is waited for.
    fn note_write_context(self) -> PyResult<()> {
        if self.link().write_context.borrow().is_some() {
            return Ok(());
        }
        let old = self.link().write_context.replace(Some(self.current_context()?));
        drop(old);
        Ok(())
    }

    /// Tells the protocol to resume where what is queued is no more than the low mark.
    pub(crate) fn resume_writing(self) -> PyResult<()> {
        let resume = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.resume_at(queued)
        })?;
        if resume == Some(true) {
            self.tell_flow("resume_writing")?;
        }
        Ok(())
    }

    /// Tells the protocol to pause or resume; what it raises is reported, not passed on.
    fn tell_flow(self, name: &str) -> PyResult<()> {
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

    /// Sends what is gathered in this turn.
    pub(crate) fn flush_now(self) -> PyResult<()> {
        self.with_engine(|engine, key| engine.flush_now(key)).map(drop)
    }

    /// The marks of flow control, in bytes.
    pub(crate) fn limits(self) -> PyResult<(usize, usize)> {
        Ok(self.state(|stream| stream.flow.limits())?.unwrap_or_default())
    }

    /// Sets the marks of flow control, by asyncio's own rules and words, and pauses the protocol if that is due.
    pub(crate) fn set_limits(self, call: &Call<'_, 'py>) -> PyResult<()> {
        let checks = self
            .py()
            .import("hotloop._reports")?
            .getattr("write_buffer_limits")?;
        let (high, low): (usize, usize) = call.forward(&checks)?.extract()?;
        self.state(|stream| stream.flow.set_limits(Some(high), Some(low)))?
            .transpose()
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        // What is only gathered goes out at the end of the turn without further news: it must not count as waiting.
        self.flush_now()?;
        let pause = self.state(|stream| {
            let queued = stream.queue.len();
            stream.flow.pause_at(queued)
        })?;
        if pause == Some(true) {
            self.tell_flow("pause_writing")?;
        }
        Ok(())
    }
}
