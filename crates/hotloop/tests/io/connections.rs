//! Connections and servers beyond TCP by name.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;

use hotloop::asyncio::{Error, SocketAddress};

use crate::{Echo, Outcome, fresh_path, noting, on_each, pattern, turn, until};

#[test]
fn a_unix_server_serves_and_removes_its_path() -> Outcome {
    on_each(|event_loop| async move {
        let path = fresh_path();
        // What a process left that did not clean up is replaced.
        drop(UnixListener::bind(&path)?);
        let server = event_loop.create_unix_server(|| Rc::new(Echo), &path).await?;
        let (transport, client) = event_loop.create_unix_connection(noting, &path).await?;
        assert!(client.made.get());
        assert_eq!(transport.peer(), Some(&SocketAddress::from(path.as_path())));
        let sent = pattern(1 << 20);
        transport.write(&sent)?;
        until(&event_loop, || client.received.borrow().len() == sent.len()).await?;
        assert!(*client.received.borrow() == sent);
        transport.close();
        server.close();
        assert!(!path.exists());
        server.wait_closed().await?;
        until(&event_loop, || client.is_lost()).await?;
        Ok(())
    })
}

#[test]
fn a_path_that_is_anothers_by_then_stays() -> Outcome {
    on_each(|event_loop| async move {
        let path = fresh_path();
        let server = event_loop.create_unix_server(noting, &path).await?;
        std::fs::remove_file(&path)?;
        let other = UnixListener::bind(&path)?;
        server.close();
        assert!(path.exists());
        drop(other);
        std::fs::remove_file(&path)?;
        Ok(())
    })
}

#[test]
fn what_is_no_socket_is_not_replaced() -> Outcome {
    on_each(|event_loop| async move {
        let path = fresh_path();
        std::fs::write(&path, b"a file")?;
        let refused = event_loop.create_unix_server(noting, &path).await;
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::AddrInUse));
        assert_eq!(std::fs::read(&path)?, b"a file");
        std::fs::remove_file(&path)?;
        Ok(())
    })
}

#[cfg(linux)]
#[test]
fn an_abstract_name_is_no_path() -> Outcome {
    on_each(|event_loop| async move {
        let name = format!("\0{}", fresh_path().display());
        let server = event_loop.create_unix_server(|| Rc::new(Echo), &name).await?;
        let (transport, client) = event_loop.create_unix_connection(noting, &name).await?;
        transport.write(b"hello")?;
        until(&event_loop, || *client.received.borrow() == b"hello").await?;
        transport.close();
        server.close();
        server.wait_closed().await?;
        Ok(())
    })
}

#[test]
fn sockets_of_the_program_are_served_and_connected() -> Outcome {
    on_each(|event_loop| async move {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = event_loop.create_server_with_sock(|| Rc::new(Echo), listener)?;
        let socket = std::net::TcpStream::connect(address)?;
        let (transport, client) = event_loop.create_connection_with_sock(noting, socket).await?;
        transport.write(b"hello")?;
        until(&event_loop, || *client.received.borrow() == b"hello").await?;
        transport.abort();
        server.close();
        server.wait_closed().await?;
        assert!(client.is_lost());
        Ok(())
    })
}

#[test]
fn lines_are_sent_as_one_in_the_order_of_the_writes() -> Outcome {
    on_each(|event_loop| async move {
        let path = fresh_path();
        let server = event_loop.create_unix_server(|| Rc::new(Echo), &path).await?;
        let (transport, client) = event_loop.create_unix_connection(noting, &path).await?;
        // More lines than a call of the kernel takes, and more bytes than a connection holds.
        let sent = pattern(4 << 20);
        let (before, lines) = sent.split_at(10);
        transport.write(before)?;
        transport.writelines(lines.chunks(30_000).map(<[u8]>::to_vec))?;
        assert!(client.paused.get());
        transport.write(b"behind")?;
        transport.writelines([b"".to_vec(), b"the ".to_vec(), b"".to_vec(), b"end".to_vec()])?;
        until(&event_loop, || client.received.borrow().ends_with(b"the end")).await?;
        assert!(*client.received.borrow() == [&sent[..], b"behindthe end"].concat());
        assert!(!client.paused.get());
        server.close();
        transport.close();
        server.wait_closed().await?;
        Ok(())
    })
}

