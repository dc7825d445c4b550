//! Connections between scripted descriptors: who listens where, and what is under way.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::chance::Chance;
use super::network::{Incoming, Socket, Sockets};
use crate::driver::{Accepted, SocketAddress};

/// How many bytes of a stream are under way or unread at most, as with the buffers of a kernel.
const WINDOW: usize = 64 * 1024;

/// The first port that is given where none is asked for.
const FIRST_PORT: u16 = 40_000;

/// Names one end of a connection. Numbers are not used again, as those of descriptors are.
type EndKey = u64;

/// When something happens: the bits of a time, which are in the order of times as these are never negative; then an
/// order of chance; then the order in which it was sent.
type Moment = (u64, u64, u64);

/// The connections of a network.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) chance: Chance,
    /// Both ends of each connection, until both are closed and nothing is under way.
    ends: BTreeMap<EndKey, End>,
    /// The ends whose descriptors are open.
    open: BTreeMap<RawFd, EndKey>,
    /// Who listens. Written by `listen` and `release`.
    listeners: BTreeMap<RawFd, SocketAddr>,
    /// What will happen.
    coming: BTreeMap<Moment, Coming>,
    /// The addresses of names, in the order in which they were asked for.
    names: Vec<String>,
    /// What descriptors are copies of, so that their numbers are nobody else's.
    blank: OwnedFd,
    /// How many ends and moments there were.
    last: u64,
    next_port: u16,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    /// None once it is closed.
    fd: Option<RawFd>,
    /// None until it is connected.
    far: Option<EndKey>,
    name: SocketAddr,
    far_name: SocketAddr,
    /// Why it is not connected. Taken by `take_error`.
    error: Option<io::ErrorKind>,
    /// What it has sent and the far end has not heard of. Each piece has a moment in `coming`.
    under_way: VecDeque<Piece>,
    /// How many bytes of that there are.
    in_flight: usize,
    /// When the last of it arrives, in seconds: nothing overtakes it.
    last_arrival: f64,
    /// Whether the end of its stream was sent.
    end_sent: bool,
    /// Whether it was reset.
    broken: bool,
}

/// What arrives at an end.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// What happens at a moment.
#[derive(Debug)]
enum Coming {
    /// The next piece of what this end has sent arrives.
    Piece(EndKey),
    /// This end is connected, or refused.
    Connect(EndKey),
}

impl Wires {
    pub(super) fn new(chance: Chance) -> io::Result<Self> {
        Ok(Self {
            chance,
            ends: BTreeMap::new(),
            open: BTreeMap::new(),
            listeners: BTreeMap::new(),
            coming: BTreeMap::new(),
            names: Vec::new(),
            blank: File::open("/dev/null")?.into(),
            last: 0,
            next_port: FIRST_PORT,
        })
    }

    /// How many ends of connections are open.
    pub(super) fn open_ends(&self) -> usize {
        self.open.len()
    }

    /// Breaks every connection: both ends hear of a reset.
    pub(super) fn reset_all(&mut self, sockets: &mut Sockets) {
        let keys: Vec<_> = self.ends.keys().copied().collect();
        for key in keys {
            self.break_end(sockets, key);
        }
    }

    pub(super) fn connect(
        &mut self,
        sockets: &mut Sockets,
        address: SocketAddr,
        now: f64,
    ) -> io::Result<OwnedFd> {
        let name = SocketAddr::new(loopback(address), self.new_port());
        // A connection to every address of the machine is one to the machine.
        let far_name = match address.ip().is_unspecified() {
            true => SocketAddr::new(loopback(address), address.port()),
            false => address,
        };
        let (key, fd) = self.open_end(sockets, name, far_name, None)?;
        let there_and_back = self.chance.delay() + self.chance.delay();
        self.schedule(now + there_and_back, Coming::Connect(key));
        Ok(fd)
    }

    pub(super) fn listen(&mut self, sockets: &mut Sockets, mut address: SocketAddr) -> io::Result<OwnedFd> {
        if address.port() == 0 {
            address.set_port(self.new_port());
        }
        if self.listener(address).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let fd = self.open_blank(sockets)?;
        self.listeners.insert(fd.as_raw_fd(), address);
        Ok(fd)
    }

    pub(super) fn take_error(&mut self, fd: RawFd) -> Option<io::Error> {
        let end = self.ends.get_mut(self.open.get(&fd)?)?;
        end.error.take().map(Into::into)
    }

    pub(super) fn names(&self, fd: RawFd) -> Option<(SocketAddr, Option<SocketAddr>)> {
        if let Some(&address) = self.listeners.get(&fd) {
            return Some((address, None));
        }
        let end = self.ends.get(self.open.get(&fd)?)?;
        Some((end.name, Some(end.far_name)))
    }

