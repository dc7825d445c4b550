//! The examples do what they say. `cargo test` builds them beside the tests.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Outcome = Result<(), Box<dyn Error>>;

/// Nothing here takes as long, in seconds; a hang ends so.
const LONGEST: u64 = 60;

/// An example that serves; killed if the test fails.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut process = example(name)?.args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut port)?;
        }
        Ok(Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], port.trim().parse()?)),
        })
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(LONGEST)))?;
        Ok(stream)
    }

    /// Interrupts it, which must end it well.
    fn end(mut self) -> Outcome {
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGINT)?;
        assert!(self.process.wait()?.success());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        if self.process.kill().is_err() || self.process.wait().is_err() {}
    }
}

/// The program of an example, beside the directory of this one.
fn example(name: &str) -> Result<Command, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let directory: PathBuf = own.ancestors().skip(2).take(1).collect();
    Ok(Command::new(directory.join("examples").join(name)))
}

fn output(name: &str) -> Result<String, Box<dyn Error>> {
    let output = example(name)?.output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn echo_gives_back_what_it_is_sent() -> Outcome {
    for arguments in [&[][..], &["proactor"]] {
        if !arguments.is_empty() && hotloop::asyncio::ProactorEventLoop::new().is_err() {
            eprintln!("no proactor here");
            continue;
        }
        let server = Server::start("echo", arguments)?;
        let mut client = server.connect()?;
        client.write_all(b"hello")?;
        let mut answer = [0; 5];
        client.read_exact(&mut answer)?;
        assert_eq!(&answer, b"hello");
        server.end()?;
    }
    Ok(())
}

#[test]
fn chat_tells_the_others() -> Outcome {
    let server = Server::start("chat", &[])?;
    let (mut speaker, other) = (server.connect()?, server.connect()?);
    let mut heard = String::new();
    // Once the speaker has heard this, both are there.
    let mut other = BufReader::new(other);
    other.get_mut().write_all(b"here\n")?;
    BufReader::new(speaker.try_clone()?).read_line(&mut heard)?;
    assert_eq!(heard, "here\n");
    speaker.write_all(b"hel")?;
    speaker.write_all(b"lo\n")?;
    heard.clear();
    other.read_line(&mut heard)?;
    assert_eq!(heard, "hello\n");
    server.end()
}

#[test]
fn http_greets() -> Outcome {
    let server = Server::start("http", &[])?;
    let mut client = server.connect()?;
    client.write_all(
        b"GET /you HTTP/1.1\r\nHost: here\r\n\r\nGET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
    )?;
    let mut answers = String::new();
    client.read_to_string(&mut answers)?;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(
        answers.contains("\r\n\r\nhello you\n") && answers.ends_with("\r\n\r\nhello world\n"),
        "{answers}"
    );
    server.end()
}

#[test]
fn a_child_sorts_lines() -> Outcome {
    assert_eq!(output("subprocess_pipe")?, "apple\nfig\npear\n");
    Ok(())
}

#[test]
fn a_policy_makes_loops_in_debug_mode() -> Outcome {
    assert_eq!(output("custom_policy")?, "debug mode: true\n");
    Ok(())
}
