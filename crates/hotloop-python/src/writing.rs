//! What transports are given to write, where it may be something else than bytes.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyTuple};

use crate::ffi::ReadBuffer;
use crate::modules::WRITING;

/// Whether `Transport.write` takes an object.
pub(crate) fn is_bytes_like(data: &Bound<'_, PyAny>) -> bool {
    data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
}

/// Refuses what is not bytes-like, as the running asyncio does; `kind` names its transport in `hotloop._writing`.
///
/// # Errors
/// `TypeError`, in asyncio's words.
pub(crate) fn check(data: &Bound<'_, PyAny>, kind: &str) -> PyResult<()> {
    if is_bytes_like(data) {
        return Ok(());
    }
    let refuse = WRITING.module(data.py())?.getattr("refuse")?;
    refuse.call1((kind, data)).map(drop)
}

/// All lines in one, where they plainly are a list or a tuple of `bytes`.
pub(crate) fn join_plain<'py>(lines: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let is_bytes = |line: &Bound<'py, PyAny>| line.is_exact_instance_of::<PyBytes>();
    let plain = if let Ok(list) = lines.cast_exact::<PyList>() {
        list.iter().all(|line| is_bytes(&line))
    } else if let Ok(tuple) = lines.cast_exact::<PyTuple>() {
        tuple.iter_borrowed().all(|line| is_bytes(&line))
    } else {
        false
    };
    if plain { join(lines).map(Some) } else { Ok(None) }
}

/// All lines in one.
///
/// # Errors
/// `TypeError` for what is no iterable of bytes-like objects.
pub(crate) fn join<'py>(lines: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = lines.py();
    let joined = PyBytes::new(py, b"").call_method1(pyo3::intern!(py, "join"), (lines,))?;
    Ok(joined.cast_into()?)
}

/// The lines as `writelines` of the running asyncio takes them, from Python 3.12 on; `None` where the connection is lost
/// and asyncio looks at nothing else.
///
/// # Errors
/// `TypeError`, in asyncio's words, and what an iterator raises.
pub(crate) fn gather<'py>(lines: &Bound<'py, PyAny>, lost: bool) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let gather = WRITING.module(lines.py())?.getattr("gather")?;
    gather.call1((lines, lost))?.extract()
}

/// What `gather` has found, in one.
///
/// # Errors
/// `BufferError` for memory with gaps.
pub(crate) fn copy_all<'py>(py: Python<'py>, lines: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyBytes>> {
    let mut all = Vec::new();
    for line in lines {
        all.extend_from_slice(ReadBuffer::new(line)?.as_slice());
    }
    Ok(PyBytes::new(py, &all))
}
