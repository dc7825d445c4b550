//! Signals as callbacks.

use std::rc::Rc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::host::Callback;

impl BaseEventLoop {
    /// Calls `callback` after a signal came in, by its number. It replaces the one that was there.
    ///
    /// # Errors
    /// [`Error::Closed`]; `InvalidInput` for a signal that cannot be caught; the system's.
    ///
    /// ```
    /// use std::process::{Command, id};
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// const SIGUSR1: i32 = 10;
    /// let stopping = event_loop.clone();
    /// event_loop.add_signal_handler(SIGUSR1, move || stopping.stop())?;
    /// Command::new("kill").args(["-USR1", &id().to_string()]).status()?;
    /// event_loop.run_forever()?;
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn add_signal_handler(&self, signal: i32, callback: impl Fn() + 'static) -> Result<(), Error> {
        let key = self.keep(Rc::new(callback));
        let added = self.with_engine(|engine| engine.add_signal_handler(signal, Callback::Local(key)));
        match added {
            Ok(Ok(old)) => self.forget(old),
            Ok(Err(error)) => {
                self.forget(Some(Callback::Local(key)));
                return Err(error.into());
            }
            Err(error) => {
                self.forget(Some(Callback::Local(key)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives a signal its default action back. Answers whether it was handled.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// const SIGUSR2: i32 = 12;
    /// event_loop.add_signal_handler(SIGUSR2, || {})?;
    /// assert!(event_loop.remove_signal_handler(SIGUSR2));
    /// assert!(!event_loop.remove_signal_handler(SIGUSR2));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn remove_signal_handler(&self, signal: i32) -> bool {
        let old = self.with_engine(|engine| engine.remove_signal_handler(signal));
        let old = old.ok().flatten();
        let was = old.is_some();
        self.forget(old);
        was
    }
}
