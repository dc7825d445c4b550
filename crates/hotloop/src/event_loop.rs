//! The loop: one turn after another.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::datagrams::{DatagramEvent, EndpointEntry, EndpointKey};
use crate::driver::{Completion, Driver, OpKey, Outcome, Woken};
use crate::host::Host;
use crate::inbox::Inbox;
use crate::ready::Ready;
use crate::signals::Signals;
use crate::streams::{Owners, StreamEntry, StreamEvent, StreamKey};
use crate::timers::Timers;
use crate::watchers::Watchers;

/// The longest that one wait lasts, in seconds (asyncio's `MAXIMUM_SELECT_TIMEOUT`): a timer further away is looked at
/// once a day.
pub const MAXIMUM_WAIT: f64 = 24.0 * 3600.0;

/// How long the next wait may last; `None` is without end.
pub type Timeout = Option<Duration>;

/// What the host is to run next.
pub enum Event<H: Host> {
    /// A scheduled callback, or that of a watched descriptor.
    Callback(H::Handle),
    /// A timer that is due.
    Timer(H::Timer),
    /// News of a stream transport.
    Stream(StreamKey, H::Stream, StreamEvent),
    /// News of a datagram transport.
    Datagram(EndpointKey, H::Stream, DatagramEvent),
    /// A listening socket has connections to accept: the host calls [`accept`](EventLoop::accept), at most
    /// [`ACCEPT_BUDGET`](crate::transport::ACCEPT_BUDGET) times.
    Accept(H::Handle),
    /// A handle that no longer watches although nobody took it away, for the host to cancel and drop: the number of
    /// its descriptor is in use anew, or the kernel refused it.
    Replaced(H::Handle),
}

/// An event loop over a driver, for a host.
///
/// A turn is [`prepare_wait`](Self::prepare_wait), [`wait`](Self::wait), [`begin_turn`](Self::begin_turn), then
/// [`next_event`](Self::next_event) until there is none. Its order is asyncio's: the callbacks that were ready, then the
/// I/O that the wait found, then the timers that are due; what these schedule waits for the next turn.
pub struct EventLoop<H: Host, D: Driver> {
    pub(crate) driver: D,
    /// Callbacks to run.
    pub(crate) ready: Ready<H::Handle>,
    /// Timers of this turn, in the order in which they run. Filled by `begin_turn`.
    due: VecDeque<H::Timer>,
    /// What this turn has of turns that the host broke off. Written by `begin_turn`, used up by `next_event`.
    broken_off: BrokenOff,
    /// Timers of later turns.
    timers: Timers<H::Timer>,
    /// Callbacks from other threads.
    inbox: Arc<Inbox<H::Handle, D::Waker>>,
    /// The operations that the driver works on, by key. An entry goes with its operation's last completion.
    pub(crate) operations: Slab<Operation<H>>,
    /// The operations of `add_reader` and `add_writer`, by descriptor.
    pub(crate) watchers: Watchers,
    /// The operation that is there only to end waits: written by `wakes_only`.
    pub(crate) waking: Option<OpKey>,
    pub(crate) streams: Slab<StreamEntry<H>>,
    pub(crate) endpoints: Slab<EndpointEntry<H>>,
    /// Which stream or endpoint has which descriptor.
    pub(crate) owners: Owners,
    pub(crate) signals: Signals<H::Handle>,
    /// Streams for which the driver sends with the next wait.
    pub(crate) posted: Vec<(StreamKey, H::Stream)>,
    /// Streams whose later writes of this turn wait for its end.
    pub(crate) gathered: Vec<(StreamKey, H::Stream)>,
    /// Streams that broke at the end of a turn, for the next one to tell.
    pub(crate) broken: VecDeque<(StreamKey, H::Stream, io::Error)>,
    /// Endpoints that have received more than they could tell, and the turn in which they did.
    pub(crate) held: Vec<(u64, EndpointKey, H::Stream)>,
    /// Handles that no longer watch, for the next turn to hand out.
    pub(crate) replaced: VecDeque<H::Handle>,
    /// Objects of the host that nothing is awaited for any more. Dropping one may run foreign code, so the host does.
    pub(crate) discarded: Vec<H::Stream>,
    /// Counts turns, so that a stream knows whether it was written to in this one. 0 while none is under way.
    pub(crate) turn: u64,
    /// How many turns have begun so far.
    pub(crate) turns: u64,
    /// Whether all that was done since the last wait is known to leave the kernel with nothing to tell.
    pub(crate) told: Told,
}

