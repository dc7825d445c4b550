//! Receiving: encrypted bytes in, plain text to the application's protocol.

use std::mem::MaybeUninit;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::session::{Read, Session};
use super::state::State;
use super::{It, Lower, Tls};
use crate::event_loop::Loop;
use crate::ffi::{self, This, WriteBuffer};
use crate::transports::{Kind, Protocol};

/// Plain text is read in pieces of this size, in bytes, where the loop has no buffer to lend: the most that one record
/// holds.
const RECORD: usize = 16 * 1024;

/// Takes received bytes in. [`advance`] then does what they lead to; the buffer is free before that.
///
/// # Errors
/// Out of memory.
pub(crate) fn absorb(this: This<'_, '_, Tls>, received: &[u8]) -> PyResult<()> {
    match this.session() {
        Some(session) => session.feed(this.py(), received),
        None => Ok(()),
    }
}

/// Goes on after bytes have come in, as asyncio's `buffer_updated` does.
///
/// # Errors
/// What asyncio's handshake and the application's protocol let through.
pub(crate) fn advance(this: This<'_, '_, Tls>) -> PyResult<()> {
    match this.state.get() {
        State::Wrapped => this.read(),
        State::Handshake => this.handshake(),
        State::Flushing => this.call("_do_flush").map(drop),
        State::Shutdown => this.call("_do_shutdown").map(drop),
        State::Unwrapped => Ok(()),
    }
}

