//! The user's TLS session: his `SSLObject` between two memory BIOs, called without a Python frame where it is the
//! stdlib's own.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::ffi::{self, Object, Visit, Window, same_type};

/// What a read of a session has led to.
pub(super) enum Read {
    /// So many bytes of plain text.
    Bytes(usize),
    /// The peer has ended its stream (`close_notify`).
    End,
    /// Nothing before more comes in.
    Again,
}

/// What a step of the handshake, or of the goodbye, has led to.
pub(super) enum Handshake {
    Complete,
    /// Nothing before more comes in.
    Again,
    /// It has failed: an `SSLError`.
    Failed(PyErr),
}

/// A session and its BIOs.
#[derive(Debug)]
pub(super) struct Session {
    /// What has come in and is not decrypted yet: `MemoryBIO.pending` of it is looked at.
    incoming: Object,
    /// What is encrypted and has not gone out.
    outgoing: Object,
    /// `MemoryBIO.write` of the incoming one.
    feed: Object,
    /// `MemoryBIO.read` of the outgoing one.
    drain: Object,
    /// `do_handshake` of the session, bound.
    handshake: Object,
    /// What says goodbye, bound.
    unwrap: Object,
    /// `read` of the session, bound.
    read: Object,
    /// `write` of the session, bound.
    write: Object,
    /// Whether `feed`, `read` and `write` are the C functions of the stdlib, which let go of a buffer before they
    /// return.
    native: bool,
    /// What they are called with.
    window: Window,
}

/// The stdlib's classes, and the methods of `SSLObject` whose place the native way takes.
struct Stock {
    ssl_object: Object,
    memory_bio: Object,
    /// Of `_ssl`: what an `SSLObject` keeps in `_sslobj`.
    ssl_socket: Object,
    handshake: Object,
    read: Object,
    write: Object,
    ssl_error: Object,
    want_read: Object,
    syscall_error: Object,
}

impl Session {
    /// The session of an `SSLObject`, or of whatever else a context's `wrap_bio` has answered.
    ///
    /// # Errors
    /// What reading its attributes raises.
    pub(super) fn new(
        ssl_object: &Bound<'_, PyAny>,
        incoming: &Bound<'_, PyAny>,
        outgoing: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let py = ssl_object.py();
        let stock = stock(py)?;
        let mut session = ssl_object.clone();
        let mut native = false;
        let class = ssl_object.get_type();
        if same_type(&ssl_object.into(), &stock.ssl_object)
            && same_type(&incoming.into(), &stock.memory_bio)
            && same_type(&outgoing.into(), &stock.memory_bio)
            && stock
                .handshake
                .is(&class.getattr(pyo3::intern!(py, "do_handshake"))?)
            && stock.read.is(&class.getattr(pyo3::intern!(py, "read"))?)
            && stock.write.is(&class.getattr(pyo3::intern!(py, "write"))?)
        {
            let inner = ssl_object.getattr(pyo3::intern!(py, "_sslobj"))?;
            if same_type(&(&inner).into(), &stock.ssl_socket) {
                session = inner;
                native = true;
            }
        }
        Ok(Self {
            incoming: incoming.into(),
            outgoing: outgoing.into(),
            feed: incoming.getattr(pyo3::intern!(py, "write"))?.into(),
            drain: outgoing.getattr(pyo3::intern!(py, "read"))?.into(),
            handshake: session.getattr(pyo3::intern!(py, "do_handshake"))?.into(),
            unwrap: ssl_object.getattr(pyo3::intern!(py, "unwrap"))?.into(),
            read: session.getattr(pyo3::intern!(py, "read"))?.into(),
            write: session.getattr(pyo3::intern!(py, "write"))?.into(),
            native,
            window: Window::new(py)?,
        })
    }

    pub(super) fn traverse(&self, visit: &mut Visit) {
        visit.objects([
            &self.incoming,
            &self.outgoing,
            &self.feed,
            &self.drain,
            &self.handshake,
            &self.unwrap,
            &self.read,
            &self.write,
        ]);
    }

    /// How many bytes have come in and are not looked at yet.
    ///
    /// # Errors
    /// What a BIO of the user's own raises.
    #[inline]
    pub(super) fn incoming(&self, py: Python<'_>) -> PyResult<usize> {
        pending(&self.incoming, py)
    }

    /// How many encrypted bytes have not gone out.
    ///
    /// # Errors
    /// What a BIO of the user's own raises.
    #[inline]
    pub(super) fn outgoing(&self, py: Python<'_>) -> PyResult<usize> {
        pending(&self.outgoing, py)
    }

