//! The inner readiness driver's epoll set, waited for by the ring.
//!
//! An epoll set is readable as long as it has something to report. The ring waits for that once, and anew with the wait
//! after it has come to pass, so what stays ready is reported again. A kernel that can take the events right then
//! (Linux 6.15) saves the call that would.

use std::io;
use std::os::fd::RawFd;

use io_uring::{opcode, squeue, types};

use crate::driver::epoll::EVENTS;

/// An epoll set under a ring.
pub(super) struct Polled {
    state: State,
    /// Where the kernel puts events; its own while the operation is under way.
    events: Box<[libc::epoll_event]>,
    /// The events of the ring before.
    retired: Box<[libc::epoll_event]>,
    /// Whether the kernel takes the events, or only says that there are some.
    takes_events: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The kernel is to be asked.
    Idle,
    /// The kernel was asked.
    UnderWay,
    /// The kernel has answered.
    Answered(i32),
}

/// What an epoll set has to report.
pub(super) enum Report<'a> {
    Nothing,
    /// There are events to be asked for.
    Some,
    Events(&'a [libc::epoll_event]),
}

impl Polled {
    pub(super) fn new(takes_events: bool) -> Self {
        Self {
            state: State::Idle,
            events: room(),
            retired: Box::default(),
            takes_events,
        }
    }

    /// Whether the kernel may still write events.
    pub(super) fn is_under_way(&self) -> bool {
        self.state == State::UnderWay
    }

    /// The operation that asks the kernel, if it is to be asked. The memory that it names is kept in place, and not
    /// freed, until it is over.
    pub(super) fn ask(&mut self, epoll: RawFd) -> Option<squeue::Entry> {
        if self.state != State::Idle {
            return None;
        }
        self.state = State::UnderWay;
        let epoll = types::Fd(epoll);
        Some(if self.takes_events {
            opcode::EpollWait::new(epoll, self.events.as_mut_ptr().cast(), EVENTS as u32).build()
        } else {
            opcode::PollAdd::new(epoll, libc::POLLIN as u32).build()
        })
    }

    /// Notes the kernel's answer.
    pub(super) fn answer(&mut self, result: i32) {
        self.state = State::Answered(result);
    }

    /// Drops an answer that came in between two waits. Answers whether there was one: what stays ready is reported
    /// again, but a wake-up is not.
    pub(super) fn overlook(&mut self) -> bool {
        let answered = matches!(self.state, State::Answered(_));
        if answered {
            self.state = State::Idle;
        }
        answered
    }

    /// Asks nobody any more: the ring is gone, and what it was asked with it. What the kernel might still write to stays
    /// until another ring has come and gone.
    pub(super) fn forget_ring(&mut self) {
        if self.state == State::UnderWay {
            self.state = State::Idle;
            self.retired = std::mem::replace(&mut self.events, room());
        }
    }

    /// Leaves what the kernel may write to to it for good.
    pub(super) fn leak(&mut self) {
        if self.is_under_way() {
            std::mem::forget(std::mem::take(&mut self.events));
        }
    }

    /// What the kernel has answered since it was asked.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take(&mut self) -> io::Result<Report<'_>> {
        let State::Answered(result) = self.state else {
            return Ok(Report::Nothing);
        };
        self.state = State::Idle;
        match usize::try_from(result) {
            Ok(count) if self.takes_events => Ok(Report::Events(&self.events[..count.min(EVENTS)])),
            Ok(_) => Ok(Report::Some),
            Err(_) if matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN) => Ok(Report::Some),
            // It knows the operation by name only.
            Err(_) if self.takes_events && matches!(-result, libc::EINVAL | libc::EOPNOTSUPP) => {
                self.takes_events = false;
                Ok(Report::Some)
            }
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        }
    }
}

fn room() -> Box<[libc::epoll_event]> {
    vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS].into()
}
