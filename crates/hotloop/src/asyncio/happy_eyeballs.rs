//! Connecting to the first of several addresses that answers (RFC 8305).

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::protocol::Protocol;
use super::sleep::sleep;
use super::stream::Medium;
use super::transport::Transport;

/// How the addresses of a host are tried: asyncio's `happy_eyeballs_delay` and `interleave`.
///
/// ```
/// use std::time::Duration;
/// use hotloop::asyncio::HappyEyeballs;
/// let patient = HappyEyeballs { delay: Some(Duration::from_secs(1)), ..HappyEyeballs::default() };
/// assert_eq!(patient.interleave, 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// How long an attempt has before the next one begins beside it. The next one begins at once when it fails.
    /// `None`: each waits until the one before has failed.
    pub delay: Option<Duration>,
    /// How many addresses of the first one's family come before the families take turns; 0 leaves the order as it is.
    pub interleave: usize,
}

impl HappyEyeballs {
    /// One address after the other, in their order: what [`create_connection`](BaseEventLoop::create_connection) does.
    pub const ONE_BY_ONE: Self = Self {
        delay: None,
        interleave: 0,
    };
}

/// What RFC 8305 recommends: 250 ms, and the families take turns from the first address on.
impl Default for HappyEyeballs {
    fn default() -> Self {
        Self {
            delay: Some(Duration::from_millis(250)),
            interleave: 1,
        }
    }
}

impl BaseEventLoop {
    /// As [`create_connection`](Self::create_connection), to the address that answers first: a host whose first address
    /// leads nowhere costs a moment and not the kernel's whole patience. The other attempts are given up.
    ///
    /// # Errors
    /// As of `create_connection`.
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, HappyEyeballs, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let event_loop = get_running_loop()?;
    ///     let server = event_loop.create_server(|| Rc::new(Silent), "127.0.0.1", 0).await?;
    ///     let port = server.addresses()[0].port();
    ///     let how = HappyEyeballs::default();
    ///     // "localhost" may well be ::1 first, where nobody listens.
    ///     let connecting =
    ///         event_loop.create_connection_with_happy_eyeballs(|| Rc::new(Silent), "localhost", port, how);
    ///     connecting.await?.0.close();
    ///     server.close();
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn create_connection_with_happy_eyeballs<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        host: &str,
        port: u16,
        how: HappyEyeballs,
    ) -> Result<(Transport, Rc<P>), Error> {
        let addresses = self.getaddrinfo(host, port).await?;
        self.create_connection_to(factory, &addresses, how).await
    }

    /// Connects to one of several addresses, for programs with a resolver of their own.
    ///
    /// # Errors
    /// The kernel's: where attempts failed in different ways, of the first one's kind and with the words of all;
    /// `NotFound` if there are no addresses; [`Error::Closed`].
    ///
    /// ```
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, HappyEyeballs, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let event_loop = SelectorEventLoop::new()?;
    /// event_loop.run_until_complete(async {
    ///     let event_loop = get_running_loop()?;
    ///     let server = event_loop.create_server(|| Rc::new(Silent), "127.0.0.1", 0).await?;
    ///     let (addresses, how) = (server.addresses(), HappyEyeballs::ONE_BY_ONE);
    ///     let (transport, _) = event_loop.create_connection_to(|| Rc::new(Silent), &addresses, how).await?;
    ///     transport.close();
    ///     server.close();
    ///     Ok::<_, Error>(())
    /// })??;
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn create_connection_to<P: Protocol + 'static>(
        &self,
        factory: impl FnOnce() -> Rc<P>,
        addresses: &[SocketAddr],
        how: HappyEyeballs,
    ) -> Result<(Transport, Rc<P>), Error> {
        let addresses = interleaved(addresses, how.interleave);
        let mut race = Race {
            event_loop: self,
            left: addresses.into_iter(),
            attempts: Vec::new(),
            begun: 0,
            delay: how.delay,
            patience: None,
            failures: Vec::new(),
        };
        let socket = poll_fn(|context| race.poll(context)).await?;
        // The losers are given up before the winner's protocol is made.
        drop(race);
        self.begin(socket, Medium::Socket, factory).await
    }
}

