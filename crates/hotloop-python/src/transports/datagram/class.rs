//! What Python sees of a datagram transport: its class, methods and attributes.

use std::cell::RefCell;
use std::sync::OnceLock;

use hotloop::driver::{Address, MAX_SENT};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use super::send::Target;
use super::{CLASS, DatagramTransport, It};
use crate::answers::{argument, bool_object, none, object_or_none};
use crate::ffi::{Call, ClassBuilder, Object, ReadBuffer};
use crate::modules::{REPORTS, WRITING};
use crate::transports::{MAX_SIZE, methods};
use crate::writing;

/// What a queued datagram counts besides its bytes, in the running Python; nothing before it counted any and sent
/// empty datagrams, which both came with 3.13.
static OVERHEAD: OnceLock<Option<usize>> = OnceLock::new();

pub(super) fn overhead() -> Option<usize> {
    OVERHEAD.get().copied().flatten()
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(in crate::transports) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let transports = py.import("asyncio.transports")?;
    let bases = (
        transports.getattr("_FlowControlMixin")?,
        transports.getattr("DatagramTransport")?,
    );
    let attributes = PyDict::new(py);
    attributes.set_item("__slots__", PyTuple::empty(py))?;
    attributes.set_item("__module__", "hotloop._hotloop")?;
    let base = py
        .get_type::<PyType>()
        .call1(("_DatagramTransport", bases, attributes))?
        .cast_into::<PyType>()?;
    let overhead = WRITING.module(py)?.call_method0("datagram_overhead")?.extract()?;
    OVERHEAD.get_or_init(|| overhead);
    let class = ClassBuilder::<DatagramTransport>::new()
        .finalizer()
        .repr(repr)
        .method(
            c"sendto",
            c"sendto($self, /, data, addr=None)\n--\n\nSend a datagram, without waiting.",
            sendto,
        )
        .method(
            c"sendto_many",
            c"sendto_many($self, /, datagrams)\n--\n\nSend (data, addr) pairs, without waiting.",
            sendto_many,
        )
        .no_args(
            c"close",
            c"close($self, /)\n--\n\nClose the endpoint after what was sent.",
            methods::close,
        )
        .no_args(c"abort", c"abort($self, /)\n--\n\nClose the endpoint at once.", methods::abort)
        .no_args(
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the endpoint is closing or closed.",
            methods::is_closing,
        )
        .no_args(
            c"is_reading",
            c"is_reading($self, /)\n--\n\nWhether datagrams are being received.",
            is_reading,
        )
        .no_args(
            c"pause_reading",
            c"pause_reading($self, /)\n--\n\nReceive nothing until resume_reading().",
            pause_reading,
        )
        .no_args(
            c"resume_reading",
            c"resume_reading($self, /)\n--\n\nUndo pause_reading().",
            resume_reading,
        )
        .method(
            c"set_protocol",
            c"set_protocol($self, /, protocol)\n--\n\nSet the protocol.",
            set_protocol,
        )
        .no_args(
            c"get_protocol",
            c"get_protocol($self, /)\n--\n\nThe protocol.",
            methods::get_protocol,
        )
        .no_args(
            c"get_write_buffer_size",
            c"get_write_buffer_size($self, /)\n--\n\nWhat waits to be sent, in bytes.",
            methods::get_write_buffer_size,
        )
        .no_args(
            c"get_write_buffer_limits",
            c"get_write_buffer_limits($self, /)\n--\n\nThe low and the high mark of flow control, in bytes.",
            methods::get_write_buffer_limits,
        )
        .method(
            c"set_write_buffer_limits",
            c"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\nSet the marks of flow control, in bytes.",
            methods::set_write_buffer_limits,
        )
        .no_args(
            c"_begin_reading",
            c"_begin_reading($self, /)\n--\n\nReceive from now on, unless paused.",
            begin_reading,
        )
        .no_args(
            c"_read_ready",
            c"_read_ready($self, /)\n--\n\nReceive once and tell the protocol.",
            |this: It<'_, '_>| {
                let event_loop = this.event_loop();
                event_loop.map_or(Ok(()), |event_loop| event_loop.with(this.py(), |event_loop| this.receive(event_loop)))?;
                none(this.py())
            },
        )
        .no_args(
            c"_sendto_ready",
            c"_sendto_ready($self, /)\n--\n\nSend what is queued, as far as there is room.",
            |this: It<'_, '_>| {
                let event_loop = this.event_loop();
                event_loop.map_or(Ok(()), |event_loop| event_loop.with(this.py(), |event_loop| this.flush(event_loop)))?;
                none(this.py())
            },
        )
        .method(
            c"_call_connection_lost",
            c"_call_connection_lost($self, exc, /)\n--\n\nTell the protocol and close the socket.",
            call_connection_lost,
        )
        .method(
            c"_force_close",
            c"_force_close($self, exc, /)\n--\n\nClose the endpoint at once, for a reason.",
            force_close,
        )
        .method(
            c"_fatal_error",
            c"_fatal_error($self, exc, message='Fatal error on transport', /)\n--\n\nReport an exception and close the endpoint.",
            fatal_error,
        )
        .getter(c"_sock", c"The socket, or None.", |this: It<'_, '_>| {
            Ok(optional(this, &this.socket))
        })
        .getter(c"_sock_fd", c"The descriptor's number.", methods::number)
        .getter(
            c"_address",
            c"The only address that can be sent to, or None.",
            |this: It<'_, '_>| Ok(object_or_none(this.py(), this.address.clone())),
        )
        .getter(c"_loop", c"The loop, or None.", methods::event_loop)
        .getter(c"_protocol", c"The protocol, or None.", methods::get_protocol)
        .getter(
            c"_protocol_paused",
            c"Whether the protocol was told to pause.",
            methods::is_protocol_paused,
        )
        .getter(
            c"_conn_lost",
            c"How often the endpoint was lost, or sent to thereafter.",
            |this: It<'_, '_>| Ok(this.link.lost.get().into_pyobject(this.py())?.into_any()),
        )
        .getter(c"_closing", c"Whether the endpoint is closing or closed.", methods::is_closing)
        .getter(c"_paused", c"Whether reading is paused.", |this: It<'_, '_>| {
            bool_object(this.py(), this.paused.get())
        })
        .build(
            &base,
            &["_extra", "_loop", "_protocol_paused", "_high_water", "_low_water"],
            true,
        )?;
    class.setattr("max_size", MAX_SIZE)?;
    module.add("DatagramTransport", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

fn optional<'py>(this: It<'_, 'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(this.py(), held)
}

fn repr<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (reading, size) = this
        .state(|endpoint| (endpoint.life().is_reading(), endpoint.size()))?
        .unwrap_or_default();
    let reports = REPORTS.module(py)?;
    let closed = this.socket.borrow().is_none();
    reports.call_method1(
        "transport_repr",
        (this.object(), closed, reading, size, "_SelectorDatagramTransport"),
    )
}

