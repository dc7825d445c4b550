//! TLS, with certificates that are made here.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use hotloop::asyncio::rustls::pki_types::{PrivateKeyDer, ServerName};
use hotloop::asyncio::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use hotloop::asyncio::{BaseEventLoop, Error, Protocol, Server, Transport};

use crate::buffered::Small;
use crate::{Echo, Outcome, file_of, noting, on_each, pattern, turn, until};

/// The configurations of a server named localhost and of clients that trust it.
fn configs() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate)?;
    let client = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}

/// A server that gives back what comes in, and a connection to it with its protocol.
async fn connected<P: Protocol + 'static>(
    event_loop: &BaseEventLoop,
    factory: impl FnOnce() -> Rc<P>,
    of_server: Arc<ServerConfig>,
    of_client: Arc<ClientConfig>,
) -> Result<(Server, Transport, Rc<P>), Error> {
    let server = event_loop
        .create_tls_server(|| Rc::new(Echo), "localhost", 0, of_server)
        .await?;
    let port = server.addresses()[0].port();
    let connecting = event_loop.create_tls_connection(factory, "localhost", port, of_client);
    let (transport, protocol) = connecting.await?;
    Ok((server, transport, protocol))
}

#[test]
fn a_client_and_a_server_exchange_more_than_fits() -> Outcome {
    const SIZE: usize = 4 << 20;
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let (server, transport, client) = connected(&event_loop, noting, of_server, of_client).await?;
            assert!(client.made.get() && transport.is_reading());
            let agreed = transport.with_tls(|tls| (tls.is_handshaking(), tls.peer_certificates().is_some()));
            assert_eq!(agreed, Some((false, true)));
            transport.write(&pattern(SIZE))?;
            transport.writelines([b"two ".to_vec(), b"lines".to_vec()])?;
            until(&event_loop, || client.received.borrow().ends_with(b"two lines")).await?;
            assert!(*client.received.borrow() == [&pattern(SIZE)[..], b"two lines"].concat());
            assert!(transport.can_write_eof());
            transport.close();
            transport.write(b"dropped")?;
            assert!(transport.is_closing());
            until(&event_loop, || client.is_lost()).await?;
            assert_eq!(*client.lost.borrow(), Some(None));
            server.close();
            server.wait_closed().await?;
            Ok(())
        }
    })
}

#[test]
fn plain_text_goes_to_a_buffer_piece_by_piece_and_with_its_size() -> Outcome {
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let small = || Small::new(4);
            let (server, transport, client) = connected(&event_loop, small, of_server, of_client).await?;
            transport.write(b"0123456789")?;
            until(&event_loop, || *client.received.borrow() == b"0123456789").await?;
            assert_eq!(*client.hints.borrow(), [Some(10), Some(6), Some(2)]);
            transport.close();
            server.close();
            Ok(server.wait_closed().await?)
        }
    })
}

#[test]
fn a_blocking_client_is_served_and_hears_the_goodbye() -> Outcome {
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let server = event_loop
                .create_tls_server(|| Rc::new(Echo), "127.0.0.1", 0, of_server)
                .await?;
            let address = server.addresses()[0];
            let client = event_loop.run_in_executor(move || -> std::io::Result<Vec<u8>> {
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                let tls = ClientConnection::new(of_client, name).map_err(std::io::Error::other)?;
                let mut stream = StreamOwned::new(tls, TcpStream::connect(address)?);
                stream.write_all(b"hello")?;
                stream.conn.send_close_notify();
                stream.flush()?;
                let mut received = Vec::new();
                // An end without a goodbye would be an error.
                stream.read_to_end(&mut received)?;
                Ok(received)
            })?;
            assert_eq!(client.await??, b"hello");
            server.close();
            server.wait_closed().await?;
            Ok(())
        }
    })
}

#[test]
fn a_server_that_is_not_trusted_is_refused() -> Outcome {
    let (of_server, _) = configs()?;
    let (_, of_others) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_others) = (of_server.clone(), of_others.clone());
        async move {
            let served = noting();
            let serving = Rc::clone(&served);
            let server = event_loop
                .create_tls_server(move || Rc::clone(&serving), "localhost", 0, of_server)
                .await?;
            let port = server.addresses()[0].port();
            let refused = event_loop
                .create_tls_connection(noting, "localhost", port, of_others)
                .await;
            assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidData));
            server.close();
            server.wait_closed().await?;
            assert!(!served.made.get() && !served.is_lost());
            Ok(())
        }
    })
}

#[test]
fn an_end_within_the_handshake_is_an_error() -> Outcome {
    let (_, of_client) = configs()?;
    on_each(|event_loop| {
        let of_client = of_client.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            let peer = thread::spawn(move || -> std::io::Result<()> {
                let (mut stream, _) = listener.accept()?;
                // Its hello is read, so that the end is no reset.
                let mut hello = [0; 1024];
                stream.read(&mut hello).map(drop)
            });
            let refused = event_loop
                .create_tls_connection(noting, "127.0.0.1", port, of_client)
                .await;
            assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::ConnectionReset));
            peer.join().expect("it does not panic")?;
            Ok(())
        }
    })
}

