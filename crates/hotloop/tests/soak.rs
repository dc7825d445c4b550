//! Programs that are cancelled anywhere, whose connections are reset and whose loop is closed in the middle, again and
//! again: no byte is lost or doubled before that, and neither descriptors nor memory are left. `make asan` runs more of them, under
//! AddressSanitizer. Alone in its process, whose descriptors it counts.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use hotloop::asyncio::{
    BaseEventLoop, Error, ProactorEventLoop, Protocol, Selector, SelectorEventLoop, Task, Transport, timeout,
};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Programs on each loop, unless `HOTLOOP_SOAK` is another number.
const PROGRAMS: u64 = 6;

/// Clients in a program.
const CLIENTS: usize = 24;

/// How long one of them may take: far more than it does.
const LIMIT: Duration = Duration::from_secs(120);

/// How much more memory may be resident behind the second half of the programs than behind the first, in bytes.
const SLACK: usize = 64 << 20;

#[test]
fn what_is_cancelled_reset_or_closed_anywhere_leaves_nothing() -> Outcome {
    let programs = std::env::var("HOTLOOP_SOAK").map_or(Ok(PROGRAMS), |programs| programs.parse())?;
    for name in ["epoll", "poll", "select", "proactor"] {
        let mut halfway = 0;
        let descriptors = open_descriptors()?;
        for seed in 0..programs {
            let Some(event_loop) = new_loop(name)? else { break };
            let limited = timeout(LIMIT, program(event_loop.clone(), seed));
            let ran = event_loop.run_until_complete(limited)?;
            ran.map_err(Box::from)
                .and_then(|outcome| outcome)
                .map_err(|error| format!("{name}, seed {seed}: {error}"))?;
            event_loop.close()?;
            drop(event_loop);
            assert_eq!(open_descriptors()?, descriptors, "{name}, seed {seed}");
            if seed == programs / 2 {
                halfway = resident()?;
            }
        }
        let grown = resident()?.saturating_sub(halfway);
        assert!(halfway == 0 || grown < SLACK, "{name}: {grown} bytes more");
    }
    Ok(())
}

/// `None` where the kernel refuses it.
fn new_loop(name: &str) -> Result<Option<BaseEventLoop>, Error> {
    let selector = Selector::ALL.iter().find(|selector| selector.name() == name);
    match selector {
        Some(&selector) => Ok(Some(SelectorEventLoop::with_selector(selector)?.into())),
        None => Ok(ProactorEventLoop::new().ok().map(Into::into)),
    }
}

async fn program(event_loop: BaseEventLoop, seed: u64) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let dice = Rc::new(RefCell::new(random.fork()));
    let server = event_loop
        .create_server(move || Rc::new(Echo(Rc::clone(&dice))), "127.0.0.1", 0)
        .await?;
    let address = server.addresses()[0];
    let mut clients: Vec<Task<Outcome>> = Vec::new();
    for number in 0..CLIENTS {
        // Few of them are more than a kernel takes at once, but the first, which nobody cancels, always is.
        let most = 1 << random.u8(8..22);
        let size = if number == 0 {
            12 << 20
        } else {
            random.usize(1..most)
        };
        let client = Client {
            event_loop: event_loop.clone(),
            address,
            size,
            given_up_at: if number == 0 {
                size
            } else {
                random.usize(..size * 2)
            },
        };
        clients.push(match if number == 0 { 0 } else { random.u8(..4) } {
            0 | 1 => event_loop.create_task(client.echo()),
            2 => event_loop.create_task(client.pair()),
            _ => event_loop.create_task(client.reset()),
        }?);
    }
    for _ in 0..random.usize(1..150) {
        turn(&event_loop).await?;
        if random.u8(..4) == 0 {
            clients[random.usize(1..CLIENTS)].cancel();
        }
    }
    if random.bool() {
        // In the middle of it all.
        return Ok(());
    }
    for (index, client) in clients.into_iter().enumerate() {
        match client.await {
            Ok(outcome) => outcome.map_err(|error| format!("client {index}: {error}"))?,
            Err(Error::Cancelled) => {}
            Err(error) => return Err(error.into()),
        }
    }
    server.close();
    Ok(())
}

