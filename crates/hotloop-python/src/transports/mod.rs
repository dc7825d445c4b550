//! Transports: Python objects over the engine's streams.

mod protocol;
mod reader;
mod stream;

pub(crate) use stream::{SocketTransport, add_to, on_event, open_stream};
