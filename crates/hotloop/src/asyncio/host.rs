//! What the engine keeps for a Rust program: closures, wakers and transports.

use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;

use super::datagram::DatagramTransport;
use super::handle::TimerHandle;
use super::stream::Stream;
use crate::driver::AnyDriver;
use crate::{EventLoop, Host};

/// A Rust program as the engine sees it.
pub(crate) struct Closures;

/// The engine of a loop for Rust programs.
pub(crate) type Engine = EventLoop<Closures, AnyDriver>;

impl Host for Closures {
    type Handle = Callback;
    type Timer = TimerHandle;
    type Stream = Hosted;
    type Bytes = Vec<u8>;

    fn is_cancelled(timer: &TimerHandle) -> bool {
        timer.is_cancelled()
    }
}

/// A transport as the engine keeps it.
#[derive(Clone)]
pub(crate) enum Hosted {
    Stream(Stream),
    Datagram(DatagramTransport),
}

impl Hosted {
    /// Parts it from its protocol, which is not told: its loop is closed. A protocol that has its transport, as some of
    /// our own do, would keep both forever.
    pub(crate) fn let_go(&self) {
        match self {
            Self::Stream(stream) => stream.let_go(),
            Self::Datagram(transport) => transport.let_go(),
        }
    }
}

/// What the queue of ready callbacks holds. It has to cross threads, since other threads queue too, so what belongs to
/// the loop's thread is here by name only.
#[derive(Clone)]
pub(crate) enum Callback {
    /// A closure of the loop's own thread.
    Local(CallbackKey),
    /// A closure of another thread.
    Sent(Arc<Sent>),
    /// A task to poll.
    Task(CallbackKey),
}

/// A closure that came from another thread. Whoever takes it runs it.
pub(crate) struct Sent(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Sent {
    pub(crate) fn new(callback: Box<dyn FnOnce() + Send>) -> Self {
        Self(Mutex::new(Some(callback)))
    }

    pub(crate) fn take(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Names an item of a [`Named`], and no later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallbackKey {
    index: u32,
    generation: u32,
}

/// Things of the loop's thread by names that may cross threads.
pub(crate) struct Named<T> {
    items: Slab<(u32, T)>,
    /// The generation of the next item.
    next: u32,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self {
            items: Slab::new(),
            next: 0,
        }
    }
}

impl<T> Named<T> {
    /// Keeps an item. Answers its name.
    pub(crate) fn insert(&mut self, item: T) -> CallbackKey {
        self.insert_with(|_| item)
    }

    /// Keeps an item that is made with its name. Answers that.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(CallbackKey) -> T) -> CallbackKey {
        self.next = self.next.wrapping_add(1);
        let entry = self.items.vacant_entry();
        let key = CallbackKey {
            // No machine has memory for four billion of them.
            index: entry.key() as u32,
            generation: self.next,
        };
        entry.insert((key.generation, make(key)));
        key
    }

    /// The item of a name, if it is still here.
    pub(crate) fn get(&self, key: CallbackKey) -> Option<&T> {
        let (generation, item) = self.items.get(key.index as usize)?;
        (*generation == key.generation).then_some(item)
    }

    /// Takes the item of a name, for the caller to drop when it holds nothing borrowed.
    pub(crate) fn remove(&mut self, key: CallbackKey) -> Option<T> {
        self.get(key)?;
        self.items.try_remove(key.index as usize).map(|(_, item)| item)
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> Vec<T> {
        let items = std::mem::take(&mut self.items);
        items.into_iter().map(|(_, (_, item))| item).collect()
    }
}
