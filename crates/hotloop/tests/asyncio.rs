//! The laws of the loops for Rust programs, each on the proactor and on every selector. A kernel that refuses io_uring has the
//! selectors only.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hotloop::asyncio::{
    self, AbstractEventLoop, AbstractEventLoopPolicy, BaseEventLoop, DefaultEventLoopPolicy, Error,
    ProactorEventLoop, Protocol, Selector, SelectorEventLoop, Transport, get_running_loop, sleep, timeout,
};
use hotloop::clock::Manual;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

fn on_each(test: impl Fn(&BaseEventLoop) -> Outcome) -> Outcome {
    for &selector in Selector::ALL {
        let event_loop = SelectorEventLoop::with_selector(selector)?;
        test(&event_loop)?;
        event_loop.close()?;
    }
    if let Ok(proactor) = ProactorEventLoop::new() {
        test(&proactor)?;
        proactor.close()?;
    }
    Ok(())
}

type Noted = Rc<RefCell<Vec<String>>>;

/// What notes a word when it is called.
fn noting(noted: &Noted, word: &str) -> impl FnOnce() + 'static {
    let (noted, word) = (Rc::clone(noted), word.to_owned());
    move || noted.borrow_mut().push(word)
}

/// Notes the reports of a loop.
fn note_reports(event_loop: &BaseEventLoop) -> Noted {
    let noted = Noted::default();
    let notes = Rc::clone(&noted);
    event_loop.set_exception_handler(Some(Rc::new(move |_, report| {
        let panic = report.panic.as_ref().map_or("", |panic| panic.message());
        notes.borrow_mut().push(format!("{}: {panic}", report.message));
    })));
    noted
}

/// Runs one turn, with what is ready and due.
fn turn(event_loop: &BaseEventLoop) -> Result<(), Error> {
    event_loop.stop();
    event_loop.run_forever()
}

#[test]
fn callbacks_run_in_the_order_of_the_calls_and_timers_behind_them() -> Outcome {
    on_each(|event_loop| {
        let noted = Noted::default();
        event_loop.call_at(0.0, noting(&noted, "timer"))?;
        event_loop.call_soon(noting(&noted, "one"))?;
        let (again, later) = (event_loop.clone(), Rc::clone(&noted));
        event_loop.call_soon(move || {
            again
                .call_soon(noting(&later, "next turn"))
                .expect("the loop is open");
        })?;
        event_loop.call_soon(noting(&noted, "two"))?;
        turn(event_loop)?;
        assert_eq!(*noted.borrow(), ["one", "two", "timer"]);
        turn(event_loop)?;
        assert_eq!(noted.borrow().last().map(String::as_str), Some("next turn"));
        Ok(())
    })
}

#[test]
fn what_is_cancelled_does_not_run_and_is_dropped_at_once() -> Outcome {
    on_each(|event_loop| {
        let held = Rc::new(());
        let (soon, later) = (Rc::clone(&held), Rc::clone(&held));
        let handle = event_loop.call_soon(move || panic!("cancelled: {soon:?}"))?;
        let timer = event_loop.call_later(Duration::ZERO, move || panic!("cancelled: {later:?}"))?;
        handle.cancel();
        timer.cancel();
        timer.cancel();
        assert!(handle.is_cancelled() && timer.is_cancelled());
        assert_eq!(Rc::strong_count(&held), 1);
        turn(event_loop)?;
        Ok(())
    })
}

#[test]
fn another_thread_wakes_a_loop_that_waits() -> Outcome {
    on_each(|event_loop| {
        let (threadsafe, stopper) = (event_loop.threadsafe(), event_loop.stopper());
        let thread = thread::spawn(move || threadsafe.call_soon_threadsafe(move || stopper.stop()));
        event_loop.run_forever()?;
        thread.join().expect("it does not panic")?;
        let stopper = event_loop.stopper();
        let thread = thread::spawn(move || stopper.stop());
        event_loop.run_forever()?;
        thread.join().expect("it does not panic");
        Ok(())
    })
}

#[test]
fn a_task_is_woken_by_its_own_thread_and_by_others() -> Outcome {
    on_each(|event_loop| {
        let answer = event_loop.run_until_complete(async {
            let event_loop = get_running_loop()?;
            let future = event_loop.create_future();
            let setter = future.clone();
            let own = event_loop.create_task(future)?;
            event_loop.call_soon(move || setter.set_result(40).expect("set once"))?;
            let other = event_loop.run_in_executor(|| 2)?;
            Ok::<i32, Error>(own.await?? + other.await?)
        })??;
        assert_eq!(answer, 42);
        Ok(())
    })
}

