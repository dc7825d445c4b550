//! Why there is no ring.

use std::{error, fmt, fs, io};

/// Why the kernel refuses io_uring, or this kernel's is not enough. It is inside of the [`io::Error`] that
/// [`Proactor::new`](crate::driver::Proactor) fails with.
#[derive(Debug)]
pub struct Refused {
    errno: i32,
    reason: String,
}

impl Refused {
    /// The kernel's number of the error.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// The error of a kernel whose io_uring lacks `what`.
    pub(super) fn lacking(what: &str) -> io::Error {
        let reason = format!("this kernel's io_uring lacks {what}");
        Self {
            errno: libc::ENOSYS,
            reason,
        }
        .into()
    }

    /// What the kernel's refusal of a ring means. An error that says enough by itself stays as it is.
    pub(super) fn explain(error: io::Error) -> io::Error {
        let errno = error.raw_os_error().unwrap_or_default();
        let reason = match errno {
            libc::ENOSYS => "the kernel has no io_uring, or a filter (seccomp) hides it",
            libc::EPERM | libc::EACCES => return Self::forbidden(errno).into(),
            libc::ENOMEM => {
                "the limit of locked memory (RLIMIT_MEMLOCK) is too low for it, or memory is short"
            }
            libc::EINVAL => {
                return Self::lacking("deferred work for a single issuer, which Linux has from 6.1 on");
            }
            _ => return error,
        };
        Self {
            errno,
            reason: format!("io_uring is refused: {reason}"),
        }
        .into()
    }

    fn forbidden(errno: i32) -> Self {
        let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        let reason = match setting.trim() {
            "2" => "it is switched off (kernel.io_uring_disabled is 2)",
            "1" => "it is reserved for privileged processes and one group (kernel.io_uring_disabled is 1)",
            _ => "a filter (seccomp) or another security policy forbids it",
        };
        Self {
            errno,
            reason: format!("io_uring is refused: {reason}"),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(Self::from_raw_os_error(refused.errno).kind(), refused)
    }
}