#[test]
fn a_cancelled_handshake_closes_its_connection() -> Outcome {
    let (_, of_client) = configs()?;
    on_each(|event_loop| {
        let of_client = of_client.clone();
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            let connecting = event_loop.clone();
            let protocol = noting();
            let alive = Rc::downgrade(&protocol);
            let task = event_loop.create_task(async move {
                connecting
                    .create_tls_connection(|| protocol, "127.0.0.1", port, of_client)
                    .await
                    .map(drop)
            })?;
            let accepting = event_loop.run_in_executor(move || {
                let (mut stream, _) = listener.accept()?;
                let mut hello = [0; 1];
                stream.read_exact(&mut hello).map(|()| stream)
            })?;
            let mut stream = accepting.await??;
            task.cancel();
            for _ in 0..4 {
                turn(&event_loop).await?;
            }
            assert!(alive.upgrade().is_none());
            let rest = event_loop.run_in_executor(move || {
                let mut rest = Vec::new();
                // The end, or a reset: bytes that nobody reads were under way.
                drop(stream.read_to_end(&mut rest));
            })?;
            rest.await?;
            Ok(())
        }
    })
}

/// Pauses after each piece, and goes on when it is told.
#[derive(Default)]
struct Pausing {
    received: RefCell<Vec<u8>>,
    pieces: Cell<usize>,
    ended: Cell<bool>,
}

impl Protocol for Pausing {
    fn data_received(&self, transport: &Transport, data: &[u8]) {
        assert!(!self.ended.get());
        self.received.borrow_mut().extend_from_slice(data);
        self.pieces.set(self.pieces.get() + 1);
        transport.pause_reading();
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.ended.set(true);
        false
    }
}

#[test]
fn a_paused_connection_is_told_nothing_until_it_goes_on() -> Outcome {
    const SIZE: usize = 1 << 20;
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            let peer = thread::spawn(move || -> std::io::Result<()> {
                let tls = ServerConnection::new(of_server).map_err(std::io::Error::other)?;
                let (stream, _) = listener.accept()?;
                let mut stream = StreamOwned::new(tls, stream);
                stream.write_all(&pattern(SIZE))?;
                stream.conn.send_close_notify();
                stream.flush()?;
                stream.read_to_end(&mut Vec::new()).map(drop)
            });
            let connecting =
                event_loop.create_tls_connection(Rc::<Pausing>::default, "localhost", port, of_client);
            let (transport, heard) = connecting.await?;
            let mut pieces = 0;
            while !heard.ended.get() {
                until(&event_loop, || heard.pieces.get() > pieces || heard.ended.get()).await?;
                turn(&event_loop).await?;
                assert!(heard.pieces.get() <= pieces + 1);
                pieces = heard.pieces.get();
                transport.resume_reading();
            }
            assert!(pieces > 1 && *heard.received.borrow() == pattern(SIZE));
            peer.join().expect("it does not panic")?;
            Ok(())
        }
    })
}

#[test]
fn a_connection_goes_over_to_tls() -> Outcome {
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let (near, far) = std::os::unix::net::UnixStream::pair()?;
            let (near, _) = event_loop.create_connection_with_sock(noting, near).await?;
            let (far, _) = event_loop.create_connection_with_sock(noting, far).await?;
            let serving = event_loop.clone();
            let serving = event_loop
                .create_task(async move { serving.start_tls_server(&far, Rc::new(Echo), of_server).await })?;
            let client = noting();
            let near = event_loop
                .start_tls_client(&near, client.clone(), of_client, "localhost")
                .await?;
            let far = serving.await??;
            assert!(!client.made.get());
            near.write(b"hello")?;
            near.write_eof();
            assert!(matches!(near.write(b"x"), Err(Error::EndWritten)));
            until(&event_loop, || client.is_lost()).await?;
            assert_eq!(*client.received.borrow(), b"hello");
            assert!(far.is_closing());
            Ok(())
        }
    })
}

#[test]
fn a_file_is_sent_encrypted() -> Outcome {
    const SIZE: usize = 3 << 20;
    let (of_server, of_client) = configs()?;
    on_each(|event_loop| {
        let (of_server, of_client) = (of_server.clone(), of_client.clone());
        async move {
            let (server, transport, client) = connected(&event_loop, noting, of_server, of_client).await?;
            let file = file_of(&pattern(SIZE))?;
            assert_eq!(
                event_loop.sendfile(&transport, &file, 5, None).await?,
                SIZE as u64 - 5
            );
            until(&event_loop, || client.received.borrow().len() == SIZE - 5).await?;
            assert!(*client.received.borrow() == pattern(SIZE)[5..]);
            transport.close();
            let refused = event_loop.sendfile(&transport, &file, 0, None).await;
            assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::NotConnected));
            server.close();
            server.wait_closed().await?;
            Ok(())
        }
    })
}
