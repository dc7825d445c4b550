//! Accepting: `Listener`, what watches a listening socket.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::Accepted;
use hotloop::transport::{ACCEPT_BUDGET, is_out_of_resources};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::answers::{argument, bool_object, none, object_or_none};
use crate::dispatch::{self, is_fatal};
use crate::errors::{is_transient, os_error};
use crate::event_loop::Loop;
use crate::ffi::{self, Call, Class, ClassBuilder, Instance, Layout, Object, This, Visit};
use crate::handles::{self, Context, Scheduled};
use crate::modules::REPORTS;
use crate::transports::{self, SocketKind, SocketTransport};

/// What watches a listening socket. It stands where a watcher's handle does.
pub(crate) struct Listener {
    fd: RawFd,
    /// The family, the type and the protocol that its connections have.
    kind: SocketKind,
    /// A handle of `_accept_connection`, which does in Python what is not done here.
    handle: Object,
    /// Whether connections become transports without asyncio's task for each; decided when serving starts.
    natively: bool,
    /// What makes a protocol for each connection.
    factory: Object,
    /// The server that counts the connections.
    server: Option<Object>,
    /// How many connections are accepted in one turn at most: no more than the backlog.
    budget: usize,
    /// The variables that connections begin with. Nobody enters it: each connection has a copy.
    snapshot: Object,
    /// The context whose copies the connections run in, where the creator gave one (Python 3.15).
    context: Option<Object>,
    /// Set by `cancel()`.
    cancelled: Cell<bool>,
}

static CLASS: OnceLock<Object> = OnceLock::new();
/// `SocketTransport._serve`, as an attribute of its class.
static SERVE: OnceLock<Object> = OnceLock::new();

impl Class for Listener {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.Listener";
    const ASYNCIO_NAME: &'static str = "Handle";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.objects([&self.handle, &self.factory, &self.snapshot]);
        visit.objects(self.server.iter().chain(&self.context));
    }

    // Its handle and its server can be cleared themselves, so no cycle lasts through it.
    fn clear(&self) {}
}

/// Adds how many connections a turn accepts, and the class, to the module, after that of the transports.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ACCEPT_BUDGET", ACCEPT_BUDGET)?;
    let base = module
        .py()
        .import("builtins")?
        .getattr("object")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<Listener>::new()
        .no_args(
            c"cancel",
            c"cancel($self, /)\n--\n\nAccept no more.",
            |this: This<'_, '_, Listener>| {
                this.cancelled.set(true);
                none(this.py())
            },
        )
        .no_args(
            c"cancelled",
            c"cancelled($self, /)\n--\n\nWhether cancel() was called.",
            |this: This<'_, '_, Listener>| bool_object(this.py(), this.cancelled.get()),
        )
        .getter(c"_cancelled", c"Whether cancel() was called.", |this| {
            bool_object(this.py(), this.cancelled.get())
        })
        .build(&base, &[], true)?;
    module.add("Listener", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    let serve = module.getattr("SocketTransport")?.getattr("_serve")?;
    SERVE.get_or_init(|| serve.into());
    Ok(())
}

/// `Loop._listen(sock, handle, natively, factory, server, budget, context=None)`: accepts on a listening socket from
/// the next turn on, no more than the budget in each. Answers what watched it before.
pub(crate) fn listen<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let at = |index| argument(&call, index, "_listen");
    let (socket, server) = (at(0)?, at(4)?);
    let number = |name: &str| -> PyResult<i32> { socket.getattr(name)?.extract() };
    let budget: usize = at(5)?.extract()?;
    let fd = socket.call_method0("fileno")?.extract()?;
    let listener = Listener {
        fd,
        kind: SocketKind {
            family: number("family")?,
            socktype: number("type")?,
            proto: number("proto")?,
        },
        handle: at(1)?.into(),
        natively: at(2)?.is_truthy()?,
        factory: at(3)?.into(),
        server: (!server.is_none()).then(|| server.into()),
        budget: budget.clamp(1, ACCEPT_BUDGET),
        snapshot: ffi::copy_context(py)?,
        context: call.get(6).filter(|context| !context.is_none()).map(Object::from),
        cancelled: Cell::new(false),
    };
    let class = CLASS
        .get()
        .ok_or_else(|| PyTypeError::new_err("the module is not imported"))?;
    let listener = Instance::new(&class.bind(py).cast::<PyType>()?.to_owned(), listener)?;
    let replaced = this
        .engine()?
        .listen(fd, listener.object().clone().into())
        .map_err(os_error)?;
    Ok(object_or_none(py, replaced.and_then(Scheduled::into_handle)))
}

