//! Transports: Python objects over the engine's streams.

mod protocol;
mod reader;
mod stream;

pub(crate) use protocol::{Kind, Protocol};
pub(crate) use reader::feed as feed_reader;
pub(crate) use stream::{SocketKind, SocketTransport, accepted, add_to, as_tuple, on_event, open_stream};
