"""``loop._transports`` and ``Server._clients``, for inherited code and for tools that look there."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, MutableMapping, MutableSet
from typing import TYPE_CHECKING, Any

from ._hotloop import SocketTransport

if TYPE_CHECKING:
    from ._hotloop import Loop


class TransportsView(MutableMapping[int, Any]):
    """The transports of sockets by descriptor, none of which it keeps alive: asyncio's dictionary of weak references.

    Native ones are entered natively; those of other classes are kept beside them.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __getitem__(self, fd: int) -> Any:
        transport = self._loop._transport(fd) if _is_number(fd) else None
        if transport is None:
            transport = (self._loop._foreign_transports or {})[fd]
        return transport

    def __setitem__(self, fd: int, transport: Any) -> None:
        self.pop(fd, None)
        if _is_number(fd) and self._loop._keep_transport(fd, transport):
            return
        foreign = self._loop._foreign_transports
        if foreign is None:
            foreign = self._loop._foreign_transports = weakref.WeakValueDictionary[int, asyncio.BaseTransport]()
        foreign[fd] = transport

    def __delitem__(self, fd: int) -> None:
        if not (_is_number(fd) and self._loop._forget_transport(fd)):
            del (self._loop._foreign_transports or {})[fd]

    def __iter__(self) -> Iterator[int]:
        return iter([*(fd for fd, _ in self._loop._live_transports()), *(self._loop._foreign_transports or ())])

    def __len__(self) -> int:
        return len(self._loop._live_transports()) + len(self._loop._foreign_transports or ())


class ServerClients(MutableSet[Any]):
    """The transports of a server, none of which it keeps alive: ``Server._clients`` since Python 3.13.

    Of native ones it only counts how many there are. Each knows its server, and tells it when it goes.
    """

    def __init__(self, loop: Loop, server: asyncio.AbstractServer) -> None:
        self._loop = loop
        # Which refers to this.
        self._server = weakref.ref(server)
        #: How many native transports there are.
        self._count = 0
        self._foreign: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def take_over(cls, loop: Loop, server: Any) -> None:
        """Have a server that has no transports yet keep them so, if it is asyncio's own and keeps them weakly."""
        if type(server) is asyncio.Server and type(getattr(server, "_clients", None)) is weakref.WeakSet:  # noqa: SIM102
            if not server._clients:  # type: ignore[attr-defined]
                server._clients = cls(loop, server)  # type: ignore[attr-defined]

    def add(self, transport: Any) -> None:
        """Note a transport that the server has accepted."""
        if type(transport) is SocketTransport:
            self._count += 1
        else:
            self._foreign.add(transport)

    def discard(self, transport: Any) -> None:
        """Note that a transport is gone."""
        if type(transport) is SocketTransport:
            self._count -= 1
        else:
            self._foreign.discard(transport)

    def copy(self) -> set[Any]:
        """The transports, kept alive."""
        return set(self)

    def __contains__(self, transport: object) -> bool:
        return transport in self.copy()

    def __iter__(self) -> Iterator[Any]:
        server = self._server()
        native = [
            transport for _, transport in self._loop._live_transports() if getattr(transport, "_server", None) is server
        ]
        return iter([*native, *self._foreign])

    def __len__(self) -> int:
        return self._count + len(self._foreign)


def _is_number(fd: Any) -> bool:
    """Whether it may be the number of a descriptor."""
    return isinstance(fd, int) and 0 <= fd <= 0x7FFFFFFF
