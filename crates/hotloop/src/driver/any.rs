//! The drivers that a loop may run on, behind one type.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

#[cfg(io_uring)]
use super::Proactor;
use super::readiness::ReadinessDriver;
use super::sim::Sim;
use super::{
    Accepted, Address, Batch, Completion, Delegated, Driver, Op, OpKey, Outgoing, Poll, Select, Selector,
    SocketAddress, SystemPoller, SystemWaker, Unsent, Woken,
};

/// One of the drivers of this platform, chosen when a loop is made.
///
/// One engine for all of them, not one each: the transports of all loops are then the same classes, and which driver
/// it is costs a branch that goes the same way for the whole life of a loop.
pub enum AnyDriver {
    /// Readiness, of `SelectorEventLoop`.
    Selector(Selector),
    /// Completion, of `ProactorEventLoop`.
    #[cfg(io_uring)]
    Proactor(Box<Proactor>),
    /// Readiness by poll, where that is asked for.
    Poll(Box<ReadinessDriver<Poll>>),
    /// Readiness by select, where that is asked for.
    Select(Box<ReadinessDriver<Select>>),
    /// Readiness that a selector object in Python finds.
    Delegated(Box<ReadinessDriver<Delegated>>),
    /// A network in memory and a clock that jumps, of `hotloop::testing`.
    Sim(Box<Sim<SystemWaker>>),
}

/// Does the same with whichever driver it is.
macro_rules! on_any {
    ($any:expr, $driver:ident => $call:expr) => {
        match $any {
            AnyDriver::Selector($driver) => $call,
            #[cfg(io_uring)]
            AnyDriver::Proactor($driver) => $call,
            AnyDriver::Poll($driver) => $call,
            AnyDriver::Select($driver) => $call,
            AnyDriver::Delegated($driver) => $call,
            AnyDriver::Sim($driver) => $call,
        }
    };
}

impl AnyDriver {
    /// A driver by the name of its facility; `None` if there is none of that name.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, or why it refuses io_uring.
    pub fn by_name(name: &str) -> io::Result<Option<Self>> {
        Ok(Some(match name {
            SystemPoller::NAME => Self::selector()?,
            #[cfg(io_uring)]
            "io_uring" => Self::Proactor(Box::new(Proactor::new()?)),
            "poll" => Self::Poll(Box::new(ReadinessDriver::new(Poll::new()?))),
            "select" => Self::Select(Box::new(ReadinessDriver::new(Select::new()?))),
            "selector" => Self::Delegated(Box::new(ReadinessDriver::new(Delegated::new()?))),
            _ => return Ok(None),
        }))
    }

    /// The notes for the selector object, where one finds what is ready.
    pub fn delegated(&mut self) -> Option<&mut Delegated> {
        match self {
            Self::Delegated(driver) => Some(driver.poller_mut()),
            _ => None,
        }
    }

    /// The driver of `SelectorEventLoop`.
    ///
    /// # Errors
    /// The kernel's: no descriptor left, most likely.
    pub fn selector() -> io::Result<Self> {
        Ok(Self::Selector(Selector::new(SystemPoller::new()?)))
    }

    /// The driver of `ProactorEventLoop`.
    ///
    /// # Errors
    /// Why the kernel refuses io_uring; `Unsupported` on other systems than Linux.
    pub fn proactor() -> io::Result<Self> {
        #[cfg(io_uring)]
        return Ok(Self::Proactor(Box::new(Proactor::new()?)));
        #[cfg(not(io_uring))]
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the proactor loop needs Linux's io_uring: take the selector loop here",
        ))
    }

    /// What the kernel calls the facility underneath.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Selector(_) => SystemPoller::NAME,
            #[cfg(io_uring)]
            Self::Proactor(_) => "io_uring",
            Self::Poll(_) => "poll",
            Self::Select(_) => "select",
            Self::Delegated(_) => "selector",
            Self::Sim(_) => "sim",
        }
    }

    /// Begins to connect a new stream socket; see [`driver::connect`](super::connect).
    ///
    /// # Errors
    /// The kernel's: nothing has begun then.
    pub fn connect(&mut self, address: &SocketAddress) -> io::Result<(OwnedFd, bool)> {
        match (self, address) {
            (Self::Sim(sim), SocketAddress::Internet(address)) => Ok((sim.connect(*address)?, false)),
            (Self::Sim(_), _) => Err(io::ErrorKind::Unsupported.into()),
            _ => super::connect(address),
        }
    }

    /// A new socket that listens at an address; see [`driver::listen`](super::listen).
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(&mut self, address: &SocketAddress) -> io::Result<OwnedFd> {
        match (self, address) {
            (Self::Sim(sim), SocketAddress::Internet(address)) => sim.listen(*address),
            (Self::Sim(_), _) => Err(io::ErrorKind::Unsupported.into()),
            _ => super::listen(address),
        }
    }

    /// Takes the error that is pending on a socket: how a connection attempt went.
    ///
    /// # Errors
    /// The kernel's, if the descriptor is no socket.
    pub fn take_error(&mut self, fd: RawFd) -> io::Result<Option<io::Error>> {
        match self {
            Self::Sim(sim) => sim.take_error(fd),
            _ => super::take_error(fd),
        }
    }

    /// What the near end of a connection is called.
    ///
    /// # Errors
    /// The kernel's, if the descriptor is no socket.
    pub fn local_address(&self, fd: RawFd) -> io::Result<SocketAddress> {
        match self {
            Self::Sim(sim) => Ok(SocketAddress::Internet(sim.names(fd)?.0)),
            _ => super::local_address(fd),
        }
    }

    /// What the far end of a connection is called.
    ///
    /// # Errors
    /// The kernel's, if there is none.
    pub fn peer_address(&self, fd: RawFd) -> io::Result<SocketAddress> {
        match self {
            Self::Sim(sim) => {
                let peer = sim.names(fd)?.1.ok_or(io::ErrorKind::NotConnected)?;
                Ok(SocketAddress::Internet(peer))
            }
            _ => super::peer_address(fd),
        }
    }

    /// The address of a name, where that is not for the system to say.
    pub fn resolve(&mut self, host: &str) -> Option<IpAddr> {
        match self {
            Self::Sim(sim) => sim.resolve(host),
            _ => None,
        }
    }
}

