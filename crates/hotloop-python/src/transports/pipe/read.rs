//! The end of a pipe that is read.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use hotloop::{StreamEvent, StreamKey};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use super::{Piped, close_pipe, finalize, get_pipe, open, set_pipe};
use crate::answers::{argument, bool_object, none};
use crate::errors::os_error;
use crate::event_loop::Loop;
use crate::ffi::{Call, Class, ClassBuilder, Finalize, Instance, Layout, Object, This, Visit};
use crate::modules::REPORTS;
use crate::transports::link::{Link, Linked, Received};
use crate::transports::{MAX_SIZE, Transport, methods};

/// A transport over what a pipe, a terminal or a socket gives.
pub(crate) struct ReadPipeTransport {
    /// To its loop, its stream and its protocol.
    link: Link,
    /// The file object, which owns the descriptor; `None` once it is closed.
    pipe: RefCell<Option<Object>>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
}

type It<'a, 'py> = This<'a, 'py, ReadPipeTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

impl Class for ReadPipeTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.ReadPipeTransport";
    const ASYNCIO_NAME: &'static str = "_UnixReadPipeTransport";

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

impl Finalize for ReadPipeTransport {
    fn finalize(this: It<'_, '_>) {
        finalize(this);
    }
}

impl Linked for ReadPipeTransport {
    type Key = StreamKey;

    #[inline]
    fn link(&self) -> &Link {
        &self.link
    }

    fn hosted(this: Instance<Self>) -> Transport {
        Transport::ReadPipe(this)
    }

    fn run<'py>(
        this: This<'_, 'py, Self>,
        event_loop: This<'_, 'py, Loop>,
        news: StreamEvent,
    ) -> PyResult<()> {
        match news {
            StreamEvent::Readable => this.receive(event_loop),
            // It never writes.
            StreamEvent::Sent | StreamEvent::Broken(_) => Ok(()),
        }
    }

    fn close_descriptor(this: It<'_, '_>) -> PyResult<()> {
        close_pipe(this)
    }
}

impl Piped for ReadPipeTransport {
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
        .getattr("ReadTransport")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<ReadPipeTransport>::new()
        .finalizer()
        .repr(repr)
        .no_args(
            c"close",
            c"close($self, /)\n--\n\nStop reading and close the pipe.",
            methods::close,
        )
        .no_args(
            c"is_closing",
            c"is_closing($self, /)\n--\n\nWhether the pipe is closing, closed, or at its end.",
            methods::is_closing,
        )
        .no_args(
            c"is_reading",
            c"is_reading($self, /)\n--\n\nWhether data is being read.",
            is_reading,
        )
        .no_args(
            c"pause_reading",
            c"pause_reading($self, /)\n--\n\nRead nothing until resume_reading().",
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
            c"_begin_reading",
            c"_begin_reading($self, /)\n--\n\nRead from now on, unless paused.",
            begin_reading,
        )
        .no_args(
            c"_read_ready",
            c"_read_ready($self, /)\n--\n\nRead once and tell the protocol.",
            |this: It<'_, '_>| {
                let event_loop = this.event_loop();
                event_loop.map_or(Ok(()), |event_loop| {
                    event_loop.with(this.py(), |event_loop| this.receive(event_loop))
                })?;
                none(this.py())
            },
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
            c"_closing",
            c"Whether the pipe is closing, closed, or at its end.",
            methods::is_closing,
        )
        .getter(c"_paused", c"Whether reading is paused.", |this: It<'_, '_>| {
            bool_object(this.py(), this.paused.get())
        })
        .build(&base, &["_extra"], true)?;
    class.setattr("max_size", MAX_SIZE)?;
    module.add("ReadPipeTransport", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

/// `Loop._open_read_pipe(pipe, protocol, waiter, extra)`: a transport over what a pipe gives.
pub(crate) fn open_read_pipe<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let value = |link, pipe| ReadPipeTransport {
        link,
        pipe,
        paused: Cell::new(false),
    };
    let refusal = "Pipe transport is for pipes/sockets only.";
    open(this, &call, &CLASS, value, refusal, |_| true)
}

impl<'py> It<'_, 'py> {
    fn is_reading(self) -> bool {
        !self.paused.get() && !self.is_closing()
    }

    /// Reads once and tells the protocol. What that raises is the loop's to report, and does not end the transport.
    fn receive(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        match self.receive_bytes(event_loop, &protocol)? {
            Received::Done => Ok(()),
            Received::End => self.end(event_loop),
            Received::Failed(error) => self.fail_by(
                "read_pipe_failed",
                os_error(error),
                "Fatal read error on pipe transport",
            ),
        }
    }

    /// Nobody writes any more.
    fn end(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let py = self.py();
        self.log("pipe_closed_by_peer")?;
        let (Some(key), Some(protocol)) = (self.link.key.get(), self.protocol()) else {
            return Ok(());
        };
        self.link.closing.set(true);
        event_loop.engine()?.close(key);
        let ended = protocol
            .object
            .bind(py)
            .getattr(pyo3::intern!(py, "eof_received"))?;
        event_loop.schedule(&ended, PyTuple::empty(py).into_any().into(), None)?;
        self.schedule_lost(event_loop, &py.None().into_bound(py))
    }
}

fn repr<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let reading = this.state(|stream| stream.is_reading())?.unwrap_or(false);
    let reports = REPORTS.module(py)?;
    reports.call_method1(
        "pipe_repr",
        (this.object(), ReadPipeTransport::ASYNCIO_NAME, reading),
    )
}

fn is_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    bool_object(this.py(), this.is_reading())
}

fn pause_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if this.is_reading() {
        this.paused.set(true);
        this.stop_reading()?;
        this.log("pipe_pauses")?;
    }
    none(this.py())
}

fn resume_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if this.paused.get() && !this.is_closing() {
        this.paused.set(false);
        this.start_reading()?;
        this.log("pipe_resumes")?;
    }
    none(this.py())
}

fn begin_reading<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if this.is_reading() {
        this.start_reading()?;
    }
    none(this.py())
}

fn set_protocol<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.set_protocol(&*call.only("_UnixReadPipeTransport.set_protocol", "protocol")?)?;
    none(this.py())
}

fn call_connection_lost<'py>(this: It<'_, 'py>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let error = argument(&call, 0, "_call_connection_lost")?;
    this.lose(Some(&error))?;
    none(this.py())
}
