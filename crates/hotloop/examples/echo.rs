//! An echo server: `cargo run --example echo`. Prints its port on one line and serves on 127.0.0.1 until SIGINT.
//! With `proactor` on its command line it runs on io_uring.

use std::rc::Rc;

use hotloop::asyncio::{BaseEventLoop, Error, ProactorEventLoop, Protocol, SelectorEventLoop, Transport};

/// Gives back what it is sent, and receives no more while the peer does not.
struct Echo;

impl Protocol for Echo {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
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

fn main() -> Result<(), Error> {
    let event_loop: BaseEventLoop = match std::env::args().nth(1).as_deref() {
        Some("proactor") => ProactorEventLoop::new()?.into(),
        _ => SelectorEventLoop::new()?.into(),
    };
    let serving = event_loop.clone();
    let server = event_loop
        .run_until_complete(async move { serving.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await })??;
    for address in server.addresses() {
        println!("{}", address.port());
    }
    let stopper = event_loop.stopper();
    event_loop.add_signal_handler(2, move || stopper.stop())?;
    event_loop.run_forever()?;
    server.close();
    event_loop.close()
}
