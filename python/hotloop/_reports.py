"""What the native code reports through asyncio's own loggers and handlers: errors, slow callbacks, warnings.

None of this runs per callback or per packet.
"""

from __future__ import annotations

import asyncio
import errno
import warnings
from asyncio import base_events, constants, format_helpers, selector_events
from asyncio.log import logger
from typing import Any

from . import _hotloop


def callback_failed(loop: asyncio.AbstractEventLoop, handle: Any, *, exception: BaseException) -> None:
    """Report an exception of a handle's callback, as ``Handle._run`` does."""
    source = format_helpers._format_callback_source(handle._callback, handle._args)
    context = {"message": f"Exception in callback {source}", "exception": exception, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    loop.call_exception_handler(context)


def handle_ran(loop: Any, handle: Any, seconds: float) -> None:
    """Warn of a callback that held the loop up, in debug mode."""
    if seconds >= loop.slow_callback_duration:
        name = base_events._format_handle(handle)  # type: ignore[attr-defined]
        base_events.logger.warning("Executing %s took %.3f seconds", name, seconds)  # type: ignore[attr-defined]


def transport_ran(loop: Any, transport: Any, seconds: float) -> None:
    """Warn of a protocol that held the loop up, in debug mode."""
    if seconds >= loop.slow_callback_duration:
        base_events.logger.warning("Executing %s took %.3f seconds", f"a method of {transport._protocol!r}", seconds)  # type: ignore[attr-defined]


def read_pipe_failed(transport: Any, exception: BaseException, message: str) -> None:
    """Report what ends the reading of a pipe: a terminal that hung up in debug mode only, anything else always."""
    loop = transport._loop
    if isinstance(exception, OSError) and exception.errno == errno.EIO:
        if loop.get_debug():
            logger.debug("%r: %s", transport, message, exc_info=exception)
        return
    loop.call_exception_handler(
        {"message": message, "exception": exception, "transport": transport, "protocol": transport._protocol}
    )


def write_to_lost_pipe() -> None:
    """Warn of a program that goes on writing to a pipe that nobody reads."""
    logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")


def pipe_closed_by_peer(transport: Any) -> None:
    """Log that the other end of a pipe is gone, in debug mode."""
    logger.info("%r was closed by peer", transport)


def pipe_pauses(transport: Any) -> None:
    """Log that a pipe is not read for now, in debug mode."""
    logger.debug("%r pauses reading", transport)


def pipe_resumes(transport: Any) -> None:
    """Log that a pipe is read again, in debug mode."""
    logger.debug("%r resumes reading", transport)


def pipe_repr(transport: Any, name: str, polling: bool, queued: int | None = None) -> str:
    """The text of a pipe's transport, in asyncio's form; ``queued`` is what waits to be written, in bytes."""
    info = [name]
    if transport._pipe is None:
        info.append("closed")
    elif transport.is_closing():
        info.append("closing")
    info.append(f"fd={transport._fileno}")
    loop = transport._loop
    if transport._pipe is None:
        info.append("closed")
    elif loop is None or loop.is_closed():
        info.append("open")
    else:
        info.append("polling" if polling else "idle")
        if queued is not None:
            info.append(f"bufsize={queued}")
    return f"<{' '.join(info)}>"


def transport_event_failed(
    loop: asyncio.AbstractEventLoop, transport: Any, exception: BaseException, receiving: bool
) -> None:
    """Report an exception out of a transport's event that no protocol method accounts for."""
    name = _READERS.get(type(transport))
    if name is None:
        message = f"Exception in an event of {transport!r}"
        loop.call_exception_handler({"message": message, "exception": exception, "transport": transport})
        return
    callback = "_read_ready" if receiving else "_sendto_ready"
    handle = asyncio.Handle(getattr(transport, callback), (), loop)
    message = f"Exception in callback {name}.{callback}()"
    loop.call_exception_handler({"message": message, "exception": exception, "handle": handle})


# The classes of asyncio whose events are callbacks that their protocols' exceptions come out of.
_READERS: dict[type, str] = {
    _hotloop.DatagramTransport: "_SelectorDatagramTransport",
    _hotloop.ReadPipeTransport: "_UnixReadPipeTransport",
}


def transport_failed(transport: Any, exception: BaseException, message: str) -> None:
    """Report what ends a transport: a lost connection in debug mode only, anything else always."""
    loop = transport._loop
    if loop is None:
        return
    if isinstance(exception, OSError):
        if loop.get_debug():
            selector_events.logger.debug("%r: %s", transport, message, exc_info=exception)  # type: ignore[attr-defined]
        return
    loop.call_exception_handler(
        {"message": message, "exception": exception, "transport": transport, "protocol": transport._protocol}
    )


def flow_control_failed(transport: Any, exception: BaseException, method: str) -> None:
    """Report an exception of ``pause_writing`` or ``resume_writing``."""
    transport._loop.call_exception_handler(
        {
            "message": f"protocol.{method}() failed",
            "exception": exception,
            "transport": transport,
            "protocol": transport._protocol,
        }
    )


def write_to_lost() -> None:
    """Warn of a program that goes on writing to a lost connection."""
    selector_events.logger.warning("socket.send() raised exception.")  # type: ignore[attr-defined]


def tls_flow_control_failed(connection: Any, exception: BaseException, method: str) -> None:
    """Report an exception of ``pause_writing`` or ``resume_writing`` on a TLS connection."""
    connection._loop.call_exception_handler(
        {
            "message": f"protocol.{method}() failed",
            "exception": exception,
            "transport": connection._app_transport,
            "protocol": connection,
        }
    )


def write_to_lost_tls() -> None:
    """Warn of a program that goes on writing to a TLS connection that has ended."""
    selector_events.logger.warning("SSL connection is closed")  # type: ignore[attr-defined]


def transport_unclosed(transport: Any) -> None:
    """Warn of a transport that went without being closed."""
    warnings.warn(f"unclosed transport {transport!r}", ResourceWarning, source=transport, stacklevel=2)


def accept_failed(loop: asyncio.AbstractEventLoop, exception: BaseException, server: asyncio.Server | None) -> None:
    """Report that an accepted connection is not served: always, but for one that a closed server is too late for."""
    if server is None or server.sockets:
        message = "Error on transport creation for incoming connection"
        loop.call_exception_handler({"message": message, "exception": exception})


def transport_repr(
    transport: Any, closed: bool, reading: bool, queued: int, name: str = "_SelectorSocketTransport"
) -> str:
    """The text of a transport, in asyncio's form."""
    info = [name]
    if closed:
        info.append("closed")
    elif transport.is_closing():
        info.append("closing")
    info.append(f"fd={transport._sock_fd}")
    loop = transport._loop
    if loop is not None and not loop.is_closed():
        info.append("read=polling" if reading else "read=idle")
        info.append(f"write=<{'polling' if queued else 'idle'}, bufsize={queued}>")
    return f"<{' '.join(info)}>"


def write_buffer_limits(high: int | None = None, low: int | None = None) -> tuple[int, int]:
    """The marks of flow control in bytes, high then low, out of what a program gives."""
    if high is None:
        high = 64 * 1024 if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    # A fraction of a byte makes no difference to a comparison with a number of bytes.
    return int(high // 1), int(low // 1)


assert constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES == 5, "the native transport counts as asyncio does"
