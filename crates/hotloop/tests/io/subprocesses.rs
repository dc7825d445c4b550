//! Child processes.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::rc::Rc;

use hotloop::asyncio::{Error, SelectorEventLoop, SubprocessProtocol, SubprocessTransport};

use crate::{Outcome, on_each, pattern, turn, until};

/// Keeps what it is told.
#[derive(Default)]
struct Noting {
    told: RefCell<Vec<String>>,
    output: RefCell<Vec<u8>>,
    lost: Cell<bool>,
}

impl Noting {
    fn note(&self, what: &str) {
        self.told.borrow_mut().push(what.to_owned());
    }
}

impl SubprocessProtocol for Noting {
    fn connection_made(&self, process: &SubprocessTransport) {
        assert!(process.returncode().is_none());
        self.note("made");
    }

    fn pipe_data_received(&self, _: &SubprocessTransport, fd: i32, data: &[u8]) {
        if fd == 1 {
            self.output.borrow_mut().extend_from_slice(data);
        } else {
            self.note(&format!("{fd}: {}", String::from_utf8_lossy(data)));
        }
    }

    fn pipe_connection_lost(&self, _: &SubprocessTransport, fd: i32, error: Option<std::io::Error>) {
        self.note(&format!("{fd} lost: {error:?}"));
    }

    fn process_exited(&self, process: &SubprocessTransport) {
        assert!(process.returncode().is_some());
        self.note("exited");
    }

    fn connection_lost(&self, process: &SubprocessTransport) {
        assert!(process.is_closing());
        self.note("lost");
        self.lost.set(true);
    }
}

fn noting() -> Rc<Noting> {
    Rc::default()
}

#[test]
fn a_process_takes_and_gives_more_than_pipes_hold() -> Outcome {
    const SIZE: usize = 1 << 20;
    on_each(|event_loop| async move {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (process, heard) = event_loop.subprocess_exec(noting, command).await?;
        assert!(process.get_pid() > 0 && process.get_pipe_transport(2).is_none());
        let stdin = process.get_pipe_transport(0).ok_or("it is piped")?;
        stdin.write(&pattern(SIZE))?;
        stdin.write_eof();
        assert!(process.wait().await?.success());
        until(&event_loop, || heard.lost.get()).await?;
        assert!(*heard.output.borrow() == pattern(SIZE));
        let told = heard.told.borrow();
        assert_eq!(told.first().map(String::as_str), Some("made"));
        assert_eq!(told.last().map(String::as_str), Some("lost"));
        assert!(told.iter().any(|line| line == "0 lost: None"));
        assert!(told.iter().any(|line| line == "1 lost: None"));
        assert_eq!(told.iter().filter(|line| *line == "exited").count(), 1);
        Ok(())
    })
}

#[test]
fn the_shell_says_how_it_ended() -> Outcome {
    on_each(|event_loop| async move {
        let line = "echo to stderr >&2; exit 7";
        let (process, heard) = event_loop.subprocess_shell(noting, line).await?;
        until(&event_loop, || heard.lost.get()).await?;
        assert_eq!(process.returncode().and_then(|status| status.code()), Some(7));
        assert!(heard.told.borrow().iter().any(|line| line == "2: to stderr\n"));
        assert!(matches!(process.kill(), Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound));
        Ok(())
    })
}

#[test]
fn the_last_word_follows_the_process_and_its_pipes() -> Outcome {
    on_each(|event_loop| async move {
        // The child of the child has the pipe for as long as it is not told to end.
        let line = "cat <&3 & exit 0";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("exec 3<&0; {line}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (process, heard) = event_loop.subprocess_exec(noting, command).await?;
        assert!(process.wait().await?.success());
        assert!(!heard.lost.get() && heard.told.borrow().contains(&"exited".to_owned()));
        let stdin = process.get_pipe_transport(0).ok_or("it is piped")?;
        stdin.write(b"after the end")?;
        stdin.close();
        until(&event_loop, || heard.lost.get()).await?;
        assert_eq!(*heard.output.borrow(), b"after the end");
        Ok(())
    })
}

#[test]
fn signals_reach_it_and_close_kills_it() -> Outcome {
    on_each(|event_loop| async move {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        let (process, _) = event_loop.subprocess_exec(noting, command).await?;
        assert!(
            matches!(process.send_signal(0), Err(Error::Io(error)) if error.kind() == ErrorKind::InvalidInput)
        );
        process.terminate()?;
        assert_eq!(process.wait().await?.signal(), Some(15));
        let (process, heard) = event_loop
            .subprocess_shell(noting, "trap '' TERM; exec sleep 3600")
            .await?;
        process.close();
        process.close();
        assert!(process.is_closing());
        assert_eq!(process.wait().await?.signal(), Some(9));
        until(&event_loop, || heard.lost.get()).await?;
        Ok(())
    })
}

#[test]
fn a_process_that_nobody_waits_for_any_more_is_killed() -> Outcome {
    on_each(|event_loop| async move {
        let heard = noting();
        let (protocol, starting) = (Rc::clone(&heard), event_loop.clone());
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        let task = event_loop
            .create_task(async move { starting.subprocess_exec(|| protocol, command).await.map(drop) })?;
        turn(&event_loop).await?;
        task.cancel();
        until(&event_loop, || heard.lost.get()).await?;
        assert!(task.is_cancelled());
        Ok(())
    })
}

#[test]
fn what_cannot_be_started_is_an_error() -> Outcome {
    on_each(|event_loop| async move {
        let started = event_loop
            .subprocess_exec(noting, Command::new("/no/such/program"))
            .await;
        assert!(matches!(started, Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound));
        Ok(())
    })
}

#[test]
fn a_process_does_not_outlive_its_loop() -> Outcome {
    let event_loop = SelectorEventLoop::new()?;
    let starting = event_loop.clone();
    let (mut output, theirs) = std::io::pipe()?;
    event_loop.run_until_complete(async move {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(theirs);
        starting.subprocess_exec(noting, command).await.map(drop)
    })??;
    event_loop.close()?;
    // Its end closes the pipe.
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut output, &mut rest)?;
    assert!(rest.is_empty());
    Ok(())
}
