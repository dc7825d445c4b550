"""What transports are given to write where it is not plainly bytes: asyncio's own functions look at it, and raise.

So what is refused, and in which words, is that of the asyncio that runs, which changes with its patch releases.
"""

from __future__ import annotations

from asyncio import selector_events, sslproto
from typing import Any

_Datagrams: Any = selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]

_WRITES: dict[str, Any] = {
    "stream": selector_events._SelectorSocketTransport.write,  # type: ignore[attr-defined]
    "datagram": _Datagrams.sendto,
    "tls": sslproto._SSLProtocolTransport.write,
}


def refuse(kind: str, data: object) -> None:
    """Raise what ``write`` of a ``"stream"`` or ``"tls"``, or ``sendto`` of a ``"datagram"``, raises of a wrong type.

    Each looks at the type of its data before it looks at its transport, so it needs none.

    Raises:
        TypeError: always.
    """
    _WRITES[kind](None, data)


class _Gathered:
    """As much of asyncio's socket transport as its ``writelines`` looks at; what would be sent is kept."""

    _eof = False
    _empty_waiter = None

    def __init__(self, lost: bool) -> None:
        self._conn_lost = int(lost)
        self._buffer: list[memoryview] = []
        self._buffer_size = 0
        self.lines: list[memoryview] = []

    def _write_ready(self) -> None:
        self.lines = self._buffer
        self._buffer = []


def gather(list_of_data: Any, lost: bool) -> list[memoryview] | None:
    """What ``writelines`` of a connected socket's transport would send, from Python 3.12 on.

    Args:
        list_of_data: what it is given.
        lost: whether the connection is lost.

    Returns:
        Views of the lines; None where a lost connection is noted and nothing else is looked at.

    Raises:
        TypeError: for what is no iterable of bytes-like objects.
    """
    gathered = _Gathered(lost)
    selector_events._SelectorSocketTransport.writelines(gathered, list_of_data)  # type: ignore[attr-defined]
    return None if gathered._conn_lost > lost else gathered.lines


class _Queueing:
    """As much of asyncio's datagram transport as its ``sendto`` looks at behind a datagram that waits."""

    _address = None
    _conn_lost = 0
    _header_size = getattr(_Datagrams, "_header_size", None)

    def __init__(self) -> None:
        self._buffer = [(b"waits", None)]
        self._buffer_size = 0

    def _maybe_pause_protocol(self) -> None:
        """Nobody is told."""


def datagram_overhead() -> int | None:
    """What a datagram that waits counts besides its bytes; None where an empty one is not sent.

    Both changed with Python 3.13, and how asyncio writes it down with a later release of that.
    """
    asked = _Queueing()
    _Datagrams.sendto(asked, b"", None)
    return asked._buffer_size if len(asked._buffer) > 1 else None


class _SelectorDatagramTransport:
    def sendto(self, data: Any, addr: Any = None) -> tuple[Any, Any]:
        return data, addr


# The arguments of a `sendto` that is not called plainly; a wrong call is a TypeError in asyncio's words.
read_sendto = _SelectorDatagramTransport().sendto
