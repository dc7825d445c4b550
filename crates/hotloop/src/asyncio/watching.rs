//! Waiting for a descriptor, by a callback or by a task.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::future::Future;
use super::host::{Callback, CallbackKey};
use crate::driver::Direction;

impl BaseEventLoop {
    /// Calls `callback` on each turn in which a descriptor is readable, until
    /// [`remove_reader`](Self::remove_reader). It replaces the one that was there.
    ///
    /// # Errors
    /// [`Error::Closed`]; the kernel's, if it refuses the descriptor.
    ///
    /// ```
    /// use std::io::Write;
    /// use std::os::fd::AsRawFd;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let stopping = event_loop.clone();
    /// event_loop.add_reader(reader.as_raw_fd(), move || stopping.stop())?;
    /// writer.write_all(b"x")?;
    /// event_loop.run_forever()?;
    /// event_loop.remove_reader(reader.as_raw_fd());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn add_reader(&self, fd: RawFd, callback: impl Fn() + 'static) -> Result<(), Error> {
        self.watch(fd, Direction::Read, Rc::new(callback)).map(drop)
    }

    /// As [`add_reader`](Self::add_reader), for writing.
    ///
    /// # Errors
    /// As of `add_reader`.
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (_reader, writer) = std::io::pipe()?;
    /// let stopping = event_loop.clone();
    /// event_loop.add_writer(writer.as_raw_fd(), move || stopping.stop())?;
    /// event_loop.run_forever()?;
    /// event_loop.remove_writer(writer.as_raw_fd());
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn add_writer(&self, fd: RawFd, callback: impl Fn() + 'static) -> Result<(), Error> {
        self.watch(fd, Direction::Write, Rc::new(callback)).map(drop)
    }

    /// Ends [`add_reader`](Self::add_reader). Answers whether there was one.
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (reader, _writer) = std::io::pipe()?;
    /// event_loop.add_reader(reader.as_raw_fd(), || {})?;
    /// assert!(event_loop.remove_reader(reader.as_raw_fd()));
    /// assert!(!event_loop.remove_reader(reader.as_raw_fd()));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn remove_reader(&self, fd: RawFd) -> bool {
        self.unwatch(fd, Direction::Read)
    }

    /// Ends [`add_writer`](Self::add_writer). Answers whether there was one.
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    /// use hotloop::asyncio::SelectorEventLoop;
    /// let event_loop = SelectorEventLoop::new()?;
    /// let (_reader, writer) = std::io::pipe()?;
    /// event_loop.add_writer(writer.as_raw_fd(), || {})?;
    /// assert!(event_loop.remove_writer(writer.as_raw_fd()));
    /// assert!(!event_loop.remove_writer(writer.as_raw_fd()));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub fn remove_writer(&self, fd: RawFd) -> bool {
        self.unwatch(fd, Direction::Write)
    }

    /// Calls a closure on each turn in which a descriptor is ready. Answers the name of it.
    pub(crate) fn watch(
        &self,
        fd: RawFd,
        direction: Direction,
        callback: Rc<dyn Fn()>,
    ) -> Result<CallbackKey, Error> {
        self.check_no_transport(fd)?;
        self.start_watching(fd, direction, callback)
    }

    /// The same of a descriptor that may be a transport's.
    fn start_watching(
        &self,
        fd: RawFd,
        direction: Direction,
        callback: Rc<dyn Fn()>,
    ) -> Result<CallbackKey, Error> {
        let key = self.keep(callback);
        // A handle that is refused comes back as an event, and is forgotten there.
        let old = self.with_engine(|engine| engine.watch(fd, direction, Callback::Local(key)))??;
        self.forget(old);
        Ok(key)
    }

    /// Ends that. Answers whether anything watched.
    pub(crate) fn unwatch(&self, fd: RawFd, direction: Direction) -> bool {
        let old = self.with_engine(|engine| engine.unwatch(fd, direction));
        let old = old.ok().flatten();
        let was = old.is_some();
        self.forget(old);
        was
    }

    /// Refuses a descriptor that a transport has.
    pub(crate) fn check_no_transport(&self, fd: RawFd) -> Result<(), Error> {
        if self.with_engine(|engine| engine.has_stream(fd))? {
            return Err(Error::UsedByTransport(fd));
        }
        Ok(())
    }

    /// Waits until a descriptor is ready, once.
    pub(crate) async fn wait_ready(&self, fd: RawFd, direction: Direction) -> Result<(), Error> {
        self.check_no_transport(fd)?;
        self.wait_for(fd, direction, self.create_future()).await
    }

    /// The same of a descriptor that may be a transport's; who has `ready` may cancel it.
    pub(crate) async fn wait_for(
        &self,
        fd: RawFd,
        direction: Direction,
        ready: Future<()>,
    ) -> Result<(), Error> {
        let setter = ready.clone();
        // Set once: a turn that finds it ready again has nothing to add.
        let key = self.start_watching(fd, direction, Rc::new(move || drop(setter.set_result(()))))?;
        let watched = Watched {
            event_loop: self,
            fd,
            direction,
            key,
        };
        ready.await?;
        drop(watched);
        Ok(())
    }
}

/// Ends a watcher when it is dropped, also where its task is cancelled; but not another that has taken its place.
struct Watched<'a> {
    event_loop: &'a BaseEventLoop,
    fd: RawFd,
    direction: Direction,
    key: CallbackKey,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let (fd, direction) = (self.fd, self.direction);
        let own = self.event_loop.with_engine(
            |engine| matches!(engine.watcher(fd, direction), Some(Callback::Local(key)) if *key == self.key),
        );
        if matches!(own, Ok(true)) {
            self.event_loop.unwatch(fd, direction);
        }
    }
}
