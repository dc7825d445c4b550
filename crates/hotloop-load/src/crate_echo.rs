//! An echo server on the crate `hotloop`, without Python: what its loops cost above the floors.
//!
//! Prints its port on one line and serves on 127.0.0.1 until it is killed, as the servers of the benchmarks do. On the
//! selector loop, or with `proactor` on its command line on the proactor loop.

#![forbid(unsafe_code)]

use std::future::pending;
use std::net::TcpListener;
use std::process::ExitCode;
use std::rc::Rc;

use hotloop::asyncio::{BaseEventLoop, Error, ProactorEventLoop, Protocol, SelectorEventLoop, Transport};

fn main() -> ExitCode {
    let served = match std::env::args().nth(1).as_deref() {
        None | Some("selector") => SelectorEventLoop::new().map(BaseEventLoop::from),
        Some("proactor") => ProactorEventLoop::new().map(BaseEventLoop::from),
        Some(other) => {
            eprintln!("hotloop-crate-echo: there is no loop called {other}");
            return ExitCode::from(2);
        }
    };
    match served
        .map_err(Error::from)
        .and_then(|event_loop| serve(&event_loop))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotloop-crate-echo: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(event_loop: &BaseEventLoop) -> Result<(), Error> {
    let serving = event_loop.clone();
    event_loop.run_until_complete(async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let _server = serving.create_server_with_sock(|| Rc::new(Echo), listener)?;
        println!("{port}");
        pending().await
    })?
}

/// Gives back what it is sent, and receives no more while the peer does not.
struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        // It is refused behind the end of what was written only, which never comes here.
        if transport.write(data).is_err() {
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
