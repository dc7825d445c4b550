//! What datagrams are received into and sent from: addresses, and batches of them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::SocketAddress;
pub use crate::sys::Batch;
use crate::sys::HAS_ABSTRACT_NAMES;

/// How long the address of any family can be, in bytes (`sockaddr_storage`).
pub const MAX_ADDRESS: usize = size_of::<libc::sockaddr_storage>();

/// Where the path of a Unix address begins.
const PATH: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);

/// How long the path of a Unix address can be, in bytes.
const MAX_PATH: usize = size_of::<libc::sockaddr_un>() - PATH;

/// The address of a socket, in the form in which the kernel takes and gives it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Address {
    /// A `sockaddr` of whatever family; what lies behind `len` has no meaning.
    pub(crate) bytes: [u8; MAX_ADDRESS],
    /// How many of the bytes belong to it. Never more than there are.
    pub(crate) len: u32,
}

/// What an address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts<'a> {
    /// Nothing at all: the sender has no address.
    Nothing,
    /// An Internet address.
    Internet(SocketAddr),
    /// A Unix address: an abstract one begins with a zero byte and has as many as the kernel counts, a path is without
    /// the zero behind it, an unnamed one is empty.
    Unix(&'a [u8]),
    /// Another family's.
    Other,
}

impl Address {
    /// No address.
    pub const NOTHING: Self = Self {
        bytes: [0; MAX_ADDRESS],
        len: 0,
    };

    /// A Unix address by its path; an abstract one begins with a zero byte. `None` if it is too long, empty, or has a
    /// zero byte elsewhere than an abstract one.
    #[must_use]
    pub fn unix(path: &[u8]) -> Option<Self> {
        let is_abstract = *path.first()? == 0 && HAS_ABSTRACT_NAMES;
        // A path ends with a zero byte; an abstract one ends where it ends.
        let len = path.len() + usize::from(!is_abstract);
        if len > MAX_PATH || (!is_abstract && path.contains(&0)) {
            return None;
        }
        let mut address = Self::NOTHING;
        address.begin(libc::AF_UNIX, PATH + len);
        address.put(PATH, path);
        Some(address)
    }

    /// What it says.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        let bytes = self.as_bytes();
        let Some(family) = bytes.first_chunk().map(|&head| family(head)) else {
            return Parts::Nothing;
        };
        match family {
            libc::AF_INET => self.internet_v4().map_or(Parts::Other, Parts::Internet),
            libc::AF_INET6 => self.internet_v6().map_or(Parts::Other, Parts::Internet),
            libc::AF_UNIX => {
                let name = bytes.get(PATH..).unwrap_or_default();
                match name.iter().position(|&byte| byte == 0) {
                    Some(end) if end > 0 || !HAS_ABSTRACT_NAMES => Parts::Unix(&name[..end]),
                    _ => Parts::Unix(name),
                }
            }
            _ => Parts::Other,
        }
    }

    /// Its bytes, as many as count.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or(&self.bytes)
    }

    fn internet_v4(&self) -> Option<SocketAddr> {
        let bytes = self.as_bytes();
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
        Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
    }

    fn internet_v6(&self) -> Option<SocketAddr> {
        let bytes = self.as_bytes();
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        let flowinfo = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
        let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
        let scope_id = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
        Some(SocketAddrV6::new(Ipv6Addr::from(ip), port, flowinfo, scope_id).into())
    }

    /// Writes what all addresses begin with.
    fn begin(&mut self, family: i32, len: usize) {
        self.put(0, &head(family, len));
        self.len = len as u32;
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(offset..offset + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let mut this = Self::NOTHING;
        this.put(2, &address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                this.begin(libc::AF_INET, size_of::<libc::sockaddr_in>());
                this.put(4, &address.ip().octets());
            }
            SocketAddr::V6(address) => {
                this.begin(libc::AF_INET6, size_of::<libc::sockaddr_in6>());
                this.put(4, &address.flowinfo().to_be_bytes());
                this.put(8, &address.ip().octets());
                this.put(24, &address.scope_id().to_ne_bytes());
            }
        }
        this
    }
}

impl TryFrom<&SocketAddress> for Address {
    type Error = io::Error;