    /// Puts received bytes in.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn feed(&self, py: Python<'_>, received: &[u8]) -> PyResult<()> {
        if self.native {
            self.window.lend(py, received, |bytes| {
                ffi::call_one(&self.feed.bind(py), bytes).map(drop)
            })
        } else {
            ffi::call_one(&self.feed.bind(py), &PyBytes::new(py, received)).map(drop)
        }
    }

    /// Takes all encrypted bytes out.
    ///
    /// # Errors
    /// Out of memory.
    #[inline]
    pub(super) fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        ffi::call_no_args(&self.drain.bind(py))
    }

    /// Goes on with the handshake.
    ///
    /// # Errors
    /// What callbacks of the user's context raise, but for an `SSLError`.
    pub(super) fn handshake(&self, py: Python<'_>) -> PyResult<Handshake> {
        Self::stepped(py, ffi::call_no_args(&self.handshake.bind(py)))
    }

    /// Says goodbye (`close_notify`), and waits for that of the peer.
    ///
    /// # Errors
    /// What callbacks of the user's context raise, but for an `SSLError`.
    pub(super) fn shut_down(&self, py: Python<'_>) -> PyResult<Handshake> {
        Self::stepped(py, ffi::call_no_args(&self.unwrap.bind(py)))
    }

    fn stepped(py: Python<'_>, step: PyResult<Bound<'_, PyAny>>) -> PyResult<Handshake> {
        match step {
            Ok(_) => Ok(Handshake::Complete),
            Err(error) if is_again(py, &error)? => Ok(Handshake::Again),
            Err(error) if error.matches(py, stock(py)?.ssl_error.bind(py))? => Ok(Handshake::Failed(error)),
            Err(error) => Err(error),
        }
    }

    /// Decrypts into `room`, at most one record at a time.
    ///
    /// # Errors
    /// `SSLError`, and what callbacks of the user's context raise.
    pub(super) fn read(&self, py: Python<'_>, room: &mut [MaybeUninit<u8>]) -> PyResult<Read> {
        let read = self.read.bind(py);
        let count = if self.native {
            self.window
                .lend_room(py, room, |bytes| {
                    // With a length of 0, as much as the buffer holds.
                    ffi::call_two(&read, 0i32.into_pyobject(py)?.as_any(), bytes)
                })
                .and_then(|count| count.extract::<usize>())
        } else {
            let size = room.len().into_pyobject(py)?.into_any();
            ffi::call_one(&read, &size).and_then(|bytes| {
                let bytes = bytes.cast::<PyBytes>()?.as_bytes();
                for (place, &byte) in room.iter_mut().zip(bytes) {
                    place.write(byte);
                }
                Ok(bytes.len().min(room.len()))
            })
        };
        match count {
            Ok(0) => Ok(Read::End),
            Ok(count) => Ok(Read::Bytes(count)),
            Err(error) if is_again(py, &error)? => Ok(Read::Again),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing is left to read after a read that has not filled its room: all that came in has been looked at.
    /// It spares a read that ends in an exception.
    ///
    /// # Errors
    /// What a BIO of the user's own raises.
    #[inline]
    pub(super) fn is_drained(&self, py: Python<'_>) -> PyResult<bool> {
        // A session of the user's own may hold back what it likes.
        Ok(self.native && self.incoming(py)? == 0)
    }

    /// Encrypts. Answers how many bytes it took; `None` if it takes none before more comes in.
    ///
    /// # Errors
    /// `SSLError`, and what callbacks of the user's context raise.
    pub(super) fn write(&self, py: Python<'_>, plain: &[u8]) -> PyResult<Option<usize>> {
        let write = self.write.bind(py);
        let count = if self.native {
            self.window.lend(py, plain, |bytes| ffi::call_one(&write, bytes))
        } else {
            ffi::call_one(&write, &PyBytes::new(py, plain))
        };
        match count.and_then(|count| count.extract()) {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_again(py, &error)? => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn pending(bio: &Object, py: Python<'_>) -> PyResult<usize> {
    bio.bind(py).getattr(pyo3::intern!(py, "pending"))?.extract()
}

/// Whether an exception of a session says that more must come in first (asyncio's `SSLAgainErrors`).
fn is_again(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let stock = stock(py)?;
    Ok([&stock.want_read, &stock.syscall_error]
        .iter()
        .any(|class| error.matches(py, class.bind(py)).unwrap_or(false)))
}

fn stock(py: Python<'_>) -> PyResult<&'static Stock> {
    static STOCK: OnceLock<Stock> = OnceLock::new();
    if let Some(stock) = STOCK.get() {
        return Ok(stock);
    }
    let ssl = py.import("ssl")?;
    let ssl_object = ssl.getattr("SSLObject")?;
    let found = Stock {
        memory_bio: ssl.getattr("MemoryBIO")?.into(),
        ssl_socket: py.import("_ssl")?.getattr("_SSLSocket")?.into(),
        handshake: ssl_object.getattr("do_handshake")?.into(),
        read: ssl_object.getattr("read")?.into(),
        write: ssl_object.getattr("write")?.into(),
        ssl_object: ssl_object.into(),
        ssl_error: ssl.getattr("SSLError")?.into(),
        want_read: ssl.getattr("SSLWantReadError")?.into(),
        syscall_error: ssl.getattr("SSLSyscallError")?.into(),
    };
    Ok(STOCK.get_or_init(|| found))
}
