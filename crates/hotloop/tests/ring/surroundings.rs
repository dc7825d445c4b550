//! A driver, and connections whose far end the test holds.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::RwLock;
use std::time::Duration;

use hotloop::driver::{Completion, Driver, Op, OpKey, Outcome, Proactor, Settings};

/// Held by who forks, and shared by who must see the end of a socket: a child has every socket of the process open.
pub(crate) static FORKING: RwLock<()> = RwLock::new(());

/// A driver whose streams are the ring's from their beginning.
pub(crate) fn eager() -> io::Result<Proactor> {
    Proactor::with(Settings {
        receive_after: 0,
        ..Settings::default()
    })
}

pub(crate) struct Connection {
    pub(crate) near: UnixStream,
    pub(crate) far: UnixStream,
}

impl Connection {
    pub(crate) fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { near, far })
    }

    /// A connection that the driver receives from.
    pub(crate) fn received_by(driver: &mut Proactor, key: u32) -> io::Result<Self> {
        let connection = Self::new()?;
        driver.submit(OpKey(key), connection.fd(), Op::Receive)?;
        Ok(connection)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.near.as_raw_fd()
    }

    pub(crate) fn feed(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.far).write_all(bytes)
    }

    /// What has come in at the far end.
    pub(crate) fn arrived(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match (&self.far).read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes),
        }
    }
}

/// One wait that does not block, and what it completes.
pub(crate) fn poll(driver: &mut Proactor) -> io::Result<Vec<Completion>> {
    driver.wait(Some(Duration::ZERO))?;
    Ok(std::iter::from_fn(|| driver.next_completion()).collect())
}

pub(crate) fn completion(key: u32, outcome: Outcome) -> Completion {
    Completion {
        key: OpKey(key),
        outcome,
    }
}

pub(crate) fn ready(key: u32) -> Completion {
    completion(key, Outcome::Ready)
}

pub(crate) fn cancelled(key: u32) -> Completion {
    completion(key, Outcome::Cancelled)
}

/// Receives once, at most `size` bytes.
pub(crate) fn receive(driver: &mut Proactor, fd: RawFd, size: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![MaybeUninit::new(0); size];
    let count = driver.receive(fd, &mut buffer)?;
    // Initialised above, whatever the driver has written.
    Ok(buffer[..count].iter().map(|byte| byte_of(*byte)).collect())
}

#[expect(unsafe_code, reason = "the bytes are initialised before they are lent")]
fn byte_of(byte: MaybeUninit<u8>) -> u8 {
    // SAFETY: all of the buffer was initialised.
    unsafe { byte.assume_init() }
}

/// Bytes that tell where they belong.
pub(crate) fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|index| (index % 251) as u8).collect()
}
