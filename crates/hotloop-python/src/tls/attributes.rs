//! What asyncio's methods of a TLS connection look at and change: its attributes, on native fields.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::session::Session;
use super::state::State;
use super::{It, Lower, Tls};
use crate::answers::{bool_object, object_or_none};
use crate::event_loop::Loop;
use crate::ffi::{Bytes, ClassBuilder, Object};
use crate::transports::Protocol;

/// The state that asyncio's methods look at and change.
pub(super) fn properties(builder: ClassBuilder<Tls>) -> ClassBuilder<Tls> {
    builder
        .property(
            c"_state",
            c"The state of the connection.",
            |this: It<'_, '_>| this.state.get().member(this.py()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                this.state.set(State::from_member(value)?);
                Ok(())
            },
        )
        .property(
            c"_loop",
            c"The loop.",
            |this: It<'_, '_>| Ok(optional(this, &this.event_loop)),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                let old = this.native_loop.replace(Loop::of(&value.into()));
                drop(old);
                set_object(&this.event_loop, value)
            },
        )
        .property(
            c"_incoming",
            c"What has come in and is not decrypted.",
            |this: It<'_, '_>| Ok(optional(this, &this.incoming)),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_object(&this.incoming, value),
        )
        .property(
            c"_outgoing",
            c"What is encrypted and has not gone out.",
            |this: It<'_, '_>| Ok(optional(this, &this.outgoing)),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_object(&this.outgoing, value),
        )
        .property(
            c"_sslobj",
            c"The session.",
            |this: It<'_, '_>| Ok(optional(this, &this.ssl_object)),
            set_ssl_object,
        )
        .property(
            c"_transport",
            c"The transport of the encrypted bytes, or None.",
            |this: It<'_, '_>| {
                let held = this.transport.borrow().as_ref().map(Lower::object).cloned();
                Ok(object_or_none(this.py(), held))
            },
            set_transport,
        )
        .property(
            c"_app_protocol",
            c"The application's protocol, or None.",
            |this: It<'_, '_>| {
                let held = this.protocol().map(|protocol| protocol.object);
                Ok(object_or_none(this.py(), held))
            },
            set_protocol,
        )
        .property(
            c"_app_transport",
            c"What the application writes to, or None.",
            |this: It<'_, '_>| Ok(optional(this, &this.app_transport)),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_object(&this.app_transport, value),
        )
        .property(
            c"_app_reading_paused",
            c"Whether the application has paused reading.",
            |this: It<'_, '_>| bool_object(this.py(), this.app_reading_paused.get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_bool(&this.app_reading_paused, value),
        )
        .property(
            c"_ssl_reading_paused",
            c"Whether reading of the transport below is paused.",
            |this: It<'_, '_>| bool_object(this.py(), this.ssl_reading_paused.get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_bool(&this.ssl_reading_paused, value),
        )
        .property(
            c"_ssl_writing_paused",
            c"Whether the transport below has asked to wait.",
            |this: It<'_, '_>| bool_object(this.py(), this.ssl_writing_paused.get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_bool(&this.ssl_writing_paused, value),
        )
        .property(
            c"_app_writing_paused",
            c"Whether the application was told to pause.",
            |this: It<'_, '_>| bool_object(this.py(), this.app_writing_paused.get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_bool(&this.app_writing_paused, value),
        )
        .property(
            c"_incoming_high_water",
            c"The high mark of what has come in, in bytes.",
            |this: It<'_, '_>| number(this, this.incoming_marks[0].get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_mark(&this.incoming_marks[0], value),
        )
        .property(
            c"_incoming_low_water",
            c"The low mark of what has come in, in bytes.",
            |this: It<'_, '_>| number(this, this.incoming_marks[1].get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_mark(&this.incoming_marks[1], value),
        )
        .property(
            c"_outgoing_high_water",
            c"The high mark of what waits to be sent, in bytes.",
            |this: It<'_, '_>| number(this, this.outgoing_marks[0].get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_mark(&this.outgoing_marks[0], value),
        )
        .property(
            c"_outgoing_low_water",
            c"The low mark of what waits to be sent, in bytes.",
            |this: It<'_, '_>| number(this, this.outgoing_marks[1].get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| set_mark(&this.outgoing_marks[1], value),
        )
        .property(
            c"_conn_lost",
            c"How often the connection was lost, or written to thereafter.",
            |this: It<'_, '_>| number(this, this.lost.get() as usize),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                this.lost.set(value.extract()?);
                Ok(())
            },
        )
        .property(
            c"_write_backlog",
            c"A list of what is not encrypted yet.",
            write_backlog,
            // asyncio's constructor puts an empty queue here; the native one is in its place already.
            |_: It<'_, '_>, _: &Bound<'_, PyAny>| Ok(()),
        )
        .property(
            c"_write_buffer_size",
            c"How many bytes are not encrypted yet.",
            |this: It<'_, '_>| number(this, this.backlog_size.get() + this.gathered.borrow().len()),
            |_: It<'_, '_>, _: &Bound<'_, PyAny>| Ok(()),
        )
}

pub(super) fn set_transport(this: It<'_, '_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let new = (!value.is_none()).then(|| Lower::new(value));
    let old = this.transport.replace(new);
    drop(old);
    Ok(())
}

pub(super) fn set_protocol(this: It<'_, '_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let new = if value.is_none() {
        None
    } else {
        Some(Protocol::new(value)?)
    };
    let old = this.protocol.replace(new);
    drop(old);
    Ok(())
}

fn set_ssl_object(this: It<'_, '_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = this.py();
    let bios = (this.incoming.borrow().clone(), this.outgoing.borrow().clone());
    let session = match bios {
        (Some(incoming), Some(outgoing)) if !value.is_none() => {
            let session = Session::new(value, &incoming.bind(py), &outgoing.bind(py))?;
            Some(Rc::new(session))
        }
        _ => None,
    };
    let old = this.session.replace(session);
    drop(old);
    set_object(&this.ssl_object, value)
}

fn write_backlog<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let list = PyList::empty(this.py());
    let waiting: Vec<Bytes> = this.backlog.borrow().iter().cloned().collect();
    for bytes in waiting {
        list.append(PyBytes::new(this.py(), bytes.as_ref()))?;
    }
    Ok(list.into_any())
}

fn set_object(cell: &RefCell<Option<Object>>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let old = cell.replace((!value.is_none()).then(|| value.into()));
    drop(old);
    Ok(())
}

fn set_bool(cell: &Cell<bool>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    cell.set(value.is_truthy()?);
    Ok(())
}

pub(super) fn set_mark(cell: &Cell<usize>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let mark = match value.extract::<usize>() {
        Ok(mark) => mark,
        // A fraction of a byte makes no difference to a comparison with a number of bytes; more than all is all.
        Err(_) => value.extract::<f64>()? as usize,
    };
    cell.set(mark);
    Ok(())
}

pub(super) fn number<'py>(this: It<'_, 'py>, value: usize) -> PyResult<Bound<'py, PyAny>> {
    Ok(value.into_pyobject(this.py())?.into_any())
}

fn optional<'py>(this: It<'_, 'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(this.py(), held)
}
