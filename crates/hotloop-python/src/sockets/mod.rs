//! `sock_recv` and its kin: try the call, else wait for the socket and a future.

mod datagrams;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use hotloop::driver::{Direction, Driver};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytesMethods, PyMemoryView, PyTuple, PyType};

use self::datagrams::Transfer;
pub(crate) use self::datagrams::{try_call, try_recvfrom, try_recvfrom_into, try_sendto};
use crate::answers::{argument, bool_object, none};
use crate::dispatch::is_fatal;
use crate::errors::{is_transient, os_error, would_block};
use crate::event_loop::Loop;
use crate::ffi::{
    self, Call, Class, ClassBuilder, Instance, Layout, Object, ReadBuffer, This, Visit, WriteBuffer,
};
use crate::handles::Scheduled;
use crate::modules::SOCKET;

/// One call of a `sock_*` method that had to wait. It stands where a watcher's handle does.
pub(crate) struct SocketOperation {
    fd: RawFd,
    action: Action,
    /// The socket, so that its descriptor stays open while it is waited on. Dropped when the operation is over.
    socket: RefCell<Option<Object>>,
    /// Resolved when the operation is over; `None` from then on.
    future: RefCell<Option<Object>>,
}

/// What to do when the socket is ready.
enum Action {
    Receive {
        limit: usize,
    },
    ReceiveInto {
        buffer: Object,
    },
    Send {
        data: Object,
        sent: Cell<usize>,
    },
    /// Bytes of a file, without their going through this process.
    SendFile {
        file: RawFd,
        /// Where in the file it began.
        start: i64,
        /// How many bytes it is to be; 0 for the rest of the file.
        count: usize,
        /// How many bytes to ask the kernel for at once.
        block: usize,
        /// A list whose one item says how many bytes were sent.
        progress: Object,
        sent: Cell<usize>,
    },
    /// Receive or send one datagram.
    Datagram(Transfer),
    /// Call a method of the socket's own, which knows every family and every option.
    Call {
        method: Object,
        arguments: Object,
        direction: Direction,
    },
    /// Look how a connection to the address went.
    Connect {
        address: Object,
    },
}

type It<'a, 'py> = This<'a, 'py, SocketOperation>;

static CLASS: OnceLock<Object> = OnceLock::new();

impl Class for SocketOperation {
    const NAME: &'static std::ffi::CStr = c"hotloop._hotloop.SocketOperation";
    const ASYNCIO_NAME: &'static str = "Handle";

    fn layout() -> &'static Layout {
        static LAYOUT: Layout = Layout::new();
        &LAYOUT
    }

    fn traverse(&self, visit: &mut Visit) {
        visit.objects(self.socket.borrow().iter().chain(self.future.borrow().iter()));
        match &self.action {
            Action::ReceiveInto { buffer: held }
            | Action::Send { data: held, .. }
            | Action::SendFile { progress: held, .. }
            | Action::Connect { address: held } => visit.object(held),
            Action::Call {
                method, arguments, ..
            } => visit.objects([method, arguments]),
            Action::Datagram(transfer) => visit.objects(transfer.held()),
            Action::Receive { .. } => {}
        }
    }

    fn clear(&self) {
        self.socket.take();
        self.future.take();
    }
}

/// Makes the class and adds it to the module.
///
/// # Errors
/// What CPython raises if the class cannot be.
pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let base = module
        .py()
        .import("builtins")?
        .getattr("object")?
        .cast_into::<PyType>()?;
    let class = ClassBuilder::<SocketOperation>::new()
        .no_args(
            c"cancel",
            c"cancel($self, /)\n--\n\nForget the operation.",
            cancel,
        )
        .no_args(
            c"cancelled",
            c"cancelled($self, /)\n--\n\nWhether the operation is over.",
            cancelled,
        )
        .getter(c"_cancelled", c"Whether the operation is over.", |this| {
            let over = this.future.borrow().is_none();
            bool_object(this.py(), over)
        })
        .build(&base, &[], true)?;
    module.add("SocketOperation", &class)?;
    CLASS.get_or_init(|| class.into_any().into());
    Ok(())
}

/// Whether a handle is an operation, and whether that is over: then its watcher only waits to be used again.
#[inline]
pub(crate) fn is_operation(handle: &Object) -> bool {
    CLASS.get().is_some_and(|class| ffi::same_type(handle, class))
}

/// Goes on with an operation whose socket is ready.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of what the future's resolution runs.
pub(crate) fn run(event_loop: This<'_, '_, Loop>, handle: &Object) -> PyResult<()> {
    let py = event_loop.py();
    Instance::<SocketOperation>::from_class(handle, CLASS.get()).map_or(Ok(()), |operation| {
        operation.with(py, |this| this.advance(event_loop))
    })
}

