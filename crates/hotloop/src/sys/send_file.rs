//! Files sent over sockets.

#[cfg(not(linux))]
pub(crate) use by_reading::send_file;
#[cfg(linux)]
use {std::io, std::os::fd::RawFd};

/// Sends bytes of a file from an offset on, as many as the socket takes at once; 0 is the end of the file. The file's
/// own position stays.
///
/// # Errors
/// The socket's, `WouldBlock` among them; the file's, if it is none that can be sent so.
#[cfg(linux)]
pub(crate) fn send_file(fd: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
    let mut offset: libc::off64_t = offset;
    // SAFETY: both numbers are plain numbers to the kernel, and the offset outlives the call.
    let sent = unsafe { libc::sendfile64(fd, file, &raw mut offset, count) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The same by reading and sending, where the kernel has no such call or one with terms of its own.
#[cfg(any(not(linux), test))]
mod by_reading {
    use std::io;
    use std::os::fd::RawFd;

    use crate::sys::{borrow, send};

    /// What is read at once, at most: about as much as a socket takes.
    const READ: usize = 64 * 1024;

    /// What the socket does not take is read again the next time.
    pub(crate) fn send_file(fd: RawFd, file: RawFd, offset: i64, count: usize) -> io::Result<usize> {
        let offset = u64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0; count.min(READ)];
        let read = rustix::io::pread(borrow(file)?, &mut bytes, offset)?;
        if read == 0 {
            return Ok(0);
        }
        send(fd, &[io::IoSlice::new(&bytes[..read])])
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read, Seek, Write};
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What arrives of `file` from `offset` on.
    fn sent(
        file: &File,
        offset: i64,
        send: fn(RawFd, RawFd, i64, usize) -> io::Result<usize>,
    ) -> io::Result<Vec<u8>> {
        let (near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut from = offset;
        let mut arrived = Vec::new();
        loop {
            match send(near.as_raw_fd(), file.as_raw_fd(), from, 100_000) {
                Ok(0) => break,
                Ok(count) => from += count as i64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut bytes = vec![0; 1 << 20];
                    let count = far.read(&mut bytes)?;
                    arrived.extend(&bytes[..count]);
                }
                Err(error) => return Err(error),
            }
        }
        drop(near);
        far.read_to_end(&mut arrived)?;
        Ok(arrived)
    }

    #[test]
    fn both_ways_send_the_same_and_leave_the_position() -> io::Result<()> {
        let path = std::env::temp_dir().join(format!("hotloop-sent-{}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(path)?;
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        file.write_all(&bytes)?;
        file.rewind()?;
        for offset in [0, 1, 999_999, 1_000_000, 2_000_000] {
            let expected = bytes.get(offset..).unwrap_or_default();
            for send in [send_file, by_reading::send_file] {
                assert_eq!(sent(&file, offset as i64, send)?, expected);
            }
        }
        assert_eq!(file.stream_position()?, 0);
        Ok(())
    }
}
