//! The state machines of transports: what is queued, who is paused, how far a close has come.
//!
//! Nothing here does I/O. [`EventLoop`](crate::EventLoop) moves the bytes and asks these what follows.

mod datagram;
mod flow_control;
mod life;
mod listener;
mod send_queue;
mod stream;

pub use datagram::{Datagrams, Destination, Queued};
pub use flow_control::{DEFAULT_HIGH, FlowControl, InvalidLimits};
pub use life::{Close, Life};
pub use listener::{ACCEPT_BUDGET, is_out_of_resources};
pub use send_queue::{MAX_SLICES, SendQueue};
pub use stream::Stream;
