//! Bulk one way: a short request, and many megabytes that answer it.

use crate::exchange::{Exchange, Progress, Wrong};

/// What counts as an exchange, in bytes. More than is received at once, so that one reception ends at most one.
pub(crate) const MEGABYTE: usize = 1_000_000;

/// The bytes of an answer come again after so many. A prime number, so that no whole buffer too much or too little
/// leaves them as they were.
const PERIOD: usize = 251;

/// A request is the number of bytes that are wanted, as eight bytes, the lowest first. The answer is so many bytes, each
/// of them its own offset in the answer modulo 251.
pub(crate) struct Download {
    request: [u8; 8],
    size: usize,
    /// How many bytes of the answer have come.
    received: usize,
    /// What an answer looks like, from its beginning on.
    pattern: Vec<u8>,
}

impl Download {
    pub(crate) fn new(megabytes: usize) -> Self {
        let size = megabytes * MEGABYTE;
        Self {
            request: (size as u64).to_le_bytes(),
            size,
            received: 0,
            pattern: (0..PERIOD as u8).cycle().take(2 * MEGABYTE).collect(),
        }
    }
}

impl Exchange for Download {
    fn advance(&mut self) {
        self.received = 0;
    }

    fn request(&self) -> &[u8] {
        &self.request
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Progress, Wrong> {
        let before = self.received;
        self.received += bytes.len();
        if self.received > self.size {
            return Err(Wrong(String::from("the answer is too long")));
        }
        if !self.pattern[before % PERIOD..].starts_with(bytes) {
            return Err(Wrong(format!(
                "the answer is wrong somewhere from byte {before} on"
            )));
        }
        Ok(if self.received == self.size {
            Progress::Complete
        } else if before / MEGABYTE < self.received / MEGABYTE {
            Progress::Part
        } else {
            Progress::Partial
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(size: usize) -> Vec<u8> {
        (0..size).map(|offset| (offset % PERIOD) as u8).collect()
    }

    #[test]
    fn each_megabyte_counts() {
        let mut download = Download::new(3);
        for _ in 0..2 {
            download.advance();
            assert_eq!(download.request(), 3_000_000_u64.to_le_bytes());
            let told: Vec<_> = answer(3 * MEGABYTE)
                .chunks(70_001)
                .map(|bytes| download.receive(bytes))
                .collect();
            assert_eq!(told.iter().filter(|&told| *told == Ok(Progress::Part)).count(), 2);
            assert_eq!(told.last(), Some(&Ok(Progress::Complete)));
        }
    }

    #[test]
    fn another_answer_is_wrong() {
        let mut download = Download::new(1);
        let right = answer(MEGABYTE);
        assert_eq!(download.receive(&right[..1000]), Ok(Progress::Partial));
        assert!(download.receive(&right[..1000]).is_err(), "the beginning again");
        download.advance();
        assert_eq!(download.receive(&right[..1000]), Ok(Progress::Partial));
        assert!(
            download.receive(&right[1001..2000]).is_err(),
            "one byte is missing"
        );
        download.advance();
        assert!(
            download.receive(&answer(MEGABYTE + 1)).is_err(),
            "one byte too many"
        );
    }
}
