//! Operations on files: a ring of their own, beside whatever a loop waits with.
//!
//! Nothing here waits. Most operations on files whose pages are in memory are over when they were handed in; the kernel
//! does the others in threads of its own, and the ring's descriptor becomes readable.

use std::ffi::CString;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use slab::Slab;

use super::Refused;
use super::fork::{self, Birthmark};
use crate::sys::{is_plain, kind_of};

/// How many operations can be handed in at a time.
const SUBMISSIONS: u32 = 64;

/// How many completions fit before the kernel keeps the rest for itself.
const COMPLETIONS: u32 = 1024;

/// More bytes than these are copied by a thread of the kernel: half a millisecond or so, for which a loop would stand
/// still.
const IN_PLACE: usize = 1 << 20;

/// How long dropping a ring waits for what it has under way and cannot be cancelled at once.
const PATIENCE: Duration = Duration::from_millis(100);

/// The completion that says that everything was cancelled.
const CANCELLED: u64 = u64::MAX;

/// An operation on a file. It owns the memory that the kernel reads or writes, until it is over.
#[derive(Debug)]
pub enum FileOp {
    /// Opens a path. The descriptor is not inherited by other programs.
    Open {
        /// Where.
        path: CString,
        /// As of `open(2)`.
        flags: i32,
        /// The permissions of a file that is made.
        mode: u32,
    },
    /// Reads up to `size` bytes behind what is in `buffer`.
    Read {
        /// From where.
        fd: RawFd,
        /// What was read before.
        buffer: Vec<u8>,
        /// How many bytes at most.
        size: usize,
        /// Where in the file, else at its position, which moves.
        offset: Option<u64>,
    },
    /// Writes.
    Write {
        /// To where.
        fd: RawFd,
        /// What.
        bytes: Vec<u8>,
        /// Where in the file, else at its position, which moves.
        offset: Option<u64>,
    },
    /// Has what was written be on the device.
    Sync {
        /// Of which file.
        fd: RawFd,
    },
    /// Closes a descriptor.
    Close {
        /// Which.
        fd: RawFd,
    },
}

/// An operation that is over.
#[derive(Debug)]
pub struct FileDone<T> {
    /// What it was handed in with.
    pub tag: T,
    /// The operation; what was read is in its buffer.
    pub op: FileOp,
    /// A descriptor, or how many bytes.
    pub result: io::Result<u32>,
}

/// A ring for operations on files, each of which carries a tag of the host's.
pub struct FileRing<T> {
    /// Dropped before `under_way`. Forgotten where a fork has closed its descriptor already.
    ring: ManuallyDrop<IoUring>,
    birthmark: Birthmark,
    /// What the kernel has. Forgotten with what it still has when the ring is dropped.
    under_way: ManuallyDrop<Slab<(FileOp, T)>>,
}

impl<T> FileRing<T> {
    /// A ring with nothing to do.
    ///
    /// # Errors
    /// [`Refused`] if io_uring is not to be had, or is older than Linux 6.0: closing by a ring could make `execve` fail
    /// up to 5.15. Else the kernel's.
    pub fn new() -> io::Result<Self> {
        let held = fork::hold();
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(Refused::explain)?;
        if !ring.params().is_feature_nodrop() || !ring.params().is_feature_rw_cur_pos() {
            return Err(Refused::lacking("reading at a file's position"));
        }
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(Refused::explain)?;
        for (code, what) in [
            (opcode::OpenAt::CODE, "opening"),
            (opcode::Read::CODE, "reading"),
            (opcode::Write::CODE, "writing"),
            (opcode::Fsync::CODE, "syncing"),
            (opcode::Close::CODE, "closing"),
            (opcode::SendZc::CODE, "what Linux has from 6.0 on"),
        ] {
            if !probe.is_supported(code) {
                return Err(Refused::lacking(what));
            }
        }
        Ok(Self {
            birthmark: Birthmark::new(ring.as_raw_fd(), &held),
            ring: ManuallyDrop::new(ring),
            under_way: ManuallyDrop::new(Slab::new()),
        })
    }

    /// The descriptor that is readable while completions wait to be taken.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// How many operations are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What the operations that are under way were handed in with.
    pub fn tags(&mut self) -> impl Iterator<Item = &mut T> {
        self.under_way.iter_mut().map(|(_, (_, tag))| tag)
    }

