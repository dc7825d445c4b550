//! Echo: the answer is the request, byte for byte.

use crate::exchange::{Exchange, Progress, Wrong};

/// Messages that differ between connections and from one to the next, so that an answer to anything else is noticed.
pub(crate) struct Echo {
    message: Vec<u8>,
    /// How many bytes of the answer have come.
    received: usize,
    /// The number of the current message, written into its first bytes.
    number: u64,
}

impl Echo {
    /// `seed` tells this connection's messages from those of others.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        // A linear congruential generator (Knuth's constants): no byte pattern that a wrong offset would hide in.
        let mut state = seed;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        Self {
            message: std::iter::repeat_with(next).take(size).collect(),
            received: 0,
            number: 0,
        }
    }
}

impl Exchange for Echo {
    fn advance(&mut self) {
        self.number += 1;
        self.received = 0;
        for (byte, digit) in self.message.iter_mut().zip(self.number.to_le_bytes()) {
            *byte = digit;
        }
    }

    fn request(&self) -> &[u8] {
        &self.message
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Wrong> {
        let missing = &self.message[self.received..];
        if !missing.starts_with(bytes) {
            let what = if bytes.len() > missing.len() {
                "too long"
            } else {
                "not what was sent"
            };
            return Err(Wrong(format!("echo number {} is {what}", self.number)));
        }
        self.received += bytes.len();
        let complete = self.received == self.message.len();
        Ok(if complete {
            Progress::Complete
        } else {
            Progress::Partial
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_right_in_any_pieces() {
        let mut echo = Echo::new(100, 1);
        for piece in [1, 7, 99, 100] {
            echo.advance();
            let answer = echo.request().to_vec();
            let pieces: Vec<_> = answer.chunks(piece).collect();
            let (last, others) = pieces.split_last().expect("100 bytes");
            for bytes in others {
                assert_eq!(echo.receive(bytes), Ok(Progress::Partial));
            }
            assert_eq!(echo.receive(last), Ok(Progress::Complete));
        }
    }

    #[test]
    fn another_answer_is_wrong() {
        let mut echo = Echo::new(100, 1);
        echo.advance();
        let stale = echo.request().to_vec();
        echo.advance();
        assert!(echo.receive(&stale).is_err(), "the answer to the message before");

        let mut other = Echo::new(100, 2);
        other.advance();
        other.advance();
        assert!(
            echo.receive(other.request()).is_err(),
            "the answer to another connection"
        );

        let mut long = echo.request().to_vec();
        long.push(0);
        assert!(echo.receive(&long).is_err(), "one byte too many");
    }
}
