//! What a loop refuses, and why.

use std::any::Any;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};
use std::{fmt, io};

/// A call that a loop, a policy or a future refused. Its text says what to do instead.
///
/// ```
/// use hotloop::asyncio::{Error, SelectorEventLoop};
/// let event_loop = SelectorEventLoop::new()?;
/// event_loop.close()?;
/// let refused = event_loop.call_soon(|| {});
/// assert!(matches!(refused, Err(Error::Closed)));
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The loop is closed: make a new one.
    Closed,
    /// The loop runs already, or it is to be closed while it runs.
    Running,
    /// Another loop runs in this thread.
    OtherRunning,
    /// No loop runs in this thread.
    NotRunning,
    /// No loop was set for this thread.
    NoCurrentLoop,
    /// `run_until_complete` ended because somebody stopped the loop.
    Stopped,
    /// The future or task was cancelled.
    Cancelled,
    /// The future has a result already, or has none yet.
    InvalidState,
    /// The time was over.
    TimedOut,
    /// The transport's sending half was ended by `write_eof`.
    EndWritten,
    /// A transport has the descriptor: what is done to it behind its back would harm its connection.
    UsedByTransport(RawFd),
    /// The executor was shut down: it takes no more calls.
    ExecutorShutDown,
    /// The code that was to give the result panicked.
    Panicked(Panic),
    /// The system's.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Closed => "Event loop is closed: make a new one with new_event_loop()",
            Self::Running => "This event loop is already running: stop() it first",
            Self::OtherRunning => "Cannot run the event loop while another loop is running in this thread",
            Self::NotRunning => "no running event loop: call this from a callback or a task of one",
            Self::NoCurrentLoop => {
                "There is no current event loop in this thread: call set_event_loop() first"
            }
            Self::Stopped => "Event loop stopped before Future completed.",
            Self::Cancelled => "cancelled",
            Self::InvalidState => "invalid state: the future is done already, or not done yet",
            Self::TimedOut => "the time was over before the result was there",
            Self::EndWritten => "Cannot call write() after write_eof()",
            Self::ExecutorShutDown => "Executor shutdown has been called: make a new Executor",
            Self::UsedByTransport(fd) => {
                return write!(formatter, "File descriptor {fd} is used by a transport");
            }
            Self::Panicked(panic) => return panic.fmt(formatter),
            Self::Io(error) => return error.fmt(formatter),
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A panic that was caught.
///
/// ```
/// use hotloop::asyncio::{Error, SelectorEventLoop};
/// let event_loop = SelectorEventLoop::new()?;
/// let task = event_loop.create_task(async { panic!("oh no") })?;
/// let result: Result<(), Error> = event_loop.run_until_complete(task)?;
/// assert!(matches!(result, Err(Error::Panicked(panic)) if panic.message() == "oh no"));
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub struct Panic {
    message: String,
    /// Only ever taken whole. The mutex is there so that an error may be shared among threads.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            message: text.unwrap_or("a panic without a text").to_owned(),
            payload: Mutex::new(payload),
        }
    }

    /// What was said, if it was text.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async { panic!("oh no") })?;
    /// let result: Result<(), _> = event_loop.run_until_complete(task)?;
    /// let Err(hotloop::asyncio::Error::Panicked(panic)) = result else { unreachable!("it panics") };
    /// assert_eq!(panic.message(), "oh no");
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The payload, for [`std::panic::resume_unwind`].
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let task = event_loop.create_task(async { std::panic::panic_any(42) })?;
    /// let result: Result<(), _> = event_loop.run_until_complete(task)?;
    /// let Err(hotloop::asyncio::Error::Panicked(panic)) = result else { unreachable!("it panics") };
    /// assert_eq!(panic.into_payload().downcast_ref(), Some(&42));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Panic").field(&self.message).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "panicked: {}", self.message)
    }
}
