//! One endpoint of datagrams: what it has queued and how far its life has come.

use std::collections::VecDeque;

use super::{Close, FlowControl, Life};
use crate::driver::Address;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The peer that the socket is connected to.
    Peer,
    /// An address.
    Address(Address),
    /// What only the host can make an address of, such as a name. It keeps those in the order of their datagrams, and
    /// sends each of these itself when its turn has come.
    Named,
}

/// A datagram on its way out.
#[derive(Debug)]
pub struct Queued<B> {
    /// What it carries.
    pub bytes: B,
    /// Where it goes.
    pub to: Destination,
}

/// The state of a datagram transport.
#[derive(Debug)]
pub struct Datagrams<B> {
    /// Oldest first. Filled by sends that find no room, emptied by flushes.
    queue: VecDeque<Queued<B>>,
    /// How many bytes wait, with the overhead of each datagram.
    size: usize,
    /// What a queued datagram counts besides its bytes.
    overhead: usize,
    /// When the protocol is paused.
    pub flow: FlowControl,
    /// How far its life has come.
    life: Life,
}

impl<B: AsRef<[u8]>> Datagrams<B> {
    /// An open endpoint with nothing queued. Each datagram that will be counts `overhead` bytes more than it has.
    #[must_use]
    pub fn new(overhead: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            size: 0,
            overhead,
            flow: FlowControl::default(),
            life: Life::default(),
        }
    }

    /// How far its life has come.
    #[must_use]
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Notes whether the host wants to receive. Answers whether that is news.
    pub fn set_reading(&mut self, reading: bool) -> bool {
        self.life.set_reading(reading)
    }

    /// What waits to be sent, in bytes with the overhead of each datagram.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether nothing waits to be sent. An empty datagram without overhead counts as something here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The datagrams that wait, oldest first.
    pub fn queued(&self) -> impl Iterator<Item = &Queued<B>> {
        self.queue.iter()
    }

    /// Appends a datagram.
    pub fn push(&mut self, datagram: Queued<B>) {
        self.size += self.count(&datagram);
        self.queue.push_back(datagram);
    }

    /// Puts back what [`pop`](Self::pop) took.
    pub fn push_front(&mut self, datagram: Queued<B>) {
        self.size += self.count(&datagram);
        self.queue.push_front(datagram);
    }

    /// Takes the oldest datagram.
    pub fn pop(&mut self) -> Option<Queued<B>> {
        let datagram = self.queue.pop_front()?;
        self.size -= self.count(&datagram);
        Some(datagram)
    }

    /// Begins the orderly end: nothing more is received, what is queued is sent.
    pub fn close(&mut self) -> Close {
        self.life.close(!self.queue.is_empty())
    }

    /// Ends at once and drops what is queued. Answers whether `connection_lost` is due on the next turn.
    pub fn abort(&mut self) -> bool {
        self.size = 0;
        self.queue.clear();
        self.life.abort()
    }

    /// Says, after a flush, whether the end is reached: closing, and nothing waits any more.
    pub fn finish_close(&mut self) -> bool {
        self.life.finish_close(!self.queue.is_empty())
    }

    fn count(&self, datagram: &Queued<B>) -> usize {
        datagram.bytes.as_ref().len() + self.overhead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_peer(bytes: &[u8]) -> Queued<Vec<u8>> {
        Queued {
            bytes: bytes.to_vec(),
            to: Destination::Peer,
        }
    }

    #[test]
    fn each_datagram_counts_its_overhead() {
        let mut endpoint = Datagrams::new(8);
        endpoint.push(to_peer(b"abc"));
        endpoint.push(to_peer(b""));
        assert_eq!(endpoint.size(), 3 + 8 + 8);
        let first = endpoint.pop().expect("two are queued");
        assert_eq!((first.bytes.as_slice(), endpoint.size()), (b"abc".as_slice(), 8));
        endpoint.push_front(first);
        assert_eq!(endpoint.size(), 19);
        assert!(endpoint.abort());
        assert_eq!(endpoint.size(), 0);
        assert!(endpoint.is_empty());
    }

    #[test]
    fn a_close_waits_for_an_empty_datagram_too() {
        let mut endpoint = Datagrams::new(0);
        endpoint.push(to_peer(b""));
        assert_eq!(endpoint.size(), 0);
        assert_eq!(endpoint.close(), Close::AfterFlush);
        assert!(!endpoint.finish_close());
        assert!(endpoint.pop().is_some());
        assert!(endpoint.finish_close());
    }
}
