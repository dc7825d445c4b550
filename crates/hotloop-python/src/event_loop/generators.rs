//! Asynchronous generators: the loop notes those that begin, so that `shutdown_asyncgens` can end them.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySet, PyWeakrefReference};

use super::{Loop, asyncios_method};
use crate::answers::none;
use crate::ffi::{Call, Object, This, same_type};

/// What `weakref.WeakSet` is in this Python.
struct WeakSet {
    class: Object,
    /// Whether what has died waits while somebody iterates (up to 3.13): then only the set's own methods know when it may
    /// go. Later ones iterate over a copy.
    is_guarded: bool,
}

/// Notes a generator that begins (`sys.set_asyncgen_hooks`): what asyncio's method does, into the same `WeakSet`.
///
/// That one's `add`, and what it calls at the generator's end, are Python, and a generator that is a context manager
/// begins and ends with each use.
///
/// # Errors
/// Those of asyncio's method.
pub(super) fn note_generator<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let set = this.generators.borrow().clone();
    if let (Some(set), Some(generator), 1) = (set, call.get(0), call.len())
        && !this.generators_ended.get()
        && !call.has_keywords()
        && let Some((members, at_its_end)) = fast_way(py, &set)?
    {
        let reference = PyWeakrefReference::new_with(&generator, at_its_end)?;
        members.add(reference)?;
        return none(py);
    }
    call.forward(&asyncios_method(
        this,
        pyo3::intern!(py, "_asyncgen_firstiter_hook"),
    )?)
}

/// The set of references within a `WeakSet`, and what to call with a reference to what has died; `None` for anything
/// else, and where dead ones wait to be removed.
fn fast_way<'py>(py: Python<'py>, set: &Object) -> PyResult<Option<(Bound<'py, PySet>, Bound<'py, PyAny>)>> {
    let stock = weak_set(py)?;
    if !same_type(set, &stock.class) {
        return Ok(None);
    }
    let set = set.bind(py);
    let Ok(members) = set.getattr(pyo3::intern!(py, "data"))?.cast_into_exact::<PySet>() else {
        return Ok(None);
    };
    if !stock.is_guarded {
        let discard = members.getattr(pyo3::intern!(py, "discard"))?;
        return Ok(Some((members, discard)));
    }
    if set.getattr(pyo3::intern!(py, "_pending_removals"))?.is_truthy()? {
        return Ok(None);
    }
    let remove = set.getattr(pyo3::intern!(py, "_remove"))?;
    Ok(Some((members, remove)))
}

fn weak_set(py: Python<'_>) -> PyResult<&WeakSet> {
    static WEAK_SET: PyOnceLock<WeakSet> = PyOnceLock::new();
    WEAK_SET.get_or_try_init(py, || {
        let class = py.import("weakref")?.getattr("WeakSet")?;
        let is_guarded = class.call0()?.hasattr("_pending_removals")?;
        Ok(WeakSet {
            class: class.into(),
            is_guarded,
        })
    })
}
