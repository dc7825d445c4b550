//! Names and addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::error::Error;
use super::event_loop::BaseEventLoop;
use crate::driver::Address;
use crate::sys;

/// How [`getnameinfo`](BaseEventLoop::getnameinfo) names an address; by default with names where there are some and
/// with numbers elsewhere.
///
/// ```
/// use hotloop::asyncio::NameFlags;
/// let numbers = NameFlags { numeric_host: true, numeric_service: true, ..NameFlags::default() };
/// assert!(!numbers.name_required);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameFlags {
    /// The host is named by its address: nobody is asked (`NI_NUMERICHOST`).
    pub numeric_host: bool,
    /// The service is named by its number (`NI_NUMERICSERV`).
    pub numeric_service: bool,
    /// A host without a name is an error (`NI_NAMEREQD`).
    pub name_required: bool,
    /// The service is one of datagrams (`NI_DGRAM`).
    pub datagram: bool,
    /// Hosts of the local domain are named without it (`NI_NOFQDN`).
    pub no_domain: bool,
}

impl BaseEventLoop {
    /// The addresses of a host for stream sockets. One that is an address already is answered at once, a name by the
    /// system's resolver in a thread of the executor.
    ///
    /// # Errors
    /// The resolver's; [`Error::Closed`].
    ///
    /// ```
    /// use hotloop::asyncio::{SelectorEventLoop, get_running_loop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let addresses = event_loop
    ///     .run_until_complete(async { get_running_loop()?.getaddrinfo("localhost", 80).await })??;
    /// assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
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

    /// The names of a host and of a service, by the system's resolver in a thread of the executor.
    ///
    /// # Errors
    /// The resolver's; [`Error::Closed`].
    ///
    /// ```
    /// use hotloop::asyncio::{NameFlags, SelectorEventLoop, get_running_loop};
    /// let event_loop = SelectorEventLoop::new()?;
    /// let flags = NameFlags { numeric_host: true, numeric_service: true, ..NameFlags::default() };
    /// let (host, service) = event_loop.run_until_complete(async move {
    ///     get_running_loop()?.getnameinfo(([127, 0, 0, 1], 80).into(), flags).await
    /// })??;
    /// assert_eq!((host.as_str(), service.as_str()), ("127.0.0.1", "80"));
    /// # Ok::<(), hotloop::asyncio::Error>(())
    /// ```
    pub async fn getnameinfo(
        &self,
        address: SocketAddr,
        flags: NameFlags,
    ) -> Result<(String, String), Error> {
        let call = move || sys::name_info(&Address::from(address), flags.bits());
        Ok(self.run_in_executor(call)?.await??)
    }
}

impl NameFlags {
    /// The flags as the C library takes them.
    fn bits(self) -> libc::c_int {
        let flags = [
            (self.numeric_host, libc::NI_NUMERICHOST),
            (self.numeric_service, libc::NI_NUMERICSERV),
            (self.name_required, libc::NI_NAMEREQD),
            (self.datagram, libc::NI_DGRAM),
            (self.no_domain, libc::NI_NOFQDN),
        ];
        let set = flags.into_iter().filter(|&(is_set, _)| is_set);
        set.fold(0, |bits, (_, bit)| bits | bit)
    }
}
