//! The laws of a loop on virtual time and of its network in memory.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use hotloop::asyncio::{Error, Protocol, Transport, get_running_loop, sleep, timeout};
use hotloop::testing::{self, EventLoop, Faults};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const HOUR: Duration = Duration::from_secs(3600);

/// A protocol that notes what it is told, and may answer.
#[derive(Debug, Default)]
struct Log {
    told: RefCell<Vec<String>>,
    received: RefCell<Vec<u8>>,
    transport: RefCell<Option<Transport>>,
    /// Whether what it receives is sent back.
    echoes: Cell<bool>,
    lost: Cell<bool>,
}

impl Log {
    fn note(&self, said: impl Into<String>) {
        self.told.borrow_mut().push(said.into());
    }

    fn transport(&self) -> Transport {
        let transport = self.transport.borrow().clone();
        transport.expect("the connection was made")
    }

    /// Waits for the end of the connection, in steps that cost nothing.
    async fn is_lost(&self) -> Result<(), Error> {
        while !self.lost.get() {
            sleep(Duration::from_secs(1)).await?;
        }
        Ok(())
    }
}

impl Protocol for Log {
    fn connection_made(&self, transport: &Transport) {
        self.note("made");
        self.transport.replace(Some(transport.clone()));
    }

    fn data_received(&self, transport: &Transport, data: &[u8]) {
        if self.received.borrow().is_empty() {
            self.note("data");
        }
        self.received.borrow_mut().extend_from_slice(data);
        if self.echoes.get() {
            transport.write(data).expect("write_eof was not called");
        }
    }

    fn eof_received(&self, _transport: &Transport) -> bool {
        self.note("eof");
        false
    }

    fn connection_lost(&self, _transport: &Transport, error: Option<io::Error>) {
        self.note(error.map_or("lost".to_owned(), |error| format!("{:?}", error.kind())));
        self.lost.set(true);
        self.transport.replace(None);
    }

    fn pause_writing(&self, _transport: &Transport) {
        self.note("pause");
    }

    fn resume_writing(&self, _transport: &Transport) {
        self.note("resume");
    }
}

/// Both ends of a new connection.
async fn connected(event_loop: &EventLoop) -> Result<(Rc<Log>, Rc<Log>), Error> {
    let far = Rc::new(Log::default());
    let accepted = Rc::clone(&far);
    let server = event_loop
        .create_server(move || Rc::clone(&accepted), "far.example", 7)
        .await?;
    let (_, near) = event_loop
        .create_connection(|| Rc::new(Log::default()), "far.example", 7)
        .await?;
    while far.transport.borrow().is_none() {
        sleep(Duration::from_secs(1)).await?;
    }
    server.close();
    Ok((near, far))
}

#[test]
fn hours_pass_at_once_and_timers_in_their_order() -> Outcome {
    let ran = testing::run(1, async {
        let event_loop = get_running_loop()?;
        let ran = Rc::new(RefCell::new(Vec::new()));
        for delay in [5.0, 0.1, 1e-6, 86_400.0 * 365.0, 7.0] {
            let (ran, clock) = (Rc::clone(&ran), event_loop.clone());
            event_loop.call_later(Duration::from_secs_f64(delay), move || {
                ran.borrow_mut().push((delay, clock.time()));
            })?;
        }
        sleep(HOUR * 24 * 366).await?;
        Ok::<_, Error>(Rc::unwrap_or_clone(ran).into_inner())
    })??;
    let delays: Vec<f64> = ran.iter().map(|&(delay, _)| delay).collect();
    assert_eq!(delays, [1e-6, 0.1, 5.0, 7.0, 86_400.0 * 365.0]);
    assert!(ran.iter().all(|&(delay, at)| at >= delay && at < delay + 1e-3));
    Ok(())
}

