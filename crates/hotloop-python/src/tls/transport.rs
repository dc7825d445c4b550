//! What the application of a TLS connection writes to: the native base of `hotloop._tls.SSLTransport`, whose other base
//! is asyncio's `_SSLProtocolTransport`.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::class::write_object;
use super::{Lower, Tls};
use crate::answers::{bool_object, none, object_or_none};
use crate::ffi::{self, Bytes, Call, Class, ClassBuilder, Instance, Layout, This, Visit};
use crate::writing;

/// The application's end of a TLS connection.
pub(crate) struct TlsTransport {
    /// `_ssl_protocol`: the connection; `None` once it was closed twice.
    connection: RefCell<Option<Instance<Tls>>>,
    /// `_closed`.
    closed: Cell<bool>,
}

type It<'a, 'py> = This<'a, 'py, TlsTransport>;

impl Class for TlsTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.TlsTransport";
    const ASYNCIO_NAME: &'static str = "_SSLProtocolTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.objects(self.connection.borrow().iter().map(Instance::object));
    }

    fn clear(&self) {
        drop(self.connection.take());
    }
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("asyncio.transports")?
        .getattr("_FlowControlMixin")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<TlsTransport>::new()
        .constructor(|_: &Bound<'_, PyType>| {
            Ok(TlsTransport {
                connection: RefCell::default(),
                closed: Cell::new(false),
            })
        })
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
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the connection is ending or has ended.",
            is_closing,
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
        .property(
            c"_ssl_protocol",
            c"The connection, or None.",
            |this: It<'_, '_>| {
                let held = this
                    .connection
                    .borrow()
                    .as_ref()
                    .map(|connection| connection.object().clone());
                Ok(object_or_none(this.py(), held))
            },
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                let old = this.connection.replace(Tls::of(&value.into()));
                drop(old);
                Ok(())
            },
        )
        .property(
            c"_closed",
            c"Whether the transport was closed.",
            |this: It<'_, '_>| bool_object(this.py(), this.closed.get()),
            |this: It<'_, '_>, value: &Bound<'_, PyAny>| {
                this.closed.set(value.is_truthy()?);
                Ok(())
            },
        )
        .build(
            &base,
            &["_extra", "_loop", "_protocol_paused", "_high_water", "_low_water"],
            false,
        )?;
    module.add("TlsTransport", class)
}

impl It<'_, '_> {
    #[inline]
    fn connection(self) -> Option<Instance<Tls>> {
        self.connection.borrow().clone()
    }
}

fn write<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    // The one call in a thousand with a keyword is worth the check.
    let data = match call.get(0) {
        Some(data) if call.len() == 1 && !call.has_keywords() => data,
        _ => call.only("_SSLProtocolTransport.write", "data")?,
    };
    let connection = this.connection();
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        if let Some(connection) = connection
            && !bytes.as_bytes().is_empty()
        {
            connection.with(py, |connection| {
                connection.write(bytes.as_bytes(), || Bytes::new(&bytes))
            })?;
        }
        return none(py);
    }
    writing::check(&data, "tls")?;
    if let Some(connection) = connection
        && data.is_truthy()?
    {
        connection.with(py, |connection| write_object(connection, &data))?;
    }
    none(py)
}

fn writelines<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let list = call.only("_SSLProtocolTransport.writelines", "list_of_data")?;
    if let Some(connection) = this.connection() {
        let joined = writing::join(&list)?;
        connection.with(py, |connection| {
            connection.write(joined.as_bytes(), || Bytes::new(&joined))
        })?;
    }
    none(py)
}

fn is_closing<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if this.closed.get() {
        return bool_object(py, true);
    }
    let lower = this
        .connection()
        .and_then(|connection| connection.get(py).transport.borrow().clone());
    let closing = match lower {
        None => false,
        Some(Lower::Socket(socket)) => socket.with(py, |socket| socket.is_closing()),
        Some(Lower::Other(other)) => {
            ffi::call_method(&other.bind(py), pyo3::intern!(py, "is_closing"), [])?.is_truthy()?
        }
    };
    bool_object(py, closing)
}

fn is_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let reading = this
        .connection()
        .is_some_and(|connection| !connection.get(this.py()).app_reading_paused.get());
    bool_object(this.py(), reading)
}

fn pause_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(connection) = this.connection() {
        connection.get(this.py()).app_reading_paused.set(true);
    }
    none(this.py())
}

fn resume_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(connection) = this.connection() {
        connection.with(this.py(), |connection| connection.resume_reading())?;
    }
    none(this.py())
}
