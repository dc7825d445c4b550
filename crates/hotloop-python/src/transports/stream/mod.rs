//! `SocketTransport`: a stream connection.

mod class;
mod end;
mod open;
mod receive;
mod send;
mod socket;

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use hotloop::driver::SocketAddress;
use hotloop::{StreamEvent, StreamKey};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub(super) use self::class::add_to;
pub(crate) use self::open::{accepted, connecting, open_stream};
use self::socket::Owner;
pub(crate) use self::socket::{SocketKind, as_tuple};
use super::Transport;
use super::link::{Link, Linked};
use crate::event_loop::Loop;
use crate::ffi::{Bytes, Class, Finalize, Instance, Layout, Object, OptionCell, This, Visit};

/// A stream transport over a socket.
pub(crate) struct SocketTransport {
    /// To its loop, its stream and its protocol. There is no protocol until one was made for an accepted connection.
    link: Link,
    /// Who closes the descriptor. Closed after `connection_lost`.
    owner: RefCell<Owner>,
    /// What a Python socket is made with, where there is none yet.
    kind: SocketKind,
    /// What the near and the far end are called, each if the kernel told. Set when the transport is opened.
    ends: RefCell<(Option<SocketAddress>, Option<SocketAddress>)>,
    /// `_extra`: a dictionary, given by the creator or made when somebody asks.
    extra: OptionCell,
    /// The server that accepted it, told when it goes.
    server: OptionCell,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// Resolved when nothing is queued any more: `sendfile` waits for it.
    empty_waiter: OptionCell,
}

type It<'a, 'py> = This<'a, 'py, SocketTransport>;

static CLASS: OnceLock<Object> = OnceLock::new();

impl Class for SocketTransport {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.SocketTransport";
    const ASYNCIO_NAME: &'static str = "_SelectorSocketTransport";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        self.link.traverse(visit);
        visit.objects(self.owner.borrow().object());
        for held in [&self.extra, &self.server, &self.empty_waiter] {
            held.look(|held| visit.objects(held));
        }
    }

    fn clear(&self) {
        for held in [&self.extra, &self.server, &self.empty_waiter] {
            held.take();
        }
        self.owner.replace(Owner::Closed(None));
        self.link.clear();
    }
}

impl Finalize for SocketTransport {
    fn finalize(this: It<'_, '_>) {
        let is_closed = matches!(&*this.owner.borrow(), Owner::Closed(_));
        if !is_closed && this.link.key.get().is_some() {
            this.warn_unclosed();
        }
        // As asyncio's transports do since Python 3.13; before, a server waited for ever for what was never closed.
        if cfg!(Py_3_13)
            && let Err(error) = this.detach()
        {
            error.write_unraisable(this.py(), Some(this.object()));
        }
    }
}

impl SocketTransport {
    /// The transport that an object is, if it is one.
    pub(crate) fn of(object: &Object) -> Option<Instance<Self>> {
        Instance::from_class(object, CLASS.get())
    }

    /// Writes a `bytes` object, as `write` does.
    ///
    /// # Errors
    /// Where `write` raises.
    pub(crate) fn write_bytes(this: It<'_, '_>, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
        this.check_write("write")?;
        this.send(bytes.as_bytes(), || Bytes::new(bytes))
    }

    /// How many bytes wait to be sent, without those that the end of the turn sends anyway.
    ///
    /// # Errors
    /// `RuntimeError` from a wrong thread.
    pub(crate) fn queued(this: It<'_, '_>) -> PyResult<usize> {
        this.flush_now()?;
        Ok(this.state(|stream| stream.queue.len())?.unwrap_or(0))
    }
}

impl Linked for SocketTransport {
    type Key = StreamKey;

    #[inline]
    fn link(&self) -> &Link {
        &self.link
    }

    fn hosted(this: Instance<Self>) -> Transport {
        Transport::Socket(this)
    }

    fn run<'py>(
        this: This<'_, 'py, Self>,
        event_loop: This<'_, 'py, Loop>,
        news: StreamEvent,
    ) -> PyResult<()> {
        match news {
            StreamEvent::Readable => this.receive(event_loop),
            StreamEvent::Sent => this.sent(),
            StreamEvent::Broken(error) => this.broken(error),
        }
    }

    fn close_descriptor(this: It<'_, '_>) -> PyResult<()> {
        this.close_socket()
    }
}