#[test]
fn waiting_for_ever_is_an_error() -> Outcome {
    let waited = testing::run(1, pending::<()>());
    assert!(matches!(waited, Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    // Not while somebody listens either: there is nobody else on the network.
    let served = testing::simulate([1], &Faults::default(), |event_loop| async move {
        let server = event_loop
            .create_server(|| Rc::new(Log::default()), "localhost", 0)
            .await?;
        server.wait_closed().await
    });
    assert!(served.is_err_and(|failed| failed.to_string().contains("nothing will ever happen")));
    Ok(())
}

#[test]
fn the_clock_waits_for_the_executor_and_for_whoever_holds_it() -> Outcome {
    let event_loop = EventLoop::new(1)?;
    let outer = event_loop.clone();
    event_loop.run_until_complete(async move {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let job = outer.run_in_executor(move || receiver.recv())?;
        let late = outer.call_later(HOUR, || panic!("the time went on"))?;
        outer.call_soon(move || sender.send(()).expect("it is received"))?;
        assert!(job.await?.is_ok());
        assert_eq!(outer.time(), 0.0);

        let (outside, threadsafe) = (outer.outside(), outer.threadsafe());
        let future = outer.create_future();
        let stopper = thread::spawn(move || {
            threadsafe.call_soon_threadsafe(|| ())?;
            drop(outside);
            Ok::<_, Error>(())
        });
        future.set_result(())?;
        future.await?;
        late.cancel();
        stopper.join().expect("it does not panic")?;
        sleep(HOUR).await?;
        assert_eq!(outer.time(), 3600.0);
        Ok::<_, Error>(())
    })??;
    event_loop.close()?;
    Ok(())
}

#[test]
fn streams_arrive_whole_whatever_happens_on_the_way() -> Outcome {
    let faults = Faults {
        delay: (Duration::ZERO, Duration::from_millis(500)),
        loss: 0.1,
        split: 20_000,
        ..Faults::default()
    };
    testing::simulate(0..5, &faults, |event_loop| async move {
        let (near, far) = connected(&event_loop).await?;
        far.echoes.set(true);
        let sent: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
        near.transport().write(&sent)?;
        while near.received.borrow().len() < sent.len() {
            sleep(Duration::from_secs(1)).await?;
        }
        near.transport().close();
        far.is_lost().await?;
        near.is_lost().await?;
        assert!(*far.received.borrow() == sent && *near.received.borrow() == sent);
        assert_eq!(*near.told.borrow(), ["made", "pause", "data", "resume", "lost"]);
        // What is under way arrives.
        sleep(HOUR).await?;
        assert_eq!(event_loop.connections(), 0);
        assert!(event_loop.time() > 3600.0);
        Ok::<_, Error>(())
    })?;
    Ok(())
}

#[test]
fn a_reader_that_pauses_pauses_the_writer() -> Outcome {
    testing::simulate([1], &Faults::default(), |event_loop| async move {
        let (near, far) = connected(&event_loop).await?;
        far.transport().pause_reading();
        near.transport().write(&vec![b'a'; 1_000_000])?;
        assert!(near.told.borrow().contains(&"pause".to_owned()));
        sleep(HOUR).await?;
        assert!(near.transport().get_write_buffer_size() > 0);
        assert!(far.received.borrow().is_empty());
        far.transport().resume_reading();
        near.transport().close();
        far.is_lost().await?;
        assert_eq!(far.received.borrow().len(), 1_000_000);
        assert_eq!(*far.told.borrow(), ["made", "data", "eof", "lost"]);
        Ok::<_, Error>(())
    })?;
    Ok(())
}

#[test]
fn a_connection_that_is_closed_with_something_unread_is_reset() -> Outcome {
    testing::simulate([1], &Faults::default(), |event_loop| async move {
        let (near, far) = connected(&event_loop).await?;
        far.transport().pause_reading();
        near.transport().write(b"nobody reads this")?;
        sleep(HOUR).await?;
        far.transport().abort();
        near.is_lost().await?;
        assert_eq!(*near.told.borrow(), ["made", "ConnectionReset"]);
        assert_eq!(*far.told.borrow(), ["made", "lost"]);
        Ok::<_, Error>(())
    })?;
    Ok(())
}

#[test]
fn resets_reach_both_ends() -> Outcome {
    testing::simulate([1], &Faults::default(), |event_loop| async move {
        let (near, far) = connected(&event_loop).await?;
        event_loop.reset_all();
        near.is_lost().await?;
        far.is_lost().await?;
        assert_eq!(*near.told.borrow(), ["made", "ConnectionReset"]);
        assert_eq!(*far.told.borrow(), ["made", "ConnectionReset"]);
        assert_eq!(event_loop.connections(), 0);

        let (near, far) = connected(&event_loop).await?;
        event_loop.set_faults(Faults {
            reset: 1.0,
            ..Faults::default()
        })?;
        near.transport().write(b"?")?;
        near.is_lost().await?;
        far.is_lost().await?;
        assert_eq!(*near.told.borrow(), *far.told.borrow());
        Ok::<_, Error>(())
    })?;
    Ok(())
}

#[test]
fn addresses_are_taken_given_back_and_refused() -> Outcome {
    testing::simulate([1], &Faults::default(), |event_loop| async move {
        let connect = async |host: &str, port| {
            let log = || Rc::new(Log::default());
            event_loop.create_connection(log, host, port).await
        };
        let refused = |error: &Error, kind| matches!(error, Error::Io(error) if error.kind() == kind);
        let error = connect("localhost", 80).await.expect_err("nobody listens");
        assert!(refused(&error, io::ErrorKind::ConnectionRefused));

        let serve = async |host: &str, port| {
            let log = || Rc::new(Log::default());
            event_loop.create_server(log, host, port).await
        };
        let server = serve("localhost", 80).await?;
        let error = serve("127.0.0.1", 80).await.expect_err("it is taken");
        assert!(refused(&error, io::ErrorKind::AddrInUse));
        let (transport, _) = connect("127.0.0.1", 80).await?;
        assert_eq!(
            transport.peer().map(|peer| format!("{peer:?}")),
            Some("Internet(127.0.0.1:80)".to_owned())
        );
        assert!(connect("elsewhere.example", 80).await.is_err());
        transport.abort();
        server.close();
        assert!(connect("localhost", 80).await.is_err());

        let anywhere = serve("0.0.0.0", 0).await?;
        let port = anywhere.addresses()[0].port();
        connect("elsewhere.example", port).await?.0.abort();
        event_loop.set_faults(Faults {
            refuse: 1.0,
            ..Faults::default()
        })?;
        assert!(connect("elsewhere.example", port).await.is_err());
        Ok::<_, Error>(())
    })?;
    Ok(())
}

#[test]
fn an_attempt_that_is_given_up_leaves_nothing() -> Outcome {
    let slow = Faults {
        delay: (HOUR, HOUR),
        ..Faults::default()
    };
    testing::simulate([1], &slow, |event_loop| async move {
        let server = event_loop
            .create_server(|| Rc::new(Log::default()), "localhost", 80)
            .await?;
        let connecting = event_loop.create_connection(|| Rc::new(Log::default()), "localhost", 80);
        let given_up = timeout(Duration::from_secs(1), connecting).await;
        assert!(matches!(given_up, Err(Error::TimedOut)));
        assert_eq!(event_loop.connections(), 0);
        server.close();
        server.wait_closed().await
    })?;
    Ok(())
}

#[test]
fn faults_that_make_no_sense_are_refused() -> Outcome {
    let event_loop = EventLoop::new(1)?;
    let good = Faults::default();
    for bad in [
        Faults {
            delay: (HOUR, Duration::ZERO),
            ..good.clone()
        },
        Faults {
            loss: 1.0,
            ..good.clone()
        },
        Faults {
            reset: 1.5,
            ..good.clone()
        },
        Faults {
            refuse: f64::NAN,
            ..good.clone()
        },
    ] {
        assert!(event_loop.set_faults(bad.clone()).is_err());
        assert!(EventLoop::with_faults(1, bad).is_err());
    }
    Ok(())
}
