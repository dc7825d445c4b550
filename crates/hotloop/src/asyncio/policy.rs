//! Which loop a thread has.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::loops::SelectorEventLoop;
use super::running::get_running_loop;

/// Decides which loop a thread has, and what a new one is.
///
/// ```
/// use std::{io, sync::Arc};
/// use hotloop::asyncio::{self, AbstractEventLoopPolicy, BaseEventLoop, DefaultEventLoopPolicy, Error};
/// struct Debugging;
/// impl AbstractEventLoopPolicy for Debugging {
///     fn get_event_loop(&self) -> Result<BaseEventLoop, Error> {
///         DefaultEventLoopPolicy.get_event_loop()
///     }
///     fn set_event_loop(&self, event_loop: Option<BaseEventLoop>) {
///         DefaultEventLoopPolicy.set_event_loop(event_loop);
///     }
///     fn new_event_loop(&self) -> io::Result<BaseEventLoop> {
///         let event_loop = DefaultEventLoopPolicy.new_event_loop()?;
///         event_loop.set_debug(true);
///         Ok(event_loop)
///     }
/// }
/// asyncio::set_event_loop_policy(Some(Arc::new(Debugging)));
/// assert!(asyncio::new_event_loop()?.get_debug());
/// asyncio::set_event_loop_policy(None);
/// # Ok::<(), io::Error>(())
/// ```
pub trait AbstractEventLoopPolicy: Send + Sync {
    /// The loop of this thread.
    ///
    /// # Errors
    /// [`Error::NoCurrentLoop`] if none is set.
    fn get_event_loop(&self) -> Result<BaseEventLoop, Error>;

    /// Sets the loop of this thread.
    fn set_event_loop(&self, event_loop: Option<BaseEventLoop>);

    /// A new loop, which is nobody's yet.
    ///
    /// # Errors
    /// The system's.
    fn new_event_loop(&self) -> io::Result<BaseEventLoop>;
}

/// One loop a thread, the one that was set; new ones are [`SelectorEventLoop`]s.
///
/// ```
/// use hotloop::asyncio::{AbstractEventLoopPolicy, DefaultEventLoopPolicy, Error};
/// let policy = DefaultEventLoopPolicy;
/// assert!(matches!(policy.get_event_loop(), Err(Error::NoCurrentLoop)));
/// policy.set_event_loop(Some(policy.new_event_loop()?));
/// assert!(policy.get_event_loop().is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultEventLoopPolicy;

thread_local! {
    static CURRENT: RefCell<Option<BaseEventLoop>> = const { RefCell::new(None) };
}

static POLICY: Mutex<Option<Arc<dyn AbstractEventLoopPolicy>>> = Mutex::new(None);

impl AbstractEventLoopPolicy for DefaultEventLoopPolicy {
    fn get_event_loop(&self) -> Result<BaseEventLoop, Error> {
        CURRENT.with_borrow(Clone::clone).ok_or(Error::NoCurrentLoop)
    }

    fn set_event_loop(&self, event_loop: Option<BaseEventLoop>) {
        let old = CURRENT.replace(event_loop);
        drop(old);
    }

    fn new_event_loop(&self) -> io::Result<BaseEventLoop> {
        SelectorEventLoop::new().map(Into::into)
    }
}

/// The policy of the process.
///
/// ```
/// let event_loop = hotloop::asyncio::get_event_loop_policy().new_event_loop()?;
/// assert!(!event_loop.is_closed());
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub fn get_event_loop_policy() -> Arc<dyn AbstractEventLoopPolicy> {
    let policy = POLICY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    policy.unwrap_or_else(|| Arc::new(DefaultEventLoopPolicy))
}

/// Sets the policy of the process; `None` restores the default.
///
/// ```
/// use std::sync::Arc;
/// use hotloop::asyncio::{DefaultEventLoopPolicy, set_event_loop_policy};
/// set_event_loop_policy(Some(Arc::new(DefaultEventLoopPolicy)));
/// set_event_loop_policy(None);
/// ```
pub fn set_event_loop_policy(policy: Option<Arc<dyn AbstractEventLoopPolicy>>) {
    let old = std::mem::replace(
        &mut *POLICY.lock().unwrap_or_else(PoisonError::into_inner),
        policy,
    );
    drop(old);
}

/// The running loop, or else the one that the policy has for this thread.
///
/// # Errors
/// [`Error::NoCurrentLoop`] if there is none: never nothing.
///
/// ```
/// use hotloop::asyncio::{self, Error};
/// assert!(matches!(asyncio::get_event_loop(), Err(Error::NoCurrentLoop)));
/// let event_loop = asyncio::new_event_loop()?;
/// asyncio::set_event_loop(Some(event_loop.clone()));
/// assert!(asyncio::get_event_loop()? == event_loop);
/// # Ok::<(), Error>(())
/// ```
pub fn get_event_loop() -> Result<BaseEventLoop, Error> {
    get_running_loop().or_else(|_| get_event_loop_policy().get_event_loop())
}

/// Sets the loop of this thread, by the policy.
///
/// ```
/// use hotloop::asyncio::{get_event_loop, new_event_loop, set_event_loop};
/// set_event_loop(Some(new_event_loop()?));
/// assert!(get_event_loop().is_ok());
/// set_event_loop(None);
/// assert!(get_event_loop().is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn set_event_loop(event_loop: Option<BaseEventLoop>) {
    get_event_loop_policy().set_event_loop(event_loop);
}

/// A new loop of the policy.
///
/// # Errors
/// The system's.
///
/// ```
/// let event_loop = hotloop::asyncio::new_event_loop()?;
/// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub fn new_event_loop() -> io::Result<BaseEventLoop> {
    get_event_loop_policy().new_event_loop()
}

/// Runs a future on a new loop, and closes that.
///
/// # Errors
/// The system's, if there can be no loop; [`Error::OtherRunning`] inside of one.
///
/// ```
/// assert_eq!(hotloop::asyncio::run(async { 6 * 7 })?, 42);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
pub fn run<F>(future: F) -> Result<F::Output, Error>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let event_loop = new_event_loop()?;
    let result = event_loop.run_until_complete(future);
    event_loop.close()?;
    result
}
