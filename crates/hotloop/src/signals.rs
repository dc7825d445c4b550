//! `add_signal_handler`: what the system tells the process, as a callback of the loop.
//!
//! In the signal's own context nothing happens but that a flag is set and a byte written, to a socket that the loop
//! watches like any other. A host with signal handlers of its own, such as Python, leaves this alone.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::SigId;
use signal_hook::low_level::unregister;

use crate::driver::{Driver, Op};
use crate::event_loop::{EventLoop, Operation};
use crate::host::Host;

/// The signal handlers of a loop.
pub(crate) struct Signals<T> {
    /// What a signal wakes the loop through; made for the first handler, and kept until the loop is dropped.
    pipe: Option<SelfPipe>,
    /// By the signal's number.
    handlers: BTreeMap<i32, Handler<T>>,
}

/// A pair of sockets: bytes written to one are read from the other.
struct SelfPipe {
    /// Written to in a signal's context, through duplicates.
    write: UnixStream,
    /// Watched by the driver, and emptied when it is readable.
    read: UnixStream,
}

/// What one signal calls. Dropping it gives the signal its default action back, unless another loop handles it too.
struct Handler<T> {
    handle: T,
    /// Set in the signal's context, taken down by the loop.
    arrived: Arc<AtomicBool>,
    /// What runs in the signal's context, in this order: the flag, then the byte.
    actions: [SigId; 2],
    _handled: Handled,
}

impl<T> Default for Signals<T> {
    fn default() -> Self {
        Self {
            pipe: None,
            handlers: BTreeMap::new(),
        }
    }
}

impl<T> Drop for Handler<T> {
    fn drop(&mut self) {
        for action in self.actions {
            unregister(action);
        }
    }
}

impl<H: Host, D: Driver> EventLoop<H, D> {
    /// Lets `handle` be an event of the turn after one of these signals came in: several that come in before count as
    /// one, as everywhere on Unix. Answers the handle that it replaces.
    ///
    /// Where several loops of the process handle a signal, all of them hear of it.
    ///
    /// # Errors
    /// `InvalidInput` for a signal that cannot be caught; else the system's: the number may be no signal, or there
    /// may be no descriptor left. What was there before stays.
    pub fn add_signal_handler(&mut self, signal: i32, handle: H::Handle) -> io::Result<Option<H::Handle>> {
        if let Some(handler) = self.signals.handlers.get_mut(&signal) {
            return Ok(Some(std::mem::replace(&mut handler.handle, handle)));
        }
        if signal_hook::consts::FORBIDDEN.contains(&signal) {
            let message = format!("signal {signal} cannot be caught: choose another");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let write = self.writing_end()?;
        let handled = Handled::new(signal)?;
        let arrived = Arc::new(AtomicBool::new(false));
        let flag = signal_hook::flag::register(signal, Arc::clone(&arrived))?;
        let byte = signal_hook::low_level::pipe::register(signal, write).inspect_err(|_| {
            unregister(flag);
        })?;
        self.signals.handlers.insert(
            signal,
            Handler {
                handle,
                arrived,
                actions: [flag, byte],
                _handled: handled,
            },
        );
        Ok(None)
    }

    /// Gives a signal its default action back, as far as this loop goes. Answers the handle that was called for it.
    ///
    /// A real-time signal is ignored afterwards.
    pub fn remove_signal_handler(&mut self, signal: i32) -> Option<H::Handle> {
        let handler = self.signals.handlers.remove(&signal)?;
        Some(handler.handle.clone())
    }

    /// The signals that are handled, and what is called for them.
    pub fn signal_handlers(&self) -> impl Iterator<Item = (i32, &H::Handle)> {
        let handlers = self.signals.handlers.iter();
        handlers.map(|(&signal, handler)| (signal, &handler.handle))
    }

    /// Schedules the handlers of the signals that came in.
    pub(crate) fn take_signals(&mut self) {
        let Some(pipe) = &self.signals.pipe else { return };
        // Emptied first: a signal that comes in from now on writes again, whether its flag is seen below or not.
        let mut bytes = [0; 64];
        while (&pipe.read)
            .read(&mut bytes)
            .is_ok_and(|count| count == bytes.len())
        {}
        for handler in self.signals.handlers.values() {
            if handler.arrived.swap(false, Ordering::AcqRel) {
                self.ready.push(handler.handle.clone());
            }
        }
    }

    /// All handles of signal handlers, which are gone thereby.
    pub(crate) fn take_signal_handlers(&mut self) -> impl Iterator<Item = H::Handle> {
        let handlers = std::mem::take(&mut self.signals.handlers);
        handlers.into_values().map(|handler| handler.handle.clone())
    }

    /// A socket that wakes this loop when it is written to.
    fn writing_end(&mut self) -> io::Result<UnixStream> {
        if let Some(pipe) = &self.signals.pipe {
            return pipe.write.try_clone();
        }
        let (write, read) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        read.set_nonblocking(true)?;
        let end = write.try_clone()?;
        self.submit(read.as_raw_fd(), Op::WatchRead, Operation::Signals)?;
        self.signals.pipe = Some(SelfPipe { write, read });
        Ok(end)
    }
}

/// Says that a signal is handled by some loop of the process: while it is not, its default action is done.
struct Handled(Arc<DefaultAction>);

/// The default action of one signal.
struct DefaultAction {
    /// Read in the signal's context: whether the default action is to be done.
    due: Arc<AtomicBool>,
    /// How many loops handle the signal.
    handled_by: Mutex<usize>,
}

/// The signals that were ever handled. The system's own handler stays in place from then on, so that what other parts
/// of the program do with the signal is undisturbed.
static DEFAULTS: Mutex<BTreeMap<i32, Arc<DefaultAction>>> = Mutex::new(BTreeMap::new());

impl Handled {
    fn new(signal: i32) -> io::Result<Self> {
        let mut defaults = DEFAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        let action = match defaults.get(&signal) {
            Some(action) => Arc::clone(action),
            None => {
                let due = Arc::new(AtomicBool::new(false));
                // Only of a real-time signal it is not known what the default action is.
                match signal_hook::flag::register_conditional_default(signal, Arc::clone(&due)) {
                    Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                    _ => {}
                }
                let action = Arc::new(DefaultAction {
                    due,
                    handled_by: Mutex::new(0),
                });
                defaults.insert(signal, Arc::clone(&action));
                action
            }
        };
        action.count(|count| count + 1);
        Ok(Self(action))
    }
}

impl Drop for Handled {
    fn drop(&mut self) {
        self.0.count(|count| count.saturating_sub(1));
    }
}

impl DefaultAction {
    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut handled_by = self.handled_by.lock().unwrap_or_else(PoisonError::into_inner);
        *handled_by = change(*handled_by);
        self.due.store(*handled_by == 0, Ordering::Release);
    }
}
