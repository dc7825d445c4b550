//! Operations on files by io_uring: `FileRing`, which resolves asyncio's futures.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hotloop::driver::{self, FileDone, FileOp, OpenedFile, kind_of};
use pyo3::exceptions::PyOSError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::os_error;

/// What is read of a file whose size is not known, in bytes, at first.
const FIRST_READ: usize = 1 << 16;
/// What is read at a time at most.
const MOST_READ: usize = 1 << 30;

/// A ring for files, without a loop: whoever watches its descriptor calls `reap`.
#[pyclass(frozen, module = "hotloop._hotloop")]
pub(crate) struct FileRing {
    /// Never locked while Python code can run.
    ring: Mutex<driver::FileRing<Option<Waiting>>>,
}

/// Who waits for an operation, and for what.
struct Waiting {
    future: Py<PyAny>,
    /// What is told of the outcome where the future was cancelled; or None.
    landed: Py<PyAny>,
    wanted: Wanted,
}

/// What becomes of an operation's result.
enum Wanted {
    /// A descriptor, its `st_mode`, its size and that closing it may wait. Has the path, for errors.
    Opened(Py<PyAny>),
    /// The bytes that were read.
    Bytes,
    /// The bytes up to the end of the file, which is expected to be that far.
    All(usize),
    /// How many bytes were written.
    Count,
    /// Nothing.
    Done,
}

