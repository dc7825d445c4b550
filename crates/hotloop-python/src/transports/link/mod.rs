//! What every transport has: its loop, what the engine has for it, and its protocol.

mod end;
mod key;
mod receive;
mod send;

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::RawFd;

use hotloop::StreamKey;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pub(super) use self::key::Key;
pub(super) use self::receive::Received;
use super::Transport;
use super::protocol::Protocol;
use crate::dispatch::{in_context, is_fatal};
use crate::event_loop::Loop;
use crate::ffi::{self, Class, Entry, Instance, Object, OptionCell, This, Visit};
use crate::host::Engine;
use crate::modules::{FUTURES, REPORTS};

/// The ties of a transport: upwards to its protocol, downwards to the engine and to the kernel.
pub(crate) struct Link<K = StreamKey> {
    /// The loop; `None` after `connection_lost`.
    pub(super) event_loop: OptionCell<Instance<Loop>>,
    /// The engine's name for the stream or the endpoint; `None` once it is released.
    pub(super) key: Cell<Option<K>>,
    /// The number of the descriptor.
    pub(super) fd: RawFd,
    /// Its place among the transports of the loop.
    pub(super) entry: Cell<Option<Entry>>,
    /// What is told; `None` before it is known, and after `connection_lost`.
    pub(super) protocol: RefCell<Option<Protocol>>,
    /// What reading runs in: the context in which reading was last begun.
    pub(super) read_context: OptionCell,
    /// Whether others share that context, so that it is copied before it is entered for the first time: connections that
    /// only wait need none of their own.
    pub(super) shares_context: Cell<bool>,
    /// What the news of sending run in: the context of the write that found no room.
    pub(super) write_context: OptionCell,
    /// How often the connection was lost or written to thereafter (asyncio's `_conn_lost` of sockets).
    pub(super) lost: Cell<u32>,
    /// Whether the end has begun: set by whatever ends the stream.
    pub(super) closing: Cell<bool>,
    /// Whether the last read was so long that the next one goes to where it is to stay. Written by each read.
    pub(super) received_long: Cell<bool>,
    /// The context that everything runs in, where the creator gave one (Python 3.15). Written once, before
    /// `connection_made` is scheduled.
    pub(super) context: OnceCell<Object>,
}

impl<K: Key> Link<K> {
    /// The ties of a transport whose protocol is still to be set, and whose stream is still to be opened.
    pub(super) fn new(event_loop: This<'_, '_, Loop>, fd: RawFd, context: Option<Object>) -> Self {
        Self {
            event_loop: OptionCell::new(Some(Instance::of(event_loop))),
            key: Cell::new(None),
            fd,
            entry: Cell::default(),
            protocol: RefCell::default(),
            read_context: OptionCell::default(),
            shares_context: Cell::new(false),
            write_context: OptionCell::default(),
            lost: Cell::new(0),
            closing: Cell::new(false),
            received_long: Cell::new(false),
            context: context.map(OnceCell::from).unwrap_or_default(),
        }
    }

    /// Shows every object that it holds to the collector.
    pub(super) fn traverse(&self, visit: &mut Visit) {
        self.event_loop
            .look(|held| visit.objects(held.map(Instance::object)));
        visit.objects(self.protocol.borrow().iter().map(|protocol| &protocol.object));
        visit.objects(self.context.get());
        for held in [&self.read_context, &self.write_context] {
            held.look(|held| visit.objects(held));
        }
    }

    /// Drops every object that it holds.
    pub(super) fn clear(&self) {
        for held in [&self.read_context, &self.write_context] {
            held.take();
        }
        self.protocol.take();
        self.event_loop.take();
        self.entry.take();
    }
}

/// The news of what is under a transport.
pub(super) type News<T> = <<T as Linked>::Key as Key>::News;

/// A transport over a stream or a datagram endpoint of the engine.
pub(crate) trait Linked: Class {
    /// What it is over.
    type Key: Key;

    /// Its ties.
    fn link(&self) -> &Link<Self::Key>;

    /// The instance as the engine keeps it.
    fn hosted(this: Instance<Self>) -> Transport;

    /// Runs the news, in the context in which they were asked for.
    ///
    /// # Errors
    /// What is nobody's but the loop's to report, `SystemExit` and `KeyboardInterrupt` among it.
    fn run<'py>(this: This<'_, 'py, Self>, event_loop: This<'_, 'py, Loop>, news: News<Self>)
    -> PyResult<()>;

    /// Closes the descriptor, through whoever owns it; once.
    ///
    /// # Errors
    /// What the owner raises.
    fn close_descriptor(this: This<'_, '_, Self>) -> PyResult<()>;
}

