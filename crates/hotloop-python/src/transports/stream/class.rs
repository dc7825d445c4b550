//! What Python sees of a stream transport: its class, methods and attributes.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::open::{abandon, begin_connected};
use super::socket::{Owner, get_extra_info};
use super::{CLASS, It, SocketTransport};
use crate::answers::{argument, bool_object, none, object_or_none};
use crate::errors::os_error;
use crate::ffi::{Bytes, Call, ClassBuilder, OptionCell, ReadBuffer};
use crate::listeners;
use crate::modules::REPORTS;
use crate::transports::{MAX_SIZE, methods};
use crate::writing::{self, Plain};

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(in crate::transports) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("asyncio.transports")?
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<SocketTransport>::new()
        .finalizer()
        .repr(repr)
        .method(
            c"write",
            c"write($self, /, data)\n--\n\nSend bytes, without waiting.",
            write,
        )
        .method(
            c"writelines",
            c"writelines($self, /, list_of_data)\n--\n\nSend a list of bytes, without waiting.",
            writelines,
        )
        .no_args(
            c"write_eof",
            c"write_eof($self, /)\n--\n\nEnd the sending half after what was written.",
            write_eof,
        )
        .no_args(c"can_write_eof", c"can_write_eof($self, /)\n--\n\nTrue.", can_write_eof)
        .no_args(
            c"close",
            c"close($self, /)\n--\n\nEnd the connection after what was written.",
            methods::close,
        )
        .no_args(c"abort", c"abort($self, /)\n--\n\nEnd the connection at once.", methods::abort)
        .no_args(
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the connection is ending or has ended.",
            methods::is_closing,
        )
        .no_args(
            c"is_reading",
            c"is_reading($self, /)\n--\n\nWhether data is being received.",
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
            c"get_write_buffer_size($self, /)\n--\n\nHow many bytes wait to be sent.",
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
        .method(
            c"get_extra_info",
            c"get_extra_info($self, /, name, default=None)\n--\n\nWhat is known of the connection under a name.",
            get_extra_info,
        )
        .method(
            c"_begin_connected",
            c"_begin_connected($self, protocol, waiter, context, /)\n--\n\nBegin with a connection that was made.",
            begin_connected,
        )
        .no_args(
            c"_abandon",
            c"_abandon($self, /)\n--\n\nGive up a connection that has no protocol.",
            abandon,
        )
        .method(
            c"_serve",
            c"_serve($self, listener, /)\n--\n\nMake the protocol of an accepted connection, and begin.",
            listeners::serve,
        )
        .no_args(
            c"_begin_reading",
            c"_begin_reading($self, /)\n--\n\nReceive from now on, unless paused.",
            begin_reading,
        )
        .method(
            c"_call_connection_lost",
            c"_call_connection_lost($self, exc, /)\n--\n\nTell the protocol and close the socket.",
            call_connection_lost,
        )
        .method(
            c"_force_close",
            c"_force_close($self, exc, /)\n--\n\nEnd the connection at once, for a reason.",
            force_close,
        )
        .method(
            c"_fatal_error",
            c"_fatal_error($self, exc, message='Fatal error on transport', /)\n--\n\nReport an exception and end the connection.",
            fatal_error,
        )
        .no_args(
            c"_make_empty_waiter",
            c"_make_empty_waiter($self, /)\n--\n\nA future for the moment when nothing is queued.",
            make_empty_waiter,
        )
        .no_args(
            c"_reset_empty_waiter",
            c"_reset_empty_waiter($self, /)\n--\n\nForget that future.",
            reset_empty_waiter,
        )
        .getter(c"_sock", c"The socket, or None.", |this: It<'_, '_>| {
            Ok(object_or_none(this.py(), this.python_socket()?))
        })
        .getter(c"_extra", c"What get_extra_info() looks names up in.", |this: It<'_, '_>| {
            this.extra()
        })
        .getter(c"_sock_fd", c"The descriptor's number.", methods::number)
        .getter(c"_server", c"The server, or None.", |this: It<'_, '_>| {
            Ok(optional(this, &this.server))
        })
        .getter(c"_loop", c"The loop, or None.", methods::event_loop)
        .getter(c"_protocol", c"The protocol, or None.", methods::get_protocol)
        .getter(
            c"_protocol_paused",
            c"Whether the protocol was told to pause.",
            methods::is_protocol_paused,
        )
        .getter(
            c"_conn_lost",
            c"How often the connection was lost, or written to thereafter.",
            |this: It<'_, '_>| Ok(this.link.lost.get().into_pyobject(this.py())?.into_any()),
        )
        .getter(
            c"_closing",
            c"Whether the connection is ending or has ended.",
            |this: It<'_, '_>| bool_object(this.py(), this.is_closing()),
        )
        .getter(c"_paused", c"Whether reading is paused.", |this: It<'_, '_>| {
            bool_object(this.py(), this.paused.get())
        })
        .getter(c"_eof", c"Whether write_eof() was called.", |this: It<'_, '_>| {
            bool_object(this.py(), this.is_eof_written()?)
        })
        .build(
            &base,
            &["_extra", "_loop", "_protocol_paused", "_high_water", "_low_water"],
            true,
        )?;
    class.setattr("max_size", MAX_SIZE)?;
    class.setattr("_start_tls_compatible", true)?;
    let mode = module
        .py()
        .import("asyncio.constants")?
        .getattr("_SendfileMode")?;
    class.setattr("_sendfile_compatible", mode.getattr("TRY_NATIVE")?)?;
    module.add("SocketTransport", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

fn repr<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let writing = this.state(|stream| stream.queue.len())?.unwrap_or(0);
    let reading = this.state(|stream| stream.is_reading())?.unwrap_or(false);
    let reports = REPORTS.module(py)?;
    let closed = matches!(&*this.owner.borrow(), Owner::Closed(_));
    reports.call_method1("transport_repr", (this.object(), closed, reading, writing))
}

fn write<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    // The one call in a thousand with a keyword is worth the check.
    let data = match call.get(0) {
        Some(data) if call.len() == 1 && !call.has_keywords() => data,
        _ => call.only("_SelectorSocketTransport.write", "data")?,
    };
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        SocketTransport::write_bytes(this, &bytes)?;
        return none(py);
    }
    writing::check(&data, "stream")?;
    this.check_write("write")?;
    match ReadBuffer::new(&data) {
        // What is kept is a copy: the caller may change its buffer as soon as this returns.
        Ok(view) => this.send(view.as_slice(), || Bytes::new(&PyBytes::new(py, view.as_slice())))?,
        Err(error) => refuse_memory(this, error)?,
    }
    none(py)
}

