//! `sock_*`, and watchers beside transports.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;

use hotloop::asyncio::Error;

use crate::{Outcome, file_of, noting, on_each, pattern, turn};

fn pair() -> std::io::Result<(UnixStream, UnixStream)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    Ok((near, far))
}

#[test]
fn a_receive_waits_for_bytes_and_for_the_end() -> Outcome {
    on_each(|event_loop| async move {
        let (near, far) = pair()?;
        let receiving = event_loop.clone();
        let received = event_loop.create_task(async move {
            let bytes = receiving.sock_recv(&far, 3).await?;
            let mut rest = [0; 8];
            let count = receiving.sock_recv_into(&far, &mut rest).await?;
            let end = receiving.sock_recv(&far, 1).await?;
            Ok::<_, Error>((bytes, rest[..count].to_vec(), end))
        })?;
        turn(&event_loop).await?;
        assert!(!received.is_done());
        event_loop.sock_sendall(&near, b"hello").await?;
        turn(&event_loop).await?;
        drop(near);
        assert_eq!(received.await??, (b"hel".to_vec(), b"lo".to_vec(), Vec::new()));
        Ok(())
    })
}

#[test]
fn all_is_sent_that_does_not_fit_at_once() -> Outcome {
    const SIZE: usize = 4 << 20;
    on_each(|event_loop| async move {
        let (near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            far.read_to_end(&mut received).map(|_| received)
        });
        event_loop.sock_sendall(&near, &pattern(SIZE)).await?;
        drop(near);
        assert!(reader.join().expect("it does not panic")? == pattern(SIZE));
        Ok(())
    })
}

#[test]
fn a_file_is_sent_from_where_one_says_and_its_position_is_behind_that() -> Outcome {
    const SIZE: usize = 2 << 20;
    on_each(|event_loop| async move {
        let mut file = file_of(&pattern(SIZE))?;
        let (near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            far.read_to_end(&mut received).map(|_| received)
        });
        assert_eq!(event_loop.sock_sendfile(&near, &file, 100, Some(5)).await?, 5);
        assert_eq!(file.stream_position()?, 105);
        let rest = event_loop.sock_sendfile(&near, &file, 105, None).await?;
        assert_eq!(rest, SIZE as u64 - 105);
        assert_eq!(file.stream_position()?, SIZE as u64);
        assert_eq!(event_loop.sock_sendfile(&near, &file, 0, Some(0)).await?, 0);
        assert_eq!(
            event_loop.sock_sendfile(&near, &file, SIZE as u64, None).await?,
            0
        );
        drop(near);
        assert!(reader.join().expect("it does not panic")? == pattern(SIZE)[100..]);
        Ok(())
    })
}

#[test]
fn what_is_no_file_is_not_sent() -> Outcome {
    on_each(|event_loop| async move {
        let (near, _far) = pair()?;
        let (reader, _writer) = std::io::pipe()?;
        let pipe = File::from(std::os::fd::OwnedFd::from(reader));
        let sent = event_loop.sock_sendfile(&near, &pipe, 0, None).await;
        assert!(matches!(sent, Err(Error::Io(_))));
        let sent = event_loop.sock_sendfile(&near, &pipe, u64::MAX, None).await;
        assert!(matches!(sent, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        Ok(())
    })
}

#[test]
fn sockets_connect_and_are_accepted() -> Outcome {
    on_each(|event_loop| async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let accepting = event_loop.clone();
        let accepted = event_loop.create_task(async move { accepting.sock_accept(&listener).await })?;
        turn(&event_loop).await?;
        let (inet, stream) = (rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM);
        let client = rustix::net::socket(inet, stream, None)?;
        rustix::io::ioctl_fionbio(&client, true)?;
        event_loop.sock_connect(&client, &address.into()).await?;
        let (server, peer) = accepted.await??;
        assert_eq!(
            peer,
            std::net::TcpStream::from(client.try_clone()?)
                .local_addr()?
                .into()
        );
        event_loop.sock_sendall(&server, b"x").await?;
        assert_eq!(event_loop.sock_recv(&client, 9).await?, b"x");
        Ok(())
    })
}

#[test]
fn a_datagram_comes_with_its_sender() -> Outcome {
    on_each(|event_loop| async move {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        let to = other.local_addr()?.into();
        assert_eq!(event_loop.sock_sendto(&one, b"", &to).await?, 0);
        assert_eq!(event_loop.sock_sendto(&one, b"hello", &to).await?, 5);
        let empty = event_loop.sock_recvfrom(&other, 9).await?;
        assert_eq!(empty, (Vec::new(), one.local_addr()?.into()));
        let mut buffer = [0; 3];
        let (count, _) = event_loop.sock_recvfrom_into(&other, &mut buffer).await?;
        assert_eq!((count, &buffer), (3, b"hel"));
        Ok(())
    })
}

#[test]
fn a_cancelled_receive_watches_no_longer() -> Outcome {
    on_each(|event_loop| async move {
        let (near, far) = pair()?;
        let fd = far.as_raw_fd();
        let receiving = event_loop.clone();
        let task = event_loop.create_task(async move { receiving.sock_recv(&far, 1).await.map(|_| far) })?;
        turn(&event_loop).await?;
        task.cancel();
        turn(&event_loop).await?;
        assert!(task.is_cancelled());
        assert!(!event_loop.remove_reader(fd));
        drop(near);
        Ok(())
    })
}

#[test]
fn a_receive_that_is_replaced_leaves_its_follower_alone() -> Outcome {
    on_each(|event_loop| async move {
        let (near, far) = pair()?;
        let far = std::rc::Rc::new(far);
        let receive = || {
            let (receiving, far) = (event_loop.clone(), far.clone());
            event_loop.create_task(async move { receiving.sock_recv(&*far, 9).await })
        };
        let first = receive()?;
        turn(&event_loop).await?;
        let second = receive()?;
        turn(&event_loop).await?;
        first.cancel();
        turn(&event_loop).await?;
        event_loop.sock_sendall(&near, b"x").await?;
        assert_eq!(second.await??, b"x");
        assert!(first.is_cancelled());
        Ok(())
    })
}

#[test]
fn what_a_transport_has_is_refused() -> Outcome {
    on_each(|event_loop| async move {
        let (near, far) = pair()?;
        let (transport, _) = event_loop
            .create_connection_with_sock(noting, near.try_clone()?)
            .await?;
        let fd = transport.fileno().ok_or("it is open")?;
        let refused = event_loop.add_reader(fd, || {});
        assert!(matches!(refused, Err(Error::UsedByTransport(used)) if used == fd));
        assert!(matches!(
            event_loop.add_writer(fd, || {}),
            Err(Error::UsedByTransport(_))
        ));
        transport.abort();
        turn(&event_loop).await?;
        assert!(transport.fileno().is_none());
        drop(far);
        Ok(())
    })
}

#[test]
fn debug_mode_refuses_a_socket_that_blocks() -> Outcome {
    on_each(|event_loop| async move {
        let (near, _far) = UnixStream::pair()?;
        event_loop.set_debug(true);
        let refused = event_loop.sock_recv(&near, 1).await;
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        Ok(())
    })
}
