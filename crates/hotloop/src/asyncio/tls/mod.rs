//! TLS by rustls: a protocol to the transport below it, a transport to the protocol above it.

mod connecting;
mod transport;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustls::Connection;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::future::{Future, Unless};
use super::handle::TimerHandle;
use super::protocol::Protocol;
use super::transport::Transport;

/// How long a handshake may take (asyncio's `SSL_HANDSHAKE_TIMEOUT`).
const HANDSHAKE: Duration = Duration::from_secs(60);

/// How long the peer may take to say goodbye (asyncio's `SSL_SHUTDOWN_TIMEOUT`).
const SHUTDOWN: Duration = Duration::from_secs(30);

/// How many encrypted bytes may wait to be sent (asyncio's `FLOW_CONTROL_HIGH_WATER_SSL_WRITE`).
const HIGH_WATER: usize = 512 * 1024;

/// How much plain text a protocol is given at once, at most: four records.
const PLAIN: usize = 64 * 1024;

thread_local! {
    /// Plain text is decrypted into it. Out while a protocol looks at it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One end of a TLS connection.
pub(crate) struct Tls {
    /// What a transport of it is made of.
    me: Weak<Self>,
    event_loop: BaseEventLoop,
    /// rustls's state. Never borrowed while a protocol or the transport below runs.
    connection: RefCell<Connection>,
    /// Set when that begins.
    lower: OnceCell<Transport>,
    /// Taken at the end.
    protocol: RefCell<Option<Rc<dyn Protocol>>>,
    stage: Cell<Stage>,
    /// Encrypted bytes that wait while the protocol is not read for.
    incoming: RefCell<VecDeque<u8>>,
    /// The peer has closed its half below TLS.
    ended: Cell<bool>,
    /// The protocol was told the end of the peer's half.
    end_told: Cell<bool>,
    /// `pause_reading` was called and `resume_reading` was not.
    paused: Cell<bool>,
    /// `write_eof` was called, or `close`.
    end_written: Cell<bool>,
    /// What comes in is being taken: whoever else wants to leaves it to that.
    taking: Cell<bool>,
    /// Ends a handshake or a goodbye that takes too long.
    timer: RefCell<Option<TimerHandle>>,
    /// Resolved when the handshake is over.
    decided: Future<()>,
    /// Why it failed, until whoever awaits it has taken that.
    failure: RefCell<Option<io::Error>>,
}

/// How far it has come, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Handshake,
    Open,
    /// Our goodbye is said, the peer's is awaited.
    Closing,
    Lost,
}

impl Tls {
    fn new(event_loop: &BaseEventLoop, mut connection: Connection, protocol: Rc<dyn Protocol>) -> Rc<Self> {
        // What waits to be sent waits below, where flow control sees it.
        connection.set_buffer_limit(None);
        Rc::new_cyclic(|me| Self {
            me: me.clone(),
            event_loop: event_loop.clone(),
            connection: RefCell::new(connection),
            lower: OnceCell::new(),
            protocol: RefCell::new(Some(protocol)),
            stage: Cell::new(Stage::Handshake),
            incoming: RefCell::default(),
            ended: Cell::new(false),
            end_told: Cell::new(false),
            paused: Cell::new(false),
            end_written: Cell::new(false),
            taking: Cell::new(false),
            timer: RefCell::new(None),
            decided: event_loop.create_future(),
            failure: RefCell::new(None),
        })
    }

    /// Waits for the end of the handshake. Answers the transport.
    async fn finish_handshake(&self) -> Result<Transport, Error> {
        let mut unless = Unless(Some(|| self.abort()));
        self.decided.clone().await?;
        unless.0 = None;
        match self.failure.borrow_mut().take() {
            Some(error) => Err(error.into()),
            None => self.transport().ok_or(Error::Cancelled),
        }
    }

    /// Begins the handshake.
    fn begin(&self, lower: &Transport) {
        // It begins once.
        drop(self.lower.set(lower.clone()));
        // High is above low.
        let _ = lower.set_write_buffer_limits(Some(HIGH_WATER), None);
        self.start_timer(
            HANDSHAKE,
            "TLS handshake is taking too long: aborting the connection",
        );
        self.send();
    }

    /// Takes what came in: through the handshake, to the protocol, to the end.
    fn take_incoming(&self) {
        if self.taking.replace(true) {
            return;
        }
        let mut plain = SCRATCH.take();
        plain.resize(PLAIN, 0);
        while self.stage.get() != Stage::Lost && !self.paused.get() {
            match self.take_plain(&mut plain) {
                Ok(Taken::Plain(count)) => {
                    if self.stage.get() == Stage::Open {
                        self.tell(|protocol, transport| protocol.data_received(transport, &plain[..count]));
                    }
                }
                Ok(Taken::Handshake) => self.open(),
                Ok(Taken::End) => {
                    self.end();
                    break;
                }
                Ok(Taken::Nothing) => {
                    if self.ended.get() {
                        self.end();
                    }
                    break;
                }
                Err(error) => {
                    // The alert that says why goes before the end.
                    self.send();
                    self.fail(io::Error::new(io::ErrorKind::InvalidData, error));
                    break;
                }
            }
        }
        SCRATCH.set(plain);
        self.taking.set(false);
        // What was received may have to be answered.
        self.send();
    }

