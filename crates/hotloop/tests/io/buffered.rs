//! Protocols with buffers of their own.

use std::cell::{Cell, RefCell, RefMut};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use hotloop::asyncio::{BaseEventLoop, Buffered, BufferedProtocol, Transport};

use crate::{Echo, Outcome, on_each, pattern, until};

/// Receives into a buffer of so many bytes, and keeps what came.
pub(crate) struct Small {
    buffer: RefCell<Vec<u8>>,
    pub(crate) received: RefCell<Vec<u8>>,
    pub(crate) hints: RefCell<Vec<Option<usize>>>,
    ended: Cell<bool>,
    lost: Cell<bool>,
}

impl Small {
    pub(crate) fn new(size: usize) -> Rc<Buffered<Self>> {
        Rc::new(Buffered(Self {
            buffer: RefCell::new(vec![0; size]),
            received: RefCell::default(),
            hints: RefCell::default(),
            ended: Cell::new(false),
            lost: Cell::new(false),
        }))
    }
}

impl BufferedProtocol for Small {
    fn get_buffer(&self, _: &Transport, size_hint: Option<usize>) -> RefMut<'_, [u8]> {
        self.hints.borrow_mut().push(size_hint);
        RefMut::map(self.buffer.borrow_mut(), Vec::as_mut_slice)
    }

    fn buffer_updated(&self, _: &Transport, count: usize) {
        let buffer = self.buffer.borrow();
        self.received.borrow_mut().extend_from_slice(&buffer[..count]);
    }

    fn eof_received(&self, _: &Transport) -> bool {
        self.ended.set(true);
        false
    }

    fn connection_lost(&self, _: &Transport, error: Option<std::io::Error>) {
        assert!(error.is_none());
        self.lost.set(true);
    }
}

/// Keeps the reports of a loop.
fn reports(event_loop: &BaseEventLoop) -> Rc<RefCell<Vec<String>>> {
    let kept: Rc<RefCell<Vec<String>>> = Rc::default();
    let keeping = Rc::clone(&kept);
    event_loop.set_exception_handler(Some(Rc::new(move |_, report| {
        let panic = report.panic.as_ref().map_or("", |panic| panic.message());
        keeping.borrow_mut().push(format!("{} {panic}", report.message));
    })));
    kept
}

#[test]
fn bytes_come_to_the_buffer_in_their_order_and_the_end_behind_them() -> Outcome {
    on_each(|event_loop| async move {
        let server = event_loop.create_server(|| Rc::new(Echo), "127.0.0.1", 0).await?;
        let port = server.addresses()[0].port();
        let connecting = event_loop.create_connection(|| Small::new(1000), "127.0.0.1", port);
        let (transport, client) = connecting.await?;
        let sent = pattern(100_000);
        transport.write(&sent)?;
        transport.write_eof();
        until(&event_loop, || client.lost.get()).await?;
        assert!(*client.received.borrow() == sent);
        assert!(client.ended.get());
        assert!(client.hints.borrow().iter().all(Option::is_none));
        server.close();
        Ok(server.wait_closed().await?)
    })
}

#[test]
fn a_server_makes_them_for_its_connections_too() -> Outcome {
    on_each(|event_loop| async move {
        let made: Rc<RefCell<Vec<Rc<Buffered<Small>>>>> = Rc::default();
        let making = Rc::clone(&made);
        let factory = move || {
            let protocol = Small::new(7);
            making.borrow_mut().push(Rc::clone(&protocol));
            protocol
        };
        let server = event_loop.create_server(factory, "127.0.0.1", 0).await?;
        let port = server.addresses()[0].port();
        let connecting = event_loop.create_connection(|| Small::new(1), "127.0.0.1", port);
        let (transport, _) = connecting.await?;
        transport.write(b"more than seven")?;
        transport.close();
        server.close();
        server.wait_closed().await?;
        assert_eq!(*made.borrow()[0].received.borrow(), b"more than seven");
        Ok(())
    })
}

#[test]
fn an_empty_buffer_ends_the_connection_and_is_reported() -> Outcome {
    on_each(|event_loop| async move {
        let kept = reports(&event_loop);
        let (near, mut far) = UnixStream::pair()?;
        let connecting = event_loop.create_connection_with_sock(|| Small::new(0), near);
        let (transport, protocol) = connecting.await?;
        far.write_all(b"hello")?;
        until(&event_loop, || protocol.lost.get()).await?;
        assert!(transport.is_closing() && protocol.received.borrow().is_empty());
        let expected =
            "Fatal error: protocol.get_buffer() call failed. get_buffer() returned an empty buffer";
        assert_eq!(*kept.borrow(), [expected]);
        event_loop.set_exception_handler(None);
        Ok(())
    })
}

#[test]
fn another_protocol_may_take_its_place_while_it_is_told() -> Outcome {
    struct Handing(RefCell<[u8; 4]>, Rc<Buffered<Small>>);
    impl BufferedProtocol for Handing {
        fn get_buffer(&self, _: &Transport, _: Option<usize>) -> RefMut<'_, [u8]> {
            self.0.borrow_mut()
        }
        fn buffer_updated(&self, transport: &Transport, count: usize) {
            assert_eq!(&self.0.borrow()[..count], b"head");
            transport.set_protocol(Rc::clone(&self.1) as Rc<_>);
        }
    }
    on_each(|event_loop| async move {
        let (near, mut far) = UnixStream::pair()?;
        let next = Small::new(100);
        let handing = Rc::new(Buffered(Handing(RefCell::new([0; 4]), Rc::clone(&next))));
        let connecting = event_loop.create_connection_with_sock(|| handing, near);
        let (transport, _) = connecting.await?;
        far.write_all(b"head and body")?;
        until(&event_loop, || *next.received.borrow() == b" and body").await?;
        transport.abort();
        Ok(())
    })
}
