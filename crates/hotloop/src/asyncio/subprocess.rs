//! Child processes with their pipes.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::thread;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::error::Error;
use super::event_loop::{BaseEventLoop, Local};
use super::future::Future;
use super::protocol::{Protocol, SubprocessProtocol};
use super::transport::Transport;
use crate::driver::Direction;
use crate::sys;

/// A child process. Clones are the same one. One that still runs when the last of them and its loop are gone is killed.
///
/// ```
/// use std::process::Command;
/// use std::rc::Rc;
/// use hotloop::asyncio::{Error, SelectorEventLoop, SubprocessProtocol, get_running_loop};
/// struct Silent;
/// impl SubprocessProtocol for Silent {}
/// let event_loop = SelectorEventLoop::new()?;
/// let status = event_loop.run_until_complete(async {
///     let mut command = Command::new("sleep");
///     command.arg("3600");
///     let (process, _) = get_running_loop()?.subprocess_exec(|| Rc::new(Silent), command).await?;
///     process.terminate()?;
///     process.wait().await
/// })??;
/// assert!(!status.success());
/// # Ok::<(), hotloop::asyncio::Error>(())
/// ```
#[derive(Clone)]
pub struct SubprocessTransport(Rc<Process>);

struct Process {
    event_loop: BaseEventLoop,
    pid: Pid,
    child: RefCell<Child>,
    /// Readable when the process has ended. Closed then; none where the kernel gives none.
    exit: RefCell<Option<OwnedFd>>,
    /// Set when the process has ended.
    returncode: Cell<Option<ExitStatus>>,
    /// Resolved by then.
    exited: Future<ExitStatus>,
    /// The pipes to its standard descriptors, by their numbers.
    pipes: [OnceCell<Transport>; 3],
    /// How many of them are not lost.
    connected: Cell<usize>,
    /// Taken after `connection_lost`.
    protocol: RefCell<Option<Rc<dyn SubprocessProtocol>>>,
    closed: Cell<bool>,
}

impl BaseEventLoop {
    /// Starts a program. Those of its standard descriptors that `command` says are [`Stdio::piped`] become transports;
    /// without a word, unlike asyncio's, they are this process's.
    ///
    /// The end of the process is heard of by a descriptor (pidfd, or a kqueue of its own), never by a signal: neither
    /// SIGCHLD nor other children are touched.
    ///
    /// # Errors
    /// The kernel's, if the program cannot be started; [`Error::Closed`].
    ///
    /// ```
    /// use std::process::Command;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, SubprocessProtocol, get_running_loop};
    /// struct Silent;
    /// impl SubprocessProtocol for Silent {}
    /// let event_loop = SelectorEventLoop::new()?;
    /// let status = event_loop.run_until_complete(async {
    ///     let (process, _) = get_running_loop()?.subprocess_exec(|| Rc::new(Silent), Command::new("true")).await?;
    ///     process.wait().await
    /// })??;
    /// assert!(status.success());
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn subprocess_exec<P: SubprocessProtocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        mut command: Command,
    ) -> Result<(SubprocessTransport, Rc<P>), Error> {
        self.check_closed()?;
        let protocol = factory();
        let child = command.spawn()?;
        let process = SubprocessTransport::open(self, child, protocol.clone())?;
        self.wait_begun(|| process.close()).await?;
        Ok((process, protocol))
    }

    /// Starts a line of the shell, with pipes to all of its standard descriptors.
    ///
    /// # Errors
    /// As of [`subprocess_exec`](Self::subprocess_exec).
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, SelectorEventLoop, SubprocessProtocol, SubprocessTransport, get_running_loop};
    /// struct Heard;
    /// impl SubprocessProtocol for Heard {
    ///     fn pipe_data_received(&self, _: &SubprocessTransport, fd: i32, data: &[u8]) {
    ///         assert_eq!((fd, data), (1, b"hello\n".as_slice()));
    ///     }
    ///     fn connection_lost(&self, process: &SubprocessTransport) {
    ///         assert_eq!(process.returncode().and_then(|status| status.code()), Some(3));
    ///         process.event_loop().stop();
    ///     }
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     get_running_loop()?.subprocess_shell(|| Rc::new(Heard), "echo hello; exit 3").await
    /// })??;
    /// event_loop.run_forever()?;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn subprocess_shell<P: SubprocessProtocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        line: &str,
    ) -> Result<(SubprocessTransport, Rc<P>), Error> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(line);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.subprocess_exec(factory, command).await
    }
}

