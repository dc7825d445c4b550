//! The loops by their names, and what they wait with.

use std::io;
use std::ops::Deref;

use super::event_loop::BaseEventLoop;
use crate::driver::AnyDriver;

/// The loop over readiness: epoll on Linux, kqueue on macOS and the BSDs.
///
/// ```
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
/// event_loop.close()?;
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SelectorEventLoop(BaseEventLoop);

/// The loop over completion: io_uring on Linux. Other systems have none.
///
/// ```
/// use hotloop::asyncio::{BaseEventLoop, ProactorEventLoop, SelectorEventLoop};
/// // A kernel, or a filter of system calls, may refuse it.
/// let event_loop: BaseEventLoop = match ProactorEventLoop::new() {
///     Ok(proactor) => proactor.into(),
///     Err(_) => SelectorEventLoop::new()?.into(),
/// };
/// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProactorEventLoop(BaseEventLoop);

/// What a [`SelectorEventLoop`] waits with: the kernel's facilities on this platform, under the names of Python's
/// `selectors`. The variants of another platform are not there: a program that names one does not compile.
///
/// ```
/// use hotloop::asyncio::Selector;
/// let names: Vec<_> = Selector::ALL.iter().map(|selector| selector.name()).collect();
/// assert!(names.contains(&Selector::default().name()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// `epoll(7)`: a wait costs by what is ready.
    #[cfg(epoll)]
    #[default]
    Epoll,
    /// `kqueue(2)`: a wait costs by what is ready.
    #[cfg(kqueue)]
    #[default]
    Kqueue,
    /// `poll(2)`: a wait costs by what is watched.
    Poll,
    /// `select(2)`: as poll, and it refuses descriptors from `FD_SETSIZE` (1,024) on.
    Select,
}

impl Selector {
    /// All of this platform, the best one first.
    ///
    /// ```
    /// use hotloop::asyncio::{Selector, SelectorEventLoop};
    /// for &selector in Selector::ALL {
    ///     let event_loop = SelectorEventLoop::with_selector(selector)?;
    ///     assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
    /// }
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub const ALL: &'static [Self] = &[
        #[cfg(epoll)]
        Self::Epoll,
        #[cfg(kqueue)]
        Self::Kqueue,
        Self::Poll,
        Self::Select,
    ];

    /// What the kernel calls it.
    ///
    /// ```
    /// assert_eq!(hotloop::asyncio::Selector::Poll.name(), "poll");
    /// ```
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(epoll)]
            Self::Epoll => "epoll",
            #[cfg(kqueue)]
            Self::Kqueue => "kqueue",
            Self::Poll => "poll",
            Self::Select => "select",
        }
    }
}

impl SelectorEventLoop {
    /// A new loop over the best selector of the platform.
    ///
    /// # Errors
    /// The system's: no descriptor left, most likely.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert!(!event_loop.is_running());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn new() -> io::Result<Self> {
        Self::with_selector(Selector::default())
    }

    /// A new loop over a selector of the program's choice.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    ///
    /// ```
    /// use hotloop::asyncio::{Selector, SelectorEventLoop};
    /// let event_loop = SelectorEventLoop::with_selector(Selector::Select)?;
    /// assert_eq!(event_loop.run_until_complete(async { 6 * 7 })?, 42);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn with_selector(selector: Selector) -> io::Result<Self> {
        let driver = AnyDriver::by_name(selector.name())?.ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self(BaseEventLoop::over(driver)))
    }
}

impl ProactorEventLoop {
    /// A new loop over the platform's completion facility.
    ///
    /// # Errors
    /// Why the kernel refuses io_uring; `Unsupported` on other systems than Linux.
    ///
    /// ```
    /// use hotloop::asyncio::ProactorEventLoop;
    /// match ProactorEventLoop::new() {
    ///     Ok(event_loop) => assert!(!event_loop.is_running()),
    ///     Err(refused) => eprintln!("no io_uring here: {refused}"),
    /// }
    /// ```
    pub fn new() -> io::Result<Self> {
        Ok(Self(BaseEventLoop::over(AnyDriver::proactor()?)))
    }
}

impl Deref for SelectorEventLoop {
    type Target = BaseEventLoop;
    fn deref(&self) -> &BaseEventLoop {
        &self.0
    }
}

impl Deref for ProactorEventLoop {
    type Target = BaseEventLoop;
    fn deref(&self) -> &BaseEventLoop {
        &self.0
    }
}

impl From<SelectorEventLoop> for BaseEventLoop {
    fn from(event_loop: SelectorEventLoop) -> Self {
        event_loop.0
    }
}

impl From<ProactorEventLoop> for BaseEventLoop {
    fn from(event_loop: ProactorEventLoop) -> Self {
        event_loop.0
    }
}