/// Runs the news of what is under a transport.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of the protocol's methods.
pub(super) fn on_event<T: Linked>(
    this: This<'_, '_, T>,
    event_loop: This<'_, '_, Loop>,
    news: News<T>,
) -> PyResult<()> {
    let py = this.py();
    let receiving = T::Key::is_of_receiving(&news);
    let link = this.link();
    let context = if receiving {
        &link.read_context
    } else {
        &link.write_context
    };
    let mut context = context.get();
    if receiving
        && link.shares_context.get()
        && let Some(shared) = &mut context
    {
        *shared = ffi::copy_of(py, shared)?;
        link.shares_context.set(false);
        drop(link.read_context.replace(context.clone()));
    }
    let act = || T::run(this, event_loop, news);
    let outcome = match context {
        Some(context) => in_context(py, &context, act),
        None => act(),
    };
    outcome.or_else(|error| {
        if is_fatal(py, &error) {
            return Err(error);
        }
        // No protocol method accounts for it: reported as a handle's.
        let arguments = (
            event_loop.object(),
            this.object(),
            error.into_value(py),
            receiving,
        );
        REPORTS
            .module(py)?
            .call_method1("transport_event_failed", arguments)
            .map(drop)
    })
}

impl<'py, T: Linked> This<'_, 'py, T> {
    /// Calls `act` with the loop; `None` after `connection_lost`.
    #[inline]
    pub(super) fn with_loop<R>(
        self,
        act: impl FnOnce(This<'_, 'py, Loop>) -> PyResult<R>,
    ) -> PyResult<Option<R>> {
        self.event_loop()
            .map(|event_loop| event_loop.with(self.py(), act))
            .transpose()
    }

    /// Calls `act` with the engine and the key; `None` once that is released or the loop closed.
    #[inline]
    fn with_engine<R>(self, act: impl FnOnce(&mut Engine, T::Key) -> R) -> PyResult<Option<R>> {
        let Some(key) = self.link().key.get() else {
            return Ok(None);
        };
        let done = self.with_loop(|event_loop| {
            let mut engine = event_loop.open_engine()?;
            Ok(engine.as_deref_mut().map(|engine| act(engine, key)))
        })?;
        Ok(done.flatten())
    }

    /// Notes in the loop that a descriptor is this transport's.
    pub(super) fn register(self, event_loop: This<'_, 'py, Loop>, fd: u32) {
        event_loop.transports.enter(fd, self, &self.link().entry);
    }

    /// The loop; `None` after `connection_lost`.
    #[inline]
    pub(crate) fn event_loop(self) -> Option<Instance<Loop>> {
        self.link().event_loop.get()
    }

    /// Looks at the engine's state; `None` once it is released or the loop closed.
    #[inline]
    pub(super) fn state<R>(self, look: impl FnOnce(&mut <T::Key as Key>::State) -> R) -> PyResult<Option<R>> {
        Ok(self
            .with_engine(|engine, key| key.state(engine).map(look))?
            .flatten())
    }

    #[inline]
    pub(crate) fn is_closing(self) -> bool {
        self.link().closing.get()
    }

    pub(super) fn protocol(self) -> Option<Protocol> {
        self.link().protocol.borrow().clone()
    }

    pub(super) fn set_protocol(self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let old = self.link().protocol.replace(Some(Protocol::new(protocol)?));
        drop(old);
        Ok(())
    }

    /// The context that everything runs in, if there is one.
    #[inline]
    pub(super) fn given_context(self) -> Option<Object> {
        self.link().context.get().cloned()
    }

    /// What the events that are asked for now run in: the given context, else a copy of the current one, as the
    /// handle has that asyncio makes at this point.
    pub(super) fn current_context(self) -> PyResult<Object> {
        self.given_context()
            .map_or_else(|| ffi::copy_context(self.py()), Ok)
    }

    /// Notes what was opened, and has `connection_made` and, if it is for `reading`, the method
    /// `_begin_reading` run on the next turn.
    pub(super) fn start(self, event_loop: This<'_, 'py, Loop>, key: T::Key, reading: bool) -> PyResult<()> {
        let py = self.py();
        self.link().key.set(Some(key));
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let made = protocol
            .object
            .bind(py)
            .getattr(pyo3::intern!(py, "connection_made"))?;
        event_loop.schedule(
            &made,
            tuple((self.object(),).into_pyobject(py)?),
            self.given_context(),
        )?;
        if reading {
            let begin = self.object().getattr(pyo3::intern!(py, "_begin_reading"))?;
            event_loop.schedule(&begin, ffi::no_arguments(py), self.given_context())?;
        }
        Ok(())
    }

    /// Has a future resolved behind what is scheduled, if there is one.
    pub(super) fn wake(self, event_loop: This<'_, 'py, Loop>, waiter: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        if waiter.is_none() {
            return Ok(());
        }
        let wake = FUTURES.get(py, pyo3::intern!(py, "_set_result_unless_cancelled"))?;
        let arguments = tuple((waiter, py.None()).into_pyobject(py)?);
        event_loop.schedule(&wake, arguments, self.given_context())?;
        Ok(())
    }
}

fn tuple(arguments: Bound<'_, PyTuple>) -> Object {
    arguments.into_any().into()
}