#[test]
fn lines_behind_the_end_are_refused_and_to_a_lost_connection_dropped() -> Outcome {
    on_each(|event_loop| async move {
        let (near, mut far) = UnixStream::pair()?;
        let (transport, told) = event_loop.create_connection_with_sock(noting, near).await?;
        transport.writelines([])?;
        transport.writelines([b"all".to_vec()])?;
        assert!(transport.can_write_eof());
        transport.write_eof();
        let refused = transport.writelines([b"more".to_vec(), b"lines".to_vec()]);
        assert!(matches!(refused, Err(Error::EndWritten)));
        transport.abort();
        until(&event_loop, || told.is_lost()).await?;
        transport.writelines([b"dropped".to_vec()])?;
        let mut received = Vec::new();
        far.read_to_end(&mut received)?;
        assert_eq!(received, b"all");
        Ok(())
    })
}

#[test]
fn a_protocol_that_has_its_transport_goes_with_the_loop() -> Outcome {
    struct Keeping(std::cell::RefCell<Option<hotloop::asyncio::Transport>>);
    impl hotloop::asyncio::Protocol for Keeping {
        fn connection_made(&self, transport: &hotloop::asyncio::Transport) {
            *self.0.borrow_mut() = Some(transport.clone());
        }
        fn data_received(&self, _: &hotloop::asyncio::Transport, _: &[u8]) {}
    }
    let event_loop = hotloop::asyncio::SelectorEventLoop::new()?;
    let (near, _far) = UnixStream::pair()?;
    let opening = event_loop.clone();
    let protocol = event_loop.run_until_complete(async move {
        let keeping = || Rc::new(Keeping(Default::default()));
        let (_, protocol) = opening.create_connection_with_sock(keeping, near).await?;
        // Reading has begun one turn later.
        turn(&opening).await?;
        Ok::<_, Error>(Rc::downgrade(&protocol))
    })??;
    assert!(protocol.upgrade().is_some());
    event_loop.close()?;
    assert!(protocol.upgrade().is_none());
    Ok(())
}

#[test]
fn a_connection_that_nobody_waits_for_any_more_is_closed() -> Outcome {
    on_each(|event_loop| async move {
        let (near, mut far) = UnixStream::pair()?;
        let protocol = noting();
        let told = Rc::clone(&protocol);
        let connecting = event_loop.clone();
        let task = event_loop.create_task(async move {
            let connected = connecting.create_connection_with_sock(|| protocol, near);
            connected.await.map(drop)
        })?;
        turn(&event_loop).await?;
        task.cancel();
        until(&event_loop, || told.is_lost()).await?;
        assert!(task.is_cancelled());
        turn(&event_loop).await?;
        assert_eq!(std::io::Read::read(&mut far, &mut [0])?, 0);
        Ok(())
    })
}

#[test]
fn a_server_closes_and_ends_its_connections() -> Outcome {
    on_each(|event_loop| async move {
        let server = event_loop.create_server(noting, "127.0.0.1", 0).await?;
        let port = server.addresses()[0].port();
        let (_kept, closed) = event_loop.create_connection(noting, "127.0.0.1", port).await?;
        let (_kept_too, aborted) = event_loop.create_connection(noting, "127.0.0.1", port).await?;
        while {
            server.close_clients();
            !(closed.is_lost() && aborted.is_lost())
        } {
            turn(&event_loop).await?;
        }
        assert!(closed.ended.get() && aborted.ended.get() && server.is_serving());
        let (_kept, aborted) = event_loop.create_connection(noting, "127.0.0.1", port).await?;
        // Accepted, not only connected.
        while {
            server.abort_clients();
            !aborted.is_lost()
        } {
            turn(&event_loop).await?;
        }
        server.close();
        server.wait_closed().await?;
        Ok(())
    })
}

#[test]
fn a_server_that_is_served_no_longer_is_closed() -> Outcome {
    on_each(|event_loop| async move {
        let server = event_loop.create_server(noting, "127.0.0.1", 0).await?;
        let serving = server.clone();
        let task = event_loop.create_task(async move { serving.serve_forever().await })?;
        turn(&event_loop).await?;
        assert!(server.is_serving());
        task.cancel();
        assert!(matches!(task.await, Err(Error::Cancelled)));
        assert!(!server.is_serving());
        let server = event_loop.create_server(noting, "127.0.0.1", 0).await?;
        let serving = server.clone();
        let task = event_loop.create_task(async move { serving.serve_forever().await })?;
        server.close();
        task.await??;
        Ok(())
    })
}
