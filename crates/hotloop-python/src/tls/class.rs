//! What Python sees of a TLS connection: the methods of asyncio's `SSLProtocol` that run for each packet, and the
//! attributes that its other methods share with them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyType};

use super::session::Session;
use super::state::State;
use super::{CLASS, It, Lower, Tls, absorb, advance};
use crate::answers::{argument, bool_object, none, object_or_none};
use crate::event_loop::Loop;
use crate::ffi::{Bytes, Call, ClassBuilder, Object, ReadBuffer};
use crate::transports::Protocol;

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("builtins")?
        .getattr("object")?
        .cast_into::<PyType>()?;
    let class = properties(ClassBuilder::<Tls>::new())
        .constructor(construct)
        .method(
            c"_receive",
            c"_receive($self, data, /)\n--\n\nTake encrypted bytes in and go on with them.",
            receive,
        )
        .no_args(
            c"pause_writing",
            c"pause_writing($self, /)\n--\n\nHand nothing more to the transport below.",
            pause_writing,
        )
        .no_args(
            c"resume_writing",
            c"resume_writing($self, /)\n--\n\nUndo pause_writing().",
            |this: It<'_, '_>| this.resume_writing().and_then(|()| none(this.py())),
        )
        .method(
            c"_set_app_protocol",
            c"_set_app_protocol($self, app_protocol, /)\n--\n\nSet the application's protocol.",
            set_app_protocol,
        )
        .method(
            c"_write_appdata",
            c"_write_appdata($self, list_of_data, /)\n--\n\nEncrypt and send bytes-like objects.",
            write_appdata,
        )
        .no_args(
            c"_do_handshake",
            c"_do_handshake($self, /)\n--\n\nGo on with the handshake.",
            |this: It<'_, '_>| this.handshake().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_do_read",
            c"_do_read($self, /)\n--\n\nDecrypt what has come in and tell the application.",
            |this: It<'_, '_>| this.read().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_do_write",
            c"_do_write($self, /)\n--\n\nEncrypt and send what waits.",
            |this: It<'_, '_>| this.write_backlog().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_process_outgoing",
            c"_process_outgoing($self, /)\n--\n\nSend what is encrypted, unless the transport below is paused.",
            |this: It<'_, '_>| this.process_outgoing().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_send_outgoing",
            c"_send_outgoing($self, /)\n--\n\nSend what is encrypted.",
            |this: It<'_, '_>| this.send_outgoing().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_forget_queued",
            c"_forget_queued($self, /)\n--\n\nDrop what is not encrypted yet.",
            forget_queued,
        )
        .method(
            c"_queue",
            c"_queue($self, data, /)\n--\n\nQueue a bytes-like object behind what waits.",
            queue,
        )
        .no_args(
            c"_control_app_writing",
            c"_control_app_writing($self, /)\n--\n\nPause or resume the application.",
            |this: It<'_, '_>| this.control_writing(None).and_then(|()| none(this.py())),
        )
        .no_args(
            c"_control_ssl_reading",
            c"_control_ssl_reading($self, /)\n--\n\nPause or resume the transport below.",
            |this: It<'_, '_>| this.control_reading().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_get_write_buffer_size",
            c"_get_write_buffer_size($self, /)\n--\n\nHow many bytes wait to be sent, here and below.",
            |this: It<'_, '_>| get_write_buffer_size(this),
        )
        .no_args(
            c"_get_read_buffer_size",
            c"_get_read_buffer_size($self, /)\n--\n\nHow many bytes have come in and are not decrypted.",
            |this: It<'_, '_>| Ok(this.incoming_size()?.into_pyobject(this.py())?.into_any()),
        )
        .no_args(
            c"_pause_reading",
            c"_pause_reading($self, /)\n--\n\nHand nothing to the application until _resume_reading().",
            |this: It<'_, '_>| {
                this.app_reading_paused.set(true);
                none(this.py())
            },
        )
        .no_args(
            c"_resume_reading",
            c"_resume_reading($self, /)\n--\n\nUndo _pause_reading().",
            |this: It<'_, '_>| this.resume_reading().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_resume",
            c"_resume($self, /)\n--\n\nGo on with what came in while reading was paused.",
            resume,
        )
        .build(&base, &[], false)?;
    module.add("TlsProtocol", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

/// The state that asyncio's methods look at and change.
fn properties(builder: ClassBuilder<Tls>) -> ClassBuilder<Tls> {
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
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                let old = this
                    .transport
                    .replace((!value.is_none()).then(|| Lower::new(value)));
                drop(old);
                Ok(())
            },
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

fn construct(_class: &Bound<'_, PyType>) -> PyResult<Tls> {
    Ok(Tls {
        event_loop: RefCell::default(),
        native_loop: RefCell::default(),
        state: Cell::new(State::Unwrapped),
        incoming: RefCell::default(),
        outgoing: RefCell::default(),
        ssl_object: RefCell::default(),
        session: RefCell::default(),
        transport: RefCell::default(),
        protocol: RefCell::default(),
        app_transport: RefCell::default(),
        app_reading_paused: Cell::new(false),
        ssl_reading_paused: Cell::new(false),
        ssl_writing_paused: Cell::new(false),
        app_writing_paused: Cell::new(false),
        incoming_marks: [Cell::new(0), Cell::new(0)],
        outgoing_marks: [Cell::new(0), Cell::new(0)],
        lost: Cell::new(0),
        backlog: RefCell::new(VecDeque::new()),
        encrypted: Cell::new(0),
        backlog_size: Cell::new(0),
        gathered: RefCell::default(),
        drained: Cell::new(false),
        written_in: Cell::new(0),
        busy: Cell::new(false),
    })
}

fn receive<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let data = argument(&call, 0, "_receive")?;
    absorb(this, ReadBuffer::new(&data)?.as_slice())?;
    advance(this)?;
    none(this.py())
}

