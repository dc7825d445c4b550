//! The end of a pipe that is written to.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use hotloop::driver::PipeKind;
use hotloop::{StreamEvent, StreamKey};
use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use super::{Piped, close_pipe, finalize, get_pipe, open, set_pipe};
use crate::answers::{argument, bool_object, none};
use crate::errors::os_error;
use crate::event_loop::Loop;
use crate::ffi::{
    Bytes, Call, Class, ClassBuilder, Finalize, Instance, Layout, Object, ReadBuffer, This, Visit,
};
use crate::modules::REPORTS;
use crate::transports::link::{Link, Linked};
use crate::transports::{LOG_THRESHOLD, Transport, methods};
use crate::writing;

/// A transport over what a pipe, a terminal or a socket takes.
pub(crate) struct WritePipeTransport {
    /// To its loop, its stream and its protocol.
    link: Link,
    /// The file object, which owns the descriptor; `None` once it is closed.
    pipe: RefCell<Option<Object>>,
    /// How often a write failed or came too late (asyncio's `_conn_lost` of pipes).
    refused: Cell<u32>,
}

type It<'a, 'py> = This<'a, 'py, WritePipeTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

/// The report of an error of the kernel.
const WRITE_ERROR: &str = "Fatal write error on pipe transport";

impl Class for WritePipeTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.WritePipeTransport";
    const ASYNCIO_NAME: &'static str = "_UnixWritePipeTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        self.link.traverse(visit);
        visit.objects(self.pipe.borrow().iter());
    }

    fn clear(&self) {
        self.pipe.take();
        self.link.clear();
    }
}

impl Finalize for WritePipeTransport {
    fn finalize(this: It<'_, '_>) {
        finalize(this);
    }
}

impl Linked for WritePipeTransport {
    type Key = StreamKey;

    #[inline]
    fn link(&self) -> &Link {
        &self.link
    }

    fn hosted(this: Instance<Self>) -> Transport {
        Transport::WritePipe(this)
    }

    fn run<'py>(
        this: This<'_, 'py, Self>,
        _event_loop: This<'_, 'py, Loop>,
        news: StreamEvent,
    ) -> PyResult<()> {
        match news {
            // What is written to is readable when nobody reads it any more.
            StreamEvent::Readable => this.hung_up(),
            StreamEvent::Sent => this.sent(),
            StreamEvent::Broken(error) => this.fail(os_error(error)),
        }
    }

    fn close_descriptor(this: It<'_, '_>) -> PyResult<()> {
        close_pipe(this)
    }
}

