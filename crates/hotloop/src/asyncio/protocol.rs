//! What a program is told of its connections.

use std::io;

use super::transport::Transport;

/// A stream protocol: asyncio's callbacks, all with the transport that they are about.
///
/// They take `&self`, since a write may call [`pause_writing`](Self::pause_writing) while another callback runs: keep
/// what changes in a `Cell` or a `RefCell`. A panic ends the connection and goes to the exception handler.
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
}
