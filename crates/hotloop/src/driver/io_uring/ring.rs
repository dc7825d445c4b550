//! One ring: made, entered, pushed to and taken from, by one thread.

use std::cell::Cell;
use std::hint;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue, types};

use super::Refused;
use super::fork::{self, Birthmark};
use crate::driver::Woken;
use crate::driver::busy_poll::BusyPoll;

/// How many operations can be handed in at a time. More are no harm: they go in before their turn.
const SUBMISSIONS: u32 = 256;

/// How many completions fit before the kernel keeps the rest for itself: a turn of 500 busy connections with room to
/// spare.
const COMPLETIONS: u32 = 2048;

/// No wait lasts longer, in seconds: 30 years. The kernel's clock, to which it adds a timeout, ends at 292.
const LONGEST: u64 = 1_000_000_000;

/// A ring. It is the kernel's to write to while it is open.
pub(super) struct Ring {
    /// Forgotten, not dropped, where a fork has closed its descriptor already.
    ring: ManuallyDrop<IoUring>,
    birthmark: Birthmark,
    /// The only thread that the kernel lets in: the first that waits. Written by `claim`.
    owner: Option<Thread>,
    /// How often the kernel was entered, for tests.
    entered: u64,
    /// Whether a wait that may sleep looks around first.
    busy_poll: BusyPoll,
    /// Whether the kernel knows [`opcode::EpollWait`] (Linux 6.15).
    pub(super) waits_for_epoll: bool,
}

/// What a wait has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The kernel did as it was told.
    Woken(Woken),
    /// The ring is another thread's.
    Stranger,
}

/// No signal came, and nobody else has the ring.
const NORMALLY: Entered = Entered::Woken(Woken::Normally);

impl Ring {
    /// A ring that belongs to no thread yet.
    ///
    /// # Errors
    /// [`Refused`], where the error of the kernel needs an explanation.
    pub(super) fn new() -> io::Result<Self> {
        let held = fork::hold();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .setup_r_disabled()
            .build(SUBMISSIONS)
            .map_err(Refused::explain)?;
        let features = ring.params();
        for (there, what) in [
            (features.is_feature_nodrop(), "completions that do not get lost"),
            (features.is_feature_ext_arg(), "timeouts of a wait"),
            (features.is_feature_skip_cqe_on_success(), "silent successes"),
            (
                features.is_feature_fast_poll(),
                "operations that wait without a thread",
            ),
        ] {
            if !there {
                return Err(Refused::lacking(what));
            }
        }
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(Refused::explain)?;
        for (code, what) in [
            (opcode::RecvMulti::CODE, "receiving"),
            (opcode::Send::CODE, "sending"),
            (opcode::PollAdd::CODE, "polling"),
            (opcode::AsyncCancel::CODE, "cancelling"),
        ] {
            if !probe.is_supported(code) {
                return Err(Refused::lacking(what));
            }
        }
        Ok(Self {
            birthmark: Birthmark::new(ring.as_raw_fd(), &held),
            ring: ManuallyDrop::new(ring),
            owner: None,
            entered: 0,
            busy_poll: BusyPoll::new(),
            waits_for_epoll: probe.is_supported(opcode::EpollWait::CODE),
        })
    }

    /// The ring underneath, to register memory with.
    pub(super) fn kernel(&self) -> &IoUring {
        &self.ring
    }

    /// How often the kernel was entered.
    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    /// Whether the calling thread may enter.
    #[inline]
    pub(super) fn is_mine(&self) -> bool {
        self.owner == Some(Thread::current())
    }