    /// Decrypts as much as there is, and fits.
    fn take_plain(&self, plain: &mut [u8]) -> Result<Taken, rustls::Error> {
        let mut connection = self.connection.borrow_mut();
        let mut incoming = self.incoming.borrow_mut();
        let mut count = 0;
        loop {
            match connection.reader().read(&mut plain[count..]) {
                // The goodbye, or no room.
                Ok(0) if count == 0 => return Ok(Taken::End),
                Ok(0) => return Ok(Taken::Plain(count)),
                Ok(more) => {
                    count += more;
                    continue;
                }
                Err(_) => {}
            }
            if incoming.is_empty() {
                break;
            }
            // From memory there is no error but that rustls has no room, which it has once its plain text was read.
            if connection.read_tls(&mut *incoming).is_err() {
                break;
            }
            let handshaking = self.stage.get() == Stage::Handshake;
            match connection.process_new_packets() {
                Ok(_) if handshaking && !connection.is_handshaking() => return Ok(Taken::Handshake),
                Ok(_) => {}
                Err(error) if count == 0 => return Err(error),
                // It is told again when this was.
                Err(_) => break,
            }
        }
        Ok(if count > 0 {
            Taken::Plain(count)
        } else {
            Taken::Nothing
        })
    }

    /// The handshake is done.
    fn open(&self) {
        self.stop_timer();
        self.send();
        self.stage.set(Stage::Open);
        self.tell(|protocol, transport| protocol.connection_made(transport));
        // Nobody else sets it.
        drop(self.decided.set_result(()));
    }

    /// The peer's half has ended.
    fn end(&self) {
        match self.stage.get() {
            Stage::Handshake => self.fail(io::ErrorKind::ConnectionReset.into()),
            Stage::Open => {
                let mut keep_open = false;
                if !self.end_told.replace(true) {
                    self.tell(|protocol, transport| keep_open = protocol.eof_received(transport));
                    if !keep_open {
                        self.close_below();
                    }
                }
            }
            Stage::Closing => self.close_below(),
            Stage::Lost => {}
        }
    }

    /// Says goodbye and waits for nobody.
    fn close_below(&self) {
        self.write_eof();
        self.stage.set(self.stage.get().max(Stage::Closing));
        if let Some(lower) = self.lower.get() {
            lower.close();
        }
    }

    /// Hands what is encrypted to the transport below.
    fn send(&self) {
        let mut encrypted = Vec::new();
        let mut connection = self.connection.borrow_mut();
        while connection.wants_write() && connection.write_tls(&mut encrypted).is_ok_and(|count| count > 0) {}
        drop(connection);
        if let Some(lower) = self.lower.get()
            && !encrypted.is_empty()
        {
            // Refused only after its end was written, which nobody else does.
            drop(lower.write(&encrypted));
        }
    }

    fn start_timer(&self, after: Duration, why: &'static str) {
        let late = self.me.clone();
        let timer = self.event_loop.call_later(after, move || {
            if let Some(this) = late.upgrade() {
                this.fail(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        });
        self.stop_timer();
        *self.timer.borrow_mut() = timer.ok();
    }

    fn stop_timer(&self) {
        let timer = self.timer.borrow_mut().take();
        if let Some(timer) = timer {
            timer.cancel();
        }
    }

    fn transport(&self) -> Option<Transport> {
        self.me.upgrade().map(Transport::from)
    }

    /// Calls the protocol. A panic of it is the transport's below, through which all of this is called.
    fn tell(&self, call: impl FnOnce(&dyn Protocol, &Transport)) {
        let protocol = self.protocol.borrow().clone();
        if let (Some(protocol), Some(transport)) = (protocol, self.transport()) {
            call(&*protocol, &transport);
        }
    }
}

impl Protocol for Tls {
    fn connection_made(&self, lower: &Transport) {
        self.begin(lower);
    }

    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.incoming.borrow_mut().extend(data);
        self.take_incoming();
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.ended.set(true);
        self.take_incoming();
        // Closed here, behind the goodbye.
        true
    }

    fn connection_lost(&self, _: &Transport, error: Option<io::Error>) {
        self.stop_timer();
        if self.stage.replace(Stage::Lost) == Stage::Handshake {
            let error = error.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
            *self.failure.borrow_mut() = Some(error);
            drop(self.decided.set_result(()));
        } else {
            self.tell(|protocol, transport| protocol.connection_lost(transport, error));
        }
        let protocol = self.protocol.borrow_mut().take();
        drop(protocol);
    }

    fn pause_writing(&self, _: &Transport) {
        self.tell(|protocol, transport| protocol.pause_writing(transport));
    }

    fn resume_writing(&self, _: &Transport) {
        self.tell(|protocol, transport| protocol.resume_writing(transport));
    }
}

/// What was taken of what came in.
enum Taken {
    /// So many bytes of plain text.
    Plain(usize),
    /// The end of the handshake.
    Handshake,
    /// The peer's goodbye.
    End,
    Nothing,
}
