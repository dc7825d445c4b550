//! What Python sees of a TLS connection: the methods of asyncio's `SSLProtocol` whose place native ones take.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use hotloop::transport::DEFAULT_HIGH;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};

use super::attributes::{number, properties, set_mark, set_protocol, set_transport};
use super::state::State;
use super::{CLASS, It, Lower, Tls, absorb, advance};
use crate::answers::{argument, none};
use crate::ffi::{Bytes, Call, ClassBuilder, ReadBuffer};
use crate::modules::{CONSTANTS, SSLPROTO};

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
        .method(
            c"connection_made",
            c"connection_made($self, transport, /)\n--\n\nBegin the handshake over a transport of encrypted bytes.",
            connection_made,
        )
        .method(
            c"connection_lost",
            c"connection_lost($self, exc, /)\n--\n\nThe connection is gone.",
            connection_lost,
        )
        .method(
            c"_set_state",
            c"_set_state($self, new_state, /)\n--\n\nGo from one state to another.",
            set_state,
        )
        .method(
            c"_wakeup_waiter",
            c"_wakeup_waiter($self, exc=None, /)\n--\n\nResolve what waits for the handshake.",
            wake_waiter,
        )
        .method(
            c"_set_read_buffer_limits",
            c"_set_read_buffer_limits($self, high=None, low=None, /)\n--\n\nSet the marks of what comes in, in bytes.",
            set_read_limits,
        )
        .method(
            c"_set_write_buffer_limits",
            c"_set_write_buffer_limits($self, high=None, low=None, /)\n--\n\nSet the marks of what waits, in bytes.",
            set_write_limits,
        )
        .no_args(
            c"_start_shutdown",
            c"_start_shutdown($self, /)\n--\n\nBegin the orderly end.",
            |this: It<'_, '_>| this.start_shutdown().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_do_flush",
            c"_do_flush($self, /)\n--\n\nRead what is left, then say goodbye.",
            |this: It<'_, '_>| this.flush_all().and_then(|()| none(this.py())),
        )
        .no_args(
            c"_do_shutdown",
            c"_do_shutdown($self, /)\n--\n\nGo on with the goodbye.",
            |this: It<'_, '_>| this.shut_down().and_then(|()| none(this.py())),
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

fn connection_made<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    set_transport(this, &*argument(&call, 0, "connection_made")?)?;
    this.start_handshake()?;
    none(this.py())
}

fn connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.connection_lost(&*argument(&call, 0, "connection_lost")?)?;
    none(this.py())
}

fn set_state<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.set_state(State::from_member(&*argument(&call, 0, "_set_state")?)?)?;
    none(this.py())
}

fn set_read_limits<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let default = pyo3::intern!(py, "FLOW_CONTROL_HIGH_WATER_SSL_READ");
    set_limits(&this.incoming_marks, &call, default)?;
    none(py)
}

fn set_write_limits<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let default = pyo3::intern!(py, "FLOW_CONTROL_HIGH_WATER_SSL_WRITE");
    set_limits(&this.outgoing_marks, &call, default)?;
    let lower = this.transport.borrow().clone();
    if let Some(Lower::Socket(lower)) = lower {
        // What waits below counts too, so the transport there must tell of it in time.
        let [high, low] = this.outgoing_marks.each_ref().map(Cell::get);
        let [high, low] = [high.min(DEFAULT_HIGH), low.min(DEFAULT_HIGH / 4)];
        lower
            .object()
            .bind(py)
            .call_method1(pyo3::intern!(py, "set_write_buffer_limits"), (high, low))?;
    }
    none(py)
}

/// Sets the marks to what is given, or to what asyncio has by default: so many KiB, and a quarter of it.
fn set_limits<'py>(
    marks: &[Cell<usize>; 2],
    call: &Call<'_, 'py>,
    default: &Bound<'py, PyString>,
) -> PyResult<()> {
    let py = default.py();
    let kib = CONSTANTS.get(py, default)?;
    if call.len() == 0 {
        let high = kib.extract::<usize>()?.saturating_mul(1024);
        marks[0].set(high);
        marks[1].set(high / 4);
        return Ok(());
    }
    let absent = py.None().into_bound(py);
    let given = |index| {
        call.get(index)
            .map_or_else(|| absent.clone(), |given| given.to_owned())
    };
    // Which has the words where they contradict each other.
    let defaults = SSLPROTO.get(py, pyo3::intern!(py, "add_flowcontrol_defaults"))?;
    let (high, low): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
        defaults.call1((given(0), given(1), kib))?.extract()?;
    set_mark(&marks[0], &high)?;
    set_mark(&marks[1], &low)
}

fn wake_waiter<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = call.get(0).map(|error| error.to_owned());
    this.wake_waiter(&error.unwrap_or_else(|| this.py().None().into_bound(this.py())))?;
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
