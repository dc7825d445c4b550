//! The least that can be run on the engine: everything that it hands out is a label, and is noted.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Duration;

use hotloop::clock::{Clock, Manual};
use hotloop::driver::Direction;
use hotloop::driver::sim::{Network, Sim};
use hotloop::{DatagramEvent, EndpointKey, Event, EventLoop, Host, StreamEvent, StreamKey, Timeout};

/// The resolution of the clock, in seconds: asyncio runs what is due within it.
pub(crate) const RESOLUTION: f64 = 1e-9;

/// What the tests run the engine for.
pub(crate) struct Labels;

impl Host for Labels {
    type Handle = u32;
    type Timer = Timer;
    type Stream = u32;
    type Bytes = Vec<u8>;

    fn is_cancelled(timer: &Timer) -> bool {
        timer.cancelled.get()
    }
}

/// A timer and its owner's way to cancel it.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    label: u32,
    cancelled: Rc<Cell<bool>>,
}

/// An event as a test looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Callback(u32),
    Timer(u32),
    Readable(u32),
    Sent(u32),
    Broken(u32, io::ErrorKind),
    Datagram(u32, DatagramEvent),
    Accept(u32),
    Replaced(u32),
}

impl From<Event<Labels>> for Seen {
    fn from(event: Event<Labels>) -> Self {
        match event {
            Event::Callback(label) => Self::Callback(label),
            Event::Timer(timer) => Self::Timer(timer.label),
            Event::Stream(_, label, StreamEvent::Readable) => Self::Readable(label),
            Event::Stream(_, label, StreamEvent::Sent) => Self::Sent(label),
            Event::Stream(_, label, StreamEvent::Broken(error)) => Self::Broken(label, error.kind()),
            Event::Datagram(_, label, news) => Self::Datagram(label, news),
            Event::Accept(label) => Self::Accept(label),
            Event::Replaced(label) => Self::Replaced(label),
        }
    }
}

pub(crate) type Loop = EventLoop<Labels, Sim>;

/// A loop with its surroundings.
pub(crate) struct Program {
    pub(crate) event_loop: Loop,
    pub(crate) network: Network,
    pub(crate) clock: Manual,
    /// The labels of the timers that were swept.
    pub(crate) swept: Vec<u32>,
    /// The labels of the streams.
    pub(crate) labels: HashMap<StreamKey, u32>,
}

impl Program {
    pub(crate) fn new() -> Self {
        let (network, clock) = (Network::default(), Manual::default());
        Self {
            event_loop: EventLoop::new(Sim::new(network.clone(), clock.clone())),
            network,
            clock,
            swept: Vec::new(),
            labels: HashMap::new(),
        }
    }

    /// One whose driver sends small writes with its waits, if it `posts`.
    pub(crate) fn posting(posts: bool) -> Self {
        let mut program = Self::new();
        if posts {
            program.event_loop.driver_mut().take_posts();
        }
        program
    }

    /// Schedules a timer and gives its canceller.
    pub(crate) fn call_at(&mut self, when: f64, label: u32) -> Timer {
        call_at(&mut self.event_loop, when, label)
    }

    /// Cancels a timer that is in the heap.
    pub(crate) fn cancel(&mut self, timer: &Timer) {
        timer.cancelled.set(true);
        self.event_loop.timers().note_cancelled();
    }

    /// Opens a connection, with room for so many bytes, and a stream labelled by its descriptor's number.
    pub(crate) fn stream(&mut self, fd: RawFd, room: usize) -> StreamKey {
        self.network.open(fd, room);
        let key = self.event_loop.open_stream(fd);
        self.labels.insert(key, fd.cast_unsigned());
        key
    }