/// What is known of the events since the last wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// How many were handed out; at first more than were exhausted, since nothing is known.
    events: u32,
    /// How many of them were the bytes of a stream that has no more, taken while nothing else was done.
    exhausted: u32,
    /// Whether the last receive took all that there was.
    pub(crate) took_all: bool,
}

impl Told {
    /// As if something unknown was done.
    const UNKNOWN: Self = Self {
        events: 1,
        exhausted: 0,
        took_all: false,
    };

    fn is_all_exhausted(self) -> bool {
        self.events > 0 && self.events == self.exhausted
    }
}

/// Where the turns before were broken off: each has left callbacks and then timers, in front of those of the next.
#[derive(Default)]
struct BrokenOff {
    /// How many timers of the oldest turn are left, or of the one that is being made up for.
    timers: usize,
    /// How many callbacks and timers each of the turns behind it has. The last one is no broken one.
    later: VecDeque<(usize, usize)>,
}

impl BrokenOff {
    /// Adds a turn behind `late` timers: `callbacks` are all that are scheduled behind the oldest turn's, `timers` all
    /// that are due.
    fn add_turn(&mut self, late: usize, callbacks: usize, timers: usize) {
        if self.later.is_empty() {
            self.timers = late;
        }
        let counted: usize = self.later.iter().map(|turn| turn.0).sum();
        self.later
            .push_back((callbacks.saturating_sub(counted), timers - late));
    }
}

/// Whom the completions of an operation concern.
pub(crate) enum Operation<H: Host> {
    Watch(H::Handle),
    Receive(StreamKey, H::Stream),
    Send(StreamKey, H::Stream),
    ReceiveFrom(EndpointKey, H::Stream),
    SendTo(EndpointKey, H::Stream),
    Accept(H::Handle),
    /// Signals came in.
    Signals,
    /// Cancelled: its last completion is still to come.
    Ended,
}

impl<H: Host, D: Driver> EventLoop<H, D> {
    /// A loop with nothing to do, over `driver`.
    pub fn new(driver: D) -> Self {
        let inbox = Arc::new(Inbox::new(driver.waker()));
        Self {
            driver,
            ready: Ready::default(),
            due: VecDeque::new(),
            broken_off: BrokenOff::default(),
            timers: Timers::default(),
            inbox,
            operations: Slab::new(),
            watchers: Watchers::default(),
            waking: None,
            streams: Slab::new(),
            endpoints: Slab::new(),
            owners: Owners::default(),
            signals: Signals::default(),
            posted: Vec::new(),
            gathered: Vec::new(),
            broken: VecDeque::new(),
            held: Vec::new(),
            replaced: VecDeque::new(),
            discarded: Vec::new(),
            turn: 0,
            turns: 0,
            told: Told::UNKNOWN,
        }
    }

    /// The way in for other threads.
    pub fn inbox(&self) -> Arc<Inbox<H::Handle, D::Waker>> {
        Arc::clone(&self.inbox)
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The driver, for a transfer on a descriptor that is watched.
    #[inline]
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Schedules a callback for the next turn.
    ///
    /// What other threads pushed before comes first, so the order is that of the calls, whichever way they came in.
    #[inline]
    pub fn call_soon(&mut self, handle: H::Handle) {
        if !self.inbox.is_empty() {
            self.take_inbox();
        }
        self.ready.push(handle);
    }

    /// Schedules a timer for `when`, in seconds of the host's clock.
    #[inline]
    pub fn call_at(&mut self, when: f64, timer: H::Timer) {
        self.timers.push(when, timer);
    }

    /// The callback that was scheduled last, of those that have not run and did not come from other threads, to be changed in
    /// its place.
    #[inline]
    pub fn last_ready(&mut self) -> Option<&mut H::Handle> {
        self.ready.last_mut()
    }

    /// The callbacks that are ready.
    pub fn ready(&mut self) -> &mut Ready<H::Handle> {
        self.take_inbox();
        &mut self.ready
    }

    /// The timers that wait.
    pub fn timers(&mut self) -> &mut Timers<H::Timer> {
        &mut self.timers
    }

    /// Ends a turn: sends what was gathered in it, but for what the driver sends with its wait, and answers how long the next wait may last. `swept` receives
    /// cancelled timers, for the host to drop when it holds nothing borrowed.
    ///
    /// `now` is the host's time in seconds; a loop that is `stopping` does not wait.
    pub fn prepare_wait(
        &mut self,
        now: impl FnOnce() -> f64,
        stopping: bool,
        swept: &mut Vec<H::Timer>,
    ) -> Timeout {
        self.turn = 0;
        self.flush_gathered();
        self.timers.sweep(H::is_cancelled, swept);
        if stopping || !self.is_idle() {
            return Some(Duration::ZERO);
        }
        let when = self.timers.next_when()?;
        // A time that is not a number does not wait, as with asyncio.
        let seconds = (when - now()).clamp(0.0, MAXIMUM_WAIT);
        let nanoseconds = if seconds.is_nan() {
            0.0
        } else {
            (seconds * 1e9).ceil()
        };
        Some(Duration::from_nanos(nanoseconds as u64))
    }

    /// What waits for the kernel, for another thread, or for the time to be over. It holds no handles, so a host may
    /// let go of its own lock meanwhile.
    pub fn waiter(&mut self) -> Waiter<'_, H, D> {
        let needs_poll = self.needs_poll();
        self.told = Told::default();
        Waiter {
            needs_poll,
            is_idle: self.is_idle(),
            driver: &mut self.driver,
            inbox: &self.inbox,
        }
    }

