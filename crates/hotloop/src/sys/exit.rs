//! Descriptors that say when a child process has ended.

#[cfg(kqueue)]
pub(crate) use super::kqueue::exit_of;

/// A descriptor that becomes readable when a child process has ended, and stays so.
///
/// # Errors
/// The kernel's: it is too old, or a filter refuses.
#[cfg(linux)]
pub(crate) fn exit_of(pid: rustix::process::Pid) -> std::io::Result<std::os::fd::OwnedFd> {
    use rustix::process::{PidfdFlags, pidfd_open};

    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