impl Driver for AnyDriver {
    type Waker = <Selector as Driver>::Waker;

    fn waker(&self) -> Arc<Self::Waker> {
        on_any!(self, driver => driver.waker())
    }

    #[inline]
    fn submit(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        on_any!(self, driver => driver.submit(key, fd, op))
    }

    #[inline]
    fn cancel(&mut self, key: OpKey, fd: RawFd, op: Op) {
        on_any!(self, driver => driver.cancel(key, fd, op));
    }

    #[inline]
    fn replace(&mut self, key: OpKey, fd: RawFd, op: Op) -> io::Result<()> {
        on_any!(self, driver => driver.replace(key, fd, op))
    }

    fn release(&mut self, fd: RawFd) {
        on_any!(self, driver => driver.release(fd));
    }

    #[inline]
    fn post(&mut self, fd: RawFd, bytes: &[u8]) -> bool {
        on_any!(self, driver => driver.post(fd, bytes))
    }

    fn settle(&mut self, fd: RawFd) {
        on_any!(self, driver => driver.settle(fd));
    }

    #[inline]
    fn next_unsent(&mut self) -> Option<Unsent> {
        on_any!(self, driver => driver.next_unsent())
    }

    #[inline]
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Woken> {
        on_any!(self, driver => driver.wait(timeout))
    }

    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        on_any!(self, driver => driver.next_completion())
    }

    #[inline]
    fn has_completions(&self) -> bool {
        on_any!(self, driver => driver.has_completions())
    }

    #[inline]
    fn has_chores(&self) -> bool {
        on_any!(self, driver => driver.has_chores())
    }

    #[inline]
    fn has_told_all(&self) -> bool {
        on_any!(self, driver => driver.has_told_all())
    }

    #[inline]
    fn receive(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        on_any!(self, driver => driver.receive(fd, buffer))
    }

    #[inline]
    fn send(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        on_any!(self, driver => driver.send(fd, buffers))
    }

    #[inline]
    fn send_corked(&mut self, fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
        on_any!(self, driver => driver.send_corked(fd, bytes))
    }

    fn uncork(&mut self, fd: RawFd) {
        on_any!(self, driver => driver.uncork(fd));
    }

    #[inline]
    fn read(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        on_any!(self, driver => driver.read(fd, buffer))
    }

    #[inline]
    fn write(&mut self, fd: RawFd, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
        on_any!(self, driver => driver.write(fd, buffers))
    }

    #[inline]
    fn receive_datagrams(&mut self, fd: RawFd, batch: &mut Batch, limit: usize) -> io::Result<()> {
        on_any!(self, driver => driver.receive_datagrams(fd, batch, limit))
    }

    #[inline]
    fn receive_from(&mut self, fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<(usize, Address)> {
        on_any!(self, driver => driver.receive_from(fd, buffer))
    }

    #[inline]
    fn send_datagrams(&mut self, fd: RawFd, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        on_any!(self, driver => driver.send_datagrams(fd, datagrams))
    }

    #[inline]
    fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()> {
        on_any!(self, driver => driver.shutdown_write(fd))
    }

    #[inline]
    fn accept(&mut self, fd: RawFd) -> io::Result<Accepted> {
        on_any!(self, driver => driver.accept(fd))
    }
}
