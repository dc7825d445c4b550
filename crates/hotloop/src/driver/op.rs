//! What a driver can be asked for, and what it answers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An operation on a descriptor. The set is closed: each driver knows every one.
///
/// All of these are *multishot*: they complete any number of times, until they are cancelled or fail for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Say, as long as it holds, that the descriptor is readable (`add_reader`).
    WatchRead,
    /// Say, as long as it holds, that the descriptor is writable (`add_writer`).
    WatchWrite,
    /// Receive from a connected stream socket. Each completion is followed by one
    /// [`receive`](super::Driver::receive). Who submits it says when it lets go of the descriptor
    /// ([`release`](super::Driver::release)).
    Receive,
    /// Read from what need not be a socket. Each completion is followed by one [`read`](super::Driver::read).
    Read,
    /// Receive datagrams. Each completion is followed by one
    /// [`receive_datagrams`](super::Driver::receive_datagrams).
    ReceiveFrom,
    /// Accept connections. Each completion is followed by calls of [`accept`](super::Driver::accept). Where several
    /// loops accept on one socket, each has its share.
    Accept,
    /// Say when a send that was refused for lack of room is worth trying again.
    Send,
}

impl Op {
    /// The direction in which a readiness driver waits for this operation.
    pub fn direction(self) -> Direction {
        match self {
            Self::WatchRead | Self::Receive | Self::Read | Self::ReceiveFrom | Self::Accept => {
                Direction::Read
            }
            Self::WatchWrite | Self::Send => Direction::Write,
        }
    }
}

/// The two ways in which a descriptor can be ready. At most one operation of each waits on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes, a connection or an end come in.
    Read,
    /// Bytes go out.
    Write,
}

/// Names an operation from its submission to its last completion. The engine chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpKey(pub u32);

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The operation.
    pub key: OpKey,
    /// Its news.
    pub outcome: Outcome,
}

/// The news of a [`Completion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The operation can go on: take what is there. More completions will follow.
    Ready,
    /// The operation was cancelled: this is its last completion.
    Cancelled,
}

/// What could not be sent of what was posted.
#[derive(Debug)]
pub struct Unsent {
    /// The descriptor.
    pub fd: RawFd,
    /// The bytes that were not sent.
    pub bytes: Vec<u8>,
    /// Why, if it is not for lack of room.
    pub error: Option<io::Error>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// Who connected.
    pub peer: SocketAddress,
}

/// The name of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// An address and a port of IPv4 or IPv6.
    Internet(SocketAddr),
    /// What the kernel says of a Unix socket: a path, an abstract name with its leading zero, or nothing.
    Unix(Box<[u8]>),
    /// One of another family.
    Other,
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Internet(address)
    }
}

impl From<&Path> for SocketAddress {
    fn from(path: &Path) -> Self {
        Self::Unix(path.as_os_str().as_bytes().into())
    }
}

/// Which directions a descriptor is waited on in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Whether reading is of interest.
    pub read: bool,
    /// Whether writing is of interest.
    pub write: bool,
    /// Whether of several that wait for this descriptor, one is told and not all: for listening sockets.
    pub exclusive: bool,
}

#[cfg(test)]
impl Interest {
    pub(crate) const READ: Self = Self::of(true, false);
    pub(crate) const WRITE: Self = Self::of(false, true);
    pub(crate) const BOTH: Self = Self::of(true, true);
    pub(crate) const NONE: Self = Self::of(false, false);

    const fn of(read: bool, write: bool) -> Self {
        Self {
            read,
            write,
            exclusive: false,
        }
    }
}

impl Interest {
    /// Whether neither direction is of interest.
    pub fn is_empty(self) -> bool {
        !self.read && !self.write
    }

    /// The same with one direction set or cleared.
    #[must_use]
    pub fn with(mut self, direction: Direction, wanted: bool) -> Self {
        match direction {
            Direction::Read => self.read = wanted,
            Direction::Write => self.write = wanted,
        }
        self
    }
}

/// A descriptor that a poller found ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The descriptor.
    pub fd: RawFd,
    /// The registration it was found under; see [`Poller::add`](super::readiness::Poller::add).
    pub generation: u32,
    /// The directions it is ready in. An error or a hang-up counts as both.
    pub ready: Interest,
}
