//! The CPU time of another process.

use std::time::Duration;
use std::{fs, io};

/// User and system time that a process with all its threads has used so far.
///
/// # Errors
///
/// When the process is gone, or the platform has no `/proc`.
pub(crate) fn of_process(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable /proc/PID/stat"))?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}

/// utime + stime, the 14th and 15th field. The second field is the program's name in parentheses and may hold anything,
/// so the count starts behind the last closing one.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        assert_eq!(
            ticks("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 5 5 20 0 1 0 9 0"),
            Some(42)
        );
        assert_eq!(ticks("7 (name"), None);
        assert_eq!(ticks("7 (name) S 1 7"), None);
    }
}
