//! Datagram endpoints on a loop: datagrams in and out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use crate::driver::{Address, Batch, Driver, MAX_BATCH, MAX_SENT, Op, OpKey, Outgoing};
use crate::event_loop::{EventLoop, Operation};
use crate::host::Host;
use crate::streams::{Owner, Written, is_transient};
use crate::transport::{Close, Datagrams, Destination, Queued};

/// Names a datagram endpoint of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointKey(pub(crate) usize);

/// News of a datagram transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramEvent {
    /// There is something to [`receive`](EventLoop::receive_datagrams).
    Readable,
    /// There is room to [`flush`](EventLoop::flush_datagrams) what is queued.
    Writable,
}

/// How far a flush has come.
#[derive(Debug)]
pub enum Flushed {
    /// Nothing waits any more.
    Empty,
    /// The kernel has no room for the rest.
    Blocked,
    /// A datagram failed, and is gone; the next ones are tried when the host flushes again.
    Failed(io::Error),
    /// The next datagram is for the host to send ([`Destination::Named`]), or to
    /// [put back](Datagrams::push_front).
    Named,
}

/// A datagram endpoint of a loop.
pub(crate) struct EndpointEntry<H: Host> {
    fd: RawFd,
    state: Datagrams<H::Bytes>,
    /// In flight while the host wants to receive.
    receiving: Option<OpKey>,
    /// In flight while the kernel has no room.
    sending: Option<OpKey>,
    /// Whether datagrams may be received several at a time.
    batched: bool,
    /// How many datagrams the next receive asks for: more than came in the last time, so that a quiet endpoint does
    /// not pay for a full batch.
    limit: usize,
    /// What was received in an earlier turn and not told yet, oldest first.
    held: VecDeque<(Box<[u8]>, Address)>,
    /// The turn in which the host was last told of what is held.
    told_in: u64,
}

impl<H: Host, D: Driver> EventLoop<H, D> {
    /// Takes a non-blocking datagram socket under the loop's wing. It does not receive yet. Each queued datagram counts
    /// `overhead` bytes more than it has. Datagrams longer than 64 KiB are cut off if they are received in batches
    /// (`batched`), else those longer than 256 KiB.
    ///
    /// The descriptor and the host's object are kept as those of [`open_stream`](Self::open_stream).
    pub fn open_endpoint(&mut self, fd: RawFd, overhead: usize, batched: bool) -> EndpointKey {
        let key = EndpointKey(self.endpoints.insert(EndpointEntry {
            fd,
            state: Datagrams::new(overhead),
            receiving: None,
            sending: None,
            batched,
            limit: 2,
            held: VecDeque::new(),
            told_in: 0,
        }));
        self.take_over(fd, Owner::Endpoint(key));
        key
    }

    /// The state of an endpoint; `None` once it is released.
    #[inline]
    pub fn endpoint(&mut self, key: EndpointKey) -> Option<&mut Datagrams<H::Bytes>> {
        self.endpoints.get_mut(key.0).map(|entry| &mut entry.state)
    }

