//! Files sent over connections.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::error::Error;
use super::event_loop::BaseEventLoop;
use super::stream::{Stream, aborted};
use super::transport::Transport;
use crate::sys;

/// What the kernel sends at once, at most (`sendfile(2)`).
const MAX_BLOCK: usize = 0x7fff_f000;

/// What is read at once where the kernel cannot send a file itself (asyncio's number).
const READ: usize = 256 * 1024;

impl BaseEventLoop {
    /// Sends bytes of a file over a connection, behind what was written before: from `offset` on, `count` of them or all
    /// up to its end. Answers how many that were; the file's position is behind them then.
    ///
    /// Over TCP and Unix sockets the kernel sends them without reading them into this process; nothing is received and
    /// [`Transport::write`] is refused meanwhile. For TLS they are read in a thread of the loop's executor. Given up, it
    /// has sent a part, and the position stays.
    ///
    /// # Errors
    /// `NotConnected` for a transport that closes, `ConnectionAborted` if that happens meanwhile, `Unsupported` for a
    /// pipe, and the kernel's.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    /// use hotloop::asyncio::{Error, Protocol, SelectorEventLoop, Transport, get_running_loop};
    /// struct Silent;
    /// impl Protocol for Silent {
    ///     fn data_received(&self, _: &Transport, _: &[u8]) {}
    /// }
    /// let (near, far) = UnixStream::pair()?;
    /// SelectorEventLoop::new()?.run_until_complete(async move {
    ///     let event_loop = get_running_loop()?;
    ///     let (transport, _) = event_loop.create_connection_with_sock(|| Rc::new(Silent), near).await?;
    ///     transport.write(b"the manifest: ")?;
    ///     event_loop.sendfile(&transport, &File::open("Cargo.toml")?, 0, None).await?;
    ///     transport.close();
    ///     Ok::<_, Error>(())
    /// })??;
    /// let text = std::fs::read_to_string("Cargo.toml")?;
    /// assert_eq!(std::io::read_to_string(far)?, format!("the manifest: {text}"));
    /// # Ok::<(), Error>(())
    /// ```
    pub async fn sendfile(
        &self,
        transport: &Transport,
        file: &File,
        offset: u64,
        count: Option<u64>,
    ) -> Result<u64, Error> {
        if transport.is_closing() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "Transport is closing").into());
        }
        let Some(stream) = transport.stream() else {
            return self.send_read(transport, file, offset, count).await;
        };
        let sending = Sending::begin(stream)?;
        stream.flushed().await?;
        send_blocks(file, offset, count, async |from, block| {
            sending.send(file.as_raw_fd(), from, block).await
        })
        .await
    }

    /// The same by reading and writing.
    async fn send_read(
        &self,
        transport: &Transport,
        file: &File,
        offset: u64,
        count: Option<u64>,
    ) -> Result<u64, Error> {
        let source = Arc::new(file.try_clone()?);
        send_blocks(file, offset, count, async |from, block| {
            let source = Arc::clone(&source);
            let read = self.run_in_executor(move || {
                let mut bytes = vec![0; block.min(READ)];
                let count = source.read_at(&mut bytes, from.unsigned_abs())?;
                bytes.truncate(count);
                Ok::<_, io::Error>(bytes)
            })?;
            let bytes = read.await??;
            transport.flushed().await?;
            if transport.is_closing() {
                return Err(aborted());
            }
            transport.write(&bytes)?;
            Ok(bytes.len())
        })
        .await
    }
}

/// A connection over which a file is sent. Dropped, it goes on as before.
struct Sending<'a> {
    stream: &'a Stream,
    was_paused: bool,
}

impl<'a> Sending<'a> {
    fn begin(stream: &'a Stream) -> Result<Self, Error> {
        if !stream.is_socket() {
            let refused = "sendfile is not supported for a pipe: read the file and write() it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, refused).into());
        }
        if stream.set_sending_file(true) {
            let busy = "another file is being sent over this connection: await that first";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy).into());
        }
        let was_paused = stream.is_paused();
        stream.pause_reading();
        Ok(Self { stream, was_paused })
    }

    /// Sends a part of a file. Answers how much of it.
    async fn send(&self, file: RawFd, from: i64, block: usize) -> Result<usize, Error> {
        loop {
            let fd = self.stream.fileno().filter(|_| !self.stream.is_closing());
            let fd = fd.ok_or_else(aborted)?;
            match sys::send_file(fd, file, from, block) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable(fd).await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.stream.set_sending_file(false);
        if !self.was_paused {
            self.stream.resume_reading();
        }
    }
}

/// Sends a file block by block, as `send` sends from an offset so many bytes at most, until it sends none. Sets the
/// file's position behind what was sent.
pub(crate) async fn send_blocks(
    file: &File,
    offset: u64,
    count: Option<u64>,
    mut send: impl AsyncFnMut(i64, usize) -> Result<usize, Error>,
) -> Result<u64, Error> {
    let mut sent = 0;
    let result = loop {
        let left = count.map_or(u64::MAX, |count| count - sent);
        let block = usize::try_from(left).unwrap_or(usize::MAX).min(MAX_BLOCK);
        if block == 0 {
            break Ok(());
        }
        let Ok(from) = i64::try_from(offset + sent) else {
            break Err(Error::Io(io::ErrorKind::InvalidInput.into()));
        };
        match send(from, block).await {
            Ok(0) => break Ok(()),
            Ok(more) => sent += more as u64,
            Err(error) => break Err(error),
        }
    };
    if sent > 0 {
        let mut position: &File = file;
        position.seek(SeekFrom::Start(offset + sent))?;
    }
    result.map(|()| sent)
}
