//! Files as far as the kernel has them in memory: nothing here waits for a device or for another program.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, SeekFrom, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::borrow;

/// A file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedFile {
    /// Its descriptor, which is the caller's.
    pub fd: RawFd,
    /// Its `st_mode`.
    pub mode: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Whether closing it waits for nobody, as far as nothing was written: the file system is one of this machine's own.
    pub local: bool,
}

/// The file systems whose files are closed without asking anybody, by their numbers in statfs(2). Others may be another
/// program's or another machine's, which hears of each close.
const LOCAL: [u64; 6] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683E, // Btrfs
    TMPFS,
    RAMFS,
    0xF2F5_2010, // F2FS
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58F6;

/// What a descriptor refers to: its `st_mode`, and its size in bytes. Nobody else is asked, as a file server may be by
/// `fstat`: what the kernel knows since the file was opened is told.
///
/// # Errors
/// The kernel's.
pub fn kind_of(fd: RawFd) -> io::Result<(u32, u64)> {
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::SIZE;
    let found = rustix::fs::statx(
        borrow(fd)?,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        wanted,
    )?;
    Ok((u32::from(found.stx_mode), found.stx_size))
}

/// Whether the kernel has a path in memory, and it leads to a file or a directory, or nowhere.
///
/// Opening without waiting does not wait for the other end of a FIFO either, and devices have ways of their own: those
/// are for threads.
pub(crate) fn is_plain(path: &CStr) -> bool {
    match found(path, OFlags::PATH) {
        Ok(fd) => kind_of(fd.as_raw_fd()).is_ok_and(|(mode, _)| {
            matches!(
                FileType::from_raw_mode(mode),
                FileType::RegularFile | FileType::Directory
            )
        }),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Opens a regular file that is there already, if that needs nothing but what the kernel has in memory. The descriptor is
/// not inherited by other programs. None where it may wait, fails or would make or cut a file: to be tried otherwise.
pub fn open_cached(path: &CStr, flags: i32) -> Option<OpenedFile> {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    if flags.intersects(OFlags::CREATE | OFlags::TRUNC | OFlags::TMPFILE | OFlags::PATH) || !is_plain(path) {
        return None;
    }
    // A file with a lease, which another program is asked to give up, is refused rather than waited for.
    let fd = found(path, flags | OFlags::NONBLOCK).ok()?;
    let (mode, size) = kind_of(fd.as_raw_fd()).ok()?;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return None;
    }
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(&fd, flags).ok()?;
    }
    Some(OpenedFile {
        mode,
        size,
        local: LOCAL.contains(&file_system_of(fd.as_fd()).ok()?),
        fd: fd.into_raw_fd(),
    })
}

/// Reads from a regular file's position to its end, if the kernel has that in memory and it is `expected` bytes. None where it
/// may wait, fails, or is more or less: to be tried otherwise, from where it was.
pub fn read_cached(fd: RawFd, expected: usize) -> Option<Vec<u8>> {
    let fd = borrow(fd).ok()?;
    // One more than there is: that fewer come says that this was the end.
    let mut buffer = vec![0; expected + 1];
    let mut into = [io::IoSliceMut::new(&mut buffer)];
    let count = match rustix::io::preadv2(fd, &mut into, AT_ITS_POSITION, ReadWriteFlags::NOWAIT) {
        // These do not know the flag, and have no device to wait for.
        Err(Errno::OPNOTSUPP) if [TMPFS, RAMFS].contains(&file_system_of(fd).ok()?) => {
            rustix::io::readv(fd, &mut into)
        }
        read => read,
    }
    .ok()?;
    if count == expected {
        buffer.truncate(count);
        return Some(buffer);
    }
    if count > 0 {
        let back = SeekFrom::Current(-i64::try_from(count).ok()?);
        rustix::fs::seek(fd, back).ok()?;
    }
    None
}

/// The number of the file system that a descriptor's file is in.
fn file_system_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    // Some architectures have it in 32 bits, with a sign.
    Ok(kind.cast_unsigned() & 0xFFFF_FFFF)
}

/// The offset that stands for a file's own position, which moves.
const AT_ITS_POSITION: u64 = u64::MAX;

/// Opens a path that the kernel has in memory.
fn found(path: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(
        CWD,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::CACHED,
    )?)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io::{Read, Seek};
    use std::os::fd::FromRawFd;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};

    use super::*;

    fn temporary(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("hotloop-{name}-{}", std::process::id()))
    }

    fn in_c(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).expect("no zeroes")
    }

    #[test]
    fn a_file_that_was_just_written_is_opened_and_read() {
        opens_and_reads(&temporary("cached"));
    }

    #[test]
    fn so_is_one_of_a_file_system_in_memory() {
        let path = PathBuf::from(format!("/dev/shm/hotloop-cached-{}", std::process::id()));
        opens_and_reads(&path);
    }

    fn opens_and_reads(path: &Path) {
        fs::write(path, b"hello").expect("written");
        let opened = open_cached(&in_c(path), libc::O_RDONLY).expect("it is in memory");
        assert_eq!(opened.size, 5);
        // SAFETY: it was opened above, and nobody else has it.
        let mut file = unsafe { File::from_raw_fd(opened.fd) };
        let flags = rustix::fs::fcntl_getfl(&file).expect("flags");
        assert!(!flags.contains(OFlags::NONBLOCK));
        assert!(
            rustix::io::fcntl_getfd(&file)
                .expect("flags")
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        // More or less than is expected leaves the position where it is.
        assert_eq!(read_cached(opened.fd, 4), None);
        assert_eq!(read_cached(opened.fd, 6), None);
        assert_eq!(file.stream_position().expect("a position"), 0);
        assert_eq!(read_cached(opened.fd, 5).as_deref(), Some(&b"hello"[..]));
        assert_eq!(file.read(&mut [0; 8]).expect("read"), 0);
        fs::remove_file(path).expect("it was there");
    }

    #[test]
    fn what_may_wait_or_makes_a_file_is_left_alone() {
        let path = temporary("fifo");
        let status = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .expect("mkfifo runs");
        assert!(status.success());
        assert_eq!(open_cached(&in_c(&path), libc::O_RDONLY), None);
        fs::remove_file(&path).expect("it was there");
        assert_eq!(open_cached(&in_c(&path), libc::O_RDWR | libc::O_CREAT), None);
        assert!(!path.exists());
        assert_eq!(open_cached(&in_c(&path), libc::O_RDONLY), None);
        assert_eq!(open_cached(&in_c(&std::env::temp_dir()), libc::O_RDONLY), None);
        assert_eq!(open_cached(c"/dev/null", libc::O_RDONLY), None);
    }
}
