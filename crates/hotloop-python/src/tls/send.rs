//! Sending: plain text of the application in, encrypted bytes to the transport below; and flow control.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::session::Session;
use super::state::State;
use super::{It, Lower, Tls};
use crate::dispatch::is_fatal;
use crate::ffi::{self, Bytes, Instance, This};
use crate::modules::REPORTS;
use crate::transports::SocketTransport;

/// The most that one TLS record holds, in bytes: what is gathered beyond it would make a second record anyway.
const RECORD: usize = 16 * 1024;

/// How much is encrypted before it is handed to the transport below, in bytes: enough for few system calls, little
/// enough to stay in the processor's cache on its way.
const PIECE: usize = 8 * RECORD;

/// After so many writes to a lost connection each further one is logged (asyncio's
/// `LOG_THRESHOLD_FOR_CONNLOST_WRITES`).
const LOG_THRESHOLD: u32 = 5;

/// The end of a turn in which a connection has gathered bytes.
///
/// # Errors
/// `SystemExit` and `KeyboardInterrupt` of a protocol that is told to pause.
pub(crate) fn flush(this: This<'_, '_, Tls>) -> PyResult<()> {
    if this.state.get() == State::Unwrapped {
        // It was aborted meanwhile.
        this.forget_queued();
        return Ok(());
    }
    this.write_backlog().or_else(|error| this.fatal(error))
}

