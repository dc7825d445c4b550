//! What a listening socket does when it cannot accept.

use std::io;

/// How many connections a listener accepts in one turn at most. The others stay in the kernel's backlog: for the next
/// turn, after the connections that are there already were served, or for another process that has less to do.
pub const ACCEPT_BUDGET: usize = 8;

/// Whether an error of `accept` says that descriptors or memory ran out. The backlog stays readable all the while, so the
/// listener must rest, or the loop would spin.
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
