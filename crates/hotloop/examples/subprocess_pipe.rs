//! A filter over pipes: `cargo run --example subprocess_pipe`. Sends lines through `sort` and prints what comes back.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::rc::Rc;

use hotloop::asyncio::{Error, SelectorEventLoop, SubprocessProtocol, SubprocessTransport, get_running_loop};

/// Collects what a process writes.
#[derive(Default)]
struct Collecting {
    output: RefCell<Vec<u8>>,
}

impl SubprocessProtocol for Collecting {
    fn pipe_data_received(&self, _: &SubprocessTransport, _: i32, data: &[u8]) {
        self.output.borrow_mut().extend_from_slice(data);
    }

    fn connection_lost(&self, process: &SubprocessTransport) {
        print!("{}", String::from_utf8_lossy(&self.output.borrow()));
        process.event_loop().stop();
    }
}

fn main() -> Result<(), Error> {
    let event_loop = SelectorEventLoop::new()?;
    event_loop.run_until_complete(async {
        let mut command = Command::new("sort");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (process, _) = get_running_loop()?
            .subprocess_exec(Rc::<Collecting>::default, command)
            .await?;
        if let Some(stdin) = process.get_pipe_transport(0) {
            for line in ["pear\n", "apple\n", "fig\n"] {
                stdin.write(line.as_bytes())?;
            }
            stdin.close();
        }
        Ok::<_, Error>(())
    })??;
    event_loop.run_forever()?;
    event_loop.close()
}