/// `_try_recv(sock, nbytes)`: the bytes, or a future for them; `None` if the socket [is not plain](is_plain).
pub(crate) fn try_recv<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    if !is_plain(this, &call)? {
        return none(this.py());
    }
    let limit = argument(&call, 1, "sock_recv")?;
    match limit.extract::<usize>() {
        Ok(limit) => begin(this, &call, Action::Receive { limit }),
        // The socket says what is wrong with the number.
        Err(_) => argument(&call, 0, "sock_recv")?.call_method1(pyo3::intern!(this.py(), "recv"), (&*limit,)),
    }
}

/// `_try_recv_into(sock, buffer)`: how many bytes, or a future for that; `None` if the socket [is not plain](is_plain).
pub(crate) fn try_recv_into<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if !is_plain(this, &call)? {
        return none(this.py());
    }
    let buffer = argument(&call, 1, "sock_recv_into")?;
    if WriteBuffer::new(&buffer).is_err() {
        let socket = argument(&call, 0, "sock_recv_into")?;
        return socket.call_method1(pyo3::intern!(this.py(), "recv_into"), (&*buffer,));
    }
    let buffer = buffer.into();
    begin(this, &call, Action::ReceiveInto { buffer })
}

/// `_try_sendall(sock, data)`: `True`, or a future for the end of it; `None` if the socket [is not plain](is_plain).
pub(crate) fn try_sendall<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if !is_plain(this, &call)? {
        return none(this.py());
    }
    let data = argument(&call, 1, "sock_sendall")?;
    if ReadBuffer::new(&data).is_err() {
        let socket = argument(&call, 0, "sock_sendall")?;
        return socket.call_method1(pyo3::intern!(this.py(), "send"), (&*data,));
    }
    let data = data.into();
    let sent = Cell::new(0);
    let outcome = begin(this, &call, Action::Send { data, sent })?;
    // What was begun and is over has no outcome; what waits is a future.
    if outcome.is_none() {
        bool_object(this.py(), true)
    } else {
        Ok(outcome)
    }
}

/// `_try_sendfile(sock, file, offset, count, block, progress)`: a future for the number of bytes of a file that were
/// sent, or that number where nothing was to be sent. `progress` is a list; its one item says it meanwhile.
pub(crate) fn try_sendfile<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let at = |index| argument(&call, index, "sock_sendfile");
    let action = Action::SendFile {
        file: at(1)?.extract()?,
        start: at(2)?.extract()?,
        count: at(3)?.extract()?,
        block: at(4)?.extract()?,
        progress: at(5)?.into(),
        sent: Cell::new(0),
    };
    begin(this, &call, action)
}

/// `_wait_connected(sock, address)`: a future for the end of a connection attempt that is under way.
pub(crate) fn wait_connected<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let address = argument(&call, 1, "sock_connect")?.into();
    let (socket, fd) = socket(&call)?;
    wait(this, &socket, fd, Action::Connect { address })
}

/// A future for the end of a connection attempt on a descriptor, which `owner` keeps open.
///
/// # Errors
/// That the descriptor is in use by a transport; the kernel's.
pub(crate) fn wait_for_connection<'py>(
    this: This<'_, 'py, Loop>,
    owner: &Bound<'py, PyAny>,
    fd: RawFd,
    address: Object,
) -> PyResult<Bound<'py, PyAny>> {
    wait(this, owner, fd, Action::Connect { address })
}

/// `_forget_operation(sock)`: stops waiting for what was begun on a socket and given up.
pub(crate) fn forget<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (_, fd) = socket(&call)?;
    for direction in [Direction::Read, Direction::Write] {
        let watcher = this.engine()?.watcher(fd, direction).cloned();
        let given_up = watcher
            .as_ref()
            .and_then(Scheduled::handle)
            .and_then(|watcher| Instance::<SocketOperation>::from_class(watcher, CLASS.get()));
        if given_up.is_some_and(|operation| operation.get(py).is_given_up(py)) {
            let dropped = this.engine()?.unwatch(fd, direction);
            drop(dropped);
        }
    }
    none(py)
}

/// Whether a socket is one of the standard library's own class, and the loop open and not in debug mode. What asyncio
/// checks, refuses or does otherwise is left to it.
fn is_plain(this: This<'_, '_, Loop>, call: &Call<'_, '_>) -> PyResult<bool> {
    let socket = argument(call, 0, "sock")?;
    let class = SOCKET.get(this.py(), pyo3::intern!(this.py(), "socket"))?;
    Ok(socket.get_type_ptr().cast() == class.as_ptr() && !this.is_debug() && this.check_closed().is_ok())
}

