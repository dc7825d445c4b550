//! What all loops have in common, for code that does not care which one it is given.

use std::ops::Deref;

use super::event_loop::BaseEventLoop;
use super::loops::{ProactorEventLoop, SelectorEventLoop};
use crate::testing;

/// Any loop. What it can do are the functions of [`BaseEventLoop`], every one of them also through a
/// `dyn AbstractEventLoop`: `run_forever`, `call_soon`, `create_task`, `create_server` and so on.
///
/// A loop of a program's own stands on one of ours and says so by its `Deref`.
///
/// ```
/// use std::ops::Deref;
/// use hotloop::asyncio::{AbstractEventLoop, BaseEventLoop, Error, SelectorEventLoop};
///
/// fn answer(event_loop: &dyn AbstractEventLoop) -> Result<i32, Error> {
///     event_loop.run_until_complete(async { 6 * 7 })
/// }
///
/// struct Named(SelectorEventLoop, &'static str);
/// impl Deref for Named {
///     type Target = BaseEventLoop;
///     fn deref(&self) -> &BaseEventLoop {
///         &self.0
///     }
/// }
/// impl AbstractEventLoop for Named {}
///
/// let named = Named(SelectorEventLoop::new()?, "mine");
/// assert_eq!((answer(&named)?, named.1), (42, "mine"));
/// assert_eq!(answer(&SelectorEventLoop::new()?)?, 42);
/// // A `BaseEventLoop` is one behind a reference.
/// assert_eq!(answer(&&*named)?, 42);
/// # Ok::<(), Error>(())
/// ```
pub trait AbstractEventLoop: Deref<Target = BaseEventLoop> {}

impl AbstractEventLoop for SelectorEventLoop {}
impl AbstractEventLoop for ProactorEventLoop {}
impl AbstractEventLoop for testing::EventLoop {}
impl AbstractEventLoop for &BaseEventLoop {}
