//! Datagram endpoints.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;

use hotloop::asyncio::{DatagramProtocol, DatagramTransport, Error, SocketAddress};

use crate::{Outcome, fresh_path, on_each, pattern, turn, until};

/// Keeps what it is told.
#[derive(Default)]
struct Noting {
    received: RefCell<Vec<(Vec<u8>, SocketAddress)>>,
    errors: RefCell<Vec<ErrorKind>>,
    pauses: Cell<u32>,
    resumes: Cell<u32>,
    lost: Cell<bool>,
    /// Pause it after this many datagrams.
    enough: Cell<usize>,
}

impl DatagramProtocol for Noting {
    fn datagram_received(&self, transport: &DatagramTransport, data: &[u8], from: &SocketAddress) {
        self.received.borrow_mut().push((data.to_vec(), from.clone()));
        if self.received.borrow().len() == self.enough.get() {
            transport.pause_reading();
        }
    }

    fn error_received(&self, _: &DatagramTransport, error: std::io::Error) {
        self.errors.borrow_mut().push(error.kind());
    }

    fn connection_lost(&self, _: &DatagramTransport, error: Option<std::io::Error>) {
        assert!(error.is_none());
        self.lost.set(true);
    }

    fn pause_writing(&self, _: &DatagramTransport) {
        self.pauses.set(self.pauses.get() + 1);
    }

    fn resume_writing(&self, _: &DatagramTransport) {
        self.resumes.set(self.resumes.get() + 1);
    }
}

fn any() -> SocketAddress {
    SocketAddr::from(([127, 0, 0, 1], 0)).into()
}

fn count(protocol: &Noting) -> usize {
    protocol.received.borrow().len()
}

#[test]
fn datagrams_keep_their_order_their_bounds_and_their_sender() -> Outcome {
    on_each(|event_loop| async move {
        let (server, heard) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, Some(any()), None)
            .await?;
        let (client, _) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, None, server.local_address())
            .await?;
        assert_eq!(client.peer(), server.local_address().as_ref());
        for size in 0..40 {
            client.sendto(&pattern(size), None)?;
        }
        until(&event_loop, || count(&heard) == 40).await?;
        let from = client.local_address().ok_or("it is open")?;
        for (size, datagram) in heard.received.borrow().iter().enumerate() {
            assert_eq!(datagram, &(pattern(size), from.clone()));
        }
        let elsewhere = client.sendto(b"x", Some(&any()));
        assert!(matches!(elsewhere, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        server.sendto(b"back", Some(&from))?;
        client.close();
        server.close();
        assert!(server.is_closing());
        until(&event_loop, || heard.lost.get()).await?;
        assert!(server.fileno().is_none());
        server.sendto(b"late", None)?;
        Ok(())
    })
}

/// Notes datagrams, and what it schedules when one comes in.
#[derive(Default)]
struct Scheduling(Rc<RefCell<Vec<u8>>>);

impl DatagramProtocol for Scheduling {
    fn datagram_received(&self, transport: &DatagramTransport, data: &[u8], _: &SocketAddress) {
        self.0.borrow_mut().push(data[0]);
        let (noted, later) = (Rc::clone(&self.0), data[0] + 10);
        let soon = transport
            .event_loop()
            .call_soon(move || noted.borrow_mut().push(later));
        soon.expect("the loop is open");
    }
}

#[test]
fn what_one_datagram_schedules_runs_before_the_next_one_is_told() -> Outcome {
    on_each(|event_loop| async move {
        let (server, heard) = event_loop
            .create_datagram_endpoint(Rc::<Scheduling>::default, Some(any()), None)
            .await?;
        let (client, _) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, None, server.local_address())
            .await?;
        for byte in 0..4 {
            client.sendto(&[byte], None)?;
        }
        until(&event_loop, || heard.0.borrow().len() == 8).await?;
        assert_eq!(*heard.0.borrow(), [0, 10, 1, 11, 2, 12, 3, 13]);
        client.close();
        server.close();
        Ok(())
    })
}

#[test]
fn a_paused_endpoint_keeps_what_it_has_for_later() -> Outcome {
    on_each(|event_loop| async move {
        let (server, heard) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, Some(any()), None)
            .await?;
        let Some(SocketAddress::Internet(address)) = server.local_address() else {
            return Err("it has an address".into());
        };
        let client = UdpSocket::bind("127.0.0.1:0")?;
        heard.enough.set(3);
        for byte in 0..9 {
            client.send_to(&[byte], address)?;
        }
        until(&event_loop, || count(&heard) == 3).await?;
        turn(&event_loop).await?;
        turn(&event_loop).await?;
        assert_eq!(count(&heard), 3);
        server.resume_reading();
        until(&event_loop, || count(&heard) == 9).await?;
        let order = heard
            .received
            .borrow()
            .iter()
            .map(|(bytes, _)| bytes[0])
            .collect::<Vec<_>>();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
        server.abort();
        until(&event_loop, || heard.lost.get()).await?;
        Ok(())
    })
}

#[test]
fn a_refused_datagram_is_an_error_and_no_end() -> Outcome {
    on_each(|event_loop| async move {
        let gone = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let (client, told) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, None, Some(gone.into()))
            .await?;
        client.sendto(b"x", None)?;
        until(&event_loop, || !told.errors.borrow().is_empty()).await?;
        assert_eq!(*told.errors.borrow(), [ErrorKind::ConnectionRefused]);
        assert!(!client.is_closing());
        client.close();
        until(&event_loop, || told.lost.get()).await?;
        Ok(())
    })
}

#[test]
fn unix_datagrams_wait_for_room() -> Outcome {
    on_each(|event_loop| async move {
        let path = fresh_path();
        let far = UnixDatagram::bind(&path)?;
        let (near, told) = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, None, Some(path.as_path().into()))
            .await?;
        let big = pattern(64 * 1024);
        let mut sent = 0;
        while told.pauses.get() == 0 {
            near.sendto(&big, None)?;
            sent += 1;
        }
        assert!(near.get_write_buffer_size() > near.peer().map_or(0, |_| 64 * 1024));
        near.close();
        let reading = event_loop.run_in_executor(move || -> std::io::Result<bool> {
            let mut buffer = vec![0; 128 * 1024];
            let mut same = true;
            for _ in 0..sent {
                let count = far.recv(&mut buffer)?;
                same &= buffer[..count] == pattern(64 * 1024);
            }
            Ok(same)
        })?;
        assert!(reading.await??);
        until(&event_loop, || told.lost.get()).await?;
        assert_eq!((told.pauses.get(), told.resumes.get()), (1, 1));
        std::fs::remove_file(&path)?;
        Ok(())
    })
}

#[test]
fn an_endpoint_needs_an_address() -> Outcome {
    on_each(|event_loop| async move {
        let refused = event_loop
            .create_datagram_endpoint(Rc::<Noting>::default, None, None)
            .await;
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput));
        Ok(())
    })
}