fn socket<'a, 'py>(call: &Call<'a, 'py>) -> PyResult<(Borrowed<'a, 'py, PyAny>, RawFd)> {
    let socket = argument(call, 0, "sock")?;
    let fd = ffi::call_method(&socket, pyo3::intern!(socket.py(), "fileno"), [])?.extract()?;
    Ok((socket, fd))
}

/// Does an action at once if the socket is ready, else answers a future for it.
fn begin<'py>(
    this: This<'_, 'py, Loop>,
    call: &Call<'_, 'py>,
    action: Action,
) -> PyResult<Bound<'py, PyAny>> {
    let (socket, fd) = socket(call)?;
    match action.perform(this, fd)? {
        Some(result) => Ok(result),
        None => wait(this, &socket, fd, action.held(this.py())?),
    }
}

fn wait<'py>(
    this: This<'_, 'py, Loop>,
    socket: &Bound<'py, PyAny>,
    fd: RawFd,
    action: Action,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    // A transport's socket is the transport's alone.
    this.ensure_no_transport(fd)?;
    this.check_closed()?;
    let future = ffi::call_method(this.object(), pyo3::intern!(py, "create_future"), [])?;
    let class = CLASS
        .get()
        .ok_or_else(|| PyTypeError::new_err("the module is not imported"))?;
    let direction = action.direction();
    let operation = Instance::new(
        &class.bind(py).cast::<PyType>()?.to_owned(),
        SocketOperation {
            fd,
            action,
            socket: RefCell::new(Some(socket.into())),
            future: RefCell::new(Some((&future).into())),
        },
    )?;
    let replaced = this
        .engine()?
        .watch(fd, direction, operation.object().clone().into())
        .map_err(os_error)?;
    if let Some(replaced) = replaced.and_then(Scheduled::into_handle) {
        replaced.bind(py).call_method0(pyo3::intern!(py, "cancel"))?;
    }
    Ok(future)
}

impl Action {
    fn call(method: &Bound<'_, PyAny>, arguments: Bound<'_, PyTuple>, direction: Direction) -> Self {
        Self::Call {
            method: method.into(),
            arguments: arguments.into_any().into(),
            direction,
        }
    }

    fn direction(&self) -> Direction {
        match self {
            Self::Receive { .. } | Self::ReceiveInto { .. } => Direction::Read,
            Self::Send { .. } | Self::SendFile { .. } | Self::Connect { .. } => Direction::Write,
            Self::Datagram(transfer) => transfer.direction(),
            Self::Call { direction, .. } => *direction,
        }
    }

    /// The action as it waits: what is being sent cannot be resized meanwhile, as under asyncio's memoryview of it.
    fn held(self, py: Python<'_>) -> PyResult<Self> {
        Ok(match self {
            Self::Send { data, sent } => Self::Send {
                data: PyMemoryView::from(&data.bind(py))?.into_any().into(),
                sent,
            },
            other => other,
        })
    }

    /// Does it, if it can be done at once.
    fn perform<'py>(
        &self,
        event_loop: This<'_, 'py, Loop>,
        fd: RawFd,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = event_loop.py();
        let outcome = match self {
            Self::Receive { limit } if event_loop.receives_long(*limit) => {
                let receive = |room: &mut [_]| Ok(event_loop.engine()?.driver_mut().receive(fd, room));
                let data = ffi::receive_bytes(py, *limit, receive)?;
                data.map(|data| {
                    event_loop.note_received(data.as_bytes().len());
                    data.into_any()
                })
            }
            Self::Receive { limit } => {
                let mut scratch = scratch_for(event_loop, *limit)?;
                let received = event_loop
                    .engine()?
                    .driver_mut()
                    .receive(fd, &mut scratch[..*limit]);
                let data = received.map(|count| {
                    event_loop.note_received(count);
                    ffi::received_bytes(py, ffi::filled(&scratch[..count]))
                });
                event_loop.return_scratch(scratch);
                data
            }
            Self::ReceiveInto { buffer } => {
                let mut buffer = WriteBuffer::new(&buffer.bind(py))?;
                let received = event_loop
                    .engine()?
                    .driver_mut()
                    .receive(fd, buffer.as_mut_slice());
                drop(buffer);
                match received {
                    Ok(count) => Ok(count.into_pyobject(py)?.into_any()),
                    Err(error) => Err(error),
                }
            }
            Self::Send { data, sent } => {
                let data = ReadBuffer::new(&data.bind(py))?;
                let rest = data.as_slice().get(sent.get()..).unwrap_or_default();
                match event_loop.engine()?.driver_mut().send(fd, &[IoSlice::new(rest)]) {
                    Ok(count) if count == rest.len() => Ok(py.None().into_bound(py)),
                    Ok(count) => {
                        sent.set(sent.get() + count);
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    Err(error) => Err(error),
                }
            }
            Self::SendFile {
                file,
                start,
                count,
                block,
                progress,
                sent,
            } => {
                let done = sent.get();
                let block = if *count > 0 { *count - done } else { *block };
                if block == 0 {
                    return Ok(Some(done.into_pyobject(py)?.into_any()));
                }
                // Past the end of a file that is larger than can be: the kernel says so.
                let offset = start.saturating_add_unsigned(done as u64);
                match hotloop::driver::send_file(fd, *file, offset, block) {
                    Ok(0) => Ok(done.into_pyobject(py)?.into_any()),
                    Ok(more) => {
                        sent.set(done + more);
                        progress.bind(py).set_item(0, done + more)?;
                        Err(io::ErrorKind::WouldBlock.into())
                    }
                    Err(error) => Err(error),
                }
            }
            Self::Datagram(transfer) => transfer.perform(event_loop, fd)?,
            Self::Call {
                method, arguments, ..
            } => return called(py, ffi::call_tuple(py, method, arguments)),
            Self::Connect { address } => return connected(py, fd, address).map(Some),
        };
        match outcome {
            Ok(result) => Ok(Some(result)),
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(os_error(error)),
        }
    }
}

