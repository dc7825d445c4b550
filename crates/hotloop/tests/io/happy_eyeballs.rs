//! The first of several addresses that answers.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use hotloop::asyncio::{Error, HappyEyeballs, timeout};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};

use crate::{Echo, Outcome, noting, on_each, until};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

fn after(delay: Duration) -> HappyEyeballs {
    HappyEyeballs {
        delay: Some(delay),
        interleave: 0,
    }
}

/// An address that does not answer: its listener has no room for another connection and nobody makes any.
struct Deaf {
    address: SocketAddr,
    _listener: TcpListener,
    _connections: Vec<TcpStream>,
}

impl Deaf {
    fn new() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // One more than none: the kernel asks whether there are more than allowed.
        socket::listen(&listener, Backlog::new(0)?)?;
        let address = listener.local_addr()?;
        let mut connections = Vec::new();
        // What does not fit is not answered at all.
        while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            connections.push(connection);
        }
        Ok(Self {
            address,
            _listener: listener,
            _connections: connections,
        })
    }
}

/// An address where nobody listens, and nobody else will meanwhile.
struct Refusing {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl Refusing {
    fn new() -> std::io::Result<Self> {
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
        let port = socket::getsockname::<SockaddrIn>(socket.as_raw_fd())?.port();
        Ok(Self {
            address: ([127, 0, 0, 1], port).into(),
            _socket: socket,
        })
    }
}

#[test]
fn an_address_that_does_not_answer_is_overtaken() -> Outcome {
    on_each(|event_loop| async move {
        let deaf = Deaf::new()?;
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let addresses = [deaf.address, server.addresses()[0]];
        let how = after(Duration::from_millis(1));
        let connecting = event_loop.create_connection_to(noting, &addresses, how);
        let (transport, client) = connecting.await?;
        assert_eq!(transport.peer(), Some(&addresses[1].into()));
        transport.write(b"hello")?;
        until(&event_loop, || *client.received.borrow() == b"hello").await?;
        transport.close();
        server.close();
        Ok(server.wait_closed().await?)
    })
}

#[test]
fn an_address_that_refuses_costs_no_delay() -> Outcome {
    on_each(|event_loop| async move {
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let (one, other) = (Refusing::new()?, Refusing::new()?);
        let addresses = [one.address, other.address, server.addresses()[0]];
        let connecting = event_loop.create_connection_to(noting, &addresses, after(LONG));
        let (transport, _) = connecting.await?;
        assert_eq!(transport.peer(), Some(&addresses[2].into()));
        transport.abort();
        server.close();
        Ok(server.wait_closed().await?)
    })
}

#[test]
fn one_by_one_waits_for_the_first() -> Outcome {
    on_each(|event_loop| async move {
        let deaf = Deaf::new()?;
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let addresses = [deaf.address, server.addresses()[0]];
        let how = HappyEyeballs::ONE_BY_ONE;
        let connecting = event_loop.create_connection_to(noting, &addresses, how);
        let connected = timeout(Duration::from_millis(5), connecting).await;
        assert!(matches!(connected, Err(Error::TimedOut)));
        server.close();
        Ok(())
    })
}

#[test]
fn who_loses_is_given_up() -> Outcome {
    /// The sockets of the system that are on their way to an address of IPv4.
    fn on_their_way(to: SocketAddr) -> std::io::Result<usize> {
        const SYN_SENT: &str = "02";
        let port = format!(":{:04X}", to.port());
        let table = std::fs::read_to_string("/proc/self/net/tcp")?;
        let rows = table
            .lines()
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        Ok(rows
            .filter(|row| matches!(row[..], [_, _, far, SYN_SENT, ..] if far.ends_with(&port)))
            .count())
    }
    on_each(|event_loop| async move {
        let deaf = Deaf::new()?;
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let addresses = [deaf.address, server.addresses()[0]];
        let connecting = event_loop.clone();
        let waiting = event_loop.create_task(async move {
            let how = HappyEyeballs::ONE_BY_ONE;
            let addresses = [deaf.address];
            let connected = connecting.create_connection_to(noting, &addresses, how);
            connected.await.map(drop)
        })?;
        until(&event_loop, || {
            on_their_way(deaf.address).is_ok_and(|count| count == 1)
        })
        .await?;
        waiting.cancel();
        let how = after(Duration::from_millis(1));
        let (transport, _) = event_loop.create_connection_to(noting, &addresses, how).await?;
        assert_eq!(on_their_way(deaf.address)?, 0);
        transport.abort();
        server.close();
        Ok(server.wait_closed().await?)
    })
}

#[test]
fn where_all_fail_alike_one_error_is_told_and_else_all_are() -> Outcome {
    on_each(|event_loop| async move {
        let how = HappyEyeballs::default();
        let none = event_loop.create_connection_to(noting, &[], how).await;
        assert!(matches!(none, Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound));
        let (one, other) = (Refusing::new()?, Refusing::new()?);
        let alike = [one.address, other.address];
        let Err(Error::Io(error)) = event_loop.create_connection_to(noting, &alike, how).await else {
            return Err("nobody listens".into());
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ECONNREFUSED as i32));
        // No stream goes to a group: the kernel knows without asking anybody.
        let unlike = [one.address, ([224, 0, 0, 1], 1).into()];
        let Err(Error::Io(error)) = event_loop.create_connection_to(noting, &unlike, how).await else {
            return Err("nobody listens".into());
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("Multiple exceptions: "), "{error}");
        Ok(())
    })
}

#[test]
fn a_name_with_addresses_of_both_families_finds_the_one_that_listens() -> Outcome {
    on_each(|event_loop| async move {
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let port = server.addresses()[0].port();
        let how = HappyEyeballs::default();
        let connecting = event_loop.create_connection_with_happy_eyeballs(noting, "localhost", port, how);
        let (transport, client) = connecting.await?;
        transport.write(b"hello")?;
        until(&event_loop, || *client.received.borrow() == b"hello").await?;
        transport.close();
        server.close();
        Ok(server.wait_closed().await?)
    })
}
