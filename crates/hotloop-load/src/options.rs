//! The command line.

use std::fs;
use std::time::Duration;

use lexopt::prelude::*;

use crate::socket::Address;

pub(crate) const USAGE: &str = "\
usage: hotloop-load echo ADDRESS [--size BYTES] [OPTIONS]
       hotloop-load download ADDRESS [--megabytes N] [OPTIONS]
       hotloop-load websocket ADDRESS [--path PATH] [--size BYTES] [OPTIONS]
       hotloop-load http ADDRESS [--path PATH] [--expect TEXT | --expect-file FILE] [OPTIONS]

ADDRESS is host:port, udp:host:port (echo only; a message is a datagram), or unix:PATH.
A download asks for so many megabytes again and again, and counts each megabyte as a request.

  --size BYTES         echo, websocket: length of a message (default 1024)
  --megabytes N        download: length of an answer (default 100)
  --path PATH          http, websocket: what to GET (default /)
  --expect TEXT        http: the body that every answer must have
  --expect-file FILE   http: the same, from a file
  --tls                over TLS; the server's certificate is not checked
  --reconnect          a connection for each exchange, and over TLS a full handshake
  --connections N      connections, all on one thread (default 50)
  --busy-poll          never sleep: the server does not pay for waking this end; wants a core of its own
  --duration SECONDS   measured time (default 5)
  --warm-up SECONDS    time before it that does not count (default 0.5)
  --pid PID            the server, to have its CPU time measured";

/// The longest message over UDP, in bytes.
const MAX_DATAGRAM: usize = 65507;

/// One run, as asked for on the command line.
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) address: Address,
    pub(crate) tls: bool,
    /// Whether each exchange has a connection of its own.
    pub(crate) reconnect: bool,
    pub(crate) connections: usize,
    /// Whether answers are looked for without sleeping.
    pub(crate) busy_poll: bool,
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// The server's process, whose CPU time is read.
    pub(crate) pid: Option<u32>,
}

/// What a connection says.
pub(crate) enum Mode {
    Echo {
        /// Bytes a message, at least 1.
        size: usize,
    },
    Download {
        /// Megabytes an answer, at least 1.
        megabytes: usize,
    },
    WebSocket {
        path: String,
        /// Bytes a message, at least 1.
        size: usize,
    },
    Http {
        path: String,
        /// The only right body; any body is right where this is `None`.
        expect: Option<Vec<u8>>,
    },
}

impl Options {
    /// `None` means that help was asked for.
    pub(crate) fn from_command_line() -> Result<Option<Self>, String> {
        parse(lexopt::Parser::from_env()).map_err(|error| error.to_string())
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut positional = Vec::new();
    let mut size = 1024;
    let mut megabytes: usize = 100;
    let mut path = String::from("/");
    let mut expect = None;
    let (mut tls, mut reconnect, mut busy_poll) = (false, false, false);
    let mut connections = 50;
    let mut duration = Duration::from_secs(5);
    let mut warm_up = Duration::from_millis(500);
    let mut pid = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("size") => size = parser.value()?.parse()?,
            Long("megabytes") => megabytes = parser.value()?.parse()?,
            Long("path") => path = parser.value()?.string()?,
            Long("expect") => expect = Some(parser.value()?.string()?.into_bytes()),
            Long("expect-file") => {
                let file = parser.value()?;
                expect = Some(fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
            }
            Long("tls") => tls = true,
            Long("reconnect") => reconnect = true,
            Long("busy-poll") => busy_poll = true,
            Long("connections") => connections = parser.value()?.parse()?,
            Long("duration") => duration = parser.value()?.parse_with(seconds)?,
            Long("warm-up") => warm_up = parser.value()?.parse_with(seconds)?,
            Long("pid") => pid = Some(parser.value()?.parse()?),
            Value(value) => positional.push(value.string()?),
            _ => return Err(argument.unexpected()),
        }
    }
    let [mode, address] = positional.as_slice() else {
        return Err(format!("a mode and an address are wanted\n\n{USAGE}").into());
    };
    if size == 0 || megabytes == 0 || connections == 0 || duration.is_zero() {
        return Err("--size, --megabytes, --connections and --duration must be more than 0".into());
    }
    let mode = match mode.as_str() {
        "echo" => Mode::Echo { size },
        "download" => Mode::Download { megabytes },
        "websocket" => Mode::WebSocket { path, size },
        "http" => Mode::Http { path, expect },
        other => return Err(format!("the mode is echo, download, websocket or http, not {other:?}").into()),
    };
    let address = Address::parse(address)?;
    if matches!(
        (&mode, &address),
        (
            Mode::Http { .. } | Mode::WebSocket { .. } | Mode::Download { .. },
            Address::Udp(_)
        )
    ) {
        return Err("http, websocket and downloads go over a stream".into());
    }
    if reconnect && matches!(mode, Mode::WebSocket { .. }) {
        return Err("a WebSocket stays open".into());
    }
    if matches!((&mode, &address), (Mode::Echo { size }, Address::Udp(_)) if *size > MAX_DATAGRAM) {
        return Err(format!("a datagram has at most {MAX_DATAGRAM} bytes").into());
    }
    Ok(Some(Options {
        mode,
        address,
        tls,
        reconnect,
        connections,
        busy_poll,
        duration,
        warm_up,
        pid,
    }))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Option<Options>, lexopt::Error> {
        parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn defaults_are_those_of_the_usage() {
        let options = parsed(&["echo", "127.0.0.1:80"])
            .expect("valid")
            .expect("no help");
        assert!(matches!(options.mode, Mode::Echo { size: 1024 }));
        assert_eq!(options.connections, 50);
        assert!(!options.tls && !options.reconnect && !options.busy_poll);
        assert_eq!(options.duration, Duration::from_secs(5));
        assert_eq!(options.warm_up, Duration::from_millis(500));
        assert_eq!(options.pid, None);
    }

    #[test]
    fn options_are_read() {
        let arguments = "http unix:/tmp/s --path /p --expect hi --duration 0.25 --connections 3 --pid 7 --tls --reconnect --busy-poll";
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let options = parsed(&arguments).expect("valid").expect("no help");
        let Mode::Http { path, expect } = options.mode else {
            panic!("not http")
        };
        assert_eq!((path.as_str(), expect.as_deref()), ("/p", Some(&b"hi"[..])));
        assert_eq!((options.connections, options.pid), (3, Some(7)));
        assert!(options.tls && options.reconnect && options.busy_poll);
        assert_eq!(options.duration, Duration::from_millis(250));
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            &["echo"][..],
            &["gopher", "127.0.0.1:80"],
            &["echo", "nowhere"],
            &["http", "udp:127.0.0.1:80"],
            &["websocket", "udp:127.0.0.1:80"],
            &["websocket", "127.0.0.1:80", "--reconnect"],
            &["download", "udp:127.0.0.1:80"],
            &["download", "127.0.0.1:80", "--megabytes", "0"],
            &["echo", "udp:127.0.0.1:80", "--size", "65508"],
            &["echo", "127.0.0.1:80", "--size", "0"],
            &["echo", "127.0.0.1:80", "--duration", "-1"],
            &["echo", "127.0.0.1:80", "--colour"],
        ] {
            assert!(parsed(arguments).is_err(), "{arguments:?}");
        }
    }
}
