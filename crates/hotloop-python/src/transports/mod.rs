//! Transports: Python objects over the engine's streams.

mod protocol;
mod reader;
mod stream;

pub(crate) use protocol::{Kind, Protocol};
pub(crate) use reader::feed as feed_reader;
pub(crate) use stream::{SocketTransport, add_to, on_event, open_stream};