/// Attempts to connect, the later ones beside the earlier ones.
struct Race<'a, Addresses> {
    event_loop: &'a BaseEventLoop,
    /// What was not tried.
    left: Addresses,
    /// What is under way, in the order of their beginnings, each with its number.
    attempts: Vec<(usize, Pending<'a, OwnedFd>)>,
    /// How many have begun.
    begun: usize,
    /// How long an attempt has before the next one begins.
    delay: Option<Duration>,
    /// Ends when the last one that has begun has had its time.
    patience: Option<Pending<'static, ()>>,
    /// Why the others have failed, each with its number.
    failures: Vec<(usize, Error)>,
}

/// What is under way.
type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

impl<Addresses: Iterator<Item = SocketAddr>> Race<'_, Addresses> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<OwnedFd, Error>> {
        loop {
            let mut index = 0;
            while let Some((number, attempt)) = self.attempts.get_mut(index) {
                match attempt.as_mut().poll(context) {
                    Poll::Ready(Ok(socket)) => return Poll::Ready(Ok(socket)),
                    Poll::Ready(Err(error)) => {
                        self.failures.push((*number, error));
                        drop(self.attempts.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            let last_goes_on = self
                .attempts
                .last()
                .is_some_and(|&(number, _)| number == self.begun);
            if last_goes_on && !self.is_late(context) {
                return Poll::Pending;
            }
            let Some(address) = self.left.next() else {
                return if self.attempts.is_empty() {
                    Poll::Ready(Err(failure(&mut self.failures)))
                } else {
                    Poll::Pending
                };
            };
            let event_loop = self.event_loop;
            let attempt = async move { event_loop.connect(&address.into()).await };
            self.begun += 1;
            self.attempts.push((self.begun, Box::pin(attempt)));
            self.patience = self.delay.map(|delay| Box::pin(sleep(delay)) as Pending<_>);
        }
    }

    /// Whether the last attempt has had its time.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let patience = self.patience.as_mut();
        let is_late = patience.is_some_and(|patience| patience.as_mut().poll(context).is_ready());
        if is_late {
            self.patience = None;
        }
        is_late
    }
}

/// Has the families take turns behind the first `count` of the first one's, less one.
fn interleaved(addresses: &[SocketAddr], count: usize) -> Vec<SocketAddr> {
    let Some(first) = addresses.first().filter(|_| count > 0) else {
        return addresses.to_vec();
    };
    let (own, others): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let (ahead, own) = own.split_at((count - 1).min(own.len()));
    let mut ordered = ahead.to_vec();
    let (mut own, mut others) = (own.iter(), others.iter());
    loop {
        let before = ordered.len();
        ordered.extend(own.next());
        ordered.extend(others.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// One error for all: as it is where all say the same.
fn failure(failures: &mut Vec<(usize, Error)>) -> Error {
    failures.sort_by_key(|&(number, _)| number);
    let texts: Vec<String> = failures.iter().map(|(_, error)| error.to_string()).collect();
    let first = failures.drain(..).map(|(_, error)| error).next();
    match (first, texts.split_first()) {
        (Some(Error::Io(error)), Some((text, others))) if others.iter().any(|other| other != text) => {
            let all = format!("Multiple exceptions: {}", texts.join(", "));
            Error::Io(io::Error::new(error.kind(), all))
        }
        (Some(error), _) => error,
        (None, _) => Error::Io(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_behind_the_first_ones_head() {
        let order = |addresses: &str, count| {
            let addresses: Vec<SocketAddr> = addresses
                .chars()
                .enumerate()
                .map(|(index, family)| match family {
                    '4' => ([127, 0, 0, index as u8], 1).into(),
                    _ => ([0, 0, 0, 0, 0, 0, 0, index as u16], 1).into(),
                })
                .collect();
            let ordered = interleaved(&addresses, count);
            assert!(addresses.iter().all(|address| ordered.contains(address)));
            let families = ordered
                .iter()
                .map(|address| if address.is_ipv4() { '4' } else { '6' });
            families.collect::<String>()
        };
        assert_eq!(order("666444", 0), "666444");
        assert_eq!(order("666444", 1), "646464");
        assert_eq!(order("666444", 2), "664644");
        assert_eq!(order("666444", 9), "666444");
        assert_eq!(order("4466", 1), "4646");
        assert_eq!(order("4", 3), "4");
        assert_eq!(order("", 1), "");
    }
}