/// `Loop._accept(fd)`: one connection, as a descriptor and the name of its peer.
///
/// # Errors
/// The kernel's, as `socket.accept` raises them.
pub(crate) fn accept<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let fd: RawFd = argument(&call, 0, "_accept")?.extract()?;
    let accepted = this.engine()?.accept(fd).map_err(os_error)?;
    transports::as_tuple(this.py(), accepted)
}

/// Accepts what waits at a listening socket.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of an exception handler.
pub(crate) fn on_event(this: This<'_, '_, Loop>, handle: &Object, natively: bool) -> PyResult<()> {
    let py = this.py();
    Instance::<Listener>::from_class(handle, CLASS.get()).map_or(Ok(()), |listener| {
        listener.with(py, |listener| {
            if listener.cancelled.get() {
                Ok(())
            } else if natively && listener.natively && !has_task_factory(this)? {
                listener.accept(this)
            } else {
                dispatch::run_handle(this, &listener.handle, natively)
            }
        })
    })
}

/// A factory of tasks is to see the task of each connection.
fn has_task_factory(this: This<'_, '_, Loop>) -> PyResult<bool> {
    let factory = this.object().getattr(pyo3::intern!(this.py(), "_task_factory"))?;
    Ok(!factory.is_none())
}

impl<'py> This<'_, 'py, Listener> {
    fn accept(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        for _ in 0..self.budget {
            let accepted = event_loop.engine()?.accept(self.fd);
            match accepted {
                Ok(connection) => self.schedule(event_loop, connection)?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if is_transient(&error) => return Ok(()),
                Err(error) if is_out_of_resources(&error) => return self.rest(event_loop, error),
                Err(error) => {
                    return handles::report(self.py(), event_loop.object(), &self.handle, os_error(error));
                }
            }
        }
        Ok(())
    }

    /// Has a connection served on the next turn: the turn in which asyncio's task for it would begin.
    fn schedule(self, event_loop: This<'_, 'py, Loop>, connection: Accepted) -> PyResult<()> {
        let py = self.py();
        let own = self
            .context
            .as_ref()
            .map(|context| ffi::copy_of(py, context))
            .transpose()?;
        let transport = transports::accepted(event_loop, connection, self.kind, own.clone())?;
        let Some(serve) = SERVE.get() else { return Ok(()) };
        let arguments = (transport.object().bind(py), self.object()).into_pyobject(py)?;
        let context = own.map_or_else(|| Context::Snapshot(self.snapshot.clone()), Context::Given);
        event_loop.schedule_in(&serve.bind(py), arguments.into_any().into(), context)?;
        Ok(())
    }

    /// Lets the listener rest for lack of descriptors or memory.
    fn rest(self, event_loop: This<'_, 'py, Loop>, error: io::Error) -> PyResult<()> {
        let py = self.py();
        let error = os_error(error).into_value(py);
        let how = self.handle.bind(py).getattr(pyo3::intern!(py, "_args"))?;
        event_loop
            .object()
            .call_method1("_rest_accepting", (error, how))
            .map(drop)
    }
}

/// `SocketTransport._serve(listener)`: makes the protocol of an accepted connection, and has the loop begin with it.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of the factory.
pub(crate) fn serve<'py>(
    this: This<'_, 'py, SocketTransport>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let listener = argument(&call, 0, "_serve")?.into();
    let Some(listener) = Instance::<Listener>::from_class(&listener, CLASS.get()) else {
        return Err(PyTypeError::new_err("_serve() takes a Listener"));
    };
    let Some(event_loop) = this.event_loop() else {
        return none(py);
    };
    let listener = listener.get(py);
    let protocol = ffi::call_no_args(&listener.factory.bind(py));
    let outcome = protocol.and_then(|protocol| {
        event_loop.with(py, |event_loop| {
            this.serve(event_loop, &protocol, listener.server.clone())
        })
    });
    if let Err(error) = outcome {
        this.refuse();
        if is_fatal(py, &error) {
            return Err(error);
        }
        REPORTS.module(py)?.call_method1(
            "accept_failed",
            (
                event_loop.object().bind(py),
                error.into_value(py),
                object_or_none(py, listener.server.clone()),
            ),
        )?;
    }
    none(py)
}