impl SubprocessTransport {
    fn open(
        event_loop: &BaseEventLoop,
        mut child: Child,
        protocol: Rc<dyn SubprocessProtocol>,
    ) -> Result<Self, Error> {
        let ends = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        let this = Self(Rc::new(Process {
            event_loop: event_loop.clone(),
            pid: Pid::from_child(&child),
            child: RefCell::new(child),
            exit: RefCell::new(None),
            returncode: Cell::new(None),
            exited: event_loop.create_future(),
            pipes: Default::default(),
            connected: Cell::new(0),
            protocol: RefCell::new(Some(protocol)),
            closed: Cell::new(false),
        }));
        for ((fd, end), pipe) in (0..).zip(ends).zip(&this.0.pipes) {
            let Some(end) = end else { continue };
            let process = this.clone();
            let transport = event_loop.open_pipe(end, fd != 0, Rc::new(Pipe { process, fd }))?;
            this.0.connected.set(this.0.connected.get() + 1);
            // It is the only one of its number.
            drop(pipe.set(transport));
        }
        let begun = this.clone();
        // The pipes read from the next turn on, so this is told first.
        event_loop.call_soon(move || {
            begun.tell("connection_made", |protocol| protocol.connection_made(&begun));
            begun.await_end();
        })?;
        Ok(this)
    }

    /// The number of the process.
    ///
    /// ```
    /// use hotloop::asyncio::SubprocessTransport;
    /// fn name(process: &SubprocessTransport) -> String {
    ///     format!("process {}", process.get_pid())
    /// }
    /// ```
    #[must_use]
    pub fn get_pid(&self) -> i32 {
        self.0.pid.as_raw_nonzero().get()
    }

    /// How the process has ended; `None` while it runs.
    ///
    /// ```
    /// use hotloop::asyncio::SubprocessTransport;
    /// fn has_failed(process: &SubprocessTransport) -> bool {
    ///     process.returncode().is_some_and(|status| !status.success())
    /// }
    /// ```
    #[must_use]
    pub fn returncode(&self) -> Option<ExitStatus> {
        self.0.returncode.get()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// None but [`Error::Cancelled`], if the loop goes before.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SubprocessTransport};
    /// async fn succeeds(process: &SubprocessTransport) -> Result<bool, Error> {
    ///     Ok(process.wait().await?.success())
    /// }
    /// ```
    pub async fn wait(&self) -> Result<ExitStatus, Error> {
        self.0.exited.clone().await
    }

    /// The transport of a pipe to the process: 0 is its standard input, 1 its output, 2 its errors.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SubprocessTransport};
    /// fn tell(process: &SubprocessTransport, line: &[u8]) -> Result<(), Error> {
    ///     match process.get_pipe_transport(0) {
    ///         Some(stdin) => stdin.write(line),
    ///         None => Ok(()),
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn get_pipe_transport(&self, fd: i32) -> Option<&Transport> {
        self.0.pipes.get(usize::try_from(fd).ok()?)?.get()
    }

    /// Sends a signal by its number.
    ///
    /// # Errors
    /// `NotFound` if the process has ended; `InvalidInput` if there is no such signal, or it has no name (real-time signals); the kernel's.
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SubprocessTransport};
    /// fn reload(process: &SubprocessTransport) -> Result<(), Error> {
    ///     const SIGHUP: i32 = 1;
    ///     process.send_signal(SIGHUP)
    /// }
    /// ```
    pub fn send_signal(&self, signal: i32) -> Result<(), Error> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        };
        if self.returncode().is_some() {
            return Err(Error::Io(io::ErrorKind::NotFound.into()));
        }
        // Nobody else waits for it, so the number is the process's until it is reaped here.
        kill_process(self.0.pid, signal).map_err(io::Error::from)?;
        Ok(())
    }

    /// Asks the process to end (SIGTERM).
    ///
    /// # Errors
    /// As of [`send_signal`](Self::send_signal).
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SubprocessTransport};
    /// fn ask_to_end(process: &SubprocessTransport) -> Result<(), Error> {
    ///     process.terminate()
    /// }
    /// ```
    pub fn terminate(&self) -> Result<(), Error> {
        self.send_signal(Signal::TERM.as_raw())
    }

    /// Ends the process (SIGKILL).
    ///
    /// # Errors
    /// As of [`send_signal`](Self::send_signal).
    ///
    /// ```
    /// use hotloop::asyncio::{Error, SubprocessTransport};
    /// fn end(process: &SubprocessTransport) -> Result<(), Error> {
    ///     process.kill()
    /// }
    /// ```
    pub fn kill(&self) -> Result<(), Error> {
        self.send_signal(Signal::KILL.as_raw())
    }

    /// Closes the pipes, and kills the process if it still runs. `connection_lost` follows its end.
    ///
    /// ```
    /// use hotloop::asyncio::SubprocessTransport;
    /// fn finish(process: &SubprocessTransport) {
    ///     process.close();
    ///     assert!(process.is_closing());
    /// }
    /// ```
    pub fn close(&self) {
        if self.0.closed.replace(true) {
            return;
        }
        for pipe in self.0.pipes.iter().filter_map(OnceCell::get) {
            pipe.close();
        }
        if self.returncode().is_none() {
            // It ends just now by itself: the better.
            drop(self.kill());
        }
    }

    /// Whether [`close`](Self::close) was called, or the process and its pipes have ended.
    ///
    /// ```
    /// use hotloop::asyncio::SubprocessTransport;
    /// fn is_of_use(process: &SubprocessTransport) -> bool {
    ///     !process.is_closing()
    /// }
    /// ```
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.closed.get()
    }

    /// Its loop.
    ///
    /// ```
    /// use hotloop::asyncio::SubprocessTransport;
    /// fn stop(process: &SubprocessTransport) {
    ///     process.event_loop().stop();
    /// }
    /// ```
    #[must_use]
    pub fn event_loop(&self) -> &BaseEventLoop {
        &self.0.event_loop
    }

    /// Sees to it that the end of the process is heard of.
    fn await_end(&self) {
        let event_loop = &self.0.event_loop;
        if let Ok(exit) = sys::exit_of(self.0.pid) {
            let fd = exit.as_raw_fd();
            *self.0.exit.borrow_mut() = Some(exit);
            let ended = self.clone();
            if event_loop.add_reader(fd, move || ended.reap()).is_ok() {
                return;
            }
        }
        // An old kernel or a filter refuses, or kqueue, which may not know a process that has ended: a thread waits, and
        // leaves the process to be reaped by the loop.
        let (pid, threadsafe) = (self.0.pid, event_loop.threadsafe());
        let ended = self.clone();
        let reap = Local::Once(Box::new(move || ended.reap()));
        let key = event_loop.0.callbacks.borrow_mut().insert(reap);
        let wait = move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
            // A loop that is closed does not want to know.
            threadsafe.call_local(key);
        };
        if thread::Builder::new().spawn(wait).is_err() {
            self.exited(unknown());
        }
    }

    fn reap(&self) {
        let waited = self.0.child.borrow_mut().try_wait();
        match waited {
            Ok(None) => {}
            Ok(Some(status)) => self.exited(status),
            // Somebody else has waited for it.
            Err(_) => self.exited(unknown()),
        }
    }

    fn exited(&self, status: ExitStatus) {
        let exit = self.0.exit.borrow_mut().take();
        if let Some(exit) = &exit {
            self.0.event_loop.unwatch(exit.as_raw_fd(), Direction::Read);
        }
        drop(exit);
        self.0.returncode.set(Some(status));
        self.tell("process_exited", |protocol| protocol.process_exited(self));
        // Nobody else sets it.
        drop(self.0.exited.set_result(status));
        self.finish();
    }

    /// Tells the end, once the process has ended and no pipe is left.
    fn finish(&self) {
        if self.returncode().is_none() || self.0.connected.get() > 0 {
            return;
        }
        self.0.closed.set(true);
        let lost = self.clone();
        drop(self.0.event_loop.call_soon(move || {
            lost.tell("connection_lost", |protocol| protocol.connection_lost(&lost));
            let protocol = lost.0.protocol.borrow_mut().take();
            drop(protocol);
        }));
    }

    /// Calls the protocol. A panic goes to the exception handler and ends the process.
    fn tell(&self, what: &str, call: impl FnOnce(&dyn SubprocessProtocol)) {
        let protocol = self.0.protocol.borrow().clone();
        let Some(protocol) = protocol else { return };
        if !self.0.event_loop.tell_protocol(what, || call(&*protocol)) {
            self.close();
        }
    }
}

