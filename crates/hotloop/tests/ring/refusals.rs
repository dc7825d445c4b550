//! Where there is no io_uring to be had.

use std::collections::BTreeMap;
use std::{io, thread};

use hotloop::driver::{Proactor, Refused};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What `Proactor::new` says in a thread where the system call fails so.
fn refused_with(call: i64, errno: i32) -> Result<(Option<i32>, String), Box<dyn std::error::Error>> {
    let filter = SeccompFilter::new(
        BTreeMap::from([(call, vec![])]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    // The filter is this thread's, and goes with it.
    let error = thread::spawn(move || {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
        Ok::<_, io::Error>(Proactor::new().err())
    });
    let error = error
        .join()
        .map_err(|_| "the thread panicked")??
        .ok_or("not refused")?;
    let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    Ok((refused.map(Refused::errno), error.to_string()))
}

#[test]
fn a_filter_is_named_as_the_reason() -> Result<(), Box<dyn std::error::Error>> {
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register] {
        for (errno, reason) in [
            (libc::EPERM, "seccomp"),
            (libc::EACCES, "seccomp"),
            (libc::ENOSYS, "no io_uring"),
            (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        ] {
            let (told, text) = refused_with(call, errno)?;
            assert_eq!(told, Some(errno));
            assert!(text.contains("io_uring") && text.contains(reason), "{text}");
        }
    }
    Ok(())
}

#[test]
fn a_kernel_that_lacks_something_is_named_as_the_reason() -> Result<(), Box<dyn std::error::Error>> {
    let (told, text) = refused_with(libc::SYS_io_uring_setup, libc::EINVAL)?;
    assert_eq!(told, Some(libc::ENOSYS));
    assert!(text.contains("lacks"), "{text}");
    Ok(())
}

#[test]
fn other_errors_stay_what_they_are() -> Result<(), Box<dyn std::error::Error>> {
    let (told, text) = refused_with(libc::SYS_io_uring_setup, libc::EMFILE)?;
    assert_eq!(told, None);
    assert!(text.contains("open files"), "{text}");
    Ok(())
}
