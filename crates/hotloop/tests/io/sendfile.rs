//! Files over connections.

use std::io::{ErrorKind, Read, Seek};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use hotloop::asyncio::{Error, Transport};

use crate::{Outcome, file_of, noting, on_each, pattern, until};

/// Whether it failed so.
fn failed<T>(result: &Result<T, Error>, kind: ErrorKind) -> bool {
    matches!(result, Err(Error::Io(error)) if error.kind() == kind)
}

#[test]
fn a_file_follows_what_was_written_and_is_followed() -> Outcome {
    on_each(|event_loop| async move {
        let accepted = noting();
        let accepting = Rc::clone(&accepted);
        let factory = move || Rc::clone(&accepting);
        let server = event_loop.create_server(factory, "127.0.0.1", 0).await?;
        let port = server.addresses()[0].port();
        let (transport, _) = event_loop.create_connection(noting, "127.0.0.1", port).await?;
        // More than fits anywhere, before it and in it.
        let bytes = pattern(6 << 20);
        let mut file = file_of(&bytes)?;
        transport.write(&bytes)?;
        let sent = event_loop.sendfile(&transport, &file, 7, Some(5 << 20)).await?;
        assert_eq!((sent, file.stream_position()?), (5 << 20, (5 << 20) + 7));
        assert!(transport.is_reading());
        transport.write(b"the end")?;
        let expected = [&bytes[..], &bytes[7..][..5 << 20], b"the end"].concat();
        until(&event_loop, || accepted.received.borrow().len() >= expected.len()).await?;
        assert!(*accepted.received.borrow() == expected);
        transport.close();
        server.close();
        server.wait_closed().await?;
        Ok(())
    })
}

#[test]
fn a_file_that_ends_before_its_count_is_sent_as_far_as_it_goes() -> Outcome {
    on_each(|event_loop| async move {
        let (near, mut far) = UnixStream::pair()?;
        let (transport, _) = event_loop.create_connection_with_sock(noting, near).await?;
        let file = file_of(b"0123456789")?;
        assert_eq!(event_loop.sendfile(&transport, &file, 4, Some(100)).await?, 6);
        assert_eq!(event_loop.sendfile(&transport, &file, 10, None).await?, 0);
        assert_eq!(event_loop.sendfile(&transport, &file, 0, Some(0)).await?, 0);
        transport.close();
        let mut received = String::new();
        until(&event_loop, || transport.fileno().is_none()).await?;
        far.read_to_string(&mut received)?;
        assert_eq!(received, "456789");
        Ok(())
    })
}

/// Fills a connection so that what is sent next waits.
fn fill(transport: &Transport) -> Result<(), Error> {
    while transport.get_write_buffer_size() == 0 {
        transport.write(&pattern(1 << 16))?;
    }
    Ok(())
}

#[test]
fn nothing_comes_between_and_a_file_that_is_given_up_is_forgotten() -> Outcome {
    on_each(|event_loop| async move {
        let (near, far) = UnixStream::pair()?;
        let (transport, _) = event_loop.create_connection_with_sock(noting, near).await?;
        fill(&transport)?;
        let (file, other) = (file_of(&pattern(1 << 20))?, file_of(b"another")?);
        let (sending, sender) = (transport.clone(), event_loop.clone());
        let task = event_loop.create_task(async move { sender.sendfile(&sending, &file, 0, None).await })?;
        until(&event_loop, || transport.write(b"").is_err()).await?;
        assert!(failed(&transport.write(b"between"), ErrorKind::ResourceBusy));
        let refused = event_loop.sendfile(&transport, &other, 0, None).await;
        assert!(failed(&refused, ErrorKind::ResourceBusy));
        task.cancel();
        assert!(matches!(task.await, Err(Error::Cancelled)));
        assert!(transport.is_reading());
        transport.write(b"goes on")?;
        drop(far);
        Ok(())
    })
}

#[test]
fn a_connection_that_is_lost_ends_what_is_sent() -> Outcome {
    on_each(|event_loop| async move {
        for filled in [true, false] {
            let (near, _far) = UnixStream::pair()?;
            let (transport, client) = event_loop.create_connection_with_sock(noting, near).await?;
            if filled {
                fill(&transport)?;
            }
            let file = file_of(&pattern(1 << 22))?;
            let (sending, sender) = (transport.clone(), event_loop.clone());
            let task =
                event_loop.create_task(async move { sender.sendfile(&sending, &file, 0, None).await })?;
            until(&event_loop, || transport.write(b"").is_err()).await?;
            transport.abort();
            assert!(failed(&task.await?, ErrorKind::ConnectionAborted));
            until(&event_loop, || client.is_lost()).await?;
            let refused = event_loop.sendfile(&transport, &file_of(b"")?, 0, None).await;
            assert!(failed(&refused, ErrorKind::NotConnected));
        }
        Ok(())
    })
}

#[test]
fn a_pipe_takes_no_file() -> Outcome {
    on_each(|event_loop| async move {
        let (_reader, writer) = std::io::pipe()?;
        let (transport, _) = event_loop.connect_write_pipe(noting, writer).await?;
        let refused = event_loop.sendfile(&transport, &file_of(b"")?, 0, None).await;
        assert!(failed(&refused, ErrorKind::Unsupported));
        transport.close();
        Ok(())
    })
}
