//! The other floor: what an echo server costs when nothing but io_uring is in it.
//!
//! One thread and one ring. Connections are accepted by one operation, and each is received from by one that the kernel
//! goes on with; what came in is sent from the buffer that the kernel put it in. A turn is one system call. Prints its
//! port on one line and serves on 127.0.0.1 until it is killed. Ends with status 2, and says why, where the kernel or the
//! machine's policy refuses the ring.

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory while this program goes on"
)]

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;

/// Bytes of a buffer that the kernel receives into: what most servers of the benchmarks ask for at once.
const SIZE: usize = 64 * 1024;

/// Buffers, a power of two: two for each connection of the rows with 500, of which memory is used as far as it was filled.
const BUFFERS: u16 = 1024;

const GROUP: u16 = 0;

/// Operations handed in at a time. More are no harm.
const SUBMISSIONS: u32 = 1024;

/// Completions that fit: a turn of 10,000 connections.
const COMPLETIONS: u32 = 32 * 1024;

fn main() -> ExitCode {
    match Server::new().and_then(Server::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotloop-floor-uring: {error}");
            ExitCode::from(2)
        }
    }
}

/// What an operation does, and to which descriptor: what its completion is told by.
#[derive(Clone, Copy)]
enum Operation {
    Accept,
    Receive(RawFd),
    Send(RawFd),
}

impl Operation {
    fn to_user_data(self) -> u64 {
        let (kind, fd) = match self {
            Self::Accept => (0, 0),
            Self::Receive(fd) => (1, fd),
            Self::Send(fd) => (2, fd),
        };
        kind << 32 | u64::from(fd.unsigned_abs())
    }

    fn of(completion: &cqueue::Entry) -> Self {
        let fd = (completion.user_data() & u64::from(u32::MAX)) as RawFd;
        match completion.user_data() >> 32 {
            0 => Self::Accept,
            1 => Self::Receive(fd),
            _ => Self::Send(fd),
        }
    }
}

struct Server {
    ring: IoUring,
    listener: TcpListener,
    buffers: Buffers,
    connections: HashMap<RawFd, Connection>,
    /// Connections for which the kernel had no buffer left; received from again when there is one.
    starved: Vec<RawFd>,
}

/// A connection. It is closed when nothing is under way for it any more, so that no completion means another one.
struct Connection {
    stream: TcpStream,
    /// What came in and was not sent, of which the first is under way.
    unsent: VecDeque<Piece>,
    is_receiving: bool,
    /// Whether the peer has gone.
    is_over: bool,
}

/// Bytes in a buffer.
#[derive(Clone, Copy)]
struct Piece {
    buffer: u16,
    start: usize,
    end: usize,
}

