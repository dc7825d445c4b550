//! Memory that a ring was given and that its end has not been awaited for.
//!
//! A ring is ended by its own thread, which has the kernel stop everything first. Another thread, where the loop goes on
//! or is closed, can only close it, and the kernel cleans up a moment later. Operations that wait touch no memory any
//! more by then: only the thread of the ring could have them do so. All the same what they name stays for a while.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How many pieces are kept; the oldest one goes when another comes.
const KEPT: usize = 16;

static RETIRED: Mutex<VecDeque<Box<dyn Send>>> = Mutex::new(VecDeque::new());

/// Keeps memory until others have come after it.
pub(super) fn keep(memory: impl Send + 'static) {
    let mut retired = RETIRED.lock().unwrap_or_else(PoisonError::into_inner);
    retired.push_back(Box::new(memory));
    let oldest = if retired.len() > KEPT {
        retired.pop_front()
    } else {
        None
    };
    // Not under the lock.
    drop(retired);
    drop(oldest);
}
