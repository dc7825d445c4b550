//! asyncio's event loop in Rust.
//!
//! ```text
//!   other threads ──> inbox ─┐                           ┌─> Event::Callback ─┐
//!   call_soon ──────────────>├─> ready ──> one turn ────>├─> Event::Stream …  ├─> the host runs it
//!   call_later ──> timers ───┘      ^                    └─> Event::Timer ────┘   (the engine is free)
//!                                   │
//!   sockets <──> driver (epoll …) ──┘ wait, then completions
//! ```
//!
//! The engine keeps what is scheduled and what the kernel is asked for; the [`Host`] pulls: it waits, then takes one
//! [`Event`] at a time and runs it while the engine holds nothing of its own borrowed. So whatever runs may call the
//! engine again: write, close, stop, add, cancel.
//!
//! Rust programs find asyncio's interface over it in [`asyncio`]: loops, tasks, transports and policies; and in
//! [`testing`] a loop on virtual time, over a network in memory.
//!
//! The public interface of the engine is: [`EventLoop`] and its [`Event`]s; [`Host`], what it runs for; [`driver`], the contract with
//! the kernel and who fulfils it; [`transport`], the state machines; [`timers`], [`ready`], [`inbox`] and [`clock`],
//! the parts of a turn; [`address`], name resolution where nothing is to be resolved.

pub mod address;
pub mod asyncio;
pub mod clock;
mod datagrams;
pub mod driver;
mod event_loop;
mod host;
pub mod inbox;
pub mod ready;
mod signals;
mod streams;
mod sync;
mod sys;
pub mod testing;
pub mod timers;
pub mod transport;
mod watchers;

pub use datagrams::{DatagramEvent, EndpointKey, Flushed};
pub use event_loop::{Event, EventLoop, MAXIMUM_WAIT, Timeout, Waiter};
pub use host::Host;
pub use streams::{Queued, StreamEvent, StreamKey, Written};
