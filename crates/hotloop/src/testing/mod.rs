//! Tests in virtual time: a loop whose clock jumps when nothing is ready, and connections in memory that may fail.
//!
//! ```
//! use std::time::Duration;
//! use hotloop::asyncio::{get_running_loop, sleep};
//! use hotloop::testing;
//!
//! let year = Duration::from_secs(365 * 24 * 3600);
//! let passed = testing::run(1, async move {
//!     sleep(year).await?;
//!     Ok::<_, hotloop::asyncio::Error>(get_running_loop()?.time())
//! })??;
//! assert_eq!(passed, year.as_secs_f64());
//! # Ok::<(), hotloop::asyncio::Error>(())
//! ```
//!
//! Time begins at 0 and stands still while anything is ready. Servers and connections that are given by host and port
//! are in memory, on one network a loop, and names are hosts of their own. [`Faults`] say what the network does to
//! them, by chances that are drawn from the loop's seed: so are the order of what arrives at one time and of what is
//! ready at once. The same program does the same with the same seed.
//!
//! [`simulate`] runs a program with many seeds, and names the one that fails:
//!
//! ```
//! use std::rc::Rc;
//! use std::time::Duration;
//! use hotloop::asyncio::{Error, Protocol, Transport};
//! use hotloop::testing::{self, Faults};
//!
//! struct Echo;
//! impl Protocol for Echo {
//!     fn data_received(&self, transport: &Transport, data: &[u8]) {
//!         transport.write(data).expect("write_eof was not called");
//!     }
//! }
//!
//! let faults = Faults { delay: (Duration::ZERO, Duration::from_secs(1)), loss: 0.1, ..Faults::default() };
//! testing::simulate(0..100, &faults, |event_loop| async move {
//!     let server = event_loop.create_server(|| Rc::new(Echo), "echo.example", 7).await?;
//!     let (transport, _) = event_loop.create_connection(|| Rc::new(Echo), "echo.example", 7).await?;
//!     transport.close();
//!     server.close();
//!     server.wait_closed().await
//! })?;
//! # Ok::<(), testing::Failed>(())
//! ```
//!
//! Only such connections are in memory. Descriptors of the system (`add_reader`, signals) are refused: nobody
//! watches them. What [`run_in_executor`](crate::asyncio::BaseEventLoop::run_in_executor) runs takes no time, the clock
//! waits for it; threads of the program's own are waited for as long as they hold an [`Outside`].

mod event_loop;
mod simulate;

pub use crate::driver::sim::{Faults, Outside};
pub use event_loop::EventLoop;
pub use simulate::{Failed, run, simulate};