impl Piped for WritePipeTransport {
    fn pipe(&self) -> &RefCell<Option<Object>> {
        &self.pipe
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
    let class = ClassBuilder::<WritePipeTransport>::new()
        .finalizer()
        .repr(repr)
        .method(
            c"write",
            c"write($self, /, data)\n--\n\nWrite bytes, without waiting.",
            write,
        )
        .no_args(
            c"write_eof",
            c"write_eof($self, /)\n--\n\nClose the pipe after what was written.",
            methods::close,
        )
        .no_args(c"can_write_eof", c"can_write_eof($self, /)\n--\n\nTrue.", can_write_eof)
        .no_args(
            c"close",
            c"close($self, /)\n--\n\nClose the pipe after what was written.",
            methods::close,
        )
        .no_args(
            c"abort",
            c"abort($self, /)\n--\n\nClose the pipe at once.",
            methods::abort,
        )
        .no_args(
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the pipe is closing or closed.",
            methods::is_closing,
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
            c"get_write_buffer_size($self, /)\n--\n\nHow many bytes wait to be written.",
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
            c"_begin_reading($self, /)\n--\n\nNotice from now on when nobody reads any more.",
            begin_reading,
        )
        .method(
            c"_call_connection_lost",
            c"_call_connection_lost($self, exc, /)\n--\n\nTell the protocol and close the pipe.",
            call_connection_lost,
        )
        .property(c"_pipe", c"The pipe, or None.", get_pipe, set_pipe)
        .getter(c"_fileno", c"The descriptor's number.", methods::number)
        .getter(c"_loop", c"The loop, or None.", methods::event_loop)
        .getter(c"_protocol", c"The protocol, or None.", methods::get_protocol)
        .getter(
            c"_protocol_paused",
            c"Whether the protocol was told to pause.",
            methods::is_protocol_paused,
        )
        .getter(
            c"_conn_lost",
            c"How often a write failed or came too late.",
            |this: It<'_, '_>| Ok(this.refused.get().into_pyobject(this.py())?.into_any()),
        )
        .getter(
            c"_closing",
            c"Whether the pipe is closing or closed.",
            methods::is_closing,
        )
        .build(
            &base,
            &["_extra", "_loop", "_protocol_paused", "_high_water", "_low_water"],
            true,
        )?;
    module.add("WritePipeTransport", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

/// `Loop._open_write_pipe(pipe, protocol, waiter, extra)`: a transport over what a pipe takes.
pub(crate) fn open_write_pipe<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let value = |link, pipe| WritePipeTransport {
        link,
        pipe,
        refused: Cell::new(0),
    };
    let refusal = "Pipe transport is only for pipes, sockets and character devices";
    open(this, &call, &CLASS, value, refusal, PipeKind::hangs_up)
}

impl<'py> It<'_, 'py> {
    /// Writes or queues bytes. `own` makes an owned copy.
    #[inline]
    fn send(self, bytes: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.is_closing() {
            if self.refused.get() >= LOG_THRESHOLD {
                REPORTS.module(self.py())?.call_method0("write_to_lost_pipe")?;
            }
            self.count_refused();
            return Ok(());
        }
        match self.send_or_queue(bytes, own)? {
            None => Ok(()),
            Some(error) => self.fail(os_error(error)),
        }
    }

    fn count_refused(self) {
        self.refused.set(self.refused.get().saturating_add(1));
    }

    fn fail(self, error: PyErr) -> PyResult<()> {
        self.count_refused();
        self.fail_by("transport_failed", error, WRITE_ERROR)
    }

    /// Queued bytes were written.
    fn sent(self) -> PyResult<()> {
        // Unlike a socket's transport, asyncio's for a pipe resumes when all is written, not at the low mark.
        if self.state(|stream| stream.queue.is_empty())? != Some(true) {
            return Ok(());
        }
        drop(self.link.write_context.take());
        self.resume_writing()?;
        if self.state(|stream| stream.finish_close())? == Some(true) {
            return self.lose(None);
        }
        Ok(())
    }

    /// Nobody reads any more.
    fn hung_up(self) -> PyResult<()> {
        let py = self.py();
        self.log("pipe_closed_by_peer")?;
        if self.state(|stream| stream.queue.is_empty())?.unwrap_or(true) {
            self.force_close(&py.None().into_bound(py))
        } else {
            self.force_close(PyBrokenPipeError::new_err(()).value(py))
        }
    }
}

fn repr<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let queued = this.state(|stream| stream.queue.len())?.unwrap_or(0);
    let reports = REPORTS.module(py)?;
    let arguments = (
        this.object(),
        WritePipeTransport::ASYNCIO_NAME,
        queued > 0,
        queued,
    );
    reports.call_method1("pipe_repr", arguments)
}

fn write<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let data = call.only("_UnixWritePipeTransport.write", "data")?;
    if let Ok(bytes) = data.cast_exact::<PyBytes>() {
        this.send(bytes.as_bytes(), || Bytes::new(&bytes))?;
        return none(py);
    }
    if !writing::is_bytes_like(&data) {
        // asyncio has an assertion here.
        return Err(PyAssertionError::new_err(data.repr()?.unbind()));
    }
    match ReadBuffer::new(&data) {
        // What is kept is a copy: the caller may change its buffer as soon as this returns.
        Ok(view) => this.send(view.as_slice(), || Bytes::new(&PyBytes::new(py, view.as_slice())))?,
        Err(error) => this.fail(error)?,
    }
    none(py)
}

fn can_write_eof<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), true)
}

fn begin_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !this.is_closing() {
        this.start_reading()?;
    }
    none(this.py())
}

fn set_protocol<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.set_protocol(&*call.only("_UnixWritePipeTransport.set_protocol", "protocol")?)?;
    none(this.py())
}

fn call_connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = argument(&call, 0, "_call_connection_lost")?;
    this.lose(Some(&error))?;
    none(this.py())
}
