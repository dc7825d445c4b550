//! What the system's resolver calls an address.

use std::ffi::CStr;
use std::io;

use crate::driver::Address;

/// How long a host's name can be, with the zero behind it, in bytes (`NI_MAXHOST`).
const HOST: usize = 1025;

/// How long a service's name can be, with the zero behind it, in bytes (`NI_MAXSERV`).
const SERVICE: usize = 32;

/// The names of a host and a service. This may block.
///
/// # Errors
/// The resolver's, in its words.
pub(crate) fn name_info(address: &Address, flags: libc::c_int) -> io::Result<(String, String)> {
    let bytes = address.as_bytes();
    let (mut host, mut service) = ([0_u8; HOST], [0_u8; SERVICE]);
    // SAFETY: the address lies in memory aligned for one and `bytes` are as many as count; the names are written to
    // places of ours whose sizes are given along.
    let code = unsafe {
        libc::getnameinfo(
            bytes.as_ptr().cast(),
            bytes.len() as libc::socklen_t,
            host.as_mut_ptr().cast(),
            HOST as _,
            service.as_mut_ptr().cast(),
            SERVICE as _,
            flags,
        )
    };
    match code {
        0 => Ok((text(&host), text(&service))),
        libc::EAI_SYSTEM => Err(io::Error::last_os_error()),
        code => {
            // SAFETY: the C library answers a text that it keeps, whatever the code.
            let words = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
            Err(io::Error::other(words.to_string_lossy().into_owned()))
        }
    }
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}
