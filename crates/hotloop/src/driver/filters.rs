//! What is asked of kqueue's filters, and what they say: kqueue without the kernel.
//!
//! kqueue has two filters a descriptor, one for each direction, and tells of each by itself. For what goes both ways that
//! is all there is to it: a peer that sends no more ends the one, a connection that is lost ends both. The ends of a pipe
//! are different. epoll and poll tell everybody at one end when the other is gone; the filter of the direction in which an
//! end does not go says nothing for ever (FreeBSD), and the other one is refused once the reader is gone. Yet asyncio
//! reads from the writing end to hear of that. So a pipe's end is watched in its own direction only, whichever is of
//! interest, and its hang-up is kept here and counts for both.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use super::{Direction, Interest, Readiness};

/// When a filter tells of what holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// With each wait, as long as it holds.
    Level,
    /// When it begins or is more than before.
    Edge,
}

/// What a filter has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    pub(crate) fd: RawFd,
    /// Whether it is the filter of writing.
    pub(crate) is_write: bool,
    /// Whether nothing more goes in its direction (EV_EOF).
    pub(crate) has_ended: bool,
}

/// A descriptor that is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    pub(crate) generation: u32,
    pub(crate) interest: Interest,
    /// The direction of a pipe's end.
    pub(crate) only_way: Option<Direction>,
}

impl Watched {
    /// How a filter is asked for, if it is.
    pub(crate) fn asks(&self, direction: Direction) -> Option<Trigger> {
        let of_interest = match direction {
            Direction::Read => self.interest.read,
            Direction::Write => self.interest.write,
        };
        match self.only_way {
            _ if of_interest && self.only_way.is_none_or(|way| way == direction) => Some(Trigger::Level),
            // For the hang-up alone: an end that may be written to would end every wait.
            Some(way) if way == direction && !self.interest.is_empty() => Some(Trigger::Edge),
            _ => None,
        }
    }
}

/// All descriptors that are watched.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// What is asked for, by the number. Written with each change.
    watched: BTreeMap<RawFd, Watched>,
    /// The ends of pipes whose other end is gone, as of the last wait or a change since.
    hung_up: BTreeSet<RawFd>,
}

impl Filters {
    /// What is asked for a descriptor.
    pub(crate) fn get(&self, fd: RawFd) -> Option<Watched> {
        self.watched.get(&fd).copied()
    }

    /// Notes what is asked for a descriptor from now on.
    pub(crate) fn insert(&mut self, fd: RawFd, watched: Watched) {
        self.watched.insert(fd, watched);
    }

    /// Forgets a descriptor. Answers what was asked for.
    pub(crate) fn remove(&mut self, fd: RawFd) -> Option<Watched> {
        self.hung_up.remove(&fd);
        self.watched.remove(&fd)
    }

    /// Notes that the other end of a pipe is gone.
    pub(crate) fn hang_up(&mut self, fd: RawFd) {
        self.hung_up.insert(fd);
    }

    /// Whether there is a hang-up to tell.
    pub(crate) fn has_hung_up(&self) -> bool {
        !self.hung_up.is_empty()
    }

    /// The hang-ups that were told, to be asked for again: the number may be another descriptor by now.
    pub(crate) fn take_hung_up(&mut self) -> BTreeSet<RawFd> {
        std::mem::take(&mut self.hung_up)
    }

    /// Puts together what the filters have told: once a descriptor, whichever of them it was.
    pub(crate) fn tell(&mut self, told: &mut [Told], found: &mut Vec<Readiness>) {
        told.sort_unstable();
        for told in told.chunk_by(|one, other| one.fd == other.fd) {
            let fd = told[0].fd;
            let Some(watched) = self.watched.get(&fd) else {
                continue;
            };
            if watched.only_way.is_some() && told.iter().any(|told| told.has_ended) {
                self.hung_up.insert(fd);
                continue;
            }
            found.push(watched.readiness(
                fd,
                told.iter().any(|told| !told.is_write),
                told.iter().any(|told| told.is_write),
            ));
        }
        for &fd in &self.hung_up {
            let watched = self.watched.get(&fd);
            found.extend(watched.map(|watched| watched.readiness(fd, true, true)));
        }
    }
}

