//! What the engine has under a transport, by its key: a stream or a datagram endpoint.

use std::io;

use hotloop::transport::{Close, Datagrams, FlowControl, Stream};
use hotloop::{DatagramEvent, EndpointKey, Queued, StreamEvent, StreamKey};

use crate::ffi::Bytes;
use crate::host::Engine;
use crate::transports::Transport;

/// The engine's name for what is under a transport, and what can be done to it by that name.
pub(crate) trait Key: Copy + 'static {
    /// Its state.
    type State;
    /// What the engine tells of it.
    type News;

    /// Its state; `None` once it is released.
    fn state(self, engine: &mut Engine) -> Option<&mut Self::State>;

    /// Its flow control, and how much is queued in bytes.
    fn flow(state: &mut Self::State) -> (&mut FlowControl, usize);

    /// Whether the news are of receiving, and not of sending.
    fn is_of_receiving(news: &Self::News) -> bool;

    /// Starts to receive.
    ///
    /// # Errors
    /// The kernel's.
    fn start_reading(self, engine: &mut Engine, host: Transport) -> io::Result<()>;

    /// Stops receiving, and answers the host's object if it was kept for that.
    fn stop_reading(self, engine: &mut Engine) -> Option<Transport>;

    /// Sends what is gathered in this turn.
    fn flush_now(self, engine: &mut Engine);

    /// Begins the orderly end.
    fn close(self, engine: &mut Engine) -> Close;

    /// Ends it at once.
    fn abort(self, engine: &mut Engine);

    /// Takes it from the engine.
    fn release(self, engine: &mut Engine);
}

impl Key for StreamKey {
    type State = Stream<Queued<Bytes>>;
    type News = StreamEvent;

    #[inline]
    fn state(self, engine: &mut Engine) -> Option<&mut Self::State> {
        engine.stream(self)
    }

    fn flow(state: &mut Self::State) -> (&mut FlowControl, usize) {
        (&mut state.flow, state.queue.len())
    }

    #[inline]
    fn is_of_receiving(news: &StreamEvent) -> bool {
        matches!(news, StreamEvent::Readable)
    }

    fn start_reading(self, engine: &mut Engine, host: Transport) -> io::Result<()> {
        engine.start_reading(self, host)
    }

    fn stop_reading(self, engine: &mut Engine) -> Option<Transport> {
        engine.stop_reading(self)
    }

    fn flush_now(self, engine: &mut Engine) {
        engine.flush_now(self);
    }

    fn close(self, engine: &mut Engine) -> Close {
        engine.close(self)
    }

    fn abort(self, engine: &mut Engine) {
        engine.abort(self);
    }

    fn release(self, engine: &mut Engine) {
        engine.release(self);
    }
}

impl Key for EndpointKey {
    type State = Datagrams<Bytes>;
    type News = DatagramEvent;

    #[inline]
    fn state(self, engine: &mut Engine) -> Option<&mut Self::State> {
        engine.endpoint(self)
    }

    fn flow(state: &mut Self::State) -> (&mut FlowControl, usize) {
        let size = state.size();
        (&mut state.flow, size)
    }

    #[inline]
    fn is_of_receiving(news: &DatagramEvent) -> bool {
        matches!(news, DatagramEvent::Readable)
    }

    fn start_reading(self, engine: &mut Engine, host: Transport) -> io::Result<()> {
        engine.resume_endpoint(self, host)
    }

    fn stop_reading(self, engine: &mut Engine) -> Option<Transport> {
        engine.pause_endpoint(self);
        None
    }

    /// Nothing: each datagram is sent by itself.
    fn flush_now(self, _engine: &mut Engine) {}

    fn close(self, engine: &mut Engine) -> Close {
        engine.close_endpoint(self)
    }

    fn abort(self, engine: &mut Engine) {
        engine.abort_endpoint(self);
    }

    fn release(self, engine: &mut Engine) {
        engine.release_endpoint(self);
    }
}
