//! Receiving: from the kernel to a protocol that takes bytes.

use std::io;

use hotloop::StreamKey;
use pyo3::prelude::*;

use super::{Key, Linked};
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Instance, This};
use crate::transports::protocol::{Kind, Protocol};
use crate::transports::reader;

/// What became of one read.
pub(crate) enum Received {
    /// The protocol has it, or there was nothing.
    Done,
    /// The stream has ended.
    End,
    /// The kernel refused.
    Failed(io::Error),
}

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Starts to receive.
    pub(crate) fn start_reading(self) -> PyResult<()> {
        let Some(key) = self.link().key.get() else {
            return Ok(());
        };
        let given = self.link().context.clone();
        self.link().shares_context.set(given.is_none());
        let context = match given {
            Some(given) => Some(given),
            None => self.with_loop(|event_loop| event_loop.context_of_readers(self.py()))?,
        };
        let old = self.link().read_context.replace(context);
        drop(old);
        self.with_loop(|event_loop| {
            let host = T::hosted(Instance::of(self));
            key.start_reading(&mut *event_loop.engine()?, host)
                .map_err(os_error)
        })?;
        Ok(())
    }

    /// Stops receiving.
    pub(crate) fn stop_reading(self) -> PyResult<()> {
        let kept = self.with_engine(|engine, key| key.stop_reading(engine))?;
        drop(kept);
        Ok(())
    }
}

impl<'py, T: Linked<Key = StreamKey>> This<'_, 'py, T> {
    /// Receives once through the scratch buffer and tells the protocol: a stock stream reader natively, any other by
    /// its `data_received`.
    ///
    /// # Errors
    /// The protocol's.
    pub(crate) fn receive_bytes(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Protocol,
    ) -> PyResult<Received> {
        let py = self.py();
        let Some(key) = self.link().key.get() else {
            return Ok(Received::Done);
        };
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let protocol_object = protocol.object.bind(py);
        let data = match received {
            Ok(count) if count > 0 => {
                let fed = match protocol.kind {
                    Kind::Reader => reader::feed(&protocol_object, &scratch[..count]),
                    _ => Ok(false),
                };
                // Nothing foreign has run if this is false, so the scratch buffer is still this read's.
                fed.map(|fed| (!fed).then(|| ffi::bytes_from(py, &scratch[..count])))
            }
            ended => {
                event_loop.return_scratch(scratch);
                return Ok(match ended {
                    Ok(_) => Received::End,
                    Err(error) => Received::failed(error),
                });
            }
        };
        event_loop.return_scratch(scratch);
        let Some(data) = data? else {
            event_loop.engine()?.note_received_only();
            return Ok(Received::Done);
        };
        ffi::call_method(&protocol_object, pyo3::intern!(py, "data_received"), [&data])?;
        Ok(Received::Done)
    }
}

impl Received {
    /// What a refused read comes to: nothing, where the stream was released or there is nothing after all.
    pub(crate) fn failed(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound || is_transient(&error) {
            Self::Done
        } else {
            Self::Failed(error)
        }
    }
}
