//! Turns that somebody else runs: a tool that has put a `_run_once` of its own in the place of the native one, and takes
//! handles out of asyncio's queues to run them. I/O stays native, as one more callback of such a turn.

use std::time::Duration;

use hotloop::{Event, MAXIMUM_WAIT};
use pyo3::prelude::*;

use super::{Loop, scheduling};
use crate::answers::{none, object_or_none};
use crate::dispatch;
use crate::ffi::{self, Call, Object, This};
use crate::handles::{self, Blanks, Scheduled};

/// Waits, at most so many seconds, and schedules what handles the I/O that was found.
///
/// # Errors
/// The kernel's, and what a signal handler raises.
pub(super) fn wait_for_io<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let given = match call.get(0).filter(|seconds| !seconds.is_none()) {
        None => None,
        Some(seconds) => {
            let seconds: f64 = seconds.extract()?;
            // A time that is not a number does not wait.
            let seconds = if seconds.is_nan() { 0.0 } else { seconds };
            Some(Duration::from_secs_f64(seconds.clamp(0.0, MAXIMUM_WAIT)))
        }
    };
    this.find_own_now()?;
    dispatch::wait_at_most(this, given)?;
    let callback = this.object().getattr(pyo3::intern!(py, "_run_io"))?;
    ffi::call_method(this.object(), pyo3::intern!(py, "call_soon"), [&callback])
}

/// Handles the I/O that the last wait has found.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of what it calls.
pub(super) fn run_io<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    dispatch::run_io(this)?;
    none(this.py())
}

/// Takes the oldest of what is ready.
pub(super) fn ready_popleft<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    this.drop_spare();
    let event = this.engine()?.pop_scheduled();
    let handle: Option<Object> = match event {
        Some(Event::Callback(Scheduled::Handle(handle))) => Some(handle),
        Some(Event::Callback(Scheduled::Bare(bare))) => Some(bare.into_handle(this.py(), this.object())?),
        Some(Event::Timer(timer)) => {
            handles::unschedule(this.py(), &timer)?;
            Some(timer)
        }
        _ => None,
    };
    handle.iter().for_each(handles::done);
    Ok(object_or_none(this.py(), handle))
}

/// What is ready, in the order in which it will run: nothing in a loop that waits.
pub(super) fn ready_handles<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    give_handles(this)?;
    let handles: Vec<Object> = this.engine_now().map_or_else(
        |_| Vec::new(),
        |mut engine| {
            let (first, due, later) = engine.queued();
            let [first, later] = [first.cloned().collect::<Vec<_>>(), later.cloned().collect()]
                .map(|callbacks| callbacks.into_iter().filter_map(Scheduled::into_handle));
            first.chain(due.cloned()).chain(later).collect()
        },
    );
    scheduling::list(this.py(), handles)
}

/// Gives each callback that is ready a handle, for somebody who looks at them.
fn give_handles(this: This<'_, '_, Loop>) -> PyResult<()> {
    loop {
        let missing = match this.engine_now() {
            Ok(mut engine) => Blanks::count(engine.ready().iter()),
            Err(_) => return Ok(()),
        };
        if missing == (0, 0) {
            return Ok(());
        }
        // A collection may run foreign code here, which schedules more: hence again.
        let mut blanks = Blanks::new(this.py(), missing)?;
        if let Ok(mut engine) = this.engine_now() {
            blanks.give(this.object(), engine.ready().iter_mut())?;
        }
    }
}

/// How much is ready.
pub(super) fn ready_count<'py>(this: This<'_, 'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
    let count = this.engine_now().map_or(0, |mut engine| {
        let (first, due, later) = engine.queued();
        first.count() + due.count() + later.count()
    });
    Ok(count.into_pyobject(this.py())?.into_any())
}

/// Takes a timer, which somebody runs by himself, from those that wait.
///
/// # Errors
/// What a class of handles of somebody's own raises.
pub(super) fn take_timer(this: This<'_, '_, Loop>, timer: &Object) -> PyResult<()> {
    let Ok(mut engine) = this.engine() else {
        return Ok(());
    };
    let taken = engine.timers().remove(|other| other.is(&timer.bind(this.py())));
    drop(engine);
    taken.map_or(Ok(()), |taken| handles::unschedule(this.py(), &taken))
}
