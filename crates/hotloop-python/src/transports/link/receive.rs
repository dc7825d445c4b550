//! Receiving: from the kernel to a protocol that takes bytes.

use std::io;

use hotloop::StreamKey;
use pyo3::prelude::*;

use super::{Key, Linked};
use crate::allocator;
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Instance, This};
use crate::transports::MAX_SIZE;
use crate::transports::protocol::Protocol;

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
        let given = self.given_context();
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
    /// Receives once and tells the protocol: a stock stream reader natively, any other by its `data_received`.
    ///
    /// # Errors
    /// The protocol's.
    pub(crate) fn receive_bytes(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Protocol,
    ) -> PyResult<Received> {
        let Some(key) = self.link().key.get() else {
            return Ok(Received::Done);
        };
        let received = if self.link().received_long.get() {
            self.receive_long(event_loop, protocol, key)
        } else {
            self.receive_short(event_loop, protocol, key)
        }?;
        let told = match received {
            Ok(told) => told,
            Err(error) => return Ok(Received::failed(error)),
        };
        self.link().received_long.set(told.count >= allocator::LONG);
        if told.count == 0 {
            return Ok(Received::End);
        }
        match told.data {
            None => event_loop.engine()?.note_received_only(),
            Some(data) => {
                let name = pyo3::intern!(self.py(), "data_received");
                ffi::call_method(&protocol.object.bind(self.py()), name, [&data])?;
                event_loop.messages().keep(data);
            }
        }
        Ok(Received::Done)
    }

    /// Receives through the scratch buffer, of which what came in is copied.
    fn receive_short(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Protocol,
        key: StreamKey,
    ) -> PyResult<io::Result<Told<'py>>> {
        let py = self.py();
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let told = received.map(|count| {
            let bytes = &scratch[..count];
            let fed = count > 0 && protocol.feed(py, bytes)?;
            // Nothing foreign has run unless it was fed, so the scratch buffer is still this read's.
            let data = (count > 0 && !fed).then(|| event_loop.messages().bytes(py, ffi::filled(bytes)));
            Ok(Told { count, data })
        });
        event_loop.return_scratch(scratch);
        told.map_or_else(|error| Ok(Err(error)), |told: PyResult<_>| told.map(Ok))
    }

    /// Receives to where the bytes are to stay: much of it is not copied again.
    fn receive_long(
        self,
        event_loop: This<'_, 'py, Loop>,
        protocol: &Protocol,
        key: StreamKey,
    ) -> PyResult<io::Result<Told<'py>>> {
        let py = self.py();
        let receive = |room: &mut [_]| Ok(event_loop.engine()?.receive(key, room));
        let Some(feeding) = protocol.feeding(py)? else {
            let data = match ffi::receive_bytes(py, MAX_SIZE, receive)? {
                Ok(data) => data.into_any(),
                Err(error) => return Ok(Err(error)),
            };
            let count = data.len()?;
            let data = (count > 0).then_some(data);
            return Ok(Ok(Told { count, data }));
        };
        let count = ffi::receive_append(&feeding.buffer, MAX_SIZE, receive)?;
        if matches!(count, Ok(1..)) {
            feeding.fed()?;
        }
        Ok(count.map(|count| Told { count, data: None }))
    }
}

/// What was received.
struct Told<'py> {
    /// How many bytes.
    count: usize,
    /// What the protocol is still to be told; nothing if it was fed.
    data: Option<Bound<'py, PyAny>>,
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