impl<'py> It<'_, 'py> {
    /// Encrypts and sends bytes of the application, or queues them. `own` makes an owned copy.
    pub(super) fn write(self, plain: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        match self.state.get() {
            State::Handshake | State::Wrapped => {}
            State::Flushing | State::Shutdown | State::Unwrapped => return self.write_to_lost(),
        }
        if plain.is_empty() {
            return Ok(());
        }
        let event_loop = self.event_loop();
        // A wrong thread is told so before anything is encrypted.
        let turn = event_loop
            .as_ref()
            .map_or(Ok(0), |event_loop| event_loop.get(self.py()).turn())?;
        self.write_in(turn, plain, own).or_else(|error| self.fatal(error))
    }

    fn write_in(self, turn: u64, plain: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        let wrapped = self.state.get() == State::Wrapped;
        if !wrapped
            || self.busy.get()
            || self.ssl_writing_paused.get()
            || !self.backlog.borrow().is_empty()
            || plain.len() > PIECE
        {
            self.queue(own());
            return if wrapped && !self.busy.get() {
                self.write_backlog()
            } else {
                Ok(())
            };
        }
        if turn == 0 || self.written_in.get() != turn {
            self.written_in.set(turn);
            return self.write_now(plain, own);
        }
        let gathered = self.gathered.borrow().len();
        let together = gathered + plain.len();
        if together > RECORD || together >= self.outgoing_marks[0].get() {
            self.queue(own());
            return self.write_backlog();
        }
        self.gathered.borrow_mut().extend_from_slice(plain);
        if gathered == 0
            && let Some(event_loop) = self.event_loop()
        {
            event_loop.get(self.py()).flush_later(Instance::of(self));
        }
        Ok(())
    }

    /// Encrypts and sends without a detour. Nothing is queued.
    fn write_now(self, plain: &[u8], own: impl FnOnce() -> Bytes) -> PyResult<()> {
        let Some(session) = self.session() else {
            return Ok(());
        };
        self.busy.set(true);
        let taken = session.write(self.py(), plain);
        self.busy.set(false);
        let taken = taken?.unwrap_or(0);
        if taken < plain.len() {
            // What a callback of the user's context has written meanwhile belongs behind it.
            self.backlog.borrow_mut().push_front(own());
            self.encrypted.set(taken);
            self.backlog_size
                .set(self.backlog_size.get() + plain.len() - taken);
            return self.process_outgoing();
        }
        self.hand_down(&session)?;
        if self.backlog.borrow().is_empty() {
            self.control_writing(Some(0))
        } else {
            self.write_backlog()
        }
    }

    /// Appends to what waits, behind what was gathered before.
    pub(super) fn queue(self, plain: Bytes) {
        self.queue_gathered();
        self.backlog_size
            .set(self.backlog_size.get() + plain.as_ref().len());
        self.backlog.borrow_mut().push_back(plain);
    }

    fn queue_gathered(self) {
        if self.gathered.borrow().is_empty() {
            return;
        }
        let gathered = self.gathered.take();
        let bytes = Bytes::new(&PyBytes::new(self.py(), &gathered));
        self.backlog_size.set(self.backlog_size.get() + gathered.len());
        self.backlog.borrow_mut().push_back(bytes);
    }

    /// Encrypts what waits, as long as the transport below takes it, or all of it where the connection is ending.
    pub(super) fn write_backlog(self) -> PyResult<()> {
        if self.busy.get() {
            return Ok(());
        }
        self.queue_gathered();
        let encrypted = self.encrypt_backlog();
        self.busy.set(false);
        encrypted?;
        self.process_outgoing()
    }

    fn encrypt_backlog(self) -> PyResult<()> {
        let py = self.py();
        let Some(session) = self.session() else {
            return Ok(());
        };
        let ending = matches!(self.state.get(), State::Flushing | State::Shutdown);
        if self.state.get() != State::Wrapped && !ending {
            return Ok(());
        }
        self.busy.set(true);
        while ending || !self.ssl_writing_paused.get() {
            let Some(piece) = self.next_piece() else {
                return Ok(());
            };
            let taken = match &piece {
                Piece::Part(bytes, start, end) => session.write(py, &bytes.as_ref()[*start..*end])?,
                Piece::Joined(bytes) => session.write(py, bytes)?,
            };
            let Some(taken) = taken else { return Ok(()) };
            self.advance_backlog(taken);
            self.hand_down(&session)?;
        }
        Ok(())
    }

    /// What to encrypt next: a part of one large write, or several small ones joined.
    fn next_piece(self) -> Option<Piece> {
        let backlog = self.backlog.borrow();
        let start = self.encrypted.get();
        let first = backlog.front()?;
        let length = first.as_ref().len();
        if length - start >= RECORD || backlog.len() == 1 {
            let end = length.min(start + PIECE);
            return Some(Piece::Part(first.clone(), start, end));
        }
        let mut joined = Vec::with_capacity(RECORD);
        joined.extend_from_slice(&first.as_ref()[start..]);
        for bytes in backlog.iter().skip(1) {
            let bytes = bytes.as_ref();
            let part = bytes.len().min(RECORD - joined.len());
            joined.extend_from_slice(&bytes[..part]);
            if joined.len() == RECORD {
                break;
            }
        }
        Some(Piece::Joined(joined))
    }

    fn advance_backlog(self, mut taken: usize) {
        self.backlog_size
            .set(self.backlog_size.get().saturating_sub(taken));
        let mut done = Vec::new();
        let mut backlog = self.backlog.borrow_mut();
        while let Some(first) = backlog.front() {
            let left = first.as_ref().len() - self.encrypted.get();
            if taken < left {
                self.encrypted.set(self.encrypted.get() + taken);
                break;
            }
            taken -= left;
            self.encrypted.set(0);
            done.extend(backlog.pop_front());
        }
        drop(backlog);
        drop(done);
    }

    /// Drops what waits.
    pub(super) fn forget_queued(self) {
        self.backlog_size.set(0);
        self.encrypted.set(0);
        self.gathered.take();
        let dropped = self.backlog.take();
        drop(dropped);
    }

    /// Hands encrypted bytes down unless the transport below has asked to wait; then pauses or resumes the application.
    pub(super) fn process_outgoing(self) -> PyResult<()> {
        let Some(session) = self.session() else {
            return Ok(());
        };
        let mut pending = session.outgoing(self.py())?;
        if pending > 0 && !self.ssl_writing_paused.get() {
            self.hand_down(&session)?;
            pending = 0;
        }
        self.control_writing(Some(pending))
    }

    /// Hands all encrypted bytes to the transport below.
    pub(super) fn send_outgoing(self) -> PyResult<()> {
        match self.session() {
            Some(session) if session.outgoing(self.py())? > 0 => self.hand_down(&session),
            _ => Ok(()),
        }
    }

    fn hand_down(self, session: &Session) -> PyResult<()> {
        let py = self.py();
        let transport = self.transport.borrow().clone();
        let Some(transport) = transport else { return Ok(()) };
        let bytes = session.drain(py)?;
        match (transport, bytes.cast_exact::<PyBytes>()) {
            (Lower::Socket(socket), Ok(bytes)) => {
                socket.with(py, |socket| SocketTransport::write_bytes(socket, bytes))
            }
            (transport, _) => {
                let name = pyo3::intern!(py, "write");
                ffi::call_method(&transport.object().bind(py), name, [&bytes]).map(drop)
            }
        }
    }

    /// The transport below has room again.
    pub(super) fn resume_writing(self) -> PyResult<()> {
        self.ssl_writing_paused.set(false);
        if self.backlog.borrow().is_empty() {
            return self.process_outgoing();
        }
        // What is encrypted already comes first.
        self.send_outgoing()?;
        self.write_backlog().or_else(|error| self.fatal(error))
    }

    /// How much waits to be sent, here and below.
    pub(super) fn queued(self) -> PyResult<usize> {
        let here = self.backlog_size.get() + self.gathered.borrow().len();
        let Some(session) = self.session() else {
            return Ok(here);
        };
        Ok(here + session.outgoing(self.py())? + self.queued_below()?)
    }

    fn queued_below(self) -> PyResult<usize> {
        let py = self.py();
        let transport = self.transport.borrow().clone();
        match transport {
            None => Ok(0),
            Some(Lower::Socket(socket)) => socket.with(py, SocketTransport::queued),
            Some(Lower::Other(other)) => {
                let name = pyo3::intern!(py, "get_write_buffer_size");
                ffi::call_method(&other.bind(py), name, [])?.extract()
            }
        }
    }

    /// Tells the protocol to pause or to resume. `pending` is what is encrypted and not handed down, where that is
    /// known.
    pub(super) fn control_writing(self, pending: Option<usize>) -> PyResult<()> {
        let pending = match (pending, self.session()) {
            (Some(pending), _) => pending,
            (None, Some(session)) => session.outgoing(self.py())?,
            (None, None) => 0,
        };
        let mut size = self.backlog_size.get() + self.gathered.borrow().len() + pending;
        // What waits below counts while the transport there is paused: only then is news of its room sure to come.
        if self.ssl_writing_paused.get() {
            size += self.queued_below()?;
        }
        let [high, low] = self.outgoing_marks.each_ref().map(std::cell::Cell::get);
        if size >= high && size > 0 && !self.app_writing_paused.get() {
            self.app_writing_paused.set(true);
            self.tell_flow("pause_writing")
        } else if size <= low && self.app_writing_paused.get() {
            self.app_writing_paused.set(false);
            self.tell_flow("resume_writing")
        } else {
            Ok(())
        }
    }

    /// Tells the protocol to pause or resume; what it raises is reported, not passed on.
    fn tell_flow(self, name: &str) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let name = PyString::intern(py, name);
        let Err(error) = ffi::call_method(&protocol.object.bind(py), &name, []) else {
            return Ok(());
        };
        if is_fatal(py, &error) {
            return Err(error);
        }
        REPORTS
            .module(py)?
            .call_method1(
                "tls_flow_control_failed",
                (self.object(), error.into_value(py), name),
            )
            .map(drop)
    }

    #[cold]
    fn write_to_lost(self) -> PyResult<()> {
        let lost = self.lost.get();
        if lost >= LOG_THRESHOLD {
            REPORTS.module(self.py())?.call_method0("write_to_lost_tls")?;
        }
        self.lost.set(lost + 1);
        Ok(())
    }

    /// Calls a method of this protocol on the next turn.
    pub(super) fn schedule(self, name: &Bound<'py, PyString>) -> PyResult<()> {
        let function = self.object().getattr(name)?;
        let Some(event_loop) = self.event_loop.borrow().clone() else {
            return Ok(());
        };
        let name = pyo3::intern!(self.py(), "call_soon");
        ffi::call_method(&event_loop.bind(self.py()), name, [&function]).map(drop)
    }
}

/// Plain text to be encrypted next.
enum Piece {
    /// Of one write, from here to there.
    Part(Bytes, usize, usize),
    Joined(Vec<u8>),
}