impl<'py> It<'_, 'py> {
    /// Decrypts what has come in and tells the protocol; then sends what that has led to.
    pub(super) fn read(self) -> PyResult<()> {
        if !matches!(self.state.get(), State::Wrapped | State::Flushing) {
            return Ok(());
        }
        let outcome = if self.app_reading_paused.get() {
            Ok(())
        } else {
            self.drained.set(false);
            self.read_all().and_then(|()| self.answer())
        };
        // Most of the time nothing is left, and the transport below was never paused.
        let control = || {
            if self.drained.get() && !self.ssl_reading_paused.get() && !self.app_reading_paused.get() {
                Ok(())
            } else {
                self.control_reading()
            }
        };
        outcome
            .and_then(|()| control())
            .or_else(|error| self.fatal(error))
    }

    /// Lets the application read again, from the next turn on.
    pub(super) fn resume_reading(self) -> PyResult<()> {
        if self.app_reading_paused.replace(false) {
            self.schedule(pyo3::intern!(self.py(), "_resume"))?;
        }
        Ok(())
    }

    /// Pauses or resumes the transport below, by how much has come in and is not read.
    pub(super) fn control_reading(self) -> PyResult<()> {
        let py = self.py();
        let size = self.incoming_size()?;
        let [high, low] = self.incoming_marks.each_ref().map(std::cell::Cell::get);
        let name = if size >= high && !self.ssl_reading_paused.get() {
            self.ssl_reading_paused.set(true);
            pyo3::intern!(py, "pause_reading")
        } else if size <= low && self.ssl_reading_paused.get() {
            self.ssl_reading_paused.set(false);
            pyo3::intern!(py, "resume_reading")
        } else {
            return Ok(());
        };
        let transport = self.transport.borrow().as_ref().map(Lower::object).cloned();
        match transport {
            None => Ok(()),
            Some(transport) => ffi::call_method(&transport.bind(py), name, []).map(drop),
        }
    }

    pub(super) fn incoming_size(self) -> PyResult<usize> {
        self.session()
            .map_or(Ok(0), |session| session.incoming(self.py()))
    }

    /// Sends what reading has led to: what could not be encrypted before, and messages of TLS itself.
    fn answer(self) -> PyResult<()> {
        if self.backlog.borrow().is_empty() {
            self.process_outgoing()
        } else {
            self.write_backlog()
        }
    }

    fn read_all(self) -> PyResult<()> {
        let (Some(session), Some(protocol)) = (self.session(), self.protocol()) else {
            return Ok(());
        };
        let ended = match protocol.kind {
            Kind::Buffered => self.read_into(&session, &protocol)?,
            Kind::Plain | Kind::Reader | Kind::Tls => self.read_bytes(&session, &protocol)?,
        };
        if ended {
            self.call_eof_received()?;
            self.start_shutdown()?;
        }
        Ok(())
    }

    /// Reads all there is and hands it over. Answers whether the peer has ended its stream.
    fn read_bytes(self, session: &Session, protocol: &Protocol) -> PyResult<bool> {
        let event_loop = self.event_loop();
        let event_loop = event_loop.as_ref().map(|event_loop| event_loop.get(self.py()));
        loop {
            let mut scratch = match event_loop {
                Some(event_loop) => event_loop.take_scratch(),
                None => vec![MaybeUninit::uninit(); RECORD],
            };
            let outcome = self.read_piece(session, protocol, event_loop, &mut scratch);
            if let Some(event_loop) = event_loop {
                event_loop.return_scratch(scratch);
            }
            let (told, more) = outcome?;
            match told {
                Told::Done => {}
                Told::Call(bytes) => {
                    let name = pyo3::intern!(self.py(), "data_received");
                    ffi::call_method(&protocol.object.bind(self.py()), name, [&bytes])?;
                    if let Some(event_loop) = event_loop {
                        event_loop.messages().keep(bytes);
                    }
                }
                Told::Advance(inner) => inner.with(self.py(), advance)?,
            }
            match more {
                More::Nothing => return Ok(false),
                More::End => return Ok(true),
                // The buffer was too small. Whoever has had enough meanwhile gets the rest later.
                More::Rest => {
                    let open = matches!(self.state.get(), State::Wrapped | State::Flushing);
                    if self.app_reading_paused.get() || !open {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Reads as much as fits into the scratch buffer, and tells the protocol as far as no foreign code runs: that must
    /// wait until the buffer is back.
    fn read_piece(
        self,
        session: &Session,
        protocol: &Protocol,
        event_loop: Option<&Loop>,
        scratch: &mut [MaybeUninit<u8>],
    ) -> PyResult<(Told<'py>, More)> {
        let py = self.py();
        let mut filled = 0;
        let more = loop {
            if filled == scratch.len() {
                break More::Rest;
            }
            let room = scratch.len() - filled;
            match self.read_once(session, &mut scratch[filled..])? {
                Read::Bytes(count) => {
                    filled += count;
                    if count < room && session.is_drained(py)? {
                        self.drained.set(true);
                        break More::Nothing;
                    }
                }
                Read::Again => break More::Nothing,
                Read::End => break More::End,
            }
        };
        let filled = &scratch[..filled];
        if filled.is_empty() {
            return Ok((Told::Done, more));
        }
        let told = match protocol.kind {
            Kind::Reader if protocol.feed(py, filled)? => Told::Done,
            Kind::Tls => match Tls::of(&protocol.object) {
                Some(inner) => {
                    inner.with(py, |inner| absorb(inner, ffi::filled(filled)))?;
                    Told::Advance(inner)
                }
                None => Told::Done,
            },
            _ => {
                let filled = ffi::filled(filled);
                Told::Call(match event_loop {
                    Some(event_loop) => event_loop.messages().bytes(py, filled),
                    None => ffi::received_bytes(py, filled),
                })
            }
        };
        Ok((told, more))
    }

    fn read_once(self, session: &Session, room: &mut [MaybeUninit<u8>]) -> PyResult<Read> {
        let outer = self.busy.replace(true);
        let read = session.read(self.py(), room);
        self.busy.set(outer);
        read
    }

    /// Reads into the protocol's own buffer. Answers whether the peer has ended its stream.
    fn read_into(self, session: &Session, protocol: &Protocol) -> PyResult<bool> {
        let py = self.py();
        let object = protocol.object.bind(py);
        let hint = session.incoming(py)?.into_pyobject(py)?.into_any();
        let buffer = ffi::call_method(&object, pyo3::intern!(py, "get_buffer"), [&hint])?;
        let mut view = WriteBuffer::new(&buffer)?;
        let room = view.as_mut_slice();
        if room.is_empty() {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        let mut filled = 0;
        let mut ended = false;
        while filled < room.len() {
            let left = room.len() - filled;
            match self.read_once(session, &mut room[filled..])? {
                Read::Bytes(count) => {
                    filled += count;
                    if count < left && session.is_drained(py)? {
                        break;
                    }
                }
                Read::Again => break,
                Read::End => {
                    ended = true;
                    break;
                }
            }
        }
        let full = filled == room.len();
        drop(view);
        if full {
            // There may be more than the buffer has held.
            self.schedule(pyo3::intern!(py, "_do_read"))?;
        }
        if filled > 0 {
            let count = filled.into_pyobject(py)?.into_any();
            ffi::call_method(&object, pyo3::intern!(py, "buffer_updated"), [&count])?;
        }
        Ok(ended)
    }
}

/// What is left to do for the protocol once the scratch buffer is back.
enum Told<'py> {
    Done,
    /// `data_received` with these.
    Call(Bound<'py, PyAny>),
    /// A TLS connection within this one has taken bytes in.
    Advance(ffi::Instance<Tls>),
}

/// How a read has ended.
enum More {
    Nothing,
    /// The buffer is full.
    Rest,
    /// `close_notify`.
    End,
}
