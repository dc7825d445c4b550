//! The laws of what moves bytes for Rust programs, each on the proactor and on every selector. A kernel that
//! refuses io_uring has the selectors only.

#[path = "io/buffered.rs"]
mod buffered;
#[path = "io/connections.rs"]
mod connections;
#[path = "io/datagrams.rs"]
mod datagrams;
#[path = "io/happy_eyeballs.rs"]
mod happy_eyeballs;
#[path = "io/names.rs"]
mod names;
#[path = "io/pipes.rs"]
mod pipes;
#[path = "io/sendfile.rs"]
mod sendfile;
#[path = "io/sockets.rs"]
mod sockets;
#[path = "io/subprocesses.rs"]
mod subprocesses;
#[cfg(feature = "tls")]
#[path = "io/tls.rs"]
mod tls;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use hotloop::asyncio::{
    BaseEventLoop, Error, ProactorEventLoop, Protocol, Selector, SelectorEventLoop, Transport,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs a test as a task of each loop.
fn on_each<F>(test: impl Fn(BaseEventLoop) -> F) -> Outcome
where
    F: Future<Output = Outcome> + 'static,
{
    let mut loops: Vec<BaseEventLoop> = Vec::new();
    for &selector in Selector::ALL {
        loops.push(SelectorEventLoop::with_selector(selector)?.into());
    }
    loops.extend(ProactorEventLoop::new().map(Into::into));
    for event_loop in loops {
        event_loop.run_until_complete(test(event_loop.clone()))??;
        event_loop.close()?;
    }
    Ok(())
}

/// Waits one turn.
async fn turn(event_loop: &BaseEventLoop) -> Result<(), Error> {
    let called = event_loop.create_future();
    let caller = called.clone();
    event_loop.call_soon(move || drop(caller.set_result(())))?;
    called.await
}

/// Goes on, turn by turn, until something holds.
async fn until(event_loop: &BaseEventLoop, holds: impl Fn() -> bool) -> Result<(), Error> {
    while !holds() {
        turn(event_loop).await?;
    }
    Ok(())
}

/// A path that nothing else has.
fn fresh_path() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("hotloop-{}-{number}", std::process::id()))
}

/// A file without a name, at its beginning.
fn file_of(bytes: &[u8]) -> std::io::Result<File> {
    let path = fresh_path();
    std::fs::write(&path, bytes)?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Keeps what it is told.
#[derive(Default)]
struct Noting {
    received: RefCell<Vec<u8>>,
    made: Cell<bool>,
    ended: Cell<bool>,
    paused: Cell<bool>,
    lost: RefCell<Option<Option<std::io::ErrorKind>>>,
}

impl Noting {
    fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }
}

impl Protocol for Noting {
    fn connection_made(&self, _: &Transport) {
        self.made.set(true);
    }

    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.received.borrow_mut().extend_from_slice(data);
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.ended.set(true);
        false
    }

    fn connection_lost(&self, _: &Transport, error: Option<std::io::Error>) {
        *self.lost.borrow_mut() = Some(error.map(|error| error.kind()));
    }

    fn pause_writing(&self, _: &Transport) {
        self.paused.set(true);
    }

    fn resume_writing(&self, _: &Transport) {
        self.paused.set(false);
    }
}

/// Gives back what comes in.
struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        transport.write(data).expect("write_eof was not called");
    }

    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }
}

fn noting() -> Rc<Noting> {
    Rc::default()
}

/// Bytes that show when some are lost or doubled.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}