    fn try_from(address: &SocketAddress) -> io::Result<Self> {
        match address {
            SocketAddress::Internet(address) => Ok(Self::from(*address)),
            SocketAddress::Unix(name) => Self::unix(name).ok_or_else(|| io::ErrorKind::InvalidInput.into()),
            SocketAddress::Other => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl From<&Address> for SocketAddress {
    fn from(address: &Address) -> Self {
        match address.parts() {
            // Who has no name has an empty one: only Unix sockets do without.
            Parts::Nothing => Self::Unix(Box::default()),
            Parts::Internet(address) => Self::Internet(address),
            Parts::Unix(name) => Self::Unix(name.into()),
            Parts::Other => Self::Other,
        }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().fmt(formatter)
    }
}

/// A datagram to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// What it carries.
    pub bytes: &'a [u8],
    /// Where it goes; without one, to the peer that the socket is connected to.
    pub to: Option<&'a Address>,
}

/// How many datagrams one call receives or sends at most. Past a dozen the system call itself is no longer felt.
pub const MAX_BATCH: usize = 16;

/// How many datagrams one call sends at most: as many as one message to the kernel may have (UDP_MAX_SEGMENTS), and
/// nearly as many as fill it.
pub const MAX_SENT: usize = 64;

/// The longest datagram that is sent together with others, in bytes: what is left of an Ethernet packet. A longer one
/// would mostly have to be cut up for the network, which the kernel does not do to datagrams that it takes apart.
#[cfg(any(linux, test))]
const LONGEST_TOGETHER: usize = 1472;

/// How many bytes are sent together at most: the longest IP packet, without any header that it may have.
#[cfg(any(linux, test))]
const TOGETHER: usize = 65_000;

/// How many of the first datagrams may leave as one message that the kernel takes apart: those to one address that have
/// one size, and a shorter one behind them. At least one, where there is any.
#[cfg(any(linux, test))]
pub(crate) fn run_length(datagrams: &[Outgoing<'_>]) -> usize {
    let Some((first, others)) = datagrams.split_first() else {
        return 0;
    };
    let size = first.bytes.len();
    if size == 0 || size > LONGEST_TOGETHER {
        return 1;
    }
    let most = (TOGETHER / size).min(MAX_SENT) - 1;
    let same = others
        .iter()
        .take(most)
        .take_while(|next| next.bytes.len() == size && next.to == first.to)
        .count();
    let shorter = others
        .get(same)
        .filter(|_| same < most)
        .is_some_and(|next| (1..size).contains(&next.bytes.len()) && next.to == first.to);
    1 + same + usize::from(shorter)
}

/// The first bytes of an address: its family; on the BSDs its length and its family.
#[cfg(linux)]
fn head(family: i32, _len: usize) -> [u8; 2] {
    (family as u16).to_ne_bytes()
}
#[cfg(not(linux))]
fn head(family: i32, len: usize) -> [u8; 2] {
    [len as u8, family as u8]
}

/// The family that an address begins with.
#[cfg(linux)]
fn family(head: [u8; 2]) -> i32 {
    u16::from_ne_bytes(head).into()
}
#[cfg(not(linux))]
fn family(head: [u8; 2]) -> i32 {
    head[1].into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_of_one_address_and_one_size(
            sizes in prop::collection::vec((prop::sample::select(vec![0, 1, 2, 700, 1472, 1473, 9000]), 0..2_u16), 1..200),
        ) {
            let bytes = vec![0; 9000];
            let addresses = [1, 2].map(|port| Address::from(SocketAddr::from(([127, 0, 0, 1], port))));
            let outgoing: Vec<_> = sizes
                .iter()
                .map(|&(size, to)| Outgoing { bytes: &bytes[..size], to: addresses.get(usize::from(to)) })
                .collect();
            let mut rest = outgoing.as_slice();
            while !rest.is_empty() {
                let length = run_length(rest);
                prop_assert!((1..=rest.len().min(MAX_SENT)).contains(&length));
                let (run, others) = rest.split_at(length);
                let size = run[0].bytes.len();
                let (last, equal) = run.split_last().expect("one at least");
                prop_assert!(run.iter().all(|datagram| datagram.to == run[0].to));
                prop_assert!(equal.iter().all(|datagram| datagram.bytes.len() == size));
                prop_assert!(last.bytes.len() <= size);
                if length > 1 {
                    prop_assert!(size <= LONGEST_TOGETHER && !last.bytes.is_empty());
                    prop_assert!(run.iter().map(|datagram| datagram.bytes.len()).sum::<usize>() <= TOGETHER);
                }
                rest = others;
            }
        }
    }

    #[test]
    fn as_many_leave_together_as_there_may_be() {
        let bytes = [0; 1472];
        let of = |size: usize| Outgoing {
            bytes: &bytes[..size],
            to: None,
        };
        assert_eq!(run_length(&[]), 0);
        assert_eq!(run_length(&[of(1000); 100]), 64);
        assert_eq!(run_length(&[of(1472); 100]), 44);
        assert_eq!(run_length(&[of(10), of(10), of(9), of(9)]), 3);
        assert_eq!(run_length(&[of(10), of(11)]), 1);
        assert_eq!(run_length(&[of(10), of(0)]), 1);
    }

    #[test]
    fn internet_addresses_come_back_whole() {
        let v6 = SocketAddrV6::new("fe80::1".parse().expect("an address"), 53, 0x12345, 7);
        for address in [SocketAddr::from(([127, 0, 0, 1], 65535)), v6.into()] {
            assert_eq!(Address::from(address).parts(), Parts::Internet(address));
        }
    }

    #[test]
    fn unix_addresses_keep_their_length_and_zeros() {
        let path = Address::unix(b"/tmp/x").expect("short enough");
        assert_eq!(path.parts(), Parts::Unix(b"/tmp/x"));
        let name = Address::unix(b"\0a\0b\0").expect("short enough");
        assert_eq!(name.parts(), Parts::Unix(b"\0a\0b\0"));
        assert_eq!(Address::unix(&[0; MAX_PATH]).map(|name| name.len), Some(110));
        assert_eq!(Address::unix(&[0; MAX_PATH + 1]), None);
        assert_eq!(Address::unix(&[b'x'; MAX_PATH]), None);
        assert_eq!(Address::unix(b""), None);
        assert_eq!(Address::unix(b"a\0b"), None);
    }

    #[test]
    fn an_address_may_be_missing() {
        assert_eq!(Address::NOTHING.parts(), Parts::Nothing);
    }
}