    /// Makes the ring the calling thread's, unless it has an owner. Answers whether it is the calling thread's.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn claim(&mut self) -> io::Result<bool> {
        if self.owner.is_none() {
            self.ring.submitter().register_enable_rings()?;
            self.owner = Some(Thread::current());
        }
        Ok(self.is_mine())
    }

    /// Hands an operation in; it begins with the next [`submit`](Self::submit) or [`wait`](Self::wait).
    ///
    /// # Safety
    /// Memory that the operation names stays where it is until the operation is over.
    ///
    /// # Errors
    /// The kernel's, if it takes nothing while the queue is full.
    pub(super) unsafe fn push(&mut self, operation: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise, and all operations are made by the constructors of the crate.
        while unsafe { self.ring.submission().push(operation) }.is_err() {
            let before = self.ring.submission().len();
            self.submit()?;
            if self.ring.submission().len() == before {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(())
    }

    /// Whether the kernel has something to do, or to say, as soon as it is entered.
    pub(super) fn is_due(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether all that was handed in has begun, and nothing is to be said of it that is not among the completions.
    pub(super) fn is_settled(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.is_empty() && !queue.cq_overflow()
    }

    /// Has the kernel begin what was handed in, and do what is due, without waiting.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn submit(&mut self) -> io::Result<Entered> {
        let count = self.ring.submission().len();
        self.enter(count, None, EnterFlags::GETEVENTS)
    }

    /// Has the kernel begin what was handed in, and waits until something completes, awake for the first microseconds
    /// where that is likely to be enough; see [`BusyPoll`]. The last wait has led to `found` events. Without anything to
    /// hand in or to wait for there is no system call.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, found: usize) -> io::Result<Entered> {
        if timeout == Some(Duration::ZERO) || !self.ring.completion().is_empty() {
            return if self.is_due() {
                self.submit()
            } else {
                Ok(NORMALLY)
            };
        }
        let begun = Instant::now();
        let mut left = timeout;
        if self.busy_poll.is_due(found, timeout) {
            if self.is_due() {
                let submitted = self.submit()?;
                if submitted != NORMALLY {
                    return Ok(submitted);
                }
            }
            let Self { ring, busy_poll, .. } = self;
            let looked = busy_poll.look(Instant::now(), || {
                hint::spin_loop();
                Ok(has_news(ring).then_some(()))
            })?;
            left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            if looked.is_some() && !self.ring.completion().is_empty() {
                return Ok(NORMALLY);
            }
        }
        let entered = self.sleep(left)?;
        if !self.ring.completion().is_empty() {
            self.busy_poll.slept(begun.elapsed());
        }
        Ok(entered)
    }

    /// Has the kernel begin what was handed in, and sleeps until something completes.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<Entered> {
        let count = self.ring.submission().len();
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // Waiting for a peer is not what a machine's load is measured by.
        flags.set(EnterFlags::NO_IOWAIT, self.ring.params().is_feature_no_iowait());
        let start = timeout.filter(|_| count > 0).map(|_| Instant::now());
        let entered = self.enter(count, Some(timeout), flags)?;
        if count > 0 && entered == NORMALLY && self.ring.completion().is_empty() {
            // What was handed in hides how the wait ended: by its time, or else by a signal.
            let over = match (timeout, start) {
                (Some(timeout), Some(start)) => start.elapsed() >= timeout,
                _ => false,
            };
            if !over {
                return Ok(Entered::Woken(Woken::BySignal));
            }
        }
        Ok(entered)
    }

    /// The next completion.
    #[inline]
    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Enters the kernel. `wait` is `None` not to wait, else how long.
    fn enter(
        &mut self,
        count: usize,
        wait: Option<Option<Duration>>,
        flags: EnterFlags,
    ) -> io::Result<Entered> {
        let timespec = wait.flatten().map(|timeout| {
            let seconds = timeout.as_secs().min(LONGEST);
            types::Timespec::new().sec(seconds).nsec(timeout.subsec_nanos())
        });
        let mut args = types::SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        self.entered += 1;
        let submitter = self.ring.submitter();
        // No queue is that long.
        let (count, least) = (count as u32, u32::from(wait.is_some()));
        // SAFETY: `args` outlives the call; without `EXT_ARG` the kernel is given no argument. What was handed in keeps
        // its memory, by the promise of `push`.
        let entered = unsafe {
            match wait {
                Some(_) => submitter.enter(count, least, flags.bits(), Some(&args)),
                None => submitter.enter::<libc::sigset_t>(count, least, flags.bits(), None),
            }
        };
        let Err(error) = entered else {
            return Ok(NORMALLY);
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => Ok(Entered::Woken(Woken::BySignal)),
            // The time is over; or the kernel wants completions to be taken first, or memory, and is tried again.
            Some(libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(NORMALLY),
            Some(libc::EEXIST) => Ok(Entered::Stranger),
            _ => Err(error),
        }
    }
}

/// Whether something has completed, or would if the kernel were entered.
fn has_news(ring: &mut IoUring) -> bool {
    let queue = ring.submission();
    let is_due = queue.taskrun() || queue.cq_overflow();
    drop(queue);
    is_due || !ring.completion().is_empty()
}

impl Drop for Ring {
    fn drop(&mut self) {
        let held = fork::hold();
        if !self.birthmark.is_closed() {
            // SAFETY: it is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
        self.birthmark.forget(&held);
    }
}

/// A thread, by a number that no other thread of the process ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread(u64);

impl Thread {
    #[inline]
    fn current() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static NUMBER: Cell<u64> = const { Cell::new(0) };
        }
        Self(NUMBER.with(|number| {
            if number.get() == 0 {
                number.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
            }
            number.get()
        }))
    }
}
