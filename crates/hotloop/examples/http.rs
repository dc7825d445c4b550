//! HTTP by hyper: `cargo run --example http`. Prints its port on one line and greets whoever asks, until SIGINT.
//!
//! hyper polls a connection for bytes, asyncio pushes them: `Connection` stands between the two.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport};

/// So many bytes wait for hyper at most, before no more are received.
const MOST_WAITING: usize = 64 * 1024;

/// A connection as both sides see it.
#[derive(Default)]
struct Connection {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// What came in and was not read.
    received: Vec<u8>,
    /// Nothing comes in any more.
    ended: bool,
    /// Nothing can be sent any more.
    lost: bool,
    /// More waits to be sent than should.
    full: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Connection {
    /// Changes the state, and wakes whoever waited for that.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.borrow_mut();
        change(&mut state);
        let woken = [state.reader.take(), state.writer.take()];
        drop(state);
        woken.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The protocol of a connection that hyper serves.
#[derive(Default)]
struct Served(Rc<Connection>);

impl Protocol for Served {
    fn connection_made(&self, transport: &Transport) {
        let ends = Ends {
            connection: Rc::clone(&self.0),
            transport: transport.clone(),
        };
        let served = async {
            if let Err(error) = http1::Builder::new()
                .serve_connection(ends, service_fn(greet))
                .await
            {
                eprintln!("{error}");
            }
        };
        if transport.event_loop().create_task(served).is_err() {
            transport.abort();
        }
    }

    fn data_received(&self, transport: &Transport, data: &[u8]) {
        self.0.change(|state| state.received.extend_from_slice(data));
        if self.0.state.borrow().received.len() > MOST_WAITING {
            transport.pause_reading();
        }
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.0.change(|state| state.ended = true);
        // There may be an answer under way: hyper closes.
        true
    }

    fn connection_lost(&self, _: &Transport, _: Option<io::Error>) {
        self.0.change(|state| (state.ended, state.lost) = (true, true));
    }

    fn pause_writing(&self, _: &Transport) {
        self.0.change(|state| state.full = true);
    }

    fn resume_writing(&self, _: &Transport) {
        self.0.change(|state| state.full = false);
    }
}

/// What hyper reads from and writes to. Dropping it closes the connection.
struct Ends {
    connection: Rc<Connection>,
    transport: Transport,
}

impl Read for Ends {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.connection.state.borrow_mut();
        if state.received.is_empty() && !state.ended {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.remaining().min(state.received.len());
        buffer.put_slice(&state.received[..count]);
        state.received.drain(..count);
        let resume = state.received.is_empty() && !state.ended;
        drop(state);
        if resume && !self.transport.is_reading() {
            self.transport.resume_reading();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Ends {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.connection.state.borrow_mut();
        if state.lost {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.full {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // Not borrowed while writing: that may call the protocol.
        drop(state);
        Poll::Ready(match self.transport.write(data) {
            Ok(()) => Ok(data.len()),
            Err(error) => Err(io::Error::other(error)),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.write_eof();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.transport.close();
    }
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request.uri().path().trim_start_matches('/');
    let name = if name.is_empty() { "world" } else { name };
    Ok(Response::new(Full::from(format!("hello {name}\n"))))
}

fn main() -> Result<(), Error> {
    let event_loop = SelectorEventLoop::new()?;
    let serving = event_loop.clone();
    let server = event_loop.run_until_complete(async move {
        serving.create_server(Rc::<Served>::default, "127.0.0.1", 0).await
    })??;
    for address in server.addresses() {
        println!("{}", address.port());
    }
    let stopper = event_loop.stopper();
    event_loop.add_signal_handler(2, move || stopper.stop())?;
    event_loop.run_forever()?;
    server.close();
    event_loop.close()
}
