//! What transports are given to write, where it may be something else than bytes.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyTuple};

use crate::allocator;
use crate::ffi::{Bytes, ReadBuffer};
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

/// Lines of which a write keeps each as it is have so many bytes on average, or more: what is shorter is copied in less
/// time than the kernel takes to find it.
const LONG_LINE: usize = 4 * 1024;

/// What `writelines` is given.
pub(crate) enum Plain<'py> {
    /// All lines in one.
    Joined(Bound<'py, PyBytes>),
    /// Long ones, as they are.
    Lines(Vec<Bytes>),
}

/// The lines, where they plainly are a list or a tuple of `bytes`.
///
/// # Errors
/// Out of memory.
pub(crate) fn plain<'py>(lines: &Bound<'py, PyAny>) -> PyResult<Option<Plain<'py>>> {
    let Some((count, total)) = measure(lines) else {
        return Ok(None);
    };
    if count < 2 || total < allocator::LONG || total / count < LONG_LINE {
        return join(lines).map(Plain::Joined).map(Some);
    }
    let mut kept = Vec::with_capacity(count);
    for line in lines.try_iter()? {
        kept.push(Bytes::new(&line?.cast_into()?));
    }
    Ok(Some(Plain::Lines(kept)))
}

/// How many lines there are, and how many bytes in them, where they plainly are a list or a tuple of `bytes`.
fn measure(lines: &Bound<'_, PyAny>) -> Option<(usize, usize)> {
    let mut total = 0;
    let mut add = |line: &Bound<'_, PyAny>| {
        let bytes = line.cast_exact::<PyBytes>().ok()?;
        total += bytes.as_bytes().len();
        Some(())
    };
    let count = if let Ok(list) = lines.cast_exact::<PyList>() {
        list.iter().try_for_each(|line| add(&line))?;
        list.len()
    } else {
        let tuple = lines.cast_exact::<PyTuple>().ok()?;
        tuple.iter_borrowed().try_for_each(|line| add(&line))?;
        tuple.len()
    };
    Some((count, total))
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