    /// Begins an operation. Whether it is over already [`take`](Self::take) says.
    ///
    /// # Errors
    /// The kernel's, which has not begun it then; or that the ring is a parent process's.
    pub fn begin(&mut self, op: FileOp, tag: T) -> Result<(), (io::Error, T)> {
        if self.birthmark.is_inherited() {
            let error = io::Error::other("the ring belongs to the process that this one was forked from");
            return Err((error, tag));
        }
        let entry = self.under_way.vacant_entry();
        let key = entry.key();
        let (op, _) = entry.insert((op, tag));
        let submission = submission(op).user_data(key as u64);
        // SAFETY: what the operation names is on the heap and in `under_way` until its completion was taken.
        let pushed = unsafe { self.ring.submission().push(&submission) };
        let error = if pushed.is_err() {
            io::ErrorKind::OutOfMemory.into()
        } else {
            match self.enter() {
                // Handed in it is: if not now then by the next call that comes.
                Ok(()) => return Ok(()),
                Err(error) => error,
            }
        };
        if pushed.is_ok() {
            // The kernel may have it, or get it yet.
            return Ok(());
        }
        let (_, tag) = self.under_way.remove(key);
        Err((error, tag))
    }

    /// The next operation that is over.
    pub fn take(&mut self) -> Option<FileDone<T>> {
        if self.birthmark.is_inherited() {
            return None;
        }
        loop {
            let Some(completion) = self.ring.completion().next() else {
                let queue = self.ring.submission();
                let more = queue.cq_overflow() || !queue.is_empty();
                drop(queue);
                if !more || self.enter().is_err() || self.ring.completion().is_empty() {
                    return None;
                }
                continue;
            };
            if completion.user_data() != CANCELLED {
                return Some(self.done(&completion));
            }
        }
    }

    fn done(&mut self, completion: &cqueue::Entry) -> FileDone<T> {
        let (mut op, tag) = self.under_way.remove(completion.user_data() as usize);
        let result = match completion.result() {
            error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
            count => Ok(count as u32),
        };
        if let (FileOp::Read { buffer, .. }, Ok(count)) = (&mut op, &result) {
            // SAFETY: the kernel has written as many bytes behind what was there, within the capacity.
            unsafe { buffer.set_len(buffer.len() + *count as usize) };
        }
        FileDone { tag, op, result }
    }

