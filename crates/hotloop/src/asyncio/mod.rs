//! asyncio for Rust programs: its loops, futures, tasks, transports, protocols and policies, under its names.
//!
//! ```text
//!   a program                                      this module                     the engine
//!
//!   call_soon, call_later, call_at ─────────────> Handle, TimerHandle ──────────> ready queue, timers ─┐
//!   create_task ── Task ── await ───────────────> Future, sleep, Job …                  ^              │ one turn
//!                    ^──── wakes: its next poll is queued ──────────────────────────────┤              │ after
//!   another thread ── ThreadsafeHandle, Stopper, Waker ──────────────────────> inbox ───┘              │ another
//!                                                                                                      v
//!   Protocol::data_received, BufferedProtocol::buffer_updated <── Transport <──────────────── Event, one at a time
//!   Transport::write ── plain or TLS ── sent at once, or queued and flow-controlled ─> driver <──> kernel
//!                                                                                  a Selector, or io_uring
//! ```
//!
//! | what | where |
//! |---|---|
//! | loops | [`SelectorEventLoop`], [`ProactorEventLoop`], any of them: [`AbstractEventLoop`]; what they do: [`BaseEventLoop`] |
//! | which loop | [`run`], [`get_event_loop`], [`get_running_loop`], [`AbstractEventLoopPolicy`] |
//! | waiting | [`Future`], [`Task`], [`sleep`], [`timeout`], [`Executor`] |
//! | connections | [`Transport`] with a [`Protocol`] or a [`BufferedProtocol`], [`Server`], [`HappyEyeballs`] |
//! | datagrams | [`DatagramTransport`] with a [`DatagramProtocol`] |
//! | child processes | [`SubprocessTransport`] with a [`SubprocessProtocol`] |
//! | what goes wrong | [`Error`], and [`Report`] for what nobody awaits |
//!
//! ```
//! use std::time::Duration;
//! use hotloop::asyncio::{Error, get_running_loop, run, sleep};
//!
//! let answer = run(async {
//!     let blocking = get_running_loop()?.run_in_executor(|| 40)?;
//!     sleep(Duration::from_millis(1)).await?;
//!     Ok::<i32, Error>(blocking.await? + 2)
//! })??;
//! assert_eq!(answer, 42);
//! # Ok::<(), Error>(())
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
mod endpoint;
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
mod sendfile;
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
mod wakers;
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
