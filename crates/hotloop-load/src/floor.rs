//! The floor: what an echo server costs when nothing but the kernel is in it.
//!
//! One thread, one level-triggered epoll instance, one buffer. For each ready connection one `recv` and one `send`, the
//! system calls that no loop on readiness can do without. Prints its port on one line and serves on 127.0.0.1 until it
//! is killed, as the servers of the benchmarks do. A number on its command line is how many bytes it asks for at once:
//! a message that takes more pieces takes more of everything. With `udp` it is one socket that gives each datagram back.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Bytes asked for at once unless the command line says: what the loops under comparison ask for.
const READ_SIZE: usize = 256 * 1024;

/// Events taken at once.
const EVENTS: usize = 512;

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        Some("udp") => serve_datagrams(),
        Some(size) => size
            .parse()
            .map_err(|_| io::Error::other(format!("{size} is neither a number of bytes nor udp")))
            .and_then(serve),
        None => serve(READ_SIZE),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotloop-floor: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(size: usize) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    let name = |fd: RawFd| EventData::new_u64(u64::from(fd.unsigned_abs()));
    epoll::add(&set, &listener, name(listener.as_raw_fd()), EventFlags::IN)?;
    let mut connections = HashMap::new();
    let mut buffer = vec![0; size];
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let Ok(fd) = RawFd::try_from(event.data.u64()) else {
                continue;
            };
            if fd == listener.as_raw_fd() {
                while let Some(stream) = again_later(listener.accept().map(|(stream, _)| stream))? {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&set, &stream, name(stream.as_raw_fd()), EventFlags::IN)?;
                    connections.insert(stream.as_raw_fd(), Connection::new(stream));
                }
            } else if let Some(connection) = connections.get_mut(&fd) {
                match connection.turn(&mut buffer) {
                    Ok(None) => {}
                    Ok(Some(flags)) => epoll::modify(&set, &connection.stream, name(fd), flags)?,
                    // The peer has gone, which is how each run ends.
                    Err(_) => drop(connections.remove(&fd)),
                }
            }
        }
    }
}

fn serve_datagrams() -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    println!("{}", socket.local_addr()?.port());
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&set, &socket, EventData::new_u64(0), EventFlags::IN)?;
    let mut buffer = vec![0; READ_SIZE];
    let mut events: Vec<Event> = Vec::with_capacity(1);
    loop {
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None)?;
        if let Some((received, from)) = again_later(socket.recv_from(&mut buffer))? {
            // What the kernel has no room for is lost, which UDP allows.
            again_later(socket.send_to(&buffer[..received], from))?;
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// What the kernel had no room for. While there is something, nothing is received.
    unsent: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let unsent = Vec::new();
        Self { stream, unsent }
    }

    /// Moves bytes once. Answers what to wait for from now on, where that has changed.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<Option<EventFlags>> {
        if !self.unsent.is_empty() {
            let sent = again_later(self.stream.write(&self.unsent))?.unwrap_or(0);
            self.unsent.drain(..sent);
            return Ok(self.unsent.is_empty().then_some(EventFlags::IN));
        }
        let received = match again_later(self.stream.read(buffer))? {
            None => return Ok(None),
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(received) => &buffer[..received],
        };
        let sent = again_later(self.stream.write(received))?.unwrap_or(0);
        self.unsent.extend_from_slice(&received[sent..]);
        Ok((!self.unsent.is_empty()).then_some(EventFlags::OUT))
    }
}

/// `None` where the kernel has nothing, or no room, just now.
fn again_later<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