/// Memory with gaps: asyncio leaves it to the socket to refuse it, so the connection is broken.
fn refuse_memory(this: It<'_, '_>, error: PyErr) -> PyResult<()> {
    if this.link.lost.get() > 0 {
        return this.count_lost_write();
    }
    this.fail(error, "Fatal write error on socket transport")
}

fn writelines<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let list = call.only("_SelectorSocketTransport.writelines", "list_of_data")?;
    let lines = if cfg!(Py_3_12) {
        this.check_write("writelines")?;
        match writing::plain(&list)? {
            Some(lines) => lines,
            None => {
                let Some(lines) = writing::gather(&list, this.link.lost.get() > 0)? else {
                    this.count_lost_write()?;
                    return none(py);
                };
                match writing::copy_all(py, &lines) {
                    Ok(joined) => Plain::Joined(joined),
                    Err(error) => {
                        refuse_memory(this, error)?;
                        return none(py);
                    }
                }
            }
        }
    } else {
        // Up to Python 3.11 this is a join and a write, in that order and by that name.
        let lines = match writing::plain(&list)? {
            Some(lines) => lines,
            None => Plain::Joined(writing::join(&list)?),
        };
        this.check_write("write")?;
        lines
    };
    this.send_lines(lines)?;
    none(py)
}

fn write_eof<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(key) = this.link.key.get() {
        this.with_loop(|event_loop| event_loop.engine()?.write_eof(key).map_err(os_error))?;
    }
    none(this.py())
}

fn can_write_eof<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), true)
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
    this.set_protocol(&protocol)?;
    none(this.py())
}

fn call_connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = argument(&call, 0, "_call_connection_lost")?;
    this.connection_lost(Some(&error))?;
    none(this.py())
}

fn force_close<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.force_close(&*argument(&call, 0, "_force_close")?)?;
    none(this.py())
}

fn fatal_error<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let error = argument(&call, 0, "_fatal_error")?;
    let message = call
        .get(1)
        .map(|message| message.extract::<String>())
        .transpose()?;
    let message = message.as_deref().unwrap_or("Fatal error on transport");
    this.report_by("transport_failed", &error, message)?;
    this.force_close(&error)?;
    none(py)
}

fn make_empty_waiter<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if this.empty_waiter.is_some() {
        return Err(PyRuntimeError::new_err("Empty waiter is already set"));
    }
    let Some(event_loop) = this.event_loop() else {
        return Err(PyRuntimeError::new_err("the connection is lost"));
    };
    if let Some(key) = this.link.key.get() {
        event_loop.get(py).engine()?.flush_now(key);
    }
    let waiter = event_loop.object().bind(py).call_method0("create_future")?;
    if this.state(|stream| stream.queue.is_empty())?.unwrap_or(true) {
        waiter.call_method1("set_result", (py.None(),))?;
    }
    this.empty_waiter.replace(Some((&waiter).into()));
    Ok(waiter)
}

fn reset_empty_waiter<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    drop(this.empty_waiter.take());
    none(this.py())
}

fn optional<'py>(this: It<'_, 'py>, held: &OptionCell) -> Bound<'py, PyAny> {
    object_or_none(this.py(), held.get())
}