    /// Has the kernel begin what was handed in. That it has no room for more completions is no error: they are taken
    /// first, then.
    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EBUSY | libc::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Cancels what is under way and waits for it, a little while.
    fn cancel(&mut self) {
        let everything = opcode::AsyncCancel2::new(types::CancelBuilder::any())
            .build()
            .user_data(CANCELLED);
        // SAFETY: the operation names no memory.
        if unsafe { self.ring.submission().push(&everything) }.is_err() || self.enter().is_err() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        while !self.under_way.is_empty() {
            while let Some(done) = self.take() {
                if let (FileOp::Open { .. }, Ok(fd)) = (&done.op, &done.result) {
                    // SAFETY: the descriptor was made by the operation, and nobody has heard of it.
                    unsafe { libc::close(*fd as RawFd) };
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.under_way.is_empty() || left.is_zero() {
                return;
            }
            let timeout = types::Timespec::from(left);
            let args = types::SubmitArgs::new().timespec(&timeout);
            // However it ends, what is over is looked at, and the clock.
            let _ = self.ring.submitter().submit_with_args(1, &args);
        }
    }
}

impl<T> Drop for FileRing<T> {
    fn drop(&mut self) {
        if !self.birthmark.is_inherited() && !self.under_way.is_empty() {
            self.cancel();
        }
        let held = fork::hold();
        if !self.birthmark.is_closed() {
            // SAFETY: it is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
        self.birthmark.forget(&held);
        drop(held);
        // SAFETY: it is taken once, here.
        let under_way = unsafe { ManuallyDrop::take(&mut self.under_way) };
        if !under_way.is_empty() {
            // The kernel may still write there.
            mem::forget(under_way);
        }
    }
}

/// The flags for reading or writing: a ring waits for pipes and sockets that are told not to wait, unless it is told so
/// each time.
fn patience(fd: RawFd) -> i32 {
    // SAFETY: the call takes no memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_NONBLOCK == 0 {
        return 0;
    }
    match kind_of(fd).map(|(mode, _)| mode & libc::S_IFMT) {
        Ok(libc::S_IFIFO | libc::S_IFSOCK) => libc::RWF_NOWAIT,
        _ => 0,
    }
}

/// The position that stands for a file's own.
const ITS_OWN: u64 = u64::MAX;

fn submission(op: &mut FileOp) -> squeue::Entry {
    let (entry, size) = match op {
        FileOp::Open { path, flags, mode } => {
            let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr());
            let open = open.flags(*flags | libc::O_CLOEXEC).mode(*mode).build();
            let made = *flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
            // A size that is too much to be done in place.
            (open, if made || is_plain(path) { 0 } else { usize::MAX })
        }
        FileOp::Read {
            fd,
            buffer,
            size,
            offset,
        } => {
            buffer.reserve(*size);
            let length = (*size).min(i32::MAX as usize);
            let into = buffer.spare_capacity_mut().as_mut_ptr().cast::<u8>();
            let read = opcode::Read::new(types::Fd(*fd), into, length as u32);
            let read = read.offset(offset.unwrap_or(ITS_OWN)).rw_flags(patience(*fd));
            (read.build(), length)
        }
        FileOp::Write { fd, bytes, offset } => {
            let length = bytes.len().min(i32::MAX as usize);
            let write = opcode::Write::new(types::Fd(*fd), bytes.as_ptr(), length as u32);
            let write = write.offset(offset.unwrap_or(ITS_OWN)).rw_flags(patience(*fd));
            (write.build(), length)
        }
        FileOp::Sync { fd } => (opcode::Fsync::new(types::Fd(*fd)).build(), 0),
        FileOp::Close { fd } => (opcode::Close::new(types::Fd(*fd)).build(), 0),
    };
    if size > IN_PLACE {
        entry.flags(squeue::Flags::ASYNC)
    } else {
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn wait<T>(ring: &mut FileRing<T>) -> FileDone<T> {
        loop {
            if let Some(done) = ring.take() {
                return done;
            }
            ring.ring.submit_and_wait(1).expect("something completes");
        }
    }

    #[test]
    fn a_file_is_written_and_read_and_closed() {
        let mut ring = FileRing::new().expect("a ring");
        let path = std::env::temp_dir().join(format!("hotloop-files-{}", std::process::id()));
        let open = FileOp::Open {
            path: CString::new(path.as_os_str().as_bytes()).expect("no zeroes"),
            flags: libc::O_RDWR | libc::O_CREAT,
            mode: 0o600,
        };
        ring.begin(open, 1).map_err(|(error, _)| error).expect("begun");
        let done = wait(&mut ring);
        assert_eq!(done.tag, 1);
        let fd = done.result.expect("a descriptor") as RawFd;
        let write = FileOp::Write {
            fd,
            bytes: b"hello world".to_vec(),
            offset: None,
        };
        ring.begin(write, 2).map_err(|(error, _)| error).expect("begun");
        assert_eq!(wait(&mut ring).result.expect("written"), 11);
        ring.begin(FileOp::Sync { fd }, 3)
            .map_err(|(error, _)| error)
            .expect("begun");
        wait(&mut ring).result.expect("synced");
        assert_eq!(kind_of(fd).expect("a kind").1, 11);
        let read = FileOp::Read {
            fd,
            buffer: b"> ".to_vec(),
            size: 100,
            offset: Some(6),
        };
        ring.begin(read, 4).map_err(|(error, _)| error).expect("begun");
        let FileOp::Read { buffer, .. } = wait(&mut ring).op else {
            panic!("another operation")
        };
        assert_eq!(buffer, b"> world");
        ring.begin(FileOp::Close { fd }, 5)
            .map_err(|(error, _)| error)
            .expect("begun");
        wait(&mut ring).result.expect("closed");
        assert!(kind_of(fd).is_err());
        fs::remove_file(path).expect("it was there");
    }

    #[test]
    fn a_ring_that_is_dropped_lets_go_of_what_it_waits_for() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let mut ring = FileRing::new().expect("a ring");
        let read = FileOp::Read {
            fd: reader.as_raw_fd(),
            buffer: Vec::new(),
            size: 10,
            offset: None,
        };
        ring.begin(read, ()).map_err(|(error, ())| error).expect("begun");
        assert!(ring.take().is_none());
        assert_eq!(ring.len(), 1);
        let start = Instant::now();
        drop(ring);
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