    /// Whether the kernel may have something for a turn that does not wait.
    #[inline(always)]
    fn needs_poll(&self) -> bool {
        if !self.posted.is_empty() || self.driver.has_chores() {
            return true;
        }
        if self.operations.is_empty() {
            return false;
        }
        let waking = self
            .waking
            .is_some_and(|OpKey(key)| self.operations.contains(key as usize));
        if waking && self.operations.len() == 1 {
            return false;
        }
        !(self.told.is_all_exhausted() && self.driver.has_told_all())
    }

    /// Waits; see [`Waiter::wait`].
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&mut self, timeout: Timeout) -> io::Result<Woken> {
        self.waiter().wait(timeout)
    }

    /// Says that the host is about to wait by itself, for a driver that leaves that to it. Answers false if it must not,
    /// since there is something to do. To be followed by [`wake_up`](Self::wake_up).
    pub fn fall_asleep(&mut self) -> bool {
        self.is_idle() && self.inbox.fall_asleep()
    }

    /// Says that the host no longer waits by itself.
    pub fn wake_up(&mut self) {
        self.inbox.wake_up();
    }

    /// Begins a turn that has nothing but callbacks: nothing to send, no timers, nothing that the kernel could have.
    /// Answers false, having done nothing, if there may be more; then a turn begins with
    /// [`prepare_wait`](Self::prepare_wait). That it would come to the same makes it a matter of speed only.
    #[inline]
    pub fn begin_at_once(&mut self) -> bool {
        let may_have_more = self.ready.is_empty()
            || !self.timers.is_empty()
            || !self.due.is_empty()
            || !self.gathered.is_empty()
            || !self.broken.is_empty()
            || !self.held.is_empty()
            || !self.replaced.is_empty()
            || self.needs_poll();
        if may_have_more {
            return false;
        }
        self.told = Told::default();
        if !self.inbox.is_empty() {
            self.take_inbox();
        }
        self.count_turn();
        true
    }

    /// Begins a turn: what is ready now, and the timers due before `end` (seconds of the host's clock), belong to it.
    ///
    /// Where the host broke off the turn before, what is left of its callbacks and timers comes first.
    pub fn begin_turn(&mut self, end: impl FnOnce() -> f64) {
        self.take_unsent();
        self.take_inbox();
        let late = self.due.len();
        if !self.timers.is_empty() {
            let end = end();
            while let Some(timer) = self.timers.pop_due(end) {
                self.due.push_back(timer);
            }
        }
        if late == 0 {
            self.count_turn();
        } else {
            let scheduled = self.ready.len() - self.ready.in_turn();
            self.broken_off.add_turn(late, scheduled, self.due.len());
            self.turns += 1;
            self.turn = self.turns;
        }
    }

    /// Begins a turn to which all that is ready belongs.
    #[inline]
    fn count_turn(&mut self) {
        if !self.broken_off.later.is_empty() {
            self.broken_off.later.clear();
        }
        self.broken_off.timers = 0;
        self.ready.begin_turn();
        self.turns += 1;
        self.turn = self.turns;
    }

    /// The host says of the event that it has last taken: it received, and then did nothing that the kernel could have
    /// to tell of; it has run no foreign code. If that holds for all events of a turn, and each has received all that
    /// there was, the kernel has no news but what comes in right now, and the next turn, if it does not wait, hears
    /// of that one turn later and is spared the call.
    #[inline]
    pub fn note_received_only(&mut self) {
        self.told.exhausted += u32::from(self.told.took_all);
    }

    /// The host says that it has run something between two turns.
    pub fn note_break(&mut self) {
        self.told = Told::UNKNOWN;
    }

    /// The callback of the next event, if that is one of the callbacks in front of all else.
    #[inline]
    pub fn next_callback(&mut self) -> Option<H::Handle> {
        let handle = self.ready.pop()?;
        self.told.events = self.told.events.saturating_add(1);
        self.told.took_all = false;
        Some(handle)
    }

    /// Whether the turn has no events left but those of [`next_callback`](Self::next_callback).
    #[inline]
    pub fn has_callbacks_only(&self) -> bool {
        self.replaced.is_empty()
            && self.broken.is_empty()
            && self.held.is_empty()
            && self.due.is_empty()
            && self.broken_off.later.is_empty()
            && !self.driver.has_completions()
    }

    /// The next event of the turn.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event<H>> {
        if let Some(handle) = self.next_callback() {
            return Some(Event::Callback(handle));
        }
        self.told.events = self.told.events.saturating_add(1);
        self.told.took_all = false;
        if let Some(event) = self.next_io() {
            return Some(event);
        }
        if !self.broken_off.later.is_empty() {
            return self.next_broken_off();
        }
        let timer = self.due.pop_front();
        // Nothing was handed out after all.
        self.told.events -= u32::from(timer.is_none());
        timer.map(Event::Timer)
    }

    /// Begins what is left of a turn for a host that takes callbacks and timers out by itself, with
    /// [`pop_scheduled`](Self::pop_scheduled): its I/O. To be followed by [`next_io`](Self::next_io) until there is none,
    /// and [`end_turn`](Self::end_turn).
    pub fn begin_io(&mut self) {
        self.take_unsent();
        self.turns += 1;
        self.turn = self.turns;
    }

    /// The oldest of [`queued`](Self::queued), as an event, for a host that runs it by itself.
    pub fn pop_scheduled(&mut self) -> Option<Event<H>> {
        self.take_inbox();
        if self.ready.in_turn() == 0
            && let Some(timer) = self.due.pop_front()
        {
            return Some(Event::Timer(timer));
        }
        self.ready.pop_front().map(Event::Callback)
    }

    /// What is to run without waiting for anything: the callbacks of the turn under way, the timers that are due in it,
    /// the callbacks of the next one.
    pub fn queued(
        &mut self,
    ) -> (
        impl Iterator<Item = &H::Handle>,
        impl Iterator<Item = &H::Timer>,
        impl Iterator<Item = &H::Handle>,
    ) {
        self.take_inbox();
        let in_turn = self.ready.in_turn();
        let first = self.ready.iter().take(in_turn);
        (first, self.due.iter(), self.ready.iter().skip(in_turn))
    }

    /// Ends the turn under way: what was posted or gathered is sent. Writes from now on go to the kernel at once.
    pub fn end_turn(&mut self) {
        self.turn = 0;
        self.settle_all();
        self.flush_gathered();
    }

    /// The number of the turn under way; 0 while none is.
    #[inline]
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// The handles and timers that are scheduled, but for what other threads have just pushed.
    pub fn scheduled(&self) -> (impl Iterator<Item = &H::Handle>, impl Iterator<Item = &H::Timer>) {
        (self.ready.iter(), self.timers.iter().chain(&self.due))
    }

    /// Everything that the loop holds for I/O, for the host to drop when it holds nothing borrowed.
    #[must_use]
    pub fn take_io(&mut self) -> (Vec<H::Handle>, Vec<H::Stream>) {
        let mut handles: Vec<_> = self.replaced.drain(..).collect();
        let mut streams = std::mem::take(&mut self.discarded);
        for (_, operation) in &mut self.operations {
            match std::mem::replace(operation, Operation::Ended) {
                Operation::Watch(handle) | Operation::Accept(handle) => handles.push(handle),
                Operation::Receive(_, host)
                | Operation::Send(_, host)
                | Operation::ReceiveFrom(_, host)
                | Operation::SendTo(_, host) => streams.push(host),
                Operation::Signals | Operation::Ended => {}
            }
        }
        handles.extend(self.take_signal_handlers());
        self.watchers = Watchers::default();
        let Self { posted, gathered, .. } = self;
        streams.extend(posted.drain(..).chain(gathered.drain(..)).map(|(_, host)| host));
        streams.extend(self.broken.drain(..).map(|(_, host, _)| host));
        streams.extend(self.held.drain(..).map(|(_, _, host)| host));
        (handles, streams)
    }

    /// Everything scheduled, for the host to drop when it holds nothing borrowed.
    #[must_use]
    pub fn take_scheduled(&mut self) -> (VecDeque<H::Handle>, Vec<H::Timer>) {
        self.take_inbox();
        let mut timers = self.timers.take();
        timers.extend(self.due.drain(..));
        self.broken_off = BrokenOff::default();
        (self.ready.take(), timers)
    }

    /// Whether a turn would find nothing to do but what the kernel and the clock have for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty()
            && self.due.is_empty()
            && self.broken.is_empty()
            && self.held.is_empty()
            && self.replaced.is_empty()
            && self.inbox.is_empty()
    }

    /// The due time of the next timer, in seconds of the host's clock.
    pub(crate) fn next_timer(&self) -> Option<f64> {
        self.timers.next_when()
    }

    /// The next event where callbacks of a turn come behind timers of an earlier one.
    #[cold]
    fn next_broken_off(&mut self) -> Option<Event<H>> {
        if self.broken_off.timers > 0 {
            self.broken_off.timers -= 1;
            return self.due.pop_front().map(Event::Timer);
        }
        if let Some((callbacks, timers)) = self.broken_off.later.pop_front() {
            self.ready.extend_turn(callbacks);
            self.broken_off.timers = timers;
        }
        self.next_event()
    }

    /// The next event of I/O, of a turn or of [`begin_io`](Self::begin_io).
    pub fn next_io(&mut self) -> Option<Event<H>> {
        if let Some(handle) = self.replaced.pop_front() {
            return Some(Event::Replaced(handle));
        }
        if let Some((key, host, error)) = self.broken.pop_front() {
            return Some(Event::Stream(key, host, StreamEvent::Broken(error)));
        }
        if let Some((key, host)) = self.next_held() {
            return Some(Event::Datagram(key, host, DatagramEvent::Readable));
        }
        while let Some(Completion {
            key: OpKey(key),
            outcome,
        }) = self.driver.next_completion()
        {
            let key = key as usize;
            if outcome == Outcome::Cancelled {
                self.operations.try_remove(key);
                continue;
            }
            match self.operations.get(key) {
                Some(Operation::Watch(handle)) => return Some(Event::Callback(handle.clone())),
                Some(Operation::Receive(stream, host)) => {
                    return Some(Event::Stream(*stream, host.clone(), StreamEvent::Readable));
                }
                Some(Operation::Send(stream, host)) => {
                    let (stream, host) = (*stream, host.clone());
                    let sent = self.flush(stream, &host);
                    let news = sent.map_or_else(StreamEvent::Broken, |()| StreamEvent::Sent);
                    return Some(Event::Stream(stream, host, news));
                }
                Some(Operation::ReceiveFrom(endpoint, _)) if self.was_told(*endpoint) => {}
                Some(Operation::ReceiveFrom(endpoint, host)) => {
                    return Some(Event::Datagram(*endpoint, host.clone(), DatagramEvent::Readable));
                }
                Some(Operation::SendTo(endpoint, host)) => {
                    return Some(Event::Datagram(*endpoint, host.clone(), DatagramEvent::Writable));
                }
                Some(Operation::Accept(handle)) => return Some(Event::Accept(handle.clone())),
                Some(Operation::Signals) => self.take_signals(),
                Some(Operation::Ended) | None => {}
            }
        }
        None
    }

    fn take_inbox(&mut self) {
        while let Some(handle) = self.inbox.pop() {
            self.ready.push(handle);
        }
    }
}

/// The waiting part of a loop.
pub struct Waiter<'a, H: Host, D: Driver> {
    /// Whether a wait without time can find something.
    needs_poll: bool,
    /// Whether nothing was scheduled since [`EventLoop::prepare_wait`] has said that there is time to wait.
    is_idle: bool,
    driver: &'a mut D,
    inbox: &'a Inbox<H::Handle, D::Waker>,
}

impl<H: Host, D: Driver> Waiter<'_, H, D> {
    /// Waits until something completes, another thread calls, a signal comes in or the time is over. This is the only
    /// call that may block.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(self, timeout: Timeout) -> io::Result<Woken> {
        if timeout == Some(Duration::ZERO) {
            if !self.needs_poll {
                return Ok(Woken::Normally);
            }
            return self.driver.wait(timeout);
        }
        let timeout = if self.is_idle && self.inbox.fall_asleep() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        let woken = self.driver.wait(timeout);
        self.inbox.wake_up();
        woken
    }
}