#[test]
fn an_executor_that_is_shut_down_ends_its_work_and_takes_no_more() -> Outcome {
    on_each(|event_loop| {
        let (begin, begun) = std::sync::mpsc::channel();
        let waiting = event_loop.run_in_executor(move || begun.recv())?;
        let queued: Vec<_> = (0..100)
            .map(|number| event_loop.run_in_executor(move || number))
            .collect::<Result<_, _>>()?;
        let shutdown = event_loop.clone();
        let shutdown = event_loop.create_task(async move { shutdown.shutdown_default_executor().await })?;
        turn(event_loop)?;
        assert!(!shutdown.is_done());
        assert!(matches!(
            event_loop.run_in_executor(|| ()),
            Err(Error::ExecutorShutDown)
        ));
        begin.send(42)?;
        event_loop.run_until_complete(shutdown)???;
        assert_eq!(event_loop.run_until_complete(waiting)???, 42);
        for (number, job) in queued.into_iter().enumerate() {
            assert_eq!(event_loop.run_until_complete(job)??, number);
        }
        Ok(())
    })
}

#[test]
fn a_cancelled_task_drops_its_future_and_says_so() -> Outcome {
    on_each(|event_loop| {
        let held = Rc::new(());
        let inside = Rc::clone(&held);
        let task = event_loop.create_task(async move {
            pending::<()>().await;
            drop(inside);
        })?;
        turn(event_loop)?;
        assert!(task.cancel());
        assert_eq!(Rc::strong_count(&held), 2, "it is dropped on the next turn");
        turn(event_loop)?;
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(task.is_done() && task.is_cancelled() && !task.cancel());
        let result = event_loop.run_until_complete(task)?;
        assert!(matches!(result, Err(Error::Cancelled)));
        Ok(())
    })
}

#[test]
fn a_future_is_set_once_and_tells_all_who_wait() -> Outcome {
    on_each(|event_loop| {
        let future = event_loop.create_future();
        assert!(matches!(future.result(), Err(Error::InvalidState)));
        let noted = Noted::default();
        future.add_done_callback(noting(&noted, "before"));
        future.set_result(7)?;
        future.add_done_callback(noting(&noted, "after"));
        assert!(noted.borrow().is_empty(), "callbacks wait for the next turn");
        turn(event_loop)?;
        assert_eq!(*noted.borrow(), ["before", "after"]);
        assert!(matches!(future.set_result(8), Err(Error::InvalidState)));
        assert!(!future.cancel());
        assert_eq!(event_loop.run_until_complete(future.clone())??, 7);
        let cancelled = event_loop.create_future::<i32>();
        assert!(cancelled.cancel());
        assert!(matches!(
            event_loop.run_until_complete(cancelled)?,
            Err(Error::Cancelled)
        ));
        Ok(())
    })
}

#[test]
fn a_timeout_drops_what_is_late() -> Outcome {
    on_each(|event_loop| {
        let late = event_loop.run_until_complete(timeout(Duration::ZERO, sleep(LONG)))?;
        assert!(matches!(late, Err(Error::TimedOut)));
        let in_time = event_loop.run_until_complete(timeout(LONG, sleep(Duration::ZERO)))?;
        assert!(matches!(in_time, Ok(Ok(()))));
        Ok(())
    })
}

#[test]
fn a_panic_in_a_callback_is_reported_and_the_loop_goes_on() -> Outcome {
    on_each(|event_loop| {
        let reports = note_reports(event_loop);
        let noted = Noted::default();
        event_loop.call_soon(|| panic!("of a callback"))?;
        event_loop.call_soon(noting(&noted, "went on"))?;
        drop(event_loop.create_task(async { panic!("of a task") })?);
        turn(event_loop)?;
        turn(event_loop)?;
        assert_eq!(*noted.borrow(), ["went on"]);
        assert_eq!(
            *reports.borrow(),
            [
                "Exception in callback: of a callback",
                "Task exception was never retrieved: of a task"
            ]
        );
        let task = event_loop.create_task(async { panic!("awaited") })?;
        let result: Result<(), Error> = event_loop.run_until_complete(task)?;
        assert!(matches!(result, Err(Error::Panicked(panic)) if panic.message() == "awaited"));
        event_loop.set_exception_handler(None);
        Ok(())
    })
}