struct Client {
    event_loop: BaseEventLoop,
    address: SocketAddr,
    size: usize,
    /// So many bytes it waits for, if that is not all.
    given_up_at: usize,
}

impl Client {
    /// Sends and has it sent back, over a transport.
    async fn echo(self) -> Outcome {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let connected = self
            .event_loop
            .create_connection(Rc::<Collected>::default, &host, port)
            .await;
        let (transport, collected) = connected?;
        let transport = Aborted(transport);
        let data = pattern(self.size);
        transport.0.write(&data)?;
        let wanted = self.size.min(self.given_up_at);
        while collected.bytes.borrow().len() < wanted && !collected.lost.get() {
            turn(&self.event_loop).await?;
        }
        let bytes = collected.bytes.borrow();
        if data.starts_with(&bytes) {
            Ok(())
        } else {
            Err(format!("{} bytes came back otherwise", bytes.len()).into())
        }
    }

    /// Sends from one end of a pair to the other, by `sock_*`.
    async fn pair(self) -> Outcome {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let (sending, size) = (self.event_loop.clone(), self.size);
        let sender = Cancelled(
            self.event_loop
                .create_task(async move { sending.sock_sendall(&near, &pattern(size)).await })?,
        );
        let wanted = self.size.min(self.given_up_at);
        let mut received = Vec::new();
        while received.len() < wanted {
            let receiving = self.event_loop.sock_recv(&far, 65_536);
            match timeout(Duration::from_secs(30), receiving).await? {
                Ok(bytes) if !bytes.is_empty() => received.extend(bytes),
                other => return Err(format!("{other:?} behind {} bytes", received.len()).into()),
            }
        }
        drop(sender);
        if pattern(self.size).starts_with(&received) {
            Ok(())
        } else {
            Err(format!("{} bytes came in otherwise", received.len()).into())
        }
    }

    /// Sends as much as the peer takes, and resets the connection.
    async fn reset(self) -> Outcome {
        let sock = TcpStream::connect(self.address)?;
        sock.set_nonblocking(true)?;
        let reset = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&sock, sockopt::Linger, &reset)?;
        let data = pattern(self.size);
        let sent = self.event_loop.sock_sendall(&sock, &data);
        match timeout(Duration::from_millis(1), sent).await {
            Ok(Ok(())) | Err(Error::TimedOut) => Ok(()),
            // The server resets some connections, too.
            Ok(Err(Error::Io(error))) if is_end(error.kind()) => Ok(()),
            Ok(Err(error)) | Err(error) => Err(error.into()),
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Gives back what comes in, and resets a connection now and then.
struct Echo(Rc<RefCell<fastrand::Rng>>);

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        if self.0.borrow_mut().u8(..100) == 0 || transport.write(data).is_err() {
            transport.abort();
        }
    }

    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }
}

#[derive(Default)]
struct Collected {
    bytes: RefCell<Vec<u8>>,
    lost: Cell<bool>,
}

impl Protocol for Collected {
    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.bytes.borrow_mut().extend_from_slice(data);
    }

    fn connection_lost(&self, _: &Transport, _: Option<std::io::Error>) {
        self.lost.set(true);
    }
}

/// A transport that ends with who has it.
struct Aborted(Transport);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A task that ends with who has it.
struct Cancelled<T>(Task<T>);

impl<T> Drop for Cancelled<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn turn(event_loop: &BaseEventLoop) -> Result<(), Error> {
    let called = event_loop.create_future();
    let caller = called.clone();
    event_loop.call_soon(move || drop(caller.set_result(())))?;
    called.await
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

fn open_descriptors() -> std::io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// How much memory of this process is resident, in bytes.
fn resident() -> Result<usize, Box<dyn std::error::Error>> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: usize = pages
        .split(' ')
        .nth(1)
        .ok_or("statm has no second field")?
        .parse()?;
    Ok(pages * 4096)
}
