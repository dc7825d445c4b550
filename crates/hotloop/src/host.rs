//! What the engine runs for.

/// The program on top of an [`EventLoop`](crate::EventLoop): it names the things that the engine keeps and hands back,
/// and answers the one question the engine has about them.
///
/// The engine never runs any of these: it gives them out, one [`Event`](crate::Event) at a time, while it holds no
/// state of its own borrowed. So whatever the host runs may call the engine again.
pub trait Host {
    /// A scheduled callback: what `call_soon` queues and what a watched descriptor calls.
    type Handle: Clone;
    /// A callback with a due time.
    type Timer;
    /// The host's own object for a transport, of a stream or of datagrams.
    type Stream: Clone;
    /// Bytes on their way out, owned until the kernel has taken the last of them.
    ///
    /// Their address must not move while they are owned: a driver may lend it to the kernel.
    type Bytes: AsRef<[u8]>;

    /// Whether a timer was cancelled since it was scheduled.
    ///
    /// Asked only of timers that the engine holds; it must run no foreign code.
    fn is_cancelled(timer: &Self::Timer) -> bool;
}
