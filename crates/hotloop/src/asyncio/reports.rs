//! Errors that nobody awaits, and callbacks that take long: who is told of them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::error::Panic;
use super::event_loop::BaseEventLoop;

/// Told of errors that nobody else can be told of.
///
/// ```
/// use std::rc::Rc;
/// use hotloop::asyncio::{BaseEventLoop, ExceptionHandler, Report};
/// let handler: Rc<ExceptionHandler> = Rc::new(|event_loop: &BaseEventLoop, _: &Report| event_loop.stop());
/// ```
pub type ExceptionHandler = dyn Fn(&BaseEventLoop, &Report);

/// What an exception handler is told.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use hotloop::asyncio::SelectorEventLoop;
/// let event_loop = SelectorEventLoop::new()?;
/// let told = Rc::new(RefCell::new(String::new()));
/// let telling = Rc::clone(&told);
/// event_loop.set_exception_handler(Some(Rc::new(move |_, report| {
///     let panic = report.panic.as_ref().map_or("none", |panic| panic.message());
///     *telling.borrow_mut() = format!("{}: {panic}", report.message);
/// })));
/// event_loop.call_soon(|| panic!("oh no"))?;
/// event_loop.run_until_complete(async {})?;
/// assert_eq!(*told.borrow(), "Exception in callback: oh no");
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What went wrong.
    pub message: String,
    /// The panic, if there was one.
    pub panic: Option<Panic>,
    /// The error, if there was one.
    pub error: Option<io::Error>,
}

/// A report of a program's own: a message, to which a panic or an error may be added.
impl From<&str> for Report {
    fn from(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            panic: None,
            error: None,
        }
    }
}

impl BaseEventLoop {
    /// Sets what is told of errors that nobody else can be told of; `None` is the default, which prints them.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let stopping = |event_loop: &hotloop::asyncio::BaseEventLoop, _: &_| event_loop.stop();
    /// event_loop.set_exception_handler(Some(Rc::new(stopping)));
    /// event_loop.call_soon(|| panic!("the loop ends"))?;
    /// event_loop.run_forever()?;
    /// event_loop.set_exception_handler(None);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_exception_handler(&self, handler: Option<Rc<ExceptionHandler>>) {
        let old = self.0.exception_handler.replace(handler);
        drop(old);
    }

    /// What was set by [`set_exception_handler`](Self::set_exception_handler), if that is not the default.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert!(event_loop.get_exception_handler().is_none());
    /// event_loop.set_exception_handler(Some(Rc::new(|_, _| {})));
    /// assert!(event_loop.get_exception_handler().is_some());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn get_exception_handler(&self) -> Option<Rc<ExceptionHandler>> {
        self.0.exception_handler.borrow().clone()
    }

    /// Tells the exception handler. One that panics itself is printed.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let told = Rc::new(Cell::new(0));
    /// let telling = Rc::clone(&told);
    /// event_loop.set_exception_handler(Some(Rc::new(move |_, _| telling.set(telling.get() + 1))));
    /// event_loop.call_exception_handler(&"the cache could not be saved".into());
    /// assert_eq!(told.get(), 1);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn call_exception_handler(&self, report: &Report) {
        let handler = self.0.exception_handler.borrow().clone();
        let told = handler.map(|handler| catch_unwind(AssertUnwindSafe(|| handler(self, report))));
        match told {
            Some(Ok(())) => {}
            Some(Err(_)) => {
                eprintln!("Unhandled error in exception handler");
                Self::default_exception_handler(report);
            }
            None => Self::default_exception_handler(report),
        }
    }

    /// Prints a report on the standard error stream.
    ///
    /// ```
    /// use hotloop::asyncio::BaseEventLoop;
    /// BaseEventLoop::default_exception_handler(&"the cache could not be saved".into());
    /// ```
    pub fn default_exception_handler(report: &Report) {
        eprint!("{}", report.message);
        if let Some(panic) = &report.panic {
            eprint!(": {panic}");
        }
        if let Some(error) = &report.error {
            eprint!(": {error}");
        }
        eprintln!();
    }

    /// Whether it is in debug mode: callbacks that take long are reported to the exception handler.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// assert!(!event_loop.get_debug());
    /// event_loop.set_debug(true);
    /// assert!(event_loop.get_debug());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    #[must_use]
    pub fn get_debug(&self) -> bool {
        self.0.debug.get()
    }

    /// Turns debug mode on or off.
    ///
    /// ```
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.set_debug(true);
    /// assert!(event_loop.get_debug());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_debug(&self, enabled: bool) {
        self.0.debug.set(enabled);
    }

    /// Sets how long a callback may take before debug mode reports it. 100 ms unless told.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    /// use std::time::Duration;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let reports = Rc::new(Cell::new(0));
    /// let counting = Rc::clone(&reports);
    /// event_loop.set_exception_handler(Some(Rc::new(move |_, _| counting.set(counting.get() + 1))));
    /// event_loop.set_debug(true);
    /// event_loop.set_slow_callback_duration(Duration::ZERO);
    /// event_loop.run_until_complete(async {})?;
    /// assert!(reports.get() > 0);
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn set_slow_callback_duration(&self, duration: Duration) {
        self.0.slow_callback_duration.set(duration.as_secs_f64());
    }

    /// Runs code of the program; a panic goes to the exception handler.
    pub(crate) fn guard(&self, what: &str, run: impl FnOnce()) {
        let ran = self.timed(what, || catch_unwind(AssertUnwindSafe(run)));
        if let Err(payload) = ran {
            self.call_exception_handler(&Report {
                message: format!("Exception in {what}"),
                panic: Some(Panic::new(payload)),
                error: None,
            });
        }
    }

    /// Runs code of the program, and in debug mode looks at the clock.
    pub(crate) fn timed<R>(&self, what: &str, run: impl FnOnce() -> R) -> R {
        if !self.get_debug() {
            return run();
        }
        let start = self.time();
        let result = run();
        let seconds = self.time() - start;
        if seconds >= self.0.slow_callback_duration.get() {
            self.call_exception_handler(&Report {
                message: format!("Executing {what} took {seconds:.3} seconds"),
                panic: None,
                error: None,
            });
        }
        result
    }

    /// Calls a protocol. Answers false if it panicked, which the exception handler has been told then.
    pub(crate) fn tell_protocol(&self, what: &str, call: impl FnOnce()) -> bool {
        let Err(payload) = self.timed(what, || catch_unwind(AssertUnwindSafe(call))) else {
            return true;
        };
        self.call_exception_handler(&Report {
            message: format!("Fatal error: protocol.{what}() call failed."),
            panic: Some(Panic::new(payload)),
            error: None,
        });
        false
    }
}