#[test]
fn an_exception_handler_that_panics_does_not_end_the_loop() -> Outcome {
    on_each(|event_loop| {
        let told = Rc::new(Cell::new(0));
        let telling = Rc::clone(&told);
        event_loop.set_exception_handler(Some(Rc::new(move |_, _| {
            telling.set(telling.get() + 1);
            panic!("of a handler");
        })));
        let noted = Noted::default();
        event_loop.call_soon(|| panic!("of a callback"))?;
        event_loop.call_soon(noting(&noted, "went on"))?;
        turn(event_loop)?;
        event_loop.call_exception_handler(&"of the program".into());
        assert_eq!((told.get(), noted.borrow().len()), (2, 1));
        event_loop.set_exception_handler(None);
        Ok(())
    })
}

#[test]
fn a_timer_runs_at_its_time_and_not_before() -> Outcome {
    on_each(|event_loop| {
        let clock = Manual::default();
        event_loop.set_clock(Rc::new(clock.clone()));
        let noted = Noted::default();
        let late = event_loop.call_at(2.0, noting(&noted, "late"))?;
        let soon = event_loop.call_later(Duration::from_secs(1), noting(&noted, "soon"))?;
        assert_eq!((late.when(), soon.when()), (2.0, 1.0));
        turn(event_loop)?;
        assert!(noted.borrow().is_empty());
        clock.advance(1.0);
        turn(event_loop)?;
        assert_eq!(*noted.borrow(), ["soon"]);
        clock.advance(1.0);
        turn(event_loop)?;
        assert_eq!(*noted.borrow(), ["soon", "late"]);
        Ok(())
    })
}

#[test]
fn a_closed_loop_refuses_and_has_dropped_what_was_scheduled() -> Outcome {
    on_each(|event_loop| {
        let held = Rc::new(());
        let (soon, later, task) = (Rc::clone(&held), Rc::clone(&held), Rc::clone(&held));
        event_loop.call_soon(move || drop(soon))?;
        event_loop.call_later(LONG, move || drop(later))?;
        let task = event_loop.create_task(async move { drop(task) })?;
        let threadsafe = event_loop.threadsafe();
        event_loop.close()?;
        event_loop.close()?;
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(event_loop.is_closed() && !task.is_done());
        assert!(matches!(event_loop.call_soon(|| {}), Err(Error::Closed)));
        assert!(matches!(event_loop.call_later(LONG, || {}), Err(Error::Closed)));
        assert!(matches!(event_loop.run_forever(), Err(Error::Closed)));
        assert!(matches!(
            event_loop.run_until_complete(async {}),
            Err(Error::Closed)
        ));
        assert!(matches!(event_loop.create_task(async {}), Err(Error::Closed)));
        assert!(matches!(event_loop.add_reader(0, || {}), Err(Error::Closed)));
        assert!(matches!(
            threadsafe.call_soon_threadsafe(|| {}),
            Err(Error::Closed)
        ));
        Ok(())
    })
}

#[test]
fn a_running_loop_is_neither_run_nor_closed_and_no_other_runs_beside_it() -> Outcome {
    on_each(|event_loop| {
        event_loop.run_until_complete(async {
            let event_loop = get_running_loop()?;
            assert!(event_loop.is_running());
            assert!(matches!(event_loop.run_forever(), Err(Error::Running)));
            assert!(matches!(event_loop.close(), Err(Error::Running)));
            let other = asyncio::new_event_loop()?;
            assert!(matches!(other.run_forever(), Err(Error::OtherRunning)));
            Ok::<_, Error>(())
        })??;
        assert!(!event_loop.is_running());
        assert!(matches!(get_running_loop(), Err(Error::NotRunning)));
        let stopping = event_loop.clone();
        event_loop.call_soon(move || stopping.stop())?;
        let stopped = event_loop.run_until_complete(pending::<()>());
        assert!(matches!(stopped, Err(Error::Stopped)));
        Ok(())
    })
}

