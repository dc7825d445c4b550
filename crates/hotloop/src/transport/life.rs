//! How far the life of a transport has come.

/// It moves one way only: open, closing, lost.
#[derive(Debug, Default)]
pub struct Life {
    /// Whether the host wants to receive.
    reading: bool,
    /// Whether `close` or `abort` was called, or the connection broke.
    closing: bool,
    /// Whether `connection_lost` is on its way: nothing is sent or received any more.
    lost: bool,
}

/// What a call of `close` leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Nothing: it was closing already.
    Already,
    /// Nothing waits to be sent: `connection_lost` is due on the next turn.
    LostSoon,
    /// Something waits to be sent: `connection_lost` follows the last of it.
    AfterFlush,
}

impl Life {
    /// Whether the host wants to receive.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.reading
    }

    /// Whether the end of the transport has begun.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether nothing is sent or received any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Notes whether the host wants to receive. Answers whether that is news.
    pub fn set_reading(&mut self, reading: bool) -> bool {
        let news = self.reading != reading && !(reading && self.closing);
        if news {
            self.reading = reading;
        }
        news
    }

    /// Begins the orderly end: nothing more is received, what is `queued` is sent.
    pub fn close(&mut self, queued: bool) -> Close {
        if self.closing {
            return Close::Already;
        }
        self.closing = true;
        self.reading = false;
        if queued {
            return Close::AfterFlush;
        }
        self.lost = true;
        Close::LostSoon
    }

    /// Ends at once. Answers whether `connection_lost` is due on the next turn: only the first reason for an end counts.
    pub fn abort(&mut self) -> bool {
        let first = !self.lost;
        *self = Self {
            reading: false,
            closing: true,
            lost: true,
        };
        first
    }

    /// Says, after a flush, whether the end is reached: closing, and nothing is `queued` any more.
    pub fn finish_close(&mut self, queued: bool) -> bool {
        let finished = self.closing && !self.lost && !queued;
        self.lost |= finished;
        finished
    }
}
