//! Protocols that say where bytes are received to.

use std::cell::RefMut;
use std::io;
use std::ops::Deref;

use super::protocol::Protocol;
use super::transport::Transport;

/// A stream protocol that has its own buffer, which the kernel's bytes go to without a copy between. It is given to the
/// functions of a loop as a [`Buffered`].
///
/// As for [`Protocol`], callbacks take `&self` and a panic ends the connection.
///
/// ```
/// use std::cell::{Cell, RefCell, RefMut};
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use hotloop::asyncio::{Buffered, BufferedProtocol, SelectorEventLoop, Transport, get_running_loop};
///
/// struct Counting {
///     buffer: RefCell<[u8; 4096]>,
///     count: Cell<usize>,
/// }
/// impl BufferedProtocol for Counting {
///     fn get_buffer(&self, _: &Transport, _: Option<usize>) -> RefMut<'_, [u8]> {
///         self.buffer.borrow_mut()
///     }
///     fn buffer_updated(&self, transport: &Transport, count: usize) {
///         self.count.set(self.count.get() + count);
///         transport.event_loop().stop();
///     }
/// }
///
/// let event_loop = SelectorEventLoop::new()?;
/// let (near, mut far) = UnixStream::pair()?;
/// let counting = || Rc::new(Buffered(Counting { buffer: RefCell::new([0; 4096]), count: Cell::new(0) }));
/// let (_transport, protocol) = event_loop.run_until_complete(async move {
///     get_running_loop()?.create_connection_with_sock(counting, near).await
/// })??;
/// far.write_all(b"hello")?;
/// event_loop.run_forever()?;
/// assert_eq!(protocol.count.get(), 5);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub trait BufferedProtocol {
    /// The connection is there.
    fn connection_made(&self, transport: &Transport) {
        let _ = transport;
    }

    /// Lends a buffer, which has room for one byte at least: an empty one ends the connection. `size_hint` is how many
    /// bytes there are, where that is known.
    fn get_buffer(&self, transport: &Transport, size_hint: Option<usize>) -> RefMut<'_, [u8]>;

    /// So many bytes came in, at the beginning of the buffer that was lent.
    fn buffer_updated(&self, transport: &Transport, count: usize);

    /// The peer has ended its stream. True keeps the transport open for writing; false closes it.
    fn eof_received(&self, transport: &Transport) -> bool {
        let _ = transport;
        false
    }

    /// The connection is gone: by an error, or without one if it was closed or ended. The last call.
    fn connection_lost(&self, transport: &Transport, error: Option<io::Error>) {
        let _ = (transport, error);
    }

    /// More waits to be sent than the high-water mark allows: write no more for now.
    fn pause_writing(&self, transport: &Transport) {
        let _ = transport;
    }

    /// No more waits than the low-water mark allows: write on.
    fn resume_writing(&self, transport: &Transport) {
        let _ = transport;
    }
}

/// A [`BufferedProtocol`] as a [`Protocol`], for every function that takes one. Bytes that are not the kernel's, as those
/// of TLS, are copied to the buffer; see [`BufferedProtocol`] for an example.
///
/// ```
/// use std::cell::{RefCell, RefMut};
/// use hotloop::asyncio::{Buffered, BufferedProtocol, Protocol, Transport};
/// struct Dropping(RefCell<[u8; 64]>);
/// impl BufferedProtocol for Dropping {
///     fn get_buffer(&self, _: &Transport, _: Option<usize>) -> RefMut<'_, [u8]> {
///         self.0.borrow_mut()
///     }
///     fn buffer_updated(&self, _: &Transport, _: usize) {}
/// }
/// fn takes_a_protocol(_: impl Protocol) {}
/// takes_a_protocol(Buffered(Dropping(RefCell::new([0; 64]))));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Buffered<P>(pub P);

impl<P> Deref for Buffered<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.0
    }
}

impl<P: BufferedProtocol> Protocol for Buffered<P> {
    fn connection_made(&self, transport: &Transport) {
        self.0.connection_made(transport);
    }

    fn data_received(&self, transport: &Transport, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let mut count = 0;
            lend(&self.0, transport, Some(rest.len()), |buffer| {
                count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
            });
            self.0.buffer_updated(transport, count);
            rest = &rest[count..];
        }
    }

    fn eof_received(&self, transport: &Transport) -> bool {
        self.0.eof_received(transport)
    }

    fn connection_lost(&self, transport: &Transport, error: Option<io::Error>) {
        self.0.connection_lost(transport, error);
    }

    fn pause_writing(&self, transport: &Transport) {
        self.0.pause_writing(transport);
    }

    fn resume_writing(&self, transport: &Transport) {
        self.0.resume_writing(transport);
    }

    fn buffered(&self) -> Option<&dyn BufferedProtocol> {
        Some(&self.0)
    }
}

/// Asks a protocol for its buffer, and gives it back when that was used.
///
/// # Panics
/// If it is empty, or the protocol panics.
pub(crate) fn lend<R>(
    protocol: &(impl BufferedProtocol + ?Sized),
    transport: &Transport,
    size_hint: Option<usize>,
    fill: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let mut buffer = protocol.get_buffer(transport, size_hint);
    assert!(!buffer.is_empty(), "get_buffer() returned an empty buffer");
    fill(&mut buffer)
}
