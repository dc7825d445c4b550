//! The run: connect, warm up, measure.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::client::{Client, Connect};
use crate::cpu;
use crate::download::Download;
use crate::echo::Echo;
use crate::exchange::{Exchange, Wrong};
use crate::http::Http;
use crate::options::{Mode, Options};
use crate::report::{Report, empty_histogram};
use crate::socket::Socket;
use crate::tls::Settings;
use crate::websocket::WebSocket;

/// Loads the server as `options` say and reports on the measured window.
///
/// # Errors
///
/// When a connection cannot be opened, or the server's CPU time cannot be read.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    match &options.mode {
        Mode::Echo { size } => Load::connect(options, |seed| Echo::new(*size, seed))?.measure(options),
        Mode::Download { megabytes } => {
            Load::connect(options, |_| Download::new(*megabytes))?.measure(options)
        }
        Mode::WebSocket { path, size } => {
            let host = options.address.host();
            Load::connect(options, |_| WebSocket::new(path, &host, *size))?.measure(options)
        }
        Mode::Http { path, expect } => {
            let request: Arc<[u8]> = http_request(path, &options.address.host()).into();
            let expect: Option<Arc<[u8]>> = expect.as_deref().map(Arc::from);
            Load::connect(options, |_| Http::new(Arc::clone(&request), expect.clone()))?.measure(options)
        }
    }
}

/// How each connection is made.
fn connector(options: &Options) -> io::Result<Connect> {
    let address = options.address.clone();
    Ok(if options.tls {
        let settings = Settings::new()?;
        Rc::new(move || Socket::connect_tls(&address, &settings))
    } else {
        Rc::new(move || Socket::connect(&address))
    })
}

fn http_request(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Every client, and the poll that drives them.
struct Load<E> {
    poll: Poll,
    /// By token. `None` where the client has failed.
    clients: Vec<Option<Client<E>>>,
    /// Where every read lands. As large as a socket buffer gets, so that most answers come in one read.
    buffer: Vec<u8>,
    errors: Vec<String>,
    busy_poll: bool,
}

impl<E: Exchange> Load<E> {
    fn connect(options: &Options, exchange: impl Fn(u64) -> E) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(options.connections);
        let connect = connector(options)?;
        for index in 0..options.connections {
            let again = options.reconnect.then(|| Rc::clone(&connect));
            let exchange = exchange(index as u64 + 1);
            let client = Client::new(connect()?, again, exchange, Token(index), poll.registry())?;
            clients.push(Some(client));
        }
        Ok(Self {
            poll,
            clients,
            buffer: vec![0; 256 * 1024],
            errors: Vec::new(),
            busy_poll: options.busy_poll,
        })
    }

    fn measure(mut self, options: &Options) -> io::Result<Report> {
        let server_cpu = || options.pid.map(cpu::of_process).transpose();
        for index in 0..self.clients.len() {
            self.with_client(index, |client, poll, _| client.begin(poll.registry()))?;
        }
        self.drive_until(Instant::now() + options.warm_up, |_| {})?;

        let mut latency = empty_histogram()?;
        let mut requests = 0;
        let cpu_before = server_cpu()?;
        let start = Instant::now();
        self.drive_until(start + options.duration, |begun| {
            requests += 1;
            latency.saturating_record(begun.elapsed().as_nanos() as u64);
        })?;
        let elapsed = start.elapsed();
        // A server that died has given wrong answers already, and those are the message.
        let cpu_after = if self.errors.is_empty() {
            server_cpu()?
        } else {
            None
        };
        let server_cpu = cpu_after
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before));
        Ok(Report {
            requests,
            elapsed,
            latency,
            server_cpu,
            errors: self.errors,
        })
    }

    /// Lets the clients work until `deadline`, or until none is left. `completed` gets the beginning of each exchange.
    fn drive_until(&mut self, deadline: Instant, mut completed: impl FnMut(Instant)) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while self.clients.iter().any(Option::is_some) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            let patience = if self.busy_poll { Duration::ZERO } else { left };
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                self.with_client(event.token().0, |client, poll, buffer| {
                    client.progress(poll.registry(), buffer, &mut completed)
                })?;
            }
        }
        Ok(())
    }

    /// Runs `action` on a client, and ends that client if it fails.
    fn with_client(
        &mut self,
        index: usize,
        action: impl FnOnce(&mut Client<E>, &Poll, &mut [u8]) -> Result<(), Wrong>,
    ) -> io::Result<()> {
        let Some(client) = &mut self.clients[index] else {
            return Ok(());
        };
        if let Err(Wrong(error)) = action(client, &self.poll, &mut self.buffer) {
            self.errors.push(error);
            if let Some(client) = self.clients[index].take() {
                client.end(self.poll.registry())?;
            }
        }
        Ok(())
    }
}
