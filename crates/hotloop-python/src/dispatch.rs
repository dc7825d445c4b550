//! The turns of a loop: what the engine hands out, run in Python.

use hotloop::driver::Woken;
use hotloop::{Event, Timeout};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use std::time::Duration;

use crate::errors::os_error;
use crate::event_loop::{Loop, delegated};
use crate::ffi::{self, Object, This};
use crate::handles::{self, Scheduled};
use crate::host::PythonHost;
use crate::modules::REPORTS;
use crate::transports::Transport;
use crate::{listeners, sockets};

/// Runs one turn, or all turns until the loop is stopped where it is inside `run_forever`.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of a callback, what a signal handler raises, and the kernel's errors.
pub(crate) fn run(this: This<'_, '_, Loop>) -> PyResult<()> {
    this.engine()?.note_break();
    loop {
        turn(this)?;
        if !this.is_running() || this.is_stopping() {
            return Ok(());
        }
    }
}

fn turn(this: This<'_, '_, Loop>) -> PyResult<()> {
    if this.gathers_tls() {
        this.flush_tls()?;
    }
    this.drop_snapshot();
    // A selector object of the program's own is asked in every turn, as by asyncio.
    if this.delegates() || !this.engine()?.begin_at_once() {
        begin(this)?;
    }
    loop {
        let mut engine = this.engine()?;
        match engine.next_callback() {
            Some(handle) => {
                drop(engine);
                run_callback(this, handle)?;
            }
            None if engine.has_callbacks_only() => return Ok(()),
            None => break,
        }
    }
    this.drop_spare();
    let natively = handles::run_is_original(this.py()) && !this.is_debug();
    loop {
        let event = this.engine()?.next_event();
        match event {
            None => return Ok(()),
            Some(event) => run_event(this, event, natively)?,
        }
    }
}

/// Waits for what the turn has to do, if it may.
fn begin(this: This<'_, '_, Loop>) -> PyResult<()> {
    this.drop_spare();
    wait_up_to(this, None)?;
    let now = if this.engine()?.timers().is_empty() {
        0.0
    } else {
        this.now()?
    };
    this.engine()?.begin_turn(|| now + this.resolution());
    Ok(())
}

/// Runs one event of a turn.
#[inline]
fn run_event(this: This<'_, '_, Loop>, event: Event<PythonHost>, natively: bool) -> PyResult<()> {
    match event {
        Event::Callback(handle) => run_callback(this, handle)?,
        Event::Timer(timer) => {
            handles::unschedule(this.py(), &timer)?;
            let outcome = run_handle(this, &timer, natively);
            handles::done(&timer);
            outcome?;
        }
        Event::Stream(_, transport, news) => {
            timed(this, &transport, || transport.on_event(this, news))?;
        }
        Event::Datagram(_, transport, news) => {
            timed(this, &transport, || transport.on_datagram(this, news))?;
        }
        // What watches has a handle.
        Event::Accept(listener) => {
            if let Some(listener) = listener.into_handle() {
                listeners::on_event(this, &listener, natively)?;
            }
        }
        Event::Replaced(handle) => {
            if let Some(handle) = handle.into_handle() {
                ffi::call_method(&handle.bind(this.py()), pyo3::intern!(this.py(), "cancel"), [])?;
            }
        }
    }
    Ok(())
}

/// Runs a callback that the engine has let go of.
#[inline]
fn run_callback(this: This<'_, '_, Loop>, scheduled: Scheduled) -> PyResult<()> {
    let py = this.py();
    let (handle, taken) = match scheduled {
        Scheduled::Handle(handle) => {
            let taken = if this.is_debug() {
                None
            } else {
                handles::take(py, &handle, |context| this.copy_of(py, context))
            };
            match taken {
                Some(taken) => (Some(handle), taken),
                None => return run_whole(this, handle),
            }
        }
        Scheduled::Bare(bare) if this.is_debug() || !bare.is_original(py) => {
            return run_whole(this, bare.into_handle(py, this.object())?);
        }
        Scheduled::Bare(bare) => (None, bare.take(|context| this.copy_of(py, context))),
    };
    let outcome = in_context(py, &taken.context, || {
        ffi::call_tuple(py, &taken.function, &taken.arguments).map(drop)
    });
    match outcome {
        Ok(()) => {
            let (emptied, context, snapshot) = taken.into_parts(handle);
            this.keep_emptied(emptied);
            this.keep_spare(py, context, snapshot);
            Ok(())
        }
        Err(error) => {
            this.drop_spare();
            let handle = taken.into_handle(py, handle, this.object())?;
            let outcome = failed(this, &handle, error);
            handles::done(&handle);
            outcome
        }
    }
}

/// Runs a callback by its handle, out of which it cannot be taken.
fn run_whole(this: This<'_, '_, Loop>, handle: Object) -> PyResult<()> {
    this.drop_spare();
    let natively = handles::run_is_original(this.py()) && !this.is_debug();
    let outcome = run_handle(this, &handle, natively);
    handles::done(&handle);
    this.reuse(handle);
    outcome
}