    /// The address of a name: one of those that are kept for measurements, in the order in which they are asked for.
    pub(super) fn resolve(&mut self, host: &str) -> IpAddr {
        if host == "localhost" {
            return Ipv4Addr::LOCALHOST.into();
        }
        let known = self.names.iter().position(|name| name == host);
        let index = known.unwrap_or_else(|| {
            self.names.push(host.to_owned());
            self.names.len() - 1
        });
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + index as u32).into()
    }

    /// Closes a descriptor: the far end hears of it, behind what was sent.
    pub(super) fn release(&mut self, sockets: &mut Sockets, fd: RawFd, now: f64) {
        if self.listeners.remove(&fd).is_some() {
            let listener = sockets.remove(&fd).unwrap_or_default();
            for accepted in listener.accepting {
                self.release(sockets, accepted.fd.as_raw_fd(), now);
            }
            return;
        }
        let Some(key) = self.open.get(&fd).copied() else {
            return;
        };
        // A kernel sends what it has kept when the descriptor is closed.
        if let Some(socket) = sockets.get_mut(&fd) {
            socket.corked = 0;
        }
        self.collect(sockets, key, now);
        self.open.remove(&fd);
        let unread = unread(&sockets.remove(&fd).unwrap_or_default());
        let Some(end) = self.ends.get_mut(&key) else {
            return;
        };
        end.fd = None;
        if end.far.is_none() {
            self.ends.remove(&key);
        } else if unread > 0 {
            self.send(key, Piece::Reset, now);
        } else if !end.end_sent {
            end.end_sent = true;
            self.send(key, Piece::End, now);
        } else {
            self.forget(key);
        }
    }

    /// When the next thing happens, in seconds.
    pub(super) fn next_arrival(&self) -> Option<f64> {
        let ((when, ..), _) = self.coming.first_key_value()?;
        Some(f64::from_bits(*when))
    }

    /// Sends what was written, and has happen what is due.
    pub(super) fn move_on(&mut self, sockets: &mut Sockets, now: f64) -> io::Result<()> {
        // In the order in which they were made: numbers of descriptors depend on what else the process does.
        let keys: Vec<_> = self.ends.keys().copied().collect();
        for key in keys {
            self.collect(sockets, key, now);
        }
        while let Some(entry) = self.coming.first_entry() {
            if f64::from_bits(entry.key().0) > now {
                break;
            }
            match entry.remove() {
                Coming::Piece(key) => self.arrive(sockets, key, now),
                Coming::Connect(key) => self.decide(sockets, key)?,
            }
        }
        for (&fd, key) in &self.open {
            let Some(far) = self.ends.get(key).and_then(|end| end.far) else {
                continue;
            };
            let far_fd = self.ends.get(&far).and_then(|far| far.fd);
            let waiting = far_fd.and_then(|fd| sockets.get(&fd)).map_or(0, unread);
            let taken = waiting + self.ends.get(key).map_or(0, |end| end.in_flight);
            if let Some(socket) = sockets.get_mut(&fd) {
                socket.room = WINDOW.saturating_sub(taken);
            }
        }
        Ok(())
    }

    /// Puts on the way what was written at an end since the last time.
    fn collect(&mut self, sockets: &mut Sockets, key: EndKey, now: f64) {
        let Some(end) = self.ends.get(&key) else { return };
        let socket = end.fd.and_then(|fd| sockets.get_mut(&fd));
        let Some(socket) = socket.filter(|_| end.far.is_some()) else {
            return;
        };
        let mut written = socket.take_sent();
        let ends = socket.ended && !end.end_sent;
        while !written.is_empty() {
            let rest = written.split_off(self.chance.piece(written.len()));
            self.send(key, Piece::Bytes(written), now);
            written = rest;
        }
        if ends {
            if let Some(end) = self.ends.get_mut(&key) {
                end.end_sent = true;
            }
            self.send(key, Piece::End, now);
        }
    }

    /// Sends a piece, behind those that were sent before.
    fn send(&mut self, key: EndKey, piece: Piece, now: f64) {
        let delay = self.chance.delay();
        let Some(end) = self.ends.get_mut(&key) else {
            return;
        };
        if let Piece::Bytes(bytes) = &piece {
            end.in_flight += bytes.len();
        }
        end.under_way.push_back(piece);
        end.last_arrival = end.last_arrival.max(now + delay);
        let when = end.last_arrival;
        self.schedule(when, Coming::Piece(key));
    }

    /// The next piece that an end has sent is at the other one.
    fn arrive(&mut self, sockets: &mut Sockets, key: EndKey, now: f64) {
        let Some(end) = self.ends.get_mut(&key) else {
            return;
        };
        let (Some(piece), Some(far)) = (end.under_way.pop_front(), end.far) else {
            return;
        };
        if let Piece::Bytes(bytes) = &piece {
            end.in_flight -= bytes.len();
        }
        let far_end = self.ends.get(&far);
        let broken = far_end.is_none_or(|far| far.broken);
        let fd = far_end.and_then(|far| far.fd);
        let socket = fd.and_then(|fd| sockets.get_mut(&fd));
        match (piece, socket) {
            (Piece::Bytes(_), Some(_)) if !broken && self.chance.happens(self.chance.faults.reset) => {
                self.break_end(sockets, key);
                self.break_end(sockets, far);
            }
            (Piece::Bytes(bytes), Some(socket)) if !broken => {
                socket.incoming.push_back(Incoming::Bytes(bytes));
            }
            (Piece::End, Some(socket)) if !broken => socket.incoming.push_back(Incoming::End),
            (Piece::Reset, Some(_)) => self.break_end(sockets, far),
            // Nobody reads it any more, and a kernel says so.
            (Piece::Bytes(_), None) => self.send(far, Piece::Reset, now),
            _ => {}
        }
        self.forget(key);
    }

    /// An attempt to connect is decided.
    fn decide(&mut self, sockets: &mut Sockets, key: EndKey) -> io::Result<()> {
        let Some(end) = self.ends.get(&key) else {
            return Ok(());
        };
        let (name, far_name) = (end.name, end.far_name);
        let refused = self.chance.happens(self.chance.faults.refuse);
        let Some(listener) = self.listener(far_name).filter(|_| !refused) else {
            let fd = self.ends.get_mut(&key).and_then(|end| {
                end.error = Some(io::ErrorKind::ConnectionRefused);
                end.fd
            });
            if let Some(socket) = fd.and_then(|fd| sockets.get_mut(&fd)) {
                socket.broken = Some(io::ErrorKind::ConnectionRefused);
            }
            return Ok(());
        };
        let (far, fd) = self.open_end(sockets, far_name, name, Some(key))?;
        if let Some(end) = self.ends.get_mut(&key) {
            end.far = Some(far);
        }
        if let Some(socket) = sockets.get_mut(&listener) {
            socket.accepting.push_back(Accepted {
                fd,
                peer: SocketAddress::Internet(name),
            });
        }
        Ok(())
    }

    /// Has an end hear of a reset.
    fn break_end(&mut self, sockets: &mut Sockets, key: EndKey) {
        let Some(end) = self.ends.get_mut(&key).filter(|end| end.far.is_some()) else {
            return;
        };
        if std::mem::replace(&mut end.broken, true) {
            return;
        }
        // Neither of its halves has anything more to say.
        end.end_sent = true;
        if let Some(socket) = end.fd.and_then(|fd| sockets.get_mut(&fd)) {
            socket.incoming.clear();
            socket
                .incoming
                .push_back(Incoming::Error(io::ErrorKind::ConnectionReset));
            socket.broken = Some(io::ErrorKind::ConnectionReset);
            socket.sent.clear();
            socket.corked = 0;
        }
    }

    /// Forgets a connection of which nobody has an end and nothing is under way.
    fn forget(&mut self, key: EndKey) {
        let is_over = |end: &End| end.fd.is_none() && end.under_way.is_empty();
        let Some(end) = self.ends.get(&key).filter(|end| is_over(end)) else {
            return;
        };
        let Some(far) = end.far else { return };
        if self.ends.get(&far).is_none_or(is_over) {
            self.ends.remove(&key);
            self.ends.remove(&far);
        }
    }

    fn open_end(
        &mut self,
        sockets: &mut Sockets,
        name: SocketAddr,
        far_name: SocketAddr,
        far: Option<EndKey>,
    ) -> io::Result<(EndKey, OwnedFd)> {
        let fd = self.open_blank(sockets)?;
        let key = self.last;
        self.open.insert(fd.as_raw_fd(), key);
        self.ends.insert(
            key,
            End {
                fd: Some(fd.as_raw_fd()),
                far,
                name,
                far_name,
                error: None,
                under_way: VecDeque::new(),
                in_flight: 0,
                last_arrival: 0.0,
                end_sent: false,
                broken: false,
            },
        );
        Ok((key, fd))
    }

    /// A descriptor of a number that is free, with nothing behind it.
    fn open_blank(&mut self, sockets: &mut Sockets) -> io::Result<OwnedFd> {
        let fd = self.blank.try_clone()?;
        self.last += 1;
        let socket = Socket {
            order: self.last,
            ..Socket::default()
        };
        sockets.insert(fd.as_raw_fd(), socket);
        Ok(fd)
    }

    /// Who is reached at an address.
    fn listener(&self, address: SocketAddr) -> Option<RawFd> {
        let reached = |listener: &SocketAddr| {
            listener.port() == address.port()
                && (listener.ip() == address.ip()
                    || listener.ip().is_unspecified()
                    || address.ip().is_unspecified())
        };
        let mut listeners = self.listeners.iter();
        listeners
            .find(|(_, listener)| reached(listener))
            .map(|(&fd, _)| fd)
    }

    fn schedule(&mut self, when: f64, coming: Coming) {
        self.last += 1;
        let tie = self.chance.draw(0..u64::MAX);
        self.coming.insert((when.to_bits(), tie, self.last), coming);
    }

    fn new_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }
}

/// How many bytes came in that nobody has taken.
fn unread(socket: &Socket) -> usize {
    let lengths = socket.incoming.iter().map(|incoming| match incoming {
        Incoming::Bytes(bytes) => bytes.len(),
        _ => 0,
    });
    lengths.sum()
}

/// The machine itself, as addresses of that family have it.
fn loopback(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