/// A pipe to a process, whose protocol hears of it.
struct Pipe {
    process: SubprocessTransport,
    fd: i32,
}

impl Protocol for Pipe {
    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.process.tell("pipe_data_received", |protocol| {
            protocol.pipe_data_received(&self.process, self.fd, data);
        });
    }

    fn connection_lost(&self, _: &Transport, error: Option<io::Error>) {
        self.process.tell("pipe_connection_lost", |protocol| {
            protocol.pipe_connection_lost(&self.process, self.fd, error);
        });
        let connected = &self.process.0.connected;
        connected.set(connected.get().saturating_sub(1));
        self.process.finish();
    }

    fn pause_writing(&self, _: &Transport) {
        let process = &self.process;
        process.tell("pause_writing", |protocol| protocol.pause_writing(process));
    }

    fn resume_writing(&self, _: &Transport) {
        let process = &self.process;
        process.tell("resume_writing", |protocol| protocol.resume_writing(process));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.returncode.get().is_some() {
            return;
        }
        // Not there any more: the better.
        drop(self.child.get_mut().kill());
        let pid = self.pid;
        // A thread reaps it: this one must not wait. Without a thread it is left to whoever inherits it.
        drop(thread::Builder::new().spawn(move || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).is_ok()));
    }
}

impl fmt::Debug for SubprocessTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SubprocessTransport")
            .field("pid", &self.get_pid())
            .field("returncode", &self.returncode())
            .finish()
    }
}

/// The status of a process that somebody else has waited for (asyncio's 255).
fn unknown() -> ExitStatus {
    ExitStatus::from_raw(255 << 8)
}