fn sendto<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (data, to) = match (call.get(0), call.get(1)) {
        (Some(data), to) if call.len() <= 2 && !call.has_keywords() => {
            (data.to_owned(), to.map(|to| to.to_owned()))
        }
        _ => {
            let read = WRITING.module(py)?.getattr("read_sendto")?;
            let (data, to): (Bound<'py, PyAny>, Bound<'py, PyAny>) = call.forward(&read)?.extract()?;
            (data, Some(to))
        }
    };
    this.send_one(&data, to)?;
    none(py)
}

fn sendto_many<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let datagrams = call.only("DatagramTransport.sendto_many", "datagrams")?;
    let mut batch = Vec::with_capacity(MAX_SENT);
    let mut told = Ok(());
    for datagram in datagrams.try_iter()? {
        told = datagram.and_then(|datagram| this.send_among(&datagram, &mut batch));
        if told.is_err() {
            break;
        }
    }
    // What came before an error is sent all the same, as it is one by one.
    told.and(this.send_batch(&mut batch))?;
    none(py)
}

impl<'py> It<'_, 'py> {
    /// Sends one of many datagrams, or appends it to those that are to be sent.
    fn send_among(
        self,
        datagram: &Bound<'py, PyAny>,
        batch: &mut Vec<(Bound<'py, PyBytes>, Option<Address>)>,
    ) -> PyResult<()> {
        let (data, to): (Bound<'py, PyAny>, Bound<'py, PyAny>) = datagram.extract()?;
        match data.cast_exact::<PyBytes>() {
            // What is empty may not be sent at all; what is closed is counted one by one.
            Ok(bytes) if !bytes.as_bytes().is_empty() && self.link.lost.get() == 0 => {
                let to = self.check_destination(Some(to))?;
                let address = match self.target(to.as_ref()) {
                    Target::Peer => None,
                    Target::Address(address) => Some(address),
                    Target::Named(_) => {
                        self.send_batch(batch)?;
                        return self.send_one(&data, to);
                    }
                };
                batch.push((bytes.clone(), address));
                if batch.len() == MAX_SENT {
                    self.send_batch(batch)?;
                }
                Ok(())
            }
            _ => {
                self.send_batch(batch)?;
                self.send_one(&data, Some(to))
            }
        }
    }

    fn send_one(self, data: &Bound<'py, PyAny>, to: Option<Bound<'py, PyAny>>) -> PyResult<()> {
        let py = self.py();
        let plain = data.cast_exact::<PyBytes>().ok();
        if plain.is_none() {
            writing::check(data, "datagram")?;
        }
        if overhead().is_none() && data.len()? == 0 {
            return Ok(());
        }
        let to = self.check_destination(to)?;
        if self.address.is_some() && self.link.lost.get() > 0 {
            return self.count_lost_write();
        }
        if let Some(bytes) = plain {
            return self.send(bytes.as_bytes(), || bytes.clone(), to.as_ref());
        }
        match ReadBuffer::new(data) {
            // What is kept is a copy: the caller may change its buffer as soon as this returns.
            Ok(view) => self.send(view.as_slice(), || PyBytes::new(py, view.as_slice()), to.as_ref()),
            Err(error) => self.send_failed(error),
        }
    }

    /// The address that is sent to, out of the one that is asked for.
    fn check_destination(self, to: Option<Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let to = to.filter(|to| !to.is_none());
        let Some(address) = &self.address else {
            return Ok(to);
        };
        let address = address.bind(self.py());
        if let Some(to) = &to
            && !to.is(&*address)
            && !address.eq(to)?
        {
            let message = format!("Invalid address: must be None or {}", address.str()?);
            return Err(PyValueError::new_err(message));
        }
        Ok(Some(address.to_owned()))
    }
}

fn is_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), !this.paused.get() && !this.is_closing())
}

fn pause_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !this.paused.get() && !this.is_closing() {
        this.paused.set(true);
        this.stop_reading()?;
    }
    none(this.py())
}

fn resume_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if this.paused.get() && !this.is_closing() {
        this.paused.set(false);
        this.start_reading()?;
    }
    none(this.py())
}

fn begin_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !this.paused.get() && !this.is_closing() {
        this.start_reading()?;
    }
    none(this.py())
}

fn set_protocol<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let protocol = call.only("_SelectorTransport.set_protocol", "protocol")?;
    this.set_datagram_protocol(&protocol)?;
    this.ask_to_put_together()?;
    none(this.py())
}

fn call_connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = argument(&call, 0, "_call_connection_lost")?;
    this.lose(Some(&error))?;
    none(this.py())
}

fn force_close<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.force_close(&*argument(&call, 0, "_force_close")?)?;
    none(this.py())
}

fn fatal_error<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let error = argument(&call, 0, "_fatal_error")?;
    let message = match call.get(1) {
        Some(message) => message.extract()?,
        None => String::from("Fatal error on transport"),
    };
    this.report_by("transport_failed", &error, &message)?;
    this.force_close(&error)?;
    none(py)
}
