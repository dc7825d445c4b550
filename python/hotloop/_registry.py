"""``loop._transports``, for inherited code and for tools that look there."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

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


def _is_number(fd: Any) -> bool:
    """Whether it may be the number of a descriptor."""
    return isinstance(fd, int) and 0 <= fd <= 0x7FFFFFFF