    /// Starts receiving. Each turn with something to receive has an event for `host`.
    ///
    /// # Errors
    /// The kernel's, if it refuses the descriptor.
    pub fn resume_endpoint(&mut self, key: EndpointKey, host: H::Stream) -> io::Result<()> {
        let Some(entry) = self.endpoints.get_mut(key.0) else {
            return Ok(());
        };
        if !entry.state.set_reading(true) {
            return Ok(());
        }
        let fd = entry.fd;
        if !entry.held.is_empty() {
            self.held.push((self.turns, key, host.clone()));
        }
        let begun = self.submit(fd, Op::ReceiveFrom, Operation::ReceiveFrom(key, host));
        let entry = &mut self.endpoints[key.0];
        match begun {
            Ok(operation) => entry.receiving = Some(operation),
            Err(error) => {
                entry.state.set_reading(false);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Stops receiving. What was received and not told yet is told when it starts again.
    pub fn pause_endpoint(&mut self, key: EndpointKey) {
        if let Some(entry) = self.endpoints.get_mut(key.0) {
            entry.state.set_reading(false);
            self.end_receiving(key);
        }
    }

    /// Takes received datagrams into `batch`, in the place of what it held.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if there is nothing; `NotFound` if the endpoint is gone.
    #[inline]
    pub fn receive_datagrams(&mut self, key: EndpointKey, batch: &mut Batch) -> io::Result<()> {
        let entry = self.endpoints.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        if !entry.held.is_empty() {
            batch.clear();
            while let Some((bytes, from)) = entry.held.front() {
                if !batch.push(bytes, *from) {
                    break;
                }
                entry.held.pop_front();
            }
            return Ok(());
        }
        let limit = if entry.batched { entry.limit } else { 1 };
        self.driver.receive_datagrams(entry.fd, batch, limit)?;
        entry.limit = (batch.len() * 2).clamp(2, MAX_BATCH);
        Ok(())
    }

    /// Keeps the datagrams of a batch from `start` on for the next turn, in which `host` is told of them if it wants
    /// to receive by then.
    pub fn hold_datagrams(&mut self, key: EndpointKey, batch: &Batch, start: usize, host: &H::Stream) {
        let Some(entry) = self.endpoints.get_mut(key.0) else {
            return;
        };
        let rest: Vec<_> = batch
            .iter()
            .skip(start)
            .map(|(bytes, from)| (Box::from(bytes), *from))
            .collect();
        for datagram in rest.into_iter().rev() {
            entry.held.push_front(datagram);
        }
        if entry.state.life().is_reading() && !entry.held.is_empty() {
            self.held.push((self.turns, key, host.clone()));
        }
    }

    /// Whether the turn under way has nothing left to do, and a next one would have nothing but what the kernel has
    /// for it: then one datagram more may be told in this turn, and nobody can tell that it was not the next.
    /// `end` is the time before which timers are due, in seconds of the host's clock.
    #[inline]
    pub fn is_quiet(&self, end: f64) -> bool {
        self.is_idle()
            && self.gathered.is_empty()
            && !self.driver.has_completions()
            && self.next_timer().is_none_or(|when| when >= end)
    }

    /// Sends a datagram at once if nothing is queued and the kernel has room, else queues it. `own` makes an owned
    /// buffer of the same bytes; it is called only if they are kept, and `host` is kept until they are sent.
    ///
    /// # Errors
    /// What became of the datagram; the endpoint goes on. `NotFound` if it is gone.
    pub fn send_datagram(
        &mut self,
        key: EndpointKey,
        bytes: &[u8],
        own: impl FnOnce() -> H::Bytes,
        to: Option<&Address>,
        host: &H::Stream,
    ) -> io::Result<Written> {
        let entry = self.endpoints.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        if entry.state.is_empty() {
            match self.driver.send_datagrams(entry.fd, &[Outgoing { bytes, to }]) {
                Ok(_) => return Ok(Written::default()),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let to = to.map_or(Destination::Peer, |&to| Destination::Address(to));
        self.queue_datagram(key, Queued { bytes: own(), to }, host)
    }

    /// Sends datagrams at once, as many of the first ones as the kernel takes, and says how many those were.
    ///
    /// # Errors
    /// What became of the first one; the endpoint goes on. `WouldBlock` if the kernel has no room, or something is
    /// queued. `NotFound` if the endpoint is gone.
    pub fn send_at_once(&mut self, key: EndpointKey, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let entry = self.endpoints.get(key.0).ok_or(io::ErrorKind::NotFound)?;
        if !entry.state.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.driver.send_datagrams(entry.fd, datagrams)
    }

    /// Queues a datagram behind those that wait, to be sent when the kernel has room.
    ///
    /// # Errors
    /// The kernel's, if it refuses the descriptor; `NotFound` if the endpoint is gone.
    pub fn queue_datagram(
        &mut self,
        key: EndpointKey,
        datagram: Queued<H::Bytes>,
        host: &H::Stream,
    ) -> io::Result<Written> {
        let entry = self.endpoints.get_mut(key.0).ok_or(io::ErrorKind::NotFound)?;
        let fd = entry.fd;
        if entry.sending.is_none() {
            let operation = self.submit(fd, Op::Send, Operation::SendTo(key, host.clone()))?;
            self.endpoints[key.0].sending = Some(operation);
        }
        let state = &mut self.endpoints[key.0].state;
        state.push(datagram);
        let size = state.size();
        Ok(Written {
            queued: true,
            pause: state.flow.pause_at(size),
        })
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub fn flush_datagrams(&mut self, key: EndpointKey) -> Flushed {
        let Some(entry) = self.endpoints.get_mut(key.0) else {
            return Flushed::Empty;
        };
        loop {
            let mut outgoing = [Outgoing { bytes: &[], to: None }; MAX_SENT];
            let mut count = 0;
            for (slot, queued) in outgoing.iter_mut().zip(entry.state.queued()) {
                let to = match &queued.to {
                    Destination::Peer => None,
                    Destination::Address(address) => Some(address),
                    Destination::Named => break,
                };
                let bytes = queued.bytes.as_ref();
                *slot = Outgoing { bytes, to };
                count += 1;
            }
            if count == 0 {
                return if entry.state.is_empty() {
                    Flushed::Empty
                } else {
                    Flushed::Named
                };
            }
            match self.driver.send_datagrams(entry.fd, &outgoing[..count]) {
                Ok(sent) => (0..sent).for_each(|_| drop(entry.state.pop())),
                Err(error) if is_transient(&error) => return Flushed::Blocked,
                Err(error) => {
                    entry.state.pop();
                    return Flushed::Failed(error);
                }
            }
        }
    }

    /// Ends the wait for room, once nothing is queued any more.
    pub fn stop_flushing(&mut self, key: EndpointKey) {
        if self.endpoint(key).is_some_and(|state| state.is_empty()) {
            self.end_sending(key);
        }
    }

    /// Begins the orderly end of an endpoint.
    pub fn close_endpoint(&mut self, key: EndpointKey) -> Close {
        let Some(state) = self.endpoint(key) else {
            return Close::Already;
        };
        let close = state.close();
        self.end_receiving(key);
        close
    }

    /// Ends an endpoint at once. Answers whether `connection_lost` is due.
    pub fn abort_endpoint(&mut self, key: EndpointKey) -> bool {
        let Some(state) = self.endpoint(key) else {
            return false;
        };
        let first = state.abort();
        self.end_receiving(key);
        self.end_sending(key);
        first
    }

    /// Forgets an endpoint, before its descriptor is closed. The key may name another one from now on.
    pub fn release_endpoint(&mut self, key: EndpointKey) {
        self.end_receiving(key);
        self.end_sending(key);
        if let Some(entry) = self.endpoints.try_remove(key.0) {
            self.owners.remove(entry.fd, Owner::Endpoint(key));
        }
    }

    /// The next endpoint that has something held from an earlier turn.
    pub(crate) fn next_held(&mut self) -> Option<(EndpointKey, H::Stream)> {
        if self.held.first()?.0 >= self.turns {
            return None;
        }
        let (_, key, host) = self.held.remove(0);
        if let Some(entry) = self.endpoints.get_mut(key.0) {
            entry.told_in = self.turns;
        }
        Some((key, host))
    }

    /// Whether an endpoint was told of what it holds in this turn: what the kernel has for it is told in the next.
    pub(crate) fn was_told(&self, key: EndpointKey) -> bool {
        self.endpoints
            .get(key.0)
            .is_some_and(|entry| entry.told_in == self.turns)
    }

    /// Takes the descriptor from an endpoint, as from a stream.
    pub(crate) fn cut_endpoint_off(&mut self, key: EndpointKey) {
        self.end_receiving(key);
        self.end_sending(key);
        if let Some(entry) = self.endpoints.get_mut(key.0) {
            entry.fd = -1;
        }
    }

    fn end_receiving(&mut self, key: EndpointKey) {
        let Some(entry) = self.endpoints.get_mut(key.0) else {
            return;
        };
        let fd = entry.fd;
        if let Some(operation) = entry.receiving.take() {
            self.driver.cancel(operation, fd, Op::ReceiveFrom);
            let host = self.end_for_stream(operation);
            self.discarded.extend(host);
        }
        let held = self
            .held
            .extract_if(.., |(_, held, _)| *held == key)
            .map(|(_, _, host)| host);
        self.discarded.extend(held);
    }

    fn end_sending(&mut self, key: EndpointKey) {
        let Some(entry) = self.endpoints.get_mut(key.0) else {
            return;
        };
        let fd = entry.fd;
        if let Some(operation) = entry.sending.take() {
            self.driver.cancel(operation, fd, Op::Send);
            let host = self.end_for_stream(operation);
            self.discarded.extend(host);
        }
    }
}
