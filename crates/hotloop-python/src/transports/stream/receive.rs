//! Receiving: from the kernel to the protocol.

use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::It;
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Instance, This, WriteBuffer};
use crate::transports::protocol::{Kind, Protocol};
use crate::transports::{Transport, reader};

impl<'py> It<'_, 'py> {
    /// Starts to receive.
    pub(super) fn start_reading(self) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        let old = self.read_context.replace(Some(self.current_context()?));
        drop(old);
        self.with_loop(|event_loop| {
            event_loop
                .engine()?
                .start_reading(key, Transport::Socket(Instance::of(self)))
                .map_err(os_error)
        })?;
        Ok(())
    }

    /// Stops receiving.
    pub(super) fn stop_reading(self) -> PyResult<()> {
        let Some(key) = self.key.get() else { return Ok(()) };
        let kept = self.with_loop(|event_loop| Ok(event_loop.engine()?.stop_reading(key)))?;
        drop(kept);
        Ok(())
    }

    /// Receives once and tells the protocol.
    pub(super) fn receive(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        if self.lost.get() > 0 {
            return Ok(());
        }
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        match protocol.kind {
            Kind::Buffered => self.receive_into(event_loop, &protocol),
            Kind::Plain | Kind::Reader => self.receive_bytes(event_loop, &protocol),
        }
    }

    pub(super) fn receive_bytes(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let outcome = match received {
            Ok(0) => Err(Ok(())),
            Ok(count) => {
                let protocol_object = protocol.object.bind(py);
                let fed = match protocol.kind {
                    Kind::Reader => reader::feed(&protocol_object, &scratch[..count]),
                    _ => Ok(false),
                };
                // Nothing foreign has run if this is false, so the scratch buffer is still this read's.
                fed.map(|fed| (!fed).then(|| ffi::bytes_from(py, &scratch[..count])))
                    .map_err(Err)
            }
            Err(error) => {
                event_loop.return_scratch(scratch);
                return self.read_failed(error);
            }
        };
        event_loop.return_scratch(scratch);
        let told = match outcome {
            Ok(None) => Ok(()),
            Ok(Some(data)) => data_received(&protocol.object.bind(py), &data),
            Err(Ok(())) => return self.receive_end(protocol),
            Err(Err(error)) => Err(error),
        };
        told.or_else(|error| self.fail(error, "Fatal error: protocol.data_received() call failed."))
    }

    pub(super) fn receive_into(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.key.get() else { return Ok(()) };
        let protocol_object = protocol.object.bind(py);
        let size = (-1i32).into_pyobject(py)?.into_any();
        let buffer =
            ffi::call_method(&protocol_object, pyo3::intern!(py, "get_buffer"), [&size]).and_then(|buffer| {
                if buffer.len()? == 0 {
                    return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
                }
                Ok(buffer)
            });
        let buffer = match buffer {
            Ok(buffer) => buffer,
            Err(error) => return self.fail(error, "Fatal error: protocol.get_buffer() call failed."),
        };
        let Ok(mut buffer) = WriteBuffer::new(&buffer) else {
            return self.refuse_buffer(&buffer);
        };
        let received = event_loop.engine()?.receive(key, buffer.as_mut_slice());
        drop(buffer);
        match received {
            Ok(0) => self.receive_end(protocol),
            Ok(count) => {
                let count = count.into_pyobject(py)?.into_any();
                ffi::call_method(&protocol_object, pyo3::intern!(py, "buffer_updated"), [&count])
                    .map(drop)
                    .or_else(|error| self.fail(error, "Fatal error: protocol.buffer_updated() call failed."))
            }
            Err(error) => self.read_failed(error),
        }
    }

    /// Ends the connection over something that cannot be received into; the socket says why.
    pub(super) fn refuse_buffer(self, buffer: &Bound<'py, PyAny>) -> PyResult<()> {
        let Some(socket) = self.python_socket()? else {
            return Ok(());
        };
        match socket
            .bind(self.py())
            .call_method1(pyo3::intern!(self.py(), "recv_into"), (buffer,))
        {
            Ok(_) => Ok(()),
            Err(error) => self.fail(error, "Fatal read error on socket transport"),
        }
    }

    pub(super) fn read_failed(self, error: io::Error) -> PyResult<()> {
        match error.kind() {
            // The stream was released.
            io::ErrorKind::NotFound => Ok(()),
            _ if is_transient(&error) => Ok(()),
            _ => self.fail(os_error(error), "Fatal read error on socket transport"),
        }
    }

    /// The peer has ended its stream.
    pub(super) fn receive_end(self, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let keep_open = ffi::call_method(&protocol.object.bind(py), pyo3::intern!(py, "eof_received"), [])
            .and_then(|keep_open| keep_open.is_truthy());
        match keep_open {
            Err(error) => self.fail(error, "Fatal error: protocol.eof_received() call failed."),
            Ok(true) => self.stop_reading(),
            Ok(false) => self.close(),
        }
    }
}

#[inline]
fn data_received(protocol: &Bound<'_, PyAny>, data: &Bound<'_, PyAny>) -> PyResult<()> {
    ffi::call_method(protocol, pyo3::intern!(protocol.py(), "data_received"), [data]).map(drop)
}