/// What becomes of an exception of a handle's callback.
#[cold]
fn failed(this: This<'_, '_, Loop>, handle: &Object, error: PyErr) -> PyResult<()> {
    let py = this.py();
    if is_fatal(py, &error) {
        Err(error)
    } else {
        handles::report(py, this.object(), handle, error)
    }
}

/// Waits as long as there is nothing to do, but no longer than so long.
///
/// # Errors
/// The kernel's, and what a signal handler raises.
#[inline]
pub(crate) fn wait_at_most(this: This<'_, '_, Loop>, given: Timeout) -> PyResult<()> {
    this.flush_tls()?;
    this.drop_snapshot();
    this.drop_spare();
    wait_up_to(this, given)
}

#[inline]
fn wait_up_to(this: This<'_, '_, Loop>, given: Timeout) -> PyResult<()> {
    let timeout = match (prepare(this)?, given) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    if wait(this, timeout)? == Woken::BySignal || timeout != Some(Duration::ZERO) {
        this.py().check_signals()?;
    }
    Ok(())
}

/// Handles the I/O that the last wait has found, for whoever runs callbacks and timers by himself.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of what it calls.
pub(crate) fn run_io(this: This<'_, '_, Loop>) -> PyResult<()> {
    this.engine()?.begin_io();
    let natively = handles::run_is_original(this.py()) && !this.is_debug();
    loop {
        let event = this.engine()?.next_io();
        match event {
            None => break,
            Some(event) => run_event(this, event, natively)?,
        }
    }
    this.flush_tls()?;
    this.engine()?.end_turn();
    Ok(())
}

/// How long the turn may wait.
fn prepare(this: This<'_, '_, Loop>) -> PyResult<Timeout> {
    let py = this.py();
    let mut swept = Vec::new();
    let now = if this.engine()?.timers().is_empty() {
        0.0
    } else {
        this.now()?
    };
    let timeout = this
        .engine()?
        .prepare_wait(|| now, this.is_stopping(), &mut swept);
    handles::drop_cancelled(py, swept)?;
    Ok(timeout)
}

/// Waits, without the interpreter lock if it may block: for a poll the lock is kept, or the loop would stand in line
/// for it behind every thread that computes.
fn wait(this: This<'_, '_, Loop>, timeout: Timeout) -> PyResult<Woken> {
    if this.delegates() {
        return delegated::wait(this, timeout);
    }
    let mut engine = this.engine()?;
    let waiter = engine.waiter();
    let woken = match timeout {
        Some(Duration::ZERO) => waiter.wait(timeout),
        _ => this.block(this.py(), move || waiter.wait(timeout)),
    };
    drop(engine);
    this.let_guests_in(this.py());
    woken.map_err(os_error)
}

/// Runs a handle's callback in its context; an exception goes to the loop's exception handler.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt`.
#[inline]
pub(crate) fn run_handle(this: This<'_, '_, Loop>, handle: &Object, natively: bool) -> PyResult<()> {
    if sockets::is_operation(handle) {
        return sockets::run(this, handle);
    }
    if handles::is_cancelled(handle) {
        return Ok(());
    }
    if !natively {
        return run_in_python(this, handle);
    }
    match handles::callback(this.py(), handle) {
        None => run_in_python(this, handle),
        Some(callback) => {
            let py = this.py();
            let outcome = in_context(py, &callback.context, || {
                ffi::call_tuple(py, &callback.function, &callback.arguments).map(drop)
            });
            outcome.or_else(|error| failed(this, handle, error))
        }
    }
}

/// Runs the news of a transport, and in debug mode looks at the clock: a protocol may hold the loop up as a callback
/// may.
#[inline]
fn timed(
    this: This<'_, '_, Loop>,
    transport: &Transport,
    run: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    if !this.is_debug() {
        return run();
    }
    let py = this.py();
    let start = this.now()?;
    run()?;
    let arguments = (this.object(), transport.object().bind(py), this.now()? - start);
    REPORTS
        .module(py)?
        .call_method1("transport_ran", arguments)
        .map(drop)
}

/// Runs a handle through its own `_run`, and in debug mode looks at the clock.
fn run_in_python(this: This<'_, '_, Loop>, handle: &Object) -> PyResult<()> {
    let py = this.py();
    let run = || ffi::call_method(&handle.bind(py), pyo3::intern!(py, "_run"), []).map(drop);
    if !this.is_debug() {
        return run();
    }
    this.set_current(Some(handle.clone()));
    let outcome = this.now().and_then(|start| {
        run()?;
        Ok(this.now()? - start)
    });
    let outcome = outcome.and_then(|seconds| {
        let reports = REPORTS.module(py)?;
        reports
            .call_method1("handle_ran", (this.object(), handle.bind(py), seconds))
            .map(drop)
    });
    this.set_current(None);
    outcome
}

/// Runs `act` in a context.
///
/// # Errors
/// What `act` raises, or that the context is entered already.
#[inline]
pub(crate) fn in_context(
    py: Python<'_>,
    context: &Object,
    act: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    ffi::enter(py, context)?;
    let outcome = act();
    ffi::exit(py, context)?;
    outcome
}

/// Whether an exception must leave the loop.
pub(crate) fn is_fatal(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}
