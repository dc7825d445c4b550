//! One stream connection: what it has queued and how far its life has come.

use super::{Close, FlowControl, Life, SendQueue};

/// After so many turns in a row with several writes, the first write of the next one is expected to have others behind
/// it. One would do for who writes so always; who does it now and then would pay for each guess.
const HABIT: u8 = 2;

/// The state of a stream transport. It moves one way only: open, closing, lost.
#[derive(Debug)]
pub struct Stream<B> {
    /// Bytes on their way out.
    pub queue: SendQueue<B>,
    /// When the protocol is paused.
    pub flow: FlowControl,
    /// How far its life has come.
    life: Life,
    /// Whether `write_eof` was called.
    eof_written: bool,
    /// The turn in which the last write went to the kernel. Later writes of that turn are gathered.
    pub(crate) written_in: u64,
    /// Whether the turn of `written_in` has had a second write.
    again: bool,
    /// How many of the last turns with a write had several, without one in between that had not: up to [`HABIT`].
    several: u8,
    /// Whether the kernel may wait with the last packet for what follows in this turn.
    pub(crate) corked: bool,
    /// Whether it is on the loop's list of streams to flush at the end of the turn.
    pub(crate) gathered: bool,
}

impl<B: AsRef<[u8]>> Default for Stream<B> {
    fn default() -> Self {
        Self {
            queue: SendQueue::default(),
            flow: FlowControl::default(),
            life: Life::default(),
            eof_written: false,
            written_in: 0,
            again: false,
            several: 0,
            corked: false,
            gathered: false,
        }
    }
}

impl<B: AsRef<[u8]>> Stream<B> {
    /// Whether the host wants to receive.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.life.is_reading()
    }

    /// Whether `write_eof` was called.
    #[must_use]
    pub fn is_eof_written(&self) -> bool {
        self.eof_written
    }

    /// Whether the end of the transport has begun.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.life.is_closing()
    }

    /// Whether nothing is sent or received any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.life.is_lost()
    }

    /// Notes whether the host wants to receive. Answers whether that is news.
    pub fn set_reading(&mut self, reading: bool) -> bool {
        self.life.set_reading(reading)
    }

    /// Notes `write_eof`. Answers whether the sending half is to be shut down now: not if it was before, and not
    /// while bytes wait, whose last one it follows.
    pub fn write_eof(&mut self) -> bool {
        let first = !self.eof_written && !self.is_closing();
        self.eof_written |= first;
        first && self.queue.is_empty()
    }

    /// Notes the first write of a turn. Answers whether others of that turn are to be expected behind it.
    #[inline]
    pub(crate) fn begin_writing(&mut self, turn: u64) -> bool {
        self.written_in = turn;
        if !std::mem::take(&mut self.again) {
            self.several = 0;
        }
        self.several == HABIT
    }

    /// Notes another write of the turn.
    #[inline]
    pub(crate) fn write_again(&mut self) {
        if !std::mem::replace(&mut self.again, true) {
            self.several = HABIT.min(self.several + 1);
        }
    }

    /// Begins the orderly end: nothing more is received, what is queued is sent.
    pub fn close(&mut self) -> Close {
        self.life.close(!self.queue.is_empty())
    }

    /// Ends at once and drops what is queued. Answers whether `connection_lost` is due on the next turn: only the
    /// first reason for an end counts.
    pub fn abort(&mut self) -> bool {
        let first = self.life.abort();
        if first {
            self.queue.clear();
        }
        first
    }

    /// Says, after a flush, whether the end is reached: closing, and nothing waits any more.
    pub fn finish_close(&mut self) -> bool {
        self.life.finish_close(!self.queue.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_waits_for_what_is_queued() {
        let mut stream = Stream::default();
        stream.queue.push(b"abc".to_vec(), 0);
        assert!(stream.set_reading(true));
        assert_eq!(stream.close(), Close::AfterFlush);
        assert!(!stream.is_reading());
        assert!(
            !stream.set_reading(true),
            "a closing stream does not start to read"
        );
        assert!(!stream.finish_close());
        stream.queue.advance(3);
        assert!(stream.finish_close());
        assert!(!stream.finish_close(), "the end comes once");
        assert_eq!(stream.close(), Close::Already);
    }

    #[test]
    fn the_first_reason_for_an_end_counts() {
        let mut stream = Stream::<Vec<u8>>::default();
        assert_eq!(stream.close(), Close::LostSoon);
        assert!(!stream.abort());
        let mut stream = Stream::default();
        stream.queue.push(b"abc".to_vec(), 0);
        assert_eq!(stream.close(), Close::AfterFlush);
        assert!(stream.abort(), "an abort overtakes a close that still sends");
        assert!(stream.queue.is_empty());
        assert!(!stream.finish_close());
    }

    #[test]
    fn the_end_of_sending_follows_the_last_byte() {
        let mut stream = Stream::default();
        stream.queue.push(b"abc".to_vec(), 0);
        assert!(!stream.write_eof());
        assert!(stream.is_eof_written());
        let mut stream = Stream::<Vec<u8>>::default();
        assert!(stream.write_eof());
        assert!(!stream.write_eof(), "once is enough");
    }
}
