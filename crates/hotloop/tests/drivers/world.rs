//! Where a driver under test lives, and what the tests do with it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hotloop::clock::{Clock, Manual};
use hotloop::driver::readiness::ReadinessDriver;
use hotloop::driver::sim::{Network, Sim};
use hotloop::driver::{Address, Completion, Driver, OpKey, Outcome, Poll, Select, Selector, SystemPoller};
#[cfg(io_uring)]
use hotloop::driver::{Proactor, Settings};
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// A driver's surroundings: connections whose far end the test holds.
pub(crate) trait World: Sized {
    type Driver: Driver;

    fn new() -> io::Result<Self>;

    fn driver(&self) -> io::Result<Self::Driver>;

    /// A new connection: the number of its near end.
    fn connect(&self) -> io::Result<RawFd>;

    /// Lets bytes come in at the near end.
    fn feed(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()>;

    /// Lets the far end stop sending.
    fn feed_end(&self, fd: RawFd) -> io::Result<()>;

    /// Takes all that the near end sent, and so makes room again.
    fn drain(&self, fd: RawFd) -> io::Result<Vec<u8>>;

    /// Whether the far end, which has taken all, knows that nothing more will come.
    fn has_ended(&self, fd: RawFd) -> io::Result<bool>;

    /// A new datagram socket, connected to nobody, and the address of another one that the test holds.
    fn datagrams(&self) -> io::Result<(RawFd, Address)>;

    /// Lets a datagram from that address come in.
    fn feed_datagram(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()>;

    /// Takes all datagrams that were sent to that address.
    fn drain_datagrams(&self, fd: RawFd) -> io::Result<Vec<Vec<u8>>>;

    /// The time since the world began.
    fn now(&self) -> Duration;
}

/// Makes the driver of a world of the kernel.
pub(crate) trait Maker {
    type Driver: Driver;

    fn make() -> io::Result<Self::Driver>;
}

/// Makes the best readiness driver.
pub(crate) struct Readiness;

impl Maker for Readiness {
    type Driver = Selector;

    fn make() -> io::Result<Selector> {
        Ok(Selector::new(SystemPoller::new()?))
    }
}

/// Makes a driver over poll.
pub(crate) struct Polled;

impl Maker for Polled {
    type Driver = ReadinessDriver<Poll>;

    fn make() -> io::Result<Self::Driver> {
        Ok(ReadinessDriver::new(Poll::new()?))
    }
}

/// Makes a driver over select.
pub(crate) struct Selected;

impl Maker for Selected {
    type Driver = ReadinessDriver<Select>;

    fn make() -> io::Result<Self::Driver> {
        Ok(ReadinessDriver::new(Select::new()?))
    }
}

/// Makes the best completion driver.
#[cfg(io_uring)]
pub(crate) struct Completing;

#[cfg(io_uring)]
impl Maker for Completing {
    type Driver = Proactor;

    fn make() -> io::Result<Proactor> {
        Proactor::new()
    }
}

/// Makes a completion driver that enters its ring for all that there is.
#[cfg(io_uring)]
pub(crate) struct Entering;

#[cfg(io_uring)]
impl Maker for Entering {
    type Driver = Proactor;

    fn make() -> io::Result<Proactor> {
        Proactor::with(Settings {
            spares_ring: false,
            ..Settings::default()
        })
    }
}

/// Makes one that the kernel only tells that epoll has something to report, as before Linux 6.15.
#[cfg(io_uring)]
pub(crate) struct Polling;

#[cfg(io_uring)]
impl Maker for Polling {
    type Driver = Proactor;

    fn make() -> io::Result<Proactor> {
        Proactor::with(Settings {
            takes_events: false,
            spares_ring: false,
            ..Settings::default()
        })
    }
}

/// Makes a completion driver that receives by itself from the beginning of each stream.
#[cfg(io_uring)]
pub(crate) struct Eager;

#[cfg(io_uring)]
impl Maker for Eager {
    type Driver = Proactor;

    fn make() -> io::Result<Proactor> {
        Proactor::with(Settings {
            receive_after: 0,
            ..Settings::default()
        })
    }
}

/// Unix sockets of the kernel, under a driver over it.
pub(crate) struct Kernel<M> {
    maker: PhantomData<M>,
    /// Near and far end, by the number of the near one.
    connections: RefCell<BTreeMap<RawFd, (UnixStream, UnixStream)>>,
    /// Datagram sockets likewise.
    datagrams: RefCell<BTreeMap<RawFd, (UdpSocket, UdpSocket)>>,
    began: Instant,
}

impl<M: Maker> World for Kernel<M> {
    type Driver = M::Driver;

    fn new() -> io::Result<Self> {
        Ok(Self {
            maker: PhantomData,
            connections: RefCell::default(),
            datagrams: RefCell::default(),
            began: Instant::now(),
        })
    }

    fn driver(&self) -> io::Result<M::Driver> {
        M::make()
    }

    fn connect(&self) -> io::Result<RawFd> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let fd = near.as_raw_fd();
        self.connections.borrow_mut().insert(fd, (near, far));
        Ok(fd)
    }

    fn feed(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        (&self.connections.borrow()[&fd].1).write_all(bytes)
    }

    fn feed_end(&self, fd: RawFd) -> io::Result<()> {
        self.connections.borrow()[&fd].1.shutdown(Shutdown::Write)
    }

    fn drain(&self, fd: RawFd) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (&self.connections.borrow()[&fd].1).read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes),
        }
    }

    fn has_ended(&self, fd: RawFd) -> io::Result<bool> {
        let far = &self.connections.borrow()[&fd].1;
        match rustix::net::recv(far, &mut [0; 1], RecvFlags::PEEK) {
            Ok((_, count)) => Ok(count == 0),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn datagrams(&self) -> io::Result<(RawFd, Address)> {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let (fd, address) = (near.as_raw_fd(), far.local_addr()?);
        self.datagrams.borrow_mut().insert(fd, (near, far));
        Ok((fd, address.into()))
    }

    fn feed_datagram(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        let (near, far) = &self.datagrams.borrow()[&fd];
        far.send_to(bytes, near.local_addr()?).map(drop)
    }

    fn drain_datagrams(&self, fd: RawFd) -> io::Result<Vec<Vec<u8>>> {
        let far = &self.datagrams.borrow()[&fd].1;
        let (mut all, mut buffer) = (Vec::new(), [0; 65536]);
        loop {
            match far.recv(&mut buffer) {
                Ok(count) => all.push(buffer[..count].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error),
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// The scripted descriptors of the simulation.
pub(crate) struct Simulated {
    network: Network,
    clock: Manual,
    /// The number opened last.
    last: Cell<RawFd>,
}

/// How many bytes a scripted descriptor sends before it has no room.
const ROOM: usize = 64 * 1024;

/// Where the datagrams of the simulation go to and come from.
fn far() -> Address {
    SocketAddr::from(([127, 0, 0, 1], 9)).into()
}

impl World for Simulated {
    type Driver = Sim;

    fn new() -> io::Result<Self> {
        Ok(Self {
            network: Network::default(),
            clock: Manual::default(),
            last: Cell::new(10),
        })
    }

    fn driver(&self) -> io::Result<Sim> {
        Ok(Sim::new(self.network.clone(), self.clock.clone()))
    }

    fn connect(&self) -> io::Result<RawFd> {
        let fd = self.last.get() + 1;
        self.last.set(fd);
        self.network.open(fd, ROOM);
        Ok(fd)
    }

    fn feed(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        self.network.feed(fd, bytes);
        Ok(())
    }

    fn feed_end(&self, fd: RawFd) -> io::Result<()> {
        self.network.feed_end(fd);
        Ok(())
    }

    fn drain(&self, fd: RawFd) -> io::Result<Vec<u8>> {
        let (bytes, _) = self.network.take_sent(fd);
        self.network.make_room(fd, bytes.len());
        Ok(bytes)
    }

    fn has_ended(&self, fd: RawFd) -> io::Result<bool> {
        Ok(self.network.has_ended(fd))
    }

    fn datagrams(&self) -> io::Result<(RawFd, Address)> {
        Ok((self.connect()?, far()))
    }

    fn feed_datagram(&self, fd: RawFd, bytes: &[u8]) -> io::Result<()> {
        self.network.feed_datagram(fd, bytes, far());
        Ok(())
    }

    fn drain_datagrams(&self, fd: RawFd) -> io::Result<Vec<Vec<u8>>> {
        let sent = self.network.take_datagrams(fd);
        assert!(sent.iter().all(|(_, to)| *to == Some(far())));
        let bytes: Vec<_> = sent.into_iter().map(|(bytes, _)| bytes).collect();
        self.network.make_room(fd, bytes.iter().map(Vec::len).sum());
        Ok(bytes)
    }

    fn now(&self) -> Duration {
        Duration::from_secs_f64(self.clock.now())
    }
}

/// One wait that does not block, and all that it completes.
pub(crate) fn poll(driver: &mut impl Driver) -> io::Result<Vec<Completion>> {
    driver.wait(Some(Duration::ZERO))?;
    Ok(take_all(driver))
}

/// All completions of the last wait.
pub(crate) fn take_all(driver: &mut impl Driver) -> Vec<Completion> {
    std::iter::from_fn(|| driver.next_completion()).collect()
}

pub(crate) fn ready(key: u32) -> Completion {
    Completion {
        key: OpKey(key),
        outcome: Outcome::Ready,
    }
}

pub(crate) fn cancelled(key: u32) -> Completion {
    Completion {
        key: OpKey(key),
        outcome: Outcome::Cancelled,
    }
}

/// Sends until there is no room, and says how many bytes that took.
pub(crate) fn fill(driver: &mut impl Driver, fd: RawFd) -> io::Result<usize> {
    let chunk = [b'.'; 4096];
    let mut total = 0;
    loop {
        match driver.send(fd, &[IoSlice::new(&chunk)]) {
            Ok(sent) => total += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

/// Receives once, into a buffer of `size` bytes.
pub(crate) fn receive(driver: &mut impl Driver, fd: RawFd, size: usize) -> io::Result<usize> {
    driver.receive(fd, &mut vec![MaybeUninit::uninit(); size])
}

/// The kind of error that a call failed with.
pub(crate) fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

/// The kernel's number of the error that a call failed with.
pub(crate) fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}
