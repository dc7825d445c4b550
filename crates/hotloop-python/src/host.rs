//! What the engine keeps for Python.

use hotloop::Host;
use hotloop::driver::Driver;

use crate::ffi::{Bytes, Object};
use crate::handles::{self, Scheduled};
use crate::transports::Transport;
use hotloop::driver::AnyDriver;

/// The engine as the Python loop runs it.
pub(crate) type Engine = hotloop::EventLoop<PythonHost, AnyDriver>;

/// The way into a Python loop from other threads.
pub(crate) type Inbox = hotloop::inbox::Inbox<Scheduled, <AnyDriver as Driver>::Waker>;

/// Python as a host: callbacks are `asyncio.Handle`s or what was in one, streams are transports.
#[derive(Debug)]
pub(crate) struct PythonHost;

impl Host for PythonHost {
    type Handle = Scheduled;
    type Timer = Object;
    type Stream = Transport;
    type Bytes = Bytes;

    fn is_cancelled(timer: &Object) -> bool {
        handles::is_cancelled(timer)
    }
}