#[test]
fn a_reader_is_called_while_there_is_something_until_it_is_removed() -> Outcome {
    on_each(|event_loop| {
        let (mut near, mut far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let fd = near.as_raw_fd();
        let calls = Rc::new(Cell::new(0));
        let (counted, stopping) = (Rc::clone(&calls), event_loop.clone());
        event_loop.add_reader(fd, move || {
            counted.set(counted.get() + 1);
            if counted.get() == 2 {
                stopping.stop();
            }
        })?;
        far.write_all(b"x")?;
        event_loop.run_forever()?;
        assert_eq!(calls.get(), 2);
        assert!(event_loop.remove_reader(fd) && !event_loop.remove_reader(fd));
        turn(event_loop)?;
        assert_eq!(calls.get(), 2);
        assert_eq!(near.read(&mut [0; 2])?, 1);
        Ok(())
    })
}

#[test]
fn a_slow_callback_is_reported_in_debug_mode() -> Outcome {
    on_each(|event_loop| {
        let reports = note_reports(event_loop);
        event_loop.set_slow_callback_duration(Duration::ZERO);
        event_loop.call_soon(|| {})?;
        turn(event_loop)?;
        assert!(reports.borrow().is_empty());
        event_loop.set_debug(true);
        event_loop.call_soon(|| {})?;
        turn(event_loop)?;
        let reports = reports.borrow();
        assert!(
            reports
                .iter()
                .any(|report| report.starts_with("Executing callback took "))
        );
        Ok(())
    })
}

/// Gives back what comes in, and says so when a connection ends.
struct Echo {
    noted: Noted,
}

impl Protocol for Echo {
    fn connection_made(&self, _: &Transport) {
        self.noted.borrow_mut().push("made".to_owned());
    }

    fn data_received(&self, transport: &Transport, data: &[u8]) {
        transport.write(data).expect("write_eof was not called");
    }

    fn pause_writing(&self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_writing(&self, transport: &Transport) {
        transport.resume_reading();
    }

    fn connection_lost(&self, transport: &Transport, error: Option<std::io::Error>) {
        assert!(transport.is_closing() && error.is_none());
        self.noted.borrow_mut().push("lost".to_owned());
    }
}

#[test]
fn a_server_gives_back_more_than_fits_and_waits_for_its_clients() -> Outcome {
    const SIZE: usize = 4 << 20;
    on_each(|event_loop| {
        let noted = Noted::default();
        let protocols = Rc::clone(&noted);
        event_loop.run_until_complete(async move {
            let event_loop = get_running_loop()?;
            let echo = move || {
                Rc::new(Echo {
                    noted: Rc::clone(&protocols),
                })
            };
            let server = event_loop.create_server(echo, "localhost", 0).await?;
            let address = server.addresses()[0];
            let client = event_loop.run_in_executor(move || -> std::io::Result<bool> {
                let mut stream = TcpStream::connect(address)?;
                let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
                let mut writing = stream.try_clone()?;
                let bytes = sent.clone();
                let writer = thread::spawn(move || writing.write_all(&bytes));
                let mut received = vec![0; SIZE];
                stream.read_exact(&mut received)?;
                writer.join().expect("it does not panic")?;
                stream.shutdown(Shutdown::Write)?;
                Ok(received == sent && stream.read(&mut [0])? == 0)
            })?;
            assert!(client.await??);
            server.close();
            server.wait_closed().await
        })??;
        assert_eq!(*noted.borrow(), ["made", "lost"]);
        Ok(())
    })
}

/// Says hello, and keeps what comes in.
#[derive(Default)]
struct Hello {
    received: RefCell<Vec<u8>>,
    made: Cell<bool>,
    lost: Cell<bool>,
}

impl Protocol for Hello {
    fn connection_made(&self, transport: &Transport) {
        self.made.set(true);
        transport.write(b"hel").expect("write_eof was not called");
        transport.write(b"lo").expect("write_eof was not called");
        transport.write_eof();
        assert!(matches!(transport.write(b"more"), Err(Error::EndWritten)));
    }

    fn data_received(&self, _: &Transport, data: &[u8]) {
        self.received.borrow_mut().extend_from_slice(data);
    }

    fn connection_lost(&self, transport: &Transport, _: Option<std::io::Error>) {
        self.lost.set(true);
        transport.event_loop().stop();
    }
}

#[test]
fn a_client_connects_and_ends_with_the_peer() -> Outcome {
    on_each(|event_loop| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let peer = thread::spawn(move || -> std::io::Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            stream.write_all(&received)?;
            Ok(received)
        });
        let connecting = event_loop.clone();
        let (_, protocol) = event_loop.run_until_complete(async move {
            let connected = connecting.create_connection(Rc::<Hello>::default, "127.0.0.1", port);
            connected
                .await
                .inspect(|(_, protocol)| assert!(protocol.made.get()))
        })??;
        event_loop.run_forever()?;
        assert!(protocol.lost.get());
        assert_eq!(*protocol.received.borrow(), b"hello");
        assert_eq!(peer.join().expect("it does not panic")?, b"hello");
        Ok(())
    })
}

