//! Receiving: from the kernel to the protocol.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::It;
use crate::errors::os_error;
use crate::event_loop::Loop;
use crate::ffi::{self, This, WriteBuffer};
use crate::tls::{self, Tls};
use crate::transports::link::Received;
use crate::transports::protocol::{Kind, Protocol};

impl<'py> It<'_, 'py> {
    /// Receives once and tells the protocol.
    pub(super) fn receive(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        if self.link.lost.get() > 0 {
            return Ok(());
        }
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        match protocol.kind {
            Kind::Buffered => self.receive_into(event_loop, &protocol),
            Kind::Plain | Kind::Reader => match self.receive_bytes(event_loop, &protocol) {
                Ok(received) => self.received(received, &protocol),
                Err(error) => self.fail(error, "Fatal error: protocol.data_received() call failed."),
            },
            Kind::Tls => self.receive_encrypted(event_loop, &protocol),
        }
    }

    /// Receives for a TLS connection, which decrypts through the same scratch buffer.
    fn receive_encrypted(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let (Some(key), Some(connection)) = (self.link.key.get(), Tls::of(&protocol.object)) else {
            return Ok(());
        };
        let mut scratch = event_loop.take_scratch();
        let received = event_loop.engine()?.receive(key, &mut scratch);
        let outcome = received.map(|count| {
            let bytes = ffi::filled(&scratch[..count]);
            (count > 0).then(|| connection.with(self.py(), |connection| tls::absorb(connection, bytes)))
        });
        event_loop.return_scratch(scratch);
        match outcome {
            Ok(None) => self.receive_end(protocol),
            Ok(Some(absorbed)) => absorbed
                .and_then(|()| connection.with(self.py(), tls::advance))
                .or_else(|error| self.fail(error, "Fatal error: protocol.buffer_updated() call failed.")),
            Err(error) => self.received(Received::failed(error), protocol),
        }
    }

    fn receive_into(self, event_loop: This<'_, 'py, Loop>, protocol: &Protocol) -> PyResult<()> {
        let py = self.py();
        let Some(key) = self.link.key.get() else {
            return Ok(());
        };
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
            Err(error) => self.received(Received::failed(error), protocol),
        }
    }

    fn received(self, received: Received, protocol: &Protocol) -> PyResult<()> {
        match received {
            Received::Done => Ok(()),
            Received::End => self.receive_end(protocol),
            Received::Failed(error) => self.fail(os_error(error), "Fatal read error on socket transport"),
        }
    }

    /// Ends the connection over something that cannot be received into; the socket says why.
    fn refuse_buffer(self, buffer: &Bound<'py, PyAny>) -> PyResult<()> {
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

    /// The peer has ended its stream.
    fn receive_end(self, protocol: &Protocol) -> PyResult<()> {
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