fn pause_writing<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.ssl_writing_paused.set(true);
    none(this.py())
}

fn forget_queued<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.forget_queued();
    none(this.py())
}

fn queue<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let data = argument(&call, 0, "_queue")?;
    let view = ReadBuffer::new(&data)?;
    this.queue(Bytes::new(&PyBytes::new(this.py(), view.as_slice())));
    none(this.py())
}

fn get_write_buffer_size<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // What is only gathered would have been sent already by a loop that does not gather.
    super::flush(this)?;
    number(this, this.queued()?)
}

fn resume<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !matches!(this.state.get(), State::Handshake) {
        advance(this)?;
    }
    none(this.py())
}

fn set_app_protocol<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    set_protocol(this, &*argument(&call, 0, "_set_app_protocol")?)?;
    none(this.py())
}

fn write_appdata<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    for data in argument(&call, 0, "_write_appdata")?.try_iter()? {
        write_object(this, &data?)?;
    }
    none(this.py())
}

/// Writes any bytes-like object.
pub(super) fn write_object<'py>(this: It<'_, 'py>, data: &Bound<'py, PyAny>) -> PyResult<()> {
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        return this.write(bytes.as_bytes(), || Bytes::new(bytes));
    }
    let view = ReadBuffer::new(data)?;
    // What is kept is a copy: the caller may change its buffer as soon as this returns.
    this.write(view.as_slice(), || {
        Bytes::new(&PyBytes::new(this.py(), view.as_slice()))
    })
}

fn set_protocol(this: It<'_, '_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
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

fn set_mark(cell: &Cell<usize>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let mark = match value.extract::<usize>() {
        Ok(mark) => mark,
        // A fraction of a byte makes no difference to a comparison with a number of bytes; more than all is all.
        Err(_) => value.extract::<f64>()? as usize,
    };
    cell.set(mark);
    Ok(())
}

fn number<'py>(this: It<'_, 'py>, value: usize) -> PyResult<Bound<'py, PyAny>> {
    Ok(value.into_pyobject(this.py())?.into_any())
}

fn optional<'py>(this: It<'_, 'py>, held: &RefCell<Option<Object>>) -> Bound<'py, PyAny> {
    let held = held.borrow().clone();
    object_or_none(this.py(), held)
}