#[test]
fn a_refused_connection_is_an_error() -> Outcome {
    on_each(|event_loop| {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let connecting = event_loop.clone();
        let refused = event_loop.run_until_complete(async move {
            connecting
                .create_connection(Rc::<Hello>::default, "127.0.0.1", port)
                .await
                .map(drop)
        })?;
        let kind = std::io::ErrorKind::ConnectionRefused;
        assert!(matches!(refused, Err(Error::Io(error)) if error.kind() == kind));
        Ok(())
    })
}

#[test]
fn a_policy_decides_and_none_restores_the_default() -> Outcome {
    struct Debugging;
    impl AbstractEventLoopPolicy for Debugging {
        fn get_event_loop(&self) -> Result<BaseEventLoop, Error> {
            DefaultEventLoopPolicy.get_event_loop()
        }
        fn set_event_loop(&self, event_loop: Option<BaseEventLoop>) {
            DefaultEventLoopPolicy.set_event_loop(event_loop);
        }
        fn new_event_loop(&self) -> std::io::Result<BaseEventLoop> {
            DefaultEventLoopPolicy
                .new_event_loop()
                .inspect(|event_loop| event_loop.set_debug(true))
        }
    }
    asyncio::set_event_loop_policy(Some(Arc::new(Debugging)));
    let event_loop = asyncio::new_event_loop()?;
    assert!(event_loop.get_debug());
    asyncio::set_event_loop_policy(None);
    assert!(!asyncio::new_event_loop()?.get_debug());
    assert!(matches!(asyncio::get_event_loop(), Err(Error::NoCurrentLoop)));
    asyncio::set_event_loop(Some(event_loop.clone()));
    assert!(asyncio::get_event_loop()? == event_loop);
    let elsewhere = thread::spawn(|| matches!(asyncio::get_event_loop(), Err(Error::NoCurrentLoop)));
    assert!(
        elsewhere.join().expect("it does not panic"),
        "each thread has its own"
    );
    asyncio::set_event_loop(None);
    assert!(matches!(asyncio::get_event_loop(), Err(Error::NoCurrentLoop)));
    Ok(())
}

#[test]
fn each_selector_serves_keeps_time_and_is_woken() -> Outcome {
    /// Any loop, without a word of which one: what it does goes through the trait.
    fn exercise(event_loop: &dyn AbstractEventLoop) -> Outcome {
        let noted = Noted::default();
        let echoes = Rc::clone(&noted);
        let (threadsafe, stopper) = (event_loop.threadsafe(), event_loop.stopper());
        let answer = event_loop.run_until_complete(async move {
            let event_loop = get_running_loop()?;
            let echo = move || {
                Rc::new(Echo {
                    noted: Rc::clone(&echoes),
                })
            };
            let server = event_loop.create_server(echo, "127.0.0.1", 0).await?;
            let address = server.addresses()[0];
            let client = event_loop.run_in_executor(move || -> std::io::Result<Vec<u8>> {
                let mut stream = TcpStream::connect(address)?;
                stream.write_all(b"hello")?;
                stream.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                Ok(answer)
            })?;
            let answer = client.await??;
            let before = event_loop.time();
            sleep(Duration::from_millis(2)).await?;
            assert!(event_loop.time() - before >= 0.002);
            server.close();
            server.wait_closed().await?;
            Ok::<_, Error>(answer)
        })??;
        assert_eq!(answer, b"hello");
        assert_eq!(*noted.borrow(), ["made", "lost"]);
        let thread = thread::spawn(move || threadsafe.call_soon_threadsafe(move || stopper.stop()));
        event_loop.run_forever()?;
        thread.join().expect("it does not panic")?;
        event_loop.close()?;
        Ok(())
    }
    for &selector in Selector::ALL {
        exercise(&SelectorEventLoop::with_selector(selector)?)?;
    }
    if let Ok(proactor) = ProactorEventLoop::new() {
        exercise(&proactor)?;
    }
    Ok(())
}
