//! What a program does to a TLS connection: the functions of a `Transport`.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::rc::Rc;

use rustls::Writer;

use super::{SHUTDOWN, Stage, Tls};
use crate::asyncio::error::Error;
use crate::asyncio::event_loop::BaseEventLoop;
use crate::asyncio::protocol::Protocol;
use crate::asyncio::stream::aborted;
use crate::asyncio::transport::Transport;
use crate::driver::SocketAddress;
use crate::transport::InvalidLimits;

impl Tls {
    pub(crate) fn write(&self, data: &[u8]) -> Result<(), Error> {
        self.write_by(|writer| writer.write_all(data))
    }

    pub(crate) fn writelines(&self, lines: Vec<Vec<u8>>) -> Result<(), Error> {
        self.write_by(|writer| lines.iter().try_for_each(|line| writer.write_all(line)))
    }

    /// Writes, where a write is not refused or in vain.
    fn write_by(&self, write: impl FnOnce(&mut Writer<'_>) -> io::Result<()>) -> Result<(), Error> {
        match self.stage.get() {
            Stage::Open if self.end_written.get() => Err(Error::EndWritten),
            Stage::Open => {
                let written = write(&mut self.connection.borrow_mut().writer());
                self.send();
                Ok(written?)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn can_write_eof(&self) -> bool {
        true
    }

    /// Says goodbye, and goes on reading: TLS has a half-close too, unlike asyncio's.
    pub(crate) fn write_eof(&self) {
        if self.stage.get() == Stage::Open && !self.end_written.replace(true) {
            self.connection.borrow_mut().send_close_notify();
            self.send();
        }
    }

    pub(crate) fn close(&self) {
        match self.stage.get() {
            Stage::Handshake => self.abort(),
            Stage::Open => {
                self.write_eof();
                self.stage.set(Stage::Closing);
                self.start_timer(SHUTDOWN, "TLS shutdown timed out");
                // What the peer still sends is read and dropped: unread, it would have the kernel reset the connection,
                // and the peer lose what was sent last.
                if let Some(lower) = self.lower.get() {
                    lower.resume_reading();
                }
                self.take_incoming();
            }
            Stage::Closing | Stage::Lost => {}
        }
    }

    pub(crate) async fn flushed(&self) -> Result<(), Error> {
        let lower = self.lower.get().ok_or_else(aborted)?;
        // Boxed: a transport stands on a transport.
        Box::pin(lower.flushed()).await
    }

    pub(crate) fn abort(&self) {
        if let Some(lower) = self.lower.get() {
            lower.abort();
        }
    }

    pub(crate) fn fail(&self, error: io::Error) {
        if let Some(lower) = self.lower.get() {
            lower.fail(error);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.stage.get() >= Stage::Closing || self.lower.get().is_none_or(Transport::is_closing)
    }

    pub(crate) fn pause_reading(&self) {
        if self.stage.get() == Stage::Open {
            self.paused.set(true);
            if let Some(lower) = self.lower.get() {
                lower.pause_reading();
            }
        }
    }

    pub(crate) fn resume_reading(&self) {
        if !self.paused.replace(false) {
            return;
        }
        if let Some(lower) = self.lower.get() {
            lower.resume_reading();
        }
        if let Some(this) = self.me.upgrade() {
            // Not at once: whoever resumes does not expect to be called.
            drop(self.event_loop.call_soon(move || this.take_incoming()));
        }
    }

    pub(crate) fn is_reading(&self) -> bool {
        !self.paused.get() && !self.is_closing()
    }

    pub(crate) fn get_write_buffer_size(&self) -> usize {
        self.lower.get().map_or(0, Transport::get_write_buffer_size)
    }

    pub(crate) fn set_write_buffer_limits(
        &self,
        high: Option<usize>,
        low: Option<usize>,
    ) -> Result<(), InvalidLimits> {
        self.lower
            .get()
            .map_or(Ok(()), |lower| lower.set_write_buffer_limits(high, low))
    }

    pub(crate) fn get_write_buffer_limits(&self) -> (usize, usize) {
        self.lower
            .get()
            .map_or((0, 0), Transport::get_write_buffer_limits)
    }

    pub(crate) fn peer(&self) -> Option<&SocketAddress> {
        self.lower.get()?.peer()
    }

    pub(crate) fn fileno(&self) -> Option<RawFd> {
        self.lower.get()?.fileno()
    }

    pub(crate) fn set_protocol(&self, protocol: Rc<dyn Protocol>) {
        let old = self.protocol.replace(Some(protocol));
        drop(old);
    }

    pub(crate) fn event_loop(&self) -> &BaseEventLoop {
        &self.event_loop
    }
}
