//! `sock_recvfrom` and its kin: one datagram, and who sent it or is to have it.

use std::io;
use std::os::fd::RawFd;

use hotloop::driver::{Address, Direction, Driver, Outgoing};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Action, begin, scratch_for};
use crate::answers::argument;
use crate::event_loop::Loop;
use crate::ffi::{self, Call, Object, ReadBuffer, This, WriteBuffer};
use crate::peers::{self, Family};

/// What to do with a datagram when the socket is ready.
pub(super) enum Transfer {
    Receive { limit: usize },
    ReceiveInto { buffer: Object, limit: usize },
    Send { data: Object, to: Box<Address> },
}

impl Transfer {
    pub(super) fn direction(&self) -> Direction {
        match self {
            Self::Receive { .. } | Self::ReceiveInto { .. } => Direction::Read,
            Self::Send { .. } => Direction::Write,
        }
    }

    /// The object that it keeps.
    pub(super) fn held(&self) -> Option<&Object> {
        match self {
            Self::Receive { .. } => None,
            Self::ReceiveInto { buffer: held, .. } | Self::Send { data: held, .. } => Some(held),
        }
    }

    /// Does it, if it can be done at once.
    pub(super) fn perform<'py>(
        &self,
        event_loop: This<'_, 'py, Loop>,
        fd: RawFd,
    ) -> PyResult<io::Result<Bound<'py, PyAny>>> {
        let py = event_loop.py();
        match self {
            Self::Receive { limit } => {
                let mut scratch = scratch_for(event_loop, *limit)?;
                let received = event_loop
                    .engine()?
                    .driver_mut()
                    .receive_from(fd, &mut scratch[..*limit]);
                let received = received
                    .map(|(count, from)| (ffi::received_bytes(py, ffi::filled(&scratch[..count])), from));
                event_loop.return_scratch(scratch);
                answer(py, received)
            }
            Self::ReceiveInto { buffer, limit } => {
                let mut buffer = WriteBuffer::new(&buffer.bind(py))?;
                let room = buffer.as_mut_slice();
                let limit = (*limit).min(room.len());
                let received = event_loop
                    .engine()?
                    .driver_mut()
                    .receive_from(fd, &mut room[..limit]);
                drop(buffer);
                match received {
                    Ok((count, from)) => answer(py, Ok((count.into_pyobject(py)?.into_any(), from))),
                    Err(error) => Ok(Err(error)),
                }
            }
            Self::Send { data, to } => {
                let data = ReadBuffer::new(&data.bind(py))?;
                let datagram = Outgoing {
                    bytes: data.as_slice(),
                    to: Some(to),
                };
                let sent = event_loop.engine()?.driver_mut().send_datagrams(fd, &[datagram]);
                match sent {
                    Ok(_) => Ok(Ok(datagram.bytes.len().into_pyobject(py)?.into_any())),
                    Err(error) => Ok(Err(error)),
                }
            }
        }
    }
}

/// What was received and who sent it, as a tuple.
fn answer<'py>(
    py: Python<'py>,
    received: io::Result<(Bound<'py, PyAny>, Address)>,
) -> PyResult<io::Result<Bound<'py, PyAny>>> {
    let (what, from) = match received {
        Ok(received) => received,
        Err(error) => return Ok(Err(error)),
    };
    let from = peers::write(py, &from)?.unwrap_or_else(|| py.None().into_bound(py));
    Ok(Ok((what, from).into_pyobject(py)?.into_any()))
}

/// `_try_recvfrom(sock, nbytes)`: the bytes and the address of the sender, or a future for both.
pub(crate) fn try_recvfrom<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let (socket, limit) = (
        argument(&call, 0, "sock_recvfrom")?,
        argument(&call, 1, "sock_recvfrom")?,
    );
    let action = match (limit.extract(), is_known_datagram(&socket)?) {
        (Ok(limit), true) => Action::Datagram(Transfer::Receive { limit }),
        // The socket says what is wrong with the number.
        _ => Action::call(
            &socket.getattr(pyo3::intern!(py, "recvfrom"))?,
            (&*limit,).into_pyobject(py)?,
            Direction::Read,
        ),
    };
    begin(this, &call, action)
}

/// `_try_recvfrom_into(sock, buffer, nbytes)`: how many bytes and the address of the sender, or a future for both.
pub(crate) fn try_recvfrom_into<'py>(
    this: This<'_, 'py, Loop>,
    call: Call<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let [socket, buffer, limit] = [0, 1, 2].map(|index| argument(&call, index, "sock_recvfrom_into"));
    let (socket, buffer, limit) = (socket?, buffer?, limit?);
    let room = WriteBuffer::new(&buffer).map(|mut buffer| buffer.as_mut_slice().len());
    let action = match (room, limit.extract::<usize>()) {
        (Ok(room), Ok(limit)) if limit <= room && is_known_datagram(&socket)? => {
            let buffer = buffer.into();
            Action::Datagram(Transfer::ReceiveInto { buffer, limit })
        }
        _ => Action::call(
            &socket.getattr(pyo3::intern!(py, "recvfrom_into"))?,
            (&*buffer, &*limit).into_pyobject(py)?,
            Direction::Read,
        ),
    };
    begin(this, &call, action)
}

/// `_try_sendto(sock, data, address)`: how many bytes, or a future for that.
pub(crate) fn try_sendto<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let [socket, data, address] = [0, 1, 2].map(|index| argument(&call, index, "sock_sendto"));
    let (socket, data, address) = (socket?, data?, address?);
    let to = match Family::of(&socket)? {
        Some(family) if is_datagram(&socket)? && ReadBuffer::new(&data).is_ok() => family.read(&address),
        _ => None,
    };
    let action = match to {
        Some(to) => Action::Datagram(Transfer::Send {
            data: data.into(),
            to: Box::new(to),
        }),
        // A name, or what is wrong, is for the socket to find out.
        None => Action::call(
            &socket.getattr(pyo3::intern!(py, "sendto"))?,
            (&*data, &*address).into_pyobject(py)?,
            Direction::Write,
        ),
    };
    begin(this, &call, action)
}

/// `_try_call(sock, writing, method, *args)`: what the socket's method answers, or a future for it if the method would
/// block.
pub(crate) fn try_call<'py>(this: This<'_, 'py, Loop>, call: Call<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let writing = argument(&call, 1, "_try_call")?.is_truthy()?;
    let method = argument(&call, 2, "_try_call")?;
    let arguments = call.rest(3).into_bound(this.py()).cast_into::<PyTuple>()?;
    let direction = if writing {
        Direction::Write
    } else {
        Direction::Read
    };
    begin(this, &call, Action::call(&method, arguments, direction))
}

fn is_known_datagram(socket: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(Family::of(socket)?.is_some() && is_datagram(socket)?)
}

/// Whether a socket sends its bytes in one piece or not at all.
fn is_datagram(socket: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(peers::kind_of(socket)? == i32::try_from(rustix::net::SocketType::DGRAM.as_raw()).unwrap_or_default())
}
