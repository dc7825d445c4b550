//! Sending: writes and flow control.

use std::io;

use hotloop::transport::FlowControl;
use hotloop::{StreamKey, Written};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Key, Linked};
use crate::dispatch::is_fatal;
use crate::ffi::{Bytes, Call, Instance, This};
use crate::host::Engine;
use crate::modules::REPORTS;
use crate::transports::{LOG_THRESHOLD, Transport};

impl<'py, T: Linked<Key = StreamKey>> This<'_, 'py, T> {
    /// Sends or queues bytes, and pauses the protocol where that is due. `own` makes an owned copy. Answers why the
    /// connection is broken, if it is.
    #[inline]
    pub(crate) fn send_or_queue(
        self,
        bytes: &[u8],
        own: impl FnOnce() -> Bytes,
    ) -> PyResult<Option<io::Error>> {
        self.write_by(|engine, key, this| engine.write(key, bytes, own, this))
    }

    /// The same of several buffers, which are kept and not copied.
    pub(crate) fn send_or_queue_lines(self, lines: Vec<Bytes>) -> PyResult<Option<io::Error>> {
        self.write_by(|engine, key, this| engine.write_lines(key, lines, this))
    }

    #[inline]
    fn write_by(
        self,
        write: impl FnOnce(&mut Engine, StreamKey, &Transport) -> io::Result<Written>,
    ) -> PyResult<Option<io::Error>> {
        let Some(key) = self.link().key.get() else {
            return Ok(None);
        };
        let this = T::hosted(Instance::of(self));
        let written = self.with_loop(|event_loop| Ok(write(&mut *event_loop.engine()?, key, &this)))?;
        match written {
            Some(Ok(written)) => self.note_written(written).map(|()| None),
            None => Ok(None),
            Some(Err(error)) => Ok(Some(error)),
        }
    }
}

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Counts a write to a lost connection, and warns of a program that goes on with it.
    #[cold]
    pub(crate) fn count_lost_write(self) -> PyResult<()> {
        let lost = self.link().lost.get();
        if lost >= LOG_THRESHOLD {
            let reports = REPORTS.module(self.py())?;
            reports.call_method0("write_to_lost")?;
        }
        self.link().lost.set(lost + 1);
        Ok(())
    }

    /// Notes what a write has led to, and pauses the protocol where that is due.
    #[inline]
    pub(crate) fn note_written(self, written: Written) -> PyResult<()> {
        if written.queued {
            self.note_write_context()?;
        }
        if written.pause {
            self.tell_flow("pause_writing")?;
        }
        Ok(())
    }

    /// Notes that this is the context in which the room to send is waited for.
    fn note_write_context(self) -> PyResult<()> {
        if self.link().write_context.is_some() {
            return Ok(());
        }
        let old = self.link().write_context.replace(Some(self.current_context()?));
        drop(old);
        Ok(())
    }

    /// Tells the protocol to resume where what is queued is no more than the low mark.
    pub(crate) fn resume_writing(self) -> PyResult<()> {
        let resume = self.flow(|flow, queued| flow.resume_at(queued))?;
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
        let reports = REPORTS.module(py)?;
        reports
            .call_method1("flow_control_failed", (self.object(), error.into_value(py), name))
            .map(drop)
    }

    /// Looks at flow control and at how much is queued; `None` once that is released or the loop closed.
    pub(crate) fn flow<R>(self, look: impl FnOnce(&mut FlowControl, usize) -> R) -> PyResult<Option<R>> {
        self.state(|state| {
            let (flow, queued) = T::Key::flow(state);
            look(flow, queued)
        })
    }

    /// Sends what is gathered in this turn.
    pub(crate) fn flush_now(self) -> PyResult<()> {
        self.with_engine(|engine, key| key.flush_now(engine)).map(drop)
    }

    /// The marks of flow control, in bytes.
    pub(crate) fn limits(self) -> PyResult<(usize, usize)> {
        Ok(self.flow(|flow, _| flow.limits())?.unwrap_or_default())
    }

    /// Sets the marks of flow control, by asyncio's own rules and words, and pauses the protocol if that is due.
    pub(crate) fn set_limits(self, call: &Call<'_, 'py>) -> PyResult<()> {
        let checks = REPORTS.module(self.py())?.getattr("write_buffer_limits")?;
        let (high, low): (usize, usize) = call.forward(&checks)?.extract()?;
        self.flow(|flow, _| flow.set_limits(Some(high), Some(low)))?
            .transpose()
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        // What is only gathered goes out at the end of the turn without further news: it must not count as waiting.
        self.flush_now()?;
        let pause = self.flow(|flow, queued| flow.pause_at(queued))?;
        if pause == Some(true) {
            self.tell_flow("pause_writing")?;
        }
        Ok(())
    }
}