#[pymethods]
impl FileRing {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            ring: Mutex::new(driver::FileRing::new()?),
        })
    }

    fn fileno(&self) -> RawFd {
        self.ring().fd()
    }

    #[expect(clippy::too_many_arguments, reason = "what there is to say of an open")]
    fn open(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        path: Py<PyAny>,
        encoded: &[u8],
        flags: i32,
        mode: u32,
        now: bool,
    ) -> PyResult<()> {
        let op = FileOp::Open {
            path: CString::new(encoded)?,
            flags,
            mode,
        };
        self.begin(py, op, future, landed, Wanted::Opened(path), now)
    }

    #[expect(clippy::too_many_arguments, reason = "what there is to say of a read")]
    fn read(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        fd: RawFd,
        size: usize,
        offset: Option<u64>,
        now: bool,
    ) -> PyResult<()> {
        let op = FileOp::Read {
            fd,
            buffer: Vec::new(),
            size: size.min(MOST_READ),
            offset,
        };
        self.begin(py, op, future, landed, Wanted::Bytes, now)
    }

    fn read_all(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        fd: RawFd,
        expected: usize,
        now: bool,
    ) -> PyResult<()> {
        let op = FileOp::Read {
            fd,
            buffer: Vec::new(),
            // One more than there is: that fewer come says that this was the end.
            size: if expected == 0 {
                FIRST_READ
            } else {
                expected.min(MOST_READ) + 1
            },
            offset: None,
        };
        self.begin(py, op, future, landed, Wanted::All(expected), now)
    }

    #[expect(clippy::too_many_arguments, reason = "what there is to say of a write")]
    fn write(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        fd: RawFd,
        data: &[u8],
        offset: Option<u64>,
        now: bool,
    ) -> PyResult<()> {
        let op = FileOp::Write {
            fd,
            bytes: data.to_vec(),
            offset,
        };
        self.begin(py, op, future, landed, Wanted::Count, now)
    }

    fn fsync(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        fd: RawFd,
        now: bool,
    ) -> PyResult<()> {
        self.begin(py, FileOp::Sync { fd }, future, landed, Wanted::Done, now)
    }

    fn close(
        &self,
        py: Python<'_>,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        fd: RawFd,
        now: bool,
    ) -> PyResult<()> {
        self.begin(py, FileOp::Close { fd }, future, landed, Wanted::Done, now)
    }

    /// Tells of what is over.
    fn reap(&self, py: Python<'_>) {
        loop {
            let done = self.ring().take();
            let Some(done) = done else { return };
            self.finish(py, done);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Not to be had only while a call is under way, which holds what it is made for.
        let Ok(mut ring) = self.ring.try_lock() else {
            return Ok(());
        };
        for waiting in ring.tags().flatten() {
            visit.call(&waiting.future)?;
            visit.call(&waiting.landed)?;
            if let Wanted::Opened(path) = &waiting.wanted {
                visit.call(path)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let taken: Vec<_> = self.ring().tags().map(Option::take).collect();
        drop(taken);
    }
}

impl FileRing {
    fn ring(&self) -> MutexGuard<'_, driver::FileRing<Option<Waiting>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        &self,
        py: Python<'_>,
        op: FileOp,
        future: Py<PyAny>,
        landed: Py<PyAny>,
        wanted: Wanted,
        now: bool,
    ) -> PyResult<()> {
        let waiting = Waiting {
            future,
            landed,
            wanted,
        };
        let begun = self.ring().begin(op, Some(waiting));
        begun.map_err(|(error, _)| os_error(error))?;
        if now {
            self.reap(py);
        }
        Ok(())
    }

    fn finish(&self, py: Python<'_>, done: FileDone<Option<Waiting>>) {
        let FileDone {
            tag: Some(tag),
            op,
            result,
        } = done
        else {
            return; // the collector has taken it
        };
        let op = match again(op, &tag.wanted, &result) {
            Again::Over(op) => op,
            Again::More(op) => {
                let begun = self.ring().begin(op, Some(tag));
                if let Err((error, Some(tag))) = begun {
                    tell(py, &tag, Err(os_error(error)));
                }
                return;
            }
        };
        let outcome = outcome(py, op, &tag.wanted, result);
        tell(py, &tag, outcome);
    }
}

/// Whether an operation goes on: after a signal, or because there may be more to read.
fn again(op: FileOp, wanted: &Wanted, result: &io::Result<u32>) -> Again {
    match (op, wanted, result) {
        (op, _, Err(error)) if error.kind() == io::ErrorKind::Interrupted => Again::More(op),
        (
            FileOp::Read {
                fd,
                buffer,
                size,
                offset,
            },
            Wanted::All(expected),
            Ok(count),
        ) => {
            let short = (*count as usize) < size;
            let over = *count == 0 || (short && buffer.len() == *expected);
            let size = if over {
                size
            } else {
                buffer.len().clamp(FIRST_READ, MOST_READ)
            };
            let op = FileOp::Read {
                fd,
                buffer,
                size,
                offset,
            };
            if over { Again::Over(op) } else { Again::More(op) }
        }
        (op, ..) => Again::Over(op),
    }
}

/// What becomes of an operation that has a result.
enum Again {
    Over(FileOp),
    More(FileOp),
}

/// The result of an operation as Python has it.
fn outcome(py: Python<'_>, op: FileOp, wanted: &Wanted, result: io::Result<u32>) -> PyResult<Py<PyAny>> {
    let count = match (result, wanted, &op) {
        (Ok(count), ..) => count,
        (Err(error), Wanted::All(_), FileOp::Read { buffer, .. })
            if error.kind() == io::ErrorKind::WouldBlock =>
        {
            return Ok(match buffer.is_empty() {
                true => py.None(),
                false => PyBytes::new(py, buffer).into_any().unbind(),
            });
        }
        (Err(error), Wanted::Opened(path), _) => {
            let plain = os_error(error);
            let arguments = plain.value(py).getattr(intern!(py, "args"))?;
            let (number, text): (i32, String) = arguments.extract()?;
            return Err(PyOSError::new_err((number, text, path.clone_ref(py))));
        }
        (Err(error), ..) => return Err(os_error(error)),
    };
    Ok(match (wanted, op) {
        (Wanted::Opened(_), _) => {
            let fd = count as RawFd;
            let (mode, size) = kind_of(fd).map_err(os_error)?;
            (fd, mode, size, false).into_pyobject(py)?.into_any().unbind()
        }
        (Wanted::Count, _) => count.into_pyobject(py)?.into_any().unbind(),
        (_, FileOp::Read { buffer, .. }) => PyBytes::new(py, &buffer).into_any().unbind(),
        _ => py.None(),
    })
}

/// Resolves the future; where it was cancelled, tells `landed`.
fn tell(py: Python<'_>, waiting: &Waiting, outcome: PyResult<Py<PyAny>>) {
    let told = (|| {
        let future = waiting.future.bind(py);
        if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
            return match outcome {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,)),
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),)),
            }
            .map(drop);
        }
        let landed = waiting.landed.bind(py);
        if landed.is_none() {
            return Ok(());
        }
        match outcome {
            Ok(value) => landed.call1((value, py.None())),
            Err(error) => landed.call1((py.None(), error.into_value(py))),
        }
        .map(drop)
    })();
    if let Err(error) = told {
        error.write_unraisable(py, Some(waiting.future.bind(py)));
    }
}

/// Opens a regular file without waiting: its descriptor, its `st_mode`, its size, and whether closing it waits for nobody. None
/// where that cannot be done at once, whyever.
#[pyfunction]
fn open_cached(path: &Bound<'_, PyAny>, flags: i32) -> PyResult<Option<(RawFd, u32, u64, bool)>> {
    let path = match path.cast::<PyBytes>() {
        Ok(path) => path.as_bytes().to_vec(),
        Err(_) => path.extract::<OsString>()?.into_vec(),
    };
    let Ok(path) = CString::new(path) else {
        return Ok(None);
    };
    let opened = driver::open_cached(&path, flags);
    Ok(opened.map(|file: OpenedFile| (file.fd, file.mode, file.size, file.local)))
}

/// Reads a regular file from its position to its end without waiting. None where that is not `expected` bytes away, or cannot be
/// done at once.
#[pyfunction]
fn read_cached(py: Python<'_>, fd: RawFd, expected: usize) -> Option<Bound<'_, PyBytes>> {
    driver::read_cached(fd, expected).map(|read| PyBytes::new(py, &read))
}

/// Adds the class and the functions to the module.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(open_cached, module)?)?;
    module.add_function(wrap_pyfunction!(read_cached, module)?)?;
    module.add_class::<FileRing>()
}