    /// Opens a datagram socket, with room for so many bytes, and an endpoint labelled by its descriptor's number. It
    /// receives, and each datagram that it queues counts 8 bytes more.
    pub(crate) fn endpoint(&mut self, fd: RawFd, room: usize) -> io::Result<EndpointKey> {
        self.network.open(fd, room);
        let key = self.event_loop.open_endpoint(fd, 8, true);
        self.event_loop.resume_endpoint(key, fd.cast_unsigned())?;
        Ok(key)
    }

    /// Starts to receive on a stream.
    pub(crate) fn start_reading(&mut self, key: StreamKey) -> io::Result<()> {
        self.event_loop.start_reading(key, self.labels[&key])
    }

    /// Awaits a descriptor on which nothing happens, so that turns that do not wait ask for it.
    pub(crate) fn await_nothing(&mut self) -> io::Result<()> {
        const NOTHING: RawFd = 99;
        self.network.open(NOTHING, 0);
        self.event_loop.watch(NOTHING, Direction::Read, u32::MAX)?;
        Ok(())
    }

    /// Ends the turn under way and answers how long the next wait may last.
    pub(crate) fn prepare(&mut self, stopping: bool) -> Timeout {
        let (clock, mut swept) = (self.clock.clone(), Vec::new());
        let timeout = self.event_loop.prepare_wait(|| clock.now(), stopping, &mut swept);
        self.swept.extend(swept.iter().map(|timer| timer.label));
        timeout
    }

    /// Begins a turn, which a wait came before.
    pub(crate) fn begin(&mut self) {
        let clock = self.clock.clone();
        self.event_loop.begin_turn(|| clock.now() + RESOLUTION);
    }

    /// The next event of the turn. A timer that was cancelled meanwhile is none.
    pub(crate) fn next(&mut self) -> Option<Seen> {
        loop {
            return Some(match self.event_loop.next_event()? {
                Event::Timer(timer) if timer.cancelled.get() => continue,
                event => Seen::from(event),
            });
        }
    }

    /// One whole turn, in which `run` runs each event.
    pub(crate) fn turn_with(&mut self, mut run: impl FnMut(&mut Self, Seen)) -> io::Result<Vec<Seen>> {
        if !self.event_loop.begin_at_once() {
            let timeout = self.prepare(false);
            self.event_loop.wait(timeout)?;
            self.begin();
        }
        let mut all = Vec::new();
        while let Some(seen) = self.next() {
            all.push(seen);
            run(self, seen);
        }
        self.event_loop.end_turn();
        Ok(all)
    }

    /// One whole turn whose events do nothing.
    pub(crate) fn turn(&mut self) -> io::Result<Vec<Seen>> {
        self.turn_with(|_, _| {})
    }

    /// A turn made to happen at once, by a callback in which `act` runs. Answers what else was seen.
    pub(crate) fn in_a_turn(&mut self, act: impl FnOnce(&mut Self)) -> io::Result<Vec<Seen>> {
        const LABEL: u32 = u32::MAX;
        self.event_loop.call_soon(LABEL);
        let mut act = Some(act);
        let mut all = self.turn_with(|program, seen| {
            if seen == Seen::Callback(LABEL)
                && let Some(act) = act.take()
            {
                act(program);
            }
        })?;
        all.retain(|&seen| seen != Seen::Callback(LABEL));
        Ok(all)
    }

    /// How long the waits so far might have lasted.
    pub(crate) fn waits(&self) -> &[Option<Duration>] {
        self.event_loop.driver().waits()
    }
}

/// Schedules a timer and gives its canceller.
pub(crate) fn call_at(event_loop: &mut Loop, when: f64, label: u32) -> Timer {
    let timer = Timer {
        label,
        cancelled: Rc::default(),
    };
    event_loop.call_at(when, timer.clone());
    timer
}

pub(crate) fn callbacks(labels: impl IntoIterator<Item = u32>) -> Vec<Seen> {
    labels.into_iter().map(Seen::Callback).collect()
}

pub(crate) fn timers(labels: impl IntoIterator<Item = u32>) -> Vec<Seen> {
    labels.into_iter().map(Seen::Timer).collect()
}