impl Server {
    fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new(&ring)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (connections, starved) = (HashMap::new(), Vec::new());
        Ok(Self {
            ring,
            listener,
            buffers,
            connections,
            starved,
        })
    }

    fn serve(mut self) -> io::Result<()> {
        println!("{}", self.listener.local_addr()?.port());
        self.accept()?;
        let mut completions = Vec::new();
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            completions.extend(self.ring.completion());
            for completion in completions.drain(..) {
                self.complete(&completion)?;
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (result, more) = (completion.result(), cqueue::more(completion.flags()));
        match Operation::of(completion) {
            Operation::Accept => {
                if result >= 0 {
                    // SAFETY: the kernel made this descriptor for this completion alone.
                    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) });
                    stream.set_nodelay(true)?;
                    self.connections.insert(result, Connection::new(stream));
                    self.receive(result)?;
                }
                if more { Ok(()) } else { self.accept() }
            }
            Operation::Receive(fd) => {
                self.received(fd, result, cqueue::buffer_select(completion.flags()), more)
            }
            Operation::Send(fd) => self.sent(fd, result),
        }
    }

    fn received(&mut self, fd: RawFd, result: i32, buffer: Option<u16>, more: bool) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&fd) else {
            return Ok(());
        };
        connection.is_receiving = more;
        if let Some(buffer) = buffer {
            if result > 0 && !connection.is_over {
                let (start, end) = (0, result.unsigned_abs() as usize);
                connection.unsent.push_back(Piece { buffer, start, end });
                if connection.unsent.len() == 1 {
                    self.send(fd)?;
                }
            } else {
                self.buffers.give(buffer);
            }
        }
        if more {
            return Ok(());
        }
        if result > 0 {
            return self.receive(fd);
        }
        if result == -Errno::NOBUFS.raw_os_error() {
            self.starved.push(fd);
            return Ok(());
        }
        self.end(fd);
        Ok(())
    }

    fn sent(&mut self, fd: RawFd, result: i32) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&fd) else {
            return Ok(());
        };
        let Some(piece) = connection.unsent.front_mut() else {
            return Ok(());
        };
        if result < 0 {
            for piece in connection.unsent.drain(..) {
                self.buffers.give(piece.buffer);
            }
            self.end(fd);
            return self.feed();
        }
        piece.start += result.unsigned_abs() as usize;
        if piece.start == piece.end {
            self.buffers.give(piece.buffer);
            connection.unsent.pop_front();
        }
        if !connection.unsent.is_empty() {
            self.send(fd)?;
        } else if connection.is_over {
            self.end(fd);
        }
        self.feed()
    }

    /// The peer has gone: closes as soon as nothing is under way.
    fn end(&mut self, fd: RawFd) {
        let Some(connection) = self.connections.get_mut(&fd) else {
            return;
        };
        connection.is_over = true;
        if connection.is_receiving {
            // Which ends the receiving. That it has been shut down already is as good.
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        } else if connection.unsent.is_empty() {
            self.connections.remove(&fd);
        }
    }

    /// There is a buffer again.
    fn feed(&mut self) -> io::Result<()> {
        for fd in std::mem::take(&mut self.starved) {
            self.receive(fd)?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).build();
        self.push(entry, Operation::Accept)
    }

    fn receive(&mut self, fd: RawFd) -> io::Result<()> {
        if let Some(connection) = self.connections.get_mut(&fd) {
            connection.is_receiving = true;
            let entry = opcode::RecvMulti::new(Fd(fd), GROUP).build();
            self.push(entry, Operation::Receive(fd))?;
        }
        Ok(())
    }

    fn send(&mut self, fd: RawFd) -> io::Result<()> {
        let piece = self
            .connections
            .get(&fd)
            .and_then(|connection| connection.unsent.front());
        if let Some(piece) = piece {
            let entry = opcode::Send::new(Fd(fd), self.buffers.at(*piece), (piece.end - piece.start) as u32);
            self.push(entry.build(), Operation::Send(fd))?;
        }
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry, operation: Operation) -> io::Result<()> {
        let entry = entry.user_data(operation.to_user_data());
        // SAFETY: the only memory that operations name is that of the buffers, which lasts as long as the process. The
        // kernel fills a buffer that it was given back, which happens when what was in it has been sent.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unsent: VecDeque::new(),
            is_receiving: false,
            is_over: false,
        }
    }
}

/// Buffers, and the ring by which the kernel is given them. Never freed.
struct Buffers {
    memory: NonNull<u8>,
    entries: NonNull<BufRingEntry>,
    /// Where the next one is given.
    tail: u16,
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let count = usize::from(BUFFERS);
        let mut buffers = Self {
            memory: pages(count * SIZE),
            entries: pages(count * size_of::<BufRingEntry>()).cast(),
            tail: 0,
        };
        // SAFETY: there are as many entries, at the start of a page, and they are never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                BUFFERS,
                GROUP,
                0,
            )?;
        }
        for buffer in 0..BUFFERS {
            buffers.give(buffer);
        }
        Ok(buffers)
    }

    fn at(&self, piece: Piece) -> *const u8 {
        // SAFETY: the kernel's answers are numbers of buffers that it was given, and at most their length.
        unsafe {
            self.memory
                .as_ptr()
                .add(usize::from(piece.buffer) * SIZE + piece.start)
        }
    }

    /// Gives a buffer to the kernel.
    fn give(&mut self, buffer: u16) {
        let address = self.memory.as_ptr() as u64 + u64::from(buffer) * SIZE as u64;
        // SAFETY: all buffers fit in the ring, so the kernel does not read this entry. The tail lies in a part of the first
        // entry that the setters leave alone.
        let tail = unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(self.tail & (BUFFERS - 1)));
            entry.set_addr(address);
            entry.set_len(SIZE as u32);
            entry.set_bid(buffer);
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut())
        };
        self.tail = self.tail.wrapping_add(1);
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeros, from the start of a page, that are never freed.
fn pages(length: usize) -> NonNull<u8> {
    const PAGE: usize = 4096;
    let Ok(layout) = Layout::from_size_align(length, PAGE) else {
        unreachable!("a few megabytes in pages")
    };
    // SAFETY: the length is not 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
