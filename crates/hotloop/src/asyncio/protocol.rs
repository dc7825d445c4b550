//! What a program is told of its connections.

use std::io;

use super::buffered::BufferedProtocol;
use super::datagram::DatagramTransport;
use super::subprocess::SubprocessTransport;
use super::transport::Transport;
use crate::driver::SocketAddress;

/// A stream protocol: asyncio's callbacks, all with the transport that they are about.
///
/// They take `&self`, since a write may call [`pause_writing`](Self::pause_writing) while another callback runs: keep
/// what changes in a `Cell` or a `RefCell`. A panic ends the connection and goes to the exception handler.
///
/// ```
/// use std::cell::RefCell;
/// use std::io::{self, Write};
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use hotloop::asyncio::{Protocol, SelectorEventLoop, Transport, get_running_loop};
///
/// #[derive(Default)]
/// struct Keeping(RefCell<Vec<u8>>);
/// impl Protocol for Keeping {
///     fn data_received(&self, _: &Transport, data: &[u8]) {
///         self.0.borrow_mut().extend_from_slice(data);
///     }
///     fn connection_lost(&self, transport: &Transport, error: Option<io::Error>) {
///         assert!(error.is_none());
///         transport.event_loop().stop();
///     }
/// }
///
/// let event_loop = SelectorEventLoop::new()?;
/// let (near, mut far) = UnixStream::pair()?;
/// let (_transport, protocol) = event_loop.run_until_complete(async move {
///     get_running_loop()?.create_connection_with_sock(Rc::<Keeping>::default, near).await
/// })??;
/// far.write_all(b"hello")?;
/// drop(far);
/// event_loop.run_forever()?;
/// assert_eq!(*protocol.0.borrow(), b"hello");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub trait Protocol {
    /// The connection is there.
    fn connection_made(&self, transport: &Transport) {
        let _ = transport;
    }

    /// Bytes came in.
    fn data_received(&self, transport: &Transport, data: &[u8]);

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

    /// The protocol that has its own buffer, where this one stands for such a one.
    #[doc(hidden)]
    fn buffered(&self) -> Option<&dyn BufferedProtocol> {
        None
    }
}

/// A protocol of datagrams. As for [`Protocol`], its callbacks take `&self` and a panic ends the transport.
///
/// ```
/// use std::io;
/// use hotloop::asyncio::{DatagramProtocol, DatagramTransport, SocketAddress};
/// struct Echo;
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&self, transport: &DatagramTransport, data: &[u8], from: &SocketAddress) {
///         transport.sendto(data, Some(from)).expect("it is not connected");
///     }
///     fn error_received(&self, _: &DatagramTransport, error: io::Error) {
///         eprintln!("one is lost: {error}");
///     }
/// }
/// ```
pub trait DatagramProtocol {
    /// The endpoint is there.
    fn connection_made(&self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// A datagram came in.
    fn datagram_received(&self, transport: &DatagramTransport, data: &[u8], from: &SocketAddress);

    /// A datagram that was sent, or one that was to come in, has failed. The transport goes on.
    fn error_received(&self, transport: &DatagramTransport, error: io::Error) {
        let _ = (transport, error);
    }

    /// The endpoint is gone: by an error, or without one if it was closed. The last call.
    fn connection_lost(&self, transport: &DatagramTransport, error: Option<io::Error>) {
        let _ = (transport, error);
    }

    /// More waits to be sent than the high-water mark allows: send no more for now.
    fn pause_writing(&self, transport: &DatagramTransport) {
        let _ = transport;
    }

    /// No more waits than the low-water mark allows: send on.
    fn resume_writing(&self, transport: &DatagramTransport) {
        let _ = transport;
    }
}

/// A protocol of a child process. As for [`Protocol`], its callbacks take `&self`. A descriptor is the child's: 0 is its
/// standard input, 1 its output, 2 its errors.
///
/// ```
/// use hotloop::asyncio::{SubprocessProtocol, SubprocessTransport};
/// struct Printing;
/// impl SubprocessProtocol for Printing {
///     fn pipe_data_received(&self, process: &SubprocessTransport, fd: i32, data: &[u8]) {
///         println!("{}: {fd}: {}", process.get_pid(), String::from_utf8_lossy(data));
///     }
///     fn connection_lost(&self, process: &SubprocessTransport) {
///         process.event_loop().stop();
///     }
/// }
/// ```
pub trait SubprocessProtocol {
    /// The process was started.
    fn connection_made(&self, transport: &SubprocessTransport) {
        let _ = transport;
    }

    /// The process has written something.
    fn pipe_data_received(&self, transport: &SubprocessTransport, fd: i32, data: &[u8]) {
        let _ = (transport, fd, data);
    }

    /// A pipe to the process is closed.
    fn pipe_connection_lost(&self, transport: &SubprocessTransport, fd: i32, error: Option<io::Error>) {
        let _ = (transport, fd, error);
    }

    /// The process has ended. Its pipes may still be open: it may have children of its own.
    fn process_exited(&self, transport: &SubprocessTransport) {
        let _ = transport;
    }

    /// The process has ended and all its pipes are closed. The last call.
    fn connection_lost(&self, transport: &SubprocessTransport) {
        let _ = transport;
    }

    /// More waits to be written to its standard input than the high-water mark allows: write no more for now.
    fn pause_writing(&self, transport: &SubprocessTransport) {
        let _ = transport;
    }

    /// All was written to its standard input: write on.
    fn resume_writing(&self, transport: &SubprocessTransport) {
        let _ = transport;
    }
}
