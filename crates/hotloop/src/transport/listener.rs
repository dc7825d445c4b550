//! What a listening socket does when it cannot accept.

use std::io;

/// How long a listener rests after the system ran out of something that a connection needs, in seconds
/// (asyncio's `ACCEPT_RETRY_DELAY`). The backlog stays readable all the time, so without a rest the loop would spin.
pub const ACCEPT_RETRY_DELAY: f64 = 1.0;

/// Whether an error of `accept` says that descriptors or memory ran out, so that trying again at once is of no use.
#[must_use]
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_not_a_lack_of_resources() {
        assert!(is_out_of_resources(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_out_of_resources(&io::Error::from_raw_os_error(
            libc::ECONNABORTED
        )));
    }
}
