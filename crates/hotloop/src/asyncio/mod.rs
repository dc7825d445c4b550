//! asyncio for Rust programs: its loops, futures, tasks, transports, protocols and policies, under its names.
//!
//! ```text
//!   a task ── await ──> Future, sleep, Job …             wakes the task: its next poll is queued
//!   Protocol <── data_received ── Transport <── Event ── the engine
//!   Protocol ── Transport::write ────────────────────>   sent at once, or queued and flow-controlled
//!   another thread ── ThreadsafeHandle ── inbox ─────>   the loop's queue
//! ```
//!
//! A loop, and all that belongs to it, stays in its thread: `Rc` inside, so the compiler sees to it. What crosses
//! threads is a [`ThreadsafeHandle`], a [`Stopper`] or a waker. Where asyncio raises an exception, calls here answer an
//! [`Error`]; where its callbacks raise, these panic: the panic is caught and told to the exception handler, and the
//! loop goes on. (With `panic = "abort"` there is nothing to catch.)
//!
//! The order of a turn is asyncio's: the callbacks that were ready, what the wait found, the timers that are due.

mod abstract_event_loop;
mod buffered;
mod connection;
mod datagram;
mod error;
mod event_loop;
mod executor;
mod future;
mod handle;
mod happy_eyeballs;
mod host;
mod loops;
mod pipes;
mod policy;
mod protocol;
mod reports;
mod resolve;
mod running;
mod server;
mod signals;
mod sleep;
mod sockets;
mod stream;
mod subprocess;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod watching;

pub use abstract_event_loop::AbstractEventLoop;
pub use buffered::{Buffered, BufferedProtocol};
pub use datagram::DatagramTransport;
pub use error::{Error, Panic};
pub use event_loop::BaseEventLoop;
pub use executor::{Executor, Job};
pub use future::Future;
pub use handle::{Handle, Stopper, ThreadsafeHandle, TimerHandle};
pub use happy_eyeballs::HappyEyeballs;
pub use loops::{ProactorEventLoop, Selector, SelectorEventLoop};
pub use policy::{
    AbstractEventLoopPolicy, DefaultEventLoopPolicy, get_event_loop, get_event_loop_policy, new_event_loop,
    run, set_event_loop, set_event_loop_policy,
};
pub use protocol::{DatagramProtocol, Protocol, SubprocessProtocol};
pub use reports::{ExceptionHandler, Report};
pub use resolve::NameFlags;
pub use running::get_running_loop;
pub use server::Server;
pub use sleep::{sleep, timeout};
pub use subprocess::SubprocessTransport;
pub use task::Task;
pub use transport::Transport;

pub use crate::driver::SocketAddress;
/// The TLS library: its configurations are what TLS connections are made of.
#[cfg(feature = "tls")]
pub use ::rustls;
