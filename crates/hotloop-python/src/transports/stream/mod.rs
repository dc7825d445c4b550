//! `SocketTransport`: a stream connection.

mod class;
mod end;
mod receive;
mod send;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::StreamEvent;
use hotloop::driver::Direction;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(super) use self::class::add_to;
use super::Transport;
use super::link::{Link, Linked};
use crate::answers::argument;
use crate::event_loop::Loop;
use crate::ffi::{Call, Class, Finalize, Instance, Layout, Object, This, Visit};

/// A stream transport over a socket.
pub(crate) struct SocketTransport {
    /// To its loop, its stream, its socket and its protocol.
    link: Link,
    /// The server that accepted it, told when it goes.
    server: RefCell<Option<Object>>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// Resolved when nothing is queued any more: `sendfile` waits for it.
    empty_waiter: RefCell<Option<Object>>,
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
        for held in [&self.server, &self.empty_waiter] {
            visit.objects(held.borrow().iter());
        }
    }

    fn clear(&self) {
        for held in [&self.server, &self.empty_waiter] {
            held.take();
        }
        self.link.clear();
    }
}

impl Finalize for SocketTransport {
    fn finalize(this: It<'_, '_>) {
        this.warn_unclosed();
    }
}

impl Linked for SocketTransport {
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
}

/// `Loop._open_stream(sock, protocol, waiter, extra, server)`: a transport over a connected socket. `connection_made`
/// and then reading begin on the next turn.
pub(crate) fn open_stream<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let [socket, protocol, waiter, extra, server] =
        [0, 1, 2, 3, 4].map(|index| argument(&call, index, "_open_stream"));
    let (socket, protocol, waiter, extra, server) = (socket?, protocol?, waiter?, extra?, server?);
    let context = call.get(5).filter(|context| !context.is_none()).map(Object::from);
    let fd: RawFd = socket.call_method0(pyo3::intern!(py, "fileno"))?.extract()?;
    let class = CLASS
        .get()
        .ok_or_else(|| PyRuntimeError::new_err("the module is not imported"))?;
    let transport = Instance::new(
        &class.bind(py).cast::<PyType>()?.to_owned(),
        SocketTransport {
            link: Link::new(this, fd, &socket, &protocol, context)?,
            server: RefCell::new((!server.is_none()).then(|| (&*server).into())),
            paused: Cell::new(false),
            empty_waiter: RefCell::default(),
        },
    )?;
    let object = transport.object().clone().into_bound(py);
    object.setattr(pyo3::intern!(py, "_extra"), &*extra)?;
    // What still watches the number watched an earlier descriptor of it.
    let dropped =
        [Direction::Read, Direction::Write].map(|direction| Ok(this.engine()?.unwatch(fd, direction)));
    let key = this.engine()?.open_stream(fd);
    dropped.into_iter().collect::<PyResult<Vec<_>>>()?;
    transport.with(py, |transport| transport.begin(this, key, &waiter, true))?;
    Ok(object)
}