impl Watched {
    fn readiness(&self, fd: RawFd, read: bool, write: bool) -> Readiness {
        Readiness {
            fd,
            generation: self.generation,
            ready: Interest {
                read,
                write,
                exclusive: false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(interest: Interest, only_way: Option<Direction>) -> Watched {
        Watched {
            generation: 7,
            interest,
            only_way,
        }
    }

    fn asked(interest: Interest, only_way: Option<Direction>) -> [Option<Trigger>; 2] {
        let watched = watched(interest, only_way);
        [watched.asks(Direction::Read), watched.asks(Direction::Write)]
    }

    fn told(fd: RawFd, is_write: bool, has_ended: bool) -> Told {
        Told {
            fd,
            is_write,
            has_ended,
        }
    }

    /// What is found, as descriptors and directions.
    fn found(filters: &mut Filters, mut told: Vec<Told>) -> Vec<(RawFd, bool, bool)> {
        let mut found = Vec::new();
        filters.tell(&mut told, &mut found);
        assert!(found.iter().all(|found| found.generation == 7));
        found
            .iter()
            .map(|found| (found.fd, found.ready.read, found.ready.write))
            .collect()
    }

    #[test]
    fn what_goes_both_ways_is_asked_for_as_it_is_of_interest() {
        let level = Some(Trigger::Level);
        assert_eq!(asked(Interest::READ, None), [level, None]);
        assert_eq!(asked(Interest::WRITE, None), [None, level]);
        assert_eq!(asked(Interest::BOTH, None), [level, level]);
        assert_eq!(asked(Interest::NONE, None), [None, None]);
    }

    #[test]
    fn the_end_of_a_pipe_is_asked_for_in_its_direction_only() {
        let (level, edge) = (Some(Trigger::Level), Some(Trigger::Edge));
        for (way, own, other) in [
            (Direction::Read, Interest::READ, Interest::WRITE),
            (Direction::Write, Interest::WRITE, Interest::READ),
        ] {
            let of_way = |trigger| match way {
                Direction::Read => [trigger, None],
                Direction::Write => [None, trigger],
            };
            assert_eq!(asked(own, Some(way)), of_way(level));
            assert_eq!(asked(Interest::BOTH, Some(way)), of_way(level));
            assert_eq!(asked(other, Some(way)), of_way(edge));
            assert_eq!(asked(Interest::NONE, Some(way)), [None, None]);
        }
    }

    #[test]
    fn a_descriptor_is_told_once_with_both_directions() {
        let mut filters = Filters::default();
        for fd in [3, 4, 5] {
            filters.insert(fd, watched(Interest::BOTH, None));
        }
        let told = vec![
            told(5, true, false),
            told(3, false, false),
            told(9, false, false),
            told(5, false, false),
            told(4, true, false),
        ];
        assert_eq!(
            found(&mut filters, told),
            [(3, true, false), (4, false, true), (5, true, true)]
        );
    }

    #[test]
    fn a_peer_that_sends_no_more_does_not_make_a_connection_writable() {
        let mut filters = Filters::default();
        filters.insert(3, watched(Interest::BOTH, None));
        assert_eq!(
            found(&mut filters, vec![told(3, false, true)]),
            [(3, true, false)]
        );
        assert!(!filters.has_hung_up());
        // Nor does a shutdown of our own make it readable.
        assert_eq!(found(&mut filters, vec![told(3, true, true)]), [(3, false, true)]);
        let lost = vec![told(3, true, true), told(3, false, true)];
        assert_eq!(found(&mut filters, lost), [(3, true, true)]);
    }

    #[test]
    fn a_hang_up_of_a_pipe_is_told_in_both_directions_until_it_is_asked_for_again() {
        for (way, is_write) in [(Direction::Read, false), (Direction::Write, true)] {
            let mut filters = Filters::default();
            filters.insert(3, watched(Interest::BOTH, Some(way)));
            assert_eq!(
                found(&mut filters, vec![told(3, is_write, false)]),
                [(3, !is_write, is_write)]
            );
            let hang_up = vec![told(3, is_write, true)];
            assert_eq!(found(&mut filters, hang_up), [(3, true, true)]);
            assert_eq!(found(&mut filters, vec![]), [(3, true, true)]);
            assert_eq!(filters.take_hung_up().into_iter().collect::<Vec<_>>(), [3]);
            assert_eq!(found(&mut filters, vec![]), []);
        }
    }

    #[test]
    fn a_hang_up_that_the_kernel_refuses_to_watch_is_told_until_the_descriptor_goes() {
        let mut filters = Filters::default();
        filters.insert(3, watched(Interest::READ, Some(Direction::Write)));
        filters.hang_up(3);
        assert!(filters.has_hung_up());
        assert_eq!(found(&mut filters, vec![]), [(3, true, true)]);
        assert!(filters.remove(3).is_some());
        assert!(filters.get(3).is_none());
        assert!(!filters.has_hung_up());
        assert_eq!(found(&mut filters, vec![]), []);
    }
}
