//! Names and addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::error::Error;
use super::event_loop::BaseEventLoop;

impl BaseEventLoop {
    /// The addresses of a host for stream sockets. One that is an address already is answered at once, a name by the
    /// system's resolver in a thread of the executor.
    ///
    /// # Errors
    /// The resolver's; [`Error::Closed`].
    pub async fn getaddrinfo(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(address) = self.with_engine(|engine| engine.driver_mut().resolve(host))? {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let host = host.to_owned();
        let call =
            move || -> io::Result<Vec<SocketAddr>> { Ok((host.as_str(), port).to_socket_addrs()?.collect()) };
        Ok(self.run_in_executor(call)?.await??)
    }
}