/// The loop's scratch buffer, of at least `limit` bytes.
fn scratch_for(event_loop: This<'_, '_, Loop>, limit: usize) -> PyResult<Vec<MaybeUninit<u8>>> {
    let mut scratch = event_loop.take_scratch();
    if scratch.len() < limit {
        let more = limit - scratch.len();
        if scratch.try_reserve_exact(more).is_err() {
            event_loop.return_scratch(scratch);
            return Err(PyMemoryError::new_err(()));
        }
        scratch.resize(limit, MaybeUninit::uninit());
    }
    Ok(scratch)
}

/// What a call of the socket's own has come to; nothing if it would block.
fn called<'py>(py: Python<'py>, outcome: PyResult<Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match outcome {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if would_block(py, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a connection attempt went.
fn connected<'py>(py: Python<'py>, fd: RawFd, address: &Object) -> PyResult<Bound<'py, PyAny>> {
    match hotloop::driver::take_error(fd).map_err(os_error)? {
        None => none(py),
        Some(error) => {
            let text = format!("Connect call failed {}", address.bind(py).str()?);
            Err(PyOSError::new_err((error.raw_os_error().unwrap_or(0), text)))
        }
    }
}

impl<'py> It<'_, 'py> {
    fn advance(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let py = self.py();
        if self.future.borrow().is_none() || self.is_given_up(py) {
            // The watcher was left in place for the next operation, but something else came in.
            return self.unwatch(event_loop);
        }
        let outcome = match self.action.perform(event_loop, self.fd) {
            Ok(None) => return Ok(()),
            Ok(Some(result)) => Ok(result),
            Err(error) if is_fatal(py, &error) => return Err(error),
            Err(error) => Err(error),
        };
        // Writers are ready most of the time: their watchers are not worth keeping.
        if self.action.direction() == Direction::Write {
            self.unwatch(event_loop)?;
        }
        drop(self.socket.take());
        let Some(future) = self.future.take() else {
            return Ok(());
        };
        let future = future.bind(py);
        match outcome {
            Ok(result) => ffi::call_method(&future, pyo3::intern!(py, "set_result"), [&result]),
            Err(error) => {
                let error = error.into_value(py).into_bound(py).into_any();
                ffi::call_method(&future, pyo3::intern!(py, "set_exception"), [&error])
            }
        }?;
        Ok(())
    }

    fn unwatch(self, event_loop: This<'_, 'py, Loop>) -> PyResult<()> {
        let mut engine = event_loop.engine()?;
        let direction = self.action.direction();
        let is_ours = engine
            .watcher(self.fd, direction)
            .and_then(Scheduled::handle)
            .is_some_and(|watcher| watcher.is(self.object()));
        let dropped = if is_ours {
            engine.unwatch(self.fd, direction)
        } else {
            None
        };
        drop(engine);
        drop(dropped);
        Ok(())
    }
}

impl SocketOperation {
    /// Whether nobody waits any more: the future was cancelled.
    fn is_given_up(&self, py: Python<'_>) -> bool {
        let future = self.future.borrow().clone();
        future.is_none_or(|future| {
            ffi::call_method(&future.bind(py), pyo3::intern!(py, "done"), [])
                .and_then(|done| done.is_truthy())
                .unwrap_or(true)
        })
    }
}

fn cancel<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    drop((this.future.take(), this.socket.take()));
    none(this.py())
}

fn cancelled<'py>(this: It<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let over = this.future.borrow().is_none();
    bool_object(this.py(), over)
}
