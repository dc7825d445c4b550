//! The CPU time of another process.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// User and system time that a process with all its threads has used so far, to the nanosecond: the kernel's own clock of
/// that process, not the hundredths of a second of `/proc`.
///
/// # Errors
///
/// When the process is gone.
pub(crate) fn of_process(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let time = clock_getcpuclockid(Pid::from_raw(pid)).and_then(ClockId::now)?;
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_computes_uses_time_and_one_that_is_not_there_has_none() {
        let own = std::process::id();
        let before = of_process(own).expect("this process is there");
        while of_process(own).expect("still there") < before + Duration::from_millis(1) {}
        assert!(of_process(u32::MAX).is_err());
        assert!(of_process(1 << 23).is_err(), "more than any system has");
    }
}
