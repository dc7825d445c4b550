"""Addresses of a network in memory, and who has them."""

from __future__ import annotations

import errno
import os
from typing import Any, Generic, TypeVar

__all__ = ["LOOPBACK", "Addresses", "Ports", "path_of", "plain"]

_T = TypeVar("_T")

# Hosts that stand for every address of the machine.
_ANY = frozenset({None, "", "0.0.0.0", "::"})

# Names of the machine itself.
_SELF = frozenset({"localhost", "ip6-localhost", "::1"})

#: The host that connections come from.
LOOPBACK = "127.0.0.1"


class Ports:
    """Ports that nobody has: one after the other, so that a program that fails prints the same ones each time."""

    def __init__(self) -> None:
        self._last = 40000

    def new(self) -> int:
        """A port that was never given."""
        self._last += 1
        return self._last


class Addresses(Generic[_T]):
    """Who has which address: a pair of a host and a port, or the path of a Unix socket.

    The host ``None`` stands for all. Any other name is an address of its own: nothing is resolved.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._holders: dict[Any, _T] = {}

    def free(self, address: Any) -> Any:
        """Answer an address that may be taken: with port 0 or ``None`` one with a new port.

        :raises OSError: if somebody has it.
        """
        if isinstance(address, tuple):
            host, port = address
            address = (host, port or self._ports.new())
        if self.find(address) is not None:
            raise OSError(errno.EADDRINUSE, f"error while attempting to bind on address {address!r}: in use")
        return address

    def take(self, address: Any, holder: _T) -> None:
        """Give a free address to somebody."""
        self._holders[address] = holder

    def give_back(self, address: Any, holder: _T) -> None:
        """Have an address be free again, if it is still this one's."""
        if self._holders.get(address) is holder:
            del self._holders[address]

    def find(self, address: Any) -> _T | None:
        """Who is reached at an address."""
        found = self._holders.get(address)
        if found is not None or not isinstance(address, tuple):
            return found
        host, port = address
        if host is not None:
            return self._holders.get((None, port))
        return next((holder for at, holder in self._holders.items() if isinstance(at, tuple) and at[1] == port), None)

    def clear(self) -> None:
        """Have every address be free."""
        self._holders.clear()


def plain(address: Any) -> Any:
    """One form for each address: names of the machine and of all hosts are the same, whichever is used."""
    if not isinstance(address, tuple):
        return address
    host, port = address[:2]
    if isinstance(host, bytes):
        host = host.decode()
    if host in _ANY:
        host = None
    elif host in _SELF:
        host = LOOPBACK
    return host, int(port or 0)


def path_of(path: Any) -> Any:
    """The address of a Unix socket as sockets name it: text, or bytes where it is of the abstract kind."""
    path = os.fspath(path)
    return os.fsdecode(path) if isinstance(path, bytes) and path[:1] != b"\0" else path
