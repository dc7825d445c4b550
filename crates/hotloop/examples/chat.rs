//! A chat server: `cargo run --example chat`. Prints its port on one line; each line that somebody sends goes to all
//! the others, until SIGINT.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport};

/// Who is here.
type Room = Rc<RefCell<Vec<Transport>>>;

struct Guest {
    room: Room,
    /// The line that has not ended yet.
    line: RefCell<Vec<u8>>,
}

impl Guest {
    fn tell_others(&self, speaker: &Transport, line: &[u8]) {
        // Not borrowed while writing: that may call a protocol.
        let others = self.room.borrow().clone();
        for other in others.iter().filter(|other| other.fileno() != speaker.fileno()) {
            if other.write(line).is_err() {
                other.abort();
            }
        }
    }
}

impl Protocol for Guest {
    fn connection_made(&self, transport: &Transport) {
        self.room.borrow_mut().push(transport.clone());
    }

    fn data_received(&self, transport: &Transport, data: &[u8]) {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            self.line.borrow_mut().extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = self.line.take();
                self.tell_others(transport, &line);
            }
        }
    }

    fn pause_writing(&self, transport: &Transport) {
        // Whoever does not listen must not fill the memory.
        transport.abort();
    }

    fn connection_lost(&self, transport: &Transport, _: Option<io::Error>) {
        self.room
            .borrow_mut()
            .retain(|guest| guest.fileno() != transport.fileno());
    }
}

fn main() -> Result<(), Error> {
    let event_loop = SelectorEventLoop::new()?;
    let (serving, room) = (event_loop.clone(), Room::default());
    let guest = move || {
        Rc::new(Guest {
            room: Rc::clone(&room),
            line: RefCell::default(),
        })
    };
    let server = event_loop
        .run_until_complete(async move { serving.create_server(guest, "127.0.0.1", 0).await })??;
    for address in server.addresses() {
        println!("{}", address.port());
    }
    let stopper = event_loop.stopper();
    event_loop.add_signal_handler(2, move || stopper.stop())?;
    event_loop.run_forever()?;
    server.close();
    event_loop.close()
}
